"""Each public data set's way from its real layout to clips or stills, on a miniature made of the sample media."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from miniature_kit import Miniature, make

from models.errors import SourceError
from pipelines import crop, download
from pipelines.params import ClusterConfig, Params, parse
from pipelines.session import ray_session
from pipelines.stage import Paths
from preprocessing.clips import read_manifest
from preprocessing.datasets.catalog import DATASETS
from preprocessing.datasets.spec import Count
from preprocessing.ledger import read_ledger
from preprocessing.video import probe, read_picture

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"size_px": 64, "num_stills": 8}
FEWER: dict[str, dict[str, Any]] = {
    "celeb-df-v2": {"min_side_px": 64},
    "ffhq": {"size_px": 256},  # up to 128 px it would take the thumbnails
    "fashion": {"min_side_px": 128},
    "taichihd": {"min_frames": 60},
}
"""What a miniature can't hold."""


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


def params(name: str, source: Path, **changes: Any) -> Params:
    spec = DATASETS[name]
    dataset = {"preset": name, "source": str(source), **SMALL, **FEWER.get(name, {}), **changes}
    assert "makes" in spec.settings
    return parse({"profile": "p", "profiles": {"p": {}}, "datasets": {"d": dataset}})


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_miniature_goes_all_the_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, paths = make(name, tmp_path / "in"), Paths(tmp_path / "project")
    chosen = params(name, made.folder)
    config = chosen.dataset("d")
    download.run("d", chosen, paths)
    raw = read_ledger(paths.raw("d"))
    assert {row.origin: row.split for row in raw} == made.splits
    assert [row.detail for row in raw if row.state == "rejected"] == []
    report = crop.run("d", chosen, paths)
    folder = paths.cut("d", config.makes)
    clips, rows = read_manifest(folder), read_ledger(folder)
    assert len(rows) == report.items == (made.num_rows or len(made.splits))
    assert [row.detail for row in rows if row.state == "rejected"] == []
    check_splits(made, clips, config.split)
    check_media(folder, clips, config.makes, config.size_px, config.smooth)
    assert report.expected == dict(DATASETS[name].expected.of)
    check_count_rule(name, chosen, paths, Counter(clip.split for clip in clips), monkeypatch)


def check_splits(made: Miniature, clips: list[Any], rule: str) -> None:
    assert clips
    assert {clip.split for clip in clips} <= {"train", "test"}
    if rule == "official":
        found = {clip.origin: clip.split for clip in clips}
        assert found == made.splits
        assert set(found.values()) == {"train", "test"}
    people = {made.identities[origin] for origin in made.identities} - {None}
    if people:
        assert people <= {clip.identity for clip in clips}


def check_media(folder: Path, clips: list[Any], makes: str, size_px: int, smooth: bool) -> None:
    for clip in clips:
        if makes == "stills":
            assert read_picture(folder / clip.path).shape == (size_px, size_px, 3)
        else:
            info = probe(folder / clip.path)
            assert (info.width, info.height, info.num_frames) == (size_px, size_px, clip.num_frames)
        assert (clip.smooth is not None) == smooth
        if clip.smooth is not None:
            assert read_picture(folder / clip.smooth).shape == (size_px, size_px, 3)


def check_count_rule(
    name: str, chosen: Params, paths: Paths, found: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against what is there the cut passes; against three times as much it fails, and what was there stays."""
    spec, floor = DATASETS[name], chosen.dataset("d").yield_floor
    asked = chosen.with_dataset("d", {"require_counts": True})
    assert floor >= 0.5
    for times in (1, 3):
        count = Count(
            of={split: times * number for split, number in found.items()}, unit="clips", who="t", is_expected=True
        )
        monkeypatch.setitem(DATASETS, name, replace(spec, counts=(count,)))
        if times == 1:
            report = crop.run("d", asked, paths)
            assert (report.expected, report.found) == (dict(count.of), dict(found))
        else:
            with pytest.raises(SourceError, match="published for"):
                crop.run("d", asked, paths)
    folder = paths.cut("d", chosen.dataset("d").makes)
    assert Counter(clip.split for clip in read_manifest(folder)) == found
