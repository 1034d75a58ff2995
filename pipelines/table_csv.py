"""A paper's table as CSV, in the long form; every line says by which profile its figure was made."""

from __future__ import annotations

import csv
import io
from typing import Any

from pipelines.table_columns import COLUMNS
from pipelines.table_figures import Block, Line, Table, is_noise
from pipelines.table_text import Setting, change

CSV_FIELDS = (
    *("paper", "table", "block", "dataset", "split_rule", "profile", "size_px", "steps", "seeds", "row", "experiment"),
    *(
        "metric",
        "unit",
        "backbone",
        "backbone_sha256",
        "mean",
        "deviation",
        "spread",
        "values",
        "copy_source",
        "num_frames",
        "num_missed",
    ),
    *("is_best", "is_noise_of_best", "change_against_baseline", "is_noise_of_baseline", "absent"),
    *("published", "published_conditions"),
)


def table_csv(table: Table, setting: Setting) -> str:
    """A table in the long form: one line a row and metric."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for block in table.blocks:
        for line in block.lines:
            for metric in block.metrics:
                writer.writerow(_csv_row(table, block, line, metric, setting))
    return text.getvalue()


def _csv_row(table: Table, block: Block, line: Line, metric: str, setting: Setting) -> dict[str, Any]:
    measure, best = line.measures[metric], block.best(metric)
    share, noise = change(line, block) if metric == block.metrics[0] else (None, None)
    published = line.published.get(metric)
    return {
        "paper": setting.paper,
        "table": table.name,
        "block": block.config.title,
        "dataset": block.config.dataset,
        "split_rule": block.split_rule,
        "profile": setting.profile if line.experiments else "",
        "size_px": block.size_px if line.experiments else "",
        "steps": line.cost.steps if line.cost else "",
        "seeds": len(line.experiments) if line.cost or not line.experiments else "",
        "row": line.label,
        "experiment": _experiment(line),
        "metric": metric,
        "unit": COLUMNS[metric.rpartition("/")[2]].unit if metric.rpartition("/")[2] in COLUMNS else "",
        "backbone": measure.backbone or "",
        "backbone_sha256": " ".join(f"{name}={checksum}" for name, checksum in measure.sha256),
        "mean": _plain(measure.mean),
        "deviation": _plain(measure.deviation),
        "spread": _plain(measure.spread),
        "values": " ".join(map(_plain, measure.values)),
        "copy_source": _plain(measure.copy_source),
        "num_frames": measure.num_frames or "",
        "num_missed": measure.num_missed if measure.num_frames else "",
        "is_best": _yes(best is line if measure.values and best else None),
        "is_noise_of_best": _yes(is_noise(measure, best.measures[metric]) if best and measure.values else None),
        "change_against_baseline": _plain(share),
        "is_noise_of_baseline": _yes(noise),
        "absent": measure.absent,
        "published": _plain(published),
        "published_conditions": "256 px, full training" if published is not None else "",
    }


def _experiment(line: Line) -> str:
    """Name without the seed; a method has none."""
    if not line.experiments:
        return ""
    return line.experiments[0].rpartition("-seed")[0] or line.experiments[0]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"


def _yes(value: bool | None) -> str:
    return "" if value is None else str(value).lower()
