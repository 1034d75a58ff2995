"""Looks at an sqlite tracking store before MLflow does, which would retry for minutes or fill a foreign database."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from models.errors import TrackingError, must

PREFIX = "sqlite:///"
_MAGIC = b"SQLite format 3\x00"


def database_path(uri: str) -> Path | None:
    """The file of an sqlite URI, absolute; None for any other URI."""
    return Path(uri.removeprefix(PREFIX)).resolve() if uri.startswith(PREFIX) else None


def check_database(path: Path, *, timeout_s: float) -> None:
    """Make sure that MLflow can use a database file, or can make it.

    Args:
        path: of the file, which need not exist.
        timeout_s: how long another process may hold it locked.

    Raises:
        TrackingError: it is no database, another program's, locked, or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        fix = "Choose another place by tracking.uri or MLFLOW_TRACKING_URI"
        raise TrackingError(must(str(path), "be a readable file", error.strerror or str(error), fix)) from None
    if head and head != _MAGIC:
        fix = "Move the file away, or name another database by tracking.uri"
        raise TrackingError(must(str(path), "be an MLflow database (sqlite)", f"a file that begins with {head!r}", fix))
    if head:
        _check_tables(path, timeout_s)


def _check_tables(path: Path, timeout_s: float) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        fix = "End the program that holds it, wait, or name another database by tracking.uri"
        raise TrackingError(must(str(path), "be a free, whole and writable sqlite database", str(error), fix)) from None
    tables = {str(name) for (name,) in found}
    if tables and not {"alembic_version", "experiments"} <= tables:
        got = f"another program's tables ({', '.join(sorted(tables)[:5])})"
        fix = "Name another database by tracking.uri or MLFLOW_TRACKING_URI"
        raise TrackingError(must(str(path), "be an MLflow database or empty", got, fix))
