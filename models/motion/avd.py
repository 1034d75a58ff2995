"""Animation via disentanglement (AVD): the pose of one, the shape of another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.norms import BatchNorm1d
from models.layers.precision import full_precision, wide
from models.motion.config import MotionConfig
from models.motion.geometry import inverse_2x2, product_2x2
from models.motion.keypoints import Keypoints

_WIDTHS = (256, 512, 1024)


class AvdNetwork(nn.Module):
    """Two encoders and a decoder of regions (Siarohin et al., CVPR 2021, section 3.5).

    Regions enter as their centres and axes, 6 numbers each, the identity's axes turned to the side of the pose's.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.num_keypoints = config.num_keypoints
        size = 6 * config.num_keypoints
        self.id_encoder = _layers(size, *_WIDTHS, config.avd_identity_features)
        self.pose_encoder = _layers(size, *_WIDTHS, config.avd_pose_features)
        joined = config.avd_identity_features + config.avd_pose_features
        self.decoder = _layers(joined, *reversed(_WIDTHS), size)

    def forward(self, identity: Keypoints, pose: Keypoints) -> Keypoints:
        """Regions of ``identity``'s shape in ``pose``'s pose.

        Args:
            identity: regions (B, K, ...) of whom to move.
            pose: likewise of whose pose to take.

        Returns:
            Regions (B, K, ...); their covariance is their axes' product with its transpose.
        """
        with full_precision(identity.value):
            axes = _axes(identity)
            between = product_2x2(axes, inverse_2x2(_axes(pose)))
            turned = torch.where(between[..., :1, :1] < 0, -axes, axes)
            codes = [self.pose_encoder(_numbers(pose.value, _axes(pose)))]
            codes += [self.id_encoder(_numbers(identity.value, turned))]
            numbers = self.decoder(torch.cat(codes, dim=-1)).reshape(-1, self.num_keypoints, 6)
        axes = numbers[..., 2:].reshape(-1, self.num_keypoints, 2, 2)
        return Keypoints(numbers[..., :2], axes, product_2x2(axes, axes.transpose(-1, -2)))


def _axes(regions: Keypoints) -> Tensor:
    assert regions.jacobian is not None, "regions have axes"
    return wide(regions.jacobian)


def _numbers(centres: Tensor, axes: Tensor) -> Tensor:
    """(B, K, 2) and (B, K, 2, 2) -> (B, 6 K)."""
    return torch.cat([wide(centres), axes.flatten(-2)], dim=-1).flatten(1)


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers with batch normalisation and ReLU between them."""
    parts: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        parts += [nn.Linear(before, after), BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-2], widths[-1]))
