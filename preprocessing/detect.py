"""Where the subject is: faces by dlib's HOG detector, bodies by their pose or by what changes in the picture.

Detectors take frames as they are decoded and scale them as they need, so that a frame which nobody looks at costs
nothing.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import cv2
import numpy as np

from preprocessing.boxes import Box
from preprocessing.config import DatasetConfig

DETECT_HEIGHT_PX = 360
"""Faces of 80 px and more are found; at 1080p that is a face of 240 px. A frame takes about 10 ms of one core."""
_FOREHEAD = 0.3
"""The HOG box begins at the eyebrows: so much of its height is added above, to hold the head."""
_CHIN = 0.05
_SMALLEST_BODY, _MOST_BODIES = 0.005, 4
"""Share of the frame's pixels that a body takes at least; the largest so many are followed."""
_CUT_SHARE = 0.4
"""Of a frame's pixels; when so many change at once the scene does, or the camera moves."""


class Detector(Protocol):
    """Finds boxes in frames."""

    @property
    def is_exact(self) -> bool:
        """Whether a frame's boxes depend on that frame alone, so that frames may be looked at in any order."""

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """Boxes in one frame, uint8 RGB (H, W, 3), in its pixels, the largest first."""


def detector_for(config: DatasetConfig) -> Detector:
    """What finds the subjects of a data set.

    Raises:
        EnvironmentProblem: pretrained files are missing.
    """
    if config.kind != "bodies":
        return FaceDetector()
    if config.body_detector == "motion":
        return MotionDetector()
    from preprocessing.pose import PoseDetector, weights_folder

    return PoseDetector(weights_folder(), min_share=config.min_person_share)


class FaceDetector:
    """Frontal and half-turned faces, by histograms of oriented gradients (dlib)."""

    is_exact = True

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """Heads in one frame: from the hair line to the chin, the largest first.

        Args:
            frame: uint8 RGB (H, W, 3), which is scaled to `DETECT_HEIGHT_PX`; or gray (h, w), looked at as it is.
        """
        gray, factor = small(frame) if frame.ndim == 3 else (frame, 1.0)
        found = [
            _head(Box(float(place.left()), float(place.top()), float(place.right() + 1), float(place.bottom() + 1)))
            for place in _hog()(gray, 0)
        ]
        return [box.scaled(factor) for box in sorted(found, key=lambda box: (-box.area, box))]


class MotionDetector:
    """The boxes of everything that moved of late, for bodies before a camera that holds still.

    Differences to the previous frame are added up and fade away over `memory` looks, so that a limb at rest for a
    moment stays inside; what lies near together is one body. Frames must come in order. Where nothing has moved yet
    there is no box; where nothing moves any more the last boxes hold; a new scene begins anew.

    Args:
        memory: looks after which a movement has faded to a third.
        threshold: smallest change of a gray value, 0-255, that counts as movement.
    """

    is_exact = False

    def __init__(self, *, memory: float = 4.0, threshold: int = 18) -> None:
        self._keep = float(np.exp(-1.0 / memory))
        self._threshold = threshold
        self._before: np.ndarray | None = None
        self._heat: np.ndarray | None = None
        self._last: list[Box] = []

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """The moving regions of one frame, uint8 RGB (H, W, 3) or gray (h, w), in its pixels."""
        gray, factor = small(frame) if frame.ndim == 3 else (frame, 1.0)
        return [box.scaled(factor) for box in self._moving(gray)]

    def _moving(self, gray: np.ndarray) -> list[Box]:
        calm = cv2.GaussianBlur(gray, (5, 5), 0)
        before, self._before = self._before, calm
        if before is None or before.shape != calm.shape:
            return []
        moved = (cv2.absdiff(calm, before) > self._threshold).astype(np.float32)
        if moved.mean() > _CUT_SHARE:
            self._heat, self._last = None, []
            return []
        opened = np.asarray(cv2.morphologyEx(moved, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), dtype=np.float32)
        self._heat = opened if self._heat is None else np.maximum(self._heat * self._keep, opened)
        self._last = _bodies(self._heat > 0.3) or self._last
        return self._last


def faces(frame: np.ndarray) -> list[Box]:
    """Heads in a picture of any size, in its own pixels, the largest first.

    Args:
        frame: uint8 RGB (H, W, 3).
    """
    for height in (DETECT_HEIGHT_PX, 2 * DETECT_HEIGHT_PX):  # a second, closer look where the first finds nothing
        scaled, factor = small(frame, height)
        found = [box.scaled(factor) for box in FaceDetector().boxes(scaled)]
        if found:
            return found
    return []


def small(frame: np.ndarray, height_px: int = DETECT_HEIGHT_PX) -> tuple[np.ndarray, float]:
    """A frame as detectors take it.

    Args:
        frame: uint8 RGB (H, W, 3).
        height_px: of the result; it is scaled up too.

    Returns:
        uint8 gray (h, w), and the factor from its pixels to the frame's.
    """
    height, width = frame.shape[:2]
    factor = height / height_px
    size = (max(1, round(width / factor)), height_px)
    kernel = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    gray = cv2.cvtColor(cv2.resize(frame, size, interpolation=kernel), cv2.COLOR_RGB2GRAY)
    return gray, factor


@functools.cache
def _hog() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


def _head(face: Box) -> Box:
    return face._replace(top=face.top - _FOREHEAD * face.height, bottom=face.bottom + _CHIN * face.height)


def _bodies(mask: np.ndarray) -> list[Box]:
    """Boxes of the large regions of a mask (h, w), the largest first; parts near together belong together."""
    reach = max(3, mask.shape[0] // 20)
    joined = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    smallest = _SMALLEST_BODY * mask.size
    edge = reach // 2
    found = [
        Box(float(left + edge), float(top + edge), float(left + width - edge), float(top + height - edge))
        for left, top, width, height, area in stats[1:].tolist()  # the first is the background
        if area >= smallest
    ]
    return sorted(found, key=lambda box: (-box.area, box))[:_MOST_BODIES]
