"""Pictures of drawings for a page: a photo, its drawing, and both beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.stylise_listing import listing
from pipelines.stylise_photo import read_photo

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""(photo, drawing), uint8 (H, W, 3) each."""
SHOWN_PX = 1600
"""Longest side of what a page shows."""
GAP_PX = 8
SHOWN_PHOTOS = 4
"""Of a folder."""


def write_pictures(folder: Path, pairs: Pairs) -> None:
    """``photo.png`` and ``drawing.png`` of the pair in the middle, ``strip.png`` of all; one pair at least."""
    photo, drawing = pairs[len(pairs) // 2]
    _reduced(photo).save(folder / "photo.png")
    _reduced(drawing).save(folder / "drawing.png")
    write_strip(folder / "strip.png", pairs)


def write_strip(path: Path, pairs: Pairs) -> None:
    """Photo and drawing beside each other, pair below pair, on a transparent ground; no file where there is no pair."""
    if not pairs:
        return
    rows = [(_reduced(photo, SHOWN_PX // 2), _reduced(drawing, SHOWN_PX // 2)) for photo, drawing in pairs]
    width = max(photo.width + GAP_PX + drawing.width for photo, drawing in rows)
    strip = Image.new("RGBA", (width, sum(photo.height + GAP_PX for photo, _ in rows) - GAP_PX), (0, 0, 0, 0))
    top = 0
    for photo, drawing in rows:
        strip.paste(photo, (0, top))
        strip.paste(drawing, (photo.width + GAP_PX, top))
        top += photo.height + GAP_PX
    strip.save(path)


def first_pairs(source: Path, drawings: Path) -> Pairs:
    """The first photos of a folder that have a drawing."""
    entries = [entry for entry in listing(source)[0] if (drawings / entry.target).is_file()][:SHOWN_PHOTOS]
    return [(read_photo(source / entry.name).frame, read_photo(drawings / entry.target).frame) for entry in entries]


def _reduced(picture: np.ndarray, longest_px: int = SHOWN_PX) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return image
