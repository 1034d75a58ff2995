"""What the studio's server never does: let its page ask elsewhere, fetch for somebody, answer to other names."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'self'",
        "form-action 'self'",
        "object-src 'none'",
        "base-uri 'self'",
    )
)
"""The browser asks this server and nobody else, whatever the page holds."""
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_FETCHING = ("/file=http:", "/file=https:", "/proxy=", "/mcp", "/deep_link")
"""Ways of the page's framework to fetch what lies elsewhere, or to be used by something else than the page."""


class Guard:
    """Stands before the page.

    Args:
        app: the page.
        host: where the server is bound; on loopback only its own names are answered, so that no other site's name that
            leads here can read the page.
    """

    def __init__(self, app: App, *, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "[::1]", host} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on and add the headers."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if refused := self._refused(scope):
            return await _answer(send, *refused)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        return await self._app(scope, receive, send_guarded)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        named = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        if self._names is not None and _without_port(named) not in self._names:
            return 400, "The studio answers on loopback only."
        if any(mark in scope["path"].replace("//", "/") for mark in _FETCHING):
            return 403, "The studio fetches nothing."
        return None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(named: str) -> str:
    return named.split("]")[0] + "]" if named.startswith("[") else named.split(":")[0]


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
