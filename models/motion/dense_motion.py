"""From the motions of single keypoints to a motion of every pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.hourglass import Hourglass
from models.layers.precision import wide
from models.layers.resampling import AntiAliasDownsample
from models.layers.warps import warp
from models.motion.config import MotionConfig
from models.motion.geometry import gaussians, local_motions
from models.motion.keypoints import Keypoints


class DenseMotion(NamedTuple):
    """The motion of a batch at the scaled size (h, w)."""

    deformation: Tensor
    """Where each pixel is read in the source, (B, h, w, 2)."""
    mask: Tensor
    """Share of each motion, the background's first, sum 1, (B, K+1, h, w)."""
    sparse_deformed: Tensor
    """The source moved by each motion alone, (B, K+1, 3, h, w)."""
    occlusion: Tensor | None
    """In [0, 1], 0 where the source shows nothing of what is needed, (B, 1, h, w)."""


class DenseMotionNetwork(nn.Module):
    """Weighs the local motions against each other for every pixel (Siarohin et al., NeurIPS 2019, section 3.2)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.variance = config.keypoint_variance
        self.align_corners = config.align_corners
        num_motions = config.num_keypoints + 1
        self.hourglass = Hourglass(
            num_motions * 4,
            expansion=config.motion_expansion,
            num_blocks=config.motion_blocks,
            max_features=config.motion_max_features,
        )
        self.mask = nn.Conv2d(self.hourglass.out_channels, num_motions, 7, padding=3)
        self.occlusion: nn.Conv2d | None = None
        if config.estimate_occlusion:
            self.occlusion = nn.Conv2d(self.hourglass.out_channels, 1, 7, padding=3)
        self.down = AntiAliasDownsample(3, config.scale_factor)

    def forward(self, source: Tensor, *, source_keypoints: Keypoints, driving_keypoints: Keypoints) -> DenseMotion:
        """Estimate the motion.

        Args:
            source: frames at the scaled size (what ``down`` makes), (B, 3, h, w).
            source_keypoints: (B, K, ...).
            driving_keypoints: (B, K, ...).

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
        )
        sparse_deformed = self._move_by_each(source, motions)
        heat = self._heat(source_keypoints.value, driving_keypoints.value, height, width)
        features = self.hourglass(torch.cat([heat.unsqueeze(2), sparse_deformed], dim=2).flatten(1, 2))
        mask = torch.softmax(wide(self.mask(features)), dim=1)
        deformation = (motions * mask.unsqueeze(-1)).sum(1)
        occlusion = None if self.occlusion is None else torch.sigmoid(wide(self.occlusion(features)))
        return DenseMotion(deformation, mask, sparse_deformed, occlusion)

    def _heat(self, source: Tensor, driving: Tensor, height: int, width: int) -> Tensor:
        """Driving minus source Gaussians, zero for the background: (B, K+1, h, w)."""
        heat = gaussians(driving, height, width, self.variance) - gaussians(source, height, width, self.variance)
        return torch.cat([torch.zeros_like(heat[:, :1]), heat], dim=1)

    def _move_by_each(self, source: Tensor, motions: Tensor) -> Tensor:
        """(B, 3, h, w) along (B, K+1, h, w, 2) -> (B, K+1, 3, h, w)."""
        batch, num_motions, height, width, _ = motions.shape
        # The motions lie below each other in one tall grid, so that the source need not be repeated for each.
        tall = warp(source, motions.flatten(1, 2), align_corners=self.align_corners)
        return tall.reshape(batch, -1, num_motions, height, width).transpose(1, 2)
