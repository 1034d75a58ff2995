"""The known warp of the equivariance losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.motion.equivariance import Transform, draw_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    sigma_affine: float = 0.05
    sigma_tps: float = 0.005
    points_tps: int = 5


def _transform(spread: Spread, batch: int = 3) -> Transform:
    drawn = [draw_parameters(np.random.default_rng(i), spread) for i in range(batch)]
    theta, control = (torch.from_numpy(np.stack(column)) for column in zip(*drawn, strict=True))
    return Transform(theta=theta, control_params=control, points_tps=spread.points_tps)


def test_a_draw_depends_on_its_generator_alone() -> None:
    first, second = (draw_parameters(np.random.default_rng(4), Spread()) for _ in range(2))
    other = draw_parameters(np.random.default_rng(5), Spread())
    assert first.theta.shape == (2, 3)
    assert first.control_params.shape == (1, 25)
    assert first.theta.dtype == first.control_params.dtype == np.float32
    assert np.array_equal(first.theta, second.theta)
    assert np.array_equal(first.control_params, second.control_params)
    assert not np.array_equal(first.theta, other.theta)


def test_no_spread_is_the_identity() -> None:
    transform = _transform(Spread(sigma_affine=0, sigma_tps=0))
    points = torch.rand(3, 7, 2) * 2 - 1
    torch.testing.assert_close(transform.warp_points(points), points)
    torch.testing.assert_close(transform.jacobian(points), torch.eye(2).expand(3, 7, 2, 2))
    image = torch.rand(3, 3, 8, 8)
    still = Transform(theta=transform.theta, control_params=transform.control_params, points_tps=5, align_corners=True)
    torch.testing.assert_close(still.warp_frame(image), image)


def test_the_closed_form_is_the_derivative() -> None:
    transform = _transform(Spread(sigma_affine=0.2, sigma_tps=0.1))
    points = (torch.rand(3, 7, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    warped = transform.warp_points(points)
    rows = [torch.autograd.grad(warped[..., i].sum(), points, retain_graph=True)[0] for i in range(2)]
    torch.testing.assert_close(transform.jacobian(points), torch.stack(rows, dim=-2))


def test_the_jacobian_passes_gradients_to_the_points() -> None:
    transform = _transform(Spread(sigma_tps=0.1))
    points = torch.full((3, 2, 2), 0.3, requires_grad=True)
    transform.jacobian(points).square().sum().backward()
    assert points.grad is not None
    assert points.grad.abs().min() > 0


def test_a_frame_moves_as_its_points_do() -> None:
    """A bright spot lies, in the warped frame, where the warp sends back to the spot."""
    transform = _transform(Spread(sigma_affine=0.1, sigma_tps=0.01), batch=1)
    size = 65
    z = torch.tensor([[[0.25, -0.125]]])
    spot: Tensor = transform.warp_points(z)[0, 0]
    axis = torch.linspace(-1, 1, size)
    distance = (axis[None, :] - spot[0]).square() + (axis[:, None] - spot[1]).square()
    image = torch.exp(-distance / 0.01)[None, None]
    aligned = Transform(
        theta=transform.theta, control_params=transform.control_params, points_tps=5, align_corners=True
    )
    brightest = aligned.warp_frame(image).flatten().argmax().item()
    row, column = divmod(int(brightest), size)
    assert abs(axis[column].item() - 0.25) < 2.1 / size
    assert abs(axis[row].item() + 0.125) < 2.1 / size
