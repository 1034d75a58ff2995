"""Keeps the drawings of a video steady: by statistics that change slowly, and by the movement of its photos.

The movement is dense inverse search optical flow (Kroeger et al., ECCV 2016), in both directions. Where the two agree
and the photos look alike, a pixel was seen in the frame before; there the drawing before, carried along, is blended
into the present one. How steady drawings are is told by the warping error (Lai et al., ECCV 2018, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipelines.stylise_models import Statistics, StyleEngine

_FLOW_PX = 512
"""Longest side of the photos between which movement is looked for."""
_SMALLEST_PX = 32
"""Optical flow needs this much of a side."""
_DISAGREE, _DISAGREE_PX2 = 0.01, 0.5
"""By which flow there and back may miss: a share of its squared length, and pixels (Sundaram et al., 2010)."""
_UNLIKE = 24.0
"""Gray values, of 0-255, by which a pixel differs from where it came from when it is another thing."""
_CUT_SHARE = 0.4
"""When fewer pixels than this share were seen in the frame before, a new scene has begun."""
_MEASURE_EVERY, _STATISTICS_SHARE = 4, 0.4
"""Frames from one look at the statistics to the next, and the newest ones' share in the running average."""
_CARRIED_SHARE = 0.7
"""Of the carried drawing, where it is as good as the present one."""
_ALIKE = 0.12
"""Absolute difference, in [0, 1], of carried and present drawing at which the share has fallen to 1/e."""


class Movement(NamedTuple):
    """From a frame back to the one before it."""

    offset: np.ndarray
    """Where each pixel was, less where it is: (right, down) in pixels, float32 (H, W, 2)."""
    seen: np.ndarray
    """How surely it was seen there, float32 in [0, 1], (H, W)."""

    def carry(self, before: np.ndarray) -> np.ndarray:
        """Move what belongs to the frame before, float32 (H, W, C), to where it is now."""
        return _carried(before, self.offset, cv2.INTER_CUBIC)


class Tracker:
    """Finds the movement between frames that come one after another."""

    def __init__(self) -> None:
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: np.ndarray | None = None

    def step(self, photo: np.ndarray) -> Movement | None:
        """Take the next frame, uint8 RGB (H, W, 3); None of the first one, and where a new scene begins."""
        now, before = _small_gray(photo), self._before
        self._before = now
        if before is None or before.shape != now.shape:
            return None
        back, forth = self._flow.calc(now, before, None), self._flow.calc(before, now, None)
        seen = _seen(now, before, back, forth)
        if seen.mean() < _CUT_SHARE:
            return None
        height, width = photo.shape[:2]
        scale = np.array([width / now.shape[1], height / now.shape[0]], np.float32)
        offset = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR) * scale
        shown = cv2.resize(seen.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return Movement(offset, shown)


class Steadier:
    """Makes drawings of a video's frames, one after another, that stay as steady as the video.

    Args:
        engine: makes drawings.
        strength: see the engine.
        tile_px: see the engine.
    """

    def __init__(self, engine: StyleEngine, *, strength: float = 1.0, tile_px: int | None = None) -> None:
        self._engine, self._strength, self._tile_px = engine, strength, tile_px
        self._tracker = Tracker()
        self._statistics: Statistics = None
        self._num_frames = 0  # of the scene
        self._drawing: np.ndarray | None = None
        self.movement: Movement | None = None
        """Of the last frame."""

    def step(self, photo: np.ndarray) -> np.ndarray:
        """The next frame, uint8 RGB (H, W, 3), as a drawing, float32 in [0, 1] of the same shape."""
        self.movement = movement = self._tracker.step(photo)
        if movement is None:
            self._statistics, self._num_frames = self._engine.measure(photo), 0
        elif self._num_frames % _MEASURE_EVERY == 0:
            self._statistics = mixed(self._statistics, self._engine.measure(photo), _STATISTICS_SHARE)
        self._num_frames += 1
        made: np.ndarray = self._engine.stylise(
            photo[None], strength=self._strength, tile_px=self._tile_px, given=self._statistics
        )[0]
        if movement is not None and self._drawing is not None:
            made = _blended(made, movement.carry(self._drawing), movement.seen)
        self._drawing = made
        return made


class WarpingMeter:
    """Gathers the warping error of drawings whose photos move in a known way."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._sum = self._weight = 0.0

    def add(self, drawing: np.ndarray, movement: Movement | None) -> None:
        """Take the next drawing, float in [0, 1], (H, W, 3), and the movement of its photo."""
        if movement is not None and self._before is not None:
            carried = _carried(self._before, movement.offset, cv2.INTER_LINEAR)
            sure = movement.seen > 0.5
            self._sum += float(np.abs(drawing - carried).mean(-1)[sure].sum(dtype=np.float64))
            self._weight += float(sure.sum())
        self._before = drawing

    @property
    def error(self) -> float | None:
        """Mean absolute difference, in [0, 1]; None while there are no two frames of one scene."""
        return self._sum / self._weight if self._weight else None


def warping_error(photos: Iterable[np.ndarray], drawings: Iterable[np.ndarray]) -> float | None:
    """How much drawings change where their photos only move (Lai et al., 2018, with the absolute difference).

    Each drawing is compared with the one before it, carried along by the movement of the photos, in pixels that were
    seen before. Pairs on both sides of a scene cut are left out.

    Args:
        photos: uint8 RGB, (H, W, 3) each.
        drawings: of the photos, float in [0, 1], (H, W, 3) each.

    Returns:
        The mean over pixels and channels, in [0, 1], 0 is steady; None without two frames of one scene.
    """
    tracker, meter = Tracker(), WarpingMeter()
    for photo, drawing in zip(photos, drawings, strict=True):
        meter.add(drawing, tracker.step(photo))
    return meter.error


class Comparison:
    """Steady drawings beside those of each frame alone, in memory that does not grow.

    Args:
        engine: makes the drawings of each frame alone.
        strength: see the engine.
        tile_px: see the engine.
    """

    def __init__(self, engine: StyleEngine, *, strength: float = 1.0, tile_px: int | None = None) -> None:
        self._engine, self._strength, self._tile_px = engine, strength, tile_px
        self._meters = WarpingMeter(), WarpingMeter()
        self._sharpness = np.zeros(2)
        self.num_frames = 0

    def add(self, photo: np.ndarray, steady: np.ndarray, movement: Movement | None) -> None:
        """Take the next photo, uint8 (H, W, 3), its steady drawing, float in [0, 1], and its movement."""
        alone = self._engine.stylise(photo[None], strength=self._strength, tile_px=self._tile_px)[0]
        for meter, drawing in zip(self._meters, (steady, alone), strict=True):
            meter.add(drawing, movement)
        self._sharpness += sharpness(steady), sharpness(alone)
        self.num_frames += 1

    @property
    def error(self) -> float | None:
        """Warping error of the steady drawings."""
        return self._meters[0].error

    @property
    def error_by_frame(self) -> float | None:
        """Warping error of the drawings of each frame alone."""
        return self._meters[1].error

    @property
    def sharpness_share(self) -> float | None:
        """Sharpness of the steady drawings over that of the others; 1: nothing is lost."""
        return float(self._sharpness[0] / self._sharpness[1]) if self._sharpness[1] else None


def sharpness(drawing: np.ndarray) -> float:
    """Mean length of the gradient of a picture's gray values, float in [0, 1], (H, W, 3)."""
    gray = cv2.cvtColor(np.asarray(drawing, np.float32), cv2.COLOR_RGB2GRAY)
    return float(np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)).mean())


def mixed(before: Statistics, now: Statistics, share: float) -> Statistics:
    """Statistics with ``share`` of ``now`` in them, of the same structure."""
    if isinstance(now, tuple | list):
        parts = [mixed(one, other, share) for one, other in zip(before, now, strict=True)]
        return type(now)(*parts) if hasattr(now, "_fields") else type(now)(parts)
    if isinstance(now, dict):
        return {key: mixed(before[key], now[key], share) for key in now}
    return before + (now - before) * share


def _blended(made: np.ndarray, carried: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The present drawing, with the carried one in it where that shows the same.

    Where the two differ much, a line has moved by itself: blending would show it twice, and blur it in time.
    """
    apart = np.abs(made - carried).mean(-1)
    share = _CARRIED_SHARE * seen * np.exp(-((apart / _ALIKE) ** 2))
    mixture: np.ndarray = np.clip(made + (carried - made) * share[..., None], 0, 1)
    return mixture


def _small_gray(photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[:2]
    scale = min(1.0, _FLOW_PX / max(height, width))
    size = max(_SMALLEST_PX, round(width * scale)), max(_SMALLEST_PX, round(height * scale))
    gray = cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2GRAY)
    small: np.ndarray = gray if size == (width, height) else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return small


def _seen(now: np.ndarray, before: np.ndarray, back: np.ndarray, forth: np.ndarray) -> np.ndarray:
    """Whether each pixel was seen in the frame before, bool (H, W)."""
    height, width = now.shape
    places = _places(back)
    inside = (places >= 0).all(-1) & (places[..., 0] <= width - 1) & (places[..., 1] <= height - 1)
    returned = _carried(forth, back, cv2.INTER_LINEAR)
    missed = np.square(back + returned).sum(-1)
    allowed = _DISAGREE * (np.square(back) + np.square(returned)).sum(-1) + _DISAGREE_PX2
    unlike = np.abs(now.astype(np.float32) - _carried(before.astype(np.float32), back, cv2.INTER_LINEAR))
    found: np.ndarray = inside & (missed <= allowed) & (unlike <= _UNLIKE)
    return found


def _places(offset: np.ndarray) -> np.ndarray:
    height, width = offset.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places: np.ndarray = np.stack([columns, rows], -1) + offset
    return places


def _carried(before: np.ndarray, offset: np.ndarray, how: int) -> np.ndarray:
    places = _places(offset)
    moved: np.ndarray = cv2.remap(before, places[..., 0], places[..., 1], how, borderMode=cv2.BORDER_REPLICATE)
    return moved
