"""A clip as a cartoon that does not flicker.

One square is cut out of all frames, so that the head moves in it as it does in the clip; one style serves the whole
clip, and all frames have the generator's fixed noise; the codes of the face are smoothed over time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from models.contracts import ShardClip
from pipelines.face_engines import AT_ONCE, TorchFaces
from pipelines.settings import StylisedDataset
from pipelines.strips import as_bytes, spread
from preprocessing.align import TurnedSquare, cut_turned, face_square, is_plausible
from preprocessing.detect import faces
from preprocessing.landmarks import landmarks68
from training.shard_reader import ShardReader

LOOKS = 12
"""Frames of a clip in which its face is looked for, evenly over its length."""
LOOK_PX = 256
"""Smaller frames are enlarged to so much: landmarks are whole pixels."""


def cartoon(
    clip: ShardClip, style: str, reader: ShardReader, engine: TorchFaces, settings: StylisedDataset
) -> tuple[Iterator[np.ndarray], bool]:
    """A clip as a cartoon, in batches, so that memory does not grow with its length.

    Args:
        clip: of ``reader``.
        style: a name.
        reader: of the clips.
        engine: that stylises.
        settings: how much of the style, and the smoothing.

    Returns:
        The frames, uint8 RGB (n, H, H, 3) a batch, at the size of the clips; and whether its face was found.
    """
    square = clip_square(reader.frames(clip, spread(clip.num_frames, LOOKS)))
    parts = [range(start, min(start + AT_ONCE, clip.num_frames)) for start in range(0, clip.num_frames, AT_ONCE)]
    faces = (cut_clip(reader.frames(clip, part), square, size_px=engine.config.encoder_px) for part in parts)
    codes = smoothed(torch.cat([engine.encode(part) for part in faces]), settings.smoothing)

    def frames() -> Iterator[np.ndarray]:
        for part in parts:
            made = engine.make(
                codes[part[0] : part[-1] + 1], style, structure=settings.structure, colour=settings.colour
            )
            yield as_bytes(fitted(made, reader.index.size_px))

    return frames(), square is not None


def clip_square(frames: Iterable[np.ndarray]) -> TurnedSquare | None:
    """The square that FFHQ's alignment cuts, at the median of the places, sizes and angles in some frames.

    Args:
        frames: uint8 RGB (H, W, 3), all of one clip; a dozen tell as much as all.

    Returns:
        In the frames' pixels; None: no face was found in any of them.
    """
    found = [square for square in map(_aligned, frames) if square is not None]
    if not found:
        return None
    sides = [(one.x, one.y, one.side, math.atan2(one.right_y, one.right_x)) for one in found]
    x, y, side, angle = np.median(np.array(sides), axis=0).tolist()
    return TurnedSquare(x=x, y=y, right_x=side / 2 * math.cos(angle), right_y=side / 2 * math.sin(angle))


def cut_clip(frames: np.ndarray, square: TurnedSquare | None, *, size_px: int) -> np.ndarray:
    """The same square out of every frame.

    Args:
        frames: uint8 RGB (N, H, W, 3).
        square: in their pixels; None: the whole frame, which must be square then.
        size_px: height and width of the result.

    Returns:
        uint8 RGB (N, size_px, size_px, 3).
    """
    if square is None:
        return fitted(frames, size_px)
    return np.stack([cut_turned(frame, square, size_px=size_px) for frame in frames])


def fitted(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Square frames (N, H, H, 3), of any type, at another size: by area where they shrink."""
    if frames.shape[1] == size_px:
        return frames
    kernel = cv2.INTER_AREA if frames.shape[1] > size_px else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size_px, size_px), interpolation=kernel) for frame in frames])


def smoothed(codes: Tensor, smoothing: float) -> Tensor:
    """Codes over time, each the mean of all, weighted by ``smoothing`` to the power of the distance in frames.

    Exponential smoothing in both directions, which moves nothing in time; at the ends there are fewer to mean.

    Args:
        codes: of a clip's frames in order, (N, ...).
        smoothing: 0: as they are; 1: the mean of the clip.

    Returns:
        As ``codes``.
    """
    before, after = _run_up(codes, smoothing), _run_up(codes.flip(0), smoothing).flip(0)
    ones = torch.ones(len(codes), dtype=codes.dtype)
    weight = _run_up(ones, smoothing) + _run_up(ones, smoothing).flip(0) - ones
    return (before + after - codes) / weight.view(-1, *(1,) * (codes.ndim - 1))


def _aligned(frame: np.ndarray) -> TurnedSquare | None:
    """Around the largest face with landmarks to rely on."""
    times = max(1, round(LOOK_PX / min(frame.shape[:2])))
    size = (frame.shape[1] * times, frame.shape[0] * times)
    large = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) if times > 1 else frame
    for head in faces(large):
        points = landmarks68(large, head)
        if is_plausible(points, head):
            return face_square(points).moved(0, 0, (1 / times, 1 / times))
    return None


def _run_up(values: Tensor, keep: float) -> Tensor:
    """Each value and, ``keep`` times as much, what has come before it."""
    sums = [values[0]]
    for value in values[1:]:
        sums.append(value + keep * sums[-1])
    return torch.stack(sums)
