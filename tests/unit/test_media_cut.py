"""One item to clips or stills, and media taken in: what is bad is turned away with its reason, alone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, SourceError
from pipelines import download
from pipelines.params import Params, parse
from pipelines.stage import Paths
from preprocessing import crop as cropping
from preprocessing.boxes import Box
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import crop_frames, cut_item, square_face_box
from preprocessing.datasets.local import LocalFolder, safe_names
from preprocessing.frames import stills_item
from preprocessing.ledger import LedgerRow, read_ledger
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
    assert clip.start_frame == 0
    assert abs(clip.start_frame + clip.num_frames - 1 - 71) <= 3
    assert (result.num_frames, result.row.decoder, clip.decoder) == (169, "ffmpeg", "ffmpeg")
    assert result.dropped["no-subject"] == 169 - clip.num_frames


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_frames": 20, "max_frames": 30}, "too-short"),
        ({"min_side_px": 50}, "too-small"),
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
    result = cut_item(row_of(source), source, config(kind="bodies"), tmp_path)
    assert [clip.box for clip in result.clips] == [(16, 0, 80, 64)]


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


def film(path: Path) -> Path:
    """Ten scenes of 8 frames; the second is black, the fourth repeats the third."""
    scenes = [noise(1, seed=seed)[0] for seed in range(10)]
    scenes[1], scenes[3] = np.zeros_like(scenes[1]), scenes[2]
    write_video(path, [scene for scene in scenes for _ in range(8)], fps=24, crf=4)
    return path


def test_stills_are_distinct_and_evenly_spread(tmp_path: Path) -> None:
    source = film(tmp_path / "film.mp4")
    chosen = config(kind="film", makes="stills", num_stills=10, split="time", gap_frames=0)
    result = stills_item(row_of(source), source, chosen, tmp_path)
    assert [clip.start_frame // 8 for clip in result.clips] == [0, 2, 4, 5, 6, 7, 8, 9]
    assert result.dropped == {"black": 1, "alike": 1}
    assert [clip.split for clip in result.clips].count("test") == 2
    for clip in result.clips:
        assert read_picture(tmp_path / clip.path).shape == (32, 32, 3)
        assert sha256_of(tmp_path / clip.path) == clip.sha256
        assert (clip.num_frames, clip.box) == (1, (16, 0, 80, 64))
    assert stills_item(row_of(source), source, chosen, tmp_path) == result


def test_a_black_film_has_no_stills(tmp_path: Path) -> None:
    write_video(tmp_path / "dark.mp4", np.zeros((20, 64, 96, 3), np.uint8), fps=24)
    source = tmp_path / "dark.mp4"
    result = stills_item(row_of(source), source, config(kind="film", makes="stills"), tmp_path)
    assert (result.row.state, result.row.reason) == ("rejected", "no-distinct-frame")


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
    row = download.take(item, config(), tmp_path)
    assert (row.state, row.item.isascii()) == ("kept", True)


def test_an_unreadable_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_gif(tmp_path / "a.gif")
    (item,) = LocalFolder(tmp_path, dataset="d").items()
    gone = replace(item, path=tmp_path / "gone.gif")
    assert download.take(gone, config(), tmp_path).reason == "missing"


def test_memory_of_a_pass_is_bounded(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(40), fps=25)
    with open_video(tmp_path / "a.mp4") as reader:
        assert max(len(batch) for batch in reader.batches(8)) == 8
