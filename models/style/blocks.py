"""Parts of the stylising generators. None has biases unless it says so: a normalisation follows."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.names import SampleNormName
from models.layers.sample_norms import NORMS

LEAK = 0.2
Activation = Literal["leaky", "relu", "none"]


class Conv(nn.Module):
    """Convolution, normalisation, activation; the picture is continued beyond its border by reflection."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        norm: SampleNormName | None,
        activation: Activation = "leaky",
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = reflected(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias)
        self.norm = None if norm is None else NORMS[norm](out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return activated(x, self.activation)


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, a 1x1 convolution, normalisation, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: SampleNormName, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = reflected(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.pointwise = Conv(in_channels, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class Down(nn.Module):
    """Half the size: a `Separable` of stride 2, to which another of the reduced picture may be added (AnimeGAN)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: SampleNormName, branch: bool) -> None:
        super().__init__()
        self.strided = Separable(in_channels, out_channels, norm=norm, stride=2)
        self.reduced = Separable(in_channels, out_channels, norm=norm) if branch else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        out: Tensor = self.strided(x)
        return out if self.reduced is None else out + self.reduced(F.avg_pool2d(x, 2))


class Up(nn.Module):
    """Twice the size, bilinearly, then a block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W)."""
        out: Tensor = self.block(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        return out


class Inverted(nn.Module):
    """Widen, convolve each channel, narrow (Sandler et al., CVPR 2018); added to its input where the channels agree."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: SampleNormName, expansion: int = 2, bias: bool = False
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = Conv(in_channels, inner, 1, norm=norm)
        self.depthwise = Conv(inner, inner, groups=inner, norm=norm, bias=bias)
        self.project = Conv(inner, out_channels, 1, norm=norm, activation="none")
        self.residual = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class Residual(nn.Module):
    """Two convolutions, added to their input (He et al., CVPR 2016)."""

    def __init__(self, channels: int, *, norm: SampleNormName, bias: bool = False) -> None:
        super().__init__()
        self.first = Conv(channels, channels, norm=norm, activation="relu", bias=bias)
        self.second = Conv(channels, channels, norm=norm, activation="none", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        out: Tensor = x + self.second(self.first(x))
        return out


def reflected(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the size (over its stride) by reflecting the border; 1x1 has no border."""
    options = {"padding": kernel_size // 2, "padding_mode": "reflect"} if kernel_size > 1 else {}
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias, **options)  # type: ignore[arg-type]


def activated(x: Tensor, activation: Activation) -> Tensor:
    """In place where there is anything to do."""
    if activation == "leaky":
        return F.leaky_relu(x, LEAK, inplace=True)
    return F.relu(x, inplace=True) if activation == "relu" else x
