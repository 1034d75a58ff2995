"""Evaluation of stylising models: what is judged, what passes, what is written, what a broken picture costs."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import style_eval_kit as kit
from PIL import Image

from models.errors import CheckpointError, ClipError, ShapeError
from pipelines import evaluate_style, evaluate_style_work
from pipelines.evaluate_style import StyleEvaluateReport
from pipelines.evaluate_style_work import Place, drawing_of, photo_tasks
from pipelines.stage import Paths
from training.metrics.features import Look

NUM_PHOTOS, NUM_TEST, NUM_STYLE = 6, 4, 6


class Colours:
    """Stands for the embedded judge, which takes 0.1 s a picture: coarse pixels are its content, colours features."""

    name = "effnet-lite0"

    def look(self, picture: np.ndarray) -> Look:
        return self.look_with_content(picture)[0]

    def look_with_content(self, picture: np.ndarray) -> tuple[Look, np.ndarray]:
        values = picture.reshape(-1, 3).astype(np.float32) / 255
        side = picture.shape[0] // 8
        content = (
            picture.reshape(8, side, 8, side, 3).mean((1, 3), dtype=np.float64).transpose(2, 0, 1).astype(np.float32)
        )
        return Look(np.concatenate([values.mean(0), values.std(0)]) * 4, values.mean(0)), content


@pytest.fixture
def paths(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(evaluate_style_work, "build", lambda *_: {"effnet-lite0": Colours()})
    monkeypatch.setattr(evaluate_style_work, "EffnetLite0", Colours)
    monkeypatch.setattr(evaluate_style, "read_info", lambda _folder: kit.INFO)
    monkeypatch.delenv("INKMOTION_WEIGHTS", raising=False)
    paths = Paths(tmp_path)
    kit.make_shards(paths.shards("photos"), kit.pictures(samples / "photos", NUM_PHOTOS), num_test=NUM_TEST)
    kit.make_shards(paths.shards("paintings"), green(samples), num_test=2)
    return paths


def green(samples: Path) -> np.ndarray:
    """Paintings in green: a style that the judge of these tests knows."""
    paintings = kit.pictures(samples / "paintings", NUM_STYLE)
    return (paintings * (0.2, 1.0, 0.2)).astype(np.uint8)


def run(paths: Paths, engine: Any, **options: Any) -> StyleEvaluateReport:
    return evaluate_style.run("toy", kit.params(**options), paths, device="cpu", open_engine=kit.opened(engine))


def test_handing_photos_back_is_no_style(paths: Paths) -> None:
    report = run(paths, kit.Copies())
    assert (report.num_photos, report.num_style_pictures) == (NUM_TEST, NUM_STYLE)
    assert report.made == report.untouched
    assert report.made[report.metric].value is not None
    assert report.made["content/effnet-lite0"].value == 0
    assert report.made["detail"].value == 1
    assert (report.verdict.nearer, report.verdict.keeps_content, report.verdict.keeps_detail) == (False, True, True)
    assert not report.verdict.passed
    assert report.verdict.gain == 0


def test_a_blur_fails_and_a_change_of_colours_keeps_what_is_there(paths: Paths) -> None:
    assert not run(paths, kit.Blurs()).verdict.keeps_detail
    verdict = run(paths, kit.Recolours()).verdict
    assert (verdict.keeps_content, verdict.keeps_detail) == (True, True)
    assert 0 < verdict.content < 0.5


def test_paintings_in_place_of_drawings_are_near_and_lose_the_content(paths: Paths, samples: Path) -> None:
    report = run(paths, kit.Paints(green(samples)))
    assert not report.verdict.keeps_content
    ours, theirs = report.made[report.metric].value, report.untouched[report.metric].value
    assert ours is not None
    assert theirs is not None
    assert ours < theirs


def test_everything_is_written(paths: Paths) -> None:
    report = run(paths, kit.Recolours())
    raw = json.loads(paths.report("evaluate", "toy").read_text())
    told = {key: raw[key] for key in ("experiment", "preset", "dataset", "style_dataset", "seed", "metric")}
    assert told == {
        "experiment": "toy",
        "preset": "toy",
        "dataset": "photos",
        "style_dataset": "paintings",
        "seed": 3,
        "metric": "kid/effnet-lite0",
    }
    assert (raw["step"], raw["images_seen"], raw["weights_sha256"], raw["size_px"]) == (5, 40, "weights", kit.SIZE_PX)
    assert (raw["split_rule"], raw["device"], raw["num_workers"], raw["jpeg_quality"]) == ("source", "cpu", 1, 95)
    assert len({raw["data_sha256"], raw["style_data_sha256"]}) == 2
    assert "torch-fidelity" in raw["made"]["fid/inception"]["absent"] or "weights import" in str(raw["made"])
    with paths.report("evaluate", "toy").with_name("toy-photos.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == [f"still-{number}" for number in range(NUM_TEST)]
    mean = np.mean([float(row["content"]) for row in rows])
    assert mean == pytest.approx(report.made["content/effnet-lite0"].value)
    folder = paths.pictures("evaluate", "toy")
    drawn = {f"{what}-{number}.png" for what in ("photo", "drawing") for number in range(3)}
    assert {path.name for path in folder.iterdir()} == {*report.strips, *drawn, "distances.png"}
    assert report.strips == ("strip-0.png",)
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.size == (kit.SIZE_PX, kit.SIZE_PX) if path.name in drawn else min(picture.size) > 100


def test_a_broken_photo_costs_itself_alone(
    paths: Paths, samples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, paintings = kit.pictures(samples / "photos", NUM_PHOTOS), kit.pictures(samples / "paintings", NUM_STYLE)
    other = Paths(tmp_path / "other")
    kit.make_shards(other.shards("photos"), photos, num_test=NUM_TEST, broken=(1,))
    kit.make_shards(other.shards("paintings"), paintings, num_test=2, broken=(0,))
    with caplog.at_level(logging.WARNING):
        report = run(other, kit.Recolours())
    assert (report.num_photos, report.num_style_pictures) == (NUM_TEST - 1, NUM_STYLE - 1)
    assert [(one.picture, one.dataset) for one in report.failures] == [("still-1", "photos"), ("still-0", "paintings")]
    assert "bytes that are no JPEG" in report.failures[0].reason
    assert "2 pictures failed" in caplog.text


class Wrong:
    """Makes what is no drawing."""

    def __init__(self, value: float = 0.0, size_px: int = kit.SIZE_PX) -> None:
        self.value, self.size_px = value, size_px

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        return np.full((len(pictures), self.size_px, self.size_px, 3), self.value, np.float32)


def test_a_model_that_makes_no_drawings_has_no_report(paths: Paths) -> None:
    run(paths, kit.Copies())
    before = {path: path.read_bytes() for path in (paths.root / "reports").rglob("*.*") if path.is_file()}
    with pytest.raises(ClipError, match=r"evaluation of toy must judge two photos .*got 4 failures.*be finite"):
        run(paths, Wrong(float("nan")))
    with pytest.raises(ShapeError, match=r"have its photo's shape \(64, 64, 3\); got \(32, 32, 3\)"):
        drawing_of(Wrong(size_px=32), np.zeros((64, 64, 3), np.uint8))
    assert before == {path: path.read_bytes() for path in before}


def test_a_model_that_can_not_be_opened_ends_it(paths: Paths) -> None:
    def fails(_folder: Path, _device: str) -> Any:
        raise CheckpointError("no model")

    with pytest.raises(CheckpointError, match="no model"):
        evaluate_style.run("toy", kit.params(), paths, device="cpu", open_engine=fails)


def test_photos_are_judged_at_the_size_of_their_shards(paths: Paths, samples: Path, tmp_path: Path) -> None:
    other = Paths(tmp_path / "other")
    kit.make_shards(other.shards("photos"), kit.pictures(samples / "photos", 4, 32), num_test=4)
    kit.make_shards(other.shards("paintings"), kit.pictures(samples / "paintings", 3), num_test=1)
    assert run(other, kit.Copies()).size_px == 32


def test_few_photos_are_judged_in_squares(paths: Paths) -> None:
    whole, cut = run(paths, kit.Copies()), run(paths, kit.Copies(), squares=None)
    assert (whole.squares, cut.squares) == (1, 2)
    assert (cut.num_photos, cut.num_style_pictures) == (4 * whole.num_photos, 4 * whole.num_style_pictures)
    picture = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    squares = [Place("one", 0, number, 2).cut(picture) for number in range(4)]
    assert np.array_equal(np.block([[[squares[0]], [squares[1]]], [[squares[2]], [squares[3]]]]), picture[:4, :4])


def test_shards_that_can_not_be_judged(paths: Paths, samples: Path, tmp_path: Path) -> None:
    other = Paths(tmp_path / "other")
    kit.make_shards(other.shards("photos"), kit.pictures(samples / "photos", 4, kit.SIZE_PX), num_test=1)
    kit.make_shards(other.shards("paintings"), kit.pictures(samples / "paintings", 3), num_test=1)
    with pytest.raises(ClipError, match=r"hold two pictures of split test or more; got 1\. Raise datasets"):
        run(other, kit.Copies())


def test_every_photo_is_compared_with_others() -> None:
    for count in (2, 3, 7):
        places = [Place(f"still-{number}", 0) for number in range(count)]
        tasks = photo_tasks(places, [1])
        assert [task.place for task in tasks] == places
        assert all(task.others and task.place not in task.others for task in tasks)
        assert [task.shown for task in tasks].index(True) == 1
