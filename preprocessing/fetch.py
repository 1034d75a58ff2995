"""Fetching files: http(s), public links, local files and any store of fsspec; resumed, verified, and named when whole.

A file that failed or was killed on its way goes on where it stopped (`fetch_part`), as long as it is surely the same
file: a checksum is known and has the last word, or the server's ETag or Last-Modified says so. Failures that may pass
are tried again after a growing wait; then the next address has its turn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from models.errors import must
from preprocessing.config import FetchConfig
from preprocessing.fetch_http import Http, Reading
from preprocessing.fetch_limits import Bandwidth, Clock, FetchStopped, Slots
from preprocessing.fetch_links import host_of
from preprocessing.fetch_part import discard_part, opened
from preprocessing.fetch_transfer import Means, Transfer, Wanted
from preprocessing.video_types import MediaError

__all__ = ["FetchStopped", "Fetched", "Fetcher", "Wanted", "discard_part", "mirrored"]

VIDEO_HOSTS = (
    "youtube.com",
    "youtu.be",
    "youtube-nocookie.com",
    "vimeo.com",
    "dailymotion.com",
    "dai.ly",
    "bilibili.com",
    "nicovideo.jp",
    "tiktok.com",
    "ted.com",
    "rutube.ru",
)
"""Hosts (with all below them) whose pages yt-dlp reads; a video id at any other host is a plain file."""
_VIDEO_ID = re.compile(r"[A-Za-z0-9_.~=@+-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One file that has come, whole."""

    num_bytes: int
    sha256: str
    url: str
    """The address that served it (its last bytes), without credentials and query."""


class Fetcher:
    """Fetches files for many threads at once, within the limits of all together.

    Use it as a context manager *inside* the thread pool's (``with ThreadPoolExecutor() as pool, Fetcher(config) as
    fetcher``): when it is left, by an error or Ctrl-C too, transfers of other threads end with `FetchStopped`, and the
    pool has nothing to wait for.

    Args:
        config: limits, retries, proxy.
        sleep: stands in for waiting; called with seconds.
        now: a monotonic clock in seconds.
        min_bytes_per_s: a server that is slower over a whole window counts as silent.
        window_s: of that minimum; only time spent reading counts.
    """

    def __init__(
        self,
        config: FetchConfig,
        *,
        sleep: Callable[[float], object] | None = None,
        now: Callable[[], float] = time.monotonic,
        min_bytes_per_s: float = 1000.0,
        window_s: float = 60.0,
    ) -> None:
        clock = Clock(sleep, now)
        reading = Reading(clock, min_bytes_per_s=min_bytes_per_s, window_s=window_s)
        self._means = Means(
            config=config,
            clock=clock,
            slots=Slots(total=config.connections, per_host=config.connections_per_host, clock=clock),
            bandwidth=Bandwidth(config.bandwidth_mb_per_s, clock),
            http=Http(config, reading),
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all transfers and close all connections; what came stays for the next run."""
        self._means.clock.stop()
        self._means.http.close()

    def file(self, wanted: Wanted, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> Fetched:
        """Fetch one file, going on where an earlier call (of any process) stopped.

        Args:
            wanted: its addresses, and what is known of it.
            target: its name when it is whole; a file of that name is replaced.
            on_bytes: called with every gain in bytes, what an earlier call left included, and with a negative number
                when bytes are thrown away. The sum is at all times what is there.

        Raises:
            MediaError: no address gives the file; the reason is the one that may pass, if any, else the last one's.
            EnvironmentProblem: the disk is full or can't be written, a driver is missing, or another process fetches
                the same file. What came stays.
            FetchStopped: the fetcher was closed meanwhile. What came stays.
        """
        return self._file(wanted, target, on_bytes or _nobody)

    def video(self, video_id: str, target: Path, *, url_template: str) -> Fetched:
        """Fetch a video by its id.

        Args:
            video_id: letters, digits and ``_.~=@+-``.
            target: as for `file`.
            url_template: where ids lead, with ``{id}``: a page of a video host (`VIDEO_HOSTS`, by yt-dlp), or else a
                plain file.

        Raises:
            MediaError: as for `file`, and yt-dlp's reasons; ``bad-row`` for an id that is none.
            EnvironmentProblem: as for `file`.
            FetchStopped: as for `file`.
        """
        if not _VIDEO_ID.fullmatch(video_id) or not video_id.strip("."):
            raise MediaError(must("A video's id", "be letters, digits and _.~=@+-", repr(video_id[:80])), "bad-row")
        url = url_template.replace("{id}", video_id)
        config, host = self._means.config, host_of(url)
        name = host.partition(":")[0]
        if not any(f".{name}".endswith(f".{known}") for known in VIDEO_HOSTS):
            return self._file(Wanted(urls=(url,)), target, _nobody, pause_s=config.pause_s)
        from preprocessing.fetch_youtube import fetch_video

        with self._means.slots.of(host, pause_s=config.pause_s):
            return fetch_video(url, target, config, on_bytes=self._pay, wait=self._means.clock.wait)

    def _pay(self, num_bytes: int) -> None:
        self._means.clock.check()
        self._means.bandwidth.take(num_bytes)

    def _file(self, wanted: Wanted, target: Path, on_bytes: Callable[[int], None], *, pause_s: float = 0.0) -> Fetched:
        with opened(target, has_md5=wanted.md5 is not None) as part:
            if part.size:
                on_bytes(part.size)
            url = Transfer(self._means, wanted, part, on_bytes=on_bytes, pause_s=pause_s).run()
            part.finish(target)
            return Fetched(num_bytes=part.size, sha256=part.sha256, url=url)


def mirrored(urls: Sequence[str], mirror: str | None, name: str) -> tuple[str, ...]:
    """The addresses of a file with its mirror's before them.

    Args:
        urls: its own.
        mirror: http(s), a local folder or any address that fsspec knows; its query, if any, stays at the end.
        name: of the file below the mirror; ``/`` stays.
    """
    if mirror is None:
        return tuple(urls)
    scheme = mirror.partition("://")[0].lower() if "://" in mirror else ""
    bare, mark, query = mirror.partition("?") if scheme in ("http", "https") else (mirror, "", "")
    last = quote(name) if scheme in ("http", "https", "file") else name
    return (f"{bare.rstrip('/')}/{last}{mark}{query}", *urls)


def _nobody(_: int) -> None:
    """No one counts."""
