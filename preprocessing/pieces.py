"""Write pieces of one video: each a span of its frames, cropped to a box, resized and coded as a clip.

One ffmpeg process does the whole work, up to `most_cuts` pieces in one pass. What it can't do so (GIFs, transparency,
half pictures, changing frame sizes) goes through Python, frame by frame. Of a video that ends early the pieces that are
complete are made; of a damaged one none, for where the damage begins to show depends on timing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from models.errors import must
from preprocessing import video_facts, video_ffmpeg, video_pillow
from preprocessing.boxes import Box
from preprocessing.config import DatasetConfig
from preprocessing.crop import crop_frames
from preprocessing.splits import Span
from preprocessing.video import Limits, MediaError, VideoWriter, open_video
from preprocessing.video_cut import Cut, NeedsCare, can_cut, cut_clips, most_cuts
from preprocessing.video_types import Decoder, check_bounds
from preprocessing.video_write import Coding, place

logger = logging.getLogger(__name__)

MAX_WRITERS = 16
"""Clips that are written at once where frames go through Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The facts of the file at hand."""

    size: tuple[int, int]
    fps: float
    num_frames: int
    view: video_ffmpeg.View | None = None
    """None: Pillow reads it."""
    times_s: np.ndarray | None = None
    is_cut_off: bool = False

    def start_s(self, frame: int) -> float:
        """When a frame is shown, in seconds from the first one."""
        if self.times_s is not None and frame < len(self.times_s):
            return round(float(self.times_s[frame] - self.times_s[0]), 6)
        return round(frame / self.fps, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is to be cut, in frames and pixels of the video at hand."""

    path: Path
    span: Span
    box: Box
    """Whole-numbered; what lies outside the frame repeats its edge."""

    @property
    def name(self) -> str:
        """The clip's id."""
        return self.path.stem

    def count(self, num_frames: int | None) -> int:
        """How many of its frames a video of so many has; None: all."""
        stop = self.span[1] if num_frames is None else min(self.span[1], num_frames)
        return max(0, stop - self.span[0])


@dataclass(slots=True)
class Made:
    """What came of the pieces."""

    num_frames: int = 0
    """Decoded."""
    counts: dict[str, int] = field(default_factory=dict)
    """Piece -> frames of it that there were."""
    error: MediaError | None = None
    """Why the pieces without a file have none; None: the video ended before them."""
    decoder: Decoder = "ffmpeg"


def examined(source: Path, limits: Limits) -> Video:
    """The facts of the file; one that is cut off still has some."""
    try:
        with source.open("rb") as file:
            head = file.read(16)
    except OSError:
        head = b""
    if not head or video_pillow.is_picture(head):
        with open_video(source, limits=limits) as reader:  # it knows the words for what is no video
            info = reader.info
            size = (info.width, info.height)
            return Video(size=size, fps=info.fps, num_frames=info.num_frames, times_s=reader.timestamps())
    facts, packets = video_facts.examine(source, limits), None
    try:
        packets = video_facts.list_packets(source, limits)
    except MediaError as error:
        if error.reason != "truncated":
            raise
    num_frames, times_s = (packets.num_frames, packets.times_s) if packets else (limits.max_frames, None)
    check_bounds(source.name, limits, width=1, height=1, num_frames=num_frames)
    return Video(
        size=(facts.view.width, facts.view.height),
        fps=video_facts.frame_rate(source, times_s, facts.stated_fps),
        num_frames=num_frames,
        view=facts.view,
        times_s=times_s,
        is_cut_off=packets is None,
    )


def coding_of(config: DatasetConfig) -> Coding:
    """How a data set's clips are coded."""
    return Coding(
        crf=config.crf,
        keyframe_every=config.keyframe_every,
        preset=config.encoder_preset,
        lossless=config.lossless,
    )


def write_pieces(
    source: Path, video: Video, pieces: Sequence[Piece], config: DatasetConfig, left: Callable[[], Limits]
) -> Made:
    """Write the pieces, the fast way where the file lets it. A piece is made when its file is there.

    Args:
        source: the file.
        video: its facts.
        pieces: with names of their own and no empty span; they may overlap.
        config: size and coding of the clips, and how many frames they must have.
        left: tells what is left of the limits.

    Raises:
        MediaError: the file can't be used at all.
        EnvironmentProblem: the clips can't be written. Nothing is left behind in either case.
    """
    ordered = sorted(pieces, key=lambda piece: (piece.span, piece.name))
    try:
        if video.view is not None and can_cut(video.view):
            try:
                return _by_ffmpeg(source, video, ordered, config, left)
            except NeedsCare:
                logger.debug("%s needs care: its frames go through Python", source.name)
        if video.is_cut_off:
            raise _ends_early(source, "a file that ends early")
        made = Made()
        for group in _side_by_side(ordered):
            _by_python(source, video, group, config, (left(), made))
        return made
    except BaseException:
        for piece in pieces:
            piece.path.unlink(missing_ok=True)
        raise


def _by_ffmpeg(
    source: Path, video: Video, pieces: Sequence[Piece], config: DatasetConfig, left: Callable[[], Limits]
) -> Made:
    most, made = most_cuts(config.size_px), Made()
    for first in range(0, len(pieces), most):
        group = pieces[first : first + most]
        parts = [video_ffmpeg.beside(piece.path) for piece in group]
        try:
            _cut_group(source, video, list(zip(parts, group, strict=True)), config, (left(), made))
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
    return made


def _cut_group(
    source: Path, video: Video, group: Sequence[tuple[Path, Piece]], config: DatasetConfig, out: tuple[Limits, Made]
) -> None:
    (limits, made), view = out, video.view
    assert view is not None, "Pillow's files do not come here"
    num_frames, ends_early = cut_clips(
        source,
        [Cut(path=part, start_frame=piece.span[0], end_frame=piece.span[1], box=piece.box) for part, piece in group],
        view=view,
        fps=video.fps,
        size_px=config.size_px,
        coding=coding_of(config),
        limits=limits,
    )
    last = max(piece.span[1] for _, piece in group)
    made.num_frames = max(made.num_frames, num_frames)
    if num_frames < last and (ends_early or video.is_cut_off or num_frames < 0.9 * video.num_frames):
        made.error = _ends_early(source, f"one that ends after {num_frames} frames")
    for part, piece in group:
        made.counts[piece.name] = count = piece.count(num_frames)
        if count == piece.count(None) or (made.error is None and count >= config.min_frames):
            place(part, piece.path)


def _ends_early(source: Path, got: str) -> MediaError:
    return MediaError(must(source.name, "be whole", got, "Fetch it again"), "truncated")


def _side_by_side(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Groups, each for a pass of its own, in which no more than `MAX_WRITERS` pieces overlap."""
    ends, groups = list[int](), dict[int, list[Piece]]()
    for piece in pieces:
        lane = next((number for number, end in enumerate(ends) if end <= piece.span[0]), len(ends))
        ends[lane : lane + 1] = [piece.span[1]]
        groups.setdefault(lane // MAX_WRITERS, []).append(piece)
    return list(groups.values())


def _by_python(
    source: Path, video: Video, pieces: Sequence[Piece], config: DatasetConfig, out: tuple[Limits, Made]
) -> None:
    """One pass, to the video's end, so that a file is found damaged always or never."""
    limits, made = out
    writers = _Writers(pieces, fps=video.fps, config=config)
    try:
        with open_video(source, limits=limits) as reader:
            for batch in reader.batches():
                writers.write(batch)
            made.decoder = reader.info.decoder
        writers.finish()
    except MediaError as error:
        if error.reason != "truncated":
            raise
        made.error = error
    finally:
        writers.abort()
    made.num_frames = max(made.num_frames, writers.num_frames)
    made.counts.update((piece.name, piece.count(writers.num_frames)) for piece in pieces)


class _Writers:
    """Gives each piece its frames as they come; an encoder runs only between its piece's first and last frame."""

    def __init__(self, pieces: Sequence[Piece], *, fps: float, config: DatasetConfig) -> None:
        self.num_frames = 0
        self._fps, self._config = fps, config
        self._left = list(pieces)
        self._open: dict[str, VideoWriter] = {}

    def write(self, batch: np.ndarray) -> None:
        """Take the next frames."""
        start, end = self.num_frames, self.num_frames + len(batch)
        for piece in list(self._left):
            first, stop = max(piece.span[0], start), min(piece.span[1], end)
            if first < stop:
                frames = crop_frames(batch[first - start : stop - start], piece.box, size_px=self._config.size_px)
                self._writer(piece).write(frames)
            if piece.span[1] <= end:
                self._finish(piece)
        self.num_frames = end

    def finish(self) -> None:
        """The video is over: what there is of the pieces counts, if it is long enough."""
        for piece in list(self._left):
            if piece.count(self.num_frames) >= self._config.min_frames:
                self._finish(piece)

    def abort(self) -> None:
        """Leave nothing of what is not finished."""
        for writer in self._open.values():
            writer.abort()

    def _writer(self, piece: Piece) -> VideoWriter:
        if piece.name not in self._open:
            coding = asdict(coding_of(self._config))
            self._open[piece.name] = VideoWriter(piece.path, fps=self._fps, **coding)
        return self._open[piece.name]

    def _finish(self, piece: Piece) -> None:
        self._left.remove(piece)
        self._open[piece.name].finish()
        del self._open[piece.name]
