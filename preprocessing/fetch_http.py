"""One answer of one HTTP(S) address: redirects, ranges, public links, and what each status means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

import requests

from models.errors import EnvironmentProblem, must
from preprocessing.config import FetchConfig
from preprocessing.fetch_connections import Adapter, Session, sorted_errors
from preprocessing.fetch_limits import Clock, Lost, Pace, retry_after_s
from preprocessing.fetch_links import MAX_PAGE_BYTES, Route, drive_page, route, shown, yandex_href
from preprocessing.fetch_part import BLOCK_BYTES, Record, address_of
from preprocessing.video_types import MediaError, Reason

MAX_REDIRECTS = 10
MAX_UNWANTED_BYTES = 1 << 14
"""Of an error's body that is read to keep its connection."""
USER_AGENT = "inkmotion (a fetcher of data sets for research)"

_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_PERMANENT: dict[int, Reason] = {
    401: "forbidden",
    403: "forbidden",
    404: "not-found",
    410: "not-found",
    451: "forbidden",
}
_PASSING = {408: "network", 425: "server-error", 429: "rate-limited"}
_DECODED = ("gzip", "x-gzip", "deflate")


class HttpAnswer:
    """A file, or its rest, on its way. Close it."""

    def __init__(self, response: Any, *, record: Record, start: int, reading: Reading) -> None:
        self.record, self.start = record, start
        self.content_type = str(response.headers.get("Content-Type", "")).split(";")[0].strip().lower()
        self._response, self._reading = response, reading

    def blocks(self) -> Iterator[bytes]:
        """The bytes, as they come.

        Raises:
            Lost: the connection broke, fell silent, or is slower than the minimum.
        """
        return self._reading.blocks(self._response, is_encoded=self.record.is_encoded, where=self.record.url)

    def close(self) -> None:
        """Give the connection back, or drop it where bytes are left."""
        self._response.close()


class Reading:
    """How bytes are read: a server that trickles counts as silent."""

    def __init__(self, clock: Clock, *, min_bytes_per_s: float, window_s: float) -> None:
        self._clock, self._min_bytes_per_s, self._window_s = clock, min_bytes_per_s, window_s

    def blocks(self, response: Any, *, is_encoded: bool, where: str) -> Iterator[bytes]:
        """The body's bytes, as they come; see `HttpAnswer.blocks`."""
        pace = Pace(min_bytes_per_s=self._min_bytes_per_s, window_s=self._window_s)
        while True:
            with sorted_errors(where):
                begin = self._clock.now()
                block = response.raw.read1(BLOCK_BYTES, decode_content=is_encoded)
                if not block:
                    return
                pace.add(len(block), self._clock.now() - begin)
            yield block

    def page(self, response: Any, where: str) -> bytes:
        """The beginning of a body that is read for what it says."""
        page = b""
        for block in self.blocks(response, is_encoded=True, where=where):
            page += block
            if len(page) >= MAX_PAGE_BYTES:
                break
        return page[:MAX_PAGE_BYTES]


class Http:
    """Connections of all threads.

    Args:
        config: time-outs, proxy, number of connections.
        reading: how bodies are read.
    """

    def __init__(self, config: FetchConfig, reading: Reading) -> None:
        self._config, self._reading = config, reading
        self._adapter = Adapter(pool_connections=64, pool_maxsize=config.connections, max_retries=0)

    def close(self) -> None:
        """Close all idle connections."""
        self._adapter.close()

    def open(self, url: str, *, offset: int, known: Record | None, is_checked: bool) -> HttpAnswer:
        """Ask for a file from a byte on.

        Args:
            url: http(s), or a public link of Google Drive or Yandex Disk.
            offset: bytes that are there; 0: none.
            known: of those bytes.
            is_checked: whether a checksum has the last word.

        Returns:
            The rest, or from byte 0 where the server gives no such rest of the same file.

        Raises:
            Lost: what may pass: no connection, a time-out, 429, 5xx.
            MediaError: what will not: 403, 404, redirects without end, a quota.
            EnvironmentProblem: the proxy needs what is not there.
        """
        with contextlib.ExitStack() as stack:
            asking = Asking(self._session(), self._config, self._reading, may_downgrade=is_checked)
            if offset and known is not None:
                response = stack.enter_context(contextlib.closing(asking.answer(url, _range(offset, known, url))))
                record = _record(response, url)
                if _is_rest(response, offset) and known.continues(record) and not record.is_encoded:
                    stack.pop_all()
                    return HttpAnswer(response, record=record, start=offset, reading=self._reading)
                if response.status_code == 200:
                    stack.pop_all()
                    return HttpAnswer(response, record=record, start=0, reading=self._reading)
                response.close()
            response = stack.enter_context(contextlib.closing(asking.answer(url, {})))
            if response.status_code != 200:
                got = f"{response.status_code}, unasked for"
                raise Lost(must(shown(url), "answer with the file", got), "server-error")
            record = _record(response, url)
            stack.pop_all()
            return HttpAnswer(response, record=record, start=0, reading=self._reading)

    def _session(self) -> Session:
        """A session of its own for each file, so that cookies stay with it; the connections are shared."""
        session = Session()
        session.mount("http://", self._adapter)
        session.mount("https://", self._adapter)
        session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
        return session


class Asking:
    """The requests that lead to one answer."""

    def __init__(self, session: Any, config: FetchConfig, reading: Reading, *, may_downgrade: bool) -> None:
        self._session, self._config, self._reading = session, config, reading
        self._may_downgrade = may_downgrade

    def answer(self, url: str, headers: Mapping[str, str]) -> Any:
        """The final response for an address: 200, 206 or 416; all else is an error."""
        way = route(url)
        if way.kind == "yandex":
            way = Route("plain", self._yandex(way, url))
        response = self._get(way.url, headers, url)
        for _ in range(3):
            if way.kind != "drive" or not _is_html(response):
                break
            with contextlib.closing(response):
                page = self._reading.page(response, shown(url)).decode("utf-8", "replace")
                next_url = drive_page(page, page_url=response.url, url=url, status=response.status_code)
                if next_url is None:
                    _check_status(response, url)
                    got = "a page of Google Drive that is not known"
                    raise MediaError(must(shown(url), "lead to a file", got), "not-media")
            response = self._get(next_url, headers, url)
        try:
            _check_status(response, url)
        except (Lost, MediaError):
            self._give_back(response, shown(url))
            raise
        return response

    def _give_back(self, response: Any, where: str) -> None:
        """Read a small body that nobody wants, so that its connection can be used again; else drop both."""
        with contextlib.closing(response), contextlib.suppress(Lost):
            if (_total(response) or MAX_PAGE_BYTES) <= MAX_UNWANTED_BYTES:
                self._reading.page(response, where)

    def _yandex(self, way: Route, url: str) -> str:
        with contextlib.closing(self._get(way.url, {}, url)) as response:
            if response.status_code not in _PERMANENT:
                _check_status(response, url)
            body = self._reading.page(response, shown(url))
            return yandex_href(body, url=url, status=response.status_code)

    def _get(self, address: str, headers: Mapping[str, str], url: str) -> Any:
        """Follow redirects to the first answer that is none. Its body is not read yet."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(address, headers, url)
            location = self._session.location(response)
            if location is None:
                return response
            self._give_back(response, shown(url))
            address = self.next_address(response.url, location, url)
        got = f"more than {MAX_REDIRECTS}"
        raise MediaError(must(shown(url), f"lead to a file in {MAX_REDIRECTS} redirects", got), "redirects")

    def _send(self, address: str, headers: Mapping[str, str], url: str) -> Any:
        proxies = {"http": self._config.proxy, "https": self._config.proxy} if self._config.proxy else None
        with sorted_errors(shown(url)):
            return self._session.get(
                address,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=self._config.timeout_s,
                proxies=proxies,
            )

    def next_address(self, base: str, location: str, url: str) -> str:
        """Where a redirect leads: http or https only, and from https to http only if a checksum is known.

        Raises:
            MediaError: it leads elsewhere (``redirects``).
        """
        try:
            address = urljoin(base, location)
        except ValueError:
            address = ""
        scheme = address.partition(":")[0].lower()
        is_downgrade = base.lower().startswith("https:") and scheme == "http"
        if scheme not in ("http", "https") or (is_downgrade and not self._may_downgrade):
            rule = "redirect to http(s), and not from https to http unless a checksum is known"
            raise MediaError(must(shown(url), rule, shown(address) or "no address"), "redirects")
        return address


def _range(offset: int, known: Record, url: str) -> dict[str, str]:
    headers = {"Range": f"bytes={offset}-"}
    if known.validator is not None and known.address == address_of(url):
        headers["If-Range"] = known.validator
    return headers


def _is_rest(response: Any, offset: int) -> bool:
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return response.status_code == 206 and found is not None and offset == int(found[1]) <= int(found[2])


def _record(response: Any, url: str) -> Record:
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    is_encoded = encoding not in ("", "identity") and not _is_packed(url, encoding)
    if is_encoded and encoding not in _DECODED:
        raise MediaError(must(shown(url), f"be sent plain or as {_DECODED[0]}", encoding[:50]), "unsupported")
    return Record(
        address=address_of(url),
        url=shown(url),
        etag=_header(headers, "ETag"),
        last_modified=_header(headers, "Last-Modified"),
        total=None if is_encoded else _total(response),
        is_encoded=is_encoded,
    )


def _is_packed(url: str, encoding: str) -> bool:
    """A ``.gz`` file is asked for as such; many servers call that an encoding. The bytes are the file."""
    return "gzip" in encoding and shown(url).partition("?")[0].lower().endswith((".gz", ".tgz"))


def _header(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name, "").strip()
    return value if 0 < len(value) <= 1000 else None


def _total(response: Any) -> int | None:
    """Bytes of the whole file, if the answer says so."""
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        return int(found[3]) if found and found[3] != "*" else None
    length = response.headers.get("Content-Length", "")
    is_number = length.isascii() and length.isdigit() and len(length) <= 18
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(length) if is_number and not is_chunked else None


def _is_html(response: Any) -> bool:
    return "html" in response.headers.get("Content-Type", "").lower()


def _check_status(response: Any, url: str) -> None:
    """Sort a status: fine (200, 206, 416), will pass, or will not."""
    status = response.status_code
    if status in (200, 206, 416):
        return
    got = f"{status} {requests.status_codes._codes.get(status, [''])[0].replace('_', ' ')}".strip()
    message = must(shown(url), "answer with the file", got)
    if status == 407:
        raise EnvironmentProblem(must("fetch.proxy", "hold the proxy's user and password", got))
    if status in _PASSING or (status >= 500 and status not in (501, 505)):
        reason: Reason = _PASSING.get(status, "server-error")  # type: ignore[assignment]
        raise Lost(message, reason, retry_after_s=retry_after_s(response.headers))
    raise MediaError(message, _PERMANENT.get(status, "failed"))
