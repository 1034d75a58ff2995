"""Edge-smoothed copies of style pictures: what the losses of the AnimeGAN family show the discriminator as wrong.

A generator that learns colours but not lines gives blurred edges; the copies teach the discriminator to turn those away
(CartoonGAN, CVPR 2018, section 3.2.1: find the edges, widen them, blur there alone).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FOLDER = "smooth"
"""Beside the stills; the copies have their names."""
CANNY_LOW, CANNY_HIGH = 100, 200
"""Thresholds of the gradient, as AnimeGAN sets them for pictures of 256x256."""
REACH_PX = 5
"""Width of the widened edges and of the Gaussian (of 1, 4, 6, 4, 1), in pixels."""


def smoothed(picture: np.ndarray) -> np.ndarray:
    """A copy that is blurred along its edges and untouched everywhere else.

    Args:
        picture: uint8 RGB (H, W, 3), at the size at which the network sees it: the thresholds are fixed.

    Returns:
        uint8 RGB (H, W, 3); the same bytes for the same picture.
    """
    blurred = cv2.GaussianBlur(picture, (REACH_PX, REACH_PX), 0, borderType=cv2.BORDER_REFLECT_101)
    return np.where(near_edges(picture)[..., None], blurred, picture)


def near_edges(picture: np.ndarray) -> np.ndarray:
    """Which pixels of a picture (H, W, 3) lie within 2 px of an edge, bool (H, W)."""
    edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), CANNY_LOW, CANNY_HIGH)
    return np.asarray(cv2.dilate(edges, np.ones((REACH_PX, REACH_PX), np.uint8)) > 0)


def write_smooth(frame: np.ndarray, path: Path) -> str:
    """Write a still's edge-smoothed copy into the folder `FOLDER` beside it.

    Args:
        frame: the still as it is written, uint8 RGB (size_px, size_px, 3).
        path: the still's own file, a PNG.

    Returns:
        The copy's path relative to the still's folder, for `Clip.smooth`.

    Raises:
        OSError: it can't be written; nothing of it is left then.
    """
    copy = smooth_path(path)
    copy.parent.mkdir(exist_ok=True)
    try:
        Image.fromarray(smoothed(frame)).save(copy, format="PNG")
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return f"{FOLDER}/{copy.name}"


def smooth_path(path: Path) -> Path:
    """Where the copy of a still at ``path`` lies."""
    return path.parent / FOLDER / path.name
