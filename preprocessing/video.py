"""Read and write videos, GIFs and pictures, within bounds, whatever a file pretends to be.

A short video of a common kind is opened by decord on one thread. Where decord stumbles an ffmpeg pipe goes on with the
very next frame: both give the same pixels, and the decoder's name is kept. All other videos are ffmpeg's from the
start: those above 256 MiB of frames (decord decodes ahead of a slow caller without end), of other containers and
codecs, with transparency (shown on white), half pictures (interlaced; made whole), pixels that are not square (made
square), or a size that changes. GIFs and pictures are Pillow's. Frames are upright always. This module and its
``video_*`` parts are the only ones to name a decoder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.errors import must
from preprocessing import video_facts, video_ffmpeg, video_gif, video_pillow
from preprocessing.video_decord import MAX_BYTES, DecordError, DecordVideo
from preprocessing.video_types import DEFAULT_LIMITS, Limits, MediaError, Reason, VideoInfo, check_bounds
from preprocessing.video_write import VideoWriter, write_gif, write_video

__all__ = [
    "DEFAULT_LIMITS",
    "SUFFIXES",
    "FrameReader",
    "Limits",
    "MediaError",
    "Reason",
    "VideoInfo",
    "VideoWriter",
    "open_video",
    "probe",
    "read_clip",
    "read_frames",
    "read_picture",
    "write_gif",
    "write_video",
]

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".ogv", ".flv", ".wmv", ".gif")
)
PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES
"""Of the files that are tried; what a file is, its content says."""

_MAX_CLIP_BYTES = 8 << 30
_BATCH_BYTES = 64 << 20


class FrameReader:
    """One opened video: its facts, and one pass over its frames.

    `info.decoder` names the decoder that read the last frame, so ask it after the pass.
    """

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.limits = limits
        self._start = time.monotonic()
        self._decord: DecordVideo | None = None
        self._facts: video_facts.Facts | None = None
        self._times_s: np.ndarray | None = None
        self._gif: video_gif.Gif | None = None
        try:
            self.info = self._examine()
        except BaseException:
            self.close()
            raise

    @property
    def view(self) -> video_ffmpeg.View | None:
        """How a video's frames are to be shown; None: a picture or GIF."""
        return None if self._facts is None else self._facts.view

    def timestamps(self) -> np.ndarray | None:
        """When each frame is shown, float64 (info.num_frames,), in seconds from the first one.

        In a video of a variable frame rate, ``frame / info.fps`` is only about the time. The decoder may give a few
        frames less. None where the file holds no time stamps (a raw stream): then the rate is all that is known.
        """
        if self.info.decoder == "pillow":
            return np.arange(self.info.num_frames) / self.info.fps
        return None if self._times_s is None else self._times_s - self._times_s[0]

    def batches(self, batch_frames: int = 32) -> Iterator[np.ndarray]:
        """All frames in order, uint8 RGB (n, H, W, 3), not to be written to, in batches.

        A batch holds up to ``batch_frames`` and 64 MiB, but one frame at least.

        Raises:
            MediaError: no decoder can go on, a limit is broken, or there is no frame at all.
        """
        size = max(1, min(batch_frames, _BATCH_BYTES // (self.info.width * self.info.height * 3)))
        count = 0
        for batch in self._decoded(size):
            count += len(batch)
            if count > self.limits.max_frames:
                rule = f"have at most {self.limits.max_frames:,} frames"
                raise MediaError(must(self.path.name, rule, "more", "Cut it, or raise max_source_frames"), "too-long")
            if self._left() <= 0:
                raise video_ffmpeg.late(self.path, self.limits)
            yield batch
        if count == 0:
            raise MediaError(must(self.path.name, "hold frames", "none that can be decoded"), "no-frames")
        if count < 0.9 * self.info.num_frames:
            got = f"{count} of {self.info.num_frames} frames"
            raise MediaError(must(self.path.name, "be whole", got, "Fetch it again"), "truncated")

    def close(self) -> None:
        """Free the decoder."""
        if self._decord is not None:
            self._decord.close()
            self._decord = None

    def _left(self) -> float:
        return self.limits.timeout_s - (time.monotonic() - self._start)

    def _remaining(self) -> Limits:
        return replace(self.limits, timeout_s=max(self._left(), 0.001))

    def _examine(self) -> VideoInfo:
        head = _head(self.path)
        if video_gif.is_gif(head):
            self._gif = video_gif.examine(self.path, self._remaining())
            return video_gif.facts_of(self._gif)
        if video_pillow.is_picture(head):
            return video_pillow.examine(self.path, self.limits)
        self._facts = facts = video_facts.examine(self.path, self._remaining())
        packets = video_facts.list_packets(self.path, self._remaining())
        check_bounds(self.path.name, self.limits, width=1, height=1, num_frames=packets.num_frames)
        self._times_s = packets.times_s
        weight = facts.view.width * facts.view.height * 3 * packets.num_frames
        if facts.is_plain and weight <= MAX_BYTES and video_facts.keeps_size(self.path, facts, self._remaining()):
            self._decord = self._by_decord(facts, packets.num_frames)
        return self._info(facts, packets.num_frames)

    def _info(self, facts: video_facts.Facts, num_frames: int) -> VideoInfo:
        return VideoInfo(
            width=facts.view.width,
            height=facts.view.height,
            num_frames=num_frames,
            fps=video_facts.frame_rate(self.path, self._times_s, facts.stated_fps),
            decoder="ffmpeg" if self._decord is None else "decord",
            has_audio=facts.has_audio,
        )

    def _by_decord(self, facts: video_facts.Facts, num_frames: int) -> DecordVideo | None:
        """The file opened by decord, when it can be trusted with it."""
        try:
            video = DecordVideo(self.path)
        except DecordError as error:
            logger.debug("decord can't open %s: %s", self.path.name, error)
            return None
        try:
            same = video.size == (facts.view.width, facts.view.height) and video.num_frames == num_frames
            if same and facts.is_turned:  # which may mean mirrored, and decord does not know of that
                with closing(self._piped(1)) as piped:
                    same = np.array_equal(next(piped, np.empty(0)), video.first())
        except BaseException:
            video.close()
            raise
        if not same:
            video.close()
        return video if same else None

    def _piped(self, batch_frames: int, skip: int = 0) -> Generator[np.ndarray]:
        assert self._facts is not None, "only videos come through a pipe"
        limits = self._remaining()
        return video_ffmpeg.decoded(self.path, self._facts.view, limits=limits, batch_frames=batch_frames, skip=skip)

    def _decoded(self, batch_frames: int) -> Iterator[np.ndarray]:
        if self.info.decoder == "pillow":
            yield from self._from_pillow(batch_frames)
            return
        done = 0
        if self._decord is not None:
            try:
                for batch in self._decord.batches(batch_frames):
                    done += len(batch)
                    yield batch
                return
            except DecordError as error:
                logger.debug("decord stumbles in %s after frame %d: %s", self.path.name, done, error)
            self.close()
            self.info = replace(self.info, decoder="ffmpeg")
        yield from self._piped(batch_frames, done)

    def _from_pillow(self, batch_frames: int) -> Iterator[np.ndarray]:
        if self._gif is None:
            yield video_pillow.picture(self.path, self.limits)[None]
            return
        waiting: list[np.ndarray] = []
        for frame in video_gif.gif_frames(self.path, self._gif):
            waiting.append(frame)
            if len(waiting) == batch_frames:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)


@contextmanager
def open_video(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[FrameReader]:
    """Open a video, GIF or picture for one pass.

    Raises:
        MediaError: with its reason, when the file can't be used.
    """
    reader = FrameReader(path, limits=limits)
    try:
        yield reader
    finally:
        reader.close()


def probe(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Facts of a video, GIF or picture. Every packet is looked at and one frame decoded, so a cut-off file is found.

    Raises:
        MediaError: with its reason, when the file can't be used.
    """
    with open_video(path, limits=limits) as reader:
        if reader.info.decoder == "ffmpeg":
            next(reader.batches(1))
        return reader.info


def read_frames(path: Path, *, limits: Limits = DEFAULT_LIMITS, batch_frames: int = 32) -> Iterator[np.ndarray]:
    """All frames in order, uint8 RGB (n, H, W, 3) a batch; memory does not grow with the video's length.

    Raises:
        MediaError: with its reason, when the file can't be used or a limit is broken.
    """
    with open_video(path, limits=limits) as reader:
        yield from reader.batches(batch_frames)


def read_clip(
    path: Path, *, limits: Limits = DEFAULT_LIMITS, max_frames: int | None = None
) -> tuple[np.ndarray, VideoInfo]:
    """A whole video, or its beginning, in memory.

    Args:
        path: video, GIF or picture.
        limits: bounds of the file.
        max_frames: stop after so many; None: all.

    Returns:
        uint8 RGB (N, H, W, 3), and the facts with N as the number of frames.

    Raises:
        MediaError: with its reason; also when the frames would take more than 8 GiB.
    """
    with open_video(path, limits=limits) as reader:
        info = reader.info
        wanted = info.num_frames if max_frames is None else min(max_frames, info.num_frames)
        if wanted * info.width * info.height * 3 > _MAX_CLIP_BYTES:
            got = f"{wanted} frames of {info.width}x{info.height}"
            raise MediaError(must(path.name, "fit in 8 GiB of memory", got, "Read fewer frames"), "too-long")
        parts, count = [], 0
        for batch in reader.batches():
            parts.append(batch)
            count += len(batch)
            if max_frames is not None and count >= max_frames:
                break
        frames = np.concatenate(parts)[:max_frames]
        return frames, replace(reader.info, num_frames=len(frames))


def read_picture(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """A picture, or the first frame of a video or GIF, uint8 RGB (H, W, 3); EXIF rotation done, transparency on white.

    Raises:
        MediaError: with its reason, when the file can't be used.
    """
    with open_video(path, limits=limits) as reader:
        return np.array(next(reader.batches(1))[0])


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except IsADirectoryError:
        raise MediaError(must(str(path), "be a media file", "a folder"), "unsupported") from None
    except FileNotFoundError:
        raise MediaError(must(str(path), "exist", "no such file"), "missing") from None
    except OSError as error:
        raise MediaError(must(str(path), "be readable", error.strerror or str(error)), "unreadable") from None
    if not head:
        raise MediaError(must(path.name, "hold something", "an empty file"), "empty")
    return head
