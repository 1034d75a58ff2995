"""The shard stage: clips in, Parquet shards and their index out."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from models.contracts import MANIFEST_NAME, Clip
from models.errors import ClipError, must
from pipelines.params import Params
from pipelines.session import ray_session
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from preprocessing.clips import read_manifest
from preprocessing.config import DatasetConfig
from preprocessing.shards import RejectedClip, ShardOptions, read_index, write_shards

logger = logging.getLogger(__name__)

_RAY_PAYS_S = 6.0
"""Estimated work of one process from which on Ray pays: joining it and starting its tasks takes some 4 s."""
_CLIP_S, _FRAME_S = 0.02, 0.008
"""Rough cost of opening a clip, and of decoding and coding a frame of 256 px, on one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What the stage made; reports/shard/<name>.json."""

    dataset: str
    clips: int
    frames: int
    clips_of_split: dict[str, int]
    frames_of_split: dict[str, int]
    identities: int
    split_rule: str
    size_px: int
    jpeg_quality: int
    shards: int
    smooth: bool
    """Whether the stills' edge-smoothed copies are in the shards."""
    bytes: int
    index_sha256: str
    rejected: list[RejectedClip]
    """Clips of the manifest that could not be used, with their reasons."""
    seconds: float
    frames_per_s: float


def run(name: str, params: Params, paths: Paths) -> ShardReport:
    """Shard the clips (or stills) of a data set.

    Args:
        name: of the data set.
        params: its clips per shard, JPEG quality and size; where Ray is.
        paths: where clips are and shards go.

    Raises:
        ClipError: no manifest, an empty one, or not one clip that can be decoded.
        EnvironmentProblem: no Ray where the work is worth one, or another process writes the same shards.
    """
    config, target = params.dataset(name), paths.shards(name)
    media = paths.cut(name, config.makes).absolute()
    clips = _clips(name, paths, config)
    options = ShardOptions(
        dataset=name,
        split_rule=config.split,
        size_px=config.size_px,
        clips_per_shard=config.clips_per_shard,
        jpeg_quality=config.jpeg_quality,
        smooth=all(clip.smooth is not None for clip in clips),
    )
    on_ray = estimate_s(clips, config.size_px) >= _RAY_PAYS_S
    with only_writer(target), ray_session(params.cluster) if on_ray else nullcontext(), fresh_folder(target) as making:
        started_s = time.perf_counter()
        rejected = write_shards(clips, media, making.absolute(), options, on_ray=on_ray)
        seconds = time.perf_counter() - started_s
    for clip in rejected:
        logger.warning("clip %s left out: %s", clip.id, clip.reason)
    report = _report(name, paths, options, rejected, seconds)
    write_report(paths.report("shard", name), report)
    return report


def estimate_s(clips: Sequence[Clip], size_px: int) -> float:
    """About how long one core takes, in seconds."""
    num_frames = sum(clip.num_frames for clip in clips)
    return len(clips) * _CLIP_S + num_frames * _FRAME_S * (size_px / 256) ** 2


def _clips(name: str, paths: Paths, config: DatasetConfig) -> list[Clip]:
    media = paths.cut(name, config.makes)
    clips = read_manifest(media)
    if not clips:
        fix = f"See reports/cut/{name}.json for what was rejected, and why"
        raise ClipError(must(str(media / MANIFEST_NAME), "name a clip", "an empty manifest", fix))
    return clips


def _report(
    name: str, paths: Paths, options: ShardOptions, rejected: list[RejectedClip], seconds: float
) -> ShardReport:
    folder = paths.shards(name)
    index, checksum = read_index(folder)
    frames: Counter[str] = Counter()
    for clip in index.clips:
        frames[clip.split] += clip.num_frames
    total = sum(frames.values())
    return ShardReport(
        dataset=name,
        clips=len(index.clips),
        frames=total,
        clips_of_split=dict(Counter(clip.split for clip in index.clips)),
        frames_of_split=dict(frames),
        identities=len({clip.identity for clip in index.clips}),
        split_rule=options.split_rule,
        size_px=options.size_px,
        jpeg_quality=options.jpeg_quality,
        shards=len(index.shards),
        smooth=index.smooth,
        bytes=sum(shard.num_bytes for shard in index.shards),
        index_sha256=checksum,
        rejected=rejected,
        seconds=round(seconds, 3),
        frames_per_s=round(total / seconds, 1),
    )
