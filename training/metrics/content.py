"""What a drawing keeps of its photo: its content, by a network's features, and its detail, by the pixels."""

from __future__ import annotations

import numpy as np

from models.errors import ShapeError, must

CONTENT_CEILING = 0.8
"""Content distances above it count as lost: 1 is another photo, about 0.88 a blank picture, 0.6 to 0.8 what OpenCV's
``stylization`` and ``pencilSketch`` make of the sample photos at 64 to 256 px."""
DETAIL_FLOOR = 0.4
"""Detail below it counts as blurred: a Gaussian blur of 1 px leaves 0.2 of the sample photos' at 64 to 256 px, one of
2 px 0.06, half the contrast 0.25, a mild change of colours 0.98."""

_LUMA = (0.299, 0.587, 0.114)


def content_distance(made: np.ndarray, photo: np.ndarray) -> float:
    """Mean absolute difference of two feature maps, (C, h, w), as the content loss takes it (LWComicGAN, equation 3).

    It means something beside the distance of different photos only, by which it is divided where it is reported.

    Raises:
        ShapeError: two shapes.
    """
    if made.shape != photo.shape:
        raise ShapeError(must("two feature maps", "have one shape", f"{made.shape} and {photo.shape}"))
    return float(np.abs(made.astype(np.float64) - photo.astype(np.float64)).mean())


def gradient_energy(picture: np.ndarray) -> float:
    """Mean square difference of neighbouring pixels' brightness, down and across, added.

    Args:
        picture: uint8 RGB, (H, W, 3), 2 x 2 pixels or more.

    Returns:
        0 (one flat colour) to 2 (a chessboard of black and white pixels).

    Raises:
        ShapeError: another shape or type.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or min(picture.shape[:2]) < 2:
        got = f"{picture.dtype} {picture.shape}"
        raise ShapeError(must("a picture", "be uint8 RGB, (H, W, 3), of 2 x 2 pixels or more", got))
    luma = picture.astype(np.float64) @ np.array(_LUMA) / 255
    down, across = np.diff(luma, axis=0), np.diff(luma, axis=1)
    return float(np.square(down).mean() + np.square(across).mean())
