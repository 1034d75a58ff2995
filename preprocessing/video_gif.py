"""GIFs as a browser shows them: delays, disposal and transparency, one play.

Pillow unpacks the frames; they are put together here, because Pillow gives a disposed frame the background colour that
the file names, which no browser does, and lets frames grow over the edge of the screen.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from models.errors import must
from preprocessing.video_types import Limits, MediaError, VideoInfo, check_bounds

_SHORTEST_MS, _UNTIMED_MS = 20, 100  # browsers show a frame of 10 ms or less for 100 ms
_WHITE = 255
_TO_BACKGROUND, _TO_PREVIOUS = 2, 3
_BLOCKS_A_LOOK = 4096
# a frame is unpacked alone; with these colours, which are no ramp of grays, Pillow leaves its indices as they are
_ANY_COLOURS = bytes(255 - number // 3 for number in range(768))
_GRAYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GifFrame:
    """One frame's blocks."""

    left: int
    top: int
    width: int
    height: int
    is_interlaced: bool
    disposal: int
    """What becomes of its place: 2 is cleared, 3 is what it was before; else it stays."""
    transparent: int | None
    """Index of the colour that lets through what lies below."""
    duration_ms: int
    """As a browser plays it."""
    palette_at: tuple[int, int]
    """Place in the file and number of bytes of its own colours; no bytes: the file's."""
    pixels_at: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gif:
    """What a GIF's blocks say, read without unpacking a pixel."""

    width: int
    height: int
    palette_at: tuple[int, int]
    frames: tuple[GifFrame, ...]
    whole: bool
    """False: the file ends inside a block, or goes on with something else."""

    @property
    def repeats(self) -> list[int]:
        """How often each frame is shown on a constant clock: its duration in units of the shortest, at least 1."""
        shortest = min(frame.duration_ms for frame in self.frames)
        return [max(1, round(frame.duration_ms / shortest)) for frame in self.frames]

    @property
    def fps(self) -> float:
        """Rate of the constant clock, so that one play takes as long as before."""
        return 1000 * sum(self.repeats) / sum(frame.duration_ms for frame in self.frames)


def is_gif(head: bytes) -> bool:
    """Whether the first bytes are a GIF's."""
    return head.startswith(b"GIF8")


def facts_of(gif: Gif) -> VideoInfo:
    """Facts of a GIF; `num_frames` on a constant clock."""
    count = sum(gif.repeats)
    return VideoInfo(
        width=gif.width, height=gif.height, num_frames=count, fps=gif.fps, decoder="pillow", has_audio=False
    )


def gif_frames(path: Path, gif: Gif) -> Iterator[np.ndarray]:
    """The frames of one play of a GIF on a constant clock, uint8 RGB (H, W, 3), transparency on white.

    Args:
        path: the file.
        gif: as `examine` found it.

    Raises:
        MediaError: a frame can't be decoded.
    """
    canvas = np.full((gif.height, gif.width, 3), _WHITE, np.uint8)
    with path.open("rb") as file:
        colours = _palette(file, gif.palette_at)
        for index, (frame, count) in enumerate(zip(gif.frames, gif.repeats, strict=True)):
            before = canvas.copy() if frame.disposal == _TO_PREVIOUS else None
            place = canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
            own = _palette(file, frame.palette_at) if frame.palette_at[1] else colours
            indices = _unpacked(path, file, frame, index)[: place.shape[0], : place.shape[1]]
            if frame.transparent is None:
                place[:] = own.take(indices, axis=0)
            else:
                np.copyto(place, own.take(indices, axis=0), where=(indices != frame.transparent)[..., None])
            yield from repeat(canvas.copy(), count)
            if before is not None:
                canvas = before
            elif frame.disposal == _TO_BACKGROUND:
                place[:] = _WHITE


def examine(path: Path, limits: Limits) -> Gif:
    """Read a GIF's blocks, before any frame is unpacked.

    Raises:
        MediaError: unreadable, cut off, without frames, too large, too long or too slow.
    """
    gif = read_gif(path, limits)
    if not gif.whole:
        raise MediaError(must(path.name, "be whole", "a file that ends early", "Fetch it again"), "truncated")
    if not gif.frames:
        raise MediaError(must(path.name, "hold frames", "none"), "no-frames")
    check_bounds(path.name, limits, width=gif.width, height=gif.height, num_frames=sum(gif.repeats))
    for frame in gif.frames:
        check_bounds(path.name, limits, width=frame.width, height=frame.height, num_frames=0)
    return gif


def read_gif(path: Path, limits: Limits) -> Gif:
    """Walk over a GIF's blocks, up to one frame more than the limit.

    Raises:
        MediaError: it is no GIF, or too slow.
    """
    with path.open("rb") as file:
        head = file.read(13)
        if len(head) < 13 or not is_gif(head):
            raise MediaError(must(path.name, "be a GIF", "something else"), "unreadable")
        width, height, flags = struct.unpack("<HHB", head[6:11])
        palette_at = (13, _palette_bytes(flags))
        file.seek(palette_at[1], 1)
        walk = _Walk(path, file, limits)
        frames, whole = walk.frames()
    return Gif(width=width, height=height, palette_at=palette_at, frames=tuple(frames), whole=whole)


class _Walk:
    """One way over the blocks of a GIF."""

    def __init__(self, path: Path, file: IO[bytes], limits: Limits) -> None:
        self._path, self._file, self._limits = path, file, limits
        self._deadline = time.monotonic() + limits.timeout_s
        self._num_blocks = 0

    def frames(self) -> tuple[list[GifFrame], bool]:
        """All frames, and whether the file is whole. A missing last byte is forgiven, as browsers do."""
        frames, control = list[GifFrame](), b"\0\0\0\0"
        while len(frames) <= self._limits.max_frames:
            mark = self._file.read(1)
            if mark == b";" or (not mark and frames):
                return frames, True
            if mark == b"!":
                label, first = self._file.read(1), self._block()
                if label == b"\xf9" and first is not None and len(first) >= 4:
                    control = first
                whole = first is not None and (not first or self._skip_blocks())
            elif mark == b",":
                frame = self._frame(control)
                frames += [frame] if frame else []
                whole, control = frame is not None, b"\0\0\0\0"
            else:
                whole = mark == b"\0"  # padding
            if not whole:
                return frames, False
        return frames, True

    def _frame(self, control: bytes) -> GifFrame | None:
        head = self._file.read(9)
        if len(head) < 9:
            return None
        left, top, width, height, flags = struct.unpack("<HHHHB", head)
        palette_at = (self._file.tell(), _palette_bytes(flags))
        self._file.seek(palette_at[1], 1)
        start = self._file.tell()
        self._file.seek(1, 1)
        if not self._skip_blocks():
            return None
        delay_ms = 10 * int.from_bytes(control[1:3], "little")
        return GifFrame(
            left=left,
            top=top,
            width=width,
            height=height,
            is_interlaced=bool(flags & 0x40),
            disposal=control[0] >> 2 & 7,
            transparent=control[3] if control[0] & 1 else None,
            duration_ms=delay_ms if delay_ms >= _SHORTEST_MS else _UNTIMED_MS,
            palette_at=palette_at,
            pixels_at=(start, self._file.tell() - start),
        )

    def _block(self) -> bytes | None:
        """One sub-block; empty at the end of a chain, None when the file ends."""
        self._num_blocks += 1
        if self._num_blocks % _BLOCKS_A_LOOK == 0 and time.monotonic() > self._deadline:
            rule = f"be read within {self._limits.timeout_s:g} s"
            raise MediaError(must(self._path.name, rule, "a slower file", "Raise timeout_s, or cut it"), "timeout")
        size = self._file.read(1)
        if not size:
            return None
        content = self._file.read(size[0])
        return content if len(content) == size[0] else None

    def _skip_blocks(self) -> bool:
        while True:
            content = self._block()
            if not content:
                return content is not None


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _palette(file: IO[bytes], place: tuple[int, int]) -> np.ndarray:
    """256 colours, uint8 (256, 3); those that the file does not name are black."""
    if not place[1]:
        return _GRAYS
    file.seek(place[0])
    colours = np.zeros((256, 3), np.uint8)
    named = np.frombuffer(file.read(place[1]), np.uint8).reshape(-1, 3)
    colours[: len(named)] = named
    return colours


def _unpacked(path: Path, file: IO[bytes], frame: GifFrame, index: int) -> np.ndarray:
    """A frame's colour indices, uint8 (h, w), unpacked as a GIF of this frame alone."""
    file.seek(frame.pixels_at[0])
    head = struct.pack("<HHBBB", frame.width, frame.height, 0xF7, 0, 0)
    place = struct.pack("<HHHHB", 0, 0, frame.width, frame.height, 0x40 if frame.is_interlaced else 0)
    alone = b"GIF89a" + head + _ANY_COLOURS + b"," + place + file.read(frame.pixels_at[1]) + b";"
    try:
        with Image.open(io.BytesIO(alone), formats=("GIF",)) as picture:
            return np.asarray(picture).copy()
    except (UnidentifiedImageError, EOFError, OSError, ValueError, SyntaxError, IndexError) as error:
        got = f"frame {index} unreadable ({str(error).split(' <')[0][:100]})"
        raise MediaError(must(path.name, "be decodable", got), "undecodable") from None
