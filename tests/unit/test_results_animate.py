"""Animation with a fake engine: what moves, what is written, what is refused, and what stays when something fails."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, ParamsError, SourceError
from pipelines import animate as stage
from pipelines.animate import AnimateOptions, animate, check_outputs, compute, panels
from pipelines.served.motion import Motion
from preprocessing.video import probe, read_clip, write_gif, write_video

SIZE = 16
LEVELS = (60, 100, 140, 120)
"""Brightness of the driving frames."""


class BrightnessEngine:
    """Its first keypoint's x is the frame's mean brightness; it renders that x as red."""

    size_px = SIZE

    def keypoints(self, frames: np.ndarray) -> Motion:
        value = np.tile(np.float32([[0, 0], [0.5, -0.5], [-0.5, -0.5]]), (len(frames), 1, 1))
        value[:, 0, 0] = frames.reshape(len(frames), -1).mean(axis=1) / 255 * 2 - 1
        return Motion(value, np.broadcast_to(np.eye(2, dtype=np.float32), (len(frames), 3, 2, 2)))

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        frames = np.zeros((len(motion.value), SIZE, SIZE, 3), dtype=np.float32)
        frames[..., 0] = (motion.value[:, 0, 0, None, None] + 1) / 2
        return frames


def plain(level: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.fromarray(plain(200)).save(tmp_path / "source.png")
    return tmp_path / "source.png"


@pytest.fixture
def driving(tmp_path: Path) -> Path:
    write_video(tmp_path / "driving.mp4", (plain(level) for level in LEVELS), fps=10, crf=1)
    return tmp_path / "driving.mp4"


def reds(result: np.ndarray) -> np.ndarray:
    return result[:, SIZE // 2, SIZE // 2, 0].astype(float)


def options(**changes: object) -> AnimateOptions:
    return AnimateOptions(**{"crop": False, "find_best_frame": False, **changes})  # type: ignore[arg-type]


def test_absolute_motion_takes_the_driving_keypoints(source: Path, driving: Path) -> None:
    made = compute(BrightnessEngine(), source, driving, options=options(relative=False))
    np.testing.assert_allclose(reds(made.result), LEVELS, atol=3)
    assert made.reference_frame == 0


def test_relative_motion_adds_the_movement_since_the_first_frame(source: Path, driving: Path) -> None:
    made = compute(BrightnessEngine(), source, driving, options=options())
    np.testing.assert_allclose(reds(made.result), [200, 240, 255, 255], atol=4)


def test_best_frame_is_the_reference(tmp_path: Path, driving: Path) -> None:
    Image.fromarray(plain(139)).save(tmp_path / "near-the-third.png")
    made = compute(BrightnessEngine(), tmp_path / "near-the-third.png", driving, options=options(find_best_frame=True))
    assert made.reference_frame == 2
    np.testing.assert_allclose(reds(made.result), [59, 99, 139, 119], atol=4)


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".GIF"])
def test_a_file_is_written_with_the_driving_videos_rate(source: Path, driving: Path, suffix: str) -> None:
    out = driving.parent / f"new folder/out's{suffix}"
    report = animate(BrightnessEngine(), source, driving, [out], options=options(), model="models:/m/1")
    info = probe(out)
    assert (info.width, info.height, info.num_frames) == (SIZE, SIZE, 4)
    assert info.fps == pytest.approx(10, rel=0.01)
    assert (report.num_frames, report.motion, report.model, report.note) == (4, "relative", "models:/m/1", "")
    assert report.outputs == (str(out),)


def test_side_by_side_shows_three_large_panels(source: Path, driving: Path) -> None:
    out = driving.parent / "wide.gif"
    animate(BrightnessEngine(), source, driving, [out], options=options(side_by_side=True, max_frames=2))
    frames, info = read_clip(out)
    assert info.height == stage.SHOWN_PX
    assert info.width == 3 * stage.SHOWN_PX + 2 * stage.PANEL_GAP_PX
    assert len(frames) == 2
    made = compute(BrightnessEngine(), source, driving, options=options())
    row = next(panels(made))[stage.SHOWN_PX // 2]
    middle = stage.SHOWN_PX // 2
    assert row[middle, 1] == 200
    assert abs(int(row[middle + stage.SHOWN_PX + stage.PANEL_GAP_PX, 1]) - LEVELS[0]) <= 2


def test_pictures_of_all_kinds_can_be_moved(tmp_path: Path, driving: Path) -> None:
    Image.fromarray(plain(200)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([plain(200), np.full((30, 40), 255, np.uint8)])).save(tmp_path / "alpha.png")
    Image.fromarray(np.full((30, 40), 200 * 257, dtype=np.uint16)).save(tmp_path / "sixteen.png")
    write_gif(tmp_path / "moving.gif", [plain(200)] * 2, fps=5)
    for name in ("grey.png", "alpha.png", "sixteen.png", "moving.gif"):
        made = compute(BrightnessEngine(), tmp_path / name, driving, options=options(max_frames=1))
        np.testing.assert_allclose(made.source.frames, 200, atol=2, err_msg=name)


def test_a_driving_picture_gives_one_frame(source: Path, tmp_path: Path) -> None:
    report = animate(BrightnessEngine(), source, source, [tmp_path / "one.gif"], options=options(find_best_frame=True))
    assert report.num_frames == 1
    assert probe(tmp_path / "one.gif").num_frames == 1


def test_where_no_face_is_found_the_middle_is_taken_and_said(
    source: Path, driving: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report = animate(BrightnessEngine(), source, driving, [driving.parent / "x.gif"], options=options(crop=True))
    assert (report.framing_source, report.framing_driving) == ("centre", "centre")
    assert report.note == "No face was found in the source and the driving video; the middle was taken."
    assert "no face found in source.png" in caplog.text


def test_a_face_is_cut_out(samples: Path) -> None:
    face, video = samples / "portraits/man-smiling.jpg", samples / "faces/woman-expressions.mp4"
    made = compute(BrightnessEngine(), face, video, options=options(crop=True, max_frames=17))
    assert (made.source.framing, made.driving.framing) == ("face", "face")
    left, top, right, bottom = made.driving.box
    assert right - left == bottom - top
    assert 100 < right - left <= 360
    assert 100 < (left + right) / 2 < 500
    assert made.driving.frames.shape == (17, SIZE, SIZE, 3)


@pytest.mark.parametrize("name", ["x.avi", "x", "x.png", "x.gif.txt"])
def test_other_files_than_gif_and_mp4_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match=r"out must end in \.gif or \.mp4"):
        check_outputs([Path(name)])


def test_an_input_or_a_folder_is_no_output(source: Path, driving: Path) -> None:
    with pytest.raises(ParamsError, match="another file than the source"):
        check_outputs([driving.parent / "." / driving.name], inputs=[source, driving])
    (driving.parent / "folder.gif").mkdir()
    with pytest.raises(ParamsError, match="name a file, not a folder"):
        check_outputs([driving.parent / "folder.gif"])
    with pytest.raises(EnvironmentProblem, match="be a folder that can be written"):
        check_outputs([source / "inside" / "x.gif"])


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_bad_input_leaves_the_old_result(source: Path, tmp_path: Path, content: bytes | None) -> None:
    out, bad = tmp_path / "old.gif", tmp_path / "bad.mp4"
    out.write_bytes(b"precious")
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(SourceError):
        animate(BrightnessEngine(), source, bad, [out], options=options())
    with pytest.raises(SourceError):
        animate(BrightnessEngine(), bad, source, [out], options=options())
    assert out.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} <= {"old.gif", "bad.mp4", "source.png"}


def test_a_failing_engine_leaves_the_old_result(source: Path, driving: Path) -> None:
    class Failing(BrightnessEngine):
        def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
            raise RuntimeError("out of memory")

    out = driving.parent / "old.mp4"
    out.write_bytes(b"precious")
    with pytest.raises(RuntimeError, match="out of memory"):
        animate(Failing(), source, driving, [out], options=options())
    assert out.read_bytes() == b"precious"


def test_one_pixel_is_refused(tmp_path: Path, driving: Path) -> None:
    Image.fromarray(plain(9, 1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(SourceError, match="at least 2 px high and wide; got 1x1"):
        compute(BrightnessEngine(), tmp_path / "dot.png", driving, options=options())
