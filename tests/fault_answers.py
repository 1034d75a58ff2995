"""The answers of the fault server: what each fault does to one request."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Protocol
from urllib.parse import unquote, urlsplit

from fault_kinds import Fault, Page, Reply, Seen, changed, etag

EPOCH = 1_700_000_000
"""Of `Last-Modified`."""
BLOCK = 1 << 16


class Owner(Protocol):
    """What a handler needs of its server."""

    requests: list[Seen]
    pages: dict[str, Page]
    closing: threading.Event

    def content(self, path: str) -> bytes | None: ...
    def next_fault(self, path: str, length: int) -> Fault | None: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def note(self, seen: Seen) -> int: ...
    def amend(self, index: int, *, status: int, sent: int) -> None: ...
    def keep(self, connection: socket.socket) -> None: ...
    def drop(self, connection: socket.socket) -> None: ...


class Gone(Exception):
    """The connection is to be dropped."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: Owner
    timeout = 60

    def setup(self) -> None:
        self.owner.keep(self.request)
        super().setup()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.owner.drop(self.request)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._sent, self._status, self._is_in = 0, 0, True
        if self.path == "/.log":
            self._is_in = False
            self._reply(Reply(body=json.dumps([asdict(seen) for seen in list(self.owner.requests)]).encode()))
            return
        self.owner.enter()
        index = -1
        try:
            path = unquote(urlsplit(self.path).path)
            data = self.owner.content(path)
            fault = None if data is None else self.owner.next_fault(path, len(data))
            seen = Seen(
                path=self.path,
                range=self.headers.get("Range"),
                if_range=self.headers.get("If-Range"),
                kind=fault.kind if fault else "good",
                headers=dict(self.headers.items()),
                port=self.client_address[1],
            )
            index = self.owner.note(seen)
            self._answer(path, data, fault, seen)
        except (Gone, OSError):
            self.close_connection = True
        finally:
            if index >= 0:
                self.owner.amend(index, status=self._status, sent=self._sent)
            self._leave()

    def _leave(self) -> None:
        """Count as gone just before the client can know it: its next request may be here before this thread ends."""
        if self._is_in:
            self._is_in = False
            self.owner.leave()

    def _answer(self, path: str, data: bytes | None, fault: Fault | None, seen: Seen) -> None:
        if path in self.owner.pages:
            self._reply(self.owner.pages[path](seen))
        elif path.startswith("/.loop/"):
            self._reply(Reply(302, headers={"Location": f"/.loop/{int(path.split('/')[2]) + 1}"}))
        elif data is None:
            self._reply(Reply(404, b"not here"))
        elif fault is None:
            self._good(data)
        else:
            getattr(self, "_" + fault.kind.replace("-", "_") + ("_" if fault.kind == "status" else ""))(data, fault)

    # Good answers.

    def _reply(self, reply: Reply) -> None:
        self._head(reply.status, {"Content-Length": str(len(reply.body)), **reply.headers})
        self._body(reply.body)

    def _head(self, status: int, headers: Mapping[str, str | None]) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _body(self, data: bytes, *, is_last: bool = True) -> None:
        for begin in range(0, len(data), BLOCK):
            block = data[begin : begin + BLOCK]
            if is_last and begin + BLOCK >= len(data):
                self._leave()
            self.wfile.write(block)
            self._sent += len(block)
        if is_last:
            self._leave()

    def _good(self, data: bytes, *, cut: int | None = None, **more: str | None) -> None:
        """The file or the range that is asked for; ``more`` changes headers, null takes one away."""
        tag, date = etag(data), formatdate(EPOCH, usegmt=True)
        headers: dict[str, str | None] = {"ETag": tag, "Last-Modified": date, "Accept-Ranges": "bytes"}
        headers |= {"Content-Type": "application/octet-stream"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        begin, end = self._range(len(data), (headers["ETag"], headers["Last-Modified"]))
        if begin is None:
            self._head(200, {**headers, "Content-Length": str(len(data))})
            self._cut_body(data, cut)
        elif begin >= len(data):
            self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            self._leave()
        else:
            told = {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}", "Content-Length": str(end - begin)}
            self._head(206, {**told, **headers})
            self._cut_body(data[begin:end], None if cut is None else max(0, cut - begin))

    def _range(self, length: int, validators: tuple[str | None, ...]) -> tuple[int | None, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if_range = self.headers.get("If-Range")
        if found is None or (if_range is not None and (if_range.startswith("W/") or if_range not in validators)):
            return None, length
        return int(found[1]), min(length, int(found[2]) + 1 if found[2] else length)

    def _cut_body(self, data: bytes, cut: int | None) -> None:
        if cut is None or cut >= len(data):
            self._body(data)
            return
        self._body(data[:cut], is_last=False)
        self._leave()
        raise Gone

    # Faults.

    def _status_(self, data: bytes, fault: Fault) -> None:
        after = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        self._reply(Reply(fault.status, b"<html>an error</html>", {"Content-Type": "text/html", **after}))

    def _redirect(self, data: bytes, fault: Fault) -> None:
        self._head(302, {"Location": fault.location, "Content-Length": str(fault.num_bytes)})
        if fault.num_bytes:
            self.owner.closing.wait(60)
            raise Gone

    def _redirect_loop(self, data: bytes, fault: Fault) -> None:
        self._reply(Reply(302, headers={"Location": "/.loop/0"}))

    def _short_length(self, data: bytes, fault: Fault) -> None:
        self._head(200, {"Content-Length": str(max(0, len(data) - fault.num_bytes)), "ETag": etag(data)})
        self._body(data)
        raise Gone

    def _long_length(self, data: bytes, fault: Fault) -> None:
        self._head(200, {"Content-Length": str(len(data) + max(1, fault.num_bytes))})
        self._body(data)
        raise Gone

    def _html(self, data: bytes, fault: Fault) -> None:
        page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
        self._reply(Reply(200, page, {"Content-Type": "text/html; charset=utf-8"}))

    def _cut(self, data: bytes, fault: Fault) -> None:
        self._good(data, cut=fault.num_bytes)

    def _reset(self, data: bytes, fault: Fault) -> None:
        try:
            self._good(data, cut=fault.num_bytes)
        except Gone:
            self.wfile.flush()
            self.owner.closing.wait(0.05)  # a reset throws away what the client has not read
            option = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # linger for 0 s: close by a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            raise

    def _changed(self, data: bytes, fault: Fault) -> None:
        self._good(changed(data), cut=fault.num_bytes)

    def _ignores_if_range(self, data: bytes, fault: Fault) -> None:
        del self.headers["If-Range"]
        self._good(changed(data), cut=fault.num_bytes or None)

    def _stall(self, data: bytes, fault: Fault) -> None:
        try:
            self._good(data, cut=fault.num_bytes)
        except Gone:
            self.owner.closing.wait(60)
            raise

    def _trickle(self, data: bytes, fault: Fault) -> None:
        self._head(200, {"Content-Length": str(len(data)), "ETag": etag(data)})
        for byte in data:
            if self.owner.closing.wait(fault.seconds):
                raise Gone
            self._body(bytes([byte]), is_last=False)

    def _header_trickle(self, data: bytes, fault: Fault) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(fault.num_bytes):
            if self.owner.closing.wait(fault.seconds):
                break
            self._body(b"x", is_last=False)
        raise Gone

    def _slow(self, data: bytes, fault: Fault) -> None:
        self.owner.closing.wait(fault.seconds)
        self._good(data)

    def _no_range(self, data: bytes, fault: Fault) -> None:
        del self.headers["Range"]
        self._good(data, cut=fault.num_bytes or None, Accept_Ranges="none")

    def _bad_range(self, data: bytes, fault: Fault) -> None:
        """As many bytes as are wanted, from one byte too early."""
        begin, _ = self._range(len(data), (etag(data), formatdate(EPOCH, usegmt=True)))
        if not begin or begin >= len(data):
            self._good(data, cut=fault.num_bytes or None)
            return
        told = {"Content-Range": f"bytes {begin - 1}-{len(data) - 2}/{len(data)}", "ETag": etag(data)}
        self._head(206, {**told, "Content-Length": str(len(data) - begin)})
        self._body(data[begin - 1 : -1])

    def _short_range(self, data: bytes, fault: Fault) -> None:
        begin, _ = self._range(len(data), (etag(data), formatdate(EPOCH, usegmt=True)))
        if begin is None or begin >= len(data):
            self._good(data, cut=fault.num_bytes or None)
            return
        told = {"Content-Range": f"bytes {begin}-{begin}/{len(data)}", "ETag": etag(data)}
        self._reply(Reply(206, data[begin : begin + 1], told))

    def _wrong_total(self, data: bytes, fault: Fault) -> None:
        begin, _ = self._range(len(data), (etag(data), formatdate(EPOCH, usegmt=True)))
        if begin is None or begin >= len(data):
            self._good(data, cut=fault.num_bytes or None)
            return
        told = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data) + 7}", "ETag": etag(data)}
        self._head(206, {**told, "Content-Length": str(len(data) - begin)})
        self._body(data[begin:])

    def _not_satisfiable(self, data: bytes, fault: Fault) -> None:
        if "Range" not in self.headers:
            self._good(data, cut=fault.num_bytes or None)
            return
        self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})

    def _gzip(self, data: bytes, fault: Fault) -> None:
        packed = gzip.compress(data, mtime=0)
        self._head(200, {"Content-Length": str(len(packed)), "Content-Encoding": "gzip", "ETag": etag(packed)})
        self._body(packed)

    def _no_length(self, data: bytes, fault: Fault) -> None:
        self._head(200, {"Connection": "close"})
        self._body(data)
        raise Gone

    def _chunked(self, data: bytes, fault: Fault) -> None:
        self._head(200, {"Transfer-Encoding": "chunked", "ETag": etag(data)})
        cut = fault.num_bytes or len(data)
        for begin in range(0, cut, 1000):
            block = data[begin : min(begin + 1000, cut)]
            self._body(b"%x\r\n%s\r\n" % (len(block), block), is_last=False)
        if cut < len(data):
            self._leave()
            raise Gone
        self._body(b"0\r\n\r\n")

    def _no_validator(self, data: bytes, fault: Fault) -> None:
        self._good(data, cut=fault.num_bytes or None, ETag=None, Last_Modified=None)

    def _weak(self, data: bytes, fault: Fault) -> None:
        self._good(data, cut=fault.num_bytes or None, ETag=f"W/{etag(data)}", Last_Modified=None)

    def _corrupt(self, data: bytes, fault: Fault) -> None:
        at = fault.num_bytes % len(data)
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self._good(bad, ETag=etag(data))

    def _empty(self, data: bytes, fault: Fault) -> None:
        self._reply(Reply(200, b"", {"ETag": '"nothing"'}))
