"""The geometry of keypoints: Gaussians, 2x2 matrices, local affine motions."""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.precision import wide
from models.layers.warps import axis, coordinate_grid

_TINY = 1e-12
_FLAT = 1e-6
"""Variance, in squared image units, below which a region is taken for a point or a line."""


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


def gaussians_of(points: Tensor, covariance: Tensor, height: int, width: int) -> Tensor:
    """A picture of each region: a Gaussian of height 1 with the region's covariance.

    Args:
        points: (B, K, 2).
        covariance: (B, K, 2, 2), symmetric.
        height: in pixels.
        width: in pixels.

    Returns:
        (B, K, height, width) in [0, 1]. A region that is a point or a line is pictured with a variance of 1e-6 across.
    """
    points, inverse = wide(points), inverse_2x2(_solid(wide(covariance)))
    x = (axis(width, points) - points[..., 0, None])[..., None, :]
    y = (axis(height, points) - points[..., 1, None])[..., :, None]
    a, b, c = (inverse[..., row, column, None, None] for row, column in ((0, 0), (0, 1), (1, 1)))
    form = a * x.square() + 2 * b * x * y + c * y.square()
    return torch.exp(-0.5 * form.clamp_min(0))


def _solid(covariance: Tensor) -> Tensor:
    """Covariances (..., 2, 2) that can be inverted: flat ones are made a little rounder, others stay as they are."""
    a, b, c = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    flat = a * c - b.square() <= _FLAT * torch.maximum(a, c).clamp_min(_FLAT)
    unit = torch.eye(2, dtype=covariance.dtype, device=covariance.device)
    return torch.where(flat[..., None, None], covariance + _FLAT * unit, covariance)


def principal_axes(covariance: Tensor) -> Tensor:
    """Axes of 2x2 covariances, scaled by the standard deviations along them: U sqrt(S) of their decomposition U S U^T.

    In closed form: U = [[cos t, sin t], [sin t, -cos t]] with t = atan2(2b, a - c) / 2 for [[a, b], [b, c]], the
    larger variance first (Siarohin et al., CVPR 2021, section 3.2). Axes have no direction, so U may be negated; the
    sign is LAPACK's (+ where b > 0 and a^2 + 2b^2 < ac), because published AVD networks have learned from it. Where
    both variances are equal, any t is right, and 0 is taken; variances are kept above 1e-12: slopes stay finite.

    Args:
        covariance: (..., 2, 2), symmetric, in squared image units.

    Returns:
        (..., 2, 2), differentiable.
    """
    covariance = wide(covariance)
    a, b, c = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    across, along = a - c, 2 * b
    round_ = across.square() + along.square() <= _TINY
    one, nothing = torch.ones_like(a), torch.zeros_like(a)
    across, along = torch.where(round_, one, across), torch.where(round_, nothing, along)
    spread = torch.where(round_, nothing, torch.sqrt(across.square() + along.square()))
    turn = torch.atan2(along, across) / 2
    middle = (a + c) / 2
    long = torch.sqrt((middle + spread / 2).clamp_min(_TINY))
    short = torch.sqrt((middle - spread / 2).clamp_min(_TINY))
    sign = torch.where((b > 0) & (a.square() + 2 * b.square() < a * c), one, -one)
    cos, sin = sign * torch.cos(turn), sign * torch.sin(turn)
    return torch.stack([torch.stack([cos * long, sin * short], -1), torch.stack([sin * long, -cos * short], -1)], -2)


def aligned(matrix: Tensor) -> Tensor:
    """The matrix or its negative, whichever has no negative first entry: axes have no direction.

    Args:
        matrix: (..., 2, 2).
    """
    first = matrix[..., :1, :1]
    return matrix * torch.where(first < 0, -torch.ones_like(first), torch.ones_like(first))


def move_grid(grid: Tensor, homography: Tensor) -> Tensor:
    """Points under a motion of the whole picture.

    Args:
        grid: (h, w, 2).
        homography: (B, 3, 3), of homogeneous coordinates.

    Returns:
        (B, h, w, 2).
    """
    m = wide(homography)[:, None, None]
    x, y = grid[..., 0, None], grid[..., 1, None]
    moved = m[..., 0] * x + m[..., 1] * y + m[..., 2]
    return moved[..., :2] / moved[..., 2:]


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
    unsigned: bool = False,
    background: Tensor | None = None,
) -> Tensor:
    """Where each pixel of the driving frame comes from in the source, by each keypoint's motion and by none.

    T(z) = p_s + J_s J_d^-1 (z - p_d), the first-order expansion around each keypoint (Siarohin et al., NeurIPS 2019,
    equation 4); the first motion is the background's.

    Args:
        source: keypoints (B, K, 2).
        driving: keypoints (B, K, 2).
        height: of the grid.
        width: of the grid.
        source_jacobian: (B, K, 2, 2), or None: the motions are translations.
        driving_jacobian: (B, K, 2, 2), or None.
        unsigned: the Jacobians are axes, which have no direction: each motion is taken with its sign `aligned`.
        background: the background's motion, (B, 3, 3); None: it rests.

    Returns:
        (B, K+1, height, width, 2).
    """
    source, driving = wide(source), wide(driving)
    grid = coordinate_grid(height, width, driving)
    moved = grid - driving[:, :, None, None, :]
    if source_jacobian is not None and driving_jacobian is not None:
        ratio = product_2x2(wide(source_jacobian), inverse_2x2(wide(driving_jacobian)))
        ratio = (aligned(ratio) if unsigned else ratio)[:, :, None, None]
        moved = ratio[..., 0] * moved[..., 0, None] + ratio[..., 1] * moved[..., 1, None]
    moved = moved + source[:, :, None, None, :]
    still = grid.expand(moved.shape[0], -1, -1, -1) if background is None else move_grid(grid, background)
    return torch.cat([still.unsqueeze(1), moved], dim=1)
