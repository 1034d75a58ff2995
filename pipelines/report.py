"""The report: one page that needs no network, no script and no file beside it."""

from __future__ import annotations

import datetime
import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from pipelines import report_data, report_datasets, report_sections
from pipelines.params import Params
from pipelines.report_data import Reports, find, number
from pipelines.report_datasets import DatasetView
from pipelines.report_sections import LEARNED_RATIO, AnimationView, ResultView, TrainingView, VersionView
from pipelines.stage import Paths, only_writer, write_text
from training.metrics.catalog import METRICS

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
PAGE = Path("reports") / "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportReport:
    """What was written."""

    page: str
    bytes: int
    missing: tuple[str, ...]
    """``stage name`` of what had not run when the page was made."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One headline figure."""

    figure: str
    label: str
    tone: str = ""
    """``good``, ``bad`` or nothing."""


def run(params: Params, paths: Paths) -> ReportReport:
    """Write ``reports/index.html`` from what the stages have left; what has not run is said so, not an error.

    Raises:
        EnvironmentProblem: the page can't be written, or another process writes it.
    """
    started_s, target = time.perf_counter(), paths.root / PAGE
    with only_writer(target):
        reports = report_data.read_reports(paths)
        page = render(params, paths, reports)
        write_text(target, page)
    missing = _missing(params, reports)
    for problem in reports.problems:
        logger.warning("%s", problem)
    seconds = round(time.perf_counter() - started_s, 3)
    return ReportReport(page=str(PAGE), bytes=len(page.encode()), missing=missing, seconds=seconds)


def render(params: Params, paths: Paths, reports: Reports) -> str:
    """The page's HTML."""
    datasets = report_datasets.datasets(params, paths, reports)
    results = report_sections.results(params, paths, reports)
    trainings = report_sections.trainings(params, paths, reports)
    animations = report_sections.animations(params, paths, reports)
    versions = report_sections.versions(params, reports)
    template = _environment().get_template("report.html.j2")
    return template.render(
        profile=params.profile,
        made_at=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        commit=report_data.commit(paths.root),
        cards=cards(datasets, results, trainings, versions),
        datasets=datasets,
        results=results,
        trainings=trainings,
        animations=animations,
        versions=versions,
        threshold=LEARNED_RATIO,
        metric=METRICS["l1"],
        missing=_missing(params, reports),
        problems=reports.problems,
        machine=report_data.machine(),
        packages=report_data.versions(),
        durations=durations(reports),
        commands=commands(trainings, animations, versions),
    )


def cards(
    datasets: list[DatasetView], results: list[ResultView], trainings: list[TrainingView], versions: list[VersionView]
) -> list[Card]:
    """The headline figures, of what there is."""
    made = []
    judged = [(result, result.test) for result in results if result.test is not None]
    held = [(result, test.ratio) for result, test in judged if result.threshold is not None and test.ratio is not None]
    if held:
        good = all(ratio <= (result.threshold or 0) for result, ratio in held)
        worst = max(ratio for _, ratio in held)
        seeds = f", {len(held)} seeds" if len(held) > 1 else ""
        label = f"test L1 / copy-source, faces (worst{seeds})" if len(held) > 1 else "test L1 / copy-source, faces"
        made.append(Card(figure=f"{worst:.2f}", label=label, tone="good" if good else "bad"))
    images = sum(int(value) for training in trainings for what, value, _ in training.facts if what == "Images seen")
    clips = sum(dataset.clips or 0 for dataset in datasets)
    frames = sum(dataset.frames or 0 for dataset in datasets)
    if clips:
        made.append(Card(figure=f"{clips:,}", label=f"clips and stills in {len(datasets)} data sets"))
    if frames:
        made.append(Card(figure=f"{frames:,}", label="frames in the shards"))
    if images:
        made.append(Card(figure=f"{images:,}", label="pairs of frames trained on"))
    if versions:
        made.append(
            Card(
                figure=str(len(versions)),
                label="model versions registered" if len(versions) > 1 else "model version registered",
            )
        )
    return made


def durations(reports: Reports) -> list[tuple[str, str, float]]:
    """(stage, name, seconds) of every report that tells its duration, in the graph's order."""
    told = []
    for stage, entries in reports.stages.items():
        for name, report in entries.items():
            seconds = number(find(report, "seconds", "duration_s", "elapsed_s"))
            if seconds is not None:
                told.append((stage, name, seconds))
    return told


def commands(
    trainings: list[TrainingView], animations: list[AnimationView], versions: list[VersionView]
) -> list[tuple[str, str]]:
    """(what it shows, command), with names that exist in this project."""
    shown = [("All runs, metrics and versions in MLflow's own page", "inkmotion ui")]
    uri = versions[0].uri if versions else None
    if uri:
        shown.append(
            (
                "Your own picture, moved by your own video",
                f"inkmotion animate --model {uri} --source me.jpg --driving you.mp4 --out out.mp4",
            )
        )
        shown.append(("Where a model version comes from", f"inkmotion lineage {uri}"))
        shown.append(
            ("Let the champion alias follow, if the candidate is better", f"inkmotion promote {versions[0].name}")
        )
    names = [training.run_name for training in trainings if training.has_run]
    if len(names) > 1:
        shown.append(("Two trainings beside each other", f"inkmotion compare {names[0]} {names[1]}"))
    shown.append(("What a run would take in time, memory and disk", "inkmotion run --dry-run"))
    shown.append(("What this machine has, and what is missing", "inkmotion doctor"))
    shown.append(("All of it again; only what changed runs", "make run"))
    return shown


def _missing(params: Params, reports: Reports) -> tuple[str, ...]:
    wanted = [
        *(("download", name) for name in params.datasets),
        *(("cut", name) for name in params.datasets),
        *(("shard", name) for name in params.datasets),
        *(("train", name) for name in params.experiments),
        *(("evaluate", name) for name in params.experiments),
        *(("register", name) for name in params.experiments),
        *(("animate", name) for name in params.animations),
    ]
    return tuple(f"{stage} {name}" for stage, name in wanted if not reports.get(stage, name))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _duration(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _bytes(value: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _word(value: Any, how: str) -> str:
    """``value`` in the words of the filter called ``how``."""
    worded: str = FILTERS[how](value)
    return worded


FILTERS: Mapping[str, Any] = {
    "count": _count,
    "figure": _figure,
    "ratio": _ratio,
    "rate": _rate,
    "percent": _percent,
    "seconds": _seconds,
    "duration": _duration,
    "bytes": _bytes,
    "word": _word,
}
