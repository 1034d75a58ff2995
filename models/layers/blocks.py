"""Convolution blocks shared by the networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.norms import BatchNorm2d


class SameBlock(nn.Module):
    """Convolution, batch normalisation, ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class DownBlock(SameBlock):
    """Convolution, batch normalisation, ReLU, halved by averaging."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H/2, W/2)."""
        return F.avg_pool2d(super().forward(x), 2)


class UpBlock(SameBlock):
    """Doubled by repetition, convolution, batch normalisation, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W)."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, added to the input (He et al., ECCV 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = BatchNorm2d(channels)
        self.norm2 = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        inner: Tensor = self.conv1(F.relu(self.norm1(x), inplace=True))
        outer: Tensor = self.conv2(F.relu(self.norm2(inner), inplace=True))
        return x + outer
