"""The motion family's networks: sizes, options, gradients, and the geometry that they rest on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.errors import ParamsError, ShapeError
from models.motion.config import MotionConfig
from models.motion.generator import Generated
from models.motion.geometry import gaussians, inverse_2x2, local_motions, product_2x2
from models.motion.keypoints import Keypoints
from models.motion.networks import build, debug_config


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _matrices(*shape: int) -> Tensor:
    return torch.eye(2) + 0.2 * torch.randn(*shape, 2, 2)


def _frames(config: MotionConfig, count: int = 2) -> Tensor:
    return torch.rand(count, 3, config.size_px, config.size_px)


def _run(
    nets: dict[str, nn.Module], source: Tensor, driving: Tensor, background: Tensor | None = None
) -> tuple[Generated, Keypoints, Keypoints]:
    detector = nets["keypoint_detector"]
    still, moved = detector(source), detector(driving)
    made = nets["generator"](source, source_keypoints=still, driving_keypoints=moved, background=background)
    return made, still, moved


# ---- published sizes


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, (45_575_391, 14_215_368, 2_758_849)),
        ({"single_jacobian_map": True}, (45_575_391, 14_153_592, 2_758_849)),
        (
            {"discriminator_keypoints": True, "discriminator_norm": "instance"},
            (45_575_391, 14_215_368, 2_769_089),
        ),
    ],
    ids=["voxceleb", "mgif", "adversarial"],
)
def test_published_numbers_of_parameters(options: dict[str, Any], counts: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        nets = build(MotionConfig(**options))
    found = tuple(
        sum(parameter.numel() for parameter in nets[name].parameters())
        for name in ("generator", "keypoint_detector", "discriminator")
    )
    assert found == counts


# ---- shapes and options


REGIONS = {"motion": "articulated", "heat_map_padding": 3}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"estimate_jacobian": False},
    {"single_jacobian_map": True},
    {"occlusion": "none"},
    {"occlusion": "multi-scale"},
    {"output_activation": "tanh"},
    {"scale_factor": 1.0},
    {"align_corners": True},
    {"generator_down_blocks": 1},
    {"width": 2.0},
    {"num_keypoints": 1},
    {"num_keypoints": 50},
    {"hourglass_attention": "channel"},
    {"hourglass_attention": "scse", "hourglass_residual": True},
    {"flow_attention": "cbam"},
    {"flow_attention": "max-cbam", "occlusion": "multi-scale"},
    {"generator_attention": "scse", "generator_dilations": (1, 2)},
    {"generator_residual": True, "generator_attention": "scse"},
    {"generator_skips": True},
    {"generator_skips": True, "occlusion": "multi-scale", "output_activation": "tanh"},
    REGIONS,
    {**REGIONS, "background": "shift", "generator_skips": True},
    {**REGIONS, "background": "affine", "flow_attention": "cbam"},
    {"background": "perspective"},
]
"""Every option, alone and mixed over the papers' borders."""


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_shapes_and_ranges(options: dict[str, Any]) -> None:
    config = debug_config(**options)
    nets = build(config)
    background = torch.eye(3).expand(2, 3, 3) if config.background != "none" else None
    made, still, _ = _run(nets, _frames(config), _frames(config), background)
    small, keypoints = config.scaled_px, config.num_keypoints
    assert still.value.shape == (2, keypoints, 2)
    assert still.value.abs().max() <= 1
    assert (still.jacobian is not None) == config.estimate_jacobian
    assert (still.covariance is not None) == (config.motion == "articulated")
    assert made.prediction.shape == made.deformed.shape == (2, 3, config.size_px, config.size_px)
    assert 0 <= made.prediction.min() <= made.prediction.max() <= 1
    motion = made.motion
    assert motion.mask.shape == (2, keypoints + 1, small, small)
    torch.testing.assert_close(motion.mask.sum(1), torch.ones(2, small, small))
    assert motion.sparse_deformed.shape == (2, keypoints + 1, 3, small, small)
    assert motion.deformation.shape == (2, small, small, 2)
    sizes = {"none": [], "single": [small], "multi-scale": [config.size_px // 4, config.size_px // 2, config.size_px]}
    assert [tuple(one.shape) for one in motion.occlusion] == [(2, 1, px, px) for px in sizes[config.occlusion]]
    assert all(0 <= one.min() <= one.max() <= 1 for one in motion.occlusion)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_every_weight_gets_a_gradient(options: dict[str, Any]) -> None:
    config = debug_config(discriminator=False, **options)
    nets = build(config)
    source, driving = _frames(config), _frames(config)
    predictor = nets.get("background_predictor")
    background = None if predictor is None else predictor(source, driving)
    made, *_ = _run(nets, source, driving, background)
    made.prediction.square().mean().backward()
    for name, network in nets.items():
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert parameter.grad.isfinite().all(), f"{name}.{key}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motion": "articulated", "estimate_jacobian": False}, "estimate_jacobian must be true with motion"),
        ({"motion": "articulated", "single_jacobian_map": True}, "single_jacobian_map must be false with motion"),
        ({"single_jacobian_map": True, "estimate_jacobian": False}, "single_jacobian_map must be false where"),
        ({"avd": True}, "avd must be false with motion: first-order"),
        ({"occlusion": "multi-scale", "generator_down_blocks": 0}, "occlusion must be single or none"),
        ({"occlusion": "none", "generator_skips": True}, "generator_skips must be false with occlusion: none"),
        ({"generator_attention": "scse", "generator_bottleneck_blocks": 0}, "generator_attention must be none"),
        ({"generator_dilations": (1, 2), "generator_bottleneck_blocks": 0}, "generator_dilations must be empty"),
        ({"discriminator": False, "discriminator_keypoints": True}, "discriminator_keypoints must be false"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        debug_config(**options)


@pytest.mark.parametrize("size_px", [64, 128, 192, 256, 320, 384, 448, 512])
def test_the_scale_follows_the_size(size_px: int) -> None:
    config = MotionConfig(size_px=size_px)
    assert config.scaled_px == 64
    assert config.heat_px == 58


def test_a_size_that_the_scale_cannot_follow_is_refused() -> None:
    with pytest.raises(ParamsError, match="size_px must be a multiple of 64, or below it; or set scale_factor"):
        MotionConfig(size_px=200)


def test_an_untrained_detectors_jacobians_are_the_identity() -> None:
    config = debug_config()
    found = build(config)["keypoint_detector"](_frames(config))
    torch.testing.assert_close(found.jacobian, torch.eye(2).expand(2, config.num_keypoints, 2, 2))


def test_a_source_is_encoded_once_for_all_moves() -> None:
    config = debug_config()
    nets = {name: network.eval() for name, network in build(config).items()}
    source, driving = _frames(config, 1), _frames(config, 4)
    generator = nets["generator"]
    still = nets["keypoint_detector"](source).expand(4)
    moved = nets["keypoint_detector"](driving)
    each = generator(source.expand(4, -1, -1, -1), source_keypoints=still, driving_keypoints=moved)
    once = generator.decode(generator.encode(source).expand(4), source_keypoints=still, driving_keypoints=moved)
    torch.testing.assert_close(each.prediction, once.prediction)
    torch.testing.assert_close(each.deformed, once.deformed)


@pytest.mark.parametrize("head", ["plain", "dual-channel-fusion"])
@pytest.mark.parametrize("norm", ["instance", "spectral", "multi"])
def test_discriminator_judges_every_scale(norm: str, head: str) -> None:
    config = debug_config(
        size_px=64,
        discriminator_scales=(1.0, 0.5),
        discriminator_norm=norm,
        discriminator_head=head,
        discriminator_keypoints=True,
    )
    discriminator = build(config)["discriminator"]
    keypoints = Keypoints(torch.zeros(2, config.num_keypoints, 2), None)
    fine, coarse = discriminator(_frames(config), keypoints)
    assert [tuple(level.shape) for level in fine.features] == [(2, 8, 30, 30), (2, 16, 27, 27)]
    assert fine.score.shape == (2, 1, 27, 27)
    assert coarse.score.shape == (2, 1, 11, 11)
    names = {name.split(".")[1] for name in discriminator.state_dict()}
    assert names == {"1", "0-5"}
    entries = {name.rpartition(".")[2] for name in discriminator.state_dict() if "down_blocks" in name}
    assert ("weight_u" in entries) == (norm in ("spectral", "multi"))
    assert any(".norm." in name for name in discriminator.state_dict()) == (norm in ("instance", "multi"))
    with pytest.raises(ShapeError, match="discriminator must be given keypoints"):
        discriminator(_frames(config))


def test_the_first_block_is_not_normalised() -> None:
    discriminator = build(debug_config())["discriminator"]
    norms = {name for name in discriminator.state_dict() if ".norm." in name}
    assert names_of_blocks(norms) == {"1"}


def names_of_blocks(entries: set[str]) -> set[str]:
    return {entry.split(".")[3] for entry in entries}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_blocks": 5}, "discriminator_blocks must leave a patch"),
        ({"size_px": 16, "scale_factor": 0.25, "detector_blocks": 2, "motion_blocks": 2}, "8 px or more"),
        ({"size_px": 36, "scale_factor": 1.0, "generator_down_blocks": 3}, "generator_down_blocks must divide 36"),
    ],
)
def test_networks_too_deep_for_the_frame_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        build(debug_config(**options))


# ---- learning


def test_every_parameter_gets_a_gradient() -> None:
    config = debug_config()
    nets = build(config)
    source, driving = _frames(config), _frames(config)
    made, _, _ = _run(nets, source, driving)
    (judged,) = nets["discriminator"](made.prediction)
    ((made.prediction - driving).abs().mean() + judged.score.mean()).backward()
    without = [
        f"{name}.{key}"
        for name, network in nets.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


def test_a_few_steps_lower_the_loss() -> None:
    config = debug_config()
    nets = build(config)
    source, driving = _frames(config, 1), 0.8 + 0.1 * _frames(config, 1)
    parameters = [*nets["generator"].parameters(), *nets["keypoint_detector"].parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    losses = []
    for _ in range(12):
        made, _, _ = _run(nets, source, driving)
        loss = (made.prediction - driving).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_mixed_precision_keeps_coordinates_exact() -> None:
    config = debug_config()
    nets = build(config)
    source, driving = _frames(config), _frames(config)
    exact, _, _ = _run(nets, source, driving)
    with torch.autocast("cpu", torch.bfloat16):
        rough, still, _ = _run(nets, source, driving)
        (judged,) = nets["discriminator"](rough.prediction)
    for found in (
        still.value,
        still.jacobian,
        rough.motion.deformation,
        rough.motion.mask,
        rough.prediction,
        judged.score,
    ):
        assert found is not None
        assert found.dtype == torch.float32
    torch.testing.assert_close(rough.prediction, exact.prediction, rtol=0, atol=0.1)


# ---- geometry


def test_inverse_and_product() -> None:
    left, right = _matrices(2, 5), _matrices(2, 5)
    torch.testing.assert_close(inverse_2x2(left), torch.linalg.inv(left))
    torch.testing.assert_close(product_2x2(left, right), left @ right)


def test_a_gaussian_stands_on_its_point() -> None:
    points = torch.tensor([[[0.5, -1.0], [0.0, 0.0]]])
    heat = gaussians(points, 5, 9, 0.01)
    assert heat.shape == (1, 2, 5, 9)
    assert heat[0, 0, 0, 6].item() == 1
    assert heat[0, 1].argmax().item() == 2 * 9 + 4
    # One pixel of nine to the right is 0.25 away.
    assert heat[0, 1, 2, 5].item() == pytest.approx(torch.tensor(-0.5 * 0.0625 / 0.01).exp().item(), rel=1e-4)


def test_keypoints_that_stay_move_nothing() -> None:
    points, turned = torch.rand(2, 3, 2) - 0.5, _matrices(2, 3)
    motions = local_motions(points, points, height=4, width=6, source_jacobian=turned, driving_jacobian=turned)
    assert motions.shape == (2, 4, 4, 6, 2)
    torch.testing.assert_close(motions, motions[:, :1].expand_as(motions), rtol=0, atol=1e-5)


def test_local_motions_are_the_first_order_expansion() -> None:
    source, driving = torch.rand(2, 3, 2) - 0.5, torch.rand(2, 3, 2) - 0.5
    source_jacobian, driving_jacobian = _matrices(2, 3), _matrices(2, 3)
    motions = local_motions(
        source,
        driving,
        height=4,
        width=6,
        source_jacobian=source_jacobian,
        driving_jacobian=driving_jacobian,
    )
    z = torch.tensor([1.0, -1.0])  # the upper right corner
    ratio = source_jacobian @ torch.linalg.inv(driving_jacobian)
    expected = source + (ratio @ (z - driving)[..., None])[..., 0]
    torch.testing.assert_close(motions[:, 1:, 0, 5], expected)
    shifts = local_motions(source, driving, height=4, width=6)
    torch.testing.assert_close(shifts[:, 1:, 0, 5], z + source - driving)
