"""From one source item to square clips: find the subject, plan the pieces, cut, resize, write.

A video is decoded once: what it shows is searched for as its frames come by, and the frames wait in memory, up to
`KEPT_BYTES`, for the square that holds the whole tube, which is known only at the tube's end. A longer video is decoded
a second time instead: that costs less than spooling frames to disk and back, and memory stays bounded.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.contracts import Clip, Split
from models.errors import EnvironmentProblem, must
from preprocessing.boxes import Box, central_square, square, surrounding_square
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.detect import FaceDetector, MotionDetector, faces, small
from preprocessing.ledger import LedgerRow
from preprocessing.splits import Span, identity_of, split_by_time
from preprocessing.track import Tracker, Tube
from preprocessing.video import FrameReader, Limits, MediaError, Reason, VideoWriter, open_video

logger = logging.getLogger(__name__)

KEPT_BYTES = 256 << 20
"""Decoded frames of one video that may wait in memory."""
WHITE = 255
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a video and the square that is cut out of it."""

    span: Span
    box: Box
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What became of one item."""

    row: LedgerRow
    clips: tuple[Clip, ...] = ()
    num_frames: int = 0
    """Frames that were decoded."""
    seconds: float = 0.0
    """Of video, as played."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames that are in no clip, by reason."""


def limits_of(config: DatasetConfig) -> Limits:
    """The bounds that a data set sets to its media."""
    return Limits(max_pixels=config.max_source_pixels, max_frames=config.max_source_frames, timeout_s=config.timeout_s)


def cut_item(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """Cut one video or GIF into clips; nothing but the files in ``target`` and the result is touched.

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set.
        target: folder for the clips, which exists.

    Returns:
        The clips, and the item's ledger row: kept, or rejected with the reason.

    Raises:
        EnvironmentProblem: the clips can't be written (a full disk); that is not the item's fault.
    """
    with turned_away(row, target) as failed:
        return _cut(row, source, config, target)
    return ItemResult(row=row.rejected(failed[0]))


@contextmanager
def turned_away(row: LedgerRow, target: Path) -> Iterator[list[MediaError]]:
    """Collect the error of an item that can't be used, so that one item never stops the others."""
    failed: list[MediaError] = []
    try:
        yield failed
    except EnvironmentProblem:
        raise
    except MediaError as error:
        failed.append(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            fix = "Free some room (`inkmotion clean` shows what can go), or mend the folder's rights"
            raise EnvironmentProblem(must(str(target), "take what is written", str(error.strerror), fix)) from error
        logger.exception("%s could not be cut", row.item)
        got = f"{type(error).__name__}: {str(error)[:200]}"
        failed.append(MediaError(must(row.item, "pass through the cut", got), "failed"))


def _cut(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    start, limits = time.monotonic(), limits_of(config)
    with open_video(source, limits=limits) as reader:
        if reader.info.num_frames < 2:
            raise MediaError(must(row.item, "have 2 frames or more", "a single frame"), "one-frame")
        frames = _KeptFrames(reader)
        tubes, dropped = _tubes(frames, row.item, config)
        pieces, lost = _pieces(tubes, row.item, config)
        left = replace(limits, timeout_s=max(limits.timeout_s - (time.monotonic() - start), 0.001))
        written = _write(frames.again(source, left), pieces, row, config, (target, reader.info.fps))
        decoder, num_frames, fps = reader.info.decoder, frames.num_frames, reader.info.fps
    for reason, count in lost.items():
        dropped[reason] = dropped.get(reason, 0) + count
    clips = tuple(replace(clip, decoder=decoder) for clip in written)
    kept = replace(row, state="kept", decoder=decoder, num_clips=len(clips))
    return ItemResult(
        row=kept,
        clips=clips,
        num_frames=num_frames,
        seconds=num_frames / fps,
        dropped={reason: count for reason, count in dropped.items() if count},
    )


class _KeptFrames:
    """A video's frames in one pass, which are kept for a second one as long as they fit."""

    def __init__(self, reader: FrameReader) -> None:
        self.size = (reader.info.width, reader.info.height)
        self.num_frames = 0
        self._reader = reader
        self._kept: list[np.ndarray] | None = []

    def first(self) -> Iterator[np.ndarray]:
        """The first pass."""
        waiting = 0
        for batch in self._reader.batches():
            self.num_frames += len(batch)
            waiting += batch.nbytes
            if waiting > KEPT_BYTES:
                self._kept = None
            if self._kept is not None:
                self._kept.append(batch)
            yield batch

    def again(self, source: Path, limits: Limits) -> Iterator[np.ndarray]:
        """The second pass, from memory or from the file."""
        if self._kept is not None:
            yield from self._kept
            return
        with open_video(source, limits=limits) as reader:
            yield from reader.batches()


def _tubes(frames: _KeptFrames, item: str, config: DatasetConfig) -> tuple[list[tuple[Span, Box, Box]], dict[str, int]]:
    """(span, box that must be seen, square to cut) of each subject, and the frames dropped on the way by reason."""
    if config.kind == "cartoons":
        for _ in frames.first():
            pass
        whole = Box(0.0, 0.0, float(frames.size[0]), float(frames.size[1]))
        return [(span, whole, surrounding_square(frames.size)) for span in _chunks(frames.num_frames, config)], {}
    tubes, factor = _tracked(frames, config)
    found, dropped = [], {"no-subject": frames.num_frames - _covered(tubes)}
    for tube in tubes:
        seen = tube.box().scaled(factor).within(frames.size)
        box = square(seen, increase=config.increase, frame=frames.size, outside=config.outside)
        if box is None:
            dropped["outside-frame"] = dropped.get("outside-frame", 0) + tube.num_frames
        else:
            found.append(((tube.start_frame, tube.end_frame), seen, box))
    if not tubes and config.kind == "bodies":
        whole = central_square(frames.size)
        return [(span, whole, whole) for span in _chunks(frames.num_frames, config)], {}
    if not found:
        reason: Reason = "outside-frame" if tubes else "no-subject"
        got = "a square that leaves the frame" if tubes else f"none in {frames.num_frames} frames"
        raise MediaError(must(item, "show a face that can be cut out", got), reason)
    return found, dropped


def _tracked(frames: _KeptFrames, config: DatasetConfig) -> tuple[list[Tube], float]:
    detector = FaceDetector() if config.kind == "faces" else MotionDetector()
    tracker = Tracker(detector, iou_cut=config.iou_cut, max_frames=config.max_frames, detect_every=config.detect_every)
    factor = 1.0
    for batch in frames.first():
        for frame in batch:
            scaled = None
            if tracker.wants_next:
                scaled, factor = small(frame)
            tracker.add(scaled)
    return tracker.finish(), factor


def _chunks(num_frames: int, config: DatasetConfig) -> list[Span]:
    starts = range(0, num_frames, config.max_frames)
    return [(start, min(start + config.max_frames, num_frames)) for start in starts]


def _covered(tubes: Iterable[Tube]) -> int:
    return len({frame for tube in tubes for frame in range(tube.start_frame, tube.end_frame)})


def _pieces(tubes: list[tuple[Span, Box, Box]], item: str, config: DatasetConfig) -> tuple[list[Piece], dict[str, int]]:
    """What is long and large enough, cut by time where the split asks for it; and frames dropped by reason."""
    lost: dict[str, int] = {}
    good, last = [], MediaError(must(item, "hold a clip", "none"), "no-subject")
    for (start, end), seen, box in tubes:
        side = min(seen.width, seen.height)
        if end - start < config.min_frames:
            rule, got = f"show its subject for {config.min_frames} frames", f"{end - start}"
            last = MediaError(must(item, rule, got, "Lower min_frames to keep it"), "too-short")
        elif side < config.min_side_px:
            rule, got = f"show its subject {config.min_side_px} px large", f"{side:.0f} px"
            last = MediaError(must(item, rule, got, "Lower min_side_px to keep it"), "too-small")
        else:
            good.append(((start, end), box))
            continue
        lost[last.reason] = lost.get(last.reason, 0) + end - start
    if not good:
        raise last
    pieces = _divided(good, identity_of(item, config.identity_pattern), config)
    gap = sum(end - start for (start, end), _ in good) - sum(piece.span[1] - piece.span[0] for piece in pieces)
    return pieces, {**lost, "gap": gap} if gap else lost


def _divided(tubes: list[tuple[Span, Box]], identity: str, config: DatasetConfig) -> list[Piece]:
    if config.split != "time" or identity in config.unseen:
        return [Piece(span=span, box=box, split="train") for span, box in tubes]
    spans = [span for span, _ in tubes]
    parts = split_by_time(spans, test_share=config.test_share, gap_frames=config.gap_frames)
    return [Piece(span=part, box=tubes[place][1], split=split) for place, part, split in parts]


def _write(
    batches: Iterator[np.ndarray], pieces: list[Piece], row: LedgerRow, config: DatasetConfig, out: tuple[Path, float]
) -> list[Clip]:
    target, fps = out
    names = _ids(Path(row.item).stem, pieces)
    paths = [target / f"{name}.mp4" for name in names]
    writers: dict[Path, VideoWriter] = {}
    try:
        counts = _fill(batches, list(zip(pieces, paths, strict=True)), writers, config, fps)
    except BaseException:
        for path, writer in writers.items():
            writer.abort()
            path.unlink(missing_ok=True)
        raise
    return [
        _clip(name, piece, counts[path], row=row, config=config, out=out)
        for name, piece, path in zip(names, pieces, paths, strict=True)
    ]


def _fill(
    batches: Iterator[np.ndarray],
    pieces: list[tuple[Piece, Path]],
    writers: dict[Path, VideoWriter],
    config: DatasetConfig,
    fps: float,
) -> dict[Path, int]:
    """Write every piece; an encoder runs only between its piece's first and last frame."""
    pad = WHITE if config.kind == "cartoons" else None
    start, counts = 0, dict[Path, int]()
    for batch in batches:
        end = start + len(batch)
        for piece, path in pieces:
            first, stop = max(piece.span[0], start), min(piece.span[1], end)
            if first < stop:
                if path not in writers:
                    writers[path] = VideoWriter(path, fps=fps, crf=config.crf, keyframe_every=config.keyframe_every)
                part = batch[first - start : stop - start]
                writers[path].write(crop_frames(part, piece.box, size_px=config.size_px, pad=pad))
                counts[path] = writers[path].num_frames
            if path in writers and piece.span[1] <= end:
                writers[path].finish()
        start = end
        if all(piece.span[1] <= end for piece, _ in pieces):
            break
    for writer in writers.values():  # a second pass may end a frame early
        writer.finish()
    return counts


def _clip(
    name: str, piece: Piece, count: int, *, row: LedgerRow, config: DatasetConfig, out: tuple[Path, float]
) -> Clip:
    target, fps = out
    return Clip(
        id=name,
        path=f"{name}.mp4",
        split=piece.split,
        identity=identity_of(row.item, config.identity_pattern),
        num_frames=count,
        fps=fps,
        size_px=config.size_px,
        box=piece.box[:],
        start_frame=piece.span[0],
        sha256=sha256_of(target / f"{name}.mp4"),
        origin=row.origin,
        origin_sha256=row.sha256,
        decoder=row.decoder or "ffmpeg",
    )


def _ids(stem: str, pieces: list[Piece]) -> list[str]:
    """The source's stem and the first frame; where several begin there, a number behind."""
    names: list[str] = []
    for piece in pieces:
        plain = f"{stem}-{piece.span[0]:06d}"
        same = sum(name == plain or name.startswith(f"{plain}-") for name in names)
        names.append(f"{plain}-{same + 1}" if same else plain)
    return names


def crop_frames(frames: np.ndarray, box: Box, *, size_px: int, pad: int | None = None) -> np.ndarray:
    """Cut a square out of frames and resize it: by area downwards, bicubic upwards.

    Args:
        frames: uint8 RGB (n, H, W, 3).
        box: whole-numbered square, which may lie partly outside.
        size_px: height and width of the result.
        pad: gray value, 0-255, outside the frame; None repeats the frame's edge.

    Returns:
        uint8 RGB (n, size_px, size_px, 3).
    """
    height, width = frames.shape[1:3]
    left, top, right, bottom = (round(side) for side in box)
    inner = frames[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    edges = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    kernel = cv2.INTER_AREA if right - left > size_px else cv2.INTER_CUBIC
    out = np.empty((len(frames), size_px, size_px, 3), np.uint8)
    for frame, place in zip(inner, out, strict=True):
        whole = _padded(frame, edges, pad) if any(edges) else frame
        cv2.resize(np.ascontiguousarray(whole), (size_px, size_px), dst=place, interpolation=kernel)
    return out


def _padded(frame: np.ndarray, edges: tuple[int, int, int, int], pad: int | None) -> Any:
    if pad is None:
        return cv2.copyMakeBorder(frame, *edges, cv2.BORDER_REPLICATE)
    return cv2.copyMakeBorder(frame, *edges, cv2.BORDER_CONSTANT, value=(pad, pad, pad))


def square_face_box(picture: np.ndarray, *, increase: float = 0.1) -> Box | None:
    """The square around the largest face of a picture, as clips of faces are cut.

    Args:
        picture: uint8 RGB (H, W, 3).
        increase: growth on each side, as a share of the face's size.

    Returns:
        A whole-numbered square in the picture's pixels, outside where the picture is too small for it; None without a
        face.
    """
    found = faces(picture)
    size = (picture.shape[1], picture.shape[0])
    return square(found[0], increase=increase, frame=size, outside="pad") if found else None
