"""One file on its way: address after address, try after try, until it is whole and verified."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import check, must
from preprocessing.config import FetchConfig
from preprocessing.fetch_files import local_path, open_local, open_stored
from preprocessing.fetch_http import Http
from preprocessing.fetch_limits import Bandwidth, Clock, Lost, Patience, Slots
from preprocessing.fetch_links import host_of, shown
from preprocessing.fetch_part import HEAD_BYTES, Answer, Part, Record
from preprocessing.video_types import MediaError, Reason

logger = logging.getLogger(__name__)

PASSING: tuple[Reason, ...] = ("network", "rate-limited", "server-error")
"""Reasons that another run may find gone."""
_USELESS: tuple[Reason, ...] = ("not-media", "too-large", "wrong-length", "wrong-checksum", "empty")
_HTML = re.compile(rb"<(!doctype html|html|head|body|title|script|meta|iframe)\b", re.IGNORECASE)
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_DATA_TYPES = ("application/json", "application/xml", "text/xml", "application/problem+json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file that is wanted."""

    urls: tuple[str, ...]
    """Addresses of the same file, tried in order: http(s), a public link, a local path, ``file://``, ``s3://``..."""
    num_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    may_be_text: bool = False
    """A list, a CSV, JSON. A page of HTML is refused even then, and an answer of JSON or XML otherwise."""

    def __post_init__(self) -> None:
        check(
            (bool(self.urls) and all(self.urls), "urls", self.urls, "name an address"),
            (self.num_bytes is None or self.num_bytes >= 0, "num_bytes", self.num_bytes, "be 0 or more"),
            (_is_hex(self.sha256, 64), "sha256", self.sha256, "be 64 hexadecimal digits"),
            (_is_hex(self.md5, 32), "md5", self.md5, "be 32 hexadecimal digits"),
        )

    @property
    def is_checked(self) -> bool:
        """Whether a checksum has the last word."""
        return self.sha256 is not None or self.md5 is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all transfers share."""

    config: FetchConfig
    clock: Clock
    slots: Slots
    bandwidth: Bandwidth
    http: Http
    dead_hosts: set[str] = field(default_factory=set)
    """That could not be reached with all retries; they get one try where there is another address."""


class Transfer:
    """One file on its way. It ends with the part whole and verified, or with an error."""

    def __init__(
        self, means: Means, wanted: Wanted, part: Part, *, on_bytes: Callable[[int], None], pause_s: float = 0.0
    ) -> None:
        self._means, self._wanted, self._part = means, wanted, part
        self._on_bytes, self._pause_s = on_bytes, pause_s

    def run(self) -> str:
        """Try address after address; the one that served is returned, fit to be shown."""
        problems: list[MediaError] = []
        urls = self._in_order()
        for index, url in enumerate(urls):
            try:
                return self._from(url, is_last=index == len(urls) - 1)
            except MediaError as problem:
                if problem.reason in _USELESS:
                    self._restart(None)
                problems.append(problem)
                logger.info("%s: %s", problem.reason, problem)
        raise _worst(problems)

    def _in_order(self) -> list[str]:
        """The addresses; first the one that what is there can be continued from, if there is only one such."""
        urls = list(self._wanted.urls)
        if self._wanted.is_checked:
            return urls
        return sorted(urls, key=lambda url: not self._part.may_continue(url, is_checked=False))

    def _from(self, url: str, *, is_last: bool) -> str:
        if (path := local_path(url)) is not None:
            try:
                return self._once(path, url)
            except Lost as lost:
                raise MediaError(lost.message, lost.reason) from None
        host, dead = host_of(url), self._means.dead_hosts
        patience = Patience(self._means.config, 0 if host in dead and not is_last else None)
        patience.start(self._part.high)
        try:
            served = self._patiently(url, host, patience)
        except MediaError as problem:
            if problem.reason == "network":
                dead.add(host)
            raise
        dead.discard(host)
        return served

    def _patiently(self, url: str, host: str, patience: Patience) -> str:
        means, part = self._means, self._part
        while True:
            try:
                with means.slots.of(host, pause_s=self._pause_s):
                    return self._once(None, url)
            except Lost as lost:
                total = part.record.total if part.record else None
                wait_s = patience.next_wait_s(lost, size=part.high, total=total)
                logger.info("again in %.1f s (%s): %s", wait_s, lost.reason, lost.message)
                is_asked = lost.retry_after_s is not None
            if is_asked:
                means.slots.hold_off(host, wait_s)  # for all threads; the next try sits it out
            else:
                means.clock.wait(wait_s)

    def _once(self, path: Path | None, url: str) -> str:
        part, is_checked = self._part, self._wanted.is_checked
        may_continue = part.may_continue(url, is_checked=is_checked)
        if not (may_continue and part.record is not None and part.size == part.record.total):
            offset = part.size if may_continue else 0
            with contextlib.closing(self._answer(path, url, offset)) as answer:
                self._receive(answer, is_limited=path is None)
        self._verify(shown(url))
        return part.record.url if part.record else shown(url)

    def _answer(self, path: Path | None, url: str, offset: int) -> Answer:
        if path is not None:
            return open_local(path)
        known = self._part.record if offset else None
        if url.partition("://")[0].lower() in ("http", "https"):
            return self._means.http.open(url, offset=offset, known=known, is_checked=self._wanted.is_checked)
        return open_stored(url, offset=offset, known=known)

    def _receive(self, answer: Answer, *, is_limited: bool) -> None:
        part, where, total = self._part, answer.record.url, answer.record.total
        self._check_total(where, total)
        if answer.start == 0:
            self._restart(answer.record)
        else:
            part.note(answer.record)
        if total is not None:
            part.check_space(total - part.size)
        is_looked_at = False
        for block in self._blocks(answer, is_limited=is_limited):
            part.append(block)
            self._on_bytes(len(block))
            if not is_looked_at and len(part.head) == HEAD_BYTES:
                is_looked_at = self._look(answer)
            self._check_size(where)
        self._check_end(where, total)
        if not is_looked_at:
            self._look(answer)

    def _blocks(self, answer: Answer, *, is_limited: bool) -> Iterator[bytes]:
        """The answer's bytes, within the bandwidth, until the clock is stopped."""
        for block in answer.blocks():
            if is_limited:
                self._means.bandwidth.take(len(block))
            self._means.clock.check()
            yield block

    def _restart(self, record: Record | None) -> None:
        if self._part.size:
            self._on_bytes(-self._part.size)
        self._part.restart(record)

    def _check_total(self, where: str, total: int | None) -> None:
        wanted = self._wanted.num_bytes
        if total is None:
            return
        self._check_limit(where, total)
        if wanted is not None and total != wanted:
            raise Lost(must(where, f"be {wanted:,} bytes long", f"{total:,}"), "wrong-length", is_once=True)

    def _check_limit(self, where: str, size: int) -> None:
        most_gb = self._means.config.max_file_gb
        if size > most_gb * 1e9:
            rule = f"have at most {most_gb:g} GB (fetch.max_file_gb)"
            raise MediaError(must(where, rule, f"{size / 1e9:.3f} GB or more"), "too-large")

    def _check_size(self, where: str) -> None:
        """Hold back a body that goes on and on."""
        size, wanted = self._part.size, self._wanted.num_bytes
        self._check_limit(where, size)
        if wanted is not None and size > wanted:
            raise self._useless(must(where, f"be {wanted:,} bytes long", f"{size:,} or more"), "wrong-length")

    def _check_end(self, where: str, total: int | None) -> None:
        size = self._part.size
        if total is not None and size < total:
            raise Lost(must(where, "be readable to its end", f"{size:,} of {total:,} bytes"), "network")
        if total is not None and size > total:
            raise self._useless(must(where, f"be {total:,} bytes long", f"{size:,}"), "wrong-length")
        if size == 0 and self._wanted.num_bytes != 0:
            raise self._useless(must(where, "hold something", "an empty file"), "empty")

    def _look(self, answer: Answer) -> bool:
        got = not_a_file(self._part.head, answer.content_type, may_be_text=self._wanted.may_be_text)
        if got is not None:
            raise MediaError(must(answer.record.url, "be the file itself", got), "not-media")
        return True

    def _verify(self, where: str) -> None:
        part, wanted = self._part, self._wanted
        if wanted.num_bytes not in (None, part.size):
            raise self._useless(must(where, f"be {wanted.num_bytes:,} bytes long", f"{part.size:,}"), "wrong-length")
        for name, known, found in (("sha256", wanted.sha256, part.sha256), ("md5", wanted.md5, part.md5)):
            if known is not None and known.lower() != found:
                raise self._useless(must(where, f"have the {name} {known.lower()}", found), "wrong-checksum")

    def _useless(self, message: str, reason: Reason) -> Lost:
        """Throw the bytes away; one more try."""
        self._restart(None)
        return Lost(message, reason, is_once=True)


def not_a_file(head: bytes, content_type: str, *, may_be_text: bool) -> str | None:
    """What a server sent in place of a file, or null if it may be the file.

    The content has the last word: a video that is called ``text/html`` is a video, a page that is called
    ``video/mp4`` is a page.

    Args:
        head: the first `HEAD_BYTES`.
        content_type: as stated, without its parameters.
        may_be_text: whether JSON and XML are what was asked for.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<" and b"\0" not in head and b"<svg" not in head and _HTML.search(head):
        return "a page of HTML"
    is_text = b"\0" not in head and not any(byte < 9 or 13 < byte < 27 for byte in head)
    if content_type in _PAGE_TYPES and is_text and not may_be_text:
        return "a page of HTML"
    if content_type in _DATA_TYPES and is_text and not may_be_text:
        return f"an answer of {content_type}"
    return None


def _worst(problems: Sequence[MediaError]) -> MediaError:
    if len(problems) == 1:
        return problems[0]
    passing = [problem for problem in problems if problem.reason in PASSING]
    told = passing[-1] if passing else problems[-1]
    others = "; ".join(f"({other.reason}) {str(other).rstrip('.')}" for other in problems if other is not told)
    return MediaError(f"{told} Other addresses: {others}.", told.reason)


def _is_hex(text: str | None, num_digits: int) -> bool:
    return text is None or re.fullmatch(rf"[0-9A-Fa-f]{{{num_digits}}}", text) is not None
