"""Media of every nasty kind, made with the ffmpeg that the project carries.

Every made video shows the same picture: four corners of known colours and a gray field in the middle, whose value tells
the frame's number. So a reader's frames can be checked for their count, order, size, uprightness and colours.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np

from preprocessing import video_ffmpeg

CORNERS = np.array([[(200, 40, 40), (40, 180, 60)], [(40, 60, 200), (220, 210, 50)]], np.uint8)
"""RGB of the top left, top right, bottom left and bottom right corner."""
_DARKEST, _STEP, NUM_GRAYS = 20, 8, 28


def ffmpeg(*arguments: object, feed: bytes | None = None) -> bytes:
    """Run the ffmpeg binary; its output pipe."""
    command = [video_ffmpeg.executable(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(
        command, input=feed, stdin=None if feed else subprocess.DEVNULL, check=True, capture_output=True
    ).stdout


def pattern(num_frames: int = 12, width: int = 128, height: int = 80, first: int = 0) -> np.ndarray:
    """The known picture, uint8 RGB (N, H, W, 3)."""
    rows, columns = (np.arange(height) * 2 // height), (np.arange(width) * 2 // width)
    frames = np.repeat(CORNERS[rows][:, columns][None], num_frames, axis=0)
    numbers = (first + np.arange(num_frames)) % NUM_GRAYS
    middle = np.s_[:, height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]
    frames[middle] = (_DARKEST + _STEP * numbers).astype(np.uint8)[:, None, None, None]
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """The frames' numbers (modulo `NUM_GRAYS`), as the gray field in the middle tells them."""
    height, width = frames.shape[1:3]
    field = frames[:, height * 7 // 16 : height * 9 // 16, width * 7 // 16 : width * 9 // 16].astype(float)
    return [] if field.size == 0 else [round(value) for value in (field.mean(axis=(1, 2, 3)) - _DARKEST) / _STEP]


def corners(frame: np.ndarray) -> np.ndarray:
    """Median colours of a frame's four corners, (2, 2, 3)."""
    height, width = frame.shape[:2]
    rows, columns = (
        (slice(0, height // 4), slice(height * 3 // 4, height)),
        (slice(0, width // 4), slice(width * 3 // 4, width)),
    )
    return np.array([[np.median(frame[row, column], axis=(0, 1)) for column in columns] for row in rows])


def encode(
    path: Path,
    frames: np.ndarray,
    *options: object,
    fps: float = 25,
    before: tuple[object, ...] = (),
    pix_fmt: str = "rgb24",
) -> Path:
    """Frames (N, H, W, channels) through ffmpeg with any options into one file."""
    height, width = frames.shape[1:3]
    raw = ("-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", f"{width}x{height}", "-r", fps)
    ffmpeg(*raw, *before, "-i", "pipe:0", *options, path, feed=frames.tobytes())
    return path


def gif(
    path: Path,
    frames: list[tuple[int, int, np.ndarray, int, int]],
    *,
    size: tuple[int, int],
    palette: list[tuple[int, int, int]],
    transparent: int | None = None,
    background: int = 0,
    tail: bytes = b";",
) -> Path:
    """A GIF made by hand, block by block, without compression, so that no library's ideas are in it.

    Args:
        path: of the file.
        frames: left, top, colour indices uint8 (h, w), disposal 0 to 3, delay in hundredths of a second.
        size: width and height of the screen.
        palette: 2, 4, 8, ... colours.
        transparent: a colour index that lets through what lies below; None: none.
        background: the colour index that the screen descriptor names.
        tail: how the file ends.
    """
    bits = max(2, (len(palette) - 1).bit_length())
    colours = b"".join(bytes(colour) for colour in palette).ljust(3 << bits, b"\0")
    out = bytearray(b"GIF89a" + struct.pack("<HHBBB", *size, 0x80 | (bits - 1), background, 0) + colours)
    for left, top, indices, disposal, delay in frames:
        flags = disposal << 2 | (transparent is not None)
        out += b"!\xf9\x04" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"
        out += (
            b","
            + struct.pack("<HHHHB", left, top, indices.shape[1], indices.shape[0], 0)
            + _lzw(indices.tobytes(), bits)
        )
    path.write_bytes(bytes(out) + tail)
    return path


def _lzw(pixels: bytes, bits: int) -> bytes:
    """Plain codes, with a clear code before the codes would grow."""
    codes = [1 << bits]
    for number, pixel in enumerate(pixels):
        codes += [pixel, 1 << bits] if number % ((1 << bits) - 2) == (1 << bits) - 3 else [pixel]
    codes.append((1 << bits) + 1)
    total = sum(code << place * (bits + 1) for place, code in enumerate(codes))
    content = total.to_bytes((len(codes) * (bits + 1) + 7) // 8, "little")
    blocks = (content[start : start + 255] for start in range(0, len(content), 255))
    return bytes([bits]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
