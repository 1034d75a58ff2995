"""What became of a data set's items, stage by stage, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.contracts import LEDGER_NAME
from models.errors import ClipError, must
from pipelines.journal import Work, unfinished
from pipelines.params import Params
from pipelines.stage import Paths
from preprocessing.ledger import LedgerRow, read_ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLedger:
    """The ledger of one stage."""

    stage: str
    is_finished: bool
    """False: of a run that failed; what it had is kept for the next."""
    path: Path
    rows: tuple[LedgerRow, ...]

    def counts(self) -> list[tuple[str, str, int, str]]:
        """(state, reason, number of items, the first one's sentence), the most frequent first."""
        found = Counter((row.state, str(row.reason or "")) for row in self.rows)
        first = {(row.state, str(row.reason or "")): row.detail for row in reversed(self.rows)}
        order = sorted(found.items(), key=lambda entry: (entry[0][0] != "kept", -entry[1], entry[0]))
        return [(state, reason, number, first[state, reason]) for (state, reason), number in order]


def ledgers(name: str, params: Params, paths: Paths) -> list[StageLedger]:
    """The newest ledgers of a data set's stages.

    Raises:
        ClipError: no stage has run yet.
    """
    config = params.dataset(name)
    places = (("download", paths.raw(name)), ("cut", paths.cut(name, config.makes)))
    found = [ledger for stage, folder in places if (ledger := _newest(stage, folder)) is not None]
    if not found:
        fix = f"Run `inkmotion download {name}` first"
        raise ClipError(must(f"ledger of data set {name}", "have been written", "none", fix))
    return found


def selected(found: Sequence[StageLedger], reason: str) -> list[tuple[str, LedgerRow]]:
    """(stage, row) of every item rejected for one reason; ``all``: for any."""
    return [
        (ledger.stage, row)
        for ledger in found
        for row in ledger.rows
        if row.state == "rejected" and reason in ("all", row.reason)
    ]


def retry(name: str, params: Params, paths: Paths, reasons: Sequence[str]) -> list[Any]:
    """Try rejected items again, in each stage that has rejected some for these reasons; the stages' reports."""
    from pipelines import crop, download

    stages = {"download": download.run, "cut": crop.run}
    found = ledgers(name, params, paths)
    wanted = {stage for reason in reasons for stage, _ in selected(found, reason)}
    return [run(name, params, paths, retry=reasons) for stage, run in stages.items() if stage in wanted]


def _newest(stage: str, folder: Path) -> StageLedger | None:
    making = unfinished(folder)
    if making is not None and not (making / LEDGER_NAME).exists():  # killed: the journal knows how far it came
        rows = [row for result in Work(folder).results() for row in _rows(result)]
        if rows:
            rows.sort(key=lambda row: row.item)
            return StageLedger(stage=stage, is_finished=False, path=making, rows=tuple(rows))
    for place, is_finished in ((making, False), (folder, True)):
        if place is not None and (place / LEDGER_NAME).exists():
            rows = read_ledger(place)
            return StageLedger(stage=stage, is_finished=is_finished, path=place / LEDGER_NAME, rows=tuple(rows))
    return None


def _rows(result: dict[str, Any]) -> list[LedgerRow]:
    """Rows of a download's result, which is a row, or of a cut's, which holds one or several."""
    parts = (result["parts"] or [result["row"]]) if "row" in result else [result]
    return [LedgerRow(**part) for part in parts]
