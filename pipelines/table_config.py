"""What a paper's params file says of its tables: columns, blocks of rows, what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from models.errors import Problem, check
from pipelines.layers import build
from pipelines.settings import MetricName

if TYPE_CHECKING:
    from models.families import Family
    from pipelines.params_papers import PaperFile

METRICS: tuple[str, ...] = get_args(MetricName)
COSTS = ("step_s", "avd_step_s", "memory_mb")
"""Columns that come out of the training's report."""
DRAWN = ("fid", "kid", "is", "content", "detail")
"""Columns that come out of the evaluation of drawings; keys of `training.metrics.catalog.STYLE_METRICS`."""
PARAMETERS = ("parameters", "parameters_trained")
"""Of the generator, and of all networks of its training."""
IMAGE_COSTS = ("image_ms", "image_mb")
"""What one drawing of 256 px takes."""
MEASURED_COSTS = (*COSTS, *PARAMETERS, *IMAGE_COSTS)
"""Columns that are figures of no picture's quality."""
_MOTION = (*METRICS, *(f"unseen/{metric}" for metric in METRICS), *COSTS)
_STYLE = (*DRAWN, *PARAMETERS, *IMAGE_COSTS, "step_s", "memory_mb")
KNOWN = tuple(dict.fromkeys((*_MOTION, *_STYLE)))
"""All that a column can show."""
HIGHER = frozenset({"is"})
"""Columns whose greater figure is the better one."""
BOUNDED = frozenset({"content", "detail"})
"""Columns of which more, or less, is not better: they have a bound."""
Rule = tuple[bool, str, Any, str]


class Rows(dict[str, Any]):
    """What a row is called in the table, as printed -> the row; None: published only, not built here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """The part of a table that compares like with like: rows trained on one data set."""

    title: str
    dataset: str
    rows: Rows
    metrics: tuple[str, ...] | None = None
    """null: the table's."""
    published: str | None = None
    """Path of the printed figures below the paper's name in papers/published.yaml; null: none are printed."""
    baseline: str | None = None
    """The row that the others are compared with; null: the first that is built here."""
    aim: float | None = None
    """Share of copy-source that L1 is to stay under, in a block that shows L1; null: nothing is asked."""

    def __post_init__(self) -> None:
        built = [label for label, row in self.rows.items() if row is not None]
        check(
            (bool(built), "rows", self.rows, "hold a row that is built here"),
            (
                all(row is None or isinstance(row, str) for row in self.rows.values()),
                "rows",
                self.rows,
                "name a row for each label, or null",
            ),
            (
                self.baseline is None or self.baseline in built,
                "baseline",
                self.baseline,
                f"be null or one of {', '.join(map(str, built))}",
            ),
            (self.aim is None or self.aim > 0, "aim", self.aim, "be above 0, or null"),
            *(_column_rules(self.metrics) if self.metrics is not None else ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig:
    """One table."""

    title: str
    metrics: tuple[str, ...] = ("l1",)
    """Columns: metrics of the evaluation, ``unseen/<metric>``, or costs (`MEASURED_COSTS`)."""
    percent: bool = False
    """Show metrics in percent, as the paper prints them."""
    notes: tuple[str, ...] = ()
    """Printed below the table."""
    blocks: tuple[BlockConfig, ...] = ()

    def __post_init__(self) -> None:
        check(*_column_rules(self.metrics))


def columns_of(family: Family | None) -> tuple[str, ...]:
    """What the rows of a family can show."""
    return _STYLE if family == "style" else _MOTION


def tables_of(file: PaperFile, problems: list[Problem]) -> dict[str, TableConfig]:
    """The tables of a paper's file by name; ``problems`` receives what is wrong with them."""
    made: dict[str, TableConfig] = {}
    for name in file.section("tables"):
        where, own = file.key("tables", name), dict(file.section("tables", name))
        listed = _listed(f"{where}.blocks", own, problems)
        found = [(place, _block(place, block, problems)) for place, block in listed]
        blocks = [(place, block) for place, block in found if block is not None]
        table = build(TableConfig, [(where, own)], where, problems)
        if table is not None:
            made[name] = replace(table, blocks=tuple(block for _, block in blocks))
            problems += _unanswerable_aims(table, blocks)
    return made


def _column_rules(metrics: tuple[str, ...]) -> Iterator[Rule]:
    yield bool(metrics), "metrics", metrics, "name a column or more"
    yield len(set(metrics)) == len(metrics), "metrics", metrics, "name each column once"
    known = f"{', '.join(METRICS)}, unseen/<one of these>, {', '.join(COSTS)}; of drawings {', '.join(_STYLE)}"
    for metric in metrics:
        yield metric in KNOWN, "metrics", metric, f"hold only {known}"


def _unanswerable_aims(table: TableConfig, blocks: list[tuple[str, BlockConfig]]) -> Iterator[Problem]:
    for place, block in blocks:
        if block.aim is not None and "l1" not in (block.metrics or table.metrics):
            yield Problem(f"{place}.aim", block.aim, "stand in a block with an l1 column, or be null")


def _listed(where: str, own: dict[str, Any], problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    """The blocks of a table, taken out of it, with their places."""
    blocks = own.pop("blocks", None)
    if not isinstance(blocks, list) or not blocks or not all(isinstance(block, Mapping) for block in blocks):
        problems.append(Problem(where, blocks, "be a list of mappings"))
        return []
    return [(f"{where}[{place}]", block) for place, block in enumerate(blocks)]


def _block(where: str, own: Mapping[str, Any], problems: list[Problem]) -> BlockConfig | None:
    rows = own.get("rows")
    if not isinstance(rows, Mapping):
        problems.append(Problem(f"{where}.rows", rows, "be a mapping"))
        return None
    labelled = {**own, "rows": Rows({str(label): row for label, row in rows.items()})}
    return build(BlockConfig, [(where, labelled)], where, problems)
