"""The body of the pSp encoder: an IR-SE50, and the heads that turn its features into style codes."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.norms import BatchNorm2d
from models.style.stylegan2.layers import EqualLinear

_REDUCTION = 16
"""Of the channels, inside squeeze and excitation."""


class Excitation(nn.Module):
    """Scales each channel by a weight that follows from the means of all (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // _REDUCTION, 1)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> same."""
        mean = x.mean((2, 3), keepdim=True)
        weights: Tensor = self.fc2(self.fc1(mean).relu()).sigmoid()
        return x * weights


class Unit(nn.Module):
    """A residual unit of IR-SE50 (Deng et al., CVPR 2019), whose second convolution has the stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            narrow = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(narrow, BatchNorm2d(out_channels))
        self.res_layer = nn.Sequential(
            BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            BatchNorm2d(out_channels),
            Excitation(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h / stride, w / stride)."""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class Head(nn.Module):
    """Features to one style code: convolutions of stride 2 down to 1x1, then a linear layer (map2style)."""

    def __init__(self, channels: int, style_dim: int, px: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(px))):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(channels, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, px, px) -> (B, style_dim)."""
        out: Tensor = self.linear(self.convs(x).flatten(1))
        return out


def stages(width: int, units: tuple[int, ...]) -> nn.Sequential:
    """All units of the body, one after another.

    Args:
        width: channels of what comes in and of the first stage; each stage has twice as many as the one before.
        units: how many of each stage; the first of each halves height and width.
    """
    made: list[nn.Module] = []
    before = width
    for stage, count in enumerate(units):
        after = width * 2**stage
        made += [Unit(before, after, 2), *(Unit(after, after, 1) for _ in range(count - 1))]
        before = after
    return nn.Sequential(*made)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """``x`` (B, C, h, w), bilinearly, corner on corner, as high and wide as ``like``, and added to it."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True) + like
