"""Who uses the studio: a folder, a history and a stop for each visit, and nothing left when it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import EnvironmentProblem, must
from pipelines.stylise_animate_types import Stopped

logger = logging.getLogger(__name__)

HISTORY = 12
"""Results that a visit keeps."""
PREFIX = "inkmotion-studio-"
ALIVE = "alive.lock"
"""In a studio's folder: a file that its process holds locked, so that the kernel lets go when it dies, however."""
WAITING = 12
"""Works that wait for their turn at most."""
_ASK_EVERY_S = 0.2


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """Something that is made for a visit, or waits for its turn."""

    folder: Path
    """Of its own."""
    stop: threading.Event = field(default_factory=threading.Event)

    def is_over(self) -> bool:
        """Whether it shall stop; it asks between frames."""
        return self.stop.is_set()


class Turns:
    """One work at a time, in the order in which they came; those that wait can be stopped."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._line: deque[Work] = deque()

    @contextmanager
    def mine(self, work: Work, *, waits: Callable[[int], None]) -> Iterator[None]:
        """The block is run when all that came before are done.

        Args:
            work: what is to be done.
            waits: told from time to time how many are before it.

        Raises:
            Stopped: it was stopped before its turn.
            EnvironmentProblem: too many wait.
        """
        with self._free:
            if len(self._line) > WAITING:
                rule, fix = f"have a place among the {WAITING} that wait", "Try again when some are done"
                raise EnvironmentProblem(must("the studio", rule, "none", fix))
            self._line.append(work)
        try:
            while before := self._before(work):
                waits(before)
            yield
        finally:
            with self._free:
                self._line.remove(work)
                self._free.notify_all()

    def _before(self, work: Work) -> int:
        """How many are before it, after a while if there are some."""
        with self._free:
            if self._line[0] is not work:
                self._free.wait(_ASK_EVERY_S)
            if work.is_over():
                raise Stopped
            return self._line.index(work)


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
    _works: set[Work] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def halt(self) -> None:
        """Stop what is being made for it and what waits for its turn; what comes later is not meant."""
        with self._lock:
            for work in self._works:
                work.stop.set()

    def keep(self, made: Made) -> None:
        """Put a result first in the history; the oldest ones beyond `HISTORY` are removed with their files."""
        with self._lock:
            self.past.appendleft(made)
            old = [self.past.pop() for _ in range(len(self.past) - HISTORY)]
        for each in old:
            shutil.rmtree(each.folder, ignore_errors=True)

    @contextmanager
    def working(self) -> Iterator[Work]:
        """A new piece of work; its folder goes when the block fails, and all go when the page was closed.

        Raises:
            VisitEnded: the page was closed before.
        """
        with self._lock:
            if self.ended.is_set():
                raise VisitEnded
            work = Work(folder=Path(tempfile.mkdtemp(dir=self.folder, prefix="work-")))
            self._works.add(work)
        try:
            yield work
        except BaseException:
            shutil.rmtree(work.folder, ignore_errors=True)
            raise
        finally:
            self._left(work)

    def end(self) -> None:
        """Stop what is being made. The folder goes now, or as soon as the work has stopped."""
        with self._lock:
            self.ended.set()
            for work in self._works:
                work.stop.set()
            idle = not self._works
        if idle:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self, work: Work) -> None:
        with self._lock:
            self._works.remove(work)
            over = self.ended.is_set() and not self._works
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
    """A temporary folder for all visits, which is gone when the block ends, however it ends.

    Of a process that is killed it stays; the next one's first deed is to remove it.
    """
    sweep(Path(tempfile.gettempdir()))
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with (made / ALIVE).open("wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(made.name[1:]))  # seen by those who sweep from here on, and locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the folders of studios whose process was killed; those of running ones and of other users stay.

    Args:
        parent: where they lie.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            continue
        with suppress(OSError), (folder / ALIVE).open("rb+") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            logger.info("removing %s, which a studio that was killed has left", folder)
            shutil.rmtree(folder, ignore_errors=True)
