"""The generator: the source's features, moved, and what was hidden, painted in."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.blocks import DownBlock, NarrowConv2d, ResidualBlock, SameBlock, UpBlock
from models.layers.precision import wide
from models.layers.warps import resize, resize_grid, warp
from models.motion.config import MotionConfig
from models.motion.dense_motion import DenseMotion, DenseMotionNetwork
from models.motion.keypoints import Keypoints


class Generated(NamedTuple):
    """What the generator makes of a batch."""

    prediction: Tensor
    """The source in the driving frame's pose, in [0, 1], (B, 3, H, W)."""
    deformed: Tensor
    """The source's pixels, moved and nothing else, (B, 3, H, W)."""
    motion: DenseMotion
    """What moved it, at the scaled size (h, w)."""


class EncodedSource(NamedTuple):
    """All that depends on the source alone: computed once, used for every driving frame."""

    frame: Tensor
    """(B, 3, H, W)."""
    small: Tensor
    """At the scaled size, (B, 3, h, w)."""
    features: tuple[Tensor, ...]
    """(B, C_i, H/2^i, W/2^i) for i = 0 to d down blocks; the last alone where the generator has no skips."""

    def expand(self, batch: int) -> EncodedSource:
        """The same single source for each of ``batch`` driving frames, without a copy."""
        features = tuple(part.expand(batch, -1, -1, -1) for part in self.features)
        return EncodedSource(self.frame.expand(batch, -1, -1, -1), self.small.expand(batch, -1, -1, -1), features)


class Generator(nn.Module):
    """Dense motion, and an encoder-decoder whose features it moves.

    Siarohin et al., NeurIPS 2019, section 3.3; with ``generator_skips`` the one of Siarohin et al., CVPR 2021; with
    multi-scale occlusion the one of "Multi-Scale Occlusion", section 2.4, equation 13.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.align_corners = config.align_corners
        self.tanh = config.output_activation == "tanh"
        self.skips = config.generator_skips
        self.late = config.occlusion == "multi-scale" and not self.skips
        num_down = config.generator_down_blocks
        top, first = config.features(config.generator_max_features), config.features(config.generator_expansion)
        widths = [min(top, first * 2**i) for i in range(num_down + 1)]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        residual, attention = config.generator_residual, config.generator_attention
        raised = attention if residual else "none"
        rates = config.generator_dilations or (1,)
        self.dense_motion_network = DenseMotionNetwork(config)
        self.first = SameBlock(3, widths[0], kernel_size=7)
        self.down_blocks = nn.ModuleList(DownBlock(before, after, residual=residual) for before, after in pairs)
        self.up_blocks = nn.ModuleList(
            UpBlock(after, before, residual=residual, attention=raised) for before, after in reversed(pairs)
        )
        self.bottleneck = nn.Sequential(
            OrderedDict(
                (f"r{i}", ResidualBlock(widths[-1], dilation=rates[i % len(rates)], attention=attention))
                for i in range(config.generator_bottleneck_blocks)
            )
        )
        self.final = NarrowConv2d(widths[0], 3, 7)

    def forward(
        self,
        source: Tensor,
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        background: Tensor | None = None,
    ) -> Generated:
        """Move ``source`` as the keypoints say.

        Args:
            source: frames in [0, 1], (B, 3, H, W).
            source_keypoints: (B, K, ...).
            driving_keypoints: (B, K, ...).
            background: the background's motion, (B, 3, 3); None: it rests.

        Returns:
            The generated frames and all that led to them.
        """
        return self.decode(
            self.encode(source),
            source_keypoints=source_keypoints,
            driving_keypoints=driving_keypoints,
            background=background,
        )

    def encode(self, source: Tensor) -> EncodedSource:
        """What depends on the source alone.

        Args:
            source: frames in [0, 1], (B, 3, H, W).
        """
        inner = source * 2 - 1 if self.tanh else source
        levels = [self.first(inner)]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        kept = levels if self.skips else levels[-1:]
        return EncodedSource(source, self.dense_motion_network.down(inner), tuple(kept))

    def decode(
        self,
        source: EncodedSource,
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        background: Tensor | None = None,
    ) -> Generated:
        """Move an encoded source; batch sizes must be equal (see `EncodedSource.expand`)."""
        motion = self.dense_motion_network(
            source.small,
            source_keypoints=source_keypoints,
            driving_keypoints=driving_keypoints,
            background=background,
        )
        deformed = self._move(source.frame, motion.deformation)
        painted = self._paint(source, motion)
        prediction = self._blend(deformed, painted, motion, -1) if self.skips else painted
        return Generated(prediction=prediction, deformed=deformed, motion=motion)

    def _paint(self, source: EncodedSource, motion: DenseMotion) -> Tensor:
        x = self._move(source.features[-1], motion.deformation)
        x = x if self.late else _seen(x, motion, 0)
        x = self.bottleneck(x)
        x = _seen(x, motion, 0) if self.late else x
        for i, block in enumerate(self.up_blocks):
            x = self._fill(x, source, motion, i) if self.skips else x
            x = block(x)
            x = _seen(x, motion, i + 1) if self.late else x
        x = self._fill(x, source, motion, len(self.up_blocks)) if self.skips else x
        x = wide(self.final(x))
        return (torch.tanh(x) + 1) / 2 if self.tanh else torch.sigmoid(x)

    def _fill(self, x: Tensor, source: EncodedSource, motion: DenseMotion, level: int) -> Tensor:
        """The source's moved features where they are seen, the decoder's elsewhere."""
        return self._blend(self._move(source.features[-1 - level], motion.deformation), x, motion, level)

    def _blend(self, moved: Tensor, painted: Tensor, motion: DenseMotion, level: int) -> Tensor:
        seen = _map(motion, level, moved)
        return moved * seen + painted * (1 - seen)

    def _move(self, maps: Tensor, deformation: Tensor) -> Tensor:
        grid = resize_grid(deformation, maps.shape[-2], maps.shape[-1])
        return warp(maps, grid, align_corners=self.align_corners)


def _seen(x: Tensor, motion: DenseMotion, level: int) -> Tensor:
    """Features times the occlusion map of their level, if there is any."""
    return x * _map(motion, level, x) if motion.occlusion else x


def _map(motion: DenseMotion, level: int, like: Tensor) -> Tensor:
    """The occlusion map for a level (0 the smallest), at the size and in the type of ``like``."""
    maps = motion.occlusion
    chosen = maps[level] if len(maps) > 1 else maps[0]
    return resize(chosen, like.shape[-2], like.shape[-1]).to(like.dtype)
