"""Figures of clips, and of splits out of those: plain values that add up the same whoever computed them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.contracts import Split
from training.metrics.catalog import METRICS, Metric

CSV_FIELDS = ("video", "split", "identity", "frames", "l1", "copy_source_l1", "ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One metric's sums over frames that a detector looked at."""

    total: float = 0.0
    """Sum over the frames that have a figure."""
    num_frames: int = 0
    """Frames that have a figure."""
    copy_total: float = 0.0
    """Of showing the source unmoved."""
    copy_num_frames: int = 0
    num_left_out: int = 0
    """Frames whose truth shows nothing to compare with."""
    num_missed: int = 0
    """Frames whose truth does, and whose result does not."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            total=self.total + other.total,
            num_frames=self.num_frames + other.num_frames,
            copy_total=self.copy_total + other.copy_total,
            copy_num_frames=self.copy_num_frames + other.copy_num_frames,
            num_left_out=self.num_left_out + other.num_left_out,
            num_missed=self.num_missed + other.num_missed,
        )

    @property
    def value(self) -> float | None:
        """Mean over frames; None where no frame has a figure."""
        return self.total / self.num_frames if self.num_frames else None

    @property
    def copy_source(self) -> float | None:
        """The same with the source shown unmoved."""
        return self.copy_total / self.copy_num_frames if self.copy_num_frames else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """One clip's figures."""

    video: str
    split: Split
    identity: str
    num_frames: int
    l1: float
    """Mean over the clip's frames, images in [0, 1]."""
    copy_source_l1: float
    """The same with the first frame shown unmoved."""
    num_looked_at: int = 0
    """Frames that detectors looked at."""
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """Metric -> its sums over those."""

    @property
    def ratio(self) -> float | None:
        """L1 over copy-source; None for a clip that does not move at all."""
        return self.l1 / self.copy_source_l1 if self.copy_source_l1 > 0 else None

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> VideoScore:
        """The inverse of ``dataclasses.asdict``."""
        tallies = {name: Tally(**tally) for name, tally in raw["tallies"].items()}
        return VideoScore(**{**raw, "tallies": tallies})


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A pretrained network that metrics rest on."""

    name: str
    """As metrics carry it: ``dlib68``."""
    what: str
    """What it does, and by which package's version."""
    sha256: Mapping[str, str]
    """Name of each of its files -> checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScore:
    """One metric over all clips of a split."""

    value: float | None
    """None: see ``absent``."""
    copy_source: float | None
    """The same with each clip's source shown unmoved."""
    unit: str
    num_frames: int
    """That have a figure."""
    num_left_out: int
    """In whose truth the detector found nothing."""
    num_missed: int
    """In whose truth it did, and in whose result it did not."""
    backbone: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Name of each file of the backbone -> checksum."""
    absent: str | None = None
    """Why there is no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScore:
    """Figures over all clips of a split."""

    l1: float
    """Mean over all frames of all videos, as published evaluations take it."""
    copy_source_l1: float
    ratio: float | None
    """L1 over copy-source: below 1 the model beats doing nothing; None when nothing moves."""
    l1_mean_of_videos: float
    """Mean over the videos' means, so that long ones weigh no more."""
    copy_source_l1_mean_of_videos: float
    num_videos: int
    num_frames: int
    num_identities: int
    num_videos_better: int
    """Videos on which the model beats copy-source."""
    metrics: Mapping[str, MetricScore] = field(default_factory=dict)
    """Name with its backbone (``akd/dlib68``; without one where it is absent) -> figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rests:
    """What each metric rests on, or why it can't be had."""

    points: Network | str
    """The network, or the reason why there is none."""
    identity: Network | str
    wanted: tuple[str, ...] | None = None
    """Names in the catalogue; None: all."""

    def __iter__(self) -> Any:
        """(metric, network or reason) of every wanted metric but L1."""
        both = self._both()
        under = {"points": self.points, "identity": self.identity, "figures": both}
        for name, metric in METRICS.items():
            if name != "l1" and (self.wanted is None or name in self.wanted):
                yield metric, under[metric.of]

    def _both(self) -> Network | str:
        if isinstance(self.points, str):
            return self.points
        if isinstance(self.identity, str):
            return self.identity
        name = f"{self.points.name}+{self.identity.name}"
        return Network(
            name=name,
            what=f"{self.points.what}; {self.identity.what}",
            sha256={**self.points.sha256, **self.identity.sha256},
        )


NOTHING = Rests(points="no detector was asked for", identity="no detector was asked for", wanted=())


def summarise(scores: Sequence[VideoScore], rests: Rests = NOTHING) -> SplitScore:
    """The figures over some videos (one or more)."""
    frames = np.array([score.num_frames for score in scores], dtype=np.float64)
    model = np.array([score.l1 for score in scores])
    nothing = np.array([score.copy_source_l1 for score in scores])
    l1, copy_l1 = float(np.average(model, weights=frames)), float(np.average(nothing, weights=frames))
    return SplitScore(
        l1=l1,
        copy_source_l1=copy_l1,
        ratio=l1 / copy_l1 if copy_l1 > 0 else None,
        l1_mean_of_videos=float(model.mean()),
        copy_source_l1_mean_of_videos=float(nothing.mean()),
        num_videos=len(scores),
        num_frames=int(frames.sum()),
        num_identities=len({score.identity for score in scores}),
        num_videos_better=int((model < nothing).sum()),
        metrics=metrics_of(scores, rests),
    )


def metrics_of(scores: Sequence[VideoScore], rests: Rests) -> dict[str, MetricScore]:
    """Every wanted metric over some videos; a metric that can't be had says why."""
    made = {"l1": _l1(scores)}
    for metric, network in rests:
        if isinstance(network, str):
            made[metric.name] = _absent(metric, network)
        elif metric.of == "figures":
            made[metric.on(network.name).name] = _eid(scores, metric, network)
        else:
            tally = sum((score.tallies.get(metric.name, Tally()) for score in scores), Tally())
            made[metric.on(network.name).name] = _scored(tally, metric, network, sum(s.num_looked_at for s in scores))
    return made


def _l1(scores: Sequence[VideoScore]) -> MetricScore:
    num_frames = sum(score.num_frames for score in scores)
    return MetricScore(
        value=float(np.average([score.l1 for score in scores], weights=[score.num_frames for score in scores])),
        copy_source=float(
            np.average([score.copy_source_l1 for score in scores], weights=[score.num_frames for score in scores])
        ),
        unit=METRICS["l1"].unit,
        num_frames=num_frames,
        num_left_out=0,
        num_missed=0,
    )


def _scored(tally: Tally, metric: Metric, network: Network, num_looked_at: int) -> MetricScore:
    absent = None
    if tally.num_frames == 0:
        where = "the true frames" if tally.num_left_out == num_looked_at else "any result"
        absent = f"nothing was found in {where} ({num_looked_at} frames looked at)"
    return MetricScore(
        value=tally.value,
        copy_source=tally.copy_source,
        unit=metric.unit,
        num_frames=tally.num_frames,
        num_left_out=tally.num_left_out,
        num_missed=tally.num_missed,
        backbone=network.name,
        sha256=network.sha256,
        absent=absent,
    )


def _absent(metric: Metric, reason: str) -> MetricScore:
    return MetricScore(
        value=None, copy_source=None, unit=metric.unit, num_frames=0, num_left_out=0, num_missed=0, absent=reason
    )


def _eid(scores: Sequence[VideoScore], metric: Metric, network: Network) -> MetricScore:
    """Out of the three means: L1 over all frames, AKD and AED over those that have them."""
    l1 = _l1(scores)
    akd, aed = (sum((s.tallies.get(name, Tally()) for s in scores), Tally()) for name in ("akd", "aed"))
    values = []
    for first, second, third in ((l1.value, akd.value, aed.value), (l1.copy_source, akd.copy_source, aed.copy_source)):
        known = first is not None and second is not None and third is not None
        values.append(float(metric.compute(l1=first, akd_px=second, aed=third)) if known else None)
    return MetricScore(
        value=values[0],
        copy_source=values[1],
        unit=metric.unit,
        num_frames=min(akd.num_frames, aed.num_frames),
        num_left_out=max(akd.num_left_out, aed.num_left_out),
        num_missed=max(akd.num_missed, aed.num_missed),
        backbone=network.name,
        sha256=network.sha256,
        absent=None if values[0] is not None else "AKD or AED has no figure",
    )


def table(scores: Sequence[VideoScore], rests: Rests = NOTHING) -> str:
    """The videos' figures as CSV, worst ratio first; a column and its copy-source for every metric that is there."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = {score.video: metrics_of([score], rests) for score in scores}
    shared = [(metric, network) for metric, network in rests if isinstance(network, Network)]
    names = [metric.on(network.name).name for metric, network in shared]
    heads = [head for name in names for head in (name, f"copy_source {name}")]
    writer.writerow((*CSV_FIELDS, *heads, *(("frames looked at",) if names else ())))
    for score in sorted(scores, key=lambda score: (score.split, -(score.ratio or 0.0), score.video)):
        found = [figures[score.video][name] for name in names]
        more = [_cell(value) for one in found for value in (one.value, one.copy_source)]
        plain = (f"{score.l1:.8f}", f"{score.copy_source_l1:.8f}", _cell(score.ratio))
        tail = (score.num_looked_at,) if names else ()
        writer.writerow((score.video, score.split, score.identity, score.num_frames, *plain, *more, *tail))
    return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
