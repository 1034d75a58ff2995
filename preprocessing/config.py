"""What can be set about a data set: where it is, how it is cut, split and sharded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from models.contracts import Kind
from models.errors import check

SplitRule = Literal["identity", "source", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """One data set."""

    kind: Kind
    """What is seen and how it is cut: ``faces``, ``bodies`` by detection, ``cartoons`` whole, a ``film`` to stills."""
    source: str
    """A local folder (its media are taken in order of their names)."""
    makes: Literal["clips", "stills"] = "clips"
    """The folder under data/ that the cut fills: stills for a film, clips for the rest."""
    size_px: int = 256
    """Height and width of the clips."""
    split: SplitRule = "source"
    """``identity`` or ``source``: all of one stays together; ``time``: the last part of each source is the test."""
    test_share: float = 0.25
    """Share of the identities, sources or (split by time) of each source's frames that is tested."""
    gap_frames: int = 12
    """Split by time: frames dropped between the training part and the tested part."""
    unseen: tuple[str, ...] = ()
    """Identities kept out of training altogether, in a split of their own."""
    identity_pattern: str | None = None
    """Regular expression searched in the file's stem; its group 1 is the identity. null: the stem."""
    seed: int = 0
    """Of the split."""
    min_frames: int = 64
    """Shorter clips are rejected."""
    max_frames: int = 1024
    """Longer tubes are cut here."""
    min_side_px: int = 256
    """Smallest side of the union box, in the source's pixels."""
    increase: float = 0.1
    """By how much the union box grows on each side before it is squared, as a share of its size."""
    iou_cut: float = 0.25
    """A tube ends where its box overlaps the first one by less (intersection over union)."""
    detect_every: int = 8
    """Detection on every k-th frame, interpolation between; 1: on every frame."""
    outside: Literal["pad", "reject"] = "pad"
    """A grown box that leaves the frame is shifted inside; if it does not fit, it is padded or the clip is rejected."""
    num_stills: int = 64
    """Film: how many stills to take, evenly over the film."""
    min_difference: float = 6.0
    """Film: a still that differs less from a kept one (mean difference of 32 px thumbnails, 0-255) is dropped."""
    yield_floor: float = 0.5
    """Share of the source items that must be kept; below it the stage fails."""
    crf: int = 12
    """H.264 constant rate factor of the clips: 0 lossless, 18 visually so, 51 worst."""
    keyframe_every: int = 12
    """Frames between keyframes."""
    clips_per_shard: int = 20
    jpeg_quality: int = 95
    max_source_pixels: int = 40_000_000
    """Pixels of one frame; larger media are rejected before they are decoded."""
    max_source_frames: int = 200_000
    timeout_s: float = 600.0
    """Of one source item."""

    def __post_init__(self) -> None:
        check(
            (bool(self.source), "source", self.source, "name a folder"),
            (
                (self.kind == "film") == (self.makes == "stills"),
                "makes",
                self.makes,
                f"be {'stills' if self.kind == 'film' else 'clips'} for kind {self.kind}",
            ),
            (self.size_px >= 16 and self.size_px % 2 == 0, "size_px", self.size_px, "be an even number, 16 or more"),
            (0 < self.test_share < 1, "test_share", self.test_share, "lie in (0, 1)"),
            (self.gap_frames >= 0, "gap_frames", self.gap_frames, "be 0 or more"),
            (_has_group(self.identity_pattern), "identity_pattern", self.identity_pattern, "be a regex with a group"),
            (self.min_frames >= 2 or self.kind == "film", "min_frames", self.min_frames, "be 2 or more"),
            (self.max_frames >= self.min_frames, "max_frames", self.max_frames, "be at least min_frames"),
            (self.min_side_px >= 1, "min_side_px", self.min_side_px, "be 1 or more"),
            (self.increase >= 0, "increase", self.increase, "be 0 or more"),
            (0 <= self.iou_cut < 1, "iou_cut", self.iou_cut, "lie in [0, 1)"),
            (self.detect_every >= 1, "detect_every", self.detect_every, "be 1 or more"),
            (self.num_stills >= 1, "num_stills", self.num_stills, "be 1 or more"),
            (0 <= self.yield_floor <= 1, "yield_floor", self.yield_floor, "lie in [0, 1]"),
            (0 <= self.crf <= 51, "crf", self.crf, "lie in 0 to 51"),
            (self.keyframe_every >= 1, "keyframe_every", self.keyframe_every, "be 1 or more"),
            (self.clips_per_shard >= 1, "clips_per_shard", self.clips_per_shard, "be 1 or more"),
            (1 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "lie in 1 to 100"),
            (self.max_source_pixels >= 1, "max_source_pixels", self.max_source_pixels, "be 1 or more"),
            (self.max_source_frames >= 1, "max_source_frames", self.max_source_frames, "be 1 or more"),
            (self.timeout_s > 0, "timeout_s", self.timeout_s, "be above 0"),
        )


def _has_group(pattern: str | None) -> bool:
    try:
        return pattern is None or re.compile(pattern).groups >= 1
    except re.error:
        return False
