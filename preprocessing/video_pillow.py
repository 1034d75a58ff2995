"""Pictures and GIFs through Pillow: timing, disposal and transparency as a browser would show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import must
from preprocessing.video_types import Limits, MediaError, VideoInfo, check_bounds

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8")
_SHORTEST_MS, _UNTIMED_MS = 20, 100  # browsers show a frame of 10 ms or less for 100 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class GifTiming:
    """What a GIF's blocks say, read without decoding a pixel."""

    width: int
    height: int
    durations_ms: tuple[int, ...]
    """One per frame, as a browser plays them."""
    whole: bool
    """False: the file ends inside a block."""

    @property
    def repeats(self) -> list[int]:
        """How often each frame is shown on a constant clock: its duration in units of the shortest, at least 1."""
        shortest = min(self.durations_ms)
        return [max(1, round(duration / shortest)) for duration in self.durations_ms]

    @property
    def fps(self) -> float:
        """Rate of the constant clock, so that one play takes as long as before."""
        return 1000 * sum(self.repeats) / sum(self.durations_ms)


def is_picture(head: bytes) -> bool:
    """Whether the first bytes (16 or more) are of a picture file or a GIF."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_gif(head: bytes) -> bool:
    """Whether the first bytes are a GIF's."""
    return head.startswith(b"GIF8")


def gif_timing(path: Path, limits: Limits) -> GifTiming:
    """Walk over a GIF's blocks.

    Raises:
        MediaError: it is no GIF, or has more frames than the limit.
    """
    with path.open("rb") as file:
        head = file.read(13)
        if len(head) < 13 or not is_gif(head):
            raise MediaError(must(path.name, "be a GIF", "something else"), "unreadable")
        width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        file.seek(_palette_bytes(head[10]), 1)
        durations, whole = _walk(file, limits.max_frames)
    return GifTiming(width=width, height=height, durations_ms=tuple(durations), whole=whole)


def _walk(file: IO[bytes], max_frames: int) -> tuple[list[int], bool]:
    durations: list[int] = []
    delay = 0
    while len(durations) <= max_frames:
        mark = file.read(1)
        if mark == b";":
            return durations, True
        if mark == b"!":
            label, first = file.read(1), _block(file)
            if label == b"\xf9" and first is not None and len(first) >= 4:
                delay = int.from_bytes(first[1:3], "little") * 10
            whole = first is not None and (not first or _skip_blocks(file))
        elif mark == b",":
            descriptor = file.read(9)
            whole = len(descriptor) == 9
            if whole:
                file.seek(_palette_bytes(descriptor[8]) + 1, 1)
                whole = _skip_blocks(file)
            if whole:
                durations.append(delay if delay >= _SHORTEST_MS else _UNTIMED_MS)
                delay = 0
        else:
            whole = False
        if not whole:
            return durations, False
    return durations, True


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _block(file: IO[bytes]) -> bytes | None:
    """One sub-block; empty at the end of a chain, None when the file ends."""
    size = file.read(1)
    if not size:
        return None
    content = file.read(size[0])
    return content if len(content) == size[0] else None


def _skip_blocks(file: IO[bytes]) -> bool:
    while True:
        content = _block(file)
        if not content:
            return content is not None


def examine(path: Path, limits: Limits) -> VideoInfo:
    """Facts of a GIF or picture, before it is decoded.

    Raises:
        MediaError: unreadable, cut off, without frames or too large.
    """
    with path.open("rb") as file:
        gif = is_gif(file.read(16))
    if not gif:
        width, height, rate = *_picture_size(path), 0.0
        check_bounds(path.name, limits, width=width, height=height, num_frames=1)
        return VideoInfo(width=width, height=height, num_frames=1, fps=rate or 1.0, decoder="pillow", has_audio=False)
    timing = gif_timing(path, limits)
    if not timing.durations_ms and timing.whole:
        raise MediaError(must(path.name, "hold frames", "none"), "no-frames")
    if not timing.whole:
        raise MediaError(must(path.name, "be whole", "a file that ends early", "Fetch it again"), "truncated")
    count = sum(timing.repeats)
    check_bounds(path.name, limits, width=timing.width, height=timing.height, num_frames=count)
    return VideoInfo(
        width=timing.width, height=timing.height, num_frames=count, fps=timing.fps, decoder="pillow", has_audio=False
    )


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


def gif_frames(path: Path, limits: Limits) -> Iterator[np.ndarray]:
    """The frames of one play of a GIF on a constant clock, uint8 RGB (H, W, 3), transparency on white.

    Raises:
        MediaError: a frame can't be decoded.
    """
    examine(path, limits)
    repeats = gif_timing(path, limits).repeats
    with _opened(path) as picture:
        for index, count in enumerate(repeats):
            try:
                picture.seek(index)
                frame = on_white(picture)
            except (EOFError, OSError, ValueError, SyntaxError, IndexError) as error:
                got = f"frame {index} unreadable ({str(error)[:100]})"
                raise MediaError(must(path.name, "be decodable", got), "undecodable") from None
            yield from repeat(frame, count)


def picture(path: Path, limits: Limits) -> np.ndarray:
    """A still picture, turned upright by its EXIF tag, transparency on white, uint8 RGB (H, W, 3).

    Raises:
        MediaError: unreadable or too large.
    """
    examine(path, limits)
    with _opened(path) as opened:
        try:
            return on_white(ImageOps.exif_transpose(opened))
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
    return np.asarray(image.convert("RGB")).copy()
