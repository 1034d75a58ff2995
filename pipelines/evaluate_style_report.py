"""What the evaluation of a stylising model tells: its report, its table of photos, its lines in the log."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.evaluate_style_figures import Figure, Verdict
from pipelines.evaluate_style_work import Examined
from pipelines.image_cost import ImageCost
from pipelines.score import Network

logger = logging.getLogger(__name__)

CSV_FIELDS = ("photo", "content", "detail", "energy", "photo_energy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A picture that is in none of the figures."""

    picture: str
    dataset: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleEvaluateReport:
    """What ``reports/evaluate/<name>.json`` holds for a stylising model."""

    experiment: str
    preset: str
    dataset: str
    """The photos."""
    style_dataset: str
    seed: int
    metric: str
    """The one by which models are compared; a key of ``made``."""
    split_rule: str
    """Of the photos."""
    made: Mapping[str, Figure]
    """Of the drawings of the test photos: ``fid``, ``kid``, ``is`` with their judge, ``content``, ``detail``."""
    untouched: Mapping[str, Figure]
    """The same of the photos as they are: the score of doing nothing."""
    verdict: Verdict
    num_photos: int
    """Of split test, all pictures that have figures."""
    squares: int
    """Along each side of a picture, each counted as one."""
    num_style_pictures: int
    """Of all splits: the style is what all its pictures show, and more of them make a better estimate."""
    content_of_others: float
    """Mean distance of the content maps of different photos, which content is divided by."""
    size_px: int
    """Of the photos as they were judged, before they are cut into squares: as the training saw them."""
    jpeg_quality: int | None
    """Of the photos in the shards; None: not told."""
    judges: tuple[Network, ...]
    """That metrics rest on, with their files' checksums."""
    failures: tuple[Failure, ...]
    step: int
    images_seen: int
    weights_sha256: str
    data_sha256: str
    """Of the photos' index, which holds the checksum of every shard."""
    style_data_sha256: str
    """Likewise of the style pictures'."""
    device: str
    num_workers: int
    """Processes that did it."""
    image_cost: ImageCost | None
    """Of one drawing in the stage's own process; None: no photo was shown."""
    seconds: float
    strips: tuple[str, ...]
    """Picture files in the folder beside the report."""


def table(photos: Sequence[Examined], others: float) -> str:
    """CSV, a row a photo; content as a share of the mean distance of different photos."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for one in photos:
        if one.figures is None:
            continue
        row: dict[str, Any] = {key: value for key, value in asdict(one.figures).items() if key in CSV_FIELDS}
        plain = one.figures.photo_energy
        row |= {"photo": str(one.place), "content": one.figures.content / others}
        row["detail"] = one.figures.energy / plain if plain > 0 else ""
        writer.writerow(row)
    return out.getvalue()


def tell(report: StyleEvaluateReport) -> None:
    """Log the figures and the verdict."""
    for metric, ours in report.made.items():
        theirs = report.untouched[metric].value
        if ours.value is not None and theirs is not None:
            spread = "" if ours.std is None else f" +- {ours.std:.4f}"
            logger.info("%s: %s %.4f%s, untouched %.4f", report.experiment, metric, ours.value, spread, theirs)
    verdict = report.verdict
    logger.info(
        "%s: %s (nearer to the style: %s; keeps content: %s; keeps detail: %s)",
        report.experiment,
        "passes" if verdict.passed else "does not pass",
        *(("no", "yes")[kept] for kept in (verdict.nearer, verdict.keeps_content, verdict.keeps_detail)),
    )
    if report.image_cost is not None:
        cost = report.image_cost
        words = "%s: a drawing of %d px takes %.3f s and %.0f MB besides the networks, %d thread(s) of %s"
        facts = (cost.size_px, cost.seconds, cost.memory_mb, cost.num_threads, cost.device)
        logger.info(words, report.experiment, *facts)
    if report.failures:
        logger.warning("%d pictures failed, the first: %s", len(report.failures), report.failures[0].reason)
