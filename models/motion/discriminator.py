"""The discriminator: is this patch of the frame real?"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.attention import bottleneck_width
from models.layers.precision import wide
from models.layers.resampling import ImagePyramid
from models.layers.spectral import SpectralConv2d
from models.motion.config import MotionConfig
from models.motion.geometry import gaussians
from models.motion.keypoints import Keypoints


class Judged(NamedTuple):
    """One scale's verdict."""

    features: list[Tensor]
    """What every block makes of the frame, (B, C_i, h_i, w_i)."""
    score: Tensor
    """1 means real, a value a patch, (B, 1, h, w)."""


class Discriminator(nn.Module):
    """A patch discriminator for each scale (Isola et al., CVPR 2017; Wang et al., CVPR 2018)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.pyramid = ImagePyramid(config.discriminator_scales)
        names = [f"{scale:g}".replace(".", "-") for scale in config.discriminator_scales]
        self.discs = nn.ModuleDict({name: _PatchDiscriminator(config) for name in names})

    def forward(self, image: Tensor, keypoints: Keypoints | None = None) -> list[Judged]:
        """Judge frames.

        Args:
            image: in [0, 1], (B, 3, H, W).
            keypoints: the driving frame's, where the configuration says that the discriminator sees them.

        Returns:
            One verdict a scale.
        """
        sizes = self.pyramid(image)
        return [disc(size, keypoints) for disc, size in zip(self.discs.values(), sizes.values(), strict=True)]


class _PatchDiscriminator(nn.Module):
    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.sees_keypoints = config.discriminator_keypoints
        self.variance = config.keypoint_variance
        num, top = config.discriminator_blocks, config.features(config.discriminator_max_features)
        first = config.features(config.discriminator_expansion)
        widths = [3 + config.num_keypoints * self.sees_keypoints]
        widths += [min(top, first * 2 ** (i + 1)) for i in range(num)]
        self.tanh = config.output_activation == "tanh"
        spectral = config.discriminator_norm in ("spectral", "multi")
        instance = config.discriminator_norm in ("instance", "multi")
        self.down_blocks = nn.ModuleList(
            _Block(widths[i], widths[i + 1], norm=instance and i > 0, pool=i < num - 1, spectral=spectral)
            for i in range(num)
        )
        fused = config.discriminator_head == "dual-channel-fusion"
        self.fusion = DualChannelFusion(widths[-1], spectral=spectral) if fused else None
        self.conv = _conv(widths[-1], 1, 1, spectral=spectral)

    def forward(self, image: Tensor, keypoints: Keypoints | None) -> Judged:
        """(B, 3, H, W) -> features and scores."""
        x = image * 2 - 1 if self.tanh else image
        x = self._with_keypoints(x, keypoints) if self.sees_keypoints else x
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        x = x if self.fusion is None else self.fusion(x)
        return Judged(features, wide(self.conv(x)))

    def _with_keypoints(self, image: Tensor, keypoints: Keypoints | None) -> Tensor:
        if keypoints is None:
            fix = "Pass the driving keypoints, or set discriminator_keypoints to false"
            raise ShapeError(must("the discriminator", "be given keypoints", None, fix))
        heat = gaussians(keypoints.value, image.shape[-2], image.shape[-1], self.variance)
        return torch.cat([image, heat.to(image.dtype)], dim=1)


class _Block(nn.Module):
    """4x4 convolution, instance normalisation, leaky ReLU, halved by averaging."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool, pool: bool, spectral: bool) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, 4, spectral=spectral)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, (H-3)/2, (W-3)/2), not halved in the last block."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.leaky_relu(x, 0.2)
        return F.avg_pool2d(x, 2) if self.pool else x


class DualChannelFusion(nn.Module):
    """Adaptive dual-channel fusion: ``x + w1 b1(x) + w2 b2(x)`` ("Dual-Channel Fusion", figure 6, as far as legible).

    b1 is a 3x3 convolution, b2 one of dilation 2; the mean of their sum goes through a bottleneck of a sixteenth of the
    channels to two weights a channel, w1 + w2 = 1. The figure says neither the kernels nor the way to the weights: they
    are this project's reading.
    """

    def __init__(self, channels: int, *, spectral: bool) -> None:
        super().__init__()
        width = bottleneck_width(channels)
        self.near = _conv(channels, channels, 3, spectral=spectral, padding=1)
        self.far = _conv(channels, channels, 3, spectral=spectral, padding=2, dilation=2)
        self.reduce = nn.Linear(channels, width)
        self.expand = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> same."""
        near, far = self.near(x), self.far(x)
        scores = self.expand(F.relu(self.reduce((near + far).mean((-2, -1)))))
        weights = torch.softmax(scores.unflatten(1, (2, -1)), dim=1)[..., None, None]
        fused: Tensor = x + weights[:, 0] * near + weights[:, 1] * far
        return fused


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, *, spectral: bool, padding: int = 0, dilation: int = 1
) -> nn.Module:
    kind = SpectralConv2d if spectral else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
