"""Stylised pictures judged by the embedded network, on this process and on Ray: the same figures, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import style_eval_kit as kit

from models.errors import CheckpointError
from pipelines import evaluate_style, evaluate_style_workers
from pipelines.stage import Paths, as_json

pytestmark = pytest.mark.slow


@pytest.fixture
def paths(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    monkeypatch.setattr(evaluate_style, "read_info", lambda _folder: kit.INFO)
    paths = Paths(tmp_path)
    kit.make_shards(paths.shards("photos"), kit.pictures(samples / "photos", 5), num_test=4, broken=(2,))
    kit.make_shards(paths.shards("paintings"), kit.pictures(samples / "paintings", 5), num_test=2)
    ray.cloudpickle.register_pickle_by_value(sys.modules["style_eval_kit"])  # workers do not have the tests
    yield paths
    ray.cloudpickle.unregister_pickle_by_value(sys.modules["style_eval_kit"])


def run(paths: Paths, num_workers: int, open_engine: Any) -> evaluate_style.StyleEvaluateReport:
    params = kit.params(num_workers=num_workers)
    return evaluate_style.run("toy", params, paths, device="cpu", open_engine=open_engine)


def test_two_workers_give_the_figures_of_one_bit_for_bit(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    on_ray = evaluate_style_workers._on_ray
    monkeypatch.setattr(
        evaluate_style_workers, "_on_ray", lambda job, tasks: shared.append(len(tasks)) or on_ray(job, tasks)
    )
    made = []
    for num_workers in (1, 2):
        report = as_json(run(paths, num_workers, kit.opened(kit.Recolours())))
        assert report.pop("num_workers") in (1, num_workers)  # which of the two takes which picture is Ray's
        assert report.pop("seconds") > 0
        assert report.pop("image_cost")["seconds"] > 0
        files = sorted(path for path in (paths.root / "reports").rglob("*") if path.suffix in (".png", ".csv"))
        made.append((report, {path.name: path.read_bytes() for path in files}))
    assert shared == [9]  # by the second alone
    assert made[0] == made[1]
    assert made[0][0]["num_photos"] == 3
    assert [one["picture"] for one in made[0][0]["failures"]] == ["still-2"]
    assert made[0][0]["made"]["kid/effnet-lite0"]["value"] != made[0][0]["untouched"]["kid/effnet-lite0"]["value"]


def test_a_model_that_no_worker_can_open_ends_it(paths: Paths) -> None:
    with pytest.raises(CheckpointError, match="no model"):
        run(paths, 2, kit.fails)
