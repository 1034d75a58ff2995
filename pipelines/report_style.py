"""The page's sections on models that draw, as plain values: how near their drawings are to a style, and drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.params import Params
from pipelines.report_data import Report, Reports, mappings, names_of, number, size, sums, whole
from pipelines.report_images import Picture, embed
from pipelines.stage import Paths

ORDER = ("kid", "fid", "is", "content", "detail")
"""Of the metrics; others follow."""
SHARES = ("content", "detail")
"""Metrics that are shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureView:
    """One metric of drawings beside that of their untouched photos."""

    metric: str
    judge: str
    """The network that it rests on; empty: none."""
    unit: str
    better: str
    """``lower`` or ``higher``."""
    made: float | None
    made_std: float | None
    untouched: float | None
    untouched_std: float | None

    @property
    def title(self) -> str:
        """Its name on the page: abbreviations in capitals."""
        return self.metric if self.metric in SHARES else self.metric.upper()

    def worded(self, value: float | None) -> str:
        """One of its values, all with equally many decimals; ``-`` for none."""
        largest = max(abs(one) for one in (self.made, self.untouched, 0.0) if one is not None)
        return "-" if value is None else f"{value:,.{2 if self.metric in SHARES else decimals(largest)}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """One part of a verdict."""

    held: bool
    what: str
    numbers: str
    """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleResultView:
    """One experiment's evaluation; of one that has not run, the names only."""

    name: str
    dataset: str
    style_dataset: str
    seed: int | None
    split_rule: str
    verdict: str
    """``passes``, ``does not pass`` or nothing."""
    share: float | None
    """KID of the drawings over that of the untouched photos."""
    claims: tuple[ClaimView, ...]
    figures: tuple[FigureView, ...]
    absent: tuple[tuple[str, str], ...]
    """(metrics, why there is no figure)."""
    counted: str
    """How many photos and style pictures, in words."""
    strips: tuple[Picture, ...]
    bars: Picture | None
    networks: tuple[tuple[str, str, str], ...]
    """(name, what it does, checksums) of the networks that metrics rest on."""
    failures: tuple[tuple[str, str], ...]
    """(picture, reason)."""
    device: str
    sums: tuple[tuple[str, str], ...]
    """(what, sha256) of the weights and of both shards' indexes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StylisationView:
    """One photo, video or folder made into drawings."""

    name: str
    experiment: str
    pair: tuple[Picture, Picture] | None
    """Photo and drawing; of a video a still of each."""
    strip: Picture | None
    """Further pairs."""
    files: tuple[str, ...]
    """Relative to the page."""
    words: str
    note: str


def results(params: Params, paths: Paths, reports: Reports) -> list[StyleResultView]:
    """The evaluation of every experiment whose model draws."""
    return [_result(name, params, paths, reports) for name in names_of("evaluate", "style", params, reports)]


def _result(name: str, params: Params, paths: Paths, reports: Reports) -> StyleResultView:
    report, experiment = reports.get("evaluate", name), params.experiments.get(name)
    folder, verdict = paths.pictures("evaluate", name), _mapping(report.get("verdict"))
    shown = report.get("strips")
    strips = [Path(str(file)).name for file in shown] if isinstance(shown, list) else []
    pictures = [embed(folder / file, alt=f"Test photos, their drawings and style pictures, {name}") for file in strips]
    hashes = (("weights", "weights_sha256"), ("photos", "data_sha256"), ("style pictures", "style_data_sha256"))
    return StyleResultView(
        name=name,
        dataset=experiment.dataset if experiment else str(report.get("dataset") or ""),
        style_dataset=str((experiment.style_dataset if experiment else report.get("style_dataset")) or ""),
        seed=whole(report.get("seed", experiment.train.seed if experiment else None)),
        split_rule=str(report.get("split_rule") or ""),
        verdict=_verdict(verdict),
        share=_share(verdict),
        claims=claims(verdict),
        figures=figures(report),
        absent=absent(report),
        counted=counted(report),
        strips=tuple(picture for picture in pictures if picture is not None),
        bars=embed(folder / "distances.png", alt=f"Distances of drawings and photos from the style, {name}"),
        networks=tuple(
            (str(one.get("name") or ""), str(one.get("what") or ""), sums(one.get("sha256")))
            for one in mappings(report.get("judges"))
        ),
        failures=tuple(
            (str(one.get("picture") or ""), str(one.get("reason") or "")) for one in mappings(report.get("failures"))
        ),
        device=str(report.get("device") or ""),
        sums=tuple((what, str(report.get(key) or "-")[:16]) for what, key in hashes),
    )


def counted(report: Report) -> str:
    """How many photos and style pictures were judged, whole or in squares, in words."""
    photos, styles = size(report.get("num_photos")), size(report.get("num_style_pictures"))
    each = max(size(report.get("squares")), 1) ** 2
    if each == 1:
        return f"{photos:,} test photos, {styles:,} style pictures"
    return f"{photos:,} squares of test photos, {styles:,} of style pictures, {each} of each"


def _verdict(verdict: Report) -> str:
    passed = verdict.get("passed")
    return ("does not pass", "passes")[passed] if isinstance(passed, bool) else ""


def _share(verdict: Report) -> float | None:
    made, untouched = number(verdict.get("kid_made")), number(verdict.get("kid_untouched"))
    return made / untouched if made is not None and untouched is not None and untouched > 0 else None


def claims(verdict: Report) -> tuple[ClaimView, ...]:
    """What a verdict rests on, each part with its numbers in words; parts that are not told are left out."""
    content, detail = number(verdict.get("content")), number(verdict.get("detail"))
    ceiling, floor = number(verdict.get("content_ceiling")), number(verdict.get("detail_floor"))
    told = (
        ("nearer", "Nearer to the style than the photos are", nearness(verdict)),
        (
            "keeps_content",
            "Keeps what the photos show",
            "" if content is None else f"content distance {content:.2f}, at most {_plain(ceiling)} is asked for",
        ),
        (
            "keeps_detail",
            "Is not blurred",
            "" if detail is None else f"{_percent(detail)} of the photos' detail, {_percent(floor)} is asked for",
        ),
    )
    return tuple(
        ClaimView(held=verdict[key], what=what, numbers=words)
        for key, what, words in told
        if words and isinstance(verdict.get(key), bool)
    )


def nearness(verdict: Report) -> str:
    """The KID of drawings beside that of photos, in words; empty without figures."""
    made, untouched = number(verdict.get("kid_made")), number(verdict.get("kid_untouched"))
    if made is None or untouched is None:
        return ""
    words = f"KID {short(made)}, that of the untouched photos {short(untouched)}"
    share, deviations = number(verdict.get("gain_share")), number(verdict.get("gain_deviations"))
    if share is None:
        return f"{words}: the photos are in the style already"
    words += f": {_percent(abs(share))} {'less' if share >= 0 else 'more'}"
    if deviations is not None:
        words += f", by {abs(deviations):,.1f} standard deviations"
    asked, least = number(verdict.get("min_gain")), number(verdict.get("min_deviations"))
    if asked is None or least is None:
        return words
    return f"{words}; {_percent(asked)} less by {_plain(least)} is asked for"


def figures(report: Report) -> tuple[FigureView, ...]:
    """Every metric that has a figure, in `ORDER`, those on the embedded network before others."""
    made, untouched = _entries(report.get("made")), _entries(report.get("untouched"))
    found = []
    for name, entry in made.items():
        other = untouched.get(name, {})
        values = [number(one.get(key)) for one in (entry, other) for key in ("value", "std")]
        if values[0] is None and values[2] is None:
            continue
        metric, _, judge = name.partition("/")
        found.append(
            FigureView(
                metric=metric,
                judge=judge or str(entry.get("backbone") or ""),
                unit=str(entry.get("unit") or ""),
                better=str(entry.get("better") or ""),
                made=values[0],
                made_std=values[1],
                untouched=values[2],
                untouched_std=values[3],
            )
        )
    return tuple(found)


def absent(report: Report) -> tuple[tuple[str, str], ...]:
    """Which metrics have no figure, by reason."""
    names: dict[str, list[str]] = {}
    for name, entry in _entries(report.get("made")).items():
        if entry.get("absent"):
            names.setdefault(str(entry["absent"]), []).append(name)
    return tuple((", ".join(of), reason) for reason, of in names.items())


def _entries(raw: Any) -> dict[str, Mapping[str, Any]]:
    """Metrics by name, the judged-by ones first, judge by judge."""
    kept = {str(name): entry for name, entry in _mapping(raw).items() if isinstance(entry, Mapping)}
    places = {name: ORDER.index(base) if (base := name.split("/")[0]) in ORDER else len(ORDER) for name in kept}
    return {name: kept[name] for name in sorted(kept, key=lambda name: (places[name], name))}


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def stylisations(params: Params, paths: Paths, reports: Reports) -> list[StylisationView]:
    """Every stylisation."""
    names = reports.names("stylise", list(params.stylisations))
    return [_stylisation(name, params, paths, reports.get("stylise", name)) for name in names]


def _stylisation(name: str, params: Params, paths: Paths, report: Report) -> StylisationView:
    config, folder = params.stylisations.get(name), paths.pictures("stylise", name)
    source = Path(str(report.get("source") or (config.source if config else ""))).name
    photo = embed(folder / "photo.png", alt=f"Photo {source}") if report else None
    drawing = embed(folder / "drawing.png", alt=f"Drawing of {source}") if report else None
    is_photo = report.get("kind") == "photo"
    files = sorted(folder.glob("*.mp4")) + sorted(folder.glob("drawing.png")) if report else []
    return StylisationView(
        name=name,
        experiment=config.experiment if config else "",
        pair=(photo, drawing) if photo and drawing else None,
        strip=embed(folder / "strip.png", alt=f"Photos and drawings of {source}") if report and not is_photo else None,
        files=tuple(f"stylise/{name}/{path.name}" for path in files),
        words=f"{source}, {_drawn(report)}" if report else source,
        note=str(report.get("note") or ""),
    )


def _drawn(report: Report) -> str:
    """What was done, in words."""
    strength, count = number(report.get("strength")), whole(report.get("num_frames"))
    words = [f"drawn at strength {_plain(1.0 if strength is None else strength)}"]
    if isinstance(report.get("num_pictures"), int):
        words.append(
            f"{size(report.get('num_made')) + size(report.get('num_kept'))} of {report['num_pictures']} photos"
        )
    if whole(report.get("width")) and whole(report.get("height")):
        words.append(f"{whole(report['width'])} x {whole(report['height'])} px")
    if report.get("kind") == "video" and count:
        words.append(f"{count} frames" + (", kept steady" if report.get("temporal") else ""))
    steady, alone = number(report.get("warping_error")), number(report.get("warping_error_by_frame"))
    if steady is not None and alone is not None:
        words.append(f"warping error {short(steady)}, frame by frame {short(alone)}")
    return ", ".join(words)


def short(value: float | None) -> str:
    """A figure with the decimals that matter; ``-`` for none."""
    return "-" if value is None else f"{value:,.{decimals(value)}f}"


def decimals(value: float) -> int:
    """Four below 1, two below 10, else one."""
    return 4 if abs(value) < 1 else 2 if abs(value) < 10 else 1


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _plain(setting: float | None) -> str:
    return "-" if setting is None else f"{setting:g}"
