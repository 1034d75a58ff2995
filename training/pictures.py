"""Pictures of a training for people to look at: frames, keypoints, grids, PNG files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

GAP_PX = 2
"""Between the frames of a grid."""


def as_frames(images: Tensor) -> np.ndarray:
    """Images in [0, 1], (B, 3, H, W), as uint8, (B, H, W, 3)."""
    scaled = images.detach().float().clamp(0, 1).mul(255).round().byte()
    frames: np.ndarray = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return frames


def with_points(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Draw a disc on every keypoint, the same colour for the same keypoint.

    Args:
        frames: uint8, (B, H, W, 3).
        points: (x, y) in [-1, 1], (B, K, 2).
    """
    drawn = frames.copy()
    num, height, width, _ = frames.shape
    radius = max(1.5, height / 40)
    rows, columns = np.mgrid[:height, :width]
    for i in range(num):
        for k, colour in enumerate(colours(points.shape[1])):
            x, y = (points[i, k] + 1) / 2 * (width - 1, height - 1)
            drawn[i][(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = colour
    return drawn


def with_regions(frames: np.ndarray, centres: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Draw every region as the ellipse of one standard deviation, the same colour for the same region.

    Args:
        frames: uint8, (B, H, W, 3).
        centres: (x, y) in [-1, 1], (B, K, 2).
        covariance: in squared image units, (B, K, 2, 2).
    """
    drawn = frames.copy()
    num, height, width, _ = frames.shape
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([columns * 2 / (width - 1) - 1, rows * 2 / (height - 1) - 1], axis=-1)
    thin = np.eye(2) * (2 / height) ** 2  # an ellipse is never thinner than a pixel
    for i in range(num):
        for k, colour in enumerate(colours(centres.shape[1])):
            away = places - centres[i, k]
            distance = np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(covariance[i, k] + thin), away)
            inside = distance <= 1
            drawn[i][inside] = (drawn[i][inside] * 0.5 + colour * 0.5).astype(np.uint8)
    return drawn


def flow_colours(deformation: Tensor) -> np.ndarray:
    """A motion as colours: the hue is its direction, the saturation its length, white where nothing moves.

    Args:
        deformation: where each pixel is read, (B, h, w, 2) in [-1, 1]; a quarter of the frame is a full colour.

    Returns:
        uint8, (B, h, w, 3).
    """
    grid_xy = deformation.detach().float().cpu().numpy()
    height, width = grid_xy.shape[1:3]
    still = np.stack(np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height)), axis=-1)
    moved = grid_xy - still
    hue = (np.arctan2(moved[..., 1], moved[..., 0]) / (2 * np.pi)) % 1.0 * 6
    length = np.clip(np.linalg.norm(moved, axis=-1) / 0.5, 0, 1)[..., None]
    pure = np.clip(np.abs((hue[..., None] + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray(((1 - length + length * pure) * 255).round(), dtype=np.uint8)


def enlarged(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames (B, h, w, 3) at another size, by repeating or leaving out pixels."""
    rows = np.arange(height) * frames.shape[1] // height
    columns = np.arange(width) * frames.shape[2] // width
    return frames[:, rows][:, :, columns]


def colours(num: int) -> np.ndarray:
    """``num`` colours evenly round the hue circle, uint8, (num, 3)."""
    hue = np.arange(num)[:, None] / max(num, 1) * 6
    rgb = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray((rgb * 255).round(), dtype=np.uint8)


def grid(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Frames side by side, a row per sample.

    Args:
        columns: each uint8, (B, H, W, 3), of equal shapes.

    Returns:
        uint8, (B * (H + gap) - gap, columns * (W + gap) - gap, 3), white between the frames.
    """
    cells = np.stack(columns, axis=1)
    padded = np.pad(cells, ((0, 0), (0, 0), (0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255)
    rows, across, height, width, _ = padded.shape
    whole = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, across * width, 3)
    return np.ascontiguousarray(whole[:-GAP_PX, :-GAP_PX])


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB, (H, W, 3), as PNG (ISO/IEC 15948), beside itself and renamed."""
    height, width, _ = picture.shape
    scanlines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, width * 3)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(scanlines.tobytes(), 6)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    beside.replace(path)
