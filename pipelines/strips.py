"""Strips of pictures: frames over time from left to right, a row for each thing that is compared."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (128, 124, 118, 255)
"""Of the labels: readable on white and on black, since the page is either."""
DIFFERENCE_RANGE = 0.5
"""The absolute difference that the heat map shows brightest."""


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` positions (or fewer) spread evenly over ``count``, ascending, the first and last among them."""
    if count <= 0 or wanted <= 0:
        return []
    places = np.linspace(0, count - 1, min(count, wanted)).round()
    return sorted({int(place) for place in places})


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """Frames as uint8, whether they come so or as float in [0, 1]."""
    if frames.dtype == np.uint8:
        return frames
    return np.asarray(np.clip(frames, 0, 1) * 255 + 0.5, dtype=np.uint8)


def heat(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute difference as a heat map.

    Args:
        prediction: float in [0, 1], (N, H, W, 3).
        truth: as ``prediction``.

    Returns:
        uint8, (N, H, W, 3); black is 0, the brightest is `DIFFERENCE_RANGE` or more.
    """
    from matplotlib import colormaps

    shares = np.abs(prediction - truth).mean(-1) / DIFFERENCE_RANGE
    return as_bytes(colormaps["magma"](np.clip(shares, 0, 1))[..., :3])


def enlarge(frame: np.ndarray, side_px: int) -> Image.Image:
    """A frame resized to a square of ``side_px`` with a smooth kernel, so that small results can be seen."""
    return Image.fromarray(as_bytes(frame)).resize((side_px, side_px), Image.Resampling.LANCZOS)


def strip_png(rows: Mapping[str, np.ndarray], heads: Sequence[str] = (), *, cell_px: int = 144) -> bytes:
    """Draw a strip.

    Args:
        rows: label -> frames (n, H, W, 3), uint8 or float in [0, 1]; every row has as many frames.
        heads: a label above each column.
        cell_px: side of each picture.

    Returns:
        A PNG with a transparent background.
    """
    gap, font = cell_px // 24, ImageFont.load_default(size=max(cell_px // 7, 10))
    columns = max(len(frames) for frames in rows.values())
    left = max(int(font.getlength(label)) for label in rows) + 2 * gap
    top = (cell_px // 5 if heads else 0) + gap
    size = (left + columns * (cell_px + gap), top + len(rows) * (cell_px + gap))
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    for column, head in enumerate(heads[:columns]):
        draw.text((left + column * (cell_px + gap) + cell_px // 2, top // 2), head, fill=INK, font=font, anchor="mm")
    for line, (label, frames) in enumerate(rows.items()):
        y = top + line * (cell_px + gap)
        draw.text((left - gap, y + cell_px // 2), label, fill=INK, font=font, anchor="rm")
        for column, frame in enumerate(frames):
            picture.paste(enlarge(frame, cell_px), (left + column * (cell_px + gap), y))
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


def write_strip(path: Path, rows: Mapping[str, np.ndarray], heads: Sequence[str] = (), *, cell_px: int = 144) -> None:
    """Draw a strip into a file; see `strip_png`."""
    path.write_bytes(strip_png(rows, heads, cell_px=cell_px))
