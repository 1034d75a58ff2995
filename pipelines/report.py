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

from models.catalog import MODELS
from models.families import Family
from pipelines import report_data, report_datasets, report_faces, report_sections, report_style, report_training
from pipelines.params import Params
from pipelines.report_data import Reports, find, number
from pipelines.report_datasets import DatasetView
from pipelines.report_sections import LEARNED_RATIO, ResultView, VersionView
from pipelines.report_style import StyleResultView
from pipelines.report_training import TrainingView
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
    drawn = report_style.results(params, paths, reports)
    trainings = report_training.trainings(params, paths, reports)
    versions = report_sections.versions(params, reports)
    template = _environment().get_template("report.html.j2")
    return template.render(
        profile=params.profile,
        made_at=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        commit=report_data.commit(paths.root),
        cards=cards(datasets, results, drawn, trainings, versions),
        datasets=datasets,
        results=results,
        drawn=drawn,
        trainings=trainings,
        animations=report_sections.animations(params, paths, reports),
        stylisations=report_style.stylisations(params, paths, reports),
        faces=report_faces.results(params, paths, reports),
        versions=versions,
        threshold=LEARNED_RATIO,
        metric=METRICS["l1"],
        missing=_missing(params, reports),
        problems=reports.problems,
        machine=report_data.machine(),
        packages=report_data.versions(),
        durations=durations(reports),
        commands=commands(trainings, versions),
    )


def cards(
    datasets: list[DatasetView],
    results: list[ResultView],
    drawn: list[StyleResultView],
    trainings: list[TrainingView],
    versions: list[VersionView],
) -> list[Card]:
    """The headline figures, of what there is."""
    families: tuple[Family, ...] = ("motion", "style", "dualstyle")
    seen = {family: sum(one.images_seen for one in trainings if one.family == family) for family in families}
    plural = "s" if len(versions) > 1 else ""
    counts = (
        (sum(dataset.clips or 0 for dataset in datasets), f"clips and stills in {len(datasets)} data sets"),
        (sum(dataset.frames or 0 for dataset in datasets), "frames in the shards"),
        (seen["motion"], "pairs of frames trained on"),
        (seen["style"], "photos and style pictures trained on"),
        (seen["dualstyle"], "faces trained on"),
        (len(versions), f"model version{plural} registered"),
    )
    made = [card for card in (_motion_card(results), _style_card(drawn)) if card is not None]
    return [*made, *(Card(figure=f"{count:,}", label=label) for count, label in counts if count)]


def _motion_card(results: list[ResultView]) -> Card | None:
    judged = [(result, result.test.ratio) for result in results if result.test is not None]
    held = [(result.threshold, ratio) for result, ratio in judged if result.threshold is not None and ratio is not None]
    if not held:
        return None
    good = all(ratio <= threshold for threshold, ratio in held)
    worst = f" (worst, {len(held)} seeds)" if len(held) > 1 else ""
    figure = f"{max(ratio for _, ratio in held):.2f}"
    return Card(figure=figure, label=f"test L1 / copy-source, faces{worst}", tone="good" if good else "bad")


def _style_card(drawn: list[StyleResultView]) -> Card | None:
    held = [(one.share, one.verdict == "passes") for one in drawn if one.share is not None]
    if not held:
        return None
    worst = f" (worst of {len(held)})" if len(held) > 1 else ""
    tone = "good" if all(passed for _, passed in held) else "bad"
    figure = f"{max(share for share, _ in held):.2f}"
    return Card(figure=figure, label=f"KID of drawings / of untouched photos{worst}", tone=tone)


def durations(reports: Reports) -> list[tuple[str, str, float]]:
    """(stage, name, seconds) of every report that tells its duration, in the graph's order."""
    told = []
    for stage, entries in reports.stages.items():
        for name, report in entries.items():
            seconds = number(find(report, "seconds", "duration_s", "elapsed_s"))
            if seconds is not None:
                told.append((stage, name, seconds))
    return told


USES: Mapping[Family, tuple[str, str]] = {
    "motion": (
        "Your own picture, moved by your own video",
        "inkmotion animate --model {uri} --source me.jpg --driving you.mp4 --out out.mp4",
    ),
    "style": (
        "Your own photo, folder of photos or video as drawings",
        "inkmotion stylise --model {uri} --in me.jpg --out me.png",
    ),
    "dualstyle": (
        "The face in your own photo as a cartoon, moved by your own video",
        "inkmotion stylise-animate --stylist {uri} --photo me.jpg --driving you.mp4 --out me.gif",
    ),
}
"""What a version is for, by its family, and the command."""


def commands(trainings: list[TrainingView], versions: list[VersionView]) -> list[tuple[str, str]]:
    """(what it shows, command), with names that exist in this project."""
    shown = [("All runs, metrics and versions in MLflow's own page", "inkmotion ui")]
    for family, (what, command) in USES.items():
        uris = [version.uri for version in versions if version.family == family]
        shown += [(what, command.format(uri=uris[0]))] if uris else []
    if versions:
        shown.append(("Where a model version comes from", f"inkmotion lineage {versions[0].uri}"))
        shown.append(
            ("Let the champion alias follow, if the candidate is better", f"inkmotion promote {versions[0].name}")
        )
    for family in USES:
        names = [one.run_name for one in trainings if one.has_run and one.family == family]
        if len(names) > 1:
            shown.append(("Two trainings beside each other", f"inkmotion compare {names[0]} {names[1]}"))
            break
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
        *((stage, name) for stage in ("evaluate", "register") for name in _judged(params)),
        *((stage, name) for stage in ("destylise", "refine") for name in params.dualstyles),
        *(("stylise-clips", name) for name in params.stylised_datasets),
        *(("register", name) for name in params.systems),
        *(("animate", name) for name in params.animations),
        *(("stylise", name) for name in params.stylisations),
    ]
    return tuple(f"{stage} {name}" for stage, name in wanted if not reports.get(stage, name))


def _judged(params: Params) -> list[str]:
    """What is evaluated and registered: experiments, and of a DualStyleGAN's trainings the whole that they make."""
    alone = [name for name, one in params.experiments.items() if MODELS[one.preset].family != "dualstyle"]
    return [*alone, *params.dualstyles]


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
    "short": report_style.short,
    "ratio": _ratio,
    "rate": _rate,
    "percent": _percent,
    "seconds": _seconds,
    "duration": _duration,
    "bytes": _bytes,
    "word": _word,
}
