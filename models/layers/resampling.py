"""Making images smaller without aliasing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import check
from models.layers.precision import full_precision, wide


def gaussian_kernel(scale: float) -> Tensor:
    """The kernel that band-limits an image before it is subsampled by ``1 / scale``.

    Standard deviation (1/scale - 1)/2 pixels, cut at four of them, sum 1.

    Returns:
        (k, k), k odd.
    """
    sigma = (1 / scale - 1) / 2
    radius = round(sigma * 4)
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    line = torch.exp(-at.square() / (2 * sigma**2))
    plane = line[:, None] * line[None, :]
    return plane / plane.sum()


class AntiAliasDownsample(nn.Module):
    """Blur with a Gaussian, then keep every ``1/scale``-th pixel, the first included.

    Only the kept pixels are computed. The kernel is kept as ``weight`` (C, 1, k, k), because published state dicts
    hold it so; a scale of 1 keeps none and does nothing.
    """

    def __init__(self, channels: int, scale: float, *, persistent: bool = True) -> None:
        super().__init__()
        stride = round(1 / scale) if scale > 0 else 0
        check((stride >= 1 and abs(stride * scale - 1) < 1e-6, "scale", scale, "be 1 over a whole number"))
        self.stride = stride
        if stride > 1:
            kernel = gaussian_kernel(scale).expand(channels, 1, -1, -1).contiguous()
            self.register_buffer("weight", kernel, persistent=persistent)
            self.weight: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Downsample.

        Args:
            image: (B, C, H, W).

        Returns:
            (B, C, ceil(H * scale), ceil(W * scale)), in at least 32 bits.
        """
        if self.stride == 1:
            return image
        height, width = image.shape[-2:]
        # One channel a picture: grouped convolutions of three channels are slow everywhere and, in 16 bits, hopeless.
        with full_precision(image):
            planes = wide(image).reshape(-1, 1, height, width)
            small = F.conv2d(planes, self.weight[:1], stride=self.stride, padding=self.weight.shape[-1] // 2)
        return small.reshape(-1, image.shape[1], small.shape[-2], small.shape[-1])


class ImagePyramid(nn.Module):
    """An image at several sizes. Its kernels are no part of a state dict."""

    def __init__(self, scales: Iterable[float], *, channels: int = 3) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.downs = nn.ModuleList(AntiAliasDownsample(channels, scale, persistent=False) for scale in self.scales)

    def forward(self, image: Tensor) -> dict[float, Tensor]:
        """All sizes.

        Args:
            image: (B, C, H, W).

        Returns:
            Scale to image (B, C, H * scale, W * scale).
        """
        return {scale: down(image) for scale, down in zip(self.scales, self.downs, strict=True)}
