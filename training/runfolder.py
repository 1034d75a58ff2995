"""A training's own folder, local or behind a URL: its checkpoints, records, pictures, and who works in it.

A checkpoint appears at once or not at all: locally it is written beside and renamed, behind a URL its manifest is
uploaded last. What was half written is never read, and is removed when the next attempt starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from models.errors import CheckpointError, EnvironmentProblem, must
from training.checkpoint import MANIFEST

STEP_NAME = "step-{:08d}"
STEP_PATTERN = re.compile(r"step-(\d{8,})")
UNDONE_PATTERN = re.compile(r"\.step-\d{8,}\.(writing|deleting)-\d+")
RECORDS = ("records.jsonl", "cursor.json")
"""What must outlive this machine when the folder is behind a URL."""
PROGRESS, WORKERS, STOP, SUMMARY = "progress.json", "workers.json", "stop", "summary.json"


def is_url(location: str) -> bool:
    """Whether fsspec is needed to reach it; ``file://`` is a path."""
    return "://" in location and not location.startswith("file://")


class RunFolder:
    """The folder of one training. Only rank 0 writes."""

    def __init__(self, location: str) -> None:
        """Name the folder; nothing is made yet.

        Args:
            location: a path, or a URL that fsspec knows (``s3://bucket/runs/NAME``).
        """
        self.location = location.removeprefix("file://").rstrip("/")
        self._remote = _Remote(self.location) if is_url(location) else None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if self._remote is not None:
            self._scratch = tempfile.TemporaryDirectory(prefix="inkmotion-run-")
        self.local = Path(self._scratch.name if self._scratch else self.location)
        """Where this process reads and writes files; for a URL a scratch folder that is mirrored."""

    def close(self) -> None:
        """Remove the scratch folder, if any."""
        if self._scratch is not None:
            self._scratch.cleanup()

    def open_for_writing(self) -> None:
        """Make the folder, bring back the records, and remove what a killed attempt left half done.

        Raises:
            EnvironmentProblem: it can't be written.
        """
        with _writing(self.location):
            self.local.mkdir(parents=True, exist_ok=True)
            self.withdraw_stop()
            for entry in self.local.iterdir():
                if UNDONE_PATTERN.fullmatch(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)
            if self._remote is not None:
                self._remote.drop_undone()
                self.fetch(RECORDS)

    def fetch(self, names: Iterable[str]) -> None:
        """Copy files from behind the URL into the local folder, those that exist; nothing for a path."""
        if self._remote is not None:
            for name in names:
                self._remote.get(name, self.local / name)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        if self._remote is not None:
            return sorted(self._remote.steps())
        if not self.local.is_dir():
            return []
        names = [entry.name for entry in self.local.iterdir() if (entry / MANIFEST).is_file()]
        return sorted(int(match[1]) for name in names if (match := STEP_PATTERN.fullmatch(name)))

    def place(self, step: int) -> str:
        """Path or URL of a step's checkpoint."""
        return f"{self.location}/{STEP_NAME.format(step)}"

    def checkpoint(self, step: int) -> Path:
        """A local folder with the checkpoint of a step; from behind a URL it is fetched.

        Raises:
            CheckpointError: there is none.
        """
        if step not in self.steps():
            fix = f"There are {self.steps()}"
            raise CheckpointError(must(self.location, f"hold a checkpoint of step {step}", "none", fix))
        folder = self.local / STEP_NAME.format(step)
        if self._remote is not None and not (folder / MANIFEST).is_file():
            self._remote.get_folder(folder.name, folder)
        return folder

    def save(self, step: int, write: Callable[[Path], Any]) -> None:
        """Add a checkpoint.

        Args:
            step: whose.
            write: fills an empty folder, the manifest last.

        Raises:
            EnvironmentProblem: the disk is full, or the place can't be written.
        """
        name = STEP_NAME.format(step)
        beside, final = self.local / f".{name}.writing-{os.getpid()}", self.local / name
        with _writing(self.location):
            try:
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir(parents=True)
                write(beside)
                self._drop_local(name)
                os.replace(beside, final)
                _sync_folder(self.local)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            if self._remote is not None:
                self.publish(RECORDS)
                self._remote.put_folder(final, name)
                self._drop_local(name)

    def prune(self, *, keep_last: int, keep: Iterable[int] = ()) -> None:
        """Remove all checkpoints but the newest ``keep_last`` and those of the steps ``keep``."""
        steps = self.steps()
        with _writing(self.location):
            for step in set(steps) - set(steps[-keep_last:]) - set(keep):
                self._drop_local(STEP_NAME.format(step))
                if self._remote is not None:
                    self._remote.drop(STEP_NAME.format(step))

    def drop(self, name: str) -> None:
        """Remove a folder of the run folder, if it is there."""
        shutil.rmtree(self.local / name, ignore_errors=True)
        if self._remote is not None:
            self._remote.drop(name)

    def write_json(self, name: str, value: Any) -> None:
        """Write a small file, at once or not at all."""
        beside = self.local / f".{name}.{os.getpid()}"
        with _writing(self.location):
            beside.write_text(json.dumps(value), encoding="utf-8")
            os.replace(beside, self.local / name)
            self.publish([name])

    def read_json(self, name: str) -> Any:
        """The content of a small file, or None while there is none."""
        self.fetch([name])
        try:
            return json.loads((self.local / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def publish(self, names: Iterable[str]) -> None:
        """Copy local files behind the URL, those that exist; nothing for a path."""
        if self._remote is not None:
            for name in names:
                if (self.local / name).is_file():
                    self._remote.put(self.local / name, name)

    def ask_to_stop(self) -> None:
        """Ask whoever trains here to write a checkpoint and end."""
        self.local.mkdir(parents=True, exist_ok=True)
        (self.local / STOP).touch()
        self.publish([STOP])

    def is_asked_to_stop(self) -> bool:
        """Whether somebody did."""
        self.fetch([STOP])
        return (self.local / STOP).exists()

    def withdraw_stop(self) -> None:
        """Forget an earlier wish to stop."""
        (self.local / STOP).unlink(missing_ok=True)
        if self._remote is not None:
            self._remote.drop(STOP)

    def _drop_local(self, name: str) -> None:
        folder, away = self.local / name, self.local / f".{name}.deleting-{os.getpid()}"
        if folder.exists():
            shutil.rmtree(away, ignore_errors=True)
            os.replace(folder, away)  # so that no half of it is ever seen
            shutil.rmtree(away, ignore_errors=True)


class _Remote:
    """The same folder behind a URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._system, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def steps(self) -> list[int]:
        found = [(name, match) for name in self._names() if (match := STEP_PATTERN.fullmatch(name))]
        return [int(match[1]) for name, match in found if self._system.exists(f"{self._root}/{name}/{MANIFEST}")]

    def drop_undone(self) -> None:
        whole = {STEP_NAME.format(step) for step in self.steps()}
        for name in self._names():
            if STEP_PATTERN.fullmatch(name) and name not in whole:
                self.drop(name)

    def drop(self, name: str) -> None:
        place = f"{self._root}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if self._system.exists(f"{place}/{MANIFEST}"):
                self._system.rm_file(f"{place}/{MANIFEST}")  # first, so that no half of it is ever read
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(place, recursive=True)

    def get(self, name: str, target: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            content = self._system.cat_file(f"{self._root}/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def get_folder(self, name: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._system.ls(f"{self._root}/{name}", detail=False), key=_manifest_last):
            self._system.get_file(path, str(target / path.rstrip("/").rsplit("/", 1)[-1]))

    def put(self, source: Path, name: str) -> None:
        self._system.makedirs(self._root, exist_ok=True)
        self._system.put_file(str(source), f"{self._root}/{name}")

    def put_folder(self, source: Path, name: str) -> None:
        self._system.makedirs(f"{self._root}/{name}", exist_ok=True)
        for path in sorted(map(str, source.iterdir()), key=_manifest_last):
            self._system.put_file(path, f"{self._root}/{name}/{Path(path).name}")

    def _names(self) -> list[str]:
        try:
            listed = self._system.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in listed]


def _manifest_last(path: str) -> tuple[bool, str]:
    return path.endswith(MANIFEST), path


@contextlib.contextmanager
def _writing(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = (
            "Free some space or choose another folder, then run the same command again: nothing that was saved is lost"
        )
        got = error.strerror or f"{type(error).__name__}: {error}"
        raise EnvironmentProblem(must(location, "be writable", got, fix)) from error


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def fetch_folder(location: str) -> Iterator[Path]:
    """A local folder with the files of ``location``: itself, or a temporary copy of what is behind a URL."""
    if not is_url(location):
        yield Path(location.removeprefix("file://"))
        return
    base, _, name = location.rstrip("/").rpartition("/")
    with tempfile.TemporaryDirectory(prefix="inkmotion-fetch-") as scratch:
        try:
            _Remote(base).get_folder(name, Path(scratch))
        except OSError as error:
            raise CheckpointError(
                must(location, "be readable", str(error), "Check the address and its rights")
            ) from error
        yield Path(scratch)
