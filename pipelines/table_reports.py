"""Reads a paper's tables out of the stages' reports and the published figures; refuses what does not fit together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.catalog import MODELS
from models.errors import CheckpointError, must
from models.families import Family
from pipelines.params import Params
from pipelines.params_papers import FOLDER, Paper, method_name, method_named, methods_of
from pipelines.stage import Paths
from pipelines.table_config import COSTS, DRAWN, IMAGE_COSTS, PARAMETERS, BlockConfig, TableConfig
from pipelines.table_drawings import COST_ALIKE, drawn, parameters
from pipelines.table_drawings import JUDGED_ALIKE as DRAWN_ALIKE
from pipelines.table_figures import Block, Cost, Line, Measure, Table
from pipelines.table_numbers import count, number
from pipelines.table_published import FILE, printed_figures, read_published
from pipelines.table_trained import difference

SHOWN_MISSING = 3
JUDGED_ALIKE = (
    *("data_sha256", "max_frames", "detect_every", "test.num_videos", "test.num_frames"),
    *("unseen.num_videos", "unseen.num_frames"),
)
"""Of the evaluation; another number of videos: one could not be judged. Those of unseen videos count where a column
shows them."""
_OF_DRAWINGS = (*DRAWN, *IMAGE_COSTS)
COUNTED = ("steps", "images_seen", "seconds")
"""Numbers that a training's report holds for each stage."""


def read_tables(paper: Paper, params: Params, paths: Paths) -> list[Table]:
    """All tables of a paper.

    Raises:
        CheckpointError: a report is missing, broken, or of another training than params.yaml describes.
        ParamsError: published figures are named that are not printed.
    """
    reader = _Reader(paper, params, paths)
    reader.check_presence()
    return [reader.table(name, config) for name, config in paper.tables.items()]


class _Reader:
    """Reads the reports of one paper's tables, each once."""

    def __init__(self, paper: Paper, params: Params, paths: Paths) -> None:
        self.paper, self.params, self.paths = paper, params, paths
        self.published = read_published(paths.root / FILE)
        self.folders = params.report_folders()
        self.names = {key: names for other in params.papers.values() for key, names in other.rows.items()}
        self.methods = methods_of(params.papers)
        self.names |= {key: (method_name(*key),) for other in params.papers.values() for key in other.methods}
        self.reports: dict[tuple[str, str], Mapping[str, Any]] = {}

    def file(self, stage: str, name: str) -> Path:
        return self.paths.root / "reports" / self.folders[name] / f"{stage}.json"

    def check_presence(self) -> None:
        """All missing reports at once."""
        blocks = [block for table in self.paper.tables.values() for block in table.blocks]
        names = {
            name for block in blocks for row in block.rows.values() if row for name in self.names[row, block.dataset]
        }
        wanted = [(stage, name) for name in sorted(names) for stage in self._stages(name)]
        missing = [(stage, name) for stage, name in wanted if not self.file(stage, name).is_file()]
        if missing:
            shown = ", ".join(f"{stage} {name}" for stage, name in missing[:SHOWN_MISSING])
            more = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
            fix = f"Run inkmotion run {FOLDER}/{self.paper.name}/dvc.yaml, or by hand: inkmotion {shown}{more}"
            rule = f"have the reports of all its trainings ({len(wanted)})"
            raise CheckpointError(must(f"the tables of {self.paper.name}", rule, f"{len(missing)} missing", fix))

    def _stages(self, name: str) -> tuple[str, ...]:
        return ("evaluate",) if name in self.methods else ("train", "evaluate")

    def report(self, stage: str, name: str) -> Mapping[str, Any]:
        if (stage, name) not in self.reports:
            path = self.file(stage, name)
            try:
                raw = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(raw, dict):
                    raise ValueError(f"a {type(raw).__name__} in place of a mapping")
            except (OSError, ValueError, RecursionError) as error:
                fix = f"Run inkmotion {stage} {name}"
                got = "values nested too deeply" if isinstance(error, RecursionError) else str(error)
                raise CheckpointError(must(str(path), "be a report", got, fix)) from None
            self.reports[stage, name] = raw
        return self.reports[stage, name]

    def table(self, name: str, config: TableConfig) -> Table:
        return Table(name=name, config=config, blocks=tuple(self._block(name, config, part) for part in config.blocks))

    def _block(self, name: str, config: TableConfig, part: BlockConfig) -> Block:
        metrics = part.metrics or config.metrics
        printed = printed_figures(self.published, self.paper, name, part, metrics)
        lines = tuple(self._line(label, row, part, metrics, printed.get(label, {})) for label, row in part.rows.items())
        built = [line for line in lines if line.experiments]
        first = self.report("evaluate", built[0].experiments[0])
        self._check_block(f"{self.paper.name}, {name}, {part.title}", built, metrics)
        of_block = self._block_of_drawings if self._family(built[0]) == "style" else self._block_of_videos
        baseline = next((line for line in built if line.label == part.baseline), built[0])
        block = Block(
            config=part,
            metrics=metrics,
            lines=lines,
            baseline=baseline,
            split_rule=str(first.get("split_rule", "-")),
            size_px=0,
            num_videos=None,
            perceptual_backbone="",
        )
        return of_block(block, built, first)

    def _block_of_videos(self, block: Block, built: Sequence[Line], first: Mapping[str, Any]) -> Block:
        config = self.params.experiment(built[0].experiments[0])
        return replace(
            block,
            size_px=config.model.size_px,
            num_videos=count(_at(first, "test.num_videos")),
            perceptual_backbone=config.train.perceptual_backbone,
        )

    def _block_of_drawings(self, block: Block, built: Sequence[Line], first: Mapping[str, Any]) -> Block:
        """Of trained rows, methods, or both; methods alone have the size of what they drew."""
        names = [name for line in built for name in line.experiments]
        trained = [self.params.experiment(name) for name in names if name not in self.methods]
        judged_px = count(first.get("size_px"))
        backbones = {self.methods[name].backbone for name in names if name in self.methods}
        backbones |= {experiment.train.perceptual_backbone for experiment in trained}
        return replace(
            block,
            family="style",
            size_px=trained[0].model.size_px if trained else judged_px or 0,
            judged_px=judged_px,
            squares=count(first.get("squares")) or 1,
            style_dataset=str(first.get("style_dataset", "-")),
            num_videos=count(first.get("num_photos")),
            perceptual_backbone=" and ".join(sorted(backbones)),
        )

    def _family(self, line: Line) -> Family:
        name = line.experiments[0]
        return "style" if name in self.methods else MODELS[self.params.experiment(name).preset].family

    def _check_block(self, where: str, lines: Sequence[Line], metrics: Sequence[str]) -> None:
        """All rows were judged on the same frames or photos, by the same networks."""
        names = [name for line in lines for name in line.experiments]
        drawings = self._family(lines[0]) == "style"
        for key in _drawn_alike(metrics) if drawings else _judged_alike(metrics):
            _check_alike(where, [(name, _at(self.report("evaluate", name), key)) for name in names], key)
        for metric in metrics:
            found = [(line.label, dict(line.measures[metric].sha256)) for line in lines if line.measures[metric].values]
            _check_alike(where, found, f"weights below {metric}")

    def _line(
        self, label: str, row: str | None, part: BlockConfig, metrics: Sequence[str], printed: Mapping[str, float]
    ) -> Line:
        if row is None:
            none = {metric: Measure(absent="published only") for metric in metrics}
            return Line(label=label, experiments=(), measures=none, published=printed, cost=None)
        names = self.names[row, part.dataset]
        is_method = names[0] in self.methods
        for name in names:
            (self._check_method if is_method else self._check)(name)
        measures = {metric: self._measure(names, metric) for metric in metrics}
        cost = None if is_method else self._cost(names)
        return Line(label=label, experiments=names, measures=measures, published=printed, cost=cost)

    def _check_method(self, name: str) -> None:
        """The report is of the settings that are described."""
        config = method_named(self.params.papers, name)
        report, where = self.report("evaluate", name), str(self.file("evaluate", name))
        for key, wanted in (("preset", config.method), ("weights_sha256", config.sha256)):
            if report.get(key) != wanted:
                fix = f"It is of other settings than those of profile {self.params.profile}: inkmotion evaluate {name}"
                raise CheckpointError(must(where, f"have {key} {wanted}", str(report.get(key)), fix))

    def _check(self, name: str) -> None:
        """The reports are whole, of the training that is described, and of one another."""
        experiment, train, judged = (
            self.params.experiment(name),
            self.report("train", name),
            self.report("evaluate", name),
        )
        for key, rule, got in _wrong_numbers(train):
            fix = f"Run inkmotion train {name}"
            raise CheckpointError(must(f"{self.file('train', name)}: {key}", rule, repr(got), fix))
        steps = train.get("steps")
        full = experiment.train.max_epochs is not None or train.get("stopped_early")
        style = MODELS[experiment.preset].family == "style"  # drawings may have another size than the training's
        facts = [
            ("train", "preset", train.get("preset"), experiment.preset),
            ("train", "dataset", train.get("dataset"), experiment.dataset),
            ("train", "steps", steps, steps if full else experiment.train.max_steps),
            (
                "evaluate",
                "size_px",
                judged.get("size_px"),
                judged.get("size_px") if style else experiment.model.size_px,
            ),
            ("evaluate", "seed", judged.get("seed"), experiment.train.seed),
        ]
        found = difference(train, experiment, self.paths.trained(name))
        facts += [("train", key, got, wanted) for key, wanted, got in ([found] if found else [])]
        facts.append(("evaluate", "weights_sha256", judged.get("weights_sha256"), train.get("weights_sha256")))
        for stage, key, got, wanted in facts:
            if got != wanted:
                fix = f"It is of other settings than those of profile {self.params.profile}: inkmotion {stage} {name}"
                raise CheckpointError(must(str(self.file(stage, name)), f"have {key} {wanted}", str(got), fix))

    def _measure(self, names: Sequence[str], metric: str) -> Measure:
        if metric in COSTS or metric in PARAMETERS:
            if names[0] in self.methods:
                return Measure(absent="nothing is trained")
            if metric in PARAMETERS:
                return parameters(self.report("train", names[0]), metric)
            return self._cost_measure(names, metric)
        score = drawn if metric in _OF_DRAWINGS else _score
        found = [score(self.report("evaluate", name), metric) for name in names]
        absent = next((measure.absent for measure in found if measure.absent), "")
        if absent:
            return Measure(absent=absent)
        return replace(
            found[0],
            values=tuple(measure.values[0] for measure in found),
            num_frames=sum(measure.num_frames for measure in found),
            num_missed=sum(measure.num_missed for measure in found),
        )

    def _cost_measure(self, names: Sequence[str], column: str) -> Measure:
        reports = [self.report("train", name) for name in names]
        if column == "avd_step_s":
            stages = [report.get("second_stage") for report in reports]
            found = [stage.get("step_s") if isinstance(stage, Mapping) else None for stage in stages]
        else:
            found = [report.get(column) for report in reports]
        values = tuple(known for value in found if (known := number(value)) is not None)
        whole = len(values) == len(names)
        why = "no second stage" if column == "avd_step_s" else f"the training's report has no {column}"
        return Measure(values=values) if whole else Measure(absent=why)

    def _cost(self, names: Sequence[str]) -> Cost:
        reports = [self.report("train", name) for name in names]
        second = [report.get("second_stage") for report in reports]
        counts = reports[0].get("num_parameters")
        return Cost(
            num_parameters=counts if isinstance(counts, Mapping) else {},
            step=self._cost_measure(names, "step_s"),
            memory=self._cost_measure(names, "memory_mb"),
            steps=int(reports[0]["steps"]),
            images_seen=int(reports[0]["images_seen"]),
            max_seconds=self.params.experiment(names[0]).train.max_seconds,
            seconds=statistics.fmean(_seconds(report) for report in reports),
            avd_steps=int(second[0]["steps"]) if isinstance(second[0], Mapping) else 0,
            device=str(reports[0].get("device", "-")),
        )


def _score(report: Mapping[str, Any], column: str) -> Measure:
    """One column out of one evaluation's report."""
    split, _, metric = column.rpartition("/")
    scores = report.get(split or "test")
    if not isinstance(scores, Mapping):
        return Measure(
            absent="the data set keeps nobody unseen" if split == "unseen" else f"no {split or 'test'} split"
        )
    l1 = number(scores.get("l1"))
    if metric == "l1" and l1 is not None:
        return Measure(values=(l1,), copy_source=number(scores.get("copy_source_l1")))
    for name, entry in _entries(scores):
        if name.partition("/")[0] == metric:
            return _entry(entry)
    return Measure(absent="not among the evaluation's metrics (evaluation.metrics of params.yaml)")


def _entries(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    found = scores.get("metrics")
    for name, entry in found.items() if isinstance(found, Mapping) else ():
        if isinstance(entry, Mapping):
            yield str(name), entry


def _entry(entry: Mapping[str, Any]) -> Measure:
    value = number(entry.get("value"))
    if value is None:
        return Measure(absent=str(entry.get("absent") or "no frame has a figure"))
    files = entry.get("sha256")
    return Measure(
        values=(value,),
        copy_source=number(entry.get("copy_source")),
        num_frames=int(number(entry.get("num_frames")) or 0),
        num_missed=int(number(entry.get("num_missed")) or 0),
        backbone=None if entry.get("backbone") is None else str(entry["backbone"]),
        sha256=tuple(sorted((str(k), str(v)) for k, v in files.items())) if isinstance(files, Mapping) else (),
    )


def _check_alike(where: str, facts: Sequence[tuple[str, Any]], what: str) -> None:
    known = [(name, value) for name, value in facts if value is not None]
    for name, value in known[1:]:
        if value != known[0][1]:
            fix = f"Evaluate both again: {known[0][0]}, {name}"
            raise CheckpointError(must(where, f"compare rows of the same {what}", f"{known[0][1]} and {value}", fix))


def _at(report: Mapping[str, Any], key: str) -> Any:
    value: Any = report
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _judged_alike(metrics: Sequence[str]) -> list[str]:
    """What rows must share that are compared in these columns."""
    unseen = any(metric.startswith("unseen/") for metric in metrics)
    return [key for key in JUDGED_ALIKE if unseen or not key.startswith("unseen.")]


def _drawn_alike(metrics: Sequence[str]) -> list[str]:
    """What rows must share whose drawings are compared in these columns."""
    judged = any(metric not in PARAMETERS for metric in metrics)
    costs = COST_ALIKE if any(metric in IMAGE_COSTS for metric in metrics) else ()
    return [*(DRAWN_ALIKE if judged else ()), *costs]


def _wrong_numbers(train: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(key, rule, value) of what a training's report must hold and does not."""
    second, counts, weights = (train.get(key) for key in ("second_stage", "num_parameters", "weights_sha256"))
    found = [(key, train.get(key)) for key in COUNTED]
    if isinstance(second, Mapping):
        found += [(f"second_stage.{key}", second.get(key)) for key in ("steps", "seconds")]
    if isinstance(counts, Mapping):
        found += [(f"num_parameters.{key}", value) for key, value in counts.items()]
    for key, value in found:
        if (number(value) if key.endswith("seconds") else count(value)) is None:
            yield key, "be a number" if key.endswith("seconds") else "be a whole number, 0 or more", value
    if not isinstance(weights, str):
        yield "weights_sha256", "be a text", weights


def _seconds(report: Mapping[str, Any]) -> float:
    """Of both stages."""
    second = report.get("second_stage")
    return float(report["seconds"]) + (float(second["seconds"]) if isinstance(second, Mapping) else 0.0)
