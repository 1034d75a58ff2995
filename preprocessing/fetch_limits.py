"""Limits that all transfers of a `Fetcher` keep together: connections, bandwidth, retries, silence."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from models.errors import InkmotionError
from preprocessing.config import FetchConfig
from preprocessing.video_types import MediaError, Reason

MIN_PROGRESS_BYTES = 1 << 16
MIN_PROGRESS_SHARE = 1e-3
BURST_S = 0.1
"""How long a transfer may run ahead of the bandwidth limit."""


class FetchStopped(InkmotionError):
    """The `Fetcher` was closed while a file was on its way; what came stays for the next call."""


class Lost(Exception):
    """A failure that may pass: worth another try."""

    def __init__(
        self, message: str, reason: Reason, *, retry_after_s: float | None = None, is_once: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason: Reason = reason
        self.retry_after_s = retry_after_s
        """What the server asks for."""
        self.is_once = is_once
        """Tried once more and no oftener, whatever `FetchConfig.num_retries` says."""


class Clock:
    """Time and waiting, for all threads of a `Fetcher`.

    Args:
        sleep: called with seconds; null: waits, and ends at once when `stop` is called.
        now: a monotonic clock in seconds.
    """

    def __init__(
        self, sleep: Callable[[float], object] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self.now = now

    def wait(self, seconds: float) -> None:
        """Wait, or raise `FetchStopped` as soon as `stop` is called."""
        self.check()
        if seconds > 0:
            self._sleep(seconds)
            self.check()

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()

    def check(self) -> None:
        """Raise `FetchStopped` after `stop`."""
        if self._stopped.is_set():
            raise FetchStopped("The transfer was stopped; what has come stays for the next call.")


class Bandwidth:
    """A token bucket over all threads.

    Args:
        mb_per_s: in 10^6 bytes a second; null: no limit.
        clock: of the waits.
    """

    def __init__(self, mb_per_s: float | None, clock: Clock) -> None:
        self._rate = mb_per_s and mb_per_s * 1e6
        self._clock, self._lock = clock, threading.Lock()
        self._paid_until = clock.now()

    def take(self, num_bytes: int) -> None:
        """Wait until so many bytes fit the limit. A thread pays after its read, in the order of the reads."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock.now()
            self._paid_until = max(self._paid_until, now - BURST_S) + num_bytes / self._rate
            wait_s = self._paid_until - now
        if wait_s > 0:
            self._clock.wait(wait_s)


class Slots:
    """At most so many transfers at once, in all and of one host; hosts that asked for it are left alone for a while."""

    def __init__(self, *, total: int, per_host: int, clock: Clock) -> None:
        self._total, self._per_host, self._clock = total, per_host, clock
        self._changed = threading.Condition()
        self._busy: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}
        self._last_start: dict[str, float] = {}

    @contextmanager
    def of(self, host: str, *, pause_s: float = 0.0) -> Iterator[None]:
        """Hold one connection of a host. A thread that waits for a busy host keeps no other from its own.

        Args:
            host: of the address asked for, whatever it redirects to.
            pause_s: least time since the last start at this host that asked for a pause.

        Raises:
            FetchStopped: the clock was stopped meanwhile.
        """
        self._clock.wait(self._pause_left_s(host, pause_s))
        self._sit_out(host)
        while not self._taken(host):
            self._sit_out(host)
        try:
            yield
        finally:
            with self._changed:
                self._busy[host] -= 1
                if not self._busy[host]:
                    del self._busy[host]
                self._changed.notify_all()

    def hold_off(self, host: str, seconds: float) -> None:
        """Start nothing at this host for so long: it said so (``Retry-After``)."""
        with self._changed:
            until = self._clock.now() + seconds
            self._quiet_until[host] = max(until, self._quiet_until.get(host, until))

    def _taken(self, host: str) -> bool:
        """Wait for a place and take it; false when the host asked for quiet meanwhile."""
        with self._changed:
            while sum(self._busy.values()) >= self._total or self._busy.get(host, 0) >= self._per_host:
                self._clock.check()
                self._changed.wait(0.2)
            if host in self._quiet_until:
                return False
            self._busy[host] = self._busy.get(host, 0) + 1
            return True

    def _sit_out(self, host: str) -> None:
        with self._changed:
            until = self._quiet_until.get(host)
        if until is None:
            return
        self._clock.wait(until - self._clock.now())
        with self._changed:
            if self._quiet_until.get(host) == until:
                del self._quiet_until[host]

    def _pause_left_s(self, host: str, pause_s: float) -> float:
        if not pause_s:
            return 0.0
        with self._changed:
            now = self._clock.now()
            start = max(now, self._last_start.get(host, now - pause_s) + pause_s)
            self._last_start[host] = start
        return start - now


class Pace:
    """Finds a server that answers, but so slowly that it counts as silent. Only time spent reading counts."""

    def __init__(self, *, min_bytes_per_s: float, window_s: float) -> None:
        self._min_bytes_per_s, self._window_s = min_bytes_per_s, window_s
        self._bytes, self._seconds = 0, 0.0

    def add(self, num_bytes: int, seconds: float) -> None:
        """Count one read.

        Raises:
            TimeoutError: a whole window was slower than the minimum.
        """
        self._bytes, self._seconds = self._bytes + num_bytes, self._seconds + seconds
        if self._seconds < self._window_s:
            return
        if self._bytes < self._min_bytes_per_s * self._seconds:
            raise TimeoutError(f"{self._bytes} bytes came in {self._seconds:.0f} s")
        self._bytes, self._seconds = 0, 0.0


class Patience:
    """The retries of one address. They are counted anew when a try gets past what was ever there by a fair piece.

    A fair piece is 64 KiB and a thousandth of the file at least, so that a server can't hold a transfer for ever.
    """

    def __init__(
        self, config: FetchConfig, num_retries: int | None = None, jitter: random.Random | None = None
    ) -> None:
        self._config, self._jitter = config, jitter or random.Random()
        self._most = config.num_retries if num_retries is None else num_retries
        self._tries, self._mark = 0, 0
        self._spent: set[str] = set()

    def start(self, size: int) -> None:
        """Say how many bytes were there before the first try."""
        self._mark = size

    def next_wait_s(self, lost: Lost, *, size: int, total: int | None) -> float:
        """How long to wait before the next try.

        Args:
            lost: what went wrong.
            size: bytes that are there.
            total: of the whole file, where known.

        Raises:
            MediaError: no try is left, or the server asks for a longer wait than ``max_backoff_s``.
        """
        if size - self._mark >= max(MIN_PROGRESS_BYTES, MIN_PROGRESS_SHARE * (total or 0)):
            self._mark, self._tries = size, 0
        self._tries += 1
        asked_s = lost.retry_after_s or 0.0
        if self._tries > self._most or lost.reason in self._spent or asked_s > self._config.max_backoff_s:
            raise MediaError(lost.message, lost.reason) from None
        if lost.is_once:
            self._spent.add(lost.reason)
        backoff_s = self._config.backoff_s * 2.0 ** min(self._tries - 1, 30)
        return max(asked_s, min(self._config.max_backoff_s, backoff_s) * self._jitter.uniform(0.5, 1.0))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait by ``Retry-After`` (a number or a date); null where it says nothing of use."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    since = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - since).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)
