"""What a table holds: figures over seeds, what of them is noise, the published figures beside."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from models.families import Family
from pipelines.table_config import BOUNDED, DRAWN, HIGHER, BlockConfig, TableConfig
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t, two-sided 5 %, for 1 to 30 degrees of freedom."""
Z_975 = 1.959964
"""The same of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric of one row, over its seeds."""

    values: tuple[float, ...] = ()
    """One a seed; empty where there is no figure."""
    copy_source: float | None = None
    """The same metric of doing nothing: the source shown unmoved, the photos untouched. The same for all seeds."""
    spread: float | None = None
    """Of the first seed's figure over subsets of its pictures, as the metric has it; no deviation over seeds."""
    backbone: str | None = None
    """Network that the metric rests on."""
    sha256: tuple[tuple[str, str], ...] = ()
    """Its files and their checksums."""
    num_frames: int = 0
    """That a detector looked at and gave a figure for, over all seeds; 0: it does not apply."""
    num_missed: int = 0
    """In whose result it found nothing, so that they are in no mean."""
    absent: str = ""
    """Why there is no figure."""

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None of one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row's training took. Step, memory and seconds are over its seeds, all else is the first seed's."""

    num_parameters: Mapping[str, int]
    """By network."""
    step: Measure
    memory: Measure
    """MB of 2^20 bytes, of the training process (on a GPU: of its device)."""
    steps: int
    images_seen: int
    """Pairs of frames, or photos."""
    max_seconds: float | None = None
    """That the training was given; None: it went by its steps."""
    seconds: float
    """Of both stages; mean over the seeds."""
    avd_steps: int
    """0: no second stage."""
    device: str

    @property
    def animating(self) -> int:
        """Parameters of all networks but the discriminator and AVD's."""
        return sum(number for name, number in self.num_parameters.items() if name not in ("discriminator", "avd"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a block."""

    label: str
    """As printed in the paper."""
    experiments: tuple[str, ...]
    """One a seed, or a method that trains nothing; empty: published only."""
    measures: Mapping[str, Measure]
    """By column."""
    published: Mapping[str, float]
    cost: Cost | None
    """None: nothing was trained."""

    @property
    def is_lost(self) -> bool:
        """Whether drawings lost the content of their photos; False where no column shows it."""
        mean = self.measures["content"].mean if "content" in self.measures else None
        return mean is not None and mean > CONTENT_CEILING

    @property
    def is_blurred(self) -> bool:
        """Likewise whether they lack their photos' detail."""
        mean = self.measures["detail"].mean if "detail" in self.measures else None
        return mean is not None and mean < DETAIL_FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows that are compared with each other."""

    config: BlockConfig
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    baseline: Line
    split_rule: str
    size_px: int
    num_videos: int | None
    """Of the test split; of photos in the style family."""
    perceptual_backbone: str
    family: Family = "motion"
    style_dataset: str | None = None
    """Whose pictures drawings are compared with."""
    judged_px: int | None = None
    """Size of the photos, which may be another than the networks'."""
    squares: int = 1
    """Along each side of a photo, each drawn by itself and counted as one."""

    @property
    def measured(self) -> tuple[Line, ...]:
        """The lines that have reports."""
        return tuple(line for line in self.lines if line.experiments)

    @property
    def has_published(self) -> bool:
        """Whether any figure is printed."""
        return any(line.published for line in self.lines)

    def copy_source(self, metric: str) -> float | None:
        """Of doing nothing."""
        found = (line.measures[metric].copy_source for line in self.measured)
        return next((value for value in found if value is not None), None)

    def best(self, metric: str) -> Line | None:
        """The line with the best mean, which is the lowest but for `HIGHER`.

        None where there is nothing to compare. Drawings that lost their content, or are blurred, are best in nothing.
        """
        lines = [line for line in self.measured if line.measures[metric].values]
        if metric in BOUNDED or len(lines) < 2:
            return None
        if metric in DRAWN:
            lines = [line for line in lines if not (line.is_lost or line.is_blurred)]
        choose = max if metric in HIGHER else min
        return choose(lines, key=lambda line: line.measures[metric].mean or 0.0) if lines else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a paper."""

    name: str
    config: TableConfig
    blocks: tuple[Block, ...]


def is_noise(first: Measure, second: Measure) -> bool | None:
    """Whether two rows can't be told apart by their seeds.

    Student's t test of two samples with pooled variance: |difference of the means| at most t(5 %, two-sided) standard
    errors of the difference. Pairs are judged one by one, without correction for their number.

    Returns:
        None where one of them has a single seed and so no deviation.
    """
    one, two = first.values, second.values
    if len(one) < 2 or len(two) < 2:
        return None
    freedom = len(one) + len(two) - 2
    squares = sum((value - statistics.fmean(group)) ** 2 for group in (one, two) for value in group)
    error = math.sqrt(squares / freedom * (1 / len(one) + 1 / len(two)))
    return abs(statistics.fmean(one) - statistics.fmean(two)) <= t_975(freedom) * error


def t_975(freedom: int) -> float:
    """Student's t, two-sided 5 %, to three decimals: tabled, then by its expansion in 1 / ``freedom``.

    The expansion is Cornish and Fisher's (Abramowitz and Stegun, 26.7.5), of two terms.
    """
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = Z_975
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
