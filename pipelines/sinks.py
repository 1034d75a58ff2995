"""Files that are written while their frames are still being made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

Write = Callable[[Path, Iterator[np.ndarray]], None]
"""Writes a file out of batches of frames, uint8 RGB (n, H, W, 3); leaves nothing behind when they end in an error."""
_PATIENCE_S = 0.2


class _Aborted(Exception):
    """Ends a writer whose frames will not all come."""


class Sink:
    """A file's writer in a thread of its own, so that several take the same frames in one pass.

    It holds one batch besides the one being written. The file appears when it is closed.
    """

    def __init__(self, path: Path, write: Write) -> None:
        self._waiting: queue.Queue[np.ndarray | None | _Aborted] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(path, write), name=f"write {path.name}", daemon=True)
        self._thread.start()

    def put(self, batch: np.ndarray) -> None:
        """Hand over frames, uint8 RGB (n, H, W, 3); waits while the writer is behind. Raises what the writer raised."""
        self._hand(batch)

    def close(self) -> None:
        """Finish the file. Raises what the writer raised."""
        self._hand(None)
        self._thread.join()
        self._check()

    def abort(self) -> None:
        """Leave no file; does nothing after `close`."""
        while self._thread.is_alive():
            try:
                self._waiting.put(_Aborted(), timeout=_PATIENCE_S)
                break
            except queue.Full:
                continue
        self._thread.join()

    def _hand(self, item: np.ndarray | None) -> None:
        while True:
            self._check()
            try:
                return self._waiting.put(item, timeout=_PATIENCE_S)
            except queue.Full:
                if not self._thread.is_alive() and self._error is None:
                    raise RuntimeError("the writer ended before its frames did") from None

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self, path: Path, write: Write) -> None:
        try:
            write(path, self._given())
        except _Aborted:
            pass
        except BaseException as error:  # handed to the thread that makes the frames
            self._error = error

    def _given(self) -> Iterator[np.ndarray]:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, _Aborted):
                raise item
            yield item


@contextmanager
def writing(files: Sequence[tuple[Path, Write]]) -> Iterator[Callable[[np.ndarray], None]]:
    """Write files at once: the block gets a function that takes batches of frames for all of them.

    The files appear when the block ends well. When it does not, or a writer fails, no further file appears.

    Args:
        files: each with its writer.
    """
    sinks: list[Sink] = []

    def put(batch: np.ndarray) -> None:
        for sink in sinks:
            sink.put(batch)

    try:
        for path, write in files:
            sinks.append(Sink(path, write))
        yield put
        for sink in sinks:
            sink.close()
    finally:
        for sink in sinks:
            sink.abort()
