"""One photo in, one drawing out: any kind of picture file, upright, of any size that the memory holds once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from models.errors import ClipError, ParamsError, Problem, must
from pipelines.strips import as_bytes
from pipelines.stylise_models import StyleEngine
from preprocessing.video import DEFAULT_LIMITS, MediaError, VideoInfo, open_video, probe
from preprocessing.video_pillow import PICTURE_FORMATS

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PART_PREFIX, PART_SUFFIX = ".stylise-", ".part"
"""Of files that are being written."""
MAX_PIXELS = DEFAULT_LIMITS.max_pixels
_LONGEST_PX = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},  # lines keep their colours
    "WEBP": {"quality": 95},
}
_BAND_PIXELS = 16_000_000
"""A larger photo is drawn in bands of so many pixels: its float drawing would take four times its own memory."""
_REACH_PX = 128
"""Rows beyond a band that are drawn and thrown away; more than any layout's pixel is influenced from."""
_ALIGNED_PX = 8
"""Bands begin where the halved maps inside the networks do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A decoded photo."""

    frame: np.ndarray
    """uint8 RGB, upright, transparent parts on white, (H, W, 3)."""
    alpha: np.ndarray | None = None
    """uint8, (H, W); None: opaque."""
    profile: bytes | None = None
    """ICC profile of its RGB colours."""
    note: str = ""
    """What was left out."""


def facts_of(path: Path, *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Facts of a photo, GIF or video, with a picture's size checked before it is decoded.

    Raises:
        MediaError: it can't be used.
    """
    with _allowed(max_pixels):
        return probe(path, limits=replace(DEFAULT_LIMITS, max_pixels=max_pixels))


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Any picture: gray, CMYK, 16 bit, palette, with alpha; turned upright by its EXIF tag; of several its first one.

    Args:
        path: of a picture, or a GIF, whose first frame is taken.
        max_pixels: refuse larger ones before they are decoded.

    Raises:
        MediaError: it can't be read, or is too large.
    """
    with _allowed(max_pixels):
        with open_video(path, limits=replace(DEFAULT_LIMITS, max_pixels=max_pixels)) as reader:
            frame, info = next(reader.batches(1))[0], reader.info
        alpha, profile, count = _extras(path) if info.decoder == "pillow" else (None, None, 1)
        count = max(count, info.num_frames)
    note = f"Only the first of the {count} pictures in {path.name} was taken." if count > 1 else ""
    return Photo(frame=frame, alpha=alpha, profile=profile, note=note)


def draw(
    engine: StyleEngine,
    photo: np.ndarray,
    *,
    strength: float = 1.0,
    tile_px: int | None = None,
    band_pixels: int = _BAND_PIXELS,
) -> np.ndarray:
    """A photo's drawing; beyond the photo and the drawing themselves, memory does not grow with the size.

    Args:
        engine: makes it.
        photo: uint8, (H, W, 3).
        strength: 0 the photo, 1 the drawing.
        tile_px: see the engine.
        band_pixels: photos of more are drawn in bands of about so many, normalised alike.

    Returns:
        uint8, (H, W, 3).

    Raises:
        ClipError: the drawing is not finite.
    """
    height, width = photo.shape[:2]
    if height * width <= band_pixels:
        return shown(engine.stylise(photo[None], strength=strength, tile_px=tile_px)[0])
    given, drawing = engine.measure(photo), np.empty_like(photo)
    rows = max(_ALIGNED_PX, band_pixels // width // _ALIGNED_PX * _ALIGNED_PX)
    for top in range(0, height, rows):
        bottom, start = min(top + rows, height), max(0, top - _REACH_PX)
        band = photo[None, start : bottom + _REACH_PX]
        made = engine.stylise(band, strength=strength, tile_px=tile_px, given=given)[0]
        drawing[top:bottom] = shown(made[top - start : bottom - start])
    return drawing


def shown(drawing: np.ndarray) -> np.ndarray:
    """A drawing in [0, 1] as uint8.

    Raises:
        ClipError: it is not finite.
    """
    if not np.isfinite(drawing).all():
        raise ClipError(must("the model's drawing", "be finite", "values that are not", "Train it again"))
    return as_bytes(drawing)


def write_drawing(path: Path, drawing: np.ndarray, photo: Photo) -> None:
    """Write a drawing as what its suffix says, whole or not at all.

    Its photo's transparency (PNG and WebP) and colour profile are kept; EXIF and other data about the photo are not.

    Args:
        path: one of `SUFFIXES`.
        drawing: uint8, (H, W, 3).
        photo: that it is of.
    """
    kind = _FORMATS[path.suffix.lower()]
    image = Image.fromarray(drawing)
    if photo.alpha is not None and kind != "JPEG":
        image.putalpha(Image.fromarray(photo.alpha))
    options = {**_QUALITY[kind], **({"icc_profile": photo.profile} if photo.profile else {})}
    with whole(path) as part:
        image.save(part, format=kind, **options)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write; it takes that name when the block ends well, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PART_PREFIX, suffix=PART_SUFFIX)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_fits(out: Path, info: VideoInfo) -> None:
    """Refuse a kind of file that holds no picture of this size.

    Raises:
        ParamsError: it is too long or too wide.
    """
    longest = _LONGEST_PX.get(out.suffix.lower())
    if longest is not None and max(info.width, info.height) > longest:
        rule = f"be a png for a picture of {info.width}x{info.height}: no side may have more than {longest:,} px"
        raise ParamsError([Problem("out", str(out), rule)])


def _extras(path: Path) -> tuple[np.ndarray | None, bytes | None, int]:
    """Transparency, colour profile and number of pictures."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as opened:
            if opened.format == "GIF":  # put together on white already
                return None, None, 1
            is_clear = "transparency" in opened.info or opened.mode in ("RGBA", "LA", "PA", "RGBa", "La")
            upright = ImageOps.exif_transpose(opened) if is_clear else None
            alpha = np.asarray(upright.convert("RGBA").getchannel("A")) if upright is not None else None
            profile = opened.info.get("icc_profile") if opened.mode in ("RGB", "RGBA", "P") else None
            return None if alpha is None or alpha.min() == 255 else alpha, profile, getattr(opened, "n_frames", 1)
    except (OSError, ValueError, SyntaxError) as error:
        raise MediaError(must(path.name, "be decodable", str(error)[:200]), "truncated") from None


@contextmanager
def _allowed(max_pixels: int) -> Iterator[None]:
    """Let Pillow read pictures of so many pixels, and say of larger ones which setting that is."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(max_pixels, before or 0)
    try:
        yield
    except MediaError as error:
        told = error.message.replace("raise max_source_pixels", "raise --max-pixels")
        raise MediaError(told, error.reason) from None
    finally:
        Image.MAX_IMAGE_PIXELS = before
