"""The discriminator of StyleGAN2: residual, with the deviation over a group of pictures as a last feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers.precision import full_precision, wide
from models.style.face_config import FaceConfig
from models.style.stylegan2.layers import EPSILON, BiasedLeaky, Blur, EqualConv, EqualLinear

GROUP = 4
"""Pictures among which a deviation is taken (Karras et al., ICLR 2018, section 3)."""
LAST_PX = 4


class ResBlock(nn.Module):
    """Two 3x3 convolutions to half the size, and a 1x1 one beside them; names as published."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv(in_channels, in_channels, 3), BiasedLeaky(in_channels))
        self.conv2 = nn.Sequential(
            Blur(padding=2), EqualConv(in_channels, out_channels, 3, stride=2), BiasedLeaky(out_channels)
        )
        # Published with the stride in the 1x1 convolution: blurring the pixels that it keeps is enough.
        self.skip = nn.Sequential(Blur(padding=1, stride=2), EqualConv(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        made: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)
        return made


class Discriminator(nn.Module):
    """Pictures to scores: higher is more real."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        width, px = config.channels(config.size_px), config.size_px
        self.convs = nn.Sequential(nn.Sequential(EqualConv(3, width, 1), BiasedLeaky(width)))
        while px > LAST_PX:
            px //= 2
            before, width = width, config.channels(px)
            self.convs.append(ResBlock(before, width))
        self.final_conv = nn.Sequential(EqualConv(width + 1, width, 3), BiasedLeaky(width))
        self.final_linear = nn.Sequential(EqualLinear(width * LAST_PX**2, width, activate=True), EqualLinear(width, 1))

    def features(self, pictures: Tensor) -> Tensor:
        """What it sees in each picture by itself.

        Args:
            pictures: in [0, 1], (B, 3, H, W).

        Returns:
            (B, C, 4, 4).
        """
        seen: Tensor = self.convs(pictures * 2 - 1)
        return seen

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            pictures: in [0, 1], (B, 3, H, W).

        Returns:
            Scores without bounds, in at least 32 bits, (B, 1).
        """
        seen = self.features(pictures)
        with full_precision(seen):
            seen = wide(seen)
            joined = torch.cat([seen, group_deviation(seen)], dim=1)
            scores: Tensor = self.final_linear(self.final_conv(joined).flatten(1))
        return scores


def group_deviation(x: Tensor) -> Tensor:
    """The deviation of features among the pictures of a group, averaged: so that pictures that are all alike show.

    A group takes every (B / size)-th picture; its size is the largest up to `GROUP` that divides the batch.

    Args:
        x: (B, C, h, w).

    Returns:
        (B, 1, h, w), the same number for a whole group.
    """
    batch = x.shape[0]
    size = next(size for size in range(min(GROUP, batch), 0, -1) if batch % size == 0)
    spread = x.reshape(size, batch // size, *x.shape[1:]).var(dim=0, unbiased=False)
    deviation = torch.sqrt(spread + EPSILON).mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1)
    return deviation.repeat(size, 1, *x.shape[2:])
