"""Whether the camera holds still: clips of bodies end where it moves, and where the picture jumps.

The script that made TaiChiHD ends a tube where the median optical flow of the whole picture, at 256 x 256 px, is above
1 px between neighbouring frames, or where a colour channel's median changes by more than 1.5 gray values. Here the flow
is that of the background, at `HEIGHT_PX`, between the frames that are looked at, so that a slow drift counts too; and
the jump is a factor: over eight frames a person who moves before a still camera changes medians by more than 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from preprocessing.boxes import Box

BreakReason = Literal["camera-motion", "intensity-jump"]

HEIGHT_PX = 360
_MOST_POINTS = 256
_FEWEST_POINTS = 12
"""With fewer points to hold on to nothing can be said, and the camera counts as still."""
_LOST_SHARE = 0.5
"""Of the points; where more are lost, this is another picture."""
_MARGIN_SHARE = 0.1
"""A subject's box is taken wider by so much of its size: limbs and shadows are no background."""
_DARK = 1.0
"""Darker mean gray values count as this one."""


@dataclass(frozen=True, slots=True)
class _Look:
    gray: np.ndarray
    points: np.ndarray | None
    """float32 (n, 1, 2): places of the background that can be found again."""


class CameraWatch:
    """Compares each frame that is looked at with the one before; keeps one small picture.

    Args:
        max_flow_px: largest median flow of the background, in pixels of a frame scaled to `HEIGHT_PX`.
        max_jump: largest factor between the mean gray values of two looks.
    """

    def __init__(self, *, max_flow_px: float, max_jump: float) -> None:
        self._max_flow_px, self._max_jump = max_flow_px, max_jump
        self._before: _Look | None = None
        self.flow_px = 0.0
        """Of the last look."""
        self.jump = 1.0
        """Of the last look."""

    def look(self, frame: np.ndarray, subjects: Sequence[Box]) -> BreakReason | None:
        """Why a clip can't go on from the last frame to this one, or None.

        Args:
            frame: uint8 RGB (H, W, 3), always of one size.
            subjects: boxes in its pixels that are no background.
        """
        scale = HEIGHT_PX / frame.shape[0]
        size = (max(1, round(frame.shape[1] * scale)), HEIGHT_PX)
        kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        gray = np.asarray(cv2.cvtColor(cv2.resize(frame, size, interpolation=kernel), cv2.COLOR_RGB2GRAY))
        before, points = self._before, _points(gray, [box.scaled(scale) for box in subjects])
        self._before = _Look(gray, points)
        self.flow_px, self.jump = 0.0, 1.0
        if before is None:
            return None
        means = [max(float(picture.mean()), _DARK) for picture in (before.gray, gray)]
        self.jump = max(means) / min(means)
        # points are followed by their gray values: light that comes or goes is no motion
        self.flow_px = _median_flow(before, np.asarray(cv2.convertScaleAbs(gray, alpha=means[0] / means[1])))
        if self.jump > self._max_jump:  # first, for where the light changes points are lost as well
            return "intensity-jump"
        return "camera-motion" if self.flow_px > self._max_flow_px else None


def _points(gray: np.ndarray, subjects: Sequence[Box]) -> np.ndarray | None:
    mask = np.full(gray.shape, 255, np.uint8)
    for box in subjects:
        more = _MARGIN_SHARE * max(box.width, box.height)
        left, top = max(int(box.left - more), 0), max(int(box.top - more), 0)
        mask[top : max(int(box.bottom + more), 0), left : max(int(box.right + more), 0)] = 0
    found = cv2.goodFeaturesToTrack(gray, _MOST_POINTS, 0.01, 8, mask=mask)
    return None if found is None else np.asarray(found, dtype=np.float32)


def _median_flow(before: _Look, gray: np.ndarray) -> float:
    """How far the background went, in pixels; infinite where it can't be found again."""
    if before.points is None or len(before.points) < _FEWEST_POINTS:
        return 0.0
    follow: Any = cv2.calcOpticalFlowPyrLK  # its types don't know that the guess may be None
    places, found, _ = follow(before.gray, gray, before.points, None, winSize=(15, 15), maxLevel=3)
    held = found.reshape(-1) == 1
    if held.mean() < 1 - _LOST_SHARE:
        return float("inf")
    return float(np.median(np.linalg.norm((places - before.points).reshape(-1, 2)[held], axis=1)))
