"""How far a stage is: a bar on a terminal; elsewhere a line now and then (stages log their own results)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from preprocessing.ledger import LedgerRow

logger = logging.getLogger(__name__)

T = TypeVar("T")
_TELL_EVERY_S = 10.0
_TOLD_IN_FULL = 10


def bar(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Hand the items on and show on stderr how many have passed, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    yield from track(items, description=label, total=total, console=console, transient=True)


@dataclass(slots=True)
class Tally:
    """What has come so far."""

    total: int
    unit: str
    start: float
    done: int = 0
    kept: int = 0
    amount: float = 0.0

    def add(self, was_kept: bool, amount: float) -> None:
        """One more result."""
        self.done, self.kept, self.amount = self.done + 1, self.kept + was_kept, self.amount + amount

    def said(self) -> str:
        """Yield and rate in words."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        return f"yield {self.kept / max(self.done, 1):.0%}, {self.amount / seconds:.0f} {self.unit}/s"

    def left_s(self) -> float:
        """Time left, if it goes on like that."""
        return (time.monotonic() - self.start) / max(self.done, 1) * (self.total - self.done)


def watched(
    results: Iterable[T], *, label: str, total: int, describe: Callable[[T], tuple[bool, float]], unit: str
) -> Iterator[T]:
    """Hand results on and show items, yield, rate and the time left.

    Args:
        results: as they come.
        label: what is going on.
        total: how many there will be.
        describe: (whether it was kept, how much it was) of a result.
        unit: of how much, as in ``frames``.
    """
    from rich.console import Console

    console = Console(stderr=True)
    tally = Tally(total=total, unit=unit, start=time.monotonic())
    if console.is_terminal:
        yield from _drawn(results, label, tally, describe, console)
        return
    last = time.monotonic()
    for result in results:
        tally.add(*describe(result))
        if time.monotonic() - last > _TELL_EVERY_S:
            last = time.monotonic()
            logger.info("%s: %d of %d items, %s, %.0f s left", label, tally.done, total, tally.said(), tally.left_s())
        yield result


def _drawn(
    results: Iterable[T], label: str, tally: Tally, describe: Callable[[T], tuple[bool, float]], console: object
) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:  # type: ignore[arg-type]
        task = progress.add_task(label, total=tally.total, said="")
        for result in results:
            tally.add(*describe(result))
            progress.update(task, advance=1, said=tally.said())
            yield result


class Rejections:
    """Tells of rejected items, of the first few of each reason in full.

    Args:
        name: of the data set.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: Counter[str] = Counter()

    def tell(self, row: LedgerRow) -> None:
        """Log a row if it is a rejected one, unless there were many like it."""
        if row.state != "rejected":
            return
        reason = str(row.reason)
        self._told[reason] += 1
        if self._told[reason] <= _TOLD_IN_FULL:
            logger.warning("%s rejected (%s): %s", row.origin, reason, row.detail)
        elif self._told[reason] == _TOLD_IN_FULL + 1:
            logger.warning("more are rejected (%s): `inkmotion ledger %s --reason %s`", reason, self._name, reason)
