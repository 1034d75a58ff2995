"""Videos from pages, by yt-dlp as a library: one video to one file, resumed, bounded, and every failure given a reason.

yt-dlp reads no configuration, no cache and no plugins here, and never starts ffmpeg: only what comes in one piece over
http(s) is taken, video alone where the site offers it so, for nothing needs the sound.
"""

from __future__ import annotations

import errno
import glob
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import EnvironmentProblem, InkmotionError, ParamsError, Problem, must
from preprocessing.clips import sha256_of
from preprocessing.config import FetchConfig
from preprocessing.fetch import VIDEO_HOSTS, Fetched
from preprocessing.fetch_links import host_of, shown
from preprocessing.fetch_youtube_reasons import fix_of, reason_of, sentence_of
from preprocessing.video_types import MediaError, Reason

__all__ = ["fetch_video", "is_video_site", "reason_of", "sentence_of"]

logger = logging.getLogger(__name__)

MAX_COOKIE_BYTES = 4 << 20
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENOMEM)
_PLAIN = "[protocol~='^https?$']"
_PIECES = "[protocol~='^(m3u8_native|http_dash_segments)$']"
_PAGE = (b"<!doctype html", b"<html", b"<head")
_PASSING = ("network", "server-error")
_LIVE = ("is_live", "is_upcoming", "post_live")
_loading = threading.Lock()


def is_video_site(url: str) -> bool:
    """Whether an address is a video's page that yt-dlp should read; all else is a plain file."""
    name = host_of(url).partition(":")[0]
    return any(f".{name}".endswith(f".{known}") for known in VIDEO_HOSTS)


def fetch_video(
    url: str,
    target: Path,
    config: FetchConfig,
    *,
    on_bytes: Callable[[int], object] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Fetched:
    """Fetch one video.

    It comes into a hidden file beside ``target``, named after the format and its size, so that a later call goes on
    where this one stopped if the site still offers the same. Where the site states no size nothing would tell another
    film from the same one: then a later call begins anew. ``target`` appears by one rename.

    Args:
        url: a page that yt-dlp knows, or a medium itself.
        target: the file's name when it is whole; a file of that name is replaced. Its suffix says nothing of the
            container, which is the site's choice (mp4 with H.264 where there is one).
        config: size, retries, bandwidth, cookies, proxy.
        on_bytes: called with the number of bytes of every piece that came; what it raises ends the transfer. Where it
            is given the bandwidth is the caller's business, else each transfer gets its share of
            ``bandwidth_mb_per_s``, as if ``connections_per_host`` of them ran.
        wait: called with seconds between tries; what it raises ends the transfer.

    Raises:
        MediaError: with its reason, and yt-dlp's own sentence.
        ParamsError: the cookie file is missing or no Netscape cookie file.
        EnvironmentProblem: the disk is full, or the folder can't be written. What came stays.
    """
    return _Transfer(url, target, config, on_bytes, wait).run()


class _Log:
    """Takes yt-dlp's words; remembers the one that it says instead of raising an error."""

    def __init__(self) -> None:
        self.is_too_large = False

    def debug(self, message: str) -> None:
        self.is_too_large |= "larger than max-filesize" in message
        logger.debug("yt-dlp: %s", message)

    info = warning = error = debug


class _Transfer:
    """One video on its way."""

    def __init__(
        self,
        url: str,
        target: Path,
        config: FetchConfig,
        on_bytes: Callable[[int], object] | None,
        wait: Callable[[float], object],
    ) -> None:
        self._url, self._target, self._config = url, target, config
        self._on_bytes, self._wait = on_bytes, wait
        self._max_bytes = int(config.max_file_gb * 1e9)
        self._came = 0
        """Bytes of the current try's file that are there; a try that got so far is made once more and no oftener: its
        own retries are behind it, and only the address may have grown old."""

    def run(self) -> Fetched:
        """Try until it is there or can't be had."""
        tries = 0
        self._sweep("*-0.part")  # of no stated size
        while True:
            self._came = 0
            try:
                return self._once()
            except MediaError as error:
                passing = error.reason in _PASSING or error.reason == "forbidden" and self._came
                most = 1 if self._came else self._config.num_retries
                if not passing or tries >= most:
                    raise
                logger.info("%s, again: %s", error.reason, error)
            self._pause(tries)
            tries += 1

    def _pause(self, n: int) -> float:
        """Wait before a try; yt-dlp asks with the number of those before and is told to add nothing."""
        self._wait(min(self._config.max_backoff_s, self._config.backoff_s * 2.0 ** min(n, 30)))
        return 0.0

    def _once(self) -> Fetched:
        log = _Log()
        module = _yt_dlp()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(module), module.YoutubeDL(self._options(log)) as opened:
            _ = opened.cookiejar  # read here, where a bad file is told from a bad answer
            info = opened.extract_info(self._url, download=True)
        if not isinstance(info, dict) or info.get("_type", "video") != "video":
            raise self._problem("be one video", "a list of videos", "unsupported")
        if log.is_too_large:
            raise self._too_large()
        taken = (info.get("requested_downloads") or [{}])[0]
        return self._finished(Path(taken.get("filepath") or os.devnull), taken.get("filesize"))

    def _finished(self, file: Path, num_bytes: int | None) -> Fetched:
        if not file.is_file():
            raise self._problem("give a file", "none", "failed")
        size = file.stat().st_size
        if not size or num_bytes and size != num_bytes:
            file.unlink()
            rule = f"give all {num_bytes:,} bytes" if num_bytes else "give something"
            raise self._problem(rule, f"{size:,} bytes", "wrong-length" if size else "empty")
        with file.open("rb") as opened:
            if opened.read(64).lstrip().lower().startswith(_PAGE):
                file.unlink()
                raise self._problem("give a video", "a web page", "not-media")
            os.fsync(opened.fileno())
        fetched = Fetched(num_bytes=size, sha256=sha256_of(file), url=shown(self._url))
        with _disk(self._target):
            file.chmod(0o644)
            os.replace(file, self._target)
            self._sweep("*")  # other formats, begun by other calls
        return fetched

    def _sweep(self, ending: str) -> None:
        for stale in self._target.parent.glob(glob.escape(self._stem) + ending):
            stale.unlink(missing_ok=True)

    @property
    def _stem(self) -> str:
        return f".{self._target.name}.video-"

    def _options(self, log: _Log) -> dict[str, Any]:
        config, name = self._config, str(self._target.absolute().parent / self._stem).replace("%", "%%")
        rate = config.bandwidth_mb_per_s if self._on_bytes is None else None
        sleep = self._pause
        return {
            "quiet": True,
            "noprogress": True,
            "logger": log,
            "color": {"stdout": "never", "stderr": "never"},
            "cachedir": False,
            "outtmpl": {"default": f"{name}%(format_id).40S-%(filesize|0)s"},
            "continuedl": True,
            "overwrites": False,
            "updatetime": False,
            "fixup": "never",
            "ffmpeg_location": os.devnull,  # none
            "noplaylist": True,
            "extract_flat": "in_playlist",
            "playlistend": 1,
            "match_filter": self._filter,
            "format": _format(config.max_height_px),
            "format_sort": [f"res:{config.max_height_px}" if config.max_height_px else "res", "vcodec:h264", "ext:mp4"],
            "cookiefile": _cookies(config.cookies),
            "proxy": config.proxy,
            "socket_timeout": config.timeout_s,
            "retries": config.num_retries,
            "fragment_retries": config.num_retries,
            "skip_unavailable_fragments": False,
            "extractor_retries": 0,
            "retry_sleep_functions": {"http": sleep, "fragment": sleep, "file_access": sleep, "extractor": sleep},
            "ratelimit": rate and rate * 1e6 / min(config.connections, config.connections_per_host),
            "max_filesize": self._max_bytes,
            "progress_hooks": [self._hook],
        }

    def _filter(self, info: dict[str, Any], *, incomplete: bool) -> None:
        """Turn away what is no video of known end, before a byte of it is fetched."""
        if info.get("is_live") or info.get("live_status") in _LIVE:
            raise self._problem("be a video that has ended", str(info.get("live_status") or "live"), "unsupported")

    def _hook(self, state: dict[str, Any]) -> None:
        there = int(state.get("downloaded_bytes") or 0)
        if self._on_bytes and there > self._came:
            self._on_bytes(there - self._came)
        self._came = max(self._came, there)
        if there > self._max_bytes:
            raise self._too_large()

    @contextmanager
    def _errors(self, module: Any) -> Iterator[None]:
        try:
            yield
        except InkmotionError:
            raise
        except module.utils.YoutubeDLError as error:
            message = str(error)
            if isinstance(error, module.cookies.CookieLoadError) or "Netscape format cookies" in message:
                raise _bad_cookies(self._config.cookies, "of another form") from None
            _check_machine(error, self._target)
            reason = reason_of(message)
            raise self._problem("be a video that can be fetched", sentence_of(message), reason) from None
        except OSError as error:
            _check_machine(error, self._target)
            raise self._problem("be a video that can be fetched", str(error), "network") from None

    def _too_large(self) -> MediaError:
        return self._problem(f"have at most {self._config.max_file_gb:g} GB", "more", "too-large")

    def _problem(self, rule: str, got: str, reason: Reason) -> MediaError:
        fix = "Raise fetching.max_file_gb" if reason == "too-large" else fix_of(reason)
        return MediaError(must(shown(self._url), rule, got, fix), reason)


def _format(max_height_px: int | None) -> str:
    """What to take: one stream with pictures, up to a height where there is one, else the one that is least above it.

    The order of sizes is `format_sort`'s.
    """
    low = f"[height<=?{max_height_px}]" if max_height_px else ""
    return "/".join(f"bv*{size}{how}" for size in (low, "") for how in (_PLAIN, _PIECES))


def _cookies(path: str | None) -> io.StringIO | None:
    """A copy of the cookie file: yt-dlp writes what hosts set back into the one that it is given."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_COOKIE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise _bad_cookies(path, why) from None
    return io.StringIO(text)


def _bad_cookies(path: str | None, why: str) -> ParamsError:
    return ParamsError([Problem("fetching.cookies", f"{path} ({why})", "be a Netscape cookie file")])


def _yt_dlp() -> Any:
    """The library, without the plugins that lie about on a machine."""
    with _loading:
        import yt_dlp
        import yt_dlp.cookies
        import yt_dlp.globals

        yt_dlp.globals.plugin_dirs.value = []
    return yt_dlp


def _check_machine(error: BaseException, target: Path) -> None:
    """Raise `EnvironmentProblem` when a disk is behind an error."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting += one
        elif isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            if isinstance(one, OSError) and one.errno in _MACHINE:
                raise _disk_problem(target, one) from None
            waiting += [one.__cause__, one.__context__, getattr(one, "cause", None), getattr(one, "exc_info", None)]


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _disk_problem(target, error) from None


def _disk_problem(target: Path, error: OSError) -> EnvironmentProblem:
    fix = "Free some space, or choose another folder"
    return EnvironmentProblem(must(str(target.parent), "be writable", error.strerror or str(error), fix))
