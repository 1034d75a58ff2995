"""From the motions of single keypoints to a motion of every pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.attention import Cbam
from models.layers.blocks import UpBlock
from models.layers.hourglass import Hourglass
from models.layers.precision import wide
from models.layers.resampling import AntiAliasDownsample
from models.layers.warps import resize, warp
from models.motion.config import MotionConfig
from models.motion.geometry import gaussians, gaussians_of, local_motions
from models.motion.keypoints import Keypoints


class DenseMotion(NamedTuple):
    """The motion of a batch at the scaled size (h, w)."""

    deformation: Tensor
    """Where each pixel is read in the source, (B, h, w, 2)."""
    mask: Tensor
    """Share of each motion, the background's first, sum 1, (B, K+1, h, w)."""
    sparse_deformed: Tensor
    """The source moved by each motion alone, (B, K+1, 3, h, w)."""
    occlusion: tuple[Tensor, ...]
    """In [0, 1], 0 where the source shows nothing of what is needed, (B, 1, h_i, w_i): none, one, or one for each of
    the generator's sizes, the smallest first."""


class DenseMotionNetwork(nn.Module):
    """Weighs the local motions against each other for every pixel (Siarohin et al., NeurIPS 2019, section 3.2)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.variance = config.keypoint_variance
        self.align_corners = config.align_corners
        self.unsigned = config.motion == "articulated"
        num_motions = config.num_keypoints + 1
        self.hourglass = Hourglass(
            num_motions * 4,
            **config.hourglass("motion"),
            attention=config.hourglass_attention,
            residual=config.hourglass_residual,
        )
        channels = self.hourglass.out_channels
        self.attention: Cbam | None = None
        if config.flow_attention != "none":
            self.attention = Cbam(channels, max_only=config.flow_attention == "max-cbam")
        self.mask = nn.Conv2d(channels, num_motions, 7, padding=3)
        self.occlusion: nn.Module | None = None
        if config.occlusion == "single":
            self.occlusion = nn.Conv2d(channels, 1, 7, padding=3)
        elif config.occlusion == "multi-scale":
            self.occlusion = OcclusionPyramid(channels, config)
        self.down = AntiAliasDownsample(3, config.scale)

    def forward(
        self,
        source: Tensor,
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        background: Tensor | None = None,
    ) -> DenseMotion:
        """Estimate the motion.

        Args:
            source: frames at the scaled size (what ``down`` makes), (B, 3, h, w).
            source_keypoints: (B, K, ...).
            driving_keypoints: (B, K, ...).
            background: the background's motion, (B, 3, 3); None: it rests.

        Returns:
            The motion at that size.
        """
        height, width = source.shape[-2:]
        motions = local_motions(
            source_keypoints.value,
            driving_keypoints.value,
            height=height,
            width=width,
            source_jacobian=source_keypoints.jacobian,
            driving_jacobian=driving_keypoints.jacobian,
            unsigned=self.unsigned,
            background=background,
        )
        sparse_deformed = self._move_by_each(source, motions)
        heat = self._heat(driving_keypoints, height, width) - self._heat(source_keypoints, height, width)
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], dim=1)  # the background has no place
        features = self.hourglass(torch.cat([heat.unsqueeze(2), sparse_deformed], dim=2).flatten(1, 2))
        features = features if self.attention is None else self.attention(features)
        mask = torch.softmax(wide(self.mask(features)), dim=1)
        deformation = (motions * mask.unsqueeze(-1)).sum(1)
        return DenseMotion(deformation, mask, sparse_deformed, self._occlusion(features))

    def _occlusion(self, features: Tensor) -> tuple[Tensor, ...]:
        if self.occlusion is None:
            return ()
        logits = self.occlusion(features)
        logits = logits if isinstance(logits, tuple) else (logits,)
        return tuple(torch.sigmoid(wide(one)) for one in logits)

    def _heat(self, points: Keypoints, height: int, width: int) -> Tensor:
        """Pictures of keypoints or regions, (B, K, h, w)."""
        if points.covariance is not None:
            return gaussians_of(points.value, points.covariance, height, width)
        return gaussians(points.value, height, width, self.variance)

    def _move_by_each(self, source: Tensor, motions: Tensor) -> Tensor:
        """(B, 3, h, w) along (B, K+1, h, w, 2) -> (B, K+1, 3, h, w)."""
        batch, num_motions, height, width, _ = motions.shape
        # The motions lie below each other in one tall grid, so that the source need not be repeated for each.
        tall = warp(source, motions.flatten(1, 2), align_corners=self.align_corners)
        return tall.reshape(batch, -1, num_motions, height, width).transpose(1, 2)


class OcclusionPyramid(nn.Module):
    """An occlusion map for each of the generator's sizes, out of the dense-motion features.

    "Multi-Scale Occlusion" (section 2.3): up blocks (bilinear, 3x3 convolution, batch normalisation, ReLU), and a 1x1
    convolution on every level. The first level has the size of the generator's smallest features: 1/4, 1/2 and 1/1 of
    the frame with two down blocks, at widths C, 64 and 32.
    """

    def __init__(self, in_channels: int, config: MotionConfig) -> None:
        super().__init__()
        num = config.generator_down_blocks
        self.first_px = config.size_px // 2**num
        self.scaled_px = config.scaled_px
        widths = [in_channels, *(max(8, config.features(config.motion_expansion) // 2**i) for i in range(num))]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.up_blocks = nn.ModuleList(UpBlock(before, after, mode="bilinear") for before, after in pairs)
        self.maps = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(B, C, h, w) -> logits (B, 1, h_i, w_i), the smallest first."""
        height, width = (round(size * self.first_px / self.scaled_px) for size in features.shape[-2:])
        level = resize(features, height, width)
        logits = [self.maps[0](level)]
        for block, to_map in zip(self.up_blocks, list(self.maps)[1:], strict=True):
            level = block(level)
            logits.append(to_map(level))
        return tuple(logits)
