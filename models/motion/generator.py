"""The generator: the source's features, moved, and what was hidden, painted in."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock
from models.layers.precision import wide
from models.layers.warps import resize, resize_grid, warp
from models.motion.config import MotionConfig
from models.motion.dense_motion import DenseMotionNetwork
from models.motion.keypoints import Keypoints


class Generated(NamedTuple):
    """What the generator makes of a batch."""

    prediction: Tensor
    """The source in the driving frame's pose, in [0, 1], (B, 3, H, W)."""
    deformed: Tensor
    """The source's pixels, moved and nothing else, (B, 3, H, W)."""
    occlusion: Tensor | None
    """In [0, 1], (B, 1, h, w)."""
    mask: Tensor
    """(B, K+1, h, w)."""
    sparse_deformed: Tensor
    """(B, K+1, 3, h, w)."""
    deformation: Tensor
    """(B, h, w, 2)."""


class EncodedSource(NamedTuple):
    """All that depends on the source alone: computed once, used for every driving frame."""

    frame: Tensor
    """(B, 3, H, W)."""
    small: Tensor
    """At the scaled size, (B, 3, h, w)."""
    features: Tensor
    """(B, C, H/2^d, W/2^d) for d down blocks."""

    def expand(self, batch: int) -> EncodedSource:
        """The same single source for each of ``batch`` driving frames, without a copy."""
        return EncodedSource(*(part.expand(batch, -1, -1, -1) for part in self))


class Generator(nn.Module):
    """Dense motion, and an encoder-decoder whose features it moves (Siarohin et al., NeurIPS 2019, section 3.3)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.align_corners = config.align_corners
        self.output_activation = config.output_activation
        num_down = config.generator_down_blocks
        widths = [min(config.generator_max_features, config.generator_expansion * 2**i) for i in range(num_down + 1)]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.dense_motion_network = DenseMotionNetwork(config)
        self.first = SameBlock(3, widths[0], kernel_size=7)
        self.down_blocks = nn.ModuleList(DownBlock(before, after) for before, after in pairs)
        self.up_blocks = nn.ModuleList(UpBlock(after, before) for before, after in reversed(pairs))
        self.bottleneck = nn.Sequential(
            OrderedDict((f"r{i}", ResidualBlock(widths[-1])) for i in range(config.generator_bottleneck_blocks))
        )
        self.final = nn.Conv2d(widths[0], 3, 7, padding=3)

    def forward(self, source: Tensor, *, source_keypoints: Keypoints, driving_keypoints: Keypoints) -> Generated:
        """Move ``source`` as the keypoints say.

        Args:
            source: frames in [0, 1], (B, 3, H, W).
            source_keypoints: (B, K, ...).
            driving_keypoints: (B, K, ...).

        Returns:
            The generated frames and all that led to them.
        """
        return self.decode(self.encode(source), source_keypoints=source_keypoints, driving_keypoints=driving_keypoints)

    def encode(self, source: Tensor) -> EncodedSource:
        """What depends on the source alone.

        Args:
            source: frames in [0, 1], (B, 3, H, W).
        """
        features = self.first(source)
        for block in self.down_blocks:
            features = block(features)
        return EncodedSource(source, self.dense_motion_network.down(source), features)

    def decode(self, source: EncodedSource, *, source_keypoints: Keypoints, driving_keypoints: Keypoints) -> Generated:
        """Move an encoded source; batch sizes must be equal (see `EncodedSource.expand`)."""
        motion = self.dense_motion_network(
            source.small, source_keypoints=source_keypoints, driving_keypoints=driving_keypoints
        )
        features = self._move(source.features, motion.deformation)
        if motion.occlusion is not None:
            seen = resize(motion.occlusion, features.shape[-2], features.shape[-1])
            features = features * seen.to(features.dtype)
        features = self.bottleneck(features)
        for block in self.up_blocks:
            features = block(features)
        return Generated(
            prediction=self._activate(self.final(features)),
            deformed=self._move(source.frame, motion.deformation),
            occlusion=motion.occlusion,
            mask=motion.mask,
            sparse_deformed=motion.sparse_deformed,
            deformation=motion.deformation,
        )

    def _move(self, maps: Tensor, deformation: Tensor) -> Tensor:
        grid = resize_grid(deformation, maps.shape[-2], maps.shape[-1])
        return warp(maps, grid, align_corners=self.align_corners)

    def _activate(self, x: Tensor) -> Tensor:
        x = wide(x)
        return torch.sigmoid(x) if self.output_activation == "sigmoid" else (torch.tanh(x) + 1) / 2
