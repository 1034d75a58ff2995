"""What tables read of the reports of models that draw, and of methods that train nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.strips import strip_png
from pipelines.table_config import IMAGE_COSTS, PARAMETERS
from pipelines.table_figures import Block, Measure
from pipelines.table_numbers import count, number

JUDGED_ALIKE = ("data_sha256", "style_data_sha256", "size_px", "squares", "num_photos", "num_style_pictures")
"""Of the evaluation; another number of photos: one could not be judged."""
COST_ALIKE = ("image_cost.size_px", "image_cost.num_threads", "image_cost.device")
"""Likewise, where a column shows what a drawing costs."""
JUDGES = ("inception", "effnet-lite0")
"""By whose eyes; the first that has a figure."""
COST_KEYS = {"image_ms": ("seconds", 1000.0), "image_mb": ("memory_mb", 1.0)}
"""Column -> key of the report's ``image_cost``, and factor."""
MAX_PHOTOS = 6
_CELL_PX = 144
_HEAD_LETTERS = 13


def drawn(report: Mapping[str, Any], column: str) -> Measure:
    """One column out of one evaluation's report."""
    if column in IMAGE_COSTS:
        key, factor = COST_KEYS[column]
        cost = report.get("image_cost")
        value = number(cost.get(key)) if isinstance(cost, Mapping) else None
        return (
            Measure(absent="the evaluation measured no drawing") if value is None else Measure(values=(value * factor,))
        )
    found = [*_figures(report, column)]
    for _, entry in found:
        measure = _measure(report, column, entry)
        if measure.values:
            return measure
    reasons = [str(entry.get("absent")) for _, entry in found if entry.get("absent")]
    return Measure(absent=reasons[0] if reasons else "not among the evaluation's figures")


def parameters(train: Mapping[str, Any], column: str) -> Measure:
    """A number of parameters out of a training's report: the generator's, or all networks'."""
    counts = train.get("num_parameters")
    known = {name: found for name, value in (counts or {}).items() if (found := count(value)) is not None}
    if not known:
        return Measure(absent="the training's report counts no parameters")
    value = known.get("generator") if column == PARAMETERS[0] else sum(known.values())
    return Measure(absent="no generator") if value is None else Measure(values=(float(value),))


def _figures(report: Mapping[str, Any], column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, figure) of a metric by each judge, those that come first in `JUDGES` first."""
    made = report.get("made")
    named = {str(name): entry for name, entry in made.items()} if isinstance(made, Mapping) else {}
    fit = [name for name in named if name.partition("/")[0] == column and isinstance(named[name], Mapping)]
    for name in sorted(fit, key=lambda name: (_rank(name.partition("/")[2]), name)):
        yield name, named[name]


def _rank(judge: str) -> int:
    return JUDGES.index(judge) if judge in JUDGES else len(JUDGES)


def _measure(report: Mapping[str, Any], column: str, entry: Mapping[str, Any]) -> Measure:
    value, judge = number(entry.get("value")), entry.get("backbone")
    if value is None:
        return Measure(absent=str(entry.get("absent") or "no figure"))
    untouched = report.get("untouched")
    same = untouched.get(column if judge is None else f"{column}/{judge}") if isinstance(untouched, Mapping) else None
    return Measure(
        values=(value,),
        copy_source=number(same.get("value")) if isinstance(same, Mapping) else None,
        spread=number(entry.get("std")),
        backbone=None if judge is None else str(judge),
        sha256=_files(report, judge),
        num_frames=count(entry.get("num_pictures")) or 0,
    )


def _files(report: Mapping[str, Any], judge: Any) -> tuple[tuple[str, str], ...]:
    """A judge's files and their checksums."""
    judges = report.get("judges")
    for one in judges if isinstance(judges, Sequence) else ():
        files = one.get("sha256") if isinstance(one, Mapping) and one.get("name") == judge else None
        if isinstance(files, Mapping):
            return tuple(sorted((str(name), str(value)) for name, value in files.items()))
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawings:
    """The same photos, drawn by every row of a block that has pictures."""

    photos: tuple[np.ndarray, ...]
    """uint8, (H, W, 3)."""
    by_row: Mapping[str, tuple[np.ndarray, ...]]
    """Label -> drawings, as many."""


def read_drawings(folders: Mapping[str, Path]) -> Drawings | None:
    """The drawings of the photos that all rows show; None: there is no such photo.

    Args:
        folders: label -> the folder of its evaluation's pictures, ``photo-<n>.png`` and ``drawing-<n>.png``.
    """
    found = {label: {photo.tobytes(): (photo, made) for photo, made in _pairs(path)} for label, path in folders.items()}
    rows = {label: pairs for label, pairs in found.items() if pairs}
    first = next(iter(rows.values()), {})
    shared = [key for key in first if all(key in pairs for pairs in rows.values())]
    if not shared:
        return None
    by_row = {label: tuple(pairs[key][1] for key in shared) for label, pairs in rows.items()}
    return Drawings(photos=tuple(first[key][0] for key in shared), by_row=by_row)


def strip(drawings: Drawings) -> bytes:
    """A PNG: a row for each photo; the photo, then a column for each method."""
    heads = ["photo", *(_head(label) for label in drawings.by_row)]
    rows = {
        str(place + 1): np.stack([photo, *(made[place] for made in drawings.by_row.values())])
        for place, photo in enumerate(drawings.photos)
    }
    return strip_png(rows, heads, cell_px=_CELL_PX)


def _head(label: str) -> str:
    """What fits over a picture: a label, or what follows its comma."""
    return label if len(label) <= _HEAD_LETTERS else label.rpartition(", ")[2]


def has_drawings(block: Block) -> bool:
    """Whether a block's rows are judged by their drawings, not counted alone."""
    return block.family == "style" and any(metric not in PARAMETERS for metric in block.metrics)


def _pairs(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for place in range(MAX_PHOTOS):
        files = [folder / f"{what}-{place}.png" for what in ("photo", "drawing")]
        if all(file.is_file() for file in files):
            photo, drawing = (np.asarray(Image.open(file).convert("RGB")) for file in files)
            if photo.shape == drawing.shape:
                yield photo, drawing
