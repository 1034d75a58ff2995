"""Attention on feature maps: what to look at, channel by channel and place by place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.norms import BatchNorm2d
from models.layers.precision import full_precision, wide

REDUCTION = 16
"""Channels over the width of a bottleneck."""


def bottleneck_width(channels: int) -> int:
    """Width of a bottleneck over ``channels``: a sixteenth, 1 or more."""
    return max(1, channels // REDUCTION)


class ChannelAttention(nn.Module):
    """Weights of channels out of their means, ``x + w x`` ("Animation Synthesis Through Dual-Channel Fusion").

    Average pool to one pixel, then convolution C to C/16, batch normalisation, ReLU, convolution C/16 to C, ReLU,
    sigmoid; 1x1 convolutions. The last ReLU leaves weights in [0.5, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = bottleneck_width(channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.norm = BatchNorm2d(width)
        self.expand = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same; in train mode B of all workers together must be 2 or more."""
        with full_precision(x):
            pooled = self.reduce(wide(x).mean((-2, -1), keepdim=True))
            weight = torch.sigmoid(F.relu(self.expand(F.relu(self.norm(pooled)))))
        return x + x * weight.to(x.dtype)


class ScSE(nn.Module):
    """Concurrent squeeze and excitation in space and channel (Roy et al., MICCAI 2018): ``x c + x s``.

    c: mean of each channel, two fully connected layers, sigmoid; s: 1x1 convolution, sigmoid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = bottleneck_width(channels)
        self.reduce = nn.Linear(channels, width)
        self.expand = nn.Linear(width, channels)
        self.place = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        channel = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((-2, -1))))))
        return x * (channel[..., None, None] + torch.sigmoid(self.place(x)))


class Cbam(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): channels first, then places.

    Published: W_c = sigmoid(MLP(mean) + MLP(max)). ``max_only``, equation 8 of "Image Animation ... Multi-Scale
    Occlusion": W_c = sigmoid(2 MLP(max)). Places, equation 9: W_s = sigmoid(conv7x7([mean; max] over channels)).
    """

    def __init__(self, channels: int, *, max_only: bool = False) -> None:
        super().__init__()
        width = bottleneck_width(channels)
        self.max_only = max_only
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.place = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        peak = self.mlp(x.amax((-2, -1)))
        score = 2.0 * peak if self.max_only else peak + self.mlp(x.mean((-2, -1)))
        x = x * torch.sigmoid(score)[..., None, None].to(x.dtype)
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.place(pooled)).to(x.dtype)


def attention(kind: str, channels: int) -> nn.Module | None:
    """The block called ``kind``, or None for ``none``."""
    if kind == "none":
        return None
    blocks: dict[str, type[nn.Module]] = {"channel": ChannelAttention, "scse": ScSE}
    return blocks[kind](channels)
