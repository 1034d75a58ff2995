"""What the cut stage does to each item of a data set, chosen by its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import must
from pipelines.sources import BOXES_NAME, METADATA_NAME
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, cut_item
from preprocessing.ledger import LedgerRow

if TYPE_CHECKING:
    from preprocessing.metadata import Segment

logger = logging.getLogger(__name__)

CutTask = Callable[..., ItemResult]
"""(ledger row, source file, configuration, folder for the output[, what is known of the item]) -> what became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutWork:
    """What is done to each item."""

    task: CutTask
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Item -> a further argument of the task."""
    without_item: tuple[LedgerRow, ...] = ()
    """Rows of the ledger for what there is no item to cut from."""
    retry: frozenset[str] = frozenset()
    """Reasons (or ``all``) of rejected items that are tried again."""


def work_of(config: DatasetConfig, rows: Sequence[LedgerRow], raw: Path) -> CutWork:
    """What the cut of a data set does to each of its items.

    Args:
        config: of the data set.
        rows: the download's ledger.
        raw: the folder with the media and the lists that came with them.

    Raises:
        SourceError: a list is missing or has not the columns that it must have.
    """
    if config.cut_rule == "metadata":
        return _by_metadata(config, rows, raw)
    if config.cut_rule == "align":
        return _aligned(rows, raw)
    if config.kind == "images":
        from preprocessing.stills import image_item

        return CutWork(task=image_item)
    if config.kind == "film":
        from preprocessing.frames import stills_item

        return CutWork(task=stills_item)
    return CutWork(task=cut_item)


def _by_metadata(config: DatasetConfig, rows: Sequence[LedgerRow], raw: Path) -> CutWork:
    from preprocessing.metadata import read_metadata
    from preprocessing.segments import cut_segments

    segments, bad = read_metadata(raw / METADATA_NAME)
    of_video: dict[str, list[Segment]] = {}
    for segment in segments:
        of_video.setdefault(segment.video_id, []).append(segment)
    items = {row.video_id or Path(row.item).stem: row for row in rows}
    takes_all = config.max_items is None and config.only is None
    without = [
        LedgerRow(
            item=row.name, origin=f"{METADATA_NAME}:{row.row}", state="rejected", reason=row.reason, detail=row.detail
        )
        for row in bad
    ]
    for video_id, wanted in of_video.items():
        row = items.get(video_id)
        if row is None and takes_all or row is not None and row.state == "rejected":
            without += [_no_video(segment, row) for segment in wanted]
    extras = {row.item: tuple(of_video.get(video_id, ())) for video_id, row in items.items()}
    return CutWork(task=cut_segments, extras=extras, without_item=tuple(without))


def _no_video(segment: Segment, row: LedgerRow | None) -> LedgerRow:
    why = f"{row.reason}: {row.detail}" if row else "the source does not offer it"
    return LedgerRow(
        item=f"row-{segment.row:06d}",
        origin=f"{segment.video_id}:{segment.row}",
        state="rejected",
        reason="no-video",
        detail=must(f"video {segment.video_id}", "be there", why),
        video_id=segment.video_id,
        identity=segment.identity,
        split=segment.split,
    )


def _aligned(rows: Sequence[LedgerRow], raw: Path) -> CutWork:
    from preprocessing.align import read_boxes
    from preprocessing.align_frames import aligned_media

    path = raw / BOXES_NAME
    boxes, problems = read_boxes(path) if path.exists() else ({}, [])
    unknown = sorted(set(boxes) - {row.origin for row in rows})
    problems += [must(f"{BOXES_NAME}: {name}", "name a file of the source", "none of that name") for name in unknown]
    for problem in problems:
        logger.warning("%s", problem)
    return CutWork(task=aligned_media, extras={row.item: boxes.get(row.origin) for row in rows})
