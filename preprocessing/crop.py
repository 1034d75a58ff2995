"""From one source item to square clips: find the subject, plan the pieces, cut, resize, write.

A video is decoded once: what it shows is searched for as its frames come by, and the frames wait in memory, up to
`KEPT_BYTES`, for the square that holds the whole tube, which is known only at the tube's end. A longer video is decoded
a second time instead: that costs less than spooling frames to disk and back, and memory stays bounded.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
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
from preprocessing.detect import faces
from preprocessing.fetch_limits import FetchStopped
from preprocessing.ledger import LedgerRow
from preprocessing.splits import Span, split_by_time, whose
from preprocessing.track import Fates, Tube, few_at_once, follow, tracker_for
from preprocessing.video import FrameReader, Limits, MediaError, Reason, VideoWriter, open_video

logger = logging.getLogger(__name__)

KEPT_BYTES = 256 << 20
"""Decoded frames of one video that may wait in memory."""
MAX_WRITERS = 16
"""Clips that are written at once; where more subjects are seen at once, the frames are gone through again."""
WHITE = 255
_Pass = Callable[[], Iterator[np.ndarray]]
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a video and the square that is cut out of it."""

    span: Span
    box: Box
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A tube, or a stretch of the whole picture."""

    span: Span
    seen: Box
    """What must be large enough."""
    box: Box
    """The square to cut."""


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
    """Frames that are in no clip, each counted once, by reason: ``no-subject``, ``camera-motion``, ``intensity-jump``,
    ``outside-frame``, ``too-short``, ``too-small``, or ``gap`` between training and test."""
    parts: tuple[LedgerRow, ...] = ()
    """Cut by metadata: a row for each row of the CSV, which stand in the ledger in place of the item's own."""


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
    except (EnvironmentProblem, FetchStopped):  # no verdict on the item
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
    start, limits, fates = time.monotonic(), limits_of(config), Fates()
    with open_video(source, limits=limits) as reader:
        _check_source(reader, row.item, config)
        frames = _KeptFrames(reader)
        pieces = _pieces(_subjects(frames, row.item, config, fates), row, config, fates)
        left = replace(limits, timeout_s=max(limits.timeout_s - (time.monotonic() - start), 0.001))
        written = _write(lambda: frames.again(source, left), pieces, row, config, (target, reader.info.fps))
        decoder, num_frames, fps, times_s = reader.info.decoder, frames.num_frames, reader.info.fps, reader.timestamps()
    clips = tuple(replace(clip, decoder=decoder, start_s=_start_s(clip, times_s)) for clip in written)
    return ItemResult(
        row=replace(row, state="kept", decoder=decoder, num_clips=len(clips)),
        clips=clips,
        num_frames=num_frames,
        seconds=num_frames / fps,
        dropped=fates.counts(num_frames, [(clip.start_frame, clip.start_frame + clip.num_frames) for clip in clips]),
    )


def _start_s(clip: Clip, times_s: np.ndarray | None) -> float:
    known = [] if times_s is None else times_s[clip.start_frame : clip.start_frame + 1].tolist()
    return round(known[0] if known else clip.start_frame / clip.fps, 6)


def _check_source(reader: FrameReader, item: str, config: DatasetConfig) -> None:
    if reader.info.num_frames < 2:
        raise MediaError(must(item, "have 2 frames or more", "a single frame"), "one-frame")
    if min(reader.info.width, reader.info.height) < config.min_source_px:
        rule, got = f"be {config.min_source_px} px or more on each side", f"{reader.info.width}x{reader.info.height}"
        raise MediaError(must(item, rule, got, "Lower min_source_px to keep it"), "too-small")


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


def _subjects(frames: _KeptFrames, item: str, config: DatasetConfig, fates: Fates) -> list[_Subject]:
    """What there is to cut, in order of the first frames."""
    if config.cut_rule == "whole":
        for _ in frames.first():
            pass
        whole = Box(0.0, 0.0, float(frames.size[0]), float(frames.size[1]))
        return _whole(frames, whole, surrounding_square(frames.size), config)
    tracker = tracker_for(config)
    tubes = follow(frames.first(), config, tracker=tracker)
    for stop in tracker.breaks:
        fates.mark((stop.start_frame, stop.end_frame), stop.reason)
    found = [_subject(tube, frames.size, config) for tube in tubes]
    for tube, subject in zip(tubes, found, strict=True):
        if subject is None:
            fates.mark((tube.start_frame, tube.end_frame), "outside-frame")
    if not tubes and config.kind == "bodies" and config.body_detector == "motion":
        middle = central_square(frames.size)
        return _whole(frames, middle, middle, config)
    if not any(found):
        reason: Reason = "outside-frame" if tubes else "no-subject"
        got = "a square that leaves the frame" if tubes else f"none in {frames.num_frames} frames"
        shown = "a person" if config.kind == "bodies" else "a face"
        raise MediaError(must(item, f"show {shown} that can be cut out", got), reason)
    return [subject for subject in found if subject is not None]


def _subject(tube: Tube, frame: tuple[int, int], config: DatasetConfig) -> _Subject | None:
    """A tube's square, or None where it leaves the frame and may not."""
    seen, held = tube.box().within(frame), tube.held(config.detect_every).within(frame)
    if config.outside == "reject" and max(held.width, held.height) > min(frame):
        held = seen  # what may have happened between the looks is no ground to reject a clip
    # the square has the size that what was seen asks for, unless what may have happened between the looks needs more
    wanted = max(seen.width, seen.height) * (1 + 2 * config.increase)
    increase = max(0.0, (wanted / max(held.width, held.height) - 1) / 2)
    box = square(held, increase=increase, frame=frame, outside=config.outside)
    return None if box is None else _Subject(span=(tube.start_frame, tube.end_frame), seen=seen, box=box)


def _whole(frames: _KeptFrames, seen: Box, box: Box, config: DatasetConfig) -> list[_Subject]:
    return [_Subject(span=span, seen=seen, box=box) for span in _chunks(frames.num_frames, config)]


def _chunks(num_frames: int, config: DatasetConfig) -> list[Span]:
    starts = range(0, num_frames, config.max_frames)
    return [(start, min(start + config.max_frames, num_frames)) for start in starts]


def _pieces(found: list[_Subject], row: LedgerRow, config: DatasetConfig, fates: Fates) -> list[Piece]:
    """What is long and large enough, cut by time where the split asks for it."""
    good, last = [], MediaError(must(row.item, "hold a clip", "none"), "no-subject")
    for subject in found:
        length, side = subject.span[1] - subject.span[0], max(subject.seen.width, subject.seen.height)
        if length < config.min_frames:
            rule = f"show its subject for {config.min_frames} frames"
            last = MediaError(must(row.item, rule, f"{length}", "Lower min_frames to keep it"), "too-short")
        elif side < config.min_side_px:
            rule, got = f"show its subject {config.min_side_px} px large", f"{side:.0f} px"
            last = MediaError(must(row.item, rule, got, "Lower min_side_px to keep it"), "too-small")
        else:
            good.append((subject.span, subject.box))
            fates.mark(subject.span, "gap")
            continue
        fates.mark(subject.span, last.reason)
    if not good:
        raise last
    return _divided(good, row, config)


def _divided(tubes: list[tuple[Span, Box]], row: LedgerRow, config: DatasetConfig) -> list[Piece]:
    if config.split != "time" or whose(row, config.identity_pattern) in config.unseen:
        split: Split = (row.split or "train") if config.split == "official" else "train"
        return [Piece(span=span, box=box, split=split) for span, box in tubes]
    parts = split_by_time([span for span, _ in tubes], test_share=config.test_share, gap_frames=config.gap_frames)
    return [Piece(span=part, box=tubes[place][1], split=split) for place, part, split in parts]


def _write(
    again: _Pass, pieces: list[Piece], row: LedgerRow, config: DatasetConfig, out: tuple[Path, float]
) -> list[Clip]:
    target, fps = out
    names = _ids(Path(row.item).stem, pieces)
    paths = [target / f"{name}.mp4" for name in names]
    writers: dict[Path, VideoWriter] = {}
    counts: dict[Path, int] = {}
    try:
        for group in few_at_once([piece.span for piece in pieces], MAX_WRITERS):
            counts |= _fill(again(), [(pieces[place], paths[place]) for place in group], writers, config, fps)
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
                    writers[path] = _writer(path, fps, config)
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


def _writer(path: Path, fps: float, config: DatasetConfig) -> VideoWriter:
    return VideoWriter(
        path,
        fps=fps,
        crf=config.crf,
        keyframe_every=config.keyframe_every,
        preset=config.encoder_preset,
        lossless=config.lossless,
    )


def _clip(
    name: str, piece: Piece, count: int, *, row: LedgerRow, config: DatasetConfig, out: tuple[Path, float]
) -> Clip:
    target, fps = out
    return Clip(
        id=name,
        path=f"{name}.mp4",
        split=piece.split,
        identity=whose(row, config.identity_pattern),
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
