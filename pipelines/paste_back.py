"""Puts moved faces back into their photo: each square turned back to where it was cut, its edge feathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.align import TurnedSquare

FEATHER = 0.2
"""Width of the edge over which a square fades into the photo, as a share of half its side."""
ROUNDNESS = 4.0
"""Exponent of the mask's outline: 2 is an ellipse, large ones a square."""
_SHARED = 0.15
"""Where squares meet, the width over which one fades into the other, in half sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a face goes."""

    rows: slice
    columns: slice
    square: TurnedSquare
    """In the part that the slices cut out of the photo."""
    alpha: np.ndarray
    """How much of the face is seen, float32 in [0, 1], (h, w, 1) of that part."""


class Paster:
    """A photo, and the places of faces in it.

    Args:
        photo: uint8 RGB (H, W, 3).
        squares: where the faces were cut, in its pixels; where they overlap the nearer face is seen.
        max_px: a photo whose longer side has more is scaled down to it.
    """

    def __init__(self, photo: np.ndarray, squares: Sequence[TurnedSquare], *, max_px: int) -> None:
        scaled, factors = _scaled(photo, max_px)
        self.photo = scaled
        """uint8 (H, W, 3), at the size of what is made."""
        self.squares = tuple(square.moved(0, 0, factors) for square in squares)
        """In its pixels."""
        self._places = _places(self.squares, scaled.shape)

    def paste(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """The photo with other faces.

        Args:
            faces: one for each square, uint8 (S, S, 3).

        Returns:
            uint8 (H, W, 3).
        """
        made = self.photo.astype(np.float32)
        for place, face in zip(self._places, faces, strict=True):
            part = self.photo[place.rows, place.columns]
            seen = _back(face, place.square, part.shape).astype(np.float32)
            made[place.rows, place.columns] += (seen - part) * place.alpha
        return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def _scaled(photo: np.ndarray, max_px: int) -> tuple[np.ndarray, tuple[float, float]]:
    """A photo of at most ``max_px``, and how many times as wide and high it is."""
    height, width = photo.shape[:2]
    factor = min(1.0, max_px / max(height, width))
    if factor == 1.0:
        return photo, (1.0, 1.0)
    size = (max(2, round(width * factor)), max(2, round(height * factor)))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA)), (size[0] / width, size[1] / height)


def _places(squares: Sequence[TurnedSquare], shape: tuple[int, ...]) -> list[_Place]:
    """Where the squares go in a photo of a shape (H, W, 3); what they are seen by adds up to 1 at most."""
    far = [_distance(square, shape) for square in squares]
    places = []
    for index, square in enumerate(squares):
        around, (height, width) = square.bounds(), shape[:2]
        rows = slice(max(0, int(around.top)), max(0, min(height, int(around.bottom) + 1)))
        columns = slice(max(0, int(around.left)), max(0, min(width, int(around.right) + 1)))
        own = far[index][rows, columns]
        alpha = _step((1 - own) / FEATHER)
        for other in (*far[:index], *far[index + 1 :]):
            alpha = alpha * _step((other[rows, columns] - own) / _SHARED + 0.5)
        inside = square.moved(columns.start, rows.start)
        places.append(_Place(rows=rows, columns=columns, square=inside, alpha=alpha[..., None]))
    return places


def _distance(square: TurnedSquare, shape: tuple[int, ...]) -> np.ndarray:
    """How far each pixel of a shape (H, W, 3) is from a square's centre: 1 on the mask's outline; float32 (H, W)."""
    x = (np.arange(shape[1], dtype=np.float32) - square.x)[None, :]
    y = (np.arange(shape[0], dtype=np.float32) - square.y)[:, None]
    reach = square.right_x**2 + square.right_y**2
    across = (x * square.right_x + y * square.right_y) / reach
    down = (y * square.right_x - x * square.right_y) / reach
    far: np.ndarray = (np.abs(across) ** ROUNDNESS + np.abs(down) ** ROUNDNESS) ** (1 / ROUNDNESS)
    return far


def _step(share: np.ndarray) -> np.ndarray:
    """A smooth step from 0 at 0 to 1 at 1, whose two halves are alike."""
    held = np.clip(share, 0, 1)
    step: np.ndarray = held * held * (3 - 2 * held)
    return step


def _back(face: np.ndarray, square: TurnedSquare, shape: tuple[int, ...]) -> np.ndarray:
    """A face (S, S, 3) turned to its square in a part of the photo of a shape (h, w, 3)."""
    side = max(1, round(square.side))
    if side < len(face):
        face = np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA))
    size = len(face)
    step_x, step_y = 2 * square.right_x / size, 2 * square.right_y / size
    middle = (size - 1) / 2
    to_photo = np.array(
        [
            [step_x, -step_y, square.x - middle * (step_x - step_y)],
            [step_y, step_x, square.y - middle * (step_y + step_x)],
        ]
    )
    size_px = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(face, to_photo, size_px, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
