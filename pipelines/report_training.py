"""The page's section on trainings as plain values, of any family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.families import Family
from pipelines import plots
from pipelines.params import Params
from pipelines.report_data import Report, Reports, family_of, find, number, read_curves, whole
from pipelines.report_images import Themed, themed
from pipelines.stage import Paths
from training.style_validation import KID, PHOTO_KID
from training.validation import COPY_L1, L1

MAX_CURVES = 8
TOTAL = "loss/total"
FIGURES = {
    "wasserstein": "Wasserstein distance, the critic's estimate",
    "slope": "gradient penalty, before its weight",
}
"""What a critic's phases tell beside their losses: last part of its name -> what it is."""
Judged = tuple[str, str, tuple[str, str]]
JUDGED_BY: Mapping[Family, tuple[Judged, ...]] = {
    "motion": ((L1, COPY_L1, ("validation L1", "copy-source")),),
    "style": ((KID, PHOTO_KID, ("validation KID", "untouched photos")),),
    "dualstyle": (
        (KID, PHOTO_KID, ("validation KID", "untouched faces")),
        ("validation/exchange_l1", "validation/intrinsic_l1", ("L1 to the exchanged codes", "without the style path")),
        (L1, "validation/mean_picture_l1", ("validation L1", "the mean picture")),
    ),
}
"""Names in the record of a validation's figure and of doing nothing, and what the page calls them; the first that a
training has recorded counts."""
Curves = Mapping[str, tuple[list[float], list[float]]]
"""Name -> (steps, values)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingView:
    """One training."""

    name: str
    family: Family
    preset: str
    dataset: str
    style_dataset: str
    """Empty where a model learns from one data set."""
    facts: tuple[tuple[str, Any, str], ...]
    """(what, value, filter that words it)."""
    images_seen: int
    losses: Themed | None
    validation: Themed | None
    critic: tuple[Themed, ...]
    """Figures that tell whether the critic is sound."""
    run_name: str
    """In the tracking store."""
    has_run: bool


def trainings(params: Params, paths: Paths, reports: Reports) -> list[TrainingView]:
    """Every experiment's training."""
    return [_training(name, params, paths, reports) for name in reports.names("train", list(params.experiments))]


def _training(name: str, params: Params, paths: Paths, reports: Reports) -> TrainingView:
    report, experiment = reports.get("train", name), params.experiments.get(name)
    family = family_of("train", name, params, reports)
    curves = read_curves(paths.report("train", name).with_name(f"{name}-losses.csv"))
    style_dataset = experiment.style_dataset if experiment else report.get("style_dataset")
    return TrainingView(
        name=name,
        family=family,
        preset=experiment.preset if experiment else str(report.get("preset", "")),
        dataset=experiment.dataset if experiment else str(report.get("dataset", "")),
        style_dataset=str(style_dataset or ""),
        facts=facts(report, family),
        images_seen=whole(find(report, "images_seen")) or 0,
        losses=loss_picture(curves, name, family),
        validation=validation_picture(curves, name, family),
        critic=critic_pictures(curves, name),
        run_name=str(report.get("run_name") or name),
        has_run=bool(report),
    )


def facts(report: Report, family: Family) -> tuple[tuple[str, Any, str], ...]:
    """What a training's report tells, each with the filter that words it; what it does not tell is left out."""
    told = [
        ("Steps", whole(find(report, "steps")), "count"),
        ("Images seen", whole(find(report, "images_seen")), "count"),
        ("Samples a second", number(find(report, "samples_per_s")), "rate"),
        ("Step", number(find(report, "step_s")), "seconds"),
        ("Waiting for data", number(find(report, "data_wait_share")), "percent"),
        ("Duration", number(find(report, "seconds")), "duration"),
        ("Restarts", whole(find(report, "restarts")), "count"),
        ("Best at step", whole(find(report, "best_step")), "count"),
    ]
    if family == "style":
        told += [
            ("Validation KID", number(find(report.get("validation"), KID)), "short"),
            ("of untouched photos", number(find(report.get("validation"), PHOTO_KID)), "short"),
        ]
    elif family == "motion":
        told.append(("Validation L1", number(report.get("validation_l1")), "figure"))
    return tuple(fact for fact in told if fact[1] is not None)


def loss_picture(curves: Curves, name: str, family: Family = "motion") -> Themed | None:
    """The largest terms of a training's losses, and their total unless two networks work against each other in it."""
    terms = [key for key in curves if key.startswith("loss/") and key != TOTAL and not _is_figure(key)]
    total = [TOTAL] if TOTAL in curves and family == "motion" else []
    largest = sorted(terms, key=lambda key: -max(map(abs, curves[key][1])))[: MAX_CURVES - len(total)]
    shown = {key.removeprefix("loss/"): curves[key] for key in [*total, *largest]}
    if not shown:
        return None
    return themed(f"Losses of {name}", lambda theme: plots.loss_curves(shown, theme=theme))


def validation_picture(curves: Curves, name: str, family: Family = "motion") -> Themed | None:
    """The validation's figure beside that of doing nothing."""
    recorded = [judged for judged in JUDGED_BY.get(family, ()) if judged[0] in curves]
    if not recorded:
        return None
    key, idle, labels = recorded[0]
    steps, values = curves[key]
    line = curves[idle][1][-1] if idle in curves else None
    return themed(
        f"{labels[0][:1].upper()}{labels[0][1:]} of {name}",
        lambda theme: plots.validation_curve(steps, values, line, labels=labels, theme=theme),
    )


def critic_pictures(curves: Curves, name: str) -> tuple[Themed, ...]:
    """A picture of each of a critic's figures that the record holds."""
    found = [_critic_picture(FIGURES[_last(key)], curve, name) for key, curve in curves.items() if _is_figure(key)]
    return tuple(picture for picture in found if picture is not None)


def _critic_picture(title: str, curve: tuple[list[float], list[float]], name: str) -> Themed | None:
    return themed(f"{title}; {name}", lambda theme: plots.figure_curve(*curve, title=title, theme=theme))


def _is_figure(key: str) -> bool:
    """Whether a column of the loss table is told beside the losses and minimised by nothing."""
    return not key.startswith("validation/") and _last(key) in FIGURES


def _last(key: str) -> str:
    return key.rpartition("/")[2]
