"""Runs side by side, and MLflow's page on a port of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from models.errors import EnvironmentProblem, TrackingError
from pipelines import ui
from pipelines.compare import compare
from pipelines.params import load
from pipelines.stage import Paths
from training.tracking.jsonl import RecordLog, RunCard


def run(paths: Paths, name: str, *, lr: str, loss: float) -> None:
    card = RunCard(experiment="inkmotion", run_name=name, params={"train.lr_generator": lr, "seed": "0"}, tags={})
    log = RecordLog(paths.run(name), card)
    log.metrics(1, {"loss/total": 9.0})
    log.metrics(2, {"loss/total": loss})
    log.close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path)
    run(made, "toy-11111111", lr="0.1", loss=3.0)
    run(made, "other-22222222", lr="0.2", loss=2.0)
    return made


def test_two_runs_side_by_side(paths: Paths) -> None:
    found = compare("toy-11111111", "other", None, paths)
    assert found.names == ("toy-11111111", "other-22222222")
    assert found.settings == (("train.lr_generator", "0.1", "0.2"),)
    assert ("loss/total", 3.0, 2.0) in found.figures


def test_an_unknown_run_gets_a_line(paths: Paths) -> None:
    with pytest.raises(TrackingError, match="Runs here: other-22222222, toy-11111111"):
        compare("toy", "nobody", None, paths)


def test_a_taken_port_gets_a_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load(root / "params.yaml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port} must be free"):
            ui.serve(params, Paths(tmp_path), port=port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert ui.address(params, Paths(tmp_path), port=5000) == "http://mlflow:5000"
