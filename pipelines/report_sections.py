"""The page's sections as plain values: what is shown, not how. A stage that has not run leaves its fields empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import Family
from pipelines.params import Params
from pipelines.report_data import Report, Reports, family_of, find, mappings, names_of, number, size, sums, whole
from pipelines.report_images import Picture, embed
from pipelines.stage import Paths
from training.metrics.catalog import METRICS

LEARNED_RATIO = 0.9
"""A model of faces counts as having learned when its test L1 is at most this share of copy-source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreView:
    """L1 of one split beside copy-source."""

    l1: float
    copy_source_l1: float
    ratio: float | None
    num_videos: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """One metric that rests on a network, on the test split and on unseen identities."""

    name: str
    """With its backbone."""
    unit: str
    test: float | None
    test_copy: float | None
    unseen: float | None
    unseen_copy: float | None
    counts: tuple[int, int, int]
    """Frames of the test split that have a figure, whose truth shows nothing to compare with, whose result lost it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """One experiment's evaluation."""

    name: str
    dataset: str
    seed: int | None
    split_rule: str
    test: ScoreView | None
    unseen: ScoreView | None
    threshold: float | None
    """The ratio that this kind of data is held to; None: none."""
    device: str
    weights_sha256: str
    data_sha256: str
    bars: Picture | None
    strips: tuple[tuple[str, Picture], ...]
    metrics: tuple[MetricView, ...]
    """Beside L1."""
    absent: tuple[tuple[str, str], ...]
    """(metrics, why there is no figure) on the test split."""
    networks: tuple[tuple[str, str, str], ...]
    """(name, what it does, checksums) of the networks that metrics rest on."""
    failures: tuple[tuple[str, str], ...]
    """(clip, reason)."""
    detect_every: int

    @property
    def verdict(self) -> str:
        """``learned``, ``not yet``, ``better than copy-source``, ``worse than copy-source`` or nothing."""
        if self.test is None or self.test.ratio is None:
            return ""
        if self.threshold is not None:
            return "learned" if self.test.ratio <= self.threshold else "not yet"
        return "better than copy-source" if self.test.ratio < 1 else "worse than copy-source"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimationView:
    """One animation."""

    name: str
    experiment: str
    picture: Picture | None
    strip: Picture | None
    files: tuple[str, ...]
    """Relative to the page."""
    words: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """One model version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    uri: str
    decision: str
    """Why the champion alias moved or stayed."""
    bytes: int | None
    family: Family = "motion"


def results(params: Params, paths: Paths, reports: Reports) -> list[ResultView]:
    """The evaluation of every experiment whose model moves pictures."""
    return [_result(name, params, paths, reports) for name in names_of("evaluate", "motion", params, reports)]


def _result(name: str, params: Params, paths: Paths, reports: Reports) -> ResultView:
    report = reports.get("evaluate", name)
    experiment = params.experiments.get(name)
    dataset = experiment.dataset if experiment else str(report.get("dataset", ""))
    kind = params.datasets[dataset].kind if dataset in params.datasets else ""
    folder = paths.pictures("evaluate", name)
    names = find(report, "strips") or [path.name for path in sorted(folder.glob("strip-*.png"))]
    clips = [Path(str(file)).stem.removeprefix("strip-") for file in names]
    shown = [
        (clip, embed(folder / f"strip-{clip}.png", alt=f"Source, driving frames, results and differences of {clip}"))
        for clip in clips
    ]
    return ResultView(
        name=name,
        dataset=dataset,
        seed=whole(report.get("seed", experiment.train.seed if experiment else None)),
        split_rule=str(report.get("split_rule", "")),
        test=_score(report.get("test")),
        unseen=_score(report.get("unseen")),
        threshold=LEARNED_RATIO if kind == "faces" else None,
        device=str(report.get("device", "")),
        weights_sha256=str(report.get("weights_sha256", "")),
        data_sha256=str(report.get("data_sha256", "")),
        bars=embed(folder / "videos.png", alt=f"L1 of each video, {name}"),
        strips=tuple((clip, picture) for clip, picture in shown if picture is not None),
        metrics=metrics(report),
        absent=absent(report),
        networks=tuple(
            (str(find(one, "name") or ""), str(find(one, "what") or ""), sums(find(one, "sha256")))
            for one in mappings(report.get("detectors"))
        ),
        failures=tuple(
            (str(find(one, "video") or ""), str(find(one, "reason") or "")) for one in mappings(report.get("failures"))
        ),
        detect_every=size(report.get("detect_every")) or 1,
    )


def metrics(report: Report) -> tuple[MetricView, ...]:
    """The metrics of an evaluation that have a figure or a copy-source, but L1 and the plain norms."""
    test, unseen = (_entries(find(report.get(split), "metrics")) for split in ("test", "unseen"))
    made = []
    for name, entry in test.items():
        other = unseen.get(name, {})
        figures = [number(find(one, key)) for one in (entry, other) for key in ("value", "copy_source")]
        if name == "l1" or "-l2" in name or all(figure is None for figure in figures):
            continue
        counts = tuple(size(find(entry, key)) for key in ("num_frames", "num_left_out", "num_missed"))
        made.append(
            MetricView(
                name=name,
                unit=str(find(entry, "unit") or ""),
                test=figures[0],
                test_copy=figures[1],
                unseen=figures[2],
                unseen_copy=figures[3],
                counts=(counts[0], counts[1], counts[2]),
            )
        )
    return tuple(made)


def absent(report: Report) -> tuple[tuple[str, str], ...]:
    """Which metrics of the test split have no figure, by reason."""
    names: dict[str, list[str]] = {}
    for name, entry in _entries(find(report.get("test"), "metrics")).items():
        if find(entry, "absent"):
            names.setdefault(str(entry["absent"]), []).append(name)
    return tuple((", ".join(of), reason) for reason, of in names.items())


def _entries(raw: Any) -> dict[str, Mapping[str, Any]]:
    """Metrics by name, in the catalogue's order."""
    found = raw if isinstance(raw, Mapping) else {}
    order = list(METRICS)
    kept = {str(name): entry for name, entry in found.items() if isinstance(entry, Mapping)}
    places = {name: order.index(base) if (base := name.split("/")[0]) in order else len(order) for name in kept}
    return {name: kept[name] for name in sorted(kept, key=lambda name: (places[name], name))}


def _score(raw: Any) -> ScoreView | None:
    l1, nothing = number(find(raw, "l1")), number(find(raw, "copy_source_l1"))
    if l1 is None or nothing is None:
        return None
    return ScoreView(
        l1=l1,
        copy_source_l1=nothing,
        ratio=l1 / nothing if nothing > 0 else None,
        num_videos=size(find(raw, "num_videos")),
        num_frames=size(find(raw, "num_frames")),
    )


def animations(params: Params, paths: Paths, reports: Reports) -> list[AnimationView]:
    """Every animation."""
    names = reports.names("animate", list(params.animations))
    return [_animation(name, params, paths, reports.get("animate", name)) for name in names]


def _animation(name: str, params: Params, paths: Paths, report: Report) -> AnimationView:
    config = params.animations.get(name)
    folder = paths.pictures("animate", name)
    found = sorted(folder.glob("*")) if report else []
    moving = next((path for kind in (".webp", ".gif") for path in found if path.suffix == kind), None)
    files = [path for path in found if path.suffix in (".gif", ".mp4")]
    source = str(report.get("source") or (config.source if config else ""))
    driving = str(report.get("driving") or (config.driving if config else ""))
    motion = str(report.get("motion") or (config.mode if config else "relative"))
    return AnimationView(
        name=name,
        experiment=config.experiment if config else "",
        picture=None if moving is None else embed(moving, alt=f"Animation {name}: source, driving frame, result"),
        strip=embed(folder / "strip.png", alt=f"Frames of {name}") if report else None,
        files=tuple(f"animate/{name}/{path.name}" for path in files),
        words=f"{Path(source).name} moved by {Path(driving).name}, {motion} motion",
        note=str(report.get("note") or ""),
    )


def versions(params: Params, reports: Reports) -> list[VersionView]:
    """Every registered model version."""
    made = []
    for name in reports.names("register", list(params.experiments)):
        report = reports.get("register", name)
        version = find(report, "version")
        if version is None:
            continue
        model = str(find(report, "name", "model", "registered_name") or name)
        aliases = find(report, "aliases") or ()
        if not isinstance(aliases, list | tuple):
            aliases = (aliases,)
        made.append(
            VersionView(
                name=model,
                version=str(version),
                aliases=tuple(map(str, aliases)),
                uri=_uri(model, str(version), aliases),
                decision=_sentence(find(report, "decision", "reason", "sentence")),
                bytes=whole(find(report, "onnx_bytes", "bytes", "num_bytes")),
                family=family_of("register", name, params, reports),
            )
        )
    return made


def _uri(model: str, version: str, aliases: Sequence[Any]) -> str:
    return f"models:/{model}@champion" if "champion" in aliases else f"models:/{model}/{version}"


def _sentence(value: Any) -> str:
    """A decision in words, whether it is a text or a mapping that holds one."""
    if isinstance(value, Mapping):
        value = find(value, "sentence", "reason", "why", "text")
    text = str(value or "")
    return text[:1].upper() + text[1:]
