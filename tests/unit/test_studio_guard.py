"""What the studio's server refuses before the page sees it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from pipelines.studio_guard import Guard, is_loopback


def ask(path: str, *, named: str, bound: str = "127.0.0.1") -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of an answer."""
    sent: list[MutableMapping[str, Any]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"1")]})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"host", named.encode())]}
    asyncio.run(Guard(page, host=bound)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_the_page_is_handed_on_and_may_ask_nobody_else() -> None:
    status, headers = ask("/", named="localhost:7860")
    assert (status, headers[b"x-page"]) == (200, b"1")
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]


@pytest.mark.parametrize("named", ["elsewhere.example", "elsewhere.example:7860", "127.0.0.1.elsewhere.example", ""])
def test_on_loopback_other_names_are_refused(named: str) -> None:
    assert ask("/", named=named)[0] == 400


@pytest.mark.parametrize("named", ["127.0.0.1:7860", "localhost", "[::1]:7860"])
def test_loopback_s_own_names_are_answered(named: str) -> None:
    assert ask("/", named=named)[0] == 200


def test_bound_to_the_network_it_answers_to_any_name() -> None:
    assert ask("/", named="studio.example", bound="0.0.0.0")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://elsewhere.example/a.png",
        "/gradio_api/file=http:/elsewhere.example/a.png",
        "/gradio_api/proxy=https://elsewhere.example/",
    ],
)
def test_nothing_is_fetched_for_anybody(path: str) -> None:
    assert ask(path, named="localhost")[0] == 403


def test_what_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "192.168.1.4", "studio.example")] == [False] * 3
