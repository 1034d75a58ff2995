"""Coordinate grids, and reading an image along them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.precision import wide


def axis(size: int, like: Tensor) -> Tensor:
    """Positions of ``size`` pixels: -1 and +1 are the centres of the first and last.

    Args:
        size: number of pixels.
        like: gives device and type (at least 32 bits).

    Returns:
        (size,).
    """
    dtype = torch.float32 if like.dtype in (torch.bfloat16, torch.float16) else like.dtype
    return torch.arange(size, device=like.device, dtype=dtype) * (2.0 / max(size - 1, 1)) - 1.0


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """The (x, y) of every pixel.

    Args:
        height: in pixels.
        width: in pixels.
        like: gives device and type (at least 32 bits).

    Returns:
        (height, width, 2), x first.
    """
    x = axis(width, like).expand(height, width)
    y = axis(height, like)[:, None].expand(height, width)
    return torch.stack([x, y], dim=-1)


def warp(
    image: Tensor,
    grid: Tensor,
    *,
    align_corners: bool = False,
    padding: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """Read ``image`` bilinearly at the points of ``grid``.

    Args:
        image: (B, C, H, W).
        grid: where each output pixel is read, (x, y) in [-1, 1], (B, h, w, 2).
        align_corners: whether -1 and +1 mean the centres of the outermost pixels, or their outer edges.
        padding: what lies outside.

    Returns:
        (B, C, h, w), of ``image``'s type; coordinates are never rounded to 16 bits.
    """
    read = F.grid_sample(wide(image), wide(grid), mode="bilinear", padding_mode=padding, align_corners=align_corners)
    return read.to(image.dtype)


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly, pixel edges aligned; the same tensor when it has that size.

    Args:
        maps: (B, C, h, w).
        height: in pixels.
        width: in pixels.

    Returns:
        (B, C, height, width).
    """
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def resize_grid(grid: Tensor, height: int, width: int) -> Tensor:
    """Resize a sampling grid bilinearly.

    Args:
        grid: (B, h, w, 2).
        height: in pixels.
        width: in pixels.

    Returns:
        (B, height, width, 2).
    """
    return resize(grid.permute(0, 3, 1, 2), height, width).permute(0, 2, 3, 1)
