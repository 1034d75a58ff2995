"""The printed figures of papers/published.yaml, by row and column of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import ParamsError, Problem
from pipelines.params_papers import FOLDER, Paper
from pipelines.params_papers_form import read_mapping
from pipelines.table_config import BlockConfig

FILE = FOLDER / "published.yaml"
Figures = dict[str, dict[str, float]]
"""Row's label -> column -> figure."""


def read_published(path: Path) -> Mapping[str, Any]:
    """The printed figures of all papers.

    Raises:
        ParamsError: there is no such file, or it can't be read.
    """
    try:
        return read_mapping(path)
    except ValueError as error:
        raise ParamsError([Problem(str(path), str(error), "be readable YAML")]) from None


def printed_figures(
    published: Mapping[str, Any], paper: Paper, name: str, part: BlockConfig, metrics: Sequence[str]
) -> Figures:
    """The figures of one block; what the file holds beside its rows and columns is left alone.

    Args:
        published: of all papers.
        paper: whose table it is.
        name: of the table.
        part: the block.
        metrics: its columns.

    Raises:
        ParamsError: the block's part of the file is not there, names rows that no block shows, or holds what is no
            figure.
    """
    if part.published is None:
        return {}
    found: Any = published.get(paper.name)
    for key in part.published.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        where = f"{FOLDER}/{paper.name}/params.yaml: tables.{name}.published"
        raise ParamsError([Problem(where, part.published, f"be a path in {FILE}")])
    where = f"{FILE}: {paper.name}.{part.published}"
    problems = [*_unknown_labels(where, found, _labels(paper, part.published))]
    own = {str(label): figures for label, figures in found.items() if str(label) in part.rows}
    made = {label: _row(f"{where}.{label}", figures, metrics, problems) for label, figures in own.items()}
    if problems:
        raise ParamsError(problems)
    return made


def _labels(paper: Paper, published: str) -> list[str]:
    """Of the rows that show a part of the file, in one block or in several."""
    blocks = [block for table in paper.tables.values() for block in table.blocks if block.published == published]
    return list(dict.fromkeys(label for block in blocks for label in block.rows))


def _unknown_labels(where: str, found: Mapping[Any, Any], labels: Sequence[str]) -> Iterator[Problem]:
    for label in found:
        if str(label) not in labels:
            rule = f"name rows as the table does ({', '.join(labels)}), where null is a row that is not built here"
            yield Problem(where, label, rule)


def _row(where: str, figures: Any, metrics: Sequence[str], problems: list[Problem]) -> dict[str, float]:
    """Column -> figure. A lone figure needs no name where there is one column."""
    if not isinstance(figures, Mapping) and len(metrics) > 1:
        columns = ", ".join(metric.upper() for metric in metrics)
        problems.append(Problem(where, figures, f"name its figures' columns ({columns}), as {{L1: 0.05}}"))
        return {}
    named = figures if isinstance(figures, Mapping) else {metrics[0]: figures}
    columns_of = {metric.upper(): metric for metric in metrics}
    made = {}
    for key, value in named.items():
        column, number = columns_of.get(str(key).upper()), _figure(value)
        if column is not None and number is None:
            problems.append(Problem(f"{where}.{key}", value, "be a number, or not be there"))
        elif column is not None and number is not None:
            made[column] = number
    return made


def _figure(value: Any) -> float | None:
    """A finite number; YAML 1.1 reads 2e-4 as a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
