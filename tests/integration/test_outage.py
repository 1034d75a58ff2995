"""The MLflow server is killed in mid-training and started again: every metric of every step is there in the end."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
from server_kit import Server
from training_kit import job, write_shards

from training.backends import local
from training.progress import Progress
from training.tracking.jsonl import read_metrics
from training.tracking.mlflow import flush_all, run_of, speaking_to

pytestmark = pytest.mark.slow

STEPS = 40
KILLED_AT, BACK_AT = 10, 28


def test_every_metric_of_every_step_is_there(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    server.start()
    run = tmp_path / "runs" / "toy-0"
    made = job(write_shards(tmp_path / "shards"), run, max_steps=STEPS, log_every_steps=2)
    made = dataclasses.replace(made, tracking_uri=server.uri, tracking_timeout_s=2.0)
    reached = {KILLED_AT: threading.Event(), BACK_AT: threading.Event()}
    killed = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.step == KILLED_AT:
            wait_for_delivery(run, server.uri)
            server.kill()
            killed.set()
        if progress.step == BACK_AT:
            server.start()
        if progress.step in reached:
            reached[progress.step].set()

    try:
        result = local.fit(made, show=watch)
        assert result.steps == STEPS
        assert killed.is_set()
        assert all(event.is_set() for event in reached.values())
        flushed = flush_all(tmp_path / "runs", server.uri)
        assert (flushed.waiting, flushed.problems) == (0, ())
        check(run, server.uri)
    finally:
        server.kill()


def wait_for_delivery(run: Path, uri: str) -> None:
    """Until something has arrived, so that the server dies in the middle of a run that it knows."""
    for _ in range(600):
        if run_of(run, uri) is not None:
            return
        threading.Event().wait(0.05)
    raise AssertionError("nothing was delivered before the outage")


def check(run: Path, uri: str) -> None:
    recorded = read_metrics(run)
    assert [step for step, _ in recorded] == list(range(1, STEPS + 1))
    run_id = run_of(run, uri)
    with speaking_to(uri, timeout_s=30) as client:
        for name in sorted({name for _, values in recorded for name in values}):
            wanted = [(step, values[name]) for step, values in recorded if name in values]
            got = sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))
            assert [step for step, _ in got] == [step for step, _ in wanted], name
            assert [value for _, value in got] == pytest.approx([value for _, value in wanted]), name
        assert client.get_run(run_id).info.status == "FINISHED"
