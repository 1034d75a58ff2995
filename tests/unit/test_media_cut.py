"""One item to clips or stills, and media taken in: what is bad is turned away with its reason, alone."""

from __future__ import annotations

import itertools
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, SourceError
from pipelines import download
from pipelines.params import Params, parse
from pipelines.stage import Paths
from preprocessing import crop as cropping
from preprocessing import track as tracking
from preprocessing.boxes import Box, iou
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames, cut_item, square_face_box
from preprocessing.datasets.local import LocalFolder, safe_names
from preprocessing.ledger import LedgerRow, read_ledger
from preprocessing.pose import FILES, weights_folder
from preprocessing.video import open_video, read_clip, read_picture, write_video
from preprocessing.video_ffmpeg import executable


def config(**changes: object) -> DatasetConfig:
    small = {"size_px": 32, "min_frames": 4, "min_side_px": 16, "source": "x"}
    return DatasetConfig(**{"kind": "cartoons", **small, **changes})  # type: ignore[arg-type]


def row_of(path: Path) -> LedgerRow:
    return LedgerRow(item=path.name, origin=path.name, state="kept", sha256=sha256_of(path))


def made_gif(path: Path, *, width: int = 60, height: int = 40, num_frames: int = 12) -> Path:
    frames = []
    for number in range(num_frames):
        frame = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        frame.paste((200, 30, 30, 255), (number, 10, number + 20, 30))
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, disposal=2, loop=0)
    return path


def noise(num_frames: int, *, width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (num_frames, height // 8, width // 8, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def params(source: Path, **changes: object) -> Params:
    dataset = {"kind": "cartoons", "source": str(source), "min_frames": 4, **changes}
    return parse({"profile": "p", "profiles": {"p": {}}, "datasets": {"d": dataset}})


def test_a_gif_is_cut_whole_on_white(tmp_path: Path) -> None:
    source = made_gif(tmp_path / "a.gif")
    result = cut_item(row_of(source), source, config(crf=4), tmp_path)
    (clip,) = result.clips
    assert (clip.id, clip.num_frames, clip.fps, clip.box) == ("a-000000", 12, 12.5, (0, -10, 60, 50))
    assert (result.row.state, result.row.num_clips, result.row.decoder) == ("kept", 1, "pillow")
    assert (result.num_frames, result.seconds) == (12, pytest.approx(0.96))
    frames, _ = read_clip(tmp_path / clip.path)
    assert frames.shape == (12, 32, 32, 3)
    assert frames[:, :4].min() > 240, "padded on white"
    assert frames[0, 16, 2].tolist() == pytest.approx([200, 30, 30], abs=16)
    assert sha256_of(tmp_path / clip.path) == clip.sha256


def test_cutting_twice_gives_the_same(tmp_path: Path, samples: Path) -> None:
    source = samples / "faces" / "man-smile.mp4"
    faces = config(kind="faces", split="time")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one, other = (cut_item(row_of(source), source, faces, folder) for folder in folders)
    assert one == other
    assert [clip.split for clip in one.clips] == ["train", "test"]


def test_frames_come_from_memory_or_from_a_second_pass_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.mp4"
    write_video(source, noise(40), fps=25)
    kept = cut_item(row_of(source), source, config(), tmp_path)
    monkeypatch.setattr(cropping, "KEPT_BYTES", 0)
    again = cut_item(row_of(source), source, config(), tmp_path)
    assert kept == again


def test_the_title_card_is_left_out(tmp_path: Path, samples: Path) -> None:
    source = samples / "faces" / "man-then-title-card.mov"
    result = cut_item(row_of(source), source, config(kind="faces", min_frames=16, split="source"), tmp_path)
    (clip,) = result.clips
    assert accounted(result) == 169
    assert clip.start_frame == 0
    assert abs(clip.start_frame + clip.num_frames - 1 - 71) <= 3
    assert (result.num_frames, result.row.decoder, clip.decoder) == (169, "ffmpeg", "ffmpeg")
    assert result.dropped["no-subject"] == 169 - clip.num_frames


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_frames": 20, "max_frames": 30}, "too-short"),
        ({"min_side_px": 70}, "too-small"),
        ({"min_source_px": 41}, "too-small"),
        ({"kind": "faces"}, "no-subject"),
        ({"max_source_frames": 11}, "too-long"),
        ({"max_source_pixels": 2000}, "too-large"),
    ],
)
def test_an_item_without_a_clip_is_rejected(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    source = made_gif(tmp_path / "a.gif")
    result = cut_item(row_of(source), source, config(**changes), tmp_path)
    assert (result.row.state, result.row.reason, result.clips) == ("rejected", reason, ())
    assert " must " in result.row.detail
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_an_unforeseen_failure_stops_only_its_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made_gif(tmp_path / "a.gif")

    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("made to fail")

    monkeypatch.setattr(cropping, "crop_frames", break_down)
    result = cut_item(row_of(source), source, config(), tmp_path)
    assert (result.row.state, result.row.reason) == ("rejected", "failed")
    assert "ZeroDivisionError: made to fail" in result.row.detail
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_a_full_disk_is_no_items_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made_gif(tmp_path / "a.gif")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cropping, "VideoWriter", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        cut_item(row_of(source), source, config(), tmp_path)


def test_long_clips_are_cut_and_the_rest_is_accounted_for(tmp_path: Path) -> None:
    source = made_gif(tmp_path / "a.gif", num_frames=23)
    result = cut_item(row_of(source), source, config(max_frames=10), tmp_path)
    assert [(clip.id, clip.num_frames) for clip in result.clips] == [("a-000000", 10), ("a-000010", 10)]
    assert result.dropped == {"too-short": 3}


def test_bodies_without_movement_are_cut_from_the_middle(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    write_video(source, noise(1)[0][None].repeat(12, axis=0), fps=25)
    result = cut_item(row_of(source), source, config(kind="bodies", body_detector="motion"), tmp_path)
    assert [clip.box for clip in result.clips] == [(16, 0, 80, 64)]


def test_bodies_cut_whole_are_seen_whole(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    frames = np.full((12, 96, 48, 3), 250, np.uint8)
    frames[:, :8] = (200, 30, 30)
    frames[:, -8:] = (30, 30, 200)
    write_video(source, frames, fps=25, crf=4)
    result = cut_item(row_of(source), source, config(kind="bodies", cut="whole", crf=4), tmp_path)
    (clip,) = result.clips
    assert clip.box == (-24, 0, 72, 96)
    seen = read_clip(tmp_path / clip.path)[0][0].astype(int)
    assert seen[0, 16, 0] > 150, "the head's end"
    assert seen[-1, 16, 2] > 150, "the feet's end"
    assert seen[16].min() > 230, "the background goes on beside the frame"


@pytest.mark.parametrize("split", ["train", "test", None])
def test_the_official_split_is_the_rows(tmp_path: Path, split: str | None) -> None:
    source = made_gif(tmp_path / "a.gif")
    row = replace(row_of(source), split=split)  # type: ignore[arg-type]
    (clip,) = cut_item(row, source, config(split="official"), tmp_path).clips
    assert clip.split == (split or "train")


def test_how_clips_are_coded_is_set(tmp_path: Path) -> None:
    source = made_gif(tmp_path / "a.gif")
    sizes = {}
    for name, changes in {"fine": {"crf": 4}, "coarse": {"crf": 45}, "exact": {"lossless": True}}.items():
        (tmp_path / name).mkdir()
        (clip,) = cut_item(row_of(source), source, config(**changes), tmp_path / name).clips
        sizes[name] = (tmp_path / name / clip.path).stat().st_size
    assert sizes["coarse"] < sizes["fine"]
    exact = read_clip(tmp_path / "exact" / "a-000000.mp4")[0]
    assert (exact[:, 0] == 255).all(), "every pixel of the white border"
    assert sizes["coarse"] < sizes["exact"]


def test_many_subjects_at_once_are_written_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.mp4"
    write_video(source, noise(24), fps=25)
    boxes = [Box(12.0 * place, 0, 12.0 * place + 12, 24) for place in range(7)]

    class Crowd:
        is_exact = True

        def boxes(self, frame: np.ndarray) -> list[Box]:
            return boxes

    assert not any(iou(one, other) for one, other in itertools.combinations(boxes, 2))
    monkeypatch.setattr(tracking, "detector_for", lambda config: Crowd())
    results = []
    for most in (16, 2):
        monkeypatch.setattr(cropping, "MAX_WRITERS", most)
        results.append(cut_item(row_of(source), source, config(kind="faces"), tmp_path))
    assert results[0] == results[1]
    assert [clip.num_frames for clip in results[1].clips] == [24] * 7
    assert len({clip.sha256 for clip in results[1].clips}) == 7


def accounted(result: ItemResult) -> int:
    """Frames in clips, each once, and frames dropped."""
    spans = [range(clip.start_frame, clip.start_frame + clip.num_frames) for clip in result.clips]
    return len({frame for span in spans for frame in span}) + sum(result.dropped.values())


@pytest.mark.parametrize("changes", [{"split": "time"}, {"max_frames": 100, "min_frames": 80, "iou_cut": 0.6}])
def test_every_frame_is_in_a_clip_or_dropped_by_reason(
    tmp_path: Path, samples: Path, changes: dict[str, object]
) -> None:
    source = samples / "faces" / "woman-expressions.mp4"
    chosen = config(**{"kind": "faces", "encoder_preset": "ultrafast", "min_frames": 64, "split": "source", **changes})
    result = cut_item(row_of(source), source, chosen, tmp_path)
    assert result.num_frames == 472
    assert accounted(result) == 472
    assert set(result.dropped) <= {"gap", "too-short", "no-subject"}
    if changes.get("split") == "time":
        assert result.dropped["gap"] == chosen.gap_frames
    for clip in result.clips:
        assert clip.start_s == pytest.approx(clip.start_frame / 24, abs=0.03)


@pytest.fixture(scope="module")
def panned(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A person for 72 frames; from the 24th to the 48th the camera pans."""
    frames, _ = read_clip(samples / "bodies" / "balance-side.mp4", max_frames=24)
    small = np.stack([cv2.resize(frame, (540, 960), interpolation=cv2.INTER_AREA) for frame in frames])
    places = [0] * 24 + [5 * step // 2 for step in range(24)] + [60] * 24
    order = [*range(24), *range(23, -1, -1), *range(24)]
    path = tmp_path_factory.mktemp("panned") / "panned.mp4"
    write_video(path, [small[number][:, x : x + 480] for number, x in zip(order, places, strict=True)], fps=25)
    return path


@pytest.mark.skipif(
    not all((weights_folder() / name).is_file() for name in FILES),
    reason="weights/blazepose is not there: run `inkmotion weights fetch blazepose`",
)
def test_bodies_are_cut_where_the_camera_moves(tmp_path: Path, panned: Path) -> None:
    result = cut_item(row_of(panned), panned, config(kind="bodies", split="source", min_frames=12), tmp_path)
    assert [(clip.start_frame, clip.num_frames) for clip in result.clips] == [(0, 25), (48, 24)]
    assert result.dropped["camera-motion"] >= 20
    assert accounted(result) == result.num_frames == 72
    for clip in result.clips:
        left, top, right, bottom = clip.box
        assert right - left == bottom - top
        assert top < 205, "the cap's top, read off the picture"
        assert bottom > 555, "the standing foot"


def test_bodies_without_the_networks_stop_the_stage(
    tmp_path: Path, panned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKMOTION_WEIGHTS", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="inkmotion weights fetch blazepose"):
        cut_item(row_of(panned), panned, config(kind="bodies"), tmp_path)


def test_a_crop_is_padded_with_the_edge_or_with_a_gray() -> None:
    frame = np.arange(10, dtype=np.uint8)[None, :, None].repeat(6, axis=0).repeat(3, axis=2)[None]
    edge = crop_frames(frame, Box(-2, -2, 8, 8), size_px=10)
    white = crop_frames(frame, Box(-2, -2, 8, 8), size_px=10, pad=255)
    assert edge[0, 5, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert white[0, 5, :, 0].tolist() == [255, 255, 0, 1, 2, 3, 4, 5, 6, 7]
    assert (white[0, [0, 1, 8, 9]] == 255).all()


def test_the_face_of_a_portrait_is_in_its_square(samples: Path) -> None:
    picture = read_picture(samples / "portraits" / "man-smiling.jpg")
    box = square_face_box(picture)
    assert box is not None
    assert box.width == box.height
    assert square_face_box(np.full((80, 80, 3), 9, np.uint8)) is None


def hostile(folder: Path, samples: Path) -> dict[str, str]:
    """Every kind of bad item beside good ones; (name -> reason)."""
    folder.mkdir()
    for name in ("good.gif", "a b.gif", 'it\'s "b".gif', "-dash.gif", "naïve 日本.gif", "naive.gif"):
        made_gif(folder / name)
    (folder / "sub").mkdir()
    made_gif(folder / "sub" / "good.gif")
    write_video(folder / "good.mp4", noise(12), fps=25)
    content = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "junk.mp4").write_bytes(b"junk" * 500)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("x")
    made_gif(folder / "one.gif", num_frames=1)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    sound = [executable(), "-v", "error", "-f", "lavfi", "-i", "sine=d=0.2", str(folder / "sound.mp4")]
    subprocess.run(sound, check=True)
    (folder / "out.mp4").symlink_to(samples / "faces" / "man-smile.mp4")
    (folder / "dead.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / ".hidden.gif").touch()
    (folder / "README.md").touch()
    return {
        "cut.mp4": "truncated",
        "junk.mp4": "unreadable",
        "empty.mp4": "empty",
        "notes.txt": "unsupported",
        "one.gif": "one-frame",
        "dot.png": "too-small",
        "huge.png": "too-large",
        "sound.mp4": "audio-only",
        "out.mp4": "outside-folder",
        "dead.mp4": "missing",
    }


def test_everything_bad_is_rejected_and_the_rest_taken_in(tmp_path: Path, samples: Path) -> None:
    expected = hostile(tmp_path / "in", samples)
    before = {path: path.stat() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    paths = Paths(tmp_path / "project")
    report = download.run("d", params(tmp_path / "in", yield_floor=0.4), paths)
    rows = read_ledger(paths.raw("d"))
    assert {row.origin: row.reason for row in rows if row.state == "rejected"} == expected
    assert (report.items, report.kept, report.rejected["truncated"]) == (18, 8, 1)
    kept = [row for row in rows if row.state == "kept"]
    assert {"good.gif", "sub/good.gif", 'it\'s "b".gif', "-dash.gif", "naïve 日本.gif"} <= {row.origin for row in kept}
    for row in kept:
        assert sha256_of(paths.raw("d") / row.item) == row.sha256
        assert row.item.isascii()
        assert not set(row.item) & set(" '\"/\\$-&;") - {"-"}
        assert not row.item.startswith("-")
    assert len({Path(row.item).stem for row in kept}) == len(kept)
    assert {path.name for path in paths.raw("d").iterdir()} == {"ledger.jsonl", *(row.item for row in kept)}
    after = {path: path.stat() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert {path: (s.st_mtime_ns, s.st_nlink, s.st_mode) for path, s in before.items()} == {
        path: (s.st_mtime_ns, s.st_nlink, s.st_mode) for path, s in after.items()
    }


def test_below_the_yield_floor_the_old_media_stay(tmp_path: Path, samples: Path) -> None:
    paths = Paths(tmp_path / "project")
    (tmp_path / "good").mkdir()
    made_gif(tmp_path / "good" / "a.gif")
    download.run("d", params(tmp_path / "good"), paths)
    hostile(tmp_path / "in", samples)
    with pytest.raises(SourceError, match=r"at least 90% of its items; got 8 of 18: 1 audio-only, 1 empty"):
        download.run("d", params(tmp_path / "in", yield_floor=0.9), paths)
    assert [row.origin for row in read_ledger(paths.raw("d"))] == ["a.gif"]


def test_a_source_that_is_not_there_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, words in (("none", "no such folder"), ("empty", "empty"), ("file", "a file")):
        with pytest.raises(SourceError, match=rf"datasets\.d\.source must .*{words}"):
            LocalFolder(tmp_path / name, dataset="d").items()


def test_safe_names_are_unique_without_their_suffix_too() -> None:
    origins = ["cat.gif", "cat.mp4", "a/b.gif", "a--b.gif", "日本.gif", "-x.gif", "CAT.png", "x" * 300 + ".gif"]
    names = safe_names(origins)
    assert len({Path(name).stem.lower() for name in names.values()}) == len(origins)
    assert names["-x.gif"] == "x.gif"
    assert all(len(name) < 120 and name.isascii() and name[0] not in "-." for name in names.values())
    assert names == safe_names(origins[::-1])


@pytest.mark.skipif(os.name != "posix", reason="names of raw bytes are POSIX's")
def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    made_gif(tmp_path / "a.gif")
    os.rename(tmp_path / "a.gif", os.fsencode(tmp_path) + b"/caf\xe9.gif")
    (item,) = LocalFolder(tmp_path, dataset="d").items()
    assert item.origin == "caf\\xe9.gif"
    paths = Paths(tmp_path / "project")
    report = download.run("d", params(tmp_path), paths)
    assert report.kept == 1
    assert all(row.item.isascii() for row in read_ledger(paths.raw("d")))


def test_memory_of_a_pass_is_bounded(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(40), fps=25)
    with open_video(tmp_path / "a.mp4") as reader:
        assert max(len(batch) for batch in reader.batches(8)) == 8
