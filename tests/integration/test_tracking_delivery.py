"""Delivery to an sqlite store: every metric of every step exactly once, whatever happened in between."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from models.errors import TrackingError
from training.tracking import mlflow as delivery
from training.tracking.cursor import CURSOR_NAME
from training.tracking.jsonl import RECORDS_NAME, RecordLog, RunCard
from training.tracking.mlflow import Sender, deliver, flush_all, run_of, speaking_to

CARD = RunCard(
    experiment="inkmotion",
    run_name="fomm-debug-12345678",
    params={"train.seed": "0", **{f"model.option_{number}": str(number) for number in range(150)}},
    tags={"git.commit": "abc", "experiment": "fomm-debug"},
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making its tables takes a second."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with speaking_to(f"sqlite:///{path}", timeout_s=5) as client:
        client.search_experiments()
    return path


@pytest.fixture
def uri(prepared: Path, tmp_path: Path) -> str:
    with sqlite3.connect(prepared) as source, sqlite3.connect(tmp_path / "mlflow.db") as target:
        source.backup(target)
    source.close()
    target.close()
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def record(folder: Path, steps: range, *, end: bool = False) -> None:
    log = RecordLog(folder, CARD)
    for step in steps:
        values = {"loss/generator/perceptual": 1 / step, "lr": 2e-4, "odd name!": float("nan") if step == 3 else step}
        log.metrics(step, values)
    log.close() if end else log.abandon()


def runs(uri: str) -> list[Any]:
    with speaking_to(uri, timeout_s=5) as client:
        experiment = client.get_experiment_by_name("inkmotion")
        return list(client.search_runs([experiment.experiment_id]))


def steps_there(uri: str, name: str = "loss/generator/perceptual") -> list[int]:
    (run,) = runs(uri)
    with speaking_to(uri, timeout_s=5) as client:
        return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, name))


def test_a_run_arrives_whole(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    record(folder, range(1, 800))  # more than one batch
    picture = folder / "pictures" / "samples-00000010.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    log = RecordLog(folder, CARD)
    log.picture(10, "samples", picture)
    log.close()
    done = deliver(folder, uri, timeout_s=5)
    assert (done.sent, done.waiting) == (802, 0)
    (run,) = runs(uri)
    assert run.info.run_id == done.run_id == run_of(folder, uri)
    assert run.info.run_name == CARD.run_name
    assert run.info.status == "FINISHED"
    assert run.data.params == CARD.params
    assert CARD.tags.items() <= run.data.tags.items()
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/mlartifacts/inkmotion/")
    for name in ("loss/generator/perceptual", "lr", "odd name_"):
        assert steps_there(uri, name) == list(range(1, 800))
    with speaking_to(uri, timeout_s=5) as client:
        assert [item.path for item in client.list_artifacts(run.info.run_id, "pictures")] == [
            "pictures/samples-00000010.png"
        ]
    assert deliver(folder, uri, timeout_s=5).sent == 0


def test_repeating_after_a_lost_or_older_cursor_doubles_nothing(uri: str, tmp_path: Path) -> None:
    record(tmp_path / "r", range(1, 10))
    deliver(tmp_path / "r", uri, timeout_s=5)
    older = (tmp_path / "r" / CURSOR_NAME).read_text()
    record(tmp_path / "r", range(5, 20), end=True)
    deliver(tmp_path / "r", uri, timeout_s=5)
    (tmp_path / "r" / CURSOR_NAME).write_text(older)  # killed between the batch and the cursor
    deliver(tmp_path / "r", uri, timeout_s=5)
    (tmp_path / "r" / CURSOR_NAME).write_text("{torn")
    deliver(tmp_path / "r", uri, timeout_s=5)
    for name in ("loss/generator/perceptual", "odd name_"):
        assert steps_there(uri, name) == list(range(1, 20))


def test_a_record_older_than_what_was_sent_doubles_nothing(uri: str, tmp_path: Path) -> None:
    """Behind a URL records and cursor are mirrored at checkpoints only; a new machine repeats steps at other times."""
    folder = tmp_path / "r"
    record(folder, range(1, 10))
    deliver(folder, uri, timeout_s=5)
    mirrored = {name: (folder / name).read_bytes() for name in (RECORDS_NAME, CURSOR_NAME)}
    record(folder, range(10, 15))
    deliver(folder, uri, timeout_s=5)
    for name, content in mirrored.items():
        (folder / name).write_bytes(content)
    record(folder, range(10, 20))
    sender = Sender(folder, uri, timeout_s=5)
    sender.stop(flush=True)
    assert steps_there(uri) == list(range(1, 20))


def test_killed_at_any_batch(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "r", range(1, 60), end=True)
    monkeypatch.setattr(delivery, "MAX_METRICS", 30)
    kept = delivery.write_cursors
    calls = 0

    def dies(folder: Path, cursors: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt
        kept(folder, cursors)

    monkeypatch.setattr(delivery, "write_cursors", dies)
    for _ in range(40):
        try:
            deliver(tmp_path / "r", uri, timeout_s=5)
        except KeyboardInterrupt:
            continue
        break
    assert calls > 6
    assert steps_there(uri) == list(range(1, 60))
    assert runs(uri)[0].info.status == "FINISHED"


def test_a_run_taken_up_again_is_the_same_run(uri: str, tmp_path: Path) -> None:
    record(tmp_path / "r", range(1, 4), end=True)
    first = deliver(tmp_path / "r", uri, timeout_s=5)
    log = RecordLog(
        tmp_path / "r", RunCard(experiment="inkmotion", run_name="r", params={"train.seed": "7", "new": "1"})
    )
    log.metrics(9, {"lr": 1.0})
    log.abandon()
    again = deliver(tmp_path / "r", uri, timeout_s=5)
    assert again.run_id == first.run_id
    (run,) = runs(uri)
    assert run.info.status == "RUNNING"
    assert run.data.params["train.seed"] == "0"  # MLflow's params never change
    assert run.data.params["new"] == "1"


def test_flush_sends_all_folders_also_to_a_store_that_was_emptied(uri: str, tmp_path: Path, prepared: Path) -> None:
    record(tmp_path / "runs" / "a", range(1, 4), end=True)
    log = RecordLog(tmp_path / "runs" / "b")  # nobody gave it a card
    log.metrics(1, {"loss": 1.0})
    log.abandon()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / RECORDS_NAME).write_text("nonsense\n")
    flushed = flush_all(tmp_path / "runs", uri)
    assert (flushed.runs, flushed.sent, flushed.waiting) == (3, 6, 0)
    assert len(flushed.problems) == 1
    assert "broken" in flushed.problems[0]
    assert {run.info.run_name for run in runs(uri)} == {CARD.run_name, "b"}
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    other = f"sqlite:///{fresh / 'mlflow.db'}"
    cursors = json.loads((tmp_path / "runs" / "a" / CURSOR_NAME).read_text())
    cursors["servers"][other] = cursors["servers"][uri]  # as if this store had held the run
    (tmp_path / "runs" / "a" / CURSOR_NAME).write_text(json.dumps(cursors))
    with sqlite3.connect(prepared) as source, sqlite3.connect(fresh / "mlflow.db") as target:
        source.backup(target)
    source.close()
    target.close()
    assert flush_all(tmp_path / "runs", other).sent == 6
    assert len(runs(other)) == 2


def test_a_deleted_run_stays_deleted(uri: str, tmp_path: Path) -> None:
    record(tmp_path / "runs" / "a", range(1, 4), end=True)
    done = deliver(tmp_path / "runs" / "a", uri, timeout_s=5)
    with speaking_to(uri, timeout_s=5) as client:
        client.delete_run(done.run_id)
    assert flush_all(tmp_path / "runs", uri).sent == 0
    assert runs(uri) == []


def test_an_absent_server_is_one_line_and_troubles_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "r", range(1, 4))
    nobody = "http://user:secret@127.0.0.1:9"
    with pytest.raises(TrackingError) as caught:
        deliver(tmp_path / "r", nobody, timeout_s=1)
    assert str(caught.value).startswith("the tracking server http://127.0.0.1:9 must answer; got ")
    assert "secret" not in str(caught.value).split("got")[0]
    assert "\n" not in str(caught.value)
    sender = Sender(tmp_path / "r", nobody, timeout_s=1, every_s=0.01)
    sender.start()
    sender.stop(flush=True)
    assert "records wait in" in caplog.text
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_databases_that_can_not_serve_are_one_line(uri: str, tmp_path: Path) -> None:
    record(tmp_path / "r", range(1, 3))

    def said(path: Path) -> str:
        with pytest.raises(TrackingError) as caught:
            deliver(tmp_path / "r", f"sqlite:///{path}", timeout_s=0.2)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "text.db").write_text("this is a text file, and no database at all")
    assert "must be an MLflow database (sqlite); got a file that begins with" in said(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "foreign.db") as database:
        database.execute("CREATE TABLE shopping (item TEXT)")
    database.close()
    assert "another program's tables (shopping)" in said(tmp_path / "foreign.db")
    (tmp_path / "folder.db").mkdir()
    assert "must be a readable file" in said(tmp_path / "folder.db")
    mine = Path(uri.removeprefix("sqlite:///"))
    holder = sqlite3.connect(mine, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "locked" in said(mine)
    holder.execute("ROLLBACK")
    old = tmp_path / "old.db"
    holder.execute(f"VACUUM INTO '{old}'")
    holder.close()
    with sqlite3.connect(old) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    assert "mlflow db upgrade" in said(old)
    half = bytearray(mine.read_bytes())
    half[100:] = b"\xff" * (len(half) - 100)
    (tmp_path / "half.db").write_bytes(half)
    assert "whole" in said(tmp_path / "half.db")
