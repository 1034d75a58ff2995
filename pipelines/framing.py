"""Brings any picture or video to the square that a model takes: around the face, or around the middle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from models.errors import SourceError, must
from preprocessing import detect
from preprocessing.boxes import Box, central_square, square, union
from preprocessing.crop import crop_frames
from preprocessing.video import VideoInfo, open_video, read_picture

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """A picture or video at the model's size."""

    frames: np.ndarray
    """uint8 RGB, (N, S, S, 3)."""
    framing: Framing
    box: Box
    fps: float
    has_audio: bool


def frame_picture(path: Path, *, size_px: int, crop: bool) -> Framed:
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
    frames = crop_frames(picture[None], box, size_px=size_px)
    return Framed(frames=frames, framing="face" if face else "centre", box=box, fps=FPS_OF_STILLS, has_audio=False)


def frame_video(path: Path, *, size_px: int, crop: bool, max_frames: int | None) -> Framed:
    """A video (or GIF, or picture: then one frame), cut to one square that holds still, and resized.

    With ``crop`` the square is the union of the faces found in some of the frames, so that the head moves in it as it
    did in the video. The frames are cut as they are decoded: only the small ones stay in memory.

    Args:
        path: of the video.
        size_px: height and width asked for.
        crop: cut the face out; where none is found the middle is taken, with a warning.
        max_frames: stop after so many; None: all.

    Raises:
        SourceError: the file can't be used.
    """
    face = _face(_looks(path, max_frames)) if crop else None
    with open_video(path) as reader:
        info = reader.info
        _check_size(path, info.height, info.width)
        box = _settle(face, (info.height, info.width), path, crop=crop)
        parts = [crop_frames(batch, box, size_px=size_px) for batch in _first(reader.batches(), max_frames)]
    if not parts:
        raise SourceError(must(str(path), "hold a frame", "none"))
    framing: Framing = "face" if face else "centre"
    return Framed(frames=np.concatenate(parts), framing=framing, box=box, fps=_fps(info), has_audio=info.has_audio)


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
