"""Tasks in processes of this machine, so that who dies of one takes no others along; for work too small for Ray."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import TypeVar

import psutil

from pipelines.processes import end_tree, environment, term_as_exit

logger = logging.getLogger(__name__)

Row = TypeVar("Row")
Made = TypeVar("Made")
_LIKE_RAY = {"OMP_NUM_THREADS": "1"}
"""A process per core. Ray's workers have it too, so results are the same bits here and there."""


def each_apart(rows: Sequence[Row], task: Callable[[Row], Made], *, num_workers: int) -> Iterator[Made]:
    """Do ``task`` on each row, some at once; results come as they are done.

    A row whose process dies is tried once more, in a process of its own, and left out when that dies too.

    Args:
        rows: what to do; they and the results cross processes.
        task: a module's own function, or a partial of one.
        num_workers: processes at once.
    """
    left = list(range(len(rows)))
    with term_as_exit(), environment(_LIKE_RAY):
        for place, made in _together([(place, rows[place]) for place in left], task, num_workers):
            left.remove(place)
            yield made
        for place in left:
            yield from (made for _, made in _together([(place, rows[place])], task, 1))


def _together(
    rows: Sequence[tuple[int, Row]], task: Callable[[Row], Made], num_workers: int
) -> Iterator[tuple[int, Made]]:
    """Places and results of those that were done before a process died."""
    if not rows:
        return
    with _pool(min(num_workers, len(rows))) as pool:
        places = {pool.submit(task, row): place for place, row in rows}
        for done in as_completed(places):
            with suppress(BrokenProcessPool):
                yield places[done], done.result()


@contextmanager
def _pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that ends at once, with what its processes have started, when the block is left early."""
    before = set(psutil.Process().children())
    fresh = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
    pool = ProcessPoolExecutor(num_workers, mp_context=fresh, initializer=_begin, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        for process in set(psutil.Process().children()) - before:
            end_tree(process, timeout_s=1)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """In a worker: end with the stage, also when that is killed, and keep what decoders print to oneself."""
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
