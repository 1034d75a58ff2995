"""The ledger: what became of each item that went into a stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from models.contracts import LEDGER_NAME, Split
from models.errors import ClipError, SourceError, must
from preprocessing.clips import read_lines, write_lines
from preprocessing.video_types import Decoder, MediaError, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One item and its fate."""

    item: str
    """Unique name in the data set; the file's name under data/raw when it is kept there."""
    origin: str
    """Where it came from: its path in the source folder, as the user named it."""
    state: Literal["kept", "rejected"]
    reason: Reason | None = None
    """Machine word; none for what is kept."""
    detail: str = ""
    """The reason in a sentence."""
    num_bytes: int = 0
    sha256: str = ""
    """Of the item's content; empty where it was not read."""
    decoder: Decoder | None = None
    num_clips: int = 0
    """Clips or stills cut from it."""
    video_id: str | None = None
    """By which a metadata CSV names it."""
    identity: str | None = None
    """Who is seen, where the source says so."""
    split: Split | None = None
    """On which side the source's official lists have it."""

    def rejected(self, error: MediaError) -> LedgerRow:
        """The same item, turned away."""
        return replace(self, state="rejected", reason=error.reason, detail=str(error), num_clips=0)


def write_ledger(folder: Path, rows: Iterable[LedgerRow]) -> None:
    """Write a folder's ledger, ordered by item, atomically."""
    write_lines(folder / LEDGER_NAME, (asdict(row) for row in sorted(rows, key=lambda row: (row.item, row.origin))))


def read_ledger(folder: Path) -> list[LedgerRow]:
    """The rows of a folder's ledger.

    Raises:
        ClipError: no ledger there, or a line of another form.
    """
    rows: list[dict[str, Any]] = read_lines(folder / LEDGER_NAME)
    try:
        return [LedgerRow(**row) for row in rows]
    except TypeError as error:
        raise ClipError(
            must(str(folder / LEDGER_NAME), "hold ledger rows", str(error), "Run the stage again")
        ) from None


def counts(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Number of rejected items by reason, ordered by number, then by name."""
    found = Counter(str(row.reason) for row in rows if row.state == "rejected")
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def check_yield(name: str, rows: Sequence[LedgerRow], floor: float) -> float:
    """The share of items that were kept.

    Raises:
        SourceError: it is below the floor; with the counts by reason and the first sentence of each.
    """
    kept = sum(row.state == "kept" for row in rows)
    share = kept / len(rows) if rows else 0.0
    if kept and share >= floor:
        return share
    words = [f"{number} {reason}" for reason, number in counts(rows).items()]
    example = next((f" ({row.detail.rstrip('.')})" for row in rows if row.state == "rejected"), "")
    rule = f"yield at least {floor:.0%} of its items" if kept or floor else "yield at least one item"
    got = f"{kept} of {len(rows)}: {', '.join(words) or 'nothing to take'}{example}"
    raise SourceError(must(f"data set {name}", rule, got, "Mend or remove those items, or lower yield_floor"))
