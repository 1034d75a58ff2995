"""A registry moved to another store: numbers, files, aliases, tags and runs kept; repeated and interrupted at will."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from models.errors import TrackingError
from pipelines import moving, registry
from pipelines.moving import move
from training.tracking.jsonl import RecordLog, RunCard
from training.tracking.mlflow import deliver, speaking_to

STEPS = 30


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, to be copied; MLflow takes a second to make one."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    with speaking_to(f"sqlite:///{path}", timeout_s=5) as client:
        client.search_experiments()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def empty(tables: Path, folder: Path) -> registry.Store:
    folder.mkdir()
    shutil.copyfile(tables, folder / "mlflow.db")
    return registry.Store(uri=f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def source(tmp_path: Path, tables: Path) -> registry.Store:
    """Versions 1 and 3 of one model (2 was deleted), made by one training."""
    store = empty(tables, tmp_path / "old")
    folder = tmp_path / "run"
    log = RecordLog(
        folder, RunCard(experiment="inkmotion", run_name="toy-1", params={"lr": "0.1"}, tags={"git": "abc"})
    )
    for step in range(1, STEPS + 1):
        log.metrics(step, {"loss/a": 1 / step, "loss/b": float(step)})
    log.close()
    run_id = deliver(folder, store.uri, timeout_s=5).run_id
    for number in (1, 2, 3):
        registry.register(parcel(tmp_path, str(number), run_id=run_id), store)
    with speaking_to(store.uri, timeout_s=5) as client:
        client.delete_model_version("toy", "2")
        client.set_registered_model_alias("toy", "champion", "1")
    return store


def parcel(folder: Path, sha256: str, *, run_id: str | None = None) -> registry.Parcel:
    checkpoint = folder / f"checkpoint {sha256}"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text(sha256)
    (folder / "motion.onnx").write_bytes(b"graph of " + sha256.encode())
    tags = {"weights.sha256": sha256, "metric.name": "l1"}
    return registry.Parcel(
        name="toy",
        run_id=run_id,
        onnx=folder / "motion.onnx",
        checkpoint=checkpoint,
        card="# toy",
        tags=tags,
        size_px=32,
    )


@pytest.fixture
def target(tmp_path: Path, tables: Path) -> registry.Store:
    return empty(tables, tmp_path / "new")


def runs(store: registry.Store) -> list[Any]:
    with speaking_to(store.uri, timeout_s=5) as client:
        return list(client.search_runs([client.get_experiment_by_name("inkmotion").experiment_id]))


def steps(store: registry.Store, run_id: str) -> list[int]:
    with speaking_to(store.uri, timeout_s=5) as client:
        return sorted(metric.step for metric in client.get_metric_history(run_id, "loss/a"))


def test_everything_comes_over_once(source: registry.Store, target: registry.Store, tmp_path: Path) -> None:
    moved = move(source, target)
    assert (moved.models, moved.versions, moved.runs) == (1, 2, 1)
    assert move(source, target) == moving.Moved(models=0, versions=0, runs=0)
    one, three = registry.versions_of("toy", target)
    assert (one.version, three.version) == (1, 3)
    assert (one.aliases, three.aliases) == (("champion",), ("candidate",))
    assert one.tags["weights.sha256"] == "1"
    assert one.description == "# toy"
    for version in (one, three):
        sha256 = version.tags["weights.sha256"]
        folder = registry.resolve(version.uri, target, target=tmp_path / f"got {sha256}")
        assert folder.is_relative_to(tmp_path / f"got {sha256}")
        assert registry.onnx_of(folder).read_bytes() == b"graph of " + sha256.encode()
        checkpoint = registry.checkpoint_of(version.uri, target)
        assert "/new/" in str(checkpoint)
        assert (checkpoint / "manifest.json").read_text() == sha256
    (run,) = runs(target)
    assert run.info.run_name == "toy-1"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["git"] == "abc"
    assert steps(target, run.info.run_id) == list(range(1, STEPS + 1))


def test_registering_leaves_the_training_s_run_as_it_was(source: registry.Store) -> None:
    (run,) = runs(source)
    assert run.info.status == "FINISHED"
    assert [version.run_id for version in registry.versions_of("toy", source)] == [run.info.run_id] * 2
    with speaking_to(source.uri, timeout_s=5) as client:
        ended = max(metric.timestamp for metric in client.get_metric_history(run.info.run_id, "loss/a"))
    assert run.info.end_time - ended < 60_000


def test_the_checkpoint_is_no_part_of_the_model(source: registry.Store) -> None:
    folder = registry.resolve("models:/toy@champion", source)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "motion.py", "motion.onnx", "model_card.md", "input_example.json"} <= names
    assert "manifest.json" not in names


def test_a_move_goes_on_where_it_was_interrupted(
    source: registry.Store, target: registry.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("_figures", "_files", "_aliases"):
        with monkeypatch.context() as patch:
            patch.setattr(moving, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                move(source, target)
    move(source, target)
    assert [version.version for version in registry.versions_of("toy", target)] == [1, 3]
    (run,) = runs(target)
    assert steps(target, run.info.run_id) == list(range(1, STEPS + 1))
    assert run.info.status == "FINISHED"


def test_aliases_follow_the_source_but_not_over_the_targets_own(
    source: registry.Store, target: registry.Store, tmp_path: Path
) -> None:
    move(source, target)
    with speaking_to(source.uri, timeout_s=5) as client:
        client.set_registered_model_alias("toy", "champion", "3")
    move(source, target)
    assert registry.find("models:/toy@champion", target).version == 3
    made = registry.register(dataclasses.replace(parcel(tmp_path, "9")), target)
    assert made.version == 4
    move(source, target)
    assert registry.find("models:/toy@candidate", target).version == 4
    assert registry.find("models:/toy@champion", target).version == 3


def test_foreign_versions_are_not_overwritten(source: registry.Store, target: registry.Store, tmp_path: Path) -> None:
    registry.register(parcel(tmp_path, "7"), target)
    with pytest.raises(TrackingError, match=r"models:/toy/1 must be free in the target"):
        move(source, target)
    assert len(registry.versions_of("toy", target)) == 1
    with pytest.raises(TrackingError, match="another store"):
        move(source, source)
