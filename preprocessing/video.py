"""Read and write videos, GIFs and pictures, within bounds, whatever a file pretends to be.

A video is opened by decord on one thread. Where decord stumbles an ffmpeg pipe goes on with the very next frame: both
give the same pixels, and the decoder's name is kept. GIFs and pictures are Pillow's. This module and its ``video_*``
parts are the only ones to name a decoder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import must
from preprocessing import video_ffmpeg, video_pillow
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


class FrameReader:
    """One opened video: its facts, and one pass over its frames.

    `info.decoder` names the decoder that read the last frame, so ask it after the pass.
    """

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.limits = limits
        self._start = time.monotonic()
        self._handle: Any = None
        self.info = self._examine()

    def batches(self, batch_frames: int = 32) -> Iterator[np.ndarray]:
        """All frames in order, uint8 RGB (n, H, W, 3), up to ``batch_frames`` at a time.

        Raises:
            MediaError: no decoder can go on, a limit is broken, or there is no frame at all.
        """
        size = max(1, min(batch_frames, (64 << 20) // (self.info.width * self.info.height * 3)))
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
        self._handle = None

    def _left(self) -> float:
        return self.limits.timeout_s - (time.monotonic() - self._start)

    def _remaining(self) -> Limits:
        return replace(self.limits, timeout_s=max(self._left(), 0.001))

    def _examine(self) -> VideoInfo:
        head = _head(self.path)
        if video_pillow.is_picture(head):
            return video_pillow.examine(self.path, self.limits)
        facts = video_ffmpeg.examine(self.path, self._remaining())
        check_bounds(self.path.name, self.limits, width=facts.width, height=facts.height, num_frames=facts.num_packets)
        info = VideoInfo(
            width=facts.width,
            height=facts.height,
            num_frames=facts.num_packets,
            fps=facts.fps,
            decoder="ffmpeg",
            has_audio=facts.has_audio,
        )
        return self._with_decord(info) if facts.num_video_streams == 1 else info

    def _with_decord(self, info: VideoInfo) -> VideoInfo:
        """The facts as decord tells them, when it opens the file and reads the size that ffmpeg reads."""
        times: np.ndarray | None = None
        with _decord_errors() as failed:
            handle = _decord().VideoReader(str(self.path.absolute()), num_threads=1)
            size = handle[0].shape[:2]
            handle.seek(0)
            fps, count = float(handle.get_avg_fps()), len(handle)
            times = handle.get_frame_timestamp(range(count))[:, 0]
        if times is None:
            logger.debug("decord can't open %s: %s", self.path.name, failed)
            return info
        steps = np.diff(times)
        if count > 1 and np.median(steps) <= 0:
            got = f"0 (most of {count} frames at one instant)"
            raise MediaError(must(self.path.name, "have a frame rate above 0", got, "Encode it again"), "frame-rate")
        # decord finds frames by their time: where times repeat it would show one frame for many
        if size != (info.height, info.width) or not 0 < fps <= 1000 or (steps <= 0).any():
            return info
        self._handle = handle
        return replace(info, decoder="decord", num_frames=count, fps=fps)

    def _decoded(self, batch_frames: int) -> Iterator[np.ndarray]:
        if self.info.decoder == "pillow":
            yield from self._from_pillow(batch_frames)
            return
        done = 0
        if self._handle is not None:
            for batch in self._from_decord(batch_frames):
                done += len(batch)
                yield batch
            if done == self.info.num_frames:
                return
            self._handle = None
            self.info = replace(self.info, decoder="ffmpeg")
        size = (self.info.width, self.info.height)
        yield from video_ffmpeg.decoded(self.path, size, limits=self._remaining(), batch_frames=batch_frames, skip=done)

    def _from_decord(self, batch_frames: int) -> Iterator[np.ndarray]:
        """Batches until the end or the first error; the caller sees from the count which it was."""
        for start in range(0, self.info.num_frames, batch_frames):
            batch: np.ndarray | None = None
            with _decord_errors() as failed:
                stop = min(start + batch_frames, self.info.num_frames)
                batch = self._handle.get_batch(range(start, stop)).asnumpy()
            if batch is None:
                logger.debug("decord stumbles in %s after frame %d: %s", self.path.name, start, failed)
                return
            yield batch

    def _from_pillow(self, batch_frames: int) -> Iterator[np.ndarray]:
        with self.path.open("rb") as file:
            gif = video_pillow.is_gif(file.read(16))
        if not gif:
            yield video_pillow.picture(self.path, self.limits)[None]
            return
        waiting: list[np.ndarray] = []
        for frame in video_pillow.gif_frames(self.path, self.limits):
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


def _decord() -> Any:
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")  # a damaged file costs seconds otherwise
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


@contextmanager
def _decord_errors() -> Iterator[list[str]]:
    """Collect what decord raises: RuntimeError where a file can't be opened, its own class where it can't be read."""
    module, failed = _decord(), list[str]()
    try:
        yield failed
    except (RuntimeError, module.DECORDError, IndexError) as error:
        failed.append(str(error).split("\n")[0][:200])
