"""How far each tracking server has acknowledged a run's record: ``cursor.json`` beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.tracking.jsonl import RECORDS_NAME

CURSOR_NAME = "cursor.json"
LOCK_NAME = ".cursor.lock"


@dataclass(slots=True)
class Cursor:
    """Of one server."""

    run_id: str | None = None
    """The server's id of the run; None while it has none."""
    offset: int = 0
    """Bytes of the record that it has acknowledged."""


def read_cursors(folder: Path) -> dict[str, Cursor]:
    """By server; a lost or broken file means that nothing was acknowledged, which costs time only."""
    try:
        raw = json.loads((folder / CURSOR_NAME).read_text(encoding="utf-8"))
        size = (folder / RECORDS_NAME).stat().st_size
        cursors = {uri: Cursor(**entry) for uri, entry in raw["servers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {uri: cursor for uri, cursor in cursors.items() if cursor.offset <= size}


def write_cursors(folder: Path, cursors: Mapping[str, Cursor]) -> None:
    """Replace the file, at once or not at all."""
    servers = {uri: {"run_id": cursor.run_id, "offset": cursor.offset} for uri, cursor in cursors.items()}
    beside = folder / f".{CURSOR_NAME}.{os.getpid()}"
    beside.write_text(json.dumps({"schema_version": 1, "servers": servers}, indent=2), encoding="utf-8")
    os.replace(beside, folder / CURSOR_NAME)


@contextlib.contextmanager
def only_deliverer(folder: Path) -> Iterator[bool]:
    """Whether nobody else is delivering this folder; if so, nobody will inside the block."""
    with (folder / LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
