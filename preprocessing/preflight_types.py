"""What a look at a folder finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from preprocessing.datasets.spec import Item
from preprocessing.video import VideoInfo
from preprocessing.video_types import MediaError

Level = Literal["error", "warning", "note"]
"""``error``: a stage will fail; ``warning``: something will be left out; ``note``: good to know."""
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MAX_ALIKE = 20
"""Findings of one sort that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    level: Level
    where: str
    """A file, a list or a setting."""
    message: str
    """A sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a figure lies over the files."""

    min: float
    median: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The outcome of a look at a folder."""

    name: str
    folder: Path
    findings: tuple[Finding, ...]
    """The worst first."""
    num_items: int
    num_usable: int
    num_bytes: int
    """Of all files that are there."""
    rejected: dict[str, int]
    """Items that will be left out, by reason."""
    num_of_split: dict[str, int]
    """Usable items, or rows of the metadata CSV, by their side in the official lists; ``open`` where they name none."""
    frames: Spread | None
    """Of the usable videos."""
    seconds: Spread | None

    @property
    def is_good(self) -> bool:
        """Whether no stage will fail, as far as can be told."""
        return all(finding.level != "error" for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One item that was looked at."""

    item: Item
    info: VideoInfo | None = None
    """What its file is; None: it can't be opened."""
    num_bytes: int = 0
    error: MediaError | None = None
    """Why it will be left out."""


class Told:
    """The findings so far. Of many alike the first are told, and the number of the others."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._alike: Counter[tuple[Level, str]] = Counter()

    def add(self, level: Level, where: str, message: str) -> None:
        """Tell one thing."""
        self._findings.append(Finding(level=level, where=where, message=message))

    def many(self, level: Level, where: str, message: str, sort: str) -> None:
        """Tell one of possibly many things of a sort."""
        self._alike[level, sort] += 1
        if self._alike[level, sort] <= MAX_ALIKE:
            self.add(level, where, message)

    def item(self, where: str, error: MediaError) -> None:
        """Tell that an item will be left out."""
        self.many("warning", where, f"{error} ({error.reason})", error.reason)

    def findings(self) -> tuple[Finding, ...]:
        """All of them, the worst first, else in the order in which they came."""
        more = [
            Finding(level=level, where=sort, message=f"{number - MAX_ALIKE} more like these ({sort}).")
            for (level, sort), number in self._alike.items()
            if number > MAX_ALIKE
        ]
        return tuple(sorted([*self._findings, *more], key=lambda finding: LEVELS.index(finding.level)))
