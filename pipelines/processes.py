"""Child processes that end when they should, and the environment they are given."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

END_TIMEOUT_S = 10.0


def end_tree(root: psutil.Process, *, timeout_s: float = END_TIMEOUT_S) -> None:
    """End a child process and all that came of it: politely first, after ``timeout_s`` by force.

    They are found by descent and, where a parent has gone, by the session that ``root`` leads (if it leads one). A
    process is known by its id and its time of birth, so nobody else's is hit when an id is used again.
    """
    found = _tree(root)
    for process in [root] if root in found else found:  # the root ends its own; without it, each is told
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=timeout_s)
    left = {*alive, *_tree(root)}
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=END_TIMEOUT_S)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    found: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        found |= set(root.children(recursive=True))
        if root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            found.add(root)
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if process.pid not in (os.getpid(), root.pid) and os.getsid(process.pid) == root.pid:
                found.add(process)
    return list(found)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def term_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that what was started is ended; only where nobody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
