"""The download stage: the media of a source into data/raw, each looked at once, with a ledger row for each."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from models.errors import EnvironmentProblem, must
from pipelines.params import Params
from pipelines.progress import bar
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import limits_of, turned_away
from preprocessing.datasets.local import Item, LocalFolder
from preprocessing.ledger import LedgerRow, check_yield, counts, write_ledger
from preprocessing.video import MediaError, probe

logger = logging.getLogger(__name__)

_CLONE = 0x40049409  # Linux' FICLONE: a copy that shares its blocks until one of the two is written


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadReport:
    """What the stage took in; reports/download/<name>.json."""

    dataset: str
    source: str
    items: int
    kept: int
    rejected: dict[str, int]
    """Number of items by reason."""
    kept_share: float
    bytes: int
    decoders: dict[str, int]
    seconds: float


def run(name: str, params: Params, paths: Paths) -> DownloadReport:
    """Take in the media of a data set.

    The source itself is never changed: its files are copied (sharing their blocks where the file system can).

    Args:
        name: of the data set.
        params: its source, limits and yield floor.
        paths: where raw media go.

    Raises:
        SourceError: the source is missing or empty, or too few of its items can be used; with counts by reason.
        EnvironmentProblem: the output can't be written, or another process writes it.
    """
    config, target, start = params.dataset(name), paths.raw(name), time.monotonic()
    with only_writer(target):
        items = LocalFolder(paths.root / config.source, dataset=name).items()
        with fresh_folder(target) as making:
            rows = list(bar(_taken(items, config, making), label=f"download {name}", total=len(items)))
            write_ledger(making, rows)
            share = check_yield(name, rows, config.yield_floor)
    kept = [row for row in rows if row.state == "kept"]
    report = DownloadReport(
        dataset=name,
        source=config.source,
        items=len(rows),
        kept=len(kept),
        rejected=counts(rows),
        kept_share=round(share, 4),
        bytes=sum(row.num_bytes for row in kept),
        decoders=tally(row.decoder for row in kept if row.decoder),
        seconds=round(time.monotonic() - start, 3),
    )
    write_report(paths.report("download", name), report)
    logger.info("download %s: %d of %d items kept, %.1f MB", name, report.kept, report.items, report.bytes / 1e6)
    return report


def tally(words: Iterator[str]) -> dict[str, int]:
    """How often each word comes, by name."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def _taken(items: Sequence[Item], config: DatasetConfig, target: Path) -> Iterator[LedgerRow]:
    """Each item's row in the items' order. Threads suffice: hashing and ffmpeg work outside Python."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for row in pool.map(lambda item: take(item, config, target), items):
            if row.state == "rejected":
                logger.warning("%s rejected (%s): %s", row.origin, row.reason, row.detail)
            yield row


def take(item: Item, config: DatasetConfig, target: Path) -> LedgerRow:
    """Look at one item and copy it into ``target`` under its safe name.

    Returns:
        Its row: kept, or rejected with the reason.

    Raises:
        EnvironmentProblem: ``target`` can't be written.
    """
    row = LedgerRow(item=item.name, origin=item.origin, state="kept")
    with turned_away(row, target) as failed:
        if item.problem is not None:
            raise item.problem
        info = probe(item.path, limits=limits_of(config))
        if min(info.width, info.height) < 2:
            rule = "be at least 2 px wide and high"
            raise MediaError(must(item.origin, rule, f"{info.width}x{info.height}"), "too-small")
        if info.num_frames < 2:
            raise MediaError(must(item.origin, "have 2 frames or more", "a single frame"), "one-frame")
        copied = target / item.name
        _copy(item.path, copied)
        size, checksum = copied.stat().st_size, sha256_of(copied)
        return LedgerRow(
            item=item.name, origin=item.origin, state="kept", num_bytes=size, sha256=checksum, decoder=info.decoder
        )
    return row.rejected(failed[0])


def _copy(source: Path, target: Path) -> None:
    """Copy content and nothing else: no link, so that nothing done to the copy ever reaches the user's file."""
    try:
        with source.open("rb") as old, target.open("xb") as new:
            if not _cloned(old.fileno(), new.fileno()):
                shutil.copyfileobj(old, new, 1 << 20)
        target.chmod(0o644)
    except FileExistsError:
        raise EnvironmentProblem(must(str(target), "be free", "a file of that name", "Try again")) from None


def _cloned(old: int, new: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(new, _CLONE, old)
    except (ImportError, OSError):
        return False
    return True
