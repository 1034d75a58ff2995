"""A paper's tables as Markdown; every heading says by which profile a figure was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.params import Params
from pipelines.table_columns import COLUMNS, Column
from pipelines.table_config import MEASURED_COSTS, PARAMETERS
from pipelines.table_drawings import has_drawings
from pipelines.table_figures import Block, Cost, Line, Measure, Table, is_noise
from pipelines.table_words import NOISE, WORDS
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR

PUBLISHED = "published (256 px, full training)"
FULL_PROFILE = "paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Under what a document's figures were made."""

    paper: str
    profile: str
    sizes_px: tuple[int, ...]

    @property
    def stem(self) -> str:
        """For file names."""
        return f"{self.profile}-{'-'.join(map(str, self.sizes_px))}px"

    def words(self, steps: Iterable[int] = ()) -> str:
        """``sample profile, 64 px, 40 to 120 steps``."""
        found = sorted(set(steps))
        many = f"{found[0]:,} to {found[-1]:,} steps" if len(found) > 1 else f"{found[0]:,} steps" if found else ""
        sizes = " and ".join(map(str, self.sizes_px))
        return ", ".join(filter(None, (f"{self.profile} profile", f"{sizes} px", many)))


def setting_of(paper: str, params: Params, tables: Sequence[Table]) -> Setting:
    """Under what the tables' figures were made."""
    blocks = [block for table in tables for block in table.blocks]
    sizes = tuple(sorted({block.size_px for block in blocks}))
    return Setting(paper=paper, profile=params.profile, sizes_px=sizes)


def steps_of(blocks: Iterable[Block]) -> list[int]:
    """Steps of all rows."""
    return [line.cost.steps for block in blocks for line in block.measured if line.cost is not None]


def seeds_text(blocks: Iterable[Block]) -> str:
    """``3 seeds``, ``1 or 3 seeds``: how many trainings stand behind the rows, which may be several papers'."""
    found = sorted({len(line.experiments) for block in blocks for line in block.measured})
    return f"{' or '.join(map(str, found))} seed{'s' * (found != [1])}"


def markdown(
    tables: Sequence[Table], setting: Setting, pictures: Mapping[str, str], strips: Mapping[str, str] | None = None
) -> str:
    """The document of a paper.

    Args:
        tables: of the paper.
        setting: under what they were made.
        pictures: file of each table's picture, by the table's name.
        strips: file of the rows' drawings side by side, likewise; of tables that have such.
    """
    blocks = [block for table in tables for block in table.blocks]
    parts = [f"# {setting.paper}: tables ({setting.words(steps_of(blocks))})", warning(setting, blocks)]
    for table in tables:
        steps = setting.words(steps_of(table.blocks))
        parts += [f"## {table.config.title} ({steps})", f"![{table.config.title}, {steps}]({pictures[table.name]})"]
        reasons: list[str] = []
        shown: set[tuple[str, ...]] = set()
        for block in table.blocks:
            parts += [f"### {heading(block)}", _grid(_figures(block, table, setting, reasons))]
            parts += [aim(block)] if block.config.aim is not None else []
            parts += sayings(block)
            key = tuple(name for line in block.measured for name in line.experiments)
            counted = all(metric in PARAMETERS for metric in block.metrics)
            costs = [] if key in shown or counted else _costs(block, setting)
            parts += [_grid(costs)] if len(costs) > 1 else []
            shown.add(key)
        if strips and table.name in strips:
            parts.append(f"![The same photos, drawn by each row, {steps}]({strips[table.name]})")
        notes = [f"({_letter(place)}) {reason}" for place, reason in enumerate(reasons)]
        notes += [*missed(table), *table.config.notes]
        parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    backbones = _backbones(blocks)
    parts += ["## How to read them"]
    for family in dict.fromkeys(block.family for block in blocks):
        parts += [WORDS[family].legend.format(seeds=seeds_text(blocks)), WORDS[family].costs]
    parts += [f"Metrics rest on: {backbones}."] if backbones else []
    return "\n\n".join(parts) + "\n"


def warning(setting: Setting, blocks: Sequence[Block]) -> str:
    """What the figures are not."""
    words = [WORDS[family] for family in dict.fromkeys(block.family for block in blocks)]
    small, others = (" and ".join(getattr(one, key) for one in words) for key in ("small", "others"))
    losses = " and ".join(sorted({block.perceptual_backbone for block in blocks}))
    devices = " and ".join(sorted({line.cost.device for block in blocks for line in block.measured if line.cost}))
    made = f"Measured with the {setting.words(steps_of(blocks))}, on {devices}; perceptual loss on {losses}."
    if setting.profile == FULL_PROFILE:
        return f"> {made} Published figures were made by others, on other machines, {others}."
    return (
        f"> **{setting.profile.capitalize()} profile.** {made} Small pictures, a few minutes, {small}: "
        "these figures show that the rows can be trained and told apart, or not. They are no measure of quality and "
        f"can't be set against the published ones (columns headed {PUBLISHED}); at most the signs of changes between "
        "rows can."
    )


def heading(block: Block) -> str:
    """Name, data, split."""
    on = f"{block.config.title}: measured on `{block.config.dataset}`"
    if all(metric in MEASURED_COSTS for metric in block.metrics):
        return on
    tested, number = WORDS[block.family].tested, block.num_videos
    videos = "" if number is None else f", {number} {tested}{'s' * (number != 1)}"
    if block.judged_px is not None and number is not None:
        side, cut = block.judged_px // block.squares, f"{number} squares of {tested}s"
        videos = f", {cut if block.squares > 1 else videos[2:]}, {side} px"
    on += f" in the style of `{block.style_dataset}`" if block.style_dataset else ""
    return f"{on}, split by {block.split_rule}{videos}"


def sayings(block: Block) -> list[str]:
    """Paragraphs of what the rows of a block that draw have in common, and who breaks the bounds."""
    if not has_drawings(block):
        return []
    said = []
    times = {line.cost.max_seconds for line in block.measured if line.cost is not None}
    untrained = [line.label for line in block.measured if line.cost is None]
    if len(times) == 1 and (seconds := times.pop()) is not None:
        others = f"; {' and '.join(untrained)} train nothing" if untrained else ""
        said.append(
            f"Every trained row was given the same time, {seconds:g} s, whatever number of steps that was{others}."
        )
    if "content" in block.metrics:
        lost = [line.label for line in block.measured if line.is_lost]
        said.append(f"Content above {CONTENT_CEILING:g}, lost: {'; '.join(lost) or 'no row'}.")
    if "detail" in block.metrics:
        blurred = [line.label for line in block.measured if line.is_blurred]
        said.append(f"Detail below {DETAIL_FLOOR:g}, blurred: {'; '.join(blurred) or 'no row'}.")
    return said


def aim(block: Block) -> str:
    """Which rows keep L1 under the share of copy-source that is asked."""
    nothing, most = block.copy_source("l1"), block.config.aim
    if nothing is None or most is None:
        return "There is no copy-source to compare with."
    over = [line.label for line in block.measured if (line.measures["l1"].mean or 0.0) > most * nothing]
    verdict = f"missed by {', '.join(over)}" if over else "every row keeps it"
    return f"Asked of the mean: L1 at most {most} of copy-source; {verdict}."


def missed(table: Table) -> list[str]:
    """A sentence for each column in which results lack what the truth shows: such frames are in no mean but MKR's."""
    said = []
    for block in table.blocks:
        for metric in block.metrics:
            counted = metric.rpartition("/")[2] != "mkr"
            found = [(line.label, line.measures[metric]) for line in block.measured if counted]
            parts = [f"{label} {m.num_missed} of {m.num_missed + m.num_frames}" for label, m in found if m.num_missed]
            if parts:
                name = title(metric, block, percent=False)
                said.append(
                    f"{block.config.title}, {name}: frames left out, as nothing was found in them: " + ", ".join(parts)
                )
    return said


def shown(value: float | None, metric: str, *, percent: bool) -> str:
    """One number."""
    if value is None:
        return "-"
    column = COLUMNS.get(metric.rpartition("/")[2], Column(name=metric, unit="", decimals=4))
    if percent and column.percent != 1.0:
        return f"{value * column.percent:.2f}"
    return f"{value:,.{column.decimals}f}"


def title(metric: str, block: Block, *, percent: bool) -> str:
    """A column's heading: the metric, its network, its split."""
    split, _, name = metric.rpartition("/")
    column = COLUMNS.get(name, Column(name=name, unit="", decimals=4))
    found = {line.measures[metric].backbone for line in block.measured} - {None}
    costs = name in MEASURED_COSTS and column.unit
    unit = f" ({column.unit})" if costs else " (%)" if percent else ""
    return f"{'/'.join((column.name, *sorted(map(str, found))))}{', ' + split if split else ''}{unit}"


def value_text(line: Line, metric: str, block: Block, *, percent: bool) -> str:
    """Mean and deviation, without marks."""
    measure = line.measures[metric]
    text = shown(measure.mean, metric, percent=percent)
    if measure.deviation is None:
        return text
    return f"{text} ± {shown(measure.deviation, metric, percent=percent)}"


def change(line: Line, block: Block) -> tuple[float | None, bool | None]:
    """Of the first column against the baseline: share, and whether that is noise."""
    own, base = (entry.measures[block.metrics[0]] for entry in (line, block.baseline))
    if line is block.baseline or not own.mean or not base.mean:
        return None, None
    return own.mean / base.mean - 1, is_noise(own, base)


def change_text(line: Line, block: Block) -> str:
    """The same in words."""
    if line is block.baseline:
        return "baseline"
    share, noise = change(line, block)
    if share is None:
        return "-"
    if block.metrics[0] in PARAMETERS:
        return f"{share:+.1%}"  # counted, so there is no noise
    return f"{share:+.1%}" + {True: " (noise)", False: "", None: " (one seed)"}[noise]


def printed(metric: str, block: Block) -> list[str] | None:
    """The published figures of a column, a text for each line, with as many decimals as any has; None: none is."""
    found = [line.published.get(metric) for line in block.lines]
    if not any(value is not None for value in found):
        return None
    decimals = max(len(f"{value:.10g}".partition(".")[2]) for value in found if value is not None)
    return ["-" if value is None else f"{value:,.{decimals}f}" for value in found]


def published_change(line: Line, block: Block) -> str:
    """Of the first column, as printed."""
    metric = block.metrics[0]
    own, base = (entry.published.get(metric) for entry in (line, block.baseline))
    return "-" if own is None or not base or line is block.baseline else f"{own / base - 1:+.1%}"


def is_near_best(line: Line, metric: str, block: Block) -> bool:
    """Within noise of the best row, and not the best."""
    best = block.best(metric)
    if best is None or best is line or not line.measures[metric].values:
        return False
    return is_noise(line.measures[metric], best.measures[metric]) is True


def _figures(block: Block, table: Table, setting: Setting, reasons: list[str]) -> list[list[str]]:
    """Rows of the block's figures, the heading first; reasons of what is absent are added."""
    percent, first = table.config.percent, block.metrics[0]
    ratio = first == "l1" and block.copy_source(first) is not None
    heads = [f"{title(metric, block, percent=percent)}, {setting.profile} profile" for metric in block.metrics]
    heads += [f"of copy-source, {setting.profile} profile"] if ratio else []
    heads += [f"{title(first, block, percent=percent)} against {block.baseline.label}, {setting.profile} profile"]
    columns = {metric: texts for metric in block.metrics if (texts := printed(metric, block)) is not None}
    names = [COLUMNS[metric].name if metric in COLUMNS else metric for metric in columns]
    tail = [f"{name}, {PUBLISHED}" for name in names]
    tail += [f"against {block.baseline.label}, {PUBLISHED}"] if first in columns else []
    rows = [["row", *heads, *tail]]
    if any(block.copy_source(metric) is not None for metric in block.metrics):
        nothing = [shown(block.copy_source(metric), metric, percent=percent) for metric in block.metrics]
        rows.append([f"*{WORDS[block.family].nothing}*", *nothing, *(["1.00"] if ratio else []), "", *[""] * len(tail)])
    for place, line in enumerate(block.lines):
        cells = [_marked(line, metric, block, percent, reasons) for metric in block.metrics]
        cells += [_ratio(line, block)] if ratio else []
        tail = [texts[place] for texts in columns.values()]
        tail += [published_change(line, block)] if first in columns else []
        rows.append([line.label, *cells, change_text(line, block), *tail])
    return rows


def _marked(line: Line, metric: str, block: Block, percent: bool, reasons: list[str]) -> str:
    measure = line.measures[metric]
    if not measure.values:
        if measure.absent not in reasons:
            reasons.append(measure.absent)
        return f"- ({_letter(reasons.index(measure.absent))})"
    text = value_text(line, metric, block, percent=percent)
    if block.best(metric) is line:
        return f"**{text}**"
    return f"{text} {NOISE}" if is_near_best(line, metric, block) else text


def _ratio(line: Line, block: Block) -> str:
    mean, nothing = line.measures["l1"].mean, block.copy_source("l1")
    return "-" if mean is None or not nothing else f"{mean / nothing:.2f}"


def _costs(block: Block, setting: Setting) -> list[list[str]]:
    if block.family == "style":
        return _costs_of_drawing(block, setting)
    heads = ["networks, M", "discriminator, M", "AVD, M", "step, s", "memory, MB", "steps", "AVD steps", "pairs"]
    rows = [[f"cost ({setting.profile} profile)", *heads, "training, s"]]
    for line in block.measured:
        if line.cost is not None:
            rows.append([line.label, *_cost_cells(line.cost)])
    return rows


def _costs_of_drawing(block: Block, setting: Setting) -> list[list[str]]:
    heads = ["generator, M", "others, M", "step, s", "memory, MB", "steps", "photos", "training, s"]
    rows = [[f"cost ({setting.profile} profile)", *heads]]
    for line in block.measured:
        cost = line.cost
        if cost is not None:
            own = cost.num_parameters.get("generator", 0)
            millions = [f"{count / 1e6:.3f}" for count in (own, sum(cost.num_parameters.values()) - own)]
            memory = shown(cost.memory.mean, "memory_mb", percent=False)
            counts = [f"{cost.steps:,}", f"{cost.images_seen:,}", f"{cost.seconds:,.0f}"]
            rows.append([line.label, *millions, _pair(cost.step, "step_s"), memory, *counts])
    return rows


def _cost_cells(cost: Cost) -> list[str]:
    counts = [cost.animating, cost.num_parameters.get("discriminator", 0), cost.num_parameters.get("avd", 0)]
    millions = [f"{count / 1e6:.3f}" if count else "-" for count in counts]
    step = _pair(cost.step, "step_s")
    steps = [f"{cost.steps:,}", f"{cost.avd_steps:,}" if cost.avd_steps else "-", f"{cost.images_seen:,}"]
    return [*millions, step, shown(cost.memory.mean, "memory_mb", percent=False), *steps, f"{cost.seconds:,.0f}"]


def _pair(measure: Measure, metric: str) -> str:
    text = shown(measure.mean, metric, percent=False)
    spread = measure.deviation
    return text if spread is None else f"{text} ± {shown(spread, metric, percent=False)}"


def _backbones(blocks: Sequence[Block]) -> str:
    found = {
        f"{measure.backbone} ({', '.join(f'{name} {checksum[:12]}' for name, checksum in measure.sha256)})"
        for block in blocks
        for line in block.measured
        for measure in line.measures.values()
        if measure.backbone is not None
    }
    return "; ".join(sorted(found))


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would break it out of its cell is escaped."""
    safe = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in safe]
    return "\n".join([lines[0], f"| --- |{' ---: |' * (len(rows[0]) - 1)}", *lines[1:]])


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else str(place)
