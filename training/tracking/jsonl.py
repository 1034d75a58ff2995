"""A training's own record on disk: the truth that reports read, and the outbox that a tracking server is filled from.

``records.jsonl`` is append-only, one JSON object a line, each written whole by one system call:

    {"kind": "card", "uid": ..., "experiment": ..., "run_name": ..., "params": {...}, "tags": {...}, "time_ms": ...}
    {"kind": "metrics", "step": 10, "values": {"loss/generator/pixel": 0.1}, "time_ms": ...}
    {"kind": "picture", "step": 80, "name": "samples", "path": "pictures/samples.png", "time_ms": ...}
    {"kind": "end", "status": "FINISHED", "time_ms": ...}

The times are written once and sent as they stand, so that sending a record twice changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.errors import TrackingError, must

RECORDS_NAME = "records.jsonl"
EndStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCard:
    """What a tracking server shows of a run besides its metrics."""

    experiment: str
    """The server's experiment, a drawer of runs; not the entry of params.yaml."""
    run_name: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RecordLog:
    """A `Tracker` that appends to ``<folder>/records.jsonl`` and survives being killed at any byte.

    A resumed training repeats the steps after its checkpoint; a value is recorded only when its name has not been
    recorded for that step or a later one, so nothing stands there twice. Safe to call from several threads, but only
    one process may write a folder's record.
    """

    def __init__(self, folder: Path, card: RunCard | None = None) -> None:
        """Open or create the record.

        Args:
            folder: the run's folder.
            card: written when it differs from the one that stands there, or when the record had been ended; None keeps
                the record as it is.

        Raises:
            TrackingError: the folder can't be written, or holds something else under the record's name.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        self._closed = False
        latest, ended, whole = self._scan(folder / RECORDS_NAME)
        self._uid = str(latest.get("uid") or uuid.uuid4().hex)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / RECORDS_NAME, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
            os.ftruncate(self._file, whole)  # a killed writer's last line may be torn
        except OSError as error:
            fix = "Choose a writable folder for the runs"
            raise TrackingError(must(str(folder / RECORDS_NAME), "be writable", str(error), fix)) from None
        if card is not None and (ended or not _same_card(latest, card)):
            self._append({"kind": "card", "uid": self._uid, **_card_fields(card)})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values whose names were not recorded yet for this step or a later one."""
        with self._lock:
            new = {name: float(value) for name, value in values.items() if step > self._last.get(name, -1)}
            if new:
                self._append({"kind": "metrics", "step": int(step), "values": new})
                self._last.update(dict.fromkeys(new, int(step)))

    def picture(self, step: int, name: str, path: Path) -> None:
        """Record a picture; one from outside the folder is copied into its ``pictures/``."""
        with self._lock:
            if step <= self._last.get(f"picture:{name}", -1):
                return
            inside = _inside(self._folder, path)
            if inside is None:
                inside = self._take_in(path, Path("pictures") / f"{name.replace('/', '-')}-{step:08d}{path.suffix}")
            self._append({"kind": "picture", "step": int(step), "name": name, "path": inside.as_posix()})
            self._last[f"picture:{name}"] = int(step)

    def close(self, status: EndStatus = "FINISHED") -> None:
        """Write the end of the run; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._append({"kind": "end", "status": status})
            self._release()

    def abandon(self) -> None:
        """Let go of the file without ending the run, which another process will go on with."""
        with self._lock:
            if not self._closed:
                self._release()

    def _take_in(self, path: Path, inside: Path) -> Path:
        try:
            (self._folder / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self._folder / inside)
        except OSError as error:
            where = str(self._folder / inside)
            raise TrackingError(must(where, "be writable", str(error), "Look at the disk's free space")) from None
        return inside

    def _release(self) -> None:
        self._closed = True
        os.close(self._file)

    def _append(self, record: dict[str, Any]) -> None:
        if self._closed:
            raise TrackingError(must(str(self._folder / RECORDS_NAME), "be open", "a record after its end"))
        line = json.dumps({**record, "time_ms": int(time.time() * 1000)}).encode() + b"\n"
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
        except OSError as error:
            os.ftruncate(self._file, before)
            fix = "Free some disk space; the training resumes from its last checkpoint"
            where = str(self._folder / RECORDS_NAME)
            raise TrackingError(must(where, "take another record", str(error), fix)) from None

    def _scan(self, path: Path) -> tuple[dict[str, Any], bool, int]:
        """The latest card, whether the record is ended, and the length of its whole lines in bytes."""
        latest: dict[str, Any] = {}
        ended, whole = False, 0
        for record, end in read_records(path.parent):
            whole = end
            ended = record["kind"] == "end"
            if record["kind"] == "card":
                latest = record
            for name in recorded_names(record):
                self._last[name] = max(int(record["step"]), self._last.get(name, -1))
        return latest, ended, whole


def read_records(folder: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every whole record from a byte offset on, with the offset behind it.

    Args:
        folder: the run's folder; one without a record yields nothing.
        start: where a record begins: 0, or an offset that was yielded before.

    Raises:
        TrackingError: a line is not a record (only the last one may be torn).
    """
    path = folder / RECORDS_NAME
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise TrackingError(must(str(path), "be readable", str(error), "Look at the file's owner and mode")) from None
    with file:
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield _record(line, path, end), end


def read_card(folder: Path) -> dict[str, Any] | None:
    """The latest run card's record, or None when there is none."""
    cards = [record for record, _ in read_records(folder) if record["kind"] == "card"]
    return cards[-1] if cards else None


def read_metrics(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """All recorded metrics by step, rising, the names of one step together."""
    steps: dict[int, dict[str, float]] = {}
    for record, _ in read_records(folder):
        if record["kind"] == "metrics":
            steps.setdefault(int(record["step"]), {}).update(record["values"])
    return sorted(steps.items())


def recorded_names(record: Mapping[str, Any]) -> list[str]:
    """Under which names a record counts as recorded: its metrics', or its picture's."""
    if record["kind"] == "metrics":
        return list(record["values"])
    return [f"picture:{record['name']}"] if record["kind"] == "picture" else []


def _record(line: bytes, path: Path, end: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and "kind" in record:
            return record
    except ValueError:
        pass
    fix = "Move the file away; the run's checkpoints do not depend on it"
    raise TrackingError(must(f"{path}, byte {end - len(line)},", "hold a JSON record", repr(line[:60]), fix))


def _inside(folder: Path, path: Path) -> Path | None:
    resolved = path.resolve()
    root = folder.resolve()
    return resolved.relative_to(root) if resolved.is_relative_to(root) else None


def _card_fields(card: RunCard) -> dict[str, Any]:
    return {"experiment": card.experiment, "run_name": card.run_name, "params": card.params, "tags": card.tags}


def _same_card(record: Mapping[str, Any], card: RunCard) -> bool:
    return all(record.get(key) == value for key, value in _card_fields(card).items())
