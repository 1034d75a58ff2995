"""Media to clips and stills on Ray: the same twice, an item that fails or dies stops no other, nothing half done."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, SourceError
from pipelines import crop, download
from pipelines.cut_work import CutWork
from pipelines.ledger import ledgers
from pipelines.params import ClusterConfig, Params, parse
from pipelines.session import ray_session
from pipelines.stage import Paths
from preprocessing.clips import read_manifest, sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, cut_item
from preprocessing.ledger import LedgerRow, read_ledger
from preprocessing.video import write_video

NAMES = ("ant", "bat", "cat", "dog", "eel")


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """One local Ray for all tests here; the stages use it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the tasks below
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for place, name in enumerate(NAMES):
        pictures = [Image.new("RGB", (40, 40), "white") for _ in range(12)]
        for number, picture in enumerate(pictures):
            picture.paste((30 * place, 90, 200), (number, 10, number + 20, 30))
        pictures[0].save(folder / f"{name}.gif", save_all=True, append_images=pictures[1:], duration=80)
    pictures[0].save(folder / "fly.gif", save_all=True, append_images=pictures[1:3], duration=80)  # too short
    return folder


def params(source: Path, **changes: object) -> Params:
    small = {"size_px": 32, "min_frames": 8, "min_side_px": 16, "yield_floor": 0.5}
    dataset = {"kind": "cartoons", "source": str(source), **small, **changes}
    return parse({"profile": "p", "profiles": {"p": {}}, "datasets": {"d": dataset}})


@pytest.fixture
def paths(tmp_path: Path, media: Path) -> Paths:
    paths = Paths(tmp_path / "project")
    download.run("d", params(media), paths)
    return paths


def content(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_clips_are_cut_split_and_reported(paths: Paths, media: Path) -> None:
    report = crop.run("d", params(media), paths)
    clips, rows = read_manifest(paths.cut("d", "clips")), read_ledger(paths.cut("d", "clips"))
    assert [clip.identity for clip in clips] == list(NAMES)
    assert {clip.split for clip in clips} == {"train", "test"}
    assert {row.item: row.reason for row in rows} == {"fly.gif": "too-short"} | {f"{name}.gif": None for name in NAMES}
    assert (report.items, report.kept, report.clips, report.frames) == (6, 5, 5, 60)
    assert (report.rejected, report.decoders, report.split_rule) == ({"too-short": 1}, {"pillow": 5}, "source")
    assert sum(report.clips_of_split.values()) == 5
    assert json.loads(paths.report("cut", "d").read_text())["clips"] == 5
    with Image.open(paths.pictures("cut", "d") / "contact.png") as sheet:
        assert sheet.height > 5 * 90


def test_cut_again_everything_is_the_same(paths: Paths, media: Path) -> None:
    crop.run("d", params(media), paths)
    before = content(paths.cut("d", "clips"))
    crop.run("d", params(media), paths)
    assert content(paths.cut("d", "clips")) == before
    assert len(before) == 7, "five clips, manifest, ledger"


def deadly(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """A task that a picture kills."""
    if row.item == "cat.gif":
        (target / "cat-000000.mp4").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return cut_item(row, source, config, target)


def full(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """A task on a disk without room."""
    raise EnvironmentProblem("the disk must have room; got none. Free some space.")


WAYS = [pytest.param(0, id="on-ray", marks=pytest.mark.slow), pytest.param(crop._RAY_PAYS_BYTES, id="here")]


@pytest.mark.parametrize("pays_bytes", WAYS)
def test_an_item_whose_process_dies_stops_no_other(
    paths: Paths, media: Path, pays_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop, "_RAY_PAYS_BYTES", pays_bytes)
    report = crop.cut_dataset("d", params(media), paths, work=CutWork(task=deadly))
    assert (report.kept, report.rejected) == (4, {"failed": 1, "too-short": 1})
    assert not list(paths.cut("d", "clips").glob("*cat*"))
    (row,) = [row for row in read_ledger(paths.cut("d", "clips")) if row.item == "cat.gif"]
    assert "died" in row.detail


def test_below_the_floor_the_old_clips_stay(paths: Paths, media: Path) -> None:
    crop.run("d", params(media), paths)
    before = content(paths.cut("d", "clips"))
    with pytest.raises(SourceError, match=r"at least 90% of its items; got 5 of 6: 1 too-short"):
        crop.run("d", params(media, yield_floor=0.9), paths)
    assert content(paths.cut("d", "clips")) == before
    assert [(ledger.stage, ledger.is_finished) for ledger in ledgers("d", params(media), paths)] == [
        ("download", True),
        ("cut", False),
    ]
    crop.run("d", params(media, yield_floor=0.8), paths)
    assert content(paths.cut("d", "clips")) == before
    assert {path.name for path in paths.cut("d", "clips").parent.iterdir()} <= {"d", ".d.lock", ".d.journal.jsonl"}


def test_a_full_disk_ends_the_stage_with_its_line(paths: Paths, media: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="the disk must have room"):
        crop.cut_dataset("d", params(media), paths, work=CutWork(task=full))
    assert not paths.cut("d", "clips").exists()


def test_stills_of_a_film(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (8, 8, 12, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    write_video(tmp_path / "in" / "film.mp4", scenes.repeat(6, axis=0), fps=24)
    chosen = params(
        tmp_path / "in", kind="film", makes="stills", num_stills=8, split="time", gap_frames=0, identity_pattern="(fi)"
    )
    paths = Paths(tmp_path / "project")
    download.run("d", chosen, paths)
    report = crop.run("d", chosen, paths)
    stills = read_manifest(paths.cut("d", "stills"))
    assert (report.clips, report.clips_of_split) == (8, {"train": 6, "test": 2})
    assert {(still.identity, still.num_frames, Path(still.path).suffix) for still in stills} == {("fi", 1, ".png")}
