"""Keypoints, and the network that finds them without having been shown any."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.hourglass import Hourglass
from models.layers.precision import wide
from models.layers.resampling import AntiAliasDownsample
from models.layers.warps import axis
from models.motion.config import MotionConfig


class Keypoints(NamedTuple):
    """Keypoints of a batch of frames, and how the picture is stretched and turned around each."""

    value: Tensor
    """(x, y) in [-1, 1], (B, K, 2)."""
    jacobian: Tensor | None
    """(B, K, 2, 2); None where motions are translations."""

    def detach(self) -> Keypoints:
        """The same without a graph."""
        return Keypoints(self.value.detach(), None if self.jacobian is None else self.jacobian.detach())

    def expand(self, batch: int) -> Keypoints:
        """The keypoints of a single frame for each of ``batch``, without a copy."""
        jacobian = None if self.jacobian is None else self.jacobian.expand(batch, -1, -1, -1)
        return Keypoints(self.value.expand(batch, -1, -1), jacobian)


class KeypointDetector(nn.Module):
    """Hourglass, soft-max heat maps, expectations (Siarohin et al., NeurIPS 2019, section 3 and supplementary)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.predictor = Hourglass(
            3,
            expansion=config.detector_expansion,
            num_blocks=config.detector_blocks,
            max_features=config.detector_max_features,
        )
        self.kp = nn.Conv2d(self.predictor.out_channels, config.num_keypoints, 7)
        self.jacobian: nn.Conv2d | None = None
        if config.estimate_jacobian:
            num_maps = 1 if config.single_jacobian_map else config.num_keypoints
            self.jacobian = _identity_conv(self.predictor.out_channels, num_maps)
        self.down = AntiAliasDownsample(3, config.scale_factor)

    def forward(self, image: Tensor) -> Keypoints:
        """Find the keypoints.

        Args:
            image: frames in [0, 1], (B, 3, H, W).

        Returns:
            Keypoints (B, K, ...).
        """
        features = self.predictor(self.down(image))
        heat = self.heat_maps(features)
        # The expectation over the plane, one axis at a time.
        across = (heat.sum(-2) * axis(heat.shape[-1], heat)).sum(-1)
        down = (heat.sum(-1) * axis(heat.shape[-2], heat)).sum(-1)
        return Keypoints(torch.stack([across, down], dim=-1), self._jacobians(features, heat))

    def heat_maps(self, features: Tensor) -> Tensor:
        """Soft-max over the plane.

        Args:
            features: the hourglass's output (B, C, h, w).

        Returns:
            (B, K, h - 6, w - 6), each map summing to 1.
        """
        logits = wide(self.kp(features))
        flat = torch.softmax(logits.flatten(2) / self.temperature, dim=-1)
        return flat.reshape(logits.shape)

    def _jacobians(self, features: Tensor, heat: Tensor) -> Tensor | None:
        if self.jacobian is None:
            return None
        batch, num_keypoints, height, width = heat.shape
        maps = wide(self.jacobian(features)).reshape(batch, -1, 4, height, width)
        weighted = (maps * heat.unsqueeze(2)).sum((-2, -1))
        return weighted.reshape(batch, num_keypoints, 2, 2)


def _identity_conv(in_channels: int, num_maps: int) -> nn.Conv2d:
    """A convolution whose output is the identity matrix until it is trained."""
    conv = nn.Conv2d(in_channels, 4 * num_maps, 7)
    assert conv.bias is not None, "nn.Conv2d has a bias by default"
    nn.init.zeros_(conv.weight)
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(num_maps))
    return conv
