"""The networks reproduce the recorded numbers of the published method (see fomm-tiny/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.importers import fomm
from models.layers.resampling import ImagePyramid
from models.motion.config import MotionConfig
from models.motion.discriminator import Judged
from models.motion.equivariance import Transform
from models.motion.generator import Generated
from models.motion.geometry import inverse_2x2, product_2x2
from models.motion.keypoints import Keypoints
from models.motion.networks import build
from models.perceptual import Vgg19

KIT = Path(__file__).parent / "fomm-tiny"
SCALES = (1.0, 0.5, 0.25)
OUTPUTS = {
    "mask": "dense_motion.mask",
    "occlusion": "dense_motion.occlusion_map",
    "deformation": "dense_motion.deformation",
    "sparse_deformed": "dense_motion.sparse_deformed",
    "deformed": "generator.deformed",
    "prediction": "generator.prediction",
}
"""What `produced` gives to the recorded array."""
MAPS = ("mask", "occlusion", "deformation")
PUBLISHED = {"generator": "generator", "keypoint_detector": "kp_detector", "discriminator": "discriminator"}


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(KIT / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def networks(*, align_corners: bool = False) -> dict[str, nn.Module]:
    config = MotionConfig(
        size_px=64,
        scale_factor=0.25,
        num_keypoints=5,
        detector_expansion=8,
        detector_max_features=32,
        detector_blocks=2,
        motion_expansion=8,
        motion_max_features=32,
        motion_blocks=3,
        generator_expansion=8,
        generator_max_features=32,
        generator_bottleneck_blocks=2,
        discriminator_expansion=8,
        discriminator_max_features=32,
        align_corners=align_corners,
    )
    built = build(config)
    report = fomm.load_into(built, KIT / "tiny-checkpoint.pth.tar")
    assert report.loaded == {"generator": 97, "keypoint_detector": 29, "discriminator": 26}
    return built


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    worst = (actual.detach() - expected).abs().max().item()
    assert worst <= tolerance, f"{what} differs by {worst:.2e}, more than {tolerance:.0e}"


def produced(made: Generated) -> dict[str, Tensor]:
    (occlusion,) = made.motion.occlusion
    named = {**made.motion._asdict(), "occlusion": occlusion}
    return {**named, "deformed": made.deformed, "prediction": made.prediction}


# ---- eval mode


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return recorded("eval")


@pytest.mark.parametrize("frame", ["source", "driving", "initial"])
def test_keypoints(inputs: dict[str, Tensor], frame: str) -> None:
    detector = networks()["keypoint_detector"].eval()
    with torch.no_grad():
        found = detector(inputs["driving_initial" if frame == "initial" else frame])
    close(found.value, inputs[f"kp_{frame}.value"], 1e-5, "value")
    close(found.jacobian, inputs[f"kp_{frame}.jacobian"], 1e-5, "jacobian")


def test_heat_maps_before_the_soft_max(inputs: dict[str, Tensor]) -> None:
    detector = networks()["keypoint_detector"].eval()
    with torch.no_grad():
        logits = detector.kp(detector.predictor(detector.down(inputs["driving_initial"])))
    close(logits, inputs["kp_raw_heatmap_logits_initial"], 1e-5, "logits")


@pytest.mark.parametrize(("name", "align_corners"), [("eval", False), ("eval_ac1", True)])
def test_generator(inputs: dict[str, Tensor], name: str, align_corners: bool) -> None:
    expected = recorded(name)
    generated = _generate(inputs, "kp_driving", align_corners=align_corners)
    for field, array in OUTPUTS.items():
        close(produced(generated)[field], expected[array], 1e-5 if field in MAPS else 1e-4, field)


@pytest.mark.parametrize(("name", "align_corners"), [("eval", False), ("eval_ac1", True)])
@pytest.mark.parametrize("motion", ["rel", "rel_scale"])
def test_generator_on_carried_keypoints(inputs: dict[str, Tensor], name: str, align_corners: bool, motion: str) -> None:
    generated = _generate(inputs, f"normalize_kp.{motion}", align_corners=align_corners)
    close(generated.prediction, recorded(name)[f"generator.prediction_{motion}"], 1e-4, "prediction")


def _generate(inputs: dict[str, Tensor], driving: str, *, align_corners: bool) -> Generated:
    generator = networks(align_corners=align_corners)["generator"].eval()
    still, moved = (Keypoints(inputs[f"{name}.value"], inputs[f"{name}.jacobian"]) for name in ("kp_source", driving))
    with torch.no_grad():
        generated: Generated = generator(inputs["source"], source_keypoints=still, driving_keypoints=moved)
    return generated


# ---- the parts of the losses


@pytest.fixture(scope="module")
def step_data() -> dict[str, Tensor]:
    return recorded("train")


def known_warp(data: dict[str, Tensor]) -> Transform:
    return Transform(theta=data["transform.theta"], control_params=data["transform.control_params"], points_tps=5)


def tiny_vgg() -> Vgg19:
    state = torch.load(KIT / "vgg.pt", weights_only=True)
    layers = {key.split(".", 1)[1]: value for key, value in state.items() if key.startswith("slice")}
    vgg = Vgg19({f"features.{key}": value for key, value in layers.items()})
    close(vgg.mean, state["mean"][0], 1e-7, "mean")
    close(vgg.std, state["std"][0], 1e-7, "std")
    return vgg


def test_known_warp(step_data: dict[str, Tensor]) -> None:
    warp = known_warp(step_data)
    points = step_data["transform.points"]
    close(warp.warp_frame(step_data["driving"]), step_data["transformed_frame"], 1e-4, "frame")
    close(warp.warp_points(points), step_data["transform.warped"], 1e-5, "points")
    close(warp.jacobian(points), step_data["transform.jacobian"], 1e-5, "jacobian")


def test_pyramid(step_data: dict[str, Tensor]) -> None:
    for scale, image in ImagePyramid(SCALES)(step_data["driving"]).items():
        close(image, step_data[f"pyramid_real.prediction_{scale:g}"], 3e-5, f"scale {scale}")


def test_feature_levels(step_data: dict[str, Tensor]) -> None:
    levels = tiny_vgg()(step_data["driving"])
    assert len(levels) == 5
    for i, level in enumerate(levels):
        close(level, step_data[f"vgg_real_scale1.{i}"], 3e-5, f"level {i}")


# ---- one whole step


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    networks: dict[str, nn.Module]
    source: Keypoints
    driving: Keypoints
    warped: Keypoints
    generated: Generated
    losses: dict[str, Tensor]
    grads: dict[str, Tensor]


def _mean_difference(left: Tensor, right: Tensor) -> Tensor:
    return (left - right).abs().mean()


def _generator_losses(data: dict[str, Tensor], nets: dict[str, nn.Module], step: Step) -> dict[str, Tensor]:
    pyramid, vgg = ImagePyramid(SCALES), tiny_vgg()
    fake, real = pyramid(step.generated.prediction), pyramid(data["driving"])
    perceptual = sum(
        (_mean_difference(a, b) for scale in SCALES for a, b in zip(vgg(fake[scale]), vgg(real[scale]), strict=True)),
        torch.zeros(()),
    )
    (judged_fake,) = nets["discriminator"](step.generated.prediction)
    (judged_real,) = nets["discriminator"](data["driving"])
    matching = sum(
        (_mean_difference(a, b) for a, b in zip(judged_real.features, judged_fake.features, strict=True)),
        torch.zeros(()),
    )
    return {
        "perceptual": 10 * perceptual,
        "gen_gan": (1 - judged_fake.score).square().mean(),
        "feature_matching": 10 * matching,
    }


def _equivariance_losses(data: dict[str, Tensor], driving: Keypoints, warped: Keypoints) -> dict[str, Tensor]:
    warp = known_warp(data)
    assert driving.jacobian is not None
    assert warped.jacobian is not None
    back = product_2x2(warp.jacobian(warped.value), warped.jacobian)
    ratio = product_2x2(inverse_2x2(driving.jacobian), back)
    return {
        "equivariance_value": 10 * _mean_difference(driving.value, warp.warp_points(warped.value)),
        "equivariance_jacobian": 10 * _mean_difference(torch.eye(2), ratio),
    }


@pytest.fixture(scope="module")
def step(step_data: dict[str, Tensor]) -> Step:
    nets = networks()
    detector, generator, discriminator = nets["keypoint_detector"], nets["generator"], nets["discriminator"]
    source, driving = detector(step_data["source"]), detector(step_data["driving"])
    generated = generator(step_data["source"], source_keypoints=source, driving_keypoints=driving)
    partial = Step(
        networks=nets, source=source, driving=driving, warped=source, generated=generated, losses={}, grads={}
    )
    losses = _generator_losses(step_data, nets, partial)
    warped = detector(known_warp(step_data).warp_frame(step_data["driving"]))
    losses |= _equivariance_losses(step_data, driving, warped)
    sum(losses.values(), torch.zeros(())).backward()
    discriminator.zero_grad()
    fake: Judged = discriminator(generated.prediction.detach())[0]
    real: Judged = discriminator(step_data["driving"])[0]
    losses["disc_gan"] = ((1 - real.score).square() + fake.score.square()).mean()
    losses["disc_gan"].backward()
    grads = {
        f"{published}.{name}": parameter.grad
        for ours, published in PUBLISHED.items()
        for name, parameter in nets[ours].named_parameters()
        if parameter.grad is not None
    }
    return Step(
        networks=nets, source=source, driving=driving, warped=warped, generated=generated, losses=losses, grads=grads
    )


def test_train_mode_outputs(step: Step, step_data: dict[str, Tensor]) -> None:
    for field, array in OUTPUTS.items():
        if field != "deformation":
            expected = step_data[f"gen.{array.split('.')[1]}"]
            close(produced(step.generated)[field], expected, 3e-5 if field in MAPS else 1e-3, field)
    for name, found in (("kp_source", step.source), ("kp_driving", step.driving), ("transformed_kp", step.warped)):
        assert found.jacobian is not None
        close(found.value, step_data[f"gen.{name}.value"], 3e-5, name)
        close(found.jacobian, step_data[f"gen.{name}.jacobian"], 3e-5, name)


def test_losses(step: Step, step_data: dict[str, Tensor]) -> None:
    for name, loss in step.losses.items():
        assert loss.item() == pytest.approx(step_data[f"loss.{name}"].item(), rel=1e-4), name


def test_gradients(step: Step) -> None:
    expected = recorded("grads")
    assert set(step.grads) == set(expected)
    for name, grad in step.grads.items():
        norm = expected[name].norm()
        if norm < 1e-3:  # the true gradient is zero
            assert grad.norm() < 1e-3, name
        else:
            assert (grad - expected[name]).norm() / norm < 2e-2, name


def test_statistics_and_singular_vectors_after_the_step(step: Step) -> None:
    sums = json.loads((KIT / "meta.json").read_text())["post_step_sums"]
    compared = 0
    for ours, published in PUBLISHED.items():
        for name, value in step.networks[ours].state_dict().items():
            if name.endswith(("running_mean", "running_var", "weight_u", "weight_v")):
                total = value.double().sum().item()
                assert total == pytest.approx(sums[f"{published}.{name}"], rel=1e-5, abs=1e-5), name
                compared += 1
    assert compared == 48
