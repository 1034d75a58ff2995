"""What an import took, left out and assumed, as a short table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.importers.entries import Account
from models.importers.layout import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """One network's entries, counted."""

    network: str
    published: str
    taken: int
    missing: int
    unexpected: int
    counters: int
    """Counters of batches, which nothing reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRow:
    """One option of the networks, and who says so."""

    option: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a published checkpoint."""

    kind: Kind
    file: str
    sha256: str
    epoch: int | None
    """The last finished one, counted from 0, as the file says."""
    networks: tuple[NetworkRow, ...]
    options: tuple[OptionRow, ...]
    optimisers: Mapping[str, str]
    """Published name -> what became of it."""
    ignored: tuple[str, ...]
    """Entries of the file that are neither networks, optimisers nor epochs."""
    unknown_settings: tuple[str, ...] = ()
    """Keys of the settings file that nobody knows."""
    ignored_settings: tuple[str, ...] = ()
    """Sections of the settings file about other things than the networks."""
    notes: tuple[str, ...] = ()

    @property
    def loaded(self) -> dict[str, int]:
        """Number of entries taken, by our name of the network."""
        return {row.network: row.taken for row in self.networks}

    def lines(self) -> list[str]:
        """To print."""
        title = f"{self.file} ({self.kind}, epoch {'not stated' if self.epoch is None else self.epoch})"
        head = ("network", "as published", "taken", "missing", "unexpected", "counters left out")
        rows = [
            (row.network, row.published, row.taken, row.missing, row.unexpected, row.counters) for row in self.networks
        ]
        options = [(row.option, _plain(row.value), row.source) for row in self.options]
        return [
            title,
            *table(head, rows),
            "",
            *table(("option", "value", "said by"), options),
            "",
            *(f"{name}: {outcome}" for name, outcome in self.optimisers.items()),
            *_listed("ignored in the file", self.ignored),
            *_listed("unknown in the settings", self.unknown_settings),
            *_listed("not read in the settings", self.ignored_settings),
            *(f"note: {note}" for note in self.notes),
        ]


def rows_of(accounts: Iterable[Account], counters: Mapping[str, int]) -> tuple[NetworkRow, ...]:
    """Accounts, counted."""
    return tuple(
        NetworkRow(
            network=one.network,
            published=one.published,
            taken=len(one.taken),
            missing=len(one.missing),
            unexpected=len(one.unexpected),
            counters=counters.get(one.network, 0),
        )
        for one in accounts
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """Columns as wide as their widest cell."""
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _listed(title: str, names: tuple[str, ...]) -> list[str]:
    return [f"{title}: {', '.join(names)}"] if names else []
