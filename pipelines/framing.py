"""Brings any picture or video to the square that a model takes: around the face, or around the middle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from models.errors import SourceError, must
from preprocessing import detect
from preprocessing.boxes import Box, central_square, square, union
from preprocessing.crop import crop_frames
from preprocessing.video import DEFAULT_LIMITS, VideoInfo, open_video, read_picture

logger = logging.getLogger(__name__)

Framing = Literal["face", "centre"]

INCREASE = 0.1
"""By how much a face's box grows on each side, as in the data sets that the models of faces are trained on."""
LOOK_EVERY = 8
"""Frames between two looks for the driving video's face."""
LOOKS = 24
"""At most so many looks: the face's place is settled by then, and a look costs more than a decoded frame."""
SMALLEST_PX = 2
"""A picture of fewer pixels a side holds nothing to move."""
FPS_OF_STILLS = 25.0


_LIMITS = replace(DEFAULT_LIMITS, timeout_s=86_400.0)
"""Of a driving video: its time runs while the networks work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture at the model's size."""

    frame: np.ndarray
    """uint8 RGB, (S, S, 3)."""
    framing: Framing
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A video that is cut to one square which holds still, and resized, whenever its frames are asked for."""

    path: Path
    size_px: int
    framing: Framing
    box: Box
    fps: float
    has_audio: bool
    num_frames: int
    """As the file states them, at most ``max_frames``; a decoder may give a few less."""
    max_frames: int | None

    def batches(self) -> Iterator[np.ndarray]:
        """All frames, uint8 RGB (n, S, S, 3) a batch of at most 32, decoded anew; memory does not grow with the length.

        Raises:
            SourceError: the file can't be decoded to its end.
        """
        with open_video(self.path, limits=_LIMITS) as reader:
            for batch in _first(reader.batches(), self.max_frames):
                yield crop_frames(batch, self.box, size_px=self.size_px)


def frame_picture(path: Path, *, size_px: int, crop: bool) -> Picture:
    """The picture, or a video's first frame, cut square and resized.

    Args:
        path: of any picture, GIF or video.
        size_px: height and width asked for.
        crop: cut the face out; where none is found the middle is taken, with a warning.

    Raises:
        SourceError: the file can't be used.
    """
    picture = read_picture(path)
    _check_size(path, *picture.shape[:2])
    face = _face([picture]) if crop else None
    box = _settle(face, picture.shape, path, crop=crop)
    frame = crop_frames(picture[None], box, size_px=size_px)[0]
    return Picture(frame=frame, framing="face" if face else "centre", box=box)


def frame_video(path: Path, *, size_px: int, crop: bool, max_frames: int | None) -> Video:
    """A video (or GIF, or picture: then one frame), and the square that it is cut to.

    With ``crop`` the square is the union of the faces found in some of the frames, so that the head moves in it as it
    did in the video.

    Args:
        path: of the video.
        size_px: height and width asked for.
        crop: cut the face out; where none is found the middle is taken, with a warning.
        max_frames: stop after so many; None: all.

    Raises:
        SourceError: the file can't be used.
    """
    face = _face(_looks(path, max_frames)) if crop else None
    with open_video(path, limits=_LIMITS) as reader:
        info = reader.info
    _check_size(path, info.height, info.width)
    return Video(
        path=path,
        size_px=size_px,
        framing="face" if face else "centre",
        box=_settle(face, (info.height, info.width), path, crop=crop),
        fps=_fps(info),
        has_audio=info.has_audio,
        num_frames=info.num_frames if max_frames is None else min(info.num_frames, max_frames),
        max_frames=max_frames,
    )


def _first(batches: Iterable[np.ndarray], max_frames: int | None) -> Iterator[np.ndarray]:
    left = max_frames
    for batch in batches:
        chosen = batch if left is None else batch[:left]
        yield chosen
        if left is not None:
            left -= len(chosen)
            if left <= 0:
                return


def _looks(path: Path, max_frames: int | None) -> Iterator[np.ndarray]:
    """A few frames of the video, spread over its beginning."""
    with open_video(path) as reader:
        seen = looked = 0
        for batch in _first(reader.batches(), max_frames):
            for place in range(-seen % LOOK_EVERY, len(batch), LOOK_EVERY):
                yield batch[place]
                looked += 1
                if looked >= LOOKS:
                    return
            seen += len(batch)


def _face(frames: Iterable[np.ndarray]) -> Box | None:
    """The square that holds the largest face of every frame, as data sets of faces are cut; None without any face."""
    found, size = [], (0, 0)
    for frame in frames:
        size = (frame.shape[1], frame.shape[0])
        found += detect.faces(frame)[:1]
    if not found:
        return None
    return square(union(found), increase=INCREASE, frame=size, outside="pad")


def _settle(face: Box | None, shape: tuple[int, ...], path: Path, *, crop: bool) -> Box:
    if face is not None:
        return face
    if crop:
        logger.warning("no face found in %s: the middle is taken instead", path.name)
    return central_square((shape[1], shape[0]))


def _check_size(path: Path, height: int, width: int) -> None:
    if min(height, width) < SMALLEST_PX:
        fix = "Use a larger picture"
        raise SourceError(must(str(path), f"be at least {SMALLEST_PX} px high and wide", f"{width}x{height}", fix))


def _fps(info: VideoInfo) -> float:
    return info.fps if info.fps and np.isfinite(info.fps) and info.fps > 0 else FPS_OF_STILLS
