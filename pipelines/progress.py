"""A bar on a terminal, silence elsewhere (stages log their own lines)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def bar(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Hand the items on and show on stderr how many have passed, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    yield from track(items, description=label, total=total, console=console, transient=True)
