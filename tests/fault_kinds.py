"""What the fault server can do wrong, and what it notes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "status",  # `status`, with `retry_after`
    "redirect",  # to `location`; with a body of `num_bytes` that never comes
    "redirect-loop",  # for ever
    "short-length",  # states fewer bytes than there are, by `num_bytes`
    "long-length",  # states more bytes than there are, by `num_bytes`, then closes
    "html",  # a page, 200
    "cut",  # closes the socket after `num_bytes` of the body
    "reset",  # the same, with a TCP reset
    "changed",  # another file of the same length, with its own ETag; cut after `num_bytes`
    "ignores-if-range",  # gives a range of the changed file, whatever If-Range says
    "stall",  # falls silent after `num_bytes`
    "trickle",  # a byte each `seconds`
    "header-trickle",  # a byte of a header each `seconds`, `num_bytes` in all; they count as sent
    "slow",  # waits `seconds`, then answers well
    "no-range",  # 200 for every request; cut after `num_bytes` if it is above 0
    "bad-range",  # 206 with a Content-Range of other bytes
    "short-range",  # 206 with the first byte of the rest only
    "wrong-total",  # 206 with another length of the whole
    "not-satisfiable",  # 416 for every range
    "gzip",  # Content-Encoding: gzip, whatever is accepted
    "no-length",  # neither length nor chunks; closes at the end
    "chunked",  # chunks; cut after `num_bytes` if it is above 0
    "no-validator",  # neither ETag nor Last-Modified; cut after `num_bytes` if it is above 0
    "weak",  # a weak ETag only; cut after `num_bytes` if it is above 0
    "corrupt",  # one byte is another, same ETag
    "empty",  # 200 with no bytes
]
PASSING: tuple[Kind, ...] = (
    "status",
    "cut",
    "reset",
    "changed",
    "slow",
    "no-range",
    "bad-range",
    "short-range",
    "wrong-total",
    "not-satisfiable",
    "gzip",
    "long-length",
    "chunked",
    "weak",
    "no-validator",
)
"""Kinds that a careful client gets past with nothing but retries, also without a checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: Kind
    num_bytes: int = 0
    status: int = 503
    retry_after: str | None = None
    location: str = ""
    seconds: float = 0.01
    is_forever: bool = False
    """The last of a path's faults may stay for all further requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request, as the server saw it."""

    path: str
    """With its query."""
    range: str | None
    if_range: str | None
    kind: str
    """Of the fault, or ``good``."""
    headers: Mapping[str, str]
    port: int = 0
    """Of the client's side of the connection."""
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


@dataclass(slots=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Callable[[Seen], Reply]


def changed(data: bytes) -> bytes:
    """Another file of the same length."""
    return bytes(byte ^ 0x5A for byte in data)


def etag(data: bytes) -> str:
    return f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]}"'
