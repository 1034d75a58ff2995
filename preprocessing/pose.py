"""Persons in a frame and their 33 keypoints, by BlazePose (Bazarevsky et al. 2020, arXiv 2006.10204) on LiteRT.

Two networks of MediaPipe: the first finds persons in the whole frame, scaled to 224 px, and says where the hips' centre
is and how far the body reaches around it, which way up; the second looks at that turned square, scaled to 256 px, and
gives the keypoints. Anchors, thresholds and the square are those of MediaPipe's graphs ``pose_detection_cpu`` and
``pose_landmark_by_roi_cpu``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.errors import EnvironmentProblem, must
from preprocessing.boxes import Box, iou

WEIGHTS_VARIABLE = "INKMOTION_WEIGHTS"
"""Environment variable: the folder of pretrained files, where it is not the project's ``weights/``."""
FILES = ("blazepose/pose_detection.tflite", "blazepose/pose_landmark_full.tflite")
"""Below that folder."""
_Body = tuple[float, np.ndarray]
"""Score, and (6, 2) in the frame's pixels: the head's centre and size, the hips' centre, the top of the circle round
the body, and two points that are not used."""
NUM_KEYPOINTS = 33
"""0-10 face (0 nose, 2 and 5 eyes, 7 and 8 ears, 9 and 10 mouth), 11-16 shoulders, elbows, wrists (left first), 17-22
hands, 23-28 hips, knees, ankles, 29-32 heels, toes. Left is the person's own."""
BONES = (
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (11, 23), (12, 24), (23, 24)),
    *((23, 25), (25, 27), (24, 26), (26, 28), (27, 29), (29, 31), (28, 30), (30, 32), (0, 11), (0, 12)),
)
"""Pairs of keypoints to join in a drawing."""

_DETECT_PX, _LANDMARK_PX = 224, 256
_STRIDES = ((8, 2), (16, 2), (32, 6))
"""Stride of each grid and anchors in each of its cells; MediaPipe's three layers of stride 32 are one grid."""
_MIN_SCORE, _MIN_PRESENCE = 0.5, 0.5
_SAME_HEAD_IOU, _SAME_PERSON_SHARE = 0.3, 0.6
_SEEN_SHARE = 0.4
"""Of a picture's height: smaller persons are often missed by the first network (tried on samples/bodies/walk.mp4)."""
_WIDE = 1.2
"""A frame whose sides differ by less is looked at as a whole only."""
_MOST_PERSONS = 8
_ROI_SCALE = 1.25
_ALL_LANDMARKS = 39
"""33 of the body; the others point at the next frame's square, and are not used here."""
_REFINE_REACH = 3
"""Heat-map cells on each side of a landmark that correct it."""
_FACE, _SHOULDERS = slice(0, 11), slice(11, 13)
_HEAD_SHARE = 1.2
"""Radius of a head round the middle of its face, as a share of the way from there to the shoulders."""
_LIMB_SHARE = 0.03
"""Keypoints lie inside limbs: the box is wider by so much of its longer side, on each side."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Person:
    """One person in a frame."""

    keypoints: np.ndarray
    """float32 (33, 3): x, y in the frame's pixels, which may lie outside the frame, and visibility in [0, 1]: how sure
    it is that the keypoint is in the frame and not hidden."""
    box: Box
    """Round the keypoints that are in the frame, with the head and the limbs' width; in the frame's pixels, inside."""
    score: float
    """How sure it is that this is a person, 0 to 1."""


def weights_folder() -> Path:
    """The folder of pretrained files: ``INKMOTION_WEIGHTS``, or ``weights/`` in the project."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or Path(__file__).resolve().parents[1] / "weights")


class PoseDetector:
    """Finds persons and their keypoints.

    The first network misses who is smaller than about `_SEEN_SHARE` of what it is shown. So it looks at the whole frame
    and at squares as high as the frame is, side by side; and where nobody is found, and smaller persons are wanted, at
    squares half that size.

    Args:
        folder: of the pretrained files.
        min_share: smallest height of a person's box, as a share of the frame's height. Below 0.2 of its shorter side
            few are found.

    Raises:
        EnvironmentProblem: the files are not there, or can't be used.
    """

    is_exact = True

    def __init__(self, folder: Path, *, min_share: float = 0.1) -> None:
        self._detect, self._landmark = (_network(folder / name) for name in FILES)
        self._min_share = min_share

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """Boxes of persons in one frame, uint8 RGB (H, W, 3), in its pixels, the largest first."""
        return [person.box for person in self.keypoints(frame)]

    def keypoints(self, frame: np.ndarray) -> list[Person]:
        """Persons in one frame, uint8 RGB (H, W, 3), the largest first; at most 8."""
        size = (frame.shape[1], frame.shape[0])
        for windows in _windows(size, self._min_share * frame.shape[0]):
            found = _merged([body for window in windows for body in self._found(frame, window)])
            seen = [self._person(frame, body) for body in found[:_MOST_PERSONS]]
            large = [person for person in seen if person and person.box.height >= self._min_share * frame.shape[0]]
            if large:
                return _distinct(large)
        return []

    def _found(self, frame: np.ndarray, window: Box) -> list[_Body]:
        """What the first network finds in a part of the frame."""
        left, top, right, bottom = (int(side) for side in window)
        picture, factor, shift = _letterboxed(frame[top:bottom, left:right])
        raw, logits = self._detect(picture[None].astype(np.float32) / 127.5 - 1)
        scores = _sigmoid(logits.reshape(-1))
        sure = np.flatnonzero(scores >= _MIN_SCORE)
        values = raw.reshape(-1, 6, 2)[sure].astype(np.float64)
        values[:, [0, 2, 3, 4, 5]] += _anchors()[sure, None] * _DETECT_PX  # all but the size has the anchor's place
        values[:, [0, 2, 3, 4, 5]] += (left / factor, top / factor) - shift
        return [(float(score), value * factor) for score, value in zip(scores[sure], values, strict=True)]

    def _person(self, frame: np.ndarray, body: np.ndarray) -> Person | None:
        """The keypoints in the square round a body, or None where the second network sees no body."""
        centre = body[2]
        across = body[3] - centre
        side = 2 * _ROI_SCALE * float(np.hypot(*across))
        if side < 2:
            return None
        turn = float(np.arctan2(across[0], -across[1]))  # 0 for who stands upright
        matrix = side * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        raw, score, _, heat, _ = self._landmark(_region(frame, matrix, centre)[None].astype(np.float32) / 255)
        if float(score.reshape(-1)[0]) < _MIN_SCORE:
            return None
        landmarks = raw.reshape(_ALL_LANDMARKS, 5)[:NUM_KEYPOINTS].astype(np.float64)
        places = _refined(landmarks[:, :2] / _LANDMARK_PX, heat[0])
        points = (places - 0.5) @ matrix.T + centre
        visible, present = _sigmoid(landmarks[:, 3]), _sigmoid(landmarks[:, 4])
        box = _body(points, present, (frame.shape[1], frame.shape[0]))
        if box is None:
            return None
        keypoints = np.concatenate([points, visible[:, None]], axis=1).astype(np.float32)
        return Person(keypoints=keypoints, box=box, score=float(score.reshape(-1)[0]))


def _network(path: Path) -> Any:
    """A function from the network's input to its outputs, in their order; on one thread."""
    if not path.is_file():
        fix = "Run `inkmotion weights fetch blazepose`"
        raise EnvironmentProblem(must(str(path), "be there to find persons", "no such file", fix))
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        fix = "Remove it and run `inkmotion weights fetch blazepose`"
        raise EnvironmentProblem(must(str(path), "be a network", str(error).split("\n")[0][:200], fix)) from None
    entry = interpreter.get_input_details()[0]["index"]
    exits = [detail["index"] for detail in interpreter.get_output_details()]

    def run(batch: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(entry, np.ascontiguousarray(batch, dtype=np.float32))
        interpreter.invoke()
        return [interpreter.get_tensor(exit_) for exit_ in exits]

    return run


@functools.cache
def _anchors() -> np.ndarray:
    """Centres of the 2254 anchors, (2254, 2), x first, 0 to 1."""
    grids = []
    for stride, count in _STRIDES:
        cells = _DETECT_PX // stride
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        grids.append(centres.repeat(count, axis=0))
    return np.concatenate(grids)


def _windows(size: tuple[int, int], smallest_px: float) -> Iterator[list[Box]]:
    """Which parts of a frame of (width, height) to look at, coarse ones first."""
    short = min(size)
    whole = Box(0.0, 0.0, float(size[0]), float(size[1]))
    yield [whole, *(_squares(size, short) if max(size) > _WIDE * short else [])]
    if smallest_px < _SEEN_SHARE * short and short >= 2 * _LANDMARK_PX:
        yield _squares(size, short // 2)


def _squares(size: tuple[int, int], side: int) -> list[Box]:
    """Squares that cover a frame of (width, height), each half over the next or more."""
    starts = [
        np.linspace(0, length - side, -(-2 * (length - side) // side) + 1).round().astype(int).tolist()
        for length in size
    ]
    return [Box(*map(float, (left, top, left + side, top + side))) for top in starts[1] for left in starts[0]]


def _letterboxed(frame: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """A frame in the middle of a black square; the factor from its pixels to the frame's, and where it begins there."""
    height, width = frame.shape[:2]
    factor = max(height, width) / _DETECT_PX
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    left, top = (_DETECT_PX - size[0]) // 2, (_DETECT_PX - size[1]) // 2
    picture = np.zeros((_DETECT_PX, _DETECT_PX, 3), np.uint8)
    kernel = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    picture[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=kernel)
    return picture, factor, np.array([left, top], np.float64)


def _merged(found: list[_Body]) -> list[np.ndarray]:
    """Detections of one head averaged by their scores, surest first."""
    order = sorted(found, key=lambda body: -body[0])
    merged = []
    while order:
        head = _head(order[0][1])
        same = [body for body in order if body is order[0] or iou(head, _head(body[1])) > _SAME_HEAD_IOU]
        merged.append(np.average([body[1] for body in same], axis=0, weights=[body[0] for body in same]))
        order = [body for body in order if not any(body is other for other in same)]
    return merged


def _head(body: np.ndarray) -> Box:
    (x, y), (width, height) = body[0], body[1]
    return Box(float(x - width / 2), float(y - height / 2), float(x + width / 2), float(y + height / 2))


def _distinct(persons: list[Person]) -> list[Person]:
    """Persons without those who lie largely within a surer, or larger, one; the largest first."""
    kept: list[Person] = []
    for person in sorted(persons, key=lambda person: (-round(person.score, 1), -person.box.area, person.box)):
        if all(_shared(person.box, other.box) < _SAME_PERSON_SHARE for other in kept):
            kept.append(person)
    return sorted(kept, key=lambda person: (-person.box.area, person.box))


def _shared(one: Box, other: Box) -> float:
    """What two boxes share, as a part of the smaller one."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    return max(width, 0.0) * max(height, 0.0) / min(one.area, other.area)


def _region(frame: np.ndarray, matrix: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The turned square, uint8 RGB (256, 256, 3); black outside the frame. ``matrix``: from a unit square to pixels."""
    finer = min(8, max(1, round(float(np.hypot(*matrix[:, 0])) / (1.5 * _LANDMARK_PX))))
    size = finer * _LANDMARK_PX
    onto = np.concatenate([matrix / size, (centre - matrix @ [0.5, 0.5])[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(frame, onto, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    if finer > 1:
        square = cv2.resize(square, (_LANDMARK_PX, _LANDMARK_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(square)


def _refined(places: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Landmarks (33, 2), 0 to 1, moved to the weighted middle of what their heat maps (h, w, 39) show near them."""
    height, width = heat.shape[:2]
    refined = places.copy()
    for number, (x, y) in enumerate(places):
        column, row = int(x * width), int(y * height)
        if not (0 <= column < width and 0 <= row < height):
            continue
        left, top = max(column - _REFINE_REACH, 0), max(row - _REFINE_REACH, 0)
        patch = heat[top : row + _REFINE_REACH + 1, left : column + _REFINE_REACH + 1, number]
        warm = _sigmoid(patch.astype(np.float64))
        if warm.max() >= 0.5:
            rows, columns = np.mgrid[top : top + warm.shape[0], left : left + warm.shape[1]]
            middle = (float((columns * warm).sum()), float((rows * warm).sum()))
            refined[number] = np.array(middle) / warm.sum() / (width, height)
    return refined


def _body(points: np.ndarray, present: np.ndarray, frame: tuple[int, int]) -> Box | None:
    """The box of a body inside a frame of (width, height), from its keypoints (33, 2) and which of them are there."""
    there = points[present >= _MIN_PRESENCE]
    if len(there) < 2:
        return None
    if (present[_FACE] >= _MIN_PRESENCE).any():  # keypoints end at the eyes: the head goes on
        face, shoulders = points[_FACE].mean(axis=0), points[_SHOULDERS].mean(axis=0)
        radius = _HEAD_SHARE * float(np.hypot(*(face - shoulders)))
        there = np.concatenate([there, face[None] - radius, face[None] + radius])
    low, high = there.min(axis=0), there.max(axis=0)
    more = _LIMB_SHARE * float((high - low).max())
    box = Box(*(float(side) for side in (*(low - more), *(high + more)))).within(frame)
    return box if box.width > 0 and box.height > 0 else None


def _sigmoid(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values.astype(np.float64), -100, 100)
    return np.asarray(1 / (1 + np.exp(-clipped)))
