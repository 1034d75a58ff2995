"""Figures of sets of pictures: how near stylised ones, or untouched photos, are to a style; and what that says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.score import Network
from pipelines.style_features import EFFNET, Seen, seen_by
from training.metrics.catalog import STYLE_METRICS
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR
from training.metrics.features import FeatureNetwork
from training.metrics.frechet import frechet_distance
from training.metrics.inception_score import inception_score
from training.metrics.kernel import kernel_distance, kernel_distances

METRIC = f"kid/{EFFNET}"
"""By which stylising models are compared."""
CONTENT, DETAIL = f"content/{EFFNET}", "detail"
MIN_GAIN, MIN_DEVIATIONS = 0.1, 2.0
"""What KID must lie below the untouched photos': as a share, and in standard deviations over subsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of a set of pictures."""

    value: float | None
    """None: see ``absent``."""
    std: float | None = None
    """Over subsets (KID) or parts (IS); None: the metric has none."""
    num_pictures: int
    unit: str
    better: str
    """``lower`` or ``higher``."""
    backbone: str | None = None
    absent: str | None = None
    """Why there is no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a model's drawings pass, and by what."""

    passed: bool
    """All three below."""
    nearer: bool
    """Their KID is below the untouched photos' by `MIN_GAIN` and `MIN_DEVIATIONS`."""
    keeps_content: bool
    """The content distance is not above ``content_ceiling``."""
    keeps_detail: bool
    """The detail is not below ``detail_floor``."""
    kid_made: float
    kid_untouched: float
    gain: float
    """``kid_untouched - kid_made``."""
    gain_share: float | None
    """Of ``kid_untouched``; None where that is not above 0, for then the photos are in the style already."""
    gain_std: float
    """Of the gain over subsets; both KIDs are taken on the same ones."""
    gain_deviations: float | None
    """``gain / gain_std``; None where that is 0."""
    min_gain: float = MIN_GAIN
    min_deviations: float = MIN_DEVIATIONS
    content: float
    content_ceiling: float = CONTENT_CEILING
    detail: float
    detail_floor: float = DETAIL_FLOOR


def figures_of(
    made: Iterable[np.ndarray],
    style: Iterable[np.ndarray] | Mapping[str, Seen],
    *,
    networks: Mapping[str, FeatureNetwork],
) -> dict[str, Figure]:
    """FID, KID and IS of a set of pictures against a style, by every judge that there is.

    Args:
        made: pictures, each uint8 RGB, (H, W, 3); two or more. Read once, one at a time for each judge.
        style: pictures of the style, likewise; or what the judges said of them (`look_at`), to be used again.
        networks: the judges, of `pipelines.style_features.build`.

    Returns:
        ``fid/<judge>``, ``kid/<judge>`` and ``is/<judge>``.

    Raises:
        ShapeError: a picture of another shape or type, or fewer than two on a side.
        ClipError: no picture at all.
    """
    known = style if isinstance(style, Mapping) else look_at(style, networks)
    return set_figures(look_at(made, networks), known)


def look_at(pictures: Iterable[np.ndarray], networks: Mapping[str, FeatureNetwork]) -> dict[str, Seen]:
    """What each judge says of a set of pictures, each uint8 RGB, (H, W, 3).

    Raises:
        ShapeError: a picture of another shape or type.
        ClipError: no picture.
    """
    held = pictures if len(networks) == 1 else list(pictures)
    return {name: seen_by(network, held) for name, network in networks.items()}


def set_figures(made: Mapping[str, Seen], style: Mapping[str, Seen]) -> dict[str, Figure]:
    """FID, KID and IS of a set by what each judge said of it and of the style.

    Raises:
        ShapeError: fewer than two pictures in a set.
    """
    found: dict[str, Figure] = {}
    for judge, seen in made.items():
        count = len(seen.features)
        distance = frechet_distance(seen.features, style[judge].features)
        kernel = kernel_distance(seen.features, style[judge].features)
        score = inception_score(seen.logits)
        found[f"fid/{judge}"] = figure("fid", distance, count, judge=judge)
        found[f"kid/{judge}"] = figure("kid", kernel.mean, count, std=kernel.std, judge=judge)
        found[f"is/{judge}"] = figure("is", score.mean, count, std=score.std, judge=judge)
    return found


def absent_figures(judges: Mapping[str, Network | str], num_pictures: int) -> dict[str, Figure]:
    """The figures of the judges that are not here, with the reason."""
    return {
        f"{metric}/{judge}": figure(metric, None, num_pictures, judge=judge, absent=reason)
        for judge, reason in judges.items()
        if isinstance(reason, str)
        for metric in ("fid", "kid", "is")
    }


def figure(
    metric: str,
    value: float | None,
    num_pictures: int,
    *,
    std: float | None = None,
    judge: str | None = None,
    absent: str | None = None,
) -> Figure:
    """A figure of a metric of the catalogue."""
    known = STYLE_METRICS[metric]
    return Figure(
        value=value,
        std=std,
        num_pictures=num_pictures,
        unit=known.unit,
        better=known.better,
        backbone=judge,
        absent=absent,
    )


def judge_model(made: Seen, untouched: Seen, style: Seen, *, content: float, detail: float) -> Verdict:
    """Whether drawings are nearer to the style than their photos are, keep their content, and are not blurred.

    Args:
        made: what the embedded judge said of the drawings.
        untouched: of their photos, in the same order.
        style: of the style pictures.
        content: the drawings' content distance, 0 the photo and 1 another photo.
        detail: the drawings' share of their photos' gradient energy.

    Raises:
        ShapeError: fewer than two pictures in a set.
    """
    ours = kernel_distances(made.features, style.features)
    theirs = kernel_distances(untouched.features, style.features)
    gain, base = float((theirs - ours).mean()), float(theirs.mean())
    std = float((theirs - ours).std())
    nearer = base > 0 and gain >= MIN_GAIN * base and gain >= MIN_DEVIATIONS * std
    keeps = content <= CONTENT_CEILING, detail >= DETAIL_FLOOR
    return Verdict(
        passed=nearer and all(keeps),
        nearer=nearer,
        keeps_content=keeps[0],
        keeps_detail=keeps[1],
        kid_made=float(ours.mean()),
        kid_untouched=base,
        gain=gain,
        gain_share=gain / base if base > 0 else None,
        gain_std=std,
        gain_deviations=gain / std if std > 0 else None,
        content=content,
        detail=detail,
    )
