"""Shards: the decoded frames of a data set, JPEG-coded into Parquet files, in parallel by Ray Data if there are many.

A shard has a row per clip and a row group per row, uncompressed, so that a reader maps the file and takes one clip
without touching the others. The same clips and settings give the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.contracts import INDEX_NAME, Clip, ShardClip, ShardFile, ShardIndex
from models.errors import ClipError, EnvironmentProblem, InkmotionError, must

logger = logging.getLogger(__name__)

SCHEMA = pa.schema([("id", pa.string()), ("frames", pa.list_(pa.binary()))])
SMOOTH_SCHEMA = SCHEMA.append(pa.field("smooth", pa.binary()))
"""Of stills with edge-smoothed copies."""
HASH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """How clips become shards."""

    dataset: str
    split_rule: str
    size_px: int
    clips_per_shard: int = 20
    jpeg_quality: int = 95
    smooth: bool = False
    """Whether the stills' edge-smoothed copies come along: all of them have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedClip:
    """A clip that is in the manifest but not in the shards."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShard:
    """What one task has made; ``file`` is None when none of its clips could be used."""

    file: ShardFile | None
    clips: tuple[tuple[str, int], ...]
    """Id and number of frames, in the order of the rows."""
    rejected: tuple[RejectedClip, ...]


def encode_frames(frames: np.ndarray, *, quality: int) -> list[bytes]:
    """Code frames as JPEG.

    Args:
        frames: uint8 RGB, (N, H, W, 3).
        quality: 1 to 100.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)[1].tobytes() for frame in frames]


def write_shard(
    rows: Iterable[tuple[str, Sequence[bytes]]], path: Path, *, smooth: Mapping[str, bytes] | None = None
) -> ShardFile:
    """Write one shard, beside itself and renamed into place.

    Args:
        rows: id and JPEG frames of each clip; consumed one at a time, so only one clip is in memory.
        path: of the Parquet file.
        smooth: by id, the JPEG of the edge-smoothed copy; it is looked up when its row has come. None: no such column.

    Returns:
        The index's entry, its path relative to the file's folder.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    making, num_clips = Path(name), 0
    try:
        schema = SCHEMA if smooth is None else SMOOTH_SCHEMA
        with pq.ParquetWriter(making, schema, compression="none", use_dictionary=False, write_statistics=False) as out:
            for clip_id, frames in rows:
                columns = {"id": [clip_id], "frames": [list(frames)]}
                if smooth is not None:
                    columns["smooth"] = [smooth[clip_id]]
                out.write_table(pa.table(columns, schema=schema), row_group_size=1)
                num_clips += 1
        with making.open("rb+") as file:
            os.fsync(file.fileno())
        making.chmod(0o644)
        os.replace(making, path)
    finally:
        making.unlink(missing_ok=True)
    return ShardFile(path=path.name, num_clips=num_clips, num_bytes=path.stat().st_size, sha256=file_sha256(path))


def write_index(folder: Path, index: ShardIndex) -> None:
    """Write ``index.json`` into ``folder``, which nobody reads yet."""
    text = json.dumps(index.to_json(), indent=1, sort_keys=True) + "\n"
    (folder / INDEX_NAME).write_text(text, encoding="utf-8")


def read_index(folder: Path) -> tuple[ShardIndex, str]:
    """The index that `write_index` wrote, and its checksum."""
    path = folder / INDEX_NAME
    return ShardIndex.from_json(json.loads(path.read_text(encoding="utf-8"))), file_sha256(path)


def file_sha256(path: Path) -> str:
    """Checksum of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_shards(
    clips: Sequence[Clip], media: Path, target: Path, options: ShardOptions, *, on_ray: bool = True
) -> list[RejectedClip]:
    """Shard a manifest's clips and write the index. The bytes are the same on Ray and off it.

    Args:
        clips: the manifest's rows; their order is the shards' order.
        media: the manifest's folder.
        target: an existing folder that every Ray node reaches.
        options: sizes and names.
        on_ray: by Ray Data, a task to a shard; Ray must be running. False: shard by shard in this process.

    Returns:
        The clips that could not be used, with their reasons.

    Raises:
        ClipError: no clip could be used.
        EnvironmentProblem: a node does not see the folders.
    """
    size = options.clips_per_shard
    groups = [
        {"shard": start // size, "clips": json.dumps([clip.to_row() for clip in clips[start : start + size]])}
        for start in range(0, len(clips), size)
    ]
    task = functools.partial(_shard_task, media=str(media), target=str(target), options=options)
    rows = _mapped(groups, task) if groups and on_ray else _one_by_one(groups, task)
    blind = sorted({row["blind"] for row in rows if row["blind"]})
    if blind:
        fix = "Keep the data on a file system that all nodes share, or run this stage without cluster.address"
        raise EnvironmentProblem(must(str(target), "be seen by every Ray node", f"not by {', '.join(blind)}", fix))
    written = [_from_json(row["written"]) for row in sorted(rows, key=lambda row: int(row["shard"]))]
    rejected = [clip for shard in written for clip in shard.rejected]
    if not any(shard.file for shard in written):
        why = f"none of {len(clips)} (first: {rejected[0].reason})" if rejected else "an empty manifest"
        raise ClipError(must(str(media), "hold a clip that can be decoded", why, "Cut the clips again"))
    write_index(target, make_index(clips, written, options))
    return rejected


def _mapped(rows: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Ray Data's map, a task per row, without its progress bars."""
    import ray

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")  # its context warns of itself
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        made: list[dict[str, Any]] = ray.data.from_items(rows, override_num_blocks=len(rows)).map(task).take_all()
        return made


def _one_by_one(rows: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """The same in this process, whose OpenCV is left with the threads that it had."""
    before = cv2.getNumThreads()
    try:
        return [task(row) for row in rows]
    finally:
        cv2.setNumThreads(before)


def make_index(clips: Iterable[Clip], written: Iterable[WrittenShard], options: ShardOptions) -> ShardIndex:
    """Where each clip lies among the shards that have been written."""
    known = {clip.id: clip for clip in clips}
    files: list[ShardFile] = []
    places: list[ShardClip] = []
    for shard in written:
        if shard.file is None:
            continue
        for row, (clip_id, num_frames) in enumerate(shard.clips):
            clip = known[clip_id]
            places.append(
                ShardClip(
                    id=clip_id,
                    split=clip.split,
                    identity=clip.identity,
                    num_frames=num_frames,
                    fps=clip.fps,
                    shard=len(files),
                    row=row,
                )
            )
        files.append(shard.file)
    return ShardIndex(
        dataset=options.dataset,
        size_px=options.size_px,
        split_rule=options.split_rule,
        shards=tuple(files),
        clips=tuple(places),
        extra={"jpeg_quality": options.jpeg_quality},
        smooth=options.smooth,
    )


def shard_clips(number: int, clips: Sequence[Clip], media: Path, target: Path, options: ShardOptions) -> WrittenShard:
    """Decode, code and write the clips of shard ``number``; a bad clip is left out with its reason."""
    rejected: list[RejectedClip] = []
    made: list[tuple[str, int]] = []
    smooth: dict[str, bytes] = {}

    def rows() -> Iterator[tuple[str, list[bytes]]]:
        for clip in clips:
            try:
                frames = _decode(clip, media, options.size_px)
                if options.smooth:
                    copy = _decode_smooth(clip, media, options.size_px)
                    smooth[clip.id] = encode_frames(copy[None], quality=options.jpeg_quality)[0]
            except InkmotionError as error:
                rejected.append(RejectedClip(id=clip.id, reason=str(error)))
                continue
            made.append((clip.id, len(frames)))
            yield clip.id, encode_frames(frames, quality=options.jpeg_quality)
            smooth.pop(clip.id, None)  # it is written

    path = target / f"shard-{number:05d}.parquet"
    file: ShardFile | None = write_shard(rows(), path, smooth=smooth if options.smooth else None)
    if not made:
        path.unlink()
        file = None
    return WrittenShard(file=file, clips=tuple(made), rejected=tuple(rejected))


def _decode(clip: Clip, media: Path, size_px: int) -> np.ndarray:
    from preprocessing.video import read_clip, read_picture

    path = _found(clip, clip.path, media)
    found = file_sha256(path)
    if found != clip.sha256:
        rule = f"have sha256 {clip.sha256[:12]} as in the manifest"
        raise ClipError(must(str(path), rule, found[:12], "Cut the clips again"))
    frames = read_picture(path)[None] if clip.num_frames == 1 else read_clip(path)[0]
    if frames.shape != (clip.num_frames, size_px, size_px, 3):
        rule = f"have {clip.num_frames} frames of {size_px} x {size_px}"
        got = f"{frames.shape[0]} of {frames.shape[2]} x {frames.shape[1]}"
        raise ClipError(must(str(path), rule, got, "Cut the clips again"))
    return frames


def _decode_smooth(clip: Clip, media: Path, size_px: int) -> np.ndarray:
    """The edge-smoothed copy of a still, uint8 RGB (size_px, size_px, 3)."""
    from preprocessing.video import read_picture

    if clip.smooth is None:
        raise ClipError(must(f"clip {clip.id}", "have an edge-smoothed copy", "none", "Cut the clips again"))
    path = _found(clip, clip.smooth, media)
    copy = read_picture(path)
    if copy.shape != (size_px, size_px, 3):
        got = f"{copy.shape[1]} x {copy.shape[0]}"
        raise ClipError(must(str(path), f"be {size_px} x {size_px}", got, "Cut the clips again"))
    return copy


def _found(clip: Clip, name: str, media: Path) -> Path:
    """A file of a manifest, which is there and in the manifest's folder."""
    path = media / name
    if not path.resolve().is_relative_to(media.resolve()):
        raise ClipError(must(f"clip {clip.id}", "lie below the manifest's folder", name))
    if not path.is_file():
        raise ClipError(must(str(path), "be a file", "nothing there", "Cut the clips again"))
    return path


def _shard_task(row: dict[str, Any], *, media: str, target: str, options: ShardOptions) -> dict[str, Any]:
    """What one Ray Data task does; rows in and out are plain JSON, because Arrow has no types for ours."""
    if not (Path(media).is_dir() and Path(target).is_dir()):
        return {"shard": int(row["shard"]), "written": "", "blind": socket.gethostname()}
    cv2.setNumThreads(0)
    clips = [Clip.from_row(entry) for entry in json.loads(row["clips"])]
    shard = shard_clips(int(row["shard"]), clips, Path(media), Path(target), options)
    return {"shard": int(row["shard"]), "written": _to_json(shard), "blind": ""}


def _to_json(shard: WrittenShard) -> str:
    return json.dumps(asdict(shard))


def _from_json(text: str) -> WrittenShard:
    raw = json.loads(text)
    return WrittenShard(
        file=ShardFile(**raw["file"]) if raw["file"] else None,
        clips=tuple((clip_id, num_frames) for clip_id, num_frames in raw["clips"]),
        rejected=tuple(RejectedClip(**entry) for entry in raw["rejected"]),
    )
