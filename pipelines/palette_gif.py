"""Small GIFs, as emoji are: few colours shared by all frames, few frames a second, and a round cut-out if wanted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.errors import ClipError, check, must
from pipelines.strips import spread
from pipelines.stylise_photo import whole
from preprocessing.video_write import checked

_PALETTE_FRAMES = 16
"""The colours are chosen from so many frames, spread over all."""
_STEADY = 6
"""A pixel keeps its value while no channel changes by more: what holds still takes no bytes, and does not flicker."""
MOST_FRAMES = 1200
"""They are all in memory while the file is made."""
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_SMALLEST_PX = 32
_SHRINKS = (
    (1.0, 1.0, 1.0),
    (1.0, 0.5, 1.0),
    (1.0, 0.5, 0.67),
    (1.0, 0.5, 0.5),
    (1.0, 0.25, 0.5),
    (0.75, 0.5, 0.5),
    (0.75, 0.25, 0.5),
    (0.75, 0.25, 0.33),
    (0.5, 0.25, 0.5),
    (0.5, 0.25, 0.25),
)
"""Shares of size, colours and frames that are tried, one after the other, until a file fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """How a small GIF looks."""

    size_px: int = 128
    """Height and width."""
    colours: int = 64
    """At most so many, the transparent one included."""
    fps: float = 12.0
    """Frames per second at most; others are left out."""
    background: str = "keep"
    """Outside the round cut-out: ``transparent``, or a colour as ``#ffffff``; ``keep`` cuts nothing out."""
    max_kb: int | None = None
    """A larger file is made again with fewer colours, fewer frames and a smaller size; in units of 1,000 bytes."""

    def __post_init__(self) -> None:
        known = self.background in ("keep", "transparent") or bool(_HEX.fullmatch(self.background))
        check(
            (_SMALLEST_PX <= self.size_px <= 1024, "size_px", self.size_px, f"lie in {_SMALLEST_PX} to 1024"),
            (4 <= self.colours <= 256, "colours", self.colours, "lie in 4 to 256"),
            (0 < self.fps <= 50, "fps", self.fps, "lie in (0, 50]"),
            (known, "background", self.background, "be keep, transparent or a colour such as #ffffff"),
            (self.max_kb is None or self.max_kb >= 1, "max_kb", self.max_kb, "be 1 or more"),
        )


def write_emoji(path: Path, frames: Iterable[np.ndarray], *, fps: float, look: Emoji) -> None:
    """Write a small GIF that plays for ever and as long as its frames did.

    Where nothing that is tried fits ``look.max_kb``, the smallest is kept: whoever wants to know compares sizes.

    Args:
        path: of the file, which appears whole or not at all.
        frames: batches of square frames, uint8 RGB (n, S, S, 3).
        fps: of ``frames``.
        look: how.

    Raises:
        ClipError: there is no frame, or there are too many.
    """
    if not 0 < fps <= 1000:
        raise ClipError(must(f"frame rate of {path.name}", "lie in (0, 1000]", f"{fps:g}"))
    kept, times_s = _taken(path, frames, fps, look)
    with whole(path) as part:
        for size, colours, share in _SHRINKS if look.max_kb else _SHRINKS[:1]:
            side = max(_SMALLEST_PX, round(look.size_px * size))
            places = spread(len(kept), max(1, round(len(kept) * share)))
            pictures = [_round(_scaled(kept[place], side), look.background) for place in places]
            starts_s = [times_s[place] for place in places]
            _save(part, pictures, [*starts_s, times_s[-1]], max(4, round(look.colours * colours)), look)
            if look.max_kb is None or part.stat().st_size <= look.max_kb * 1000:
                return


def check_length(look: Emoji, *, num_frames: int, fps: float) -> None:
    """Refuse an emoji of more frames than `MOST_FRAMES`, before they are made.

    Raises:
        ParamsError: it is too long.
    """
    count = math.ceil(num_frames * min(1.0, look.fps / fps))
    rule = f"have at most {MOST_FRAMES} frames: lower its fps or max_frames"
    check((count <= MOST_FRAMES, "emoji", count, rule))


def _taken(path: Path, frames: Iterable[np.ndarray], fps: float, look: Emoji) -> tuple[list[np.ndarray], list[float]]:
    """The frames that are shown, scaled down, and when each begins, with the end of the last one."""
    kept: list[np.ndarray] = []
    times_s: list[float] = []
    count = 0
    for frame in _each(path, frames):
        if int(count * look.fps / fps) != int((count - 1) * look.fps / fps) or look.fps >= fps or not count:
            if len(kept) > MOST_FRAMES:
                rule, got = f"have at most {MOST_FRAMES} frames", f"more than {MOST_FRAMES}"
                raise ClipError(must("the emoji", rule, got, "Lower max_frames or fps"))
            kept.append(_scaled(frame, look.size_px))
            times_s.append(count / fps)
        count += 1
    if not kept:
        raise ClipError(must(str(path), "get at least one frame", "none"))
    return kept, [*times_s, count / fps]


def _each(path: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in frames:
        yield from checked(batch, path)


def _scaled(frame: np.ndarray, side: int) -> np.ndarray:
    if frame.shape[:2] == (side, side):
        return frame
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS))


def _round(frame: np.ndarray, background: str) -> np.ndarray:
    """A frame with a plain colour around the round cut-out, whose edge is smooth; else as it is."""
    if not _HEX.fullmatch(background):
        return frame
    colour = np.array([int(background[at : at + 2], 16) for at in (1, 3, 5)], np.float32)
    seen = np.clip(0.5 - _outside_px(len(frame)), 0, 1)[..., None]
    mixed: np.ndarray = np.rint(colour + (frame - colour) * seen).astype(np.uint8)
    return mixed


def _outside_px(side: int) -> np.ndarray:
    """How far each pixel is outside the circle that a square of ``side`` holds, negative inside, float32 (S, S)."""
    reach = np.arange(side, dtype=np.float32) - (side - 1) / 2
    far: np.ndarray = np.hypot(reach[:, None], reach[None, :]) - np.float32(side / 2)
    return far


def _save(path: Path, pictures: list[np.ndarray], times_s: list[float], colours: int, look: Emoji) -> None:
    """Pictures uint8 (S, S, 3) that begin at ``times_s`` (the last is the end), in one palette."""
    clear = look.background == "transparent"
    palette = _palette(pictures, colours - 1 if clear else colours)
    outside = _outside_px(len(pictures[0])) > 0
    shown: list[Image.Image] = []
    last: np.ndarray | None = None
    for picture in pictures:
        calm = picture if last is None else _calmed(picture, last)
        last = calm
        drawn = Image.fromarray(calm).quantize(palette=palette, dither=Image.Dither.NONE)
        if clear:
            indices = np.array(drawn)
            indices[outside] = colours - 1
            drawn = Image.fromarray(indices)
            drawn.putpalette(palette.getpalette() or [])
        shown.append(drawn)
    clock = [round(100 * time) for time in times_s]
    delays_ms = [max(20, 10 * (end - start)) for start, end in zip(clock, clock[1:], strict=False)]
    extra = {"transparency": colours - 1} if clear else {}
    shown[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=shown[1:],
        duration=delays_ms,
        loop=0,
        disposal=1,
        optimize=False,
        **extra,
    )


def _palette(pictures: list[np.ndarray], colours: int) -> Image.Image:
    """The colours for all pictures, as Pillow wants them."""
    chosen = np.concatenate([pictures[place] for place in spread(len(pictures), _PALETTE_FRAMES)])
    return Image.fromarray(chosen).quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=2)


def _calmed(picture: np.ndarray, before: np.ndarray) -> np.ndarray:
    """A picture whose pixels that hardly changed are those before."""
    change = np.abs(picture.astype(np.int16) - before).max(axis=-1, keepdims=True)
    calm: np.ndarray = np.where(change <= _STEADY, before, picture)
    return calm
