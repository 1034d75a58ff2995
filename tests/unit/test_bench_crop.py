"""The cutting benchmark runs and counts rightly; how fast anything is decides nothing here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from preprocessing.boxes import Box
from preprocessing.track import Tube
from preprocessing.video import probe


@pytest.fixture(scope="module")
def crop(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_crop", root / "benchmarks" / "crop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_run(crop: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crop.main(["--quick", "--part", "metadata", "--part", "detection", "--out", str(tmp_path / "new" / "crop.json")])
    figures = json.loads((tmp_path / "new" / "crop.json").read_text())
    made, sample = figures["metadata"]["results"][::-1]
    assert (made["name"], made["size"], made["num_frames"]) == ("woman-360p.mp4", "640x360", 48)
    assert (sample["name"], sample["num_frames"], sample["decoder"]) == ("man-smile.mp4", 72, "decord")
    for row in (made, sample):
        rate = row["frames_per_s"]
        assert row["ratio"]["median"] == pytest.approx(rate["cut"] / max(rate["decode"], rate["decord"]))
    boxes = figures["detection"]["results"][0]
    assert (boxes["boxes"], boxes["missed_boxes"], boxes["extra_boxes"]) == (72, 0, 0)
    assert boxes["mean_iou"] > 0.9
    told = capsys.readouterr().out
    assert "man-smile.mp4" in told
    assert "mean IoU" in told


def test_boxes_that_only_one_way_has_count_nothing(crop: ModuleType) -> None:
    here, there = Box(0.0, 0.0, 10.0, 10.0), Box(50.0, 0.0, 60.0, 10.0)
    exact = [Tube(seen=[(0, here), (3, here)]), Tube(seen=[(2, there), (3, there)])]
    quick = [Tube(seen=[(1, here), (5, here)])]
    found = crop.agreement(exact, quick, 6)
    assert (found["boxes"], found["missed_boxes"], found["extra_boxes"]) == (6, 3, 2)
    assert found["mean_iou"] == 0.5


def test_a_longer_video_is_made_without_encoding(crop: ModuleType, samples: Path, tmp_path: Path) -> None:
    path = crop.lengthened(samples / "faces" / "man-smile.mp4", tmp_path / "long.mp4", 12)
    info = probe(path)
    assert info.num_frames == pytest.approx(360, abs=5)
    assert info.fps == 30


def test_memory_is_measured_in_a_process_of_its_own(crop: ModuleType, samples: Path) -> None:
    peak_mb, _ = crop.peak_mb("metadata", samples / "faces" / "man-smile.mp4")
    assert 50 < peak_mb < 1000
