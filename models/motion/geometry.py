"""The geometry of keypoints: Gaussians, 2x2 matrices, local affine motions."""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.precision import wide
from models.layers.warps import axis, coordinate_grid


def gaussians(points: Tensor, height: int, width: int, variance: float) -> Tensor:
    """A picture of each point: an isotropic Gaussian of height 1.

    Args:
        points: (B, K, 2).
        height: in pixels.
        width: in pixels.
        variance: in squared image units.

    Returns:
        (B, K, height, width) in (0, 1].
    """
    points = wide(points)
    # A Gaussian of the plane is the product of two Gaussians of a line.
    across = torch.exp((axis(width, points) - points[..., 0, None]).square() * (-0.5 / variance))
    down = torch.exp((axis(height, points) - points[..., 1, None]).square() * (-0.5 / variance))
    return down[..., :, None] * across[..., None, :]


def inverse_2x2(matrix: Tensor) -> Tensor:
    """Inverse in closed form: exact enough, differentiable, and within what ONNX knows.

    Args:
        matrix: (..., 2, 2).

    Returns:
        (..., 2, 2).
    """
    a, b = matrix[..., 0, 0], matrix[..., 0, 1]
    c, d = matrix[..., 1, 0], matrix[..., 1, 1]
    adjugate = torch.stack([torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)], dim=-2)
    return adjugate / (a * d - b * c)[..., None, None]


def product_2x2(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product without a matrix multiplication, which mixed precision would round to 16 bits.

    Args:
        left: (..., 2, 2).
        right: (..., 2, 2).

    Returns:
        (..., 2, 2).
    """
    return left[..., :, 0, None] * right[..., None, 0, :] + left[..., :, 1, None] * right[..., None, 1, :]


def local_motions(
    source: Tensor,
    driving: Tensor,
    *,
    height: int,
    width: int,
    source_jacobian: Tensor | None = None,
    driving_jacobian: Tensor | None = None,
) -> Tensor:
    """Where each pixel of the driving frame comes from in the source, by each keypoint's motion and by none.

    T(z) = p_s + J_s J_d^-1 (z - p_d), the first-order expansion around each keypoint (Siarohin et al., NeurIPS 2019,
    equation 4); the first motion is the identity, for the background.

    Args:
        source: keypoints (B, K, 2).
        driving: keypoints (B, K, 2).
        height: of the grid.
        width: of the grid.
        source_jacobian: (B, K, 2, 2), or None: the motions are translations.
        driving_jacobian: (B, K, 2, 2), or None.

    Returns:
        (B, K+1, height, width, 2).
    """
    source, driving = wide(source), wide(driving)
    grid = coordinate_grid(height, width, driving)
    moved = grid - driving[:, :, None, None, :]
    if source_jacobian is not None and driving_jacobian is not None:
        ratio = product_2x2(wide(source_jacobian), inverse_2x2(wide(driving_jacobian)))[:, :, None, None]
        moved = ratio[..., 0] * moved[..., 0, None] + ratio[..., 1] * moved[..., 1, None]
    moved = moved + source[:, :, None, None, :]
    identity = grid.expand(moved.shape[0], 1, -1, -1, -1)
    return torch.cat([identity, moved], dim=1)
