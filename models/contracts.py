"""Letters of all shapes, and the types that cross a package border. Standard library only.

Notation used for tensor shapes, everywhere in this project:
    - B: batch size (frames or pairs)
    - C: channels; 3 is RGB
    - H, W: height and width of a frame in pixels
    - h, w: height and width of a feature map
    - K: number of keypoints
    - N: number of frames of a clip or video
    - S: number of scales of an image pyramid; of a face, number of its style codes

Images are float in [0, 1], channels first (B, 3, H, W), wherever a network sees them; they are uint8 RGB, channels last
(N, H, W, 3), in files and wherever numpy sees them. Points are (x, y) in [-1, 1], x first: -1 and +1 are the centres
of the first and last pixel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Split = Literal["train", "test", "unseen"]
Kind = Literal["faces", "bodies", "cartoons", "images", "film"]

MANIFEST_NAME = "manifest.jsonl"
LEDGER_NAME = "ledger.jsonl"
INDEX_NAME = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A row of a clip manifest: one cropped clip (or one still, with a single frame)."""

    id: str
    """Unique in its data set; also the file's stem."""
    path: str
    """The media file, relative to the manifest's folder."""
    split: Split
    identity: str
    """Who or what is seen; clips of one identity share a split (unless the split is by time)."""
    num_frames: int
    fps: float
    size_px: int
    """Height and width."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in the source's pixels; may lie outside where the crop was padded."""
    start_frame: int
    """First frame in the source, counted from 0."""
    sha256: str
    """Of the media file."""
    origin: str
    """The source's file name or address."""
    origin_sha256: str
    decoder: str
    """Which decoder read the source: ``decord``, ``ffmpeg`` or ``pillow``."""
    start_s: float | None = None
    """When the first frame is shown in the source, in seconds from its start."""
    resize: Literal["square", "stretch"] = "square"
    """``stretch``: the box was no square, and the frames are squeezed into one."""
    smooth: str | None = None
    """An edge-smoothed copy of a still, relative to the manifest's folder."""

    def to_row(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)

    @staticmethod
    def from_row(row: dict[str, Any]) -> Clip:
        """The inverse of `to_row`."""
        return Clip(**{**row, "box": tuple(row["box"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One Parquet file of an index: a row per clip, a row group per row."""

    path: str
    """Relative to the index's folder."""
    num_clips: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardClip:
    """Where one clip lies among the shards."""

    id: str
    split: Split
    identity: str
    num_frames: int
    fps: float
    shard: int
    """Position in `ShardIndex.shards`."""
    row: int
    """Row, and row group, inside the shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """``index.json``: everything that a reader needs to find a clip by number.

    A shard's columns: ``id`` string, ``frames`` list<binary> (JPEG, RGB, ``size_px`` x ``size_px``) and, where
    ``smooth`` says so, ``smooth`` binary (likewise).
    """

    dataset: str
    size_px: int
    split_rule: str
    """``identity``, ``source`` or ``time``; every report names it."""
    shards: tuple[ShardFile, ...]
    clips: tuple[ShardClip, ...]
    schema_version: int = 1
    extra: dict[str, Any] = field(default_factory=dict)
    smooth: bool = False
    """Whether every still has its edge-smoothed copy in the shards."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; without ``smooth`` where there are no copies, as it was before there could be any."""
        raw = asdict(self)
        return raw if self.smooth else {key: value for key, value in raw.items() if key != "smooth"}

    @staticmethod
    def from_json(raw: dict[str, Any]) -> ShardIndex:
        """The inverse of `to_json`."""
        shards = tuple(ShardFile(**row) for row in raw["shards"])
        clips = tuple(ShardClip(**row) for row in raw["clips"])
        return ShardIndex(**{**raw, "shards": shards, "clips": clips})
