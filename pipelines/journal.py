"""What a stage did with each item, line by line, so that a killed stage goes on where it was.

The journal lies beside the output and is no part of it. An item's result counts as long as its key, which is made
of everything that the result depends on, is the same and its files are there: in the unfinished folder, or in the last
finished one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from preprocessing.clips import write_lines


def key_of(*parts: Any) -> str:
    """A checksum of everything that a result depends on; parts must have a ``repr`` that says all of them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Work:
    """An unfinished output folder and the journal of what is in it.

    Args:
        target: the finished output, which is replaced when all is done.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.parent / f".{target.name}.making"
        self._path = target.parent / f".{target.name}.journal.jsonl"
        self._entries = {entry["item"]: entry for entry in _entries(self._path)}
        self._file: IO[str] | None = None

    def result(self, item: str, key: str) -> dict[str, Any] | None:
        """What became of an item, if that still holds; its files are in `folder` then."""
        entry = self._entries.get(item)
        if entry is None or entry["key"] != key:
            return None
        if not all(self._have(name, size) for name, size in entry["files"].items()):
            return None
        result: dict[str, Any] = entry["result"]
        return result

    def results(self) -> list[dict[str, Any]]:
        """What is written down of all items, whether it still holds or not."""
        return [entry["result"] for entry in self._entries.values()]

    def add(self, item: str, key: str, result: Mapping[str, Any], files: Iterable[str]) -> None:
        """Write down what became of an item, after its files were put into `folder`."""
        sizes = {name: (self.folder / name).stat().st_size for name in files}
        entry = {"item": item, "key": key, "files": sizes, "result": result}
        self._entries[item] = entry
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def sweep(self, items: Iterable[str]) -> None:
        """Forget every item but these, and remove whatever in `folder` is of none of them."""
        for attempt in self.folder.glob(".attempt-*"):  # a task of a killed stage may still write there
            shutil.rmtree(attempt, ignore_errors=True)
        self._entries = {item: self._entries[item] for item in items if item in self._entries}
        self._rewrite(self._entries.values())
        live = {name for entry in self._entries.values() for name in entry["files"]}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()
            elif path.relative_to(self.folder).as_posix() not in live:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Free the journal's file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _have(self, name: str, size: int) -> bool:
        here = self.folder / name
        if _size(here) == size:
            return True
        before = self.target / name
        if _size(before) != size:
            return False
        here.unlink(missing_ok=True)
        here.parent.mkdir(parents=True, exist_ok=True)
        same_file(before, here)
        return True

    def _rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self.close()
        write_lines(self._path, (dict(entry) for entry in entries))


@contextmanager
def resumed(target: Path) -> Iterator[Work]:
    """A folder to fill, whose content outlives a kill or a failure; it becomes ``target`` when the block ends well.

    The caller holds the target's lock.
    """
    work, old = Work(target), target.parent / f".{target.name}.making-old"
    work.folder.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    try:
        yield work
    finally:
        work.close()
    work.folder.chmod(0o755)
    if target.exists():
        os.replace(target, old)
    os.replace(work.folder, target)
    shutil.rmtree(old, ignore_errors=True)


def unfinished(target: Path) -> Path | None:
    """The folder of a run of a stage that was killed or failed, newer than ``target``; None: there is none."""
    folder = Work(target).folder
    return folder if folder.is_dir() else None


def same_file(source: Path, target: Path) -> None:
    """Have a file under a second name without a copy, where the file system can; it is never written again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines; a kill may have cut off the last one, which is cut off for good then."""
    try:
        with path.open("rb") as file:
            whole = 0
            for line in file:
                try:
                    entry = json.loads(line)
                    known = isinstance(entry, dict) and {"item", "key", "files", "result"} <= set(entry)
                except ValueError:
                    known = False
                if not line.endswith(b"\n") or not known:
                    break
                whole += len(line)
                yield entry
        if whole < path.stat().st_size:
            os.truncate(path, whole)
    except FileNotFoundError:
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1
