"""What can be set about a data set (where it is, how it is cut, split and sharded) and about fetching."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from models.contracts import Kind
from models.errors import check

SplitRule = Literal["official", "identity", "source", "time"]
CutRule = Literal["detect", "metadata", "whole", "scenes", "align"]
BodyDetector = Literal["pose", "motion"]
EncoderPreset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"]

CUTS_OF_KIND: dict[Kind, tuple[CutRule, ...]] = {
    "faces": ("detect", "metadata", "whole", "align"),
    "bodies": ("detect", "metadata", "whole"),
    "cartoons": ("whole",),
    "images": ("whole", "align"),
    "film": ("scenes",),
}
"""What `DatasetConfig.cut` may be for a kind; the first is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """One data set."""

    kind: Kind
    """What is seen: ``faces``, ``bodies``, ``cartoons`` (animated), ``images`` (stills) or a ``film``."""
    preset: str | None = None
    """A name of `inkmotion datasets list`: where it comes from, how it is cut and split; null: media of your own."""
    source: str | None = None
    """A local folder, ``file://`` or any address that fsspec knows (``s3://...``); null: the preset's own addresses."""
    mirror: str | None = None
    """Address that stands in for the preset's hosts: ``<mirror>/<name of the file>``."""
    video_url: str | None = None
    """Where a video's id leads, with ``{id}``; null: the preset's."""
    accept_terms: bool = False
    """Whether the preset's terms, which `inkmotion datasets show` prints, are accepted."""
    max_items: int | None = None
    """Take only the first so many items of the source, for a try; null: all."""
    only: str | None = None
    """Take only the files whose name this pattern matches, with ``*``, ``?`` and ``[...]`` as in a shell: ``anime-*``.
    Folders do not count, capitals do. null: all."""
    makes: Literal["clips", "stills"] = "clips"
    """The folder under data/ that the cut fills: stills for images, films and aligned faces, clips for the rest."""
    cut: CutRule | None = None
    """``detect`` the subject, by ``metadata`` CSV, ``whole`` frames, ``scenes``, ``align`` faces; null: by kind."""
    metadata: str | None = None
    """Name of the CSV in the source that says what to cut; null: the preset's, else ``metadata.csv``."""
    resize: Literal["stretch", "square"] = "stretch"
    """Cut by metadata: a box that is no square is stretched to one (as the public scripts do), or grown to one."""
    boxes: str | None = None
    """Align: name of a CSV ``file,left,top,right,bottom`` in the source with boxes given by hand; null: detected."""
    size_px: int = 256
    """Height and width of the clips."""
    split: SplitRule = "source"
    """``official``: as the source's lists say; ``identity`` or ``source``: all of one stays together; ``time``: the
    last part of each source is the test."""
    test_share: float = 0.25
    """Share of the identities, sources or (split by time) of each source's frames that is tested: one at least, but of
    pictures none at 0."""
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
    """Smallest longer side of the union box (or of a whole picture's square), in the source's pixels."""
    min_source_px: int = 0
    """Smallest side of a source video's frame."""
    increase: float = 0.1
    """By how much the union box grows on each side before it is squared, as a share of its size."""
    iou_cut: float = 0.25
    """A tube ends where its box overlaps the first one by less (intersection over union)."""
    detect_every: int = 8
    """Detection on every k-th frame, interpolation between; 1: on every frame."""
    outside: Literal["pad", "reject"] = "pad"
    """A grown box that leaves the frame is shifted inside; if it does not fit, it is padded or the clip is rejected."""
    body_detector: BodyDetector = "pose"
    """Bodies: boxes of persons' keypoints (BlazePose; `inkmotion weights fetch`), or of whatever moves."""
    min_person_share: float = 0.1
    """Bodies: smallest height of a person, as a share of the frame's."""
    max_camera_flow_px: float = 1.0
    """Bodies: a tube ends where the background's median optical flow between two frames that are looked at is more
    (frames scaled to 360 px)."""
    max_intensity_jump: float = 1.5
    """Bodies: a tube ends where the frame's mean gray value changes by this factor at once."""
    num_stills: int = 64
    """Of a film, or of a video whose faces are aligned: how many stills to take, evenly over its length."""
    scene_threshold: float = 27.0
    """Film: a scene begins where hue, saturation and value change by more on average; 0-255."""
    hash_distance: int = 8
    """Film: a still whose 64-bit perceptual hash differs in fewer bits from a kept one's is a near-duplicate."""
    letterbox: Literal["cut", "keep"] = "cut"
    """Film: black bars round the picture."""
    smooth: bool = False
    """Stills: write an edge-smoothed copy of each beside it, for the losses of the AnimeGAN family."""
    yield_floor: float = 0.5
    """Share of the source items that must be kept; below it the stage fails."""
    require_counts: bool = False
    """Fail the cut when a split holds less than yield_floor of the preset's published number."""
    crf: int = 12
    """H.264 constant rate factor of the clips: 0 finest, 18 visually lossless, 51 worst."""
    lossless: bool = False
    """Clips keep every pixel's exact RGB value (H.264 RGB at quantiser 0); several times larger."""
    encoder_preset: EncoderPreset = "ultrafast"
    """Of x264. At crf 12 ultrafast takes 2.2 times the bytes of veryfast, with 1.2 dB more, in a third of the time."""
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
        still = self.kind in ("film", "images") or self.cut_rule == "align"
        allowed = CUTS_OF_KIND[self.kind]
        check(
            (bool(self.source or self.preset), "source", self.source, "name a folder or address, or preset a data set"),
            (self.source != "", "source", self.source, "name a folder or address, or be null"),
            (
                still == (self.makes == "stills"),
                "makes",
                self.makes,
                f"be {'stills' if still else 'clips'} for kind {self.kind}, cut {self.cut_rule}",
            ),
            (
                self.cut is None or self.cut in allowed,
                "cut",
                self.cut,
                f"be one of {', '.join(allowed)} for kind {self.kind}",
            ),
            (self.video_url is None or "{id}" in self.video_url, "video_url", self.video_url, "hold {id}"),
            (self.max_items is None or self.max_items >= 1, "max_items", self.max_items, "be 1 or more, or null"),
            (
                _is_pattern(self.only),
                "only",
                self.only,
                "be a file name's pattern, as anime-*, without slashes, or null",
            ),
            (_is_inside(self.metadata), "metadata", self.metadata, "be a file's path inside the source"),
            (_is_inside(self.boxes), "boxes", self.boxes, "be a file's path inside the source"),
            (self.size_px >= 16 and self.size_px % 2 == 0, "size_px", self.size_px, "be an even number, 16 or more"),
            (
                0 < self.test_share < 1 or self.kind == "images" and self.test_share == 0,
                "test_share",
                self.test_share,
                f"lie in {'[' if self.kind == 'images' else '('}0, 1)",
            ),
            (self.gap_frames >= 0, "gap_frames", self.gap_frames, "be 0 or more"),
            (_has_group(self.identity_pattern), "identity_pattern", self.identity_pattern, "be a regex with a group"),
            (self.min_frames >= 2 or still, "min_frames", self.min_frames, "be 2 or more"),
            (self.max_frames >= self.min_frames, "max_frames", self.max_frames, "be at least min_frames"),
            (self.min_side_px >= 1, "min_side_px", self.min_side_px, "be 1 or more"),
            (self.min_source_px >= 0, "min_source_px", self.min_source_px, "be 0 or more"),
            (self.increase >= 0, "increase", self.increase, "be 0 or more"),
            (0 <= self.iou_cut < 1, "iou_cut", self.iou_cut, "lie in [0, 1)"),
            (self.detect_every >= 1, "detect_every", self.detect_every, "be 1 or more"),
            (0 < self.min_person_share <= 1, "min_person_share", self.min_person_share, "lie in (0, 1]"),
            (self.max_camera_flow_px > 0, "max_camera_flow_px", self.max_camera_flow_px, "be above 0"),
            (self.max_intensity_jump > 1, "max_intensity_jump", self.max_intensity_jump, "be above 1"),
            (self.num_stills >= 1, "num_stills", self.num_stills, "be 1 or more"),
            (0 < self.scene_threshold < 255, "scene_threshold", self.scene_threshold, "lie in (0, 255)"),
            (0 <= self.hash_distance <= 64, "hash_distance", self.hash_distance, "lie in 0 to 64"),
            (0 <= self.yield_floor <= 1, "yield_floor", self.yield_floor, "lie in [0, 1]"),
            (0 <= self.crf <= 51, "crf", self.crf, "lie in 0 to 51"),
            (self.keyframe_every >= 1, "keyframe_every", self.keyframe_every, "be 1 or more"),
            (self.clips_per_shard >= 1, "clips_per_shard", self.clips_per_shard, "be 1 or more"),
            (1 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "lie in 1 to 100"),
            (self.max_source_pixels >= 1, "max_source_pixels", self.max_source_pixels, "be 1 or more"),
            (self.max_source_frames >= 1, "max_source_frames", self.max_source_frames, "be 1 or more"),
            (self.timeout_s > 0, "timeout_s", self.timeout_s, "be above 0"),
        )

    @property
    def cut_rule(self) -> CutRule:
        """How it is cut: `cut`, or the kind's default."""
        return self.cut or CUTS_OF_KIND[self.kind][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """How media are fetched, for all data sets."""

    connections: int = 8
    """Transfers at once."""
    connections_per_host: int = 4
    bandwidth_mb_per_s: float | None = None
    """Of all transfers together, in 10^6 bytes a second; null: no limit."""
    num_retries: int = 6
    """Of one file, after a failure that may pass; each goes on where the last one stopped."""
    backoff_s: float = 1.0
    """Wait before the first retry; doubled each time, with jitter. A server's Retry-After counts for more."""
    max_backoff_s: float = 120.0
    timeout_s: float = 30.0
    """Silence of a server after which a connection counts as lost."""
    max_file_gb: float = 200.0
    """Of one file, in 10^9 bytes."""
    max_height_px: int | None = 1080
    """Of videos that are offered in several sizes; null: the largest."""
    cookies: str | None = None
    """A Netscape cookie file for videos by id."""
    proxy: str | None = None
    """``http://``, ``https://`` or ``socks5://``; null: the environment's."""
    pause_s: float = 0.0
    """Between two videos of one host, for hosts that count requests."""

    def __post_init__(self) -> None:
        positive = (self.backoff_s, self.max_backoff_s, self.timeout_s)
        check(
            (self.connections >= 1, "connections", self.connections, "be 1 or more"),
            (self.connections_per_host >= 1, "connections_per_host", self.connections_per_host, "be 1 or more"),
            (
                self.bandwidth_mb_per_s is None or self.bandwidth_mb_per_s > 0,
                "bandwidth_mb_per_s",
                self.bandwidth_mb_per_s,
                "be above 0, or null",
            ),
            (self.num_retries >= 0, "num_retries", self.num_retries, "be 0 or more"),
            (min(positive) > 0, "backoff_s, max_backoff_s, timeout_s", positive, "be above 0"),
            (self.max_file_gb > 0, "max_file_gb", self.max_file_gb, "be above 0"),
            (
                self.max_height_px is None or self.max_height_px >= 16,
                "max_height_px",
                self.max_height_px,
                "be 16 or more",
            ),
            (self.pause_s >= 0, "pause_s", self.pause_s, "be 0 or more"),
        )


def _is_inside(path: str | None) -> bool:
    return path is None or bool(path) and not path.startswith("/") and ".." not in path.split("/")


def _is_pattern(pattern: str | None) -> bool:
    return pattern is None or 0 < len(pattern) <= 255 and pattern.isprintable() and not set(pattern) & set("/\\")


def _has_group(pattern: str | None) -> bool:
    try:
        return pattern is None or re.compile(pattern).groups >= 1
    except re.error:
        return False
