"""A table as a PNG: bars with error bars in line with the figures; the profile is in the title and the headings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.plots import LIGHT, Theme, _figure, _png
from pipelines.table_figures import Block, Line, Table
from pipelines.table_text import (
    FULL_PROFILE,
    PUBLISHED,
    Setting,
    change_text,
    heading,
    is_near_best,
    printed,
    published_change,
    seeds_text,
    shown,
    steps_of,
    title,
    value_text,
)
from pipelines.table_words import NOISE, WORDS

LETTER_IN = 0.078
"""Width that a letter of the figures takes, in inches."""
ROW_IN = 0.27
HEAD_IN = 0.78
FOOT_IN = 0.42
BARS_IN = 3.0
NAMES_IN = 2.6
TOP_IN = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A column of figures."""

    head: str
    cells: tuple[str, ...]
    bold: int | None = None
    """Place of the cell that is printed bold."""
    is_published: bool = False
    widened_in: float = 0.0
    """To make room for the heading over all columns of its kind."""

    @property
    def width_in(self) -> float:
        """Inches."""
        words = self.head.split("\n") + list(self.cells)
        return max(map(len, words)) * LETTER_IN + 0.25 + self.widened_in


def draw(table: Table, setting: Setting, *, theme: Theme = LIGHT) -> bytes:
    """Draw a table.

    Args:
        table: with one block or more.
        setting: under what it was made; stands in the title and over the figures.
        theme: colours.

    Returns:
        A PNG.
    """
    columns = [_columns(block, table, setting) for block in table.blocks]
    widths = [sum(column.width_in for column in found) for found in columns]
    heights = [_height(block) for block in table.blocks]
    width, height = NAMES_IN + BARS_IN + 0.3 + max(widths), TOP_IN + sum(heights)
    with _figure((width, height), theme) as (figure, axes):
        axes.remove()
        _title(figure, table, setting, height, theme)
        top = height - TOP_IN
        for block, found, tall in zip(table.blocks, columns, heights, strict=True):
            _block(figure, block, found, (width, height, top, tall), table=table, setting=setting, theme=theme)
            top -= tall
        content: bytes = _png(figure)
        return content


def _height(block: Block) -> float:
    return HEAD_IN + FOOT_IN + ROW_IN * len(_names(block))


def _names(block: Block) -> list[str]:
    nothing = any(block.copy_source(metric) is not None for metric in block.metrics)
    return [*([WORDS[block.family].nothing] if nothing else []), *(line.label for line in block.lines)]


def _columns(block: Block, table: Table, setting: Setting) -> list[Text]:
    """The figures, measured ones first; a cell for each name of `_names`."""
    percent = table.config.percent
    offset = len(_names(block)) - len(block.lines)
    made = []
    for metric in block.metrics:
        nothing = [shown(block.copy_source(metric), metric, percent=percent)] * offset
        cells = tuple(nothing + [_cell(line, metric, block, percent) for line in block.lines])
        best = block.best(metric)
        bold = None if best is None else offset + block.lines.index(best)
        made.append(Text(head=title(metric, block, percent=percent), cells=cells, bold=bold))
    first = block.metrics[0]
    changes = tuple([""] * offset + [change_text(line, block) for line in block.lines])
    against = f"{title(first, block, percent=percent)}\nagainst {block.baseline.label}"
    made.append(Text(head=against, cells=changes))
    for metric in block.metrics:
        figures = printed(metric, block)
        if figures is not None:
            name = title(metric, block, percent=percent).partition("/")[0].partition(" (")[0]
            made.append(Text(head=name, cells=(*([""] * offset), *figures), is_published=True))
    if printed(first, block) is not None:
        cells = (*([""] * offset), *(published_change(line, block) for line in block.lines))
        made.append(Text(head=f"against\n{block.baseline.label}", cells=cells, is_published=True))
    return _widened(made, setting)


def _group(is_published: bool, setting: Setting) -> str:
    return PUBLISHED if is_published else f"measured ({setting.words()})"


def _widened(columns: list[Text], setting: Setting) -> list[Text]:
    """The same, with the first of each kind as wide as its kind's heading needs."""
    for kind in (False, True):
        places = [place for place, column in enumerate(columns) if column.is_published == kind]
        lacking = len(_group(kind, setting)) * LETTER_IN + 0.3 - sum(columns[place].width_in for place in places)
        if places and lacking > 0:
            columns[places[0]] = replace(columns[places[0]], widened_in=lacking)
    return columns


def _cell(line: Line, metric: str, block: Block, percent: bool) -> str:
    text = value_text(line, metric, block, percent=percent)
    return f"{text} {NOISE}" if is_near_best(line, metric, block) else text


def _title(figure: Any, table: Table, setting: Setting, height: float, theme: Theme) -> None:
    words = setting.words(steps_of(table.blocks))
    seeds = seeds_text(table.blocks)
    seeds = "one seed: no noise estimate" if seeds == "1 seed" else seeds
    figure.text(0.01, 1 - 0.28 / height, f"{setting.paper}: {table.config.title}", size=13, weight="bold", va="center")
    strong = setting.profile != FULL_PROFILE
    note = f"Measured: {words}, {seeds}." + (" Not to be set against published figures." if strong else "")
    figure.text(0.01, 1 - 0.56 / height, note, size=9.5, va="center", color=theme.accent if strong else theme.ink)


def _block(
    figure: Any,
    block: Block,
    columns: Sequence[Text],
    place: tuple[float, float, float, float],
    *,
    table: Table,
    setting: Setting,
    theme: Theme,
) -> None:
    """One block; ``place``: the figure's width and height, the block's top and height, in inches."""
    width, height, top, tall = place
    names = _names(block)
    rows_in = ROW_IN * len(names)
    bottom = (top - HEAD_IN - rows_in) / height
    figure.text(0.01, (top - 0.12) / height, heading(block).replace("`", ""), size=10, weight="bold", va="center")
    bars = figure.add_axes((NAMES_IN / width, bottom, BARS_IN / width, rows_in / height))
    _bars(bars, block, table, setting, names, theme)
    left = (NAMES_IN + BARS_IN + 0.3) / width
    total = sum(column.width_in for column in columns)
    grid = figure.add_axes((left, bottom, total / width, rows_in / height))
    grid.set_xlim(0, total)
    grid.set_ylim(len(names) - 0.5, -0.5)
    grid.axis("off")
    start = 0.0
    spans: dict[bool, tuple[float, float]] = {}
    for column in columns:
        _column(grid, column, start, theme)
        first, _ = spans.get(column.is_published, (start, start))
        start += column.width_in
        spans[column.is_published] = (first, start)
    above = -0.5 - 0.62 / ROW_IN
    for is_published, (first, last) in spans.items():
        colour = theme.quiet if is_published else theme.accent
        grid.text(
            last,
            above + 0.35,
            _group(is_published, setting),
            size=8,
            ha="right",
            va="center",
            color=colour,
            clip_on=False,
        )
        line = -0.5 - 0.42 / ROW_IN
        grid.plot([first + 0.12, last], [line, line], color=colour, linewidth=0.8, clip_on=False)


def _column(grid: Any, column: Text, start: float, theme: Theme) -> None:
    right = start + column.width_in
    colour = theme.quiet if column.is_published else theme.ink
    grid.text(right, -0.5 - 0.16 / ROW_IN, column.head, size=8, ha="right", va="center", color=colour, clip_on=False)
    for place, cell in enumerate(column.cells):
        weight = "bold" if place == column.bold else "normal"
        grid.text(right, place, cell, size=8.5, ha="right", va="center", color=colour, weight=weight)


def _bars(axes: Any, block: Block, table: Table, setting: Setting, names: Sequence[str], theme: Theme) -> None:
    """The first column: mean and deviation over the seeds, each seed a point, copy-source a line."""
    metric = block.metrics[0]
    offset = len(names) - len(block.lines)
    for place, line in enumerate(block.lines, start=offset):
        measure = line.measures[metric]
        if measure.mean is None:
            continue
        colour = theme.accent if block.best(metric) is line else theme.cycle[1]
        axes.barh(place, measure.mean, height=0.62, color=colour, alpha=0.85)
        if measure.deviation is not None:
            axes.errorbar(
                measure.mean, place, xerr=measure.deviation, color=theme.ink, capsize=3, linewidth=1.1, zorder=3
            )
        spots = [place] * len(measure.values)
        axes.scatter(measure.values, spots, s=9, color=theme.paper, edgecolors=theme.ink, linewidths=0.6, zorder=4)
    nothing = block.copy_source(metric)
    if nothing is not None:
        axes.barh(0, nothing, height=0.62, color=theme.quiet, alpha=0.7)
        axes.axvline(nothing, color=theme.quiet, linestyle=(0, (4, 3)), linewidth=1.2, zorder=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(left=0)
    axes.set_title(f"{title(metric, block, percent=False)}, {setting.profile} profile", size=8, pad=5)
