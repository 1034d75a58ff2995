"""Who uses the studio: a folder, a history and a stop for each visit, and nothing left when it ends."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HISTORY = 12
"""Results that a visit keeps."""
PREFIX = "inkmotion-studio-"


class VisitEnded(Exception):
    """Something is asked for by a page that was closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One result and its files, in a folder of its own."""

    folder: Path
    gif: Path
    mp4: Path
    still: Path
    """The stylised face."""
    label: str


@dataclass(slots=True, kw_only=True)
class Visit:
    """One open page."""

    folder: Path
    past: deque[Made] = field(default_factory=deque)
    """Newest first."""
    seen: Any = None
    """What was found in its photo."""
    uploads: set[Path] = field(default_factory=set)
    """Files that it was given."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the page was closed."""
    halted: threading.Event = field(default_factory=threading.Event)
    """Set when its reader wants no more of what is being made."""
    _working: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_over(self) -> bool:
        """Whether work shall stop; it asks between frames."""
        return self.ended.is_set() or self.halted.is_set()

    def keep(self, made: Made) -> None:
        """Put a result first in the history; the oldest ones beyond `HISTORY` are removed with their files."""
        with self._lock:
            self.past.appendleft(made)
            old = [self.past.pop() for _ in range(len(self.past) - HISTORY)]
        for each in old:
            shutil.rmtree(each.folder, ignore_errors=True)

    @contextmanager
    def working(self) -> Iterator[Path]:
        """A new folder for one piece of work; it goes when the block fails, and all go when the page was closed.

        Raises:
            VisitEnded: the page was closed before.
        """
        with self._lock:
            if self.ended.is_set():
                raise VisitEnded
            self.halted.clear()
            place = Path(tempfile.mkdtemp(dir=self.folder, prefix="work-"))
            self._working += 1
        try:
            yield place
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            self._left()

    def end(self) -> None:
        """Stop what is being made. The folder goes now, or as soon as the work has stopped."""
        with self._lock:
            self.ended.set()
            idle = not self._working
        if idle:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self) -> None:
        with self._lock:
            self._working -= 1
            over = self.ended.is_set() and not self._working
        if over:
            shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All open pages.

    Args:
        root: below which each gets its folder, and uploads lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._open: dict[str, Visit] = {}

    def of(self, key: str) -> Visit:
        """The visit of a page, begun when it is first asked for."""
        with self._lock:
            if key not in self._open:
                self._open[key] = Visit(folder=Path(tempfile.mkdtemp(dir=self._root, prefix="visit-")))
            return self._open[key]

    def open(self, key: str) -> Visit:
        """The visit of a page that is open.

        Raises:
            VisitEnded: it was closed, or never begun.
        """
        with self._lock:
            if key not in self._open:
                raise VisitEnded
            return self._open[key]

    def end(self, key: str) -> None:
        """The page was closed: its folder goes, and its uploads that no other page has; never begun, it has none."""
        with self._lock:
            visit = self._open.pop(key, None)
            if visit is None:
                return
            others = set().union(*(other.uploads for other in self._open.values()))
            for path in visit.uploads - others:
                if self._root in path.parents:
                    path.unlink(missing_ok=True)
        visit.end()

    def end_all(self) -> None:
        """The studio closes."""
        with self._lock:
            left, self._open = list(self._open.values()), {}
        for visit in left:
            visit.end()


@contextmanager
def studio_folder() -> Iterator[Path]:
    """A temporary folder for all visits, which is gone when the block ends, however it ends."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
