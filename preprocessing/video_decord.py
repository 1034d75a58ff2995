"""The quick decoder: decord in this process, trusted only as far as it can be checked.

decord repeats a frame where one is damaged, and hides what it conceals. So it is told to give up at the first repeated
frame, and the log of the libraries below it is listened to: after any error there, frames count as not read.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
"""Of all frames of a file. While its caller is busy decord goes on decoding, if need be to the file's end: an hour of
video in front of a face detector would fill 10 GB."""
_ANY_REPEATED = 1e-9
_ERROR_LEVEL = 16
"""Of libav's log; smaller is worse."""


class DecordVideo:
    """One opened file.

    Raises:
        DecordError: decord can't open it, or reads it in another way than ffmpeg.
    """

    def __init__(self, path: Path) -> None:
        self._errors = _log.listen()
        try:
            with _failures():
                handle = _decord().VideoReader(str(path.absolute()), num_threads=1, fault_tol=_ANY_REPEATED)
                self.num_frames = len(handle)
                times_s = handle.get_frame_timestamp(range(self.num_frames))[:, 0]
                begins_with_key = handle.get_key_indices()[:1] == [0]
                self._handle: Any = handle
                self._first: np.ndarray | None = self._get(0, 1)
        except BaseException:
            self.close()
            raise
        # decord finds frames by their time: where times repeat it would show one frame for many, and what comes before
        # 0 is not to be shown at all
        if not begins_with_key or times_s[0] < -1e-6 or (np.diff(times_s) <= 0).any():
            self.close()
            raise DecordError("no key frame at the start, or times that do not grow from 0")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames."""
        assert self._first is not None, "asked before the first frame is taken"
        return self._first.shape[2], self._first.shape[1]

    def first(self) -> np.ndarray:
        """The first frame, uint8 RGB (1, H, W, 3); stays in memory until the batches are asked for."""
        assert self._first is not None, "asked before the first frame is taken"
        return self._first

    def batches(self, batch_frames: int) -> Iterator[np.ndarray]:
        """Frames in order, once, uint8 RGB (n, H, W, 3), not to be written to.

        Raises:
            DecordError: it can't go on; all frames before are good.
        """
        first, self._first = self._first, None
        for start in range(0, self.num_frames, batch_frames):
            stop = min(start + batch_frames, self.num_frames)
            if start > 0 or first is None:
                yield self._get(start, stop)
            elif stop == 1:
                yield first
            else:
                yield np.concatenate((first, self._get(1, stop)))

    def close(self) -> None:
        """Free the decoder."""
        self._handle = None
        if self._errors is not None:
            self._errors = None
            _log.leave()

    def _get(self, start: int, stop: int) -> np.ndarray:
        with _failures():
            frames = _as_numpy(self._handle.get_batch(range(start, stop)))
        if self._errors is not None and _log.num_errors != self._errors:
            raise DecordError("errors in the stream")
        return frames


class DecordError(Exception):
    """decord can't read a file, or not in a way that can be trusted."""


class _Frames:
    """decord's memory as an array, without a copy."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


def _as_numpy(batch: Any) -> np.ndarray:
    frames: np.ndarray = np.from_dlpack(_Frames(batch.to_dlpack()))  # type: ignore[arg-type]
    return frames


def _decord() -> Any:
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")  # a damaged file costs seconds otherwise
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


@contextmanager
def _failures() -> Iterator[None]:
    """What decord raises: RuntimeError where a file can't be opened, its own classes where it can't be read."""
    module = _decord()
    try:
        yield
    except (RuntimeError, module.DECORDError, module.DECORDLimitReachedError, IndexError, AssertionError) as error:
        raise DecordError(str(error).split("\n")[0][:200]) from None


class _Log:
    """Counts the errors that libav logs in this process while somebody listens."""

    def __init__(self) -> None:
        self.num_errors = 0
        self._lock = threading.Lock()
        self._listeners = 0
        self._library: Any = None
        self._callback: Any = None

    def listen(self) -> int | None:
        """Begin; the number of errors so far, or None where libav is not to be found."""
        with self._lock:
            if self._callback is None:
                self._library = _libavutil()
                kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
                self._callback = kind(self._count)
                atexit.register(self._silence)
            if self._library is None:
                return None
            self._listeners += 1
            if self._listeners == 1:
                self._library.av_log_set_callback(self._callback)
            return self.num_errors

    def leave(self) -> None:
        """End; the last one out gives libav its own log back."""
        with self._lock:
            self._listeners -= 1
            if self._listeners == 0:
                self._silence()

    def _silence(self) -> None:
        if self._library is not None:
            self._library.av_log_set_callback(self._library.av_log_default_callback)

    def _count(self, _: Any, level: int, *__: Any) -> None:
        if 0 <= level <= _ERROR_LEVEL:
            self.num_errors += 1


_log = _Log()


def _libavutil() -> Any:
    """The library that came with decord."""
    package = Path(_decord().__file__).parents[1]
    found = [*package.glob("decord*.libs/libavutil-*.so*"), *package.glob("decord/.dylibs/libavutil*.dylib")]
    if not found:
        logger.warning("decord's libavutil is not where it was; damage inside a video goes unnoticed")
        return None
    return ctypes.CDLL(str(found[0]))
