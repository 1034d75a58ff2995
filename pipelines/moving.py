"""Moves a registry to another store: every version with its files, aliases, tags and source run, under its own number.

Needed because a store in sqlite records paths of this machine, which the clients of a server can't read.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import TrackingError, must
from pipelines.registry import (
    CHECKPOINT_TAG,
    Store,
    Version,
    checkpoint_of,
    names,
    param,
    pointing_at,
    resolve,
    versions_of,
)
from training.tracking.mlflow import DEFAULT_EXPERIMENT, open_experiment, public, speaking_to

log = logging.getLogger(__name__)

ORIGIN_TAG = "inkmotion.copied_from"
FOLDER = "model"
BATCH = 1000
PARAMS_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What came over; what was there already is not counted."""

    models: int
    versions: int
    runs: int


def move(source: Store, target: Store) -> Moved:
    """Copy all registered models; what was copied before is left alone, so it may be repeated or interrupted.

    Raises:
        TrackingError: a store is away, or the target holds other versions under the numbers needed.
    """
    if public(source.uri) == public(target.uri):
        raise TrackingError(must("the target", "be another store than the source", public(target.uri)))
    counts = {"models": 0, "versions": 0, "runs": 0}
    with _both(source, target) as (old, new):
        for name in names(source):
            counts["models"] += _make_model(old, new, name)
            there = {version.version: version for version in versions_of(name, target)}
            for version in versions_of(name, source):
                _check(version, there.get(version.version))
                if version.version in there:
                    continue
                run_id, made = _run(old, new, version, target)
                counts["runs"] += made
                _copy(new, version, run_id, (source, target))
                counts["versions"] += 1
                log.info("moved %s", version.uri)
            _aliases(new, name, source, target)
    return Moved(**counts)


@contextlib.contextmanager
def _both(source: Store, target: Store) -> Iterator[tuple[Any, Any]]:
    with (
        speaking_to(source.uri, timeout_s=source.timeout_s) as old,
        speaking_to(target.uri, timeout_s=target.timeout_s, retries=3) as new,
    ):
        yield old, new


def _origin(version: Version) -> str:
    """The same wherever the source's file lies."""
    return f"{version.uri} {version.tags.get('weights.sha256', '')[:16]}".strip()


def _check(version: Version, there: Version | None) -> None:
    if there is not None and there.tags.get(ORIGIN_TAG) != _origin(version):
        fix = "Move to an empty registry, or delete that version there"
        raise TrackingError(must(version.uri, "be free in the target", "another version of that number", fix))


def _make_model(old: Any, new: Any, name: str) -> int:
    if any(model.name == name for model in new.search_registered_models(filter_string=f"name = '{name}'")):
        return 0
    model = old.get_registered_model(name)
    new.create_registered_model(name, tags=dict(model.tags), description=model.description)
    return 1


def _run(old: Any, new: Any, version: Version, target: Store) -> tuple[str, int]:
    """The version's run in the target, copied unless it is there; its id, and whether it was made.

    Its figures are sent again when it is there but not ended, for then an earlier move may have been interrupted; what
    the target holds already it does not take twice.
    """
    experiment = open_experiment(new, target.uri, DEFAULT_EXPERIMENT)
    origin = version.run_id or version.uri
    found = new.search_runs([experiment], filter_string=f"tags.`{ORIGIN_TAG}` = '{origin}'")
    if found and found[0].info.status != "RUNNING":
        return str(found[0].info.run_id), 0
    if version.run_id is None:
        name = f"{version.name}-{version.version}"
        made = found[0] if found else new.create_run(experiment, run_name=name, tags={ORIGIN_TAG: origin})
        new.set_terminated(made.info.run_id)
        return str(made.info.run_id), 0 if found else 1
    run = old.get_run(version.run_id)
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.log-model")}
    tags[ORIGIN_TAG] = origin
    start, name = run.info.start_time, run.info.run_name
    made = found[0] if found else new.create_run(experiment, start_time=start, run_name=name, tags=tags)
    run_id = str(made.info.run_id)
    _figures(old, new, version.run_id, run_id)
    new.set_terminated(run_id, status=run.info.status, end_time=run.info.end_time)
    return run_id, 0 if found else 1


def _figures(old: Any, new: Any, source_id: str, run_id: str) -> None:
    """Parameters, and every metric of every step."""
    run = old.get_run(source_id)
    params = [param(key, value) for key, value in run.data.params.items()]
    for start in range(0, len(params), PARAMS_BATCH):
        new.log_batch(run_id, params=params[start : start + PARAMS_BATCH])
    history = [metric for name in run.data.metrics for metric in old.get_metric_history(source_id, name)]
    for start in range(0, len(history), BATCH):
        new.log_batch(run_id, metrics=history[start : start + BATCH])


def _copy(new: Any, version: Version, run_id: str, stores: tuple[Store, Store]) -> None:
    """Files and tags of one version, under its own number."""
    source, target = stores
    place = f"{FOLDER}-{version.name}-{version.version}"
    _files(new, resolve, version, (run_id, place), source)
    if version.run_id is not None and CHECKPOINT_TAG in version.tags:
        _files(new, checkpoint_of, version, (run_id, version.tags[CHECKPOINT_TAG]), source)
    tags = {**version.tags, ORIGIN_TAG: _origin(version)}
    while True:
        origin, told = f"runs:/{run_id}/{place}", version.description
        with pointing_at(target):
            made = new.create_model_version(version.name, source=origin, run_id=run_id, tags=tags, description=told)
        if int(made.version) == version.version:
            return
        new.delete_model_version(version.name, made.version)
        if int(made.version) > version.version:
            fix = "Move to an empty registry"
            raise TrackingError(must(version.uri, "be free in the target", f"numbers up to {made.version}", fix))


def _files(new: Any, fetch: Callable[..., Path], version: Version, place: tuple[str, str], source: Store) -> None:
    """Bring what ``fetch`` finds of a version to (run, folder) in the target."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = fetch(version.uri, source, target=Path(scratch))
        new.log_artifacts(place[0], str(folder), place[1])


def _aliases(new: Any, name: str, source: Store, target: Store) -> None:
    """Set the source's aliases, but take none from a version that was registered in the target itself."""
    held = {alias: version for version in versions_of(name, target) for alias in version.aliases}
    for version in versions_of(name, source):
        for alias in version.aliases:
            if alias not in held or ORIGIN_TAG in held[alias].tags:
                new.set_registered_model_alias(name, alias, str(version.version))
