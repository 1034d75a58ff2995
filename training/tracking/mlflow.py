"""Sends a training's records to MLflow: at any time, as often as one likes, each metric of each step exactly once.

The record on disk is the truth. A cursor beside it says up to which byte each server has acknowledged it; a server that
is away loses nothing. MLflow's key of a metric is (run, name, step, timestamp, value), and the timestamps stand in the
record, so sending again what had arrived before the cursor was written changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from models.errors import TrackingError, must
from training.tracking.cursor import Cursor, only_deliverer, read_cursors, write_cursors
from training.tracking.database import check_database, database_path
from training.tracking.jsonl import RECORDS_NAME, read_card, read_records

log = logging.getLogger(__name__)

UID_TAG = "inkmotion.run_uid"
NAME_TAG = "inkmotion.run_name"
DEFAULT_EXPERIMENT = "inkmotion"
MAX_METRICS = 1000
"""MLflow's limits of one batch, and of one value in characters."""
MAX_PARAMS = 100
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_BACKOFF_S = 60.0
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""MLflow's codes of a server that can't be reached or is ill, rather than of one that refuses."""
_FOREIGN_LETTERS = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one delivery did; counts are of records."""

    run_id: str | None
    """MLflow's; None while there is nothing to send."""
    sent: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """What `flush_all` did; counts are of records."""

    runs: int
    """Folders with a record."""
    sent: int
    waiting: int
    problems: tuple[str, ...]
    """One line for each folder that could not be sent."""


@contextlib.contextmanager
def patience(timeout_s: float, *, retries: int = 1) -> Iterator[None]:
    """Give up on a silent server after ``timeout_s`` (MLflow's own default is minutes), without its log lines.

    Variables that the user has set himself are kept.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout_s)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # it warns of its own type hints and of its own use of SQLAlchemy; a local filter would not be safe among threads
    warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
    own = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in own})
    import mlflow  # noqa: F401  it sets the levels of its loggers when it is imported

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in own:
            os.environ.pop(name, None)


@contextlib.contextmanager
def speaking_to(uri: str, *, timeout_s: float, retries: int = 1) -> Iterator[Any]:
    """An ``MlflowClient`` of ``uri``, for runs and models; whatever goes wrong inside becomes a `TrackingError`."""
    path = database_path(uri)
    if path is not None:
        check_database(path, timeout_s=timeout_s)
    with patience(timeout_s, retries=retries):
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except TrackingError:
            raise
        except MlflowException as error:
            raise TrackingError(_refusal(uri, error)) from error
        except OSError as error:  # requests' errors are OSErrors as well
            raise TrackingError(_refusal(uri, error)) from error


def deliver(folder: Path, uri: str, *, timeout_s: float, verify: bool = False) -> Delivery:
    """Send what a run's record holds beyond the cursor; make the run when there is none.

    Args:
        folder: the run's folder.
        uri: the server or database.
        timeout_s: after which a silent server counts as away.
        verify: first ask the server what it holds, and leave out each (name, step) that is there. Needed once when a
            record was taken up again: behind a URL it may be older than what was sent of it.

    Raises:
        TrackingError: the server is away or refuses; the cursor stands where it acknowledged last.
    """
    with only_deliverer(folder) as free:
        cursors = read_cursors(folder)
        cursor = cursors.setdefault(public(uri), Cursor())
        waiting = _count_waiting(folder, cursor)
        if not free or not (waiting or verify):
            return Delivery(run_id=cursor.run_id, sent=0, waiting=waiting)
        with speaking_to(uri, timeout_s=timeout_s) as client:
            if verify:
                _forget_lost_run(client, cursor)
            sent = 0
            if _count_waiting(folder, cursor):
                sent = _Courier(folder, client, uri, cursor, lambda: write_cursors(folder, cursors)).run(verify=verify)
            return Delivery(run_id=cursor.run_id, sent=sent, waiting=0)


def run_of(folder: Path, uri: str) -> str | None:
    """Id of the run that a folder was delivered to, or None."""
    cursor = read_cursors(folder).get(public(uri))
    return cursor.run_id if cursor else None


def flush_all(runs_root: Path, uri: str, *, timeout_s: float = 30.0) -> Flushed:
    """Deliver every record below a folder.

    Raises:
        TrackingError: the server is away.
    """
    with speaking_to(uri, timeout_s=timeout_s) as client:
        client.search_experiments(max_results=1)
    folders = sorted({path.parent for path in runs_root.rglob(RECORDS_NAME)})
    sent, waiting, problems = 0, 0, []
    for folder in folders:
        try:
            sent += deliver(folder, uri, timeout_s=timeout_s, verify=True).sent
        except TrackingError as error:
            problems.append(f"{folder.name}: {error}")
        with contextlib.suppress(TrackingError):  # a broken record was named above
            waiting += _count_waiting(folder, read_cursors(folder).get(public(uri), Cursor()))
    return Flushed(runs=len(folders), sent=sent, waiting=waiting, problems=tuple(problems))


def public(uri: str) -> str:
    """A server's address without the user's name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_experiment(client: Any, uri: str, name: str) -> str:
    """Id of the experiment called ``name``, which is made when there is none.

    One that is made in an sqlite store keeps its artifacts in ``mlartifacts/`` beside the database; a server decides
    for itself.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            fix = f"Restore it: mlflow experiments restore --experiment-id {found.experiment_id}"
            raise TrackingError(must(f"experiment {name} at {public(uri)}", "be active", "deleted", fix))
        return str(found.experiment_id)
    path = database_path(uri)
    place = (path.parent / "mlartifacts" / name).as_uri() if path is not None else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except Exception:
        found = client.get_experiment_by_name(name)  # another process was quicker
        if found is None:
            raise
        return str(found.experiment_id)


class Sender:
    """Delivers a run's record every few seconds in a thread of its own, and never troubles the training."""

    def __init__(self, folder: Path, uri: str, *, timeout_s: float, every_s: float = 2.0) -> None:
        """Nothing starts yet.

        Args:
            folder: the run's folder.
            uri: the server or database.
            timeout_s: after which a silent server counts as away.
            every_s: pause between two deliveries; it grows while the server is away.
        """
        self._folder, self._uri = folder, uri
        self._timeout_s, self._every_s = timeout_s, every_s
        self._stopping = threading.Event()
        self._away_since_s: float | None = None
        self._verified = False
        self._thread = threading.Thread(target=self._work, name="inkmotion-tracking", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self, flush: bool = True, *, wait_s: float = 30.0) -> None:
        """End the thread.

        Args:
            flush: try once more to deliver everything; what can't be sent waits on disk.
            wait_s: for how long at most; a longer delivery goes on behind, or is taken up by the next one.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        if flush and not self._thread.is_alive():
            self._try()

    def _work(self) -> None:
        pause_s = self._every_s
        while not self._stopping.wait(pause_s):
            pause_s = self._every_s if self._try() else min(pause_s * 2, MAX_BACKOFF_S)

    def _try(self) -> bool:
        try:
            delivery = deliver(self._folder, self._uri, timeout_s=self._timeout_s, verify=not self._verified)
        except Exception as error:  # whatever it is, the training goes on
            if self._away_since_s is None:
                self._away_since_s = time.monotonic()
                log.warning("%s The training goes on; its records wait in %s.", error, self._folder / RECORDS_NAME)
            return False
        self._verified = self._verified or delivery.sent > 0
        if self._away_since_s is not None:
            away_s = time.monotonic() - self._away_since_s
            log.warning("%s is back after %.0f s; %d records were sent", public(self._uri), away_s, delivery.sent)
            self._away_since_s = None
        return True


@dataclass(slots=True)
class _Courier:
    """One delivery: batches of metrics, in the record's order, a cursor written after each."""

    folder: Path
    client: Any
    uri: str
    cursor: Cursor
    save: Any
    _batch: list[Any] = field(default_factory=list)
    _there: dict[str, set[int]] | None = None
    """Steps that the server holds already, by metric; None: not asked for."""

    def run(self, *, verify: bool) -> int:
        """Send everything that waits; returns the number of records."""
        sent, end = 0, self.cursor.offset
        if self.cursor.offset:
            assert self.cursor.run_id, "a cursor that moved knows its run"
        else:
            verify = self._open(read_card(self.folder) or self._unnamed()) or verify
        self._there = {} if verify else None
        for record, after in read_records(self.folder, self.cursor.offset):
            if record["kind"] != "metrics" or len(self._batch) + len(record["values"]) > MAX_METRICS:
                self._flush(end)
            getattr(self, f"_{record['kind']}", self._unknown)(record)
            end, sent = after, sent + 1
        self._flush(end)
        return sent

    def _flush(self, end: int) -> None:
        for start in range(0, len(self._batch), MAX_METRICS):
            self.client.log_batch(self.cursor.run_id, metrics=self._batch[start : start + MAX_METRICS])
        self._batch.clear()
        if end != self.cursor.offset:
            self.cursor.offset = end
            self.save()

    def _metrics(self, record: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        for name, value in record["values"].items():
            key = _letters(name)
            if self._there is None or record["step"] not in self._steps_there(key):
                self._batch.append(Metric(key, float(value), int(record["time_ms"]), int(record["step"])))

    def _picture(self, record: Mapping[str, Any]) -> None:
        path = self.folder / record["path"]
        if path.is_file():
            self.client.log_artifact(self.cursor.run_id, str(path), "pictures")
        else:
            log.warning("the picture %s is gone and was not sent", path)

    def _card(self, record: Mapping[str, Any]) -> None:
        """A later card is that of a run taken up again: new settings are added, the run counts as running."""
        from mlflow.entities import Param, RunTag

        run = self.client.get_run(self.cursor.run_id)
        known = run.data.params
        params = [Param(_letters(k), str(v)[:MAX_PARAM_LENGTH]) for k, v in record["params"].items()]
        params = [param for param in params if param.key not in known]  # MLflow's never change
        tags = {**record["tags"], NAME_TAG: record["run_name"]}
        labels = [RunTag(_letters(k), str(v)[:MAX_TAG_LENGTH]) for k, v in tags.items()]
        for start in range(0, max(len(params), len(labels)), MAX_PARAMS):
            stop = start + MAX_PARAMS
            self.client.log_batch(self.cursor.run_id, params=params[start:stop], tags=labels[start:stop])
        if run.info.status != "RUNNING":
            self.client.update_run(self.cursor.run_id, status="RUNNING")

    def _end(self, record: Mapping[str, Any]) -> None:
        self.client.set_terminated(self.cursor.run_id, status=record["status"], end_time=int(record["time_ms"]))

    def _unknown(self, record: Mapping[str, Any]) -> None:
        log.warning("%s holds a record of unknown kind %r", self.folder / RECORDS_NAME, record["kind"])

    def _open(self, card: Mapping[str, Any]) -> bool:
        """Find or make the run; says whether it was there."""
        experiment = open_experiment(self.client, self.uri, card["experiment"])
        wanted = f"tags.`{UID_TAG}` = '{card['uid']}'"
        found = self.client.search_runs([experiment], filter_string=wanted, max_results=1)
        if not found:
            tags = {UID_TAG: card["uid"], NAME_TAG: card["run_name"]}
            made = self.client.create_run(
                experiment, start_time=int(card["time_ms"]), run_name=card["run_name"], tags=tags
            )
        self.cursor.run_id = str((found[0] if found else made).info.run_id)
        self.save()
        return bool(found)

    def _unnamed(self) -> dict[str, Any]:
        name = self.folder.name
        return {
            "uid": f"folder:{name}".replace("'", ""),
            "run_name": name,
            "experiment": DEFAULT_EXPERIMENT,
            "time_ms": int(time.time() * 1000),
        }

    def _steps_there(self, key: str) -> set[int]:
        assert self._there is not None, "asked for only when verifying"
        if key not in self._there:
            history = self.client.get_metric_history(self.cursor.run_id, key)
            self._there[key] = {metric.step for metric in history}
        return self._there[key]


def _count_waiting(folder: Path, cursor: Cursor) -> int:
    return sum(1 for _ in read_records(folder, cursor.offset))


def _forget_lost_run(client: Any, cursor: Cursor) -> None:
    """Begin anew where the store no longer knows the run at all; one that its user deleted stays deleted."""
    from mlflow.exceptions import MlflowException

    if cursor.run_id is None:
        return
    try:
        client.get_run(cursor.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        cursor.run_id, cursor.offset = None, 0


def _letters(name: str) -> str:
    """A name with only the letters that MLflow takes."""
    return _FOREIGN_LETTERS.sub("_", name)[:250]


def _refusal(uri: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300].rstrip(". ")
    path = database_path(uri)
    where = f"the tracking store {path}" if path is not None else f"the tracking server {public(uri)}"
    if "out-of-date database schema" in said:
        return must(where, "have this MLflow's schema", said, f"Back it up, then run: mlflow db upgrade {public(uri)}")
    if path is not None or getattr(error, "error_code", "INTERNAL_ERROR") not in AWAY:
        return must(where, "take the request", said, "Look at what it holds with `inkmotion ui`, or name another one")
    fix = "Look whether the server runs and the address is right (tracking.uri, MLFLOW_TRACKING_URI)"
    return must(where, "answer", said, fix)
