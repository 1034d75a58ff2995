"""Keypoints, and the networks that find them without having been shown any."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.hourglass import Hourglass
from models.layers.precision import wide
from models.layers.resampling import AntiAliasDownsample
from models.layers.warps import axis
from models.motion.config import MotionConfig
from models.motion.geometry import principal_axes


class Keypoints(NamedTuple):
    """Keypoints of a batch of frames, and how the picture is stretched and turned around each."""

    value: Tensor
    """(x, y) in [-1, 1], (B, K, 2)."""
    jacobian: Tensor | None
    """(B, K, 2, 2); None where motions are translations. Of a region: its axes, U sqrt(S) of its covariance."""
    covariance: Tensor | None = None
    """Of a region's heat map, in squared image units, (B, K, 2, 2); None for keypoints."""

    def detach(self) -> Keypoints:
        """The same without a graph."""
        return Keypoints(*(None if part is None else part.detach() for part in self))  # type: ignore[arg-type]

    def expand(self, batch: int) -> Keypoints:
        """The keypoints of a single frame for each of ``batch``, without a copy."""
        parts = (None if part is None else part.expand(batch, *part.shape[1:]) for part in self)
        return Keypoints(*parts)  # type: ignore[arg-type]


class Detector(nn.Module):
    """What both kinds of detectors are: an hourglass on small frames, and soft-max heat maps of its features."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.tanh = config.output_activation == "tanh"
        self.predictor = Hourglass(
            3,
            **config.hourglass("detector"),
            attention=config.hourglass_attention,
            residual=config.hourglass_residual,
        )
        self.down = AntiAliasDownsample(3, config.scale)

    def features(self, image: Tensor) -> Tensor:
        """What the hourglass sees in frames (B, 3, H, W) in [0, 1]: (B, C, h, w)."""
        small = self.down(image)
        features: Tensor = self.predictor(small * 2 - 1 if self.tanh else small)
        return features

    def soft_max(self, logits: Tensor) -> Tensor:
        """Heat maps out of logits: over the plane, (B, K, h, w), each map summing to 1."""
        flat = torch.softmax(wide(logits).flatten(2) / self.temperature, dim=-1)
        return flat.reshape(logits.shape)


class KeypointDetector(Detector):
    """Hourglass, soft-max heat maps, expectations (Siarohin et al., NeurIPS 2019, section 3 and supplementary)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__(config)
        channels, padding = self.predictor.out_channels, config.heat_map_padding
        self.kp = nn.Conv2d(channels, config.num_keypoints, 7, padding=padding)
        self.jacobian: nn.Conv2d | None = None
        if config.estimate_jacobian:
            num_maps = 1 if config.single_jacobian_map else config.num_keypoints
            self.jacobian = _identity_conv(channels, num_maps, padding)

    def forward(self, image: Tensor) -> Keypoints:
        """Find the keypoints.

        Args:
            image: frames in [0, 1], (B, 3, H, W).

        Returns:
            Keypoints (B, K, ...).
        """
        features = self.features(image)
        heat = self.soft_max(self.kp(features))
        return Keypoints(expectation(heat), self._jacobians(features, heat))

    def _jacobians(self, features: Tensor, heat: Tensor) -> Tensor | None:
        if self.jacobian is None:
            return None
        batch, num_keypoints, height, width = heat.shape
        maps = wide(self.jacobian(features)).reshape(batch, -1, 4, height, width)
        weighted = (maps * heat.unsqueeze(2)).sum((-2, -1))
        return weighted.reshape(batch, num_keypoints, 2, 2)


class RegionPredictor(Detector):
    """Hourglass, soft-max heat maps, their means, covariances and axes (Siarohin et al., CVPR 2021, section 3.2)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__(config)
        channels = self.predictor.out_channels
        self.regions = nn.Conv2d(channels, config.num_keypoints, 7, padding=config.heat_map_padding)

    def forward(self, image: Tensor) -> Keypoints:
        """Find the regions.

        Args:
            image: frames in [0, 1], (B, 3, H, W).

        Returns:
            Their centres, axes and covariances, (B, K, ...).
        """
        heat = self.soft_max(self.regions(self.features(image)))
        centre = expectation(heat)
        spread = covariance(heat, centre)
        return Keypoints(centre, principal_axes(spread), spread)


def expectation(heat: Tensor) -> Tensor:
    """Mean place of heat maps that sum to 1: (B, K, h, w) -> (B, K, 2), one axis of the plane at a time."""
    across = (heat.sum(-2) * axis(heat.shape[-1], heat)).sum(-1)
    down = (heat.sum(-1) * axis(heat.shape[-2], heat)).sum(-1)
    return torch.stack([across, down], dim=-1)


def covariance(heat: Tensor, centre: Tensor) -> Tensor:
    """Covariance of heat maps that sum to 1.

    Args:
        heat: (B, K, h, w).
        centre: their `expectation`, (B, K, 2).

    Returns:
        (B, K, 2, 2).
    """
    x = axis(heat.shape[-1], heat) - centre[..., 0, None]
    y = axis(heat.shape[-2], heat) - centre[..., 1, None]
    xx = (heat.sum(-2) * x.square()).sum(-1)
    yy = (heat.sum(-1) * y.square()).sum(-1)
    xy = ((heat * x[..., None, :]).sum(-1) * y).sum(-1)
    return torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)


def _identity_conv(in_channels: int, num_maps: int, padding: int) -> nn.Conv2d:
    """A convolution whose output is the identity matrix until it is trained."""
    conv = nn.Conv2d(in_channels, 4 * num_maps, 7, padding=padding)
    assert conv.bias is not None, "nn.Conv2d has a bias by default"
    nn.init.zeros_(conv.weight)
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(num_maps))
    return conv
