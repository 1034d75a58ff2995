"""Regions: their axes in closed form, the background's motion, AVD; attention written out; counts of all presets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.catalog import MODELS, presets_of
from models.layers.attention import Cbam, ChannelAttention, ScSE
from models.motion.background import BackgroundPredictor
from models.motion.config import MotionConfig
from models.motion.discriminator import DualChannelFusion
from models.motion.geometry import aligned, gaussians, gaussians_of, local_motions, move_grid, principal_axes
from models.motion.keypoints import Keypoints, covariance, expectation
from models.motion.networks import build, debug_config


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _covariances(number: int, spread: float = 0.3) -> Tensor:
    root = torch.randn(number, 2, 2, dtype=torch.float64) * spread
    return root @ root.transpose(1, 2) + 1e-6 * torch.eye(2, dtype=torch.float64)


# ---- axes


def test_axes_equal_a_librarys_decomposition_sign_and_all() -> None:
    given = _covariances(20_000)
    left, values, _ = torch.linalg.svd(given)
    torch.testing.assert_close(principal_axes(given), left * values.sqrt()[:, None], rtol=1e-7, atol=1e-7)


def test_axes_give_the_covariance_back() -> None:
    given = _covariances(1_000)
    axes = principal_axes(given)
    torch.testing.assert_close(axes @ axes.transpose(1, 2), given)


def test_gradients_of_axes() -> None:
    given = _covariances(6) + 0.05 * torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))

    def through(entries: Tensor) -> Tensor:
        a, b, c = entries.unbind(-1)
        return principal_axes(torch.stack([torch.stack([a, b], -1), torch.stack([b, c], -1)], -2))

    entries = torch.stack([given[:, 0, 0], given[:, 0, 1], given[:, 1, 1]], -1).requires_grad_()
    assert torch.autograd.gradcheck(through, entries)


@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.2])
def test_axes_of_a_circle_or_a_point_have_finite_slopes(spread: float) -> None:
    given = (spread * torch.eye(2)).requires_grad_()
    axes = principal_axes(given)
    axes.square().sum().backward()
    assert axes.isfinite().all()
    assert given.grad is not None
    assert given.grad.isfinite().all()


def test_moments_of_a_heat_map() -> None:
    heat = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    heat = heat / heat.sum((-2, -1), keepdim=True)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, 9, dtype=torch.float64), torch.linspace(-1, 1, 11, dtype=torch.float64), indexing="ij"
    )
    places = torch.stack([x, y], -1)
    centre = (heat[..., None] * places).sum((2, 3))
    away = places - centre[:, :, None, None]
    wanted = (heat[..., None, None] * away[..., :, None] * away[..., None, :]).sum((2, 3))
    torch.testing.assert_close(expectation(heat), centre)
    torch.testing.assert_close(covariance(heat, centre), wanted)
    assert torch.autograd.gradcheck(lambda h: covariance(h, expectation(h)), heat[:1, :1].clone().requires_grad_())


def test_a_round_region_is_pictured_like_a_keypoint() -> None:
    points = torch.rand(2, 3, 2) - 0.5
    spread = 0.01 * torch.eye(2).expand(2, 3, 2, 2)
    torch.testing.assert_close(gaussians_of(points, spread, 12, 10), gaussians(points, 12, 10, 0.01))


def test_a_tilted_region_is_pictured_along_its_axis() -> None:
    tilted = torch.tensor([[[[0.05, 0.04], [0.04, 0.05]]]])
    picture = gaussians_of(torch.zeros(1, 1, 2), tilted, 21, 21)[0, 0]
    assert picture[15, 15] > 2 * picture[15, 5]
    assert picture[10, 10] == pytest.approx(1.0)


@pytest.mark.parametrize("spread", [torch.zeros(2, 2), torch.ones(2, 2) * 0.3, torch.tensor([[0.2, 0.0], [0.0, 0.0]])])
def test_a_region_that_is_a_point_or_a_line_is_pictured_thin_and_finite(spread: Tensor) -> None:
    spread = spread.expand(1, 1, 2, 2).clone().requires_grad_(True)
    points = torch.zeros(1, 1, 2, requires_grad=True)
    picture = gaussians_of(points, spread, 21, 21)
    assert bool(picture.isfinite().all())
    assert float(picture.detach().max()) <= 1
    assert float(picture.detach()[0, 0, 10, 10]) == pytest.approx(1.0)
    picture.square().sum().backward()
    assert spread.grad is not None
    assert points.grad is not None
    assert bool(spread.grad.isfinite().all() and points.grad.isfinite().all())


def test_a_sharp_heat_map_makes_a_finite_frame() -> None:
    torch.manual_seed(0)
    networks = build(debug_config(**MODELS["articulated"].model))
    for parameter in networks["keypoint_detector"].regions.parameters():  # type: ignore[union-attr, operator]
        parameter.data *= 2000
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = networks["keypoint_detector"].eval()(frames)
        made = networks["generator"].eval()(frames, source_keypoints=found, driving_keypoints=found)
    assert bool(made.prediction.isfinite().all())


# ---- motions


def test_signs_of_axes_cancel_in_the_motions() -> None:
    source, driving = torch.rand(1, 4, 2), torch.rand(1, 4, 2)
    one, other = (principal_axes(_covariances(4))[None] for _ in range(2))
    options: dict[str, Any] = {"height": 8, "width": 8, "unsigned": True, "driving_jacobian": other}
    plain = local_motions(source, driving, source_jacobian=one, **options)
    turned = local_motions(source, driving, source_jacobian=-one, **options)
    torch.testing.assert_close(plain, turned)


def test_aligned_keeps_a_matrix_whose_first_entry_is_nothing() -> None:
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert torch.equal(aligned(matrix), matrix)


def test_the_first_motion_is_the_backgrounds() -> None:
    points = torch.zeros(1, 2, 2)
    shift = torch.eye(3)[None].clone()
    shift[0, 0, 2] = 0.25
    moved = local_motions(points, points, height=4, width=4, background=shift)[:, 0]
    still = local_motions(points, points, height=4, width=4)[:, 0]
    torch.testing.assert_close(moved - still, torch.tensor([0.25, 0.0]).expand(1, 4, 4, 2))


def test_a_homography_divides() -> None:
    grid = torch.rand(3, 4, 2)
    homography = torch.eye(3)[None] + 0.1 * torch.rand(1, 3, 3)
    ones = torch.cat([grid, torch.ones(3, 4, 1)], -1)
    wanted = torch.einsum("ij,hwj->hwi", homography[0], ones)
    torch.testing.assert_close(move_grid(grid, homography)[0], wanted[..., :2] / wanted[..., 2:])


@pytest.mark.parametrize("kind", ["shift", "affine", "perspective"])
def test_an_untrained_background_rests(kind: Any) -> None:
    predictor = BackgroundPredictor(debug_config(background=kind))
    found = predictor(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(found, torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize(("kind", "free"), [("shift", 2), ("affine", 6), ("perspective", 8)])
def test_a_background_has_as_many_numbers_as_its_kind(kind: Any, free: int) -> None:
    predictor = BackgroundPredictor(debug_config(background=kind))
    numbers = torch.rand(1, free)
    made = predictor._matrix(numbers)
    still = predictor._matrix(torch.zeros(1, free))
    assert int((made != still).sum()) == free
    assert made[0, 2, 2] == 1


# ---- AVD


def test_avd_turns_the_identity_to_the_poses_side() -> None:
    network = build(debug_config(motion="articulated", avd=True))["avd"].eval()
    spread = _covariances(3).float()[None]
    pose = Keypoints(torch.rand(1, 3, 2), principal_axes(spread), spread)
    identity = Keypoints(torch.rand(1, 3, 2), principal_axes(spread.flip(1)), spread.flip(1))
    turned = Keypoints(identity.value, -identity.jacobian, identity.covariance)  # type: ignore[operator]
    plain, other = network(identity, pose), network(turned, pose)
    torch.testing.assert_close(plain.jacobian, other.jacobian)
    torch.testing.assert_close(plain.covariance, plain.jacobian @ plain.jacobian.transpose(-1, -2))


# ---- attention, written out


def test_channel_attention_by_its_definition() -> None:
    block = ChannelAttention(32).eval()
    x = torch.randn(2, 32, 5, 5)
    pooled = F.conv2d(x.mean((2, 3), keepdim=True), block.reduce.weight, block.reduce.bias) / math.sqrt(1 + 1e-5)
    weight = torch.sigmoid(F.relu(F.conv2d(F.relu(pooled), block.expand.weight, block.expand.bias)))
    torch.testing.assert_close(block(x), x + weight * x)
    assert weight.min() >= 0.5


def test_scse_by_its_definition() -> None:
    block = ScSE(32)
    x = torch.randn(2, 32, 5, 5)
    hidden = F.relu(x.mean((2, 3)) @ block.reduce.weight.T + block.reduce.bias)
    channel = torch.sigmoid(hidden @ block.expand.weight.T + block.expand.bias)
    place = torch.sigmoid((x * block.place.weight[0]).sum(1, keepdim=True) + block.place.bias)
    torch.testing.assert_close(block(x), x * channel[:, :, None, None] + x * place)


@pytest.mark.parametrize("max_only", [True, False])
def test_cbam_by_its_equations(max_only: bool) -> None:
    block = Cbam(32, max_only=max_only)
    x = torch.randn(2, 32, 9, 9)
    peak, mean = x.amax((2, 3)), x.mean((2, 3))
    score = 2 * block.mlp(peak) if max_only else block.mlp(peak) + block.mlp(mean)
    refined = x * torch.sigmoid(score)[:, :, None, None]
    pooled = torch.stack([refined.mean(1), refined.amax(1)], 1)
    wanted = refined * torch.sigmoid(F.conv2d(pooled, block.place.weight, padding=3))
    torch.testing.assert_close(block(x), wanted)


def test_the_fusions_weights_sum_to_one() -> None:
    block = DualChannelFusion(16, spectral=False)
    x = torch.randn(2, 16, 6, 6)
    with torch.no_grad():
        block.far.load_state_dict(block.near.state_dict())
        block.far.dilation, block.far.padding = (1, 1), (1, 1)  # both branches alike: the weights no longer matter
    torch.testing.assert_close(block(x), x + block.near(x))


# ---- counts

COUNTS: dict[str, dict[str, int]] = {
    "fomm": {"generator": 45_575_391, "keypoint_detector": 14_215_368, "discriminator": 2_758_849},
    "articulated": {
        "generator": 45_575_391,
        "keypoint_detector": 14_146_728,
        "background_predictor": 6_282_438,
        "avd": 2_290_620,
    },
    "dcf": {"generator": 46_060_987, "keypoint_detector": 14_437_142, "discriminator": 7_528_673},
    "jam": {
        "generator": 116_768_724,
        "keypoint_detector": 45_636_843,
        "background_predictor": 6_282_438,
        "avd": 2_290_620,
    },
    "jam-slim": {
        "generator": 45_669_204,
        "keypoint_detector": 17_838_583,
        "background_predictor": 2_457_726,
        "avd": 2_290_620,
    },
    "cbam-mso": {"generator": 45_652_741, "keypoint_detector": 14_215_368, "discriminator": 2_758_849},
}
"""Of ``fomm`` and ``articulated`` the public implementations'; the others' are this project's reading of the papers."""


@pytest.mark.parametrize("preset", COUNTS)
def test_numbers_of_parameters(preset: str) -> None:
    with torch.device("meta"):
        networks = build(MotionConfig(**MODELS[preset].model))
    found = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert found == COUNTS[preset]


def test_every_preset_is_counted() -> None:
    assert set(COUNTS) == set(presets_of("motion"))


def test_slim_is_the_widest_that_stays_under_articulated() -> None:
    limit = sum(COUNTS["articulated"].values())
    assert sum(COUNTS["jam-slim"].values()) < limit
    wider = {**MODELS["jam-slim"].model, "width": 42 / 64}  # one more channel in the narrowest expansion
    with torch.device("meta"):
        networks = build(MotionConfig(**wider))
    assert sum(p.numel() for network in networks.values() for p in network.parameters()) > limit
