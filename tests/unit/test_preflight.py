"""A look at a folder before anything runs: every finding, all at once, and nothing where all is well."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature_kit import make
from PIL import Image

from preprocessing import preflight
from preprocessing.config import DatasetConfig
from preprocessing.datasets.catalog import DATASETS, dataset_spec
from preprocessing.preflight import Finding, Preflight, check_folder
from preprocessing.preflight_types import MAX_ALIKE
from preprocessing.video import write_video


def config_of(**settings: Any) -> DatasetConfig:
    return DatasetConfig(**({"kind": "cartoons", "source": "x", "min_frames": 8, "min_side_px": 16} | settings))


def preset_of(name: str, **settings: Any) -> DatasetConfig:
    spec = dataset_spec(name)
    return DatasetConfig(**({"kind": spec.kind, "preset": name, "source": "x"} | dict(spec.settings) | settings))


def texts(found: Preflight, level: str) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in found.findings if finding.level == level]


def has(found: Preflight, level: str, *words: str) -> bool:
    return any(all(word in text for word in words) for text in texts(found, level))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes (and keeps) small videos of one's own content."""
    folder, draw = tmp_path_factory.mktemp("media"), np.random.default_rng(1)
    made: dict[tuple[Any, ...], Path] = {}

    def video(target: Path, *, frames: int = 12, size: int = 32, fps: float = 25.0, copy: int = 0) -> Path:
        key = (frames, size, fps, copy)
        if key not in made:
            made[key] = folder / f"{len(made)}.mp4"
            write_video(made[key], draw.integers(0, 255, (frames, size, size, 3), np.uint8), fps=fps)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made[key], target)
        return target

    return video


def test_a_good_folder_has_nothing_but_notes(root: Path) -> None:
    config = config_of(kind="faces", split="time", unseen=("man",), identity_pattern="^(woman|man)", min_frames=16)
    found = check_folder("faces", root / "samples/faces", config, None)
    assert found.is_good
    assert texts(found, "error") == texts(found, "warning") == []
    assert (found.num_items, found.num_usable) == (3, 3)
    assert found.num_bytes == sum(path.stat().st_size for path in (root / "samples/faces").glob("*.m*[4v]"))
    assert found.frames is not None
    assert found.seconds is not None
    assert (found.frames.min, found.frames.max) == (72, 472)
    assert found.seconds.min == pytest.approx(2.4)
    assert has(found, "note", "frame sizes", "640x360 (2)", "960x540 (1)")
    assert has(found, "note", "frame rates", "3 frame rates")
    assert has(found, "note", "identity_pattern", "2 identities in 3 files")
    assert has(found, "note", "disk", "GB")


def test_all_findings_come_at_once(tmp_path: Path, media: Callable[..., Path]) -> None:
    media(tmp_path / "good.mp4")
    media(tmp_path / "copy.mp4")
    media(tmp_path / "Bad Name.mp4", copy=1)
    media(tmp_path / "bad_name.mp4", copy=2, size=64, fps=50)
    media(tmp_path / "short.mp4", frames=4)
    media(tmp_path / "small.mp4", size=8)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:700])
    (tmp_path / "page.mp4").write_text("<html>")
    (tmp_path / "away.mp4").symlink_to("/etc/hostname")
    (tmp_path / "dead.mp4").symlink_to("nowhere")
    Image.new("RGB", (32, 32)).save(tmp_path / "still.png")
    found = check_folder("mine", tmp_path, config_of(split="identity", yield_floor=0.5), None)
    assert (found.num_items, found.num_usable) == (13, 4)
    assert found.rejected["too-short"] == found.rejected["too-small"] == found.rejected["one-frame"] == 1
    for file, word in (
        ("short.mp4", "(too-short)"),
        ("small.mp4", "(too-small)"),
        ("notes.txt", "(unsupported)"),
        ("empty.mp4", "(empty)"),
        ("cut.mp4", "must"),
        ("page.mp4", "must"),
        ("away.mp4", "(outside-folder)"),
        ("dead.mp4", "(missing)"),
        ("still.png", "(one-frame)"),
    ):
        assert has(found, "warning", file, word), file
    assert has(found, "warning", "same content", "copy.mp4", "good.mp4")
    assert has(found, "note", "Bad Name.mp4 as", "bad_name.mp4 as")
    assert has(found, "note", "2 frame sizes")
    assert has(found, "note", "2 frame rates")
    assert has(found, "error", "yield", "4 of 13")
    assert has(found, "error", "datasets.mine.split", "needs 10")
    assert not found.is_good
    order = [finding.level for finding in found.findings]
    assert order == sorted(order, key=["error", "warning", "note"].index)


@pytest.mark.parametrize("make_it", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_no_folder_or_nothing_in_it(tmp_path: Path, make_it: Callable[[Path], Any]) -> None:
    folder = tmp_path / "media"
    make_it(folder)
    found = check_folder("mine", folder, config_of(), None)
    assert len(texts(found, "error")) == 1
    assert "datasets.mine.source must" in texts(found, "error")[0]
    assert found.num_items == 0


def test_of_many_alike_some_are_told(tmp_path: Path) -> None:
    for number in range(MAX_ALIKE + 7):
        (tmp_path / f"{number:03}.mp4").touch()
    found = check_folder("mine", tmp_path, config_of(), None)
    warnings = texts(found, "warning")
    assert len(warnings) == MAX_ALIKE + 1
    assert "7 more like these" in warnings[-1]


def test_progress_is_told_and_what_it_raises_ends_the_look(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mp4").touch()
    seen: list[tuple[int, int]] = []
    check_folder("mine", tmp_path, config_of(), None, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_folder("mine", tmp_path, config_of(), None, progress=stop)


def test_a_decoder_s_own_error_about_one_file_hides_nothing(
    tmp_path: Path, media: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    media(tmp_path / "a.mp4")
    media(tmp_path / "b.mp4", copy=1)
    real = preflight.probe

    def broken(path: Path, **limits: Any) -> Any:
        if path.name == "a.mp4":
            raise ZeroDivisionError("float division by zero")
        return real(path, **limits)

    monkeypatch.setattr(preflight, "probe", broken)
    found = check_folder("mine", tmp_path, config_of(split="time", test_share=0.5, gap_frames=0), None)
    assert found.num_usable == 1
    assert has(found, "warning", "a.mp4", "ZeroDivisionError", "undecodable")


# splits


def split_folder(tmp_path: Path, media: Callable[..., Path], names: list[str], **settings: Any) -> Preflight:
    for number, name in enumerate(names):
        media(tmp_path / name, copy=number)
    return check_folder("mine", tmp_path, config_of(**settings), None)


def test_one_file_can_t_be_split_by_source(tmp_path: Path, media: Callable[..., Path]) -> None:
    found = split_folder(tmp_path, media, ["a.mp4"], split="source")
    assert has(found, "error", "1 sources", "Use split: time")


def test_two_copies_are_one_source(tmp_path: Path, media: Callable[..., Path]) -> None:
    media(tmp_path / "a.mp4")
    media(tmp_path / "b.mp4")
    assert has(check_folder("mine", tmp_path, config_of(split="source"), None), "error", "1 sources")


def test_one_person_in_several_files_and_a_split_by_source(tmp_path: Path, media: Callable[..., Path]) -> None:
    names = ["ann_1.mp4", "ann_2.mp4", "bob_1.mp4"]
    found = split_folder(tmp_path, media, names, split="source", identity_pattern="^([a-z]+)_")
    assert has(found, "warning", "each identity on one side", "as ann")


def test_a_pattern_that_fits_some_or_no_names(tmp_path: Path, media: Callable[..., Path]) -> None:
    names = ["ann_1.mp4", "bob.mp4"]
    found = split_folder(tmp_path, media, names, split="source", identity_pattern="^([a-z]+)_")
    assert has(found, "warning", "1 of 2 names don't match", "bob.mp4")
    found = check_folder("mine", tmp_path, config_of(identity_pattern=r"^(\d+)"), None)
    assert has(found, "error", "2 of 2 names don't match")


def test_unseen_people_who_are_not_there_or_are_all(tmp_path: Path, media: Callable[..., Path]) -> None:
    found = split_folder(tmp_path, media, ["ann.mp4", "bob.mp4"], unseen=("ann", "zoe", "bob"))
    assert has(found, "warning", "unseen", "'zoe'")
    assert has(found, "error", "leave somebody to train on")


def test_official_sides(tmp_path: Path, media: Callable[..., Path]) -> None:
    names = ["train/ann_1.mp4", "train/bob_1.mp4", "test/bob_2.mp4", "cid_1.mp4"]
    found = split_folder(tmp_path, media, names, split="official", identity_pattern="([a-z]+)_[0-9]$")
    assert found.num_of_split == {"open": 1, "test": 1, "train": 2}
    assert has(found, "error", "identity bob must be on one side alone")
    assert has(found, "warning", "1 of 4 are on no side", "cid_1.mp4")
    shutil.copyfile(tmp_path / "train/ann_1.mp4", tmp_path / "test/zed_1.mp4")
    found = check_folder("mine", tmp_path, config_of(split="official"), None)
    assert has(found, "error", "same content", "both sides")


@pytest.mark.parametrize(("name", "side"), [("train/a.mp4", "test"), ("test/a.mp4", "train")])
def test_an_official_side_without_anything(tmp_path: Path, media: Callable[..., Path], name: str, side: str) -> None:
    found = split_folder(tmp_path, media, [name], split="official")
    assert has(found, "error", f"find something for {side}")


def test_videos_too_short_to_be_divided_by_time(tmp_path: Path, media: Callable[..., Path]) -> None:
    found = split_folder(tmp_path, media, ["a.mp4"], split="time")
    assert has(found, "error", "leave something to test")
    media(tmp_path / "long.mp4", frames=60)
    found = check_folder("mine", tmp_path, config_of(split="time"), None)
    assert has(found, "note", "1 of 2 videos are too short")


def test_pictures(tmp_path: Path, media: Callable[..., Path]) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "small.png")
    Image.new("RGB", (99, 80)).save(tmp_path / "good.jpg")
    media(tmp_path / "film.mp4")
    config = config_of(kind="images", makes="stills", min_side_px=60, split="time", yield_floor=0)
    found = check_folder("mine", tmp_path, config, None)
    assert has(found, "warning", "small.png", "too-small", "64x48")
    assert has(found, "warning", "film.mp4", "unsupported", "kind: film")
    assert has(found, "error", "for pictures", "time")
    assert found.num_usable == 1
    assert found.frames is None


def test_more_stills_than_the_film_has_frames(root: Path) -> None:
    config = config_of(kind="film", makes="stills", split="time", num_stills=100_000)
    assert has(check_folder("film", root / "samples/films", config, None), "warning", "num_stills", "132 frames")


def test_boxes_by_hand(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), name[0] == "a" and "red" or "blue").save(tmp_path / name)
    config = config_of(kind="images", makes="stills", cut="align", boxes="boxes.csv")
    assert has(check_folder("mine", tmp_path, config, None), "error", "boxes.csv", "no such file")
    (tmp_path / "boxes.csv").write_text(
        "file,left,top,right,bottom\na.png,1,2,30,40\na.png,1,2,30,40\nc.png,0,0,9,9\nb.png,x,0,1,1\n"
    )
    found = check_folder("mine", tmp_path, config, None)
    assert has(found, "warning", "boxes.csv line 3", "first time")
    assert has(found, "warning", "boxes.csv line 5", "number of pixels")
    assert has(found, "warning", "c.png must be a file of the folder")
    assert has(found, "note", "1 of 2 files have no box")


HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"


def test_a_metadata_csv_and_its_videos(tmp_path: Path, media: Callable[..., Path]) -> None:
    media(tmp_path / "videos/one.mp4")
    media(tmp_path / "videos/two.mp4", copy=1)
    rows = [
        "one,0,9,1-1-20-20,25,32,32,train,p1",
        "two,0,9,1-1-20-20,25,32,32,test,p1",
        "three,0,9,1-1-20-20,25,32,32,test,p3",
    ]
    rows += ["one,9,2,1-1-20-20,25,32,32,train,p1", "one,0,9,1-1-20-20,25,32,32,train,p1"]
    (tmp_path / "metadata.csv").write_text(HEADER + "\n".join(rows) + "\n")
    config = config_of(kind="faces", cut="metadata", split="official", yield_floor=0.1)
    found = check_folder("mine", tmp_path, config, None)
    assert found.num_of_split == {"test": 1, "train": 1}
    assert has(found, "warning", "metadata.csv line 5", "bad-row")
    assert has(found, "warning", "metadata.csv line 6", "duplicate-row")
    assert has(found, "warning", "three", "missing")
    assert has(found, "error", "identity p1 must be on one side alone")


def test_a_missing_csv_does_not_hide_what_is_wrong_with_the_videos(tmp_path: Path, media: Callable[..., Path]) -> None:
    media(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").touch()
    found = check_folder("mine", tmp_path, config_of(kind="faces", cut="metadata"), None)
    assert has(found, "error", "metadata.csv", "no such file")
    assert has(found, "warning", "b.mp4", "empty")


def test_a_csv_without_a_good_row_has_each_row_told(tmp_path: Path, media: Callable[..., Path]) -> None:
    media(tmp_path / "videos/one.mp4")
    (tmp_path / "metadata.csv").write_text(HEADER + "one,9,2,1-1-20-20,25,32,32,train,p1\n" * 30)
    found = check_folder("mine", tmp_path, config_of(kind="faces", cut="metadata"), None)
    assert has(found, "error", "hold a row that can be used")
    assert has(found, "warning", "metadata.csv line 2", "bad-row")
    assert has(found, "warning", "more like these")
    (tmp_path / "metadata.csv").write_text("video_id,start\none,1\n")
    found = check_folder("mine", tmp_path, config_of(kind="faces", cut="metadata"), None)
    assert has(found, "error", "bbox", "end")


# public data sets


@pytest.mark.parametrize("name", DATASETS)
def test_a_miniature_in_the_real_layout_has_no_error(tmp_path: Path, name: str) -> None:
    made = make(name, tmp_path / name)
    config = preset_of(
        name, yield_floor=0.0, min_frames=8, min_side_px=16, min_source_px=0, num_stills=4, test_share=0.4
    )
    if config.split == "identity":
        config = preset_of(name, yield_floor=0.0, min_frames=8, min_side_px=16, split="source")
    found = check_folder(name, made.folder, config, dataset_spec(name))
    assert texts(found, "error") == []
    assert found.num_usable >= 1
    assert {finding.level for finding in found.findings} <= {"warning", "note"}


def test_published_numbers(tmp_path: Path) -> None:
    made = make("voxceleb1", tmp_path / "vox")
    spec = dataset_spec("voxceleb1")
    found = check_folder("vox", made.folder, preset_of("voxceleb1"), spec)
    assert has(found, "warning", "counts", "6 of the published 19,550 clips (train)")
    assert has(found, "warning", "counts", "2 of the published 525 clips (test)")
    found = check_folder("vox", made.folder, preset_of("voxceleb1", require_counts=True), spec)
    assert has(found, "error", "counts", "19,550")


def test_a_folder_of_another_layout_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for name in ("voxceleb1", "celeb-df-v2", "fashion"):
        found = check_folder(name, tmp_path, preset_of(name), dataset_spec(name))
        assert len(texts(found, "error")) >= 1, name


def test_the_disk(tmp_path: Path, media: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    media(tmp_path / "a.mp4")
    monkeypatch.setattr(preflight, "_free_bytes", lambda work: 1000)
    found = check_folder("mine", tmp_path, config_of(), None)
    assert has(found, "error", "The disk must have about")
    monkeypatch.setattr(preflight, "_free_bytes", lambda work: None)
    assert has(check_folder("mine", tmp_path, config_of(), None), "note", "disk")


def test_findings_are_plain() -> None:
    finding = Finding(level="note", where="a", message="b")
    assert (finding.level, finding.where, finding.message) == ("note", "a", "b")
