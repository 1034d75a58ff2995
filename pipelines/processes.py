"""Child processes that end when they should, and the environment they are given."""

from __future__ import annotations

import os
import signal
import threading
import time
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
    found = set(_tree(root))
    for told in ([root], None):  # the root may end its own; who is left after it is told too
        processes = told or list(found | set(_tree(root)))
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _await_end(processes, timeout_s)
    left = [process for process in found | set(_tree(root)) if _runs(process)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _await_end(left, END_TIMEOUT_S)


def _await_end(processes: list[psutil.Process], timeout_s: float) -> None:
    """Until all have ended or the time is up; a zombie has ended, whether or not its parent looks."""
    deadline = time.monotonic() + timeout_s
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _tree(root: psutil.Process) -> list[psutil.Process]:
    found: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        found |= {root, *root.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if process.pid not in (os.getpid(), root.pid) and os.getsid(process.pid) == root.pid:
                found.add(process)
    return [process for process in found if _runs(process)]


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
