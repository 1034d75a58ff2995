"""Pictures inside the page: data URIs, made small enough to be sent by mail."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipelines import plots

logger = logging.getLogger(__name__)

KEPT_BYTES = 400_000
"""A picture of at most so many bytes is embedded as it is."""
MAX_WIDTH_PX = 1800
MAX_ANIMATION_BYTES = 8_000_000
QUALITY = 82
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that needs no file beside the page."""

    uri: str
    width: int
    height: int
    alt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Themed:
    """One picture for a light page and one for a dark page."""

    light: Picture
    dark: Picture


def themed(alt: str, draw: Callable[[plots.Theme], bytes]) -> Themed | None:
    """A drawing in the colours of both pages."""
    light, dark = (embed_bytes(draw(theme), alt=alt) for theme in (plots.LIGHT, plots.DARK))
    return Themed(light=light, dark=dark) if light and dark else None


def embed(path: Path, *, alt: str = "") -> Picture | None:
    """A picture file as a data URI, large stills recoded as WebP; None when it is missing, broken or too heavy."""
    try:
        content = path.read_bytes()
        return embed_bytes(content, alt=alt)
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        logger.debug("%s is not shown: %s", path, error)
        return None


def embed_bytes(content: bytes, *, alt: str = "") -> Picture | None:
    """The content of a picture file as a data URI; see `embed`.

    Raises:
        OSError: no picture.
    """
    with Image.open(io.BytesIO(content)) as picture:
        kind = FORMATS.get(picture.format or "")
        moving = getattr(picture, "is_animated", False)
        if moving and len(content) > MAX_ANIMATION_BYTES:
            return None
        if kind is None or (not moving and (len(content) > KEPT_BYTES or picture.width > MAX_WIDTH_PX)):
            return _recoded(picture, alt)
        return Picture(uri=_uri(kind, content), width=picture.width, height=picture.height, alt=alt)


def _recoded(picture: Image.Image, alt: str) -> Picture:
    made = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    if made.width > MAX_WIDTH_PX:
        made.thumbnail((MAX_WIDTH_PX, made.height))
    out = io.BytesIO()
    made.save(out, format="WEBP", quality=QUALITY)
    return Picture(uri=_uri("image/webp", out.getvalue()), width=made.width, height=made.height, alt=alt)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
