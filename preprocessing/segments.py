"""Cut the segments of one video, as the rows of a metadata CSV say.

Frame ``i`` is in a segment when ``i * reference fps`` lies in [start * fps, end * fps), and the box is scaled to the
video at hand: the rules of the public scripts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from models.contracts import Clip
from models.errors import must
from preprocessing.boxes import Box, square
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, limits_of, turned_away
from preprocessing.ledger import LedgerRow
from preprocessing.metadata import Segment
from preprocessing.pieces import Made, Piece, Video, examined, write_pieces
from preprocessing.splits import Span, whose
from preprocessing.track import Fates
from preprocessing.video import Limits, MediaError

_NARROWEST_PX = 4
"""A box narrower than this shows nothing."""


def cut_segments(
    row: LedgerRow, source: Path, config: DatasetConfig, target: Path, segments: Sequence[Segment]
) -> ItemResult:
    """Cut all segments of one video; nothing but the files in ``target`` and the result is touched.

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set.
        target: folder for the clips, which exists.
        segments: the rows of the CSV that name this video.

    Returns:
        The clips ``<item's stem>-<start>-<end>``, a ledger row for each segment, and one for the video.

    Raises:
        EnvironmentProblem: the clips can't be written (a full disk); that is not the item's fault.
    """
    names = _names(Path(row.item).stem, segments)
    with turned_away(row, target) as failed:
        return _cut(row, source, config, [target / f"{name}.mp4" for name in names], segments)
    parts = tuple(_part(row, segment, name).rejected(failed[0]) for segment, name in zip(segments, names, strict=True))
    return ItemResult(row=row.rejected(failed[0]), parts=parts)


def span_of(segment: Segment, fps: float) -> Span:
    """The frames of a segment in a video of another frame rate.

    Rates count as the public scripts see them, to two decimals: 23.98 is 23.976.
    """
    ratio = _rate(fps) / _rate(segment.fps)
    return math.ceil(segment.start * ratio), math.ceil(segment.end * ratio)


def _rate(fps: float) -> Fraction:
    return Fraction(round(fps * 100), 100) if fps >= 1 else Fraction(fps)


def scaled_box(segment: Segment, frame: tuple[int, int]) -> Box:
    """A segment's box in a frame of another (width, height)."""
    across, down = Fraction(frame[0], segment.width), Fraction(frame[1], segment.height)
    left, top, right, bottom = (int(side) for side in segment.box)
    return Box(float(left * across), float(top * down), float(right * across), float(bottom * down))


def cut_box(scaled: Box, frame: tuple[int, int], config: DatasetConfig) -> Box | None:
    """The part of a frame that is cut out, with whole-numbered sides; None when a square would leave it and may not."""
    if config.resize == "square":
        return square(scaled, increase=0.0, frame=frame, outside=config.outside)
    return Box(*(float(math.floor(side)) for side in scaled.within(frame)))


def _names(stem: str, segments: Sequence[Segment]) -> list[str]:
    """The source's stem and the segment as the CSV has it; where several are alike, a number behind."""
    names, seen = list[str](), Counter[str]()
    for segment in segments:
        plain = f"{stem}-{segment.start:06d}-{segment.end:06d}"
        seen[plain] += 1
        names.append(plain if seen[plain] == 1 else f"{plain}-{seen[plain]}")
    return names


def _cut(
    row: LedgerRow, source: Path, config: DatasetConfig, paths: Sequence[Path], segments: Sequence[Segment]
) -> ItemResult:
    start, limits = time.monotonic(), limits_of(config)

    def left() -> Limits:
        return replace(limits, timeout_s=max(limits.timeout_s - (time.monotonic() - start), 0.001))

    if not segments:
        raise MediaError(must(row.item, "be named by a row of the metadata", "none"), "no-subject")
    video = examined(source, left())
    _check_video(row.item, video, config)
    planned = [_planned(segment, path, video, config) for segment, path in zip(segments, paths, strict=True)]
    pieces = [plan for plan in planned if isinstance(plan, Piece)]
    made = write_pieces(source, video, pieces, config, left) if pieces else Made()
    return _result(row, video, list(zip(segments, paths, planned, strict=True)), made, config)


def _check_video(item: str, video: Video, config: DatasetConfig) -> None:
    if video.num_frames < 2:
        raise MediaError(must(item, "have 2 frames or more", "a single frame"), "one-frame")
    if min(video.size) < config.min_source_px:
        rule, got = f"be {config.min_source_px} px or more on each side", f"{video.size[0]}x{video.size[1]}"
        raise MediaError(must(item, rule, got, "Lower min_source_px to keep it"), "too-small")


def _planned(segment: Segment, path: Path, video: Video, config: DatasetConfig) -> Piece | MediaError:
    """A segment as it lies in the video at hand, or why it may not be cut."""
    span, scaled = span_of(segment, video.fps), scaled_box(segment, video.size)
    if span[1] > config.max_source_frames:
        rule, got = f"end within {config.max_source_frames:,} frames", f"{span[1]:,}"
        return MediaError(must(path.stem, rule, got, "Raise max_source_frames to keep it"), "too-long")
    if span[1] - span[0] < config.min_frames:
        return _too_short(path.stem, span[1] - span[0], config)
    seen = scaled.within(video.size)
    if max(seen.width, seen.height) < config.min_side_px or min(seen.width, seen.height) < _NARROWEST_PX:
        rule, got = f"show its subject {config.min_side_px} px large", f"{scaled.width:.1f}x{scaled.height:.1f}"
        return MediaError(must(path.stem, rule, got, "Lower min_side_px to keep it"), "too-small")
    box = cut_box(scaled, video.size, config)
    if box is None:
        got, fix = "a box that can't be made square there", "Set outside: pad, or resize: stretch"
        return MediaError(must(path.stem, "stay inside the frame", got, fix), "outside-frame")
    return Piece(path=path, span=span, box=box)


def _too_short(name: str, num_frames: int, config: DatasetConfig) -> MediaError:
    rule = f"have {config.min_frames} frames or more"
    return MediaError(must(name, rule, f"{num_frames}", "Lower min_frames to keep it"), "too-short")


def _result(
    row: LedgerRow,
    video: Video,
    planned: Sequence[tuple[Segment, Path, Piece | MediaError]],
    made: Made,
    config: DatasetConfig,
) -> ItemResult:
    """Clips and ledger rows; a piece is kept when its file is there."""
    clips, parts, errors, fates = list[Clip](), list[LedgerRow](), list[MediaError](), Fates()
    for segment, path, plan in planned:
        part = replace(_part(row, segment, path.stem), decoder=made.decoder)
        if isinstance(plan, Piece) and path.exists():
            clips.append(_clip(segment, plan, video, (row, config, made)))
            parts.append(replace(part, state="kept", num_clips=1))
            continue
        if isinstance(plan, Piece):
            plan = made.error or _too_short(path.stem, made.counts.get(path.stem, 0), config)
        errors.append(plan)
        parts.append(part.rejected(plan))
        fates.mark(span_of(segment, video.fps), plan.reason)
    spans = [(clip.start_frame, clip.start_frame + clip.num_frames) for clip in clips]
    kept = replace(row, state="kept", decoder=made.decoder, num_clips=len(clips))
    return ItemResult(
        row=kept if clips else row.rejected(errors[0]),
        clips=tuple(clips),
        num_frames=made.num_frames,
        seconds=made.num_frames / video.fps,
        dropped=fates.counts(made.num_frames, spans),
        parts=tuple(parts),
    )


def _clip(segment: Segment, piece: Piece, video: Video, about: tuple[LedgerRow, DatasetConfig, Made]) -> Clip:
    row, config, made = about
    is_stretched = config.resize == "stretch" and piece.box.width != piece.box.height
    return Clip(
        id=piece.name,
        path=piece.path.name,
        split=segment.split or "train",
        identity=segment.identity or whose(row, config.identity_pattern),
        num_frames=made.counts[piece.name],
        fps=video.fps,
        size_px=config.size_px,
        box=piece.box[:],
        start_frame=piece.span[0],
        sha256=sha256_of(piece.path),
        origin=row.origin,
        origin_sha256=row.sha256,
        decoder=made.decoder,
        start_s=video.start_s(piece.span[0]),
        resize="stretch" if is_stretched else "square",
    )


def _part(row: LedgerRow, segment: Segment, name: str) -> LedgerRow:
    """A segment's row of the ledger. The bytes are the video's and count there."""
    return replace(
        row,
        item=name,
        origin=f"{segment.video_id}:{segment.row}",
        num_bytes=0,
        video_id=segment.video_id,
        identity=segment.identity or row.identity,
        split=segment.split or row.split,
    )
