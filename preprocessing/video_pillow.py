"""Pictures through Pillow: upright, and transparency on white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import must
from preprocessing.video_types import Limits, MediaError, VideoInfo, check_bounds

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8")


def is_picture(head: bytes) -> bool:
    """Whether the first bytes (16 or more) are of a picture file or a GIF."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def examine(path: Path, limits: Limits) -> VideoInfo:
    """Facts of a still picture, before it is decoded.

    Raises:
        MediaError: unreadable or too large.
    """
    width, height = _picture_size(path)
    check_bounds(path.name, limits, width=width, height=height, num_frames=1)
    return VideoInfo(width=width, height=height, num_frames=1, fps=1.0, decoder="pillow", has_audio=False)


def num_pictures(path: Path) -> int:
    """How many pictures an animated PNG or WebP holds; 1 for every other file.

    Raises:
        MediaError: unreadable.
    """
    with _opened(path) as opened:
        return int(getattr(opened, "n_frames", 1)) if opened.format in ("PNG", "WEBP") else 1


def _picture_size(path: Path) -> tuple[int, int]:
    with _opened(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _opened(path: Path) -> Image.Image:
    """Open without decoding; Pillow's own limit on pixels stays in force above ours."""
    try:
        return Image.open(path, formats=PICTURE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(
            must(path.name, "be of a safe size", str(error).rstrip("."), "Scale it down"), "too-large"
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise MediaError(must(path.name, "be a readable picture", str(error)[:200]), "unreadable") from None


def picture(path: Path, limits: Limits) -> np.ndarray:
    """A still picture, turned upright by its EXIF tag, transparency on white, uint8 RGB (H, W, 3).

    Raises:
        MediaError: unreadable or too large.
    """
    examine(path, limits)
    with _opened(path) as opened:
        try:
            ImageOps.exif_transpose(opened, in_place=True)  # a photo may be 40 megapixels: no copy that need not be
            return on_white(opened)
        except (OSError, ValueError, SyntaxError) as error:
            raise MediaError(must(path.name, "be decodable", str(error)[:200]), "truncated") from None


def on_white(image: Image.Image) -> np.ndarray:
    """Any picture as uint8 RGB (H, W, 3), transparent parts white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.float64)
        return np.repeat((deep / 257).clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        pixels = image.convert("RGBA")
        canvas = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(canvas, pixels).convert("RGB")).copy()
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
