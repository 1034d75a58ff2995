"""The known warp of the equivariance losses: random affine map plus thin-plate spline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.layers.warps import coordinate_grid, warp

_EPSILON = 1e-6


class Spread(Protocol):
    """How strong the random warps are."""

    @property
    def sigma_affine(self) -> float:
        """Standard deviation of the affine map's six numbers around the identity."""

    @property
    def sigma_tps(self) -> float:
        """Standard deviation of the spline's weights."""

    @property
    def points_tps(self) -> int:
        """Control points on each side of the spline's square grid."""


class Parameters(NamedTuple):
    """One sample's warp."""

    theta: NDArray[np.float32]
    """(2, 3)."""
    control_params: NDArray[np.float32]
    """(1, P * P)."""


def draw_parameters(rng: np.random.Generator, spread: Spread) -> Parameters:
    """Draw one sample's warp.

    Args:
        rng: keyed by the sample, so that the warp does not depend on which worker sees it.
        spread: how strong.
    """
    theta = np.eye(2, 3) + rng.normal(0.0, spread.sigma_affine, (2, 3))
    control = rng.normal(0.0, spread.sigma_tps, (1, spread.points_tps**2))
    return Parameters(theta.astype(np.float32), control.astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A batch of warps T(z) = A z + b + sum_i w_i r(z - c_i), r(d) = |d|^2 log(|d| + 1e-6), |d| in the L1 norm.

    Siarohin et al., NeurIPS 2019, section 3.1 and supplementary: the radial term is added to both coordinates.
    """

    theta: Tensor
    """A and b, (B, 2, 3)."""
    control_params: Tensor
    """w, (B, 1, P * P)."""
    points_tps: int
    """P; the control points c_i form a P x P grid over the picture."""
    align_corners: bool = False
    """Convention of the warp of frames."""

    def warp_frame(self, image: Tensor) -> Tensor:
        """Warp frames; the outside is their reflection.

        Args:
            image: (B, 3, H, W).

        Returns:
            Same shape.
        """
        height, width = image.shape[-2:]
        grid = coordinate_grid(height, width, self.theta).reshape(1, height * width, 2)
        moved = self.warp_points(grid).reshape(-1, height, width, 2)
        return warp(image, moved, align_corners=self.align_corners, padding="reflection")

    def warp_points(self, points: Tensor) -> Tensor:
        """T of points.

        Args:
            points: (B, n, 2), or (1, n, 2) for the same points everywhere.

        Returns:
            (B, n, 2).
        """
        theta = self.theta[:, None]
        affine = theta[..., 0] * points[..., 0, None] + theta[..., 1] * points[..., 1, None] + theta[..., 2]
        distance = self._offsets(points).abs().sum(-1)
        radial = distance.square() * torch.log(distance + _EPSILON) * self.control_params
        return affine + radial.sum(-1, keepdim=True)

    def jacobian(self, points: Tensor) -> Tensor:
        """dT/dz at points, in closed form; rows are T's coordinates.

        Args:
            points: (B, n, 2).

        Returns:
            (B, n, 2, 2), differentiable in ``points``.
        """
        offsets = self._offsets(points)
        distance = offsets.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + _EPSILON) + distance.square() / (distance + _EPSILON)
        radial = ((slope * self.control_params).unsqueeze(-1) * offsets.sign()).sum(-2)
        return self.theta[:, None, :, :2] + radial[..., None, :]

    def _offsets(self, points: Tensor) -> Tensor:
        """From every control point: (B, n, P * P, 2)."""
        grid = coordinate_grid(self.points_tps, self.points_tps, points).reshape(1, 1, -1, 2)
        return points.unsqueeze(-2) - grid
