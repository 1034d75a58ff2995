"""The articulated networks and one step of their training reproduce recorded numbers (articulated-tiny/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from articulated_kit import KIT, PUBLISHED, model, networks
from torch import Tensor, nn

from models.motion.generator import Generated
from models.motion.keypoints import Keypoints
from models.perceptual import Vgg19
from training.config import MotionTrainConfig
from training.feed import PairBatch
from training.loop import Trainer
from training.phases import Batch
from training.recipes import motion
from training.world import World

FIELDS = {"value": "shift", "jacobian": "affine", "covariance": "covar"}
TRAIN = MotionTrainConfig(batch_size=2, perceptual_scales=(1.0, 0.5, 0.25))
LOSSES = {
    "loss/generator/perceptual": "perceptual",
    "loss/generator/equivariance_value": "equivariance_shift",
    "loss/generator/equivariance_jacobian": "equivariance_affine",
}


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(KIT / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    worst = (actual.detach() - expected).abs().max().item()
    assert worst <= tolerance, f"{what} differs by {worst:.2e}, more than {tolerance:.0e}"


# ---- eval mode


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return recorded("eval")


def regions(data: dict[str, Tensor], name: str) -> Keypoints:
    return Keypoints(*(data[f"{name}.{theirs}"] for theirs in FIELDS.values()))


@pytest.mark.parametrize("frame", ["source", "driving", "initial"])
def test_regions(inputs: dict[str, Tensor], frame: str) -> None:
    predictor = networks()["keypoint_detector"].eval()
    image = inputs["driving_initial" if frame == "initial" else frame]
    with torch.no_grad():
        found = predictor(image)
        heat = predictor.soft_max(predictor.regions(predictor.features(image)))
    close(heat, inputs[f"region_{frame}.heatmap"], 1e-5, "heat map")
    for ours, theirs in FIELDS.items():
        close(getattr(found, ours), inputs[f"region_{frame}.{theirs}"], 1e-5, ours)


def test_background(inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        found = networks()["background_predictor"].eval()(inputs["source"], inputs["driving"])
    close(found, inputs["bg_params"], 1e-5, "background")


def test_avd(inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        made = networks()["avd"].eval()(regions(inputs, "region_source"), regions(inputs, "region_driving"))
    for ours, theirs in FIELDS.items():
        close(getattr(made, ours), inputs[f"animate.avd.{theirs}"], 1e-5, ours)


@pytest.mark.parametrize(("name", "align_corners"), [("eval", False), ("eval_ac1", True)])
def test_generator(inputs: dict[str, Tensor], name: str, align_corners: bool) -> None:
    expected = recorded(name)
    made = _generate(inputs, "region_driving", align_corners=align_corners, background=inputs["bg_params"])
    close(made.motion.deformation, expected["pixelwise_flow.optical_flow"], 1e-5, "deformation")
    close(made.motion.occlusion[0], expected["pixelwise_flow.occlusion_map"], 1e-5, "occlusion")
    close(made.deformed, expected["generator.deformed"], 1e-4, "deformed")
    close(made.prediction, expected["generator.prediction"], 1e-4, "prediction")
    still = _generate(inputs, "region_driving", align_corners=align_corners)
    close(still.prediction, expected["generator.prediction_nobg"], 1e-4, "prediction without background")


@pytest.mark.parametrize(("name", "align_corners"), [("eval", False), ("eval_ac1", True)])
@pytest.mark.parametrize("mode", ["standard", "relative", "avd"])
def test_generator_on_carried_regions(inputs: dict[str, Tensor], name: str, align_corners: bool, mode: str) -> None:
    made = _generate(inputs, f"animate.{mode}", align_corners=align_corners)
    close(made.prediction, recorded(name)[f"animate.{mode}.prediction"], 1e-4, "prediction")


def _generate(
    inputs: dict[str, Tensor], driving: str, *, align_corners: bool, background: Tensor | None = None
) -> Generated:
    generator = networks(align_corners=align_corners)["generator"].eval()
    still, moved = regions(inputs, "region_source"), regions(inputs, driving)
    with torch.no_grad():
        made: Generated = generator(
            inputs["source"], source_keypoints=still, driving_keypoints=moved, background=background
        )
    return made


# ---- one step of the training


class RecordedInput(motion.MotionRecipe):
    """The recipe, with the recorded frames and warp in the place of a batch."""

    def prepare(self, pairs: PairBatch) -> Batch:
        data = recorded("train")
        names = {"theta": "transform.theta", "control_params": "transform.control_params"}
        return {"source": data["source"], "driving": data["driving"], **{k: data[v] for k, v in names.items()}}


def features() -> Vgg19:
    entries = torch.load(KIT / "vgg.pt", weights_only=True)
    layers = {key.split(".", 1)[1]: value for key, value in entries.items() if key.startswith("slice")}
    network = Vgg19({f"features.{key}": value for key, value in layers.items()})
    network.mean.copy_(entries["mean"][0])
    network.std.copy_(entries["std"][0])
    return network


def recipe(built: dict[str, nn.Module]) -> RecordedInput:
    device = torch.device("cpu")
    return RecordedInput(built, model=model(), train=TRAIN, device=device, dtype=torch.float32, perceptual=features())


@dataclass(frozen=True, slots=True)
class Step:
    networks: dict[str, nn.Module]
    values: dict[str, float]


@pytest.fixture(scope="module")
def step() -> Step:
    built = networks()
    built["avd"].eval()
    nothing = torch.empty(0, dtype=torch.uint8)
    values = Trainer(recipe(built), TRAIN, World()).step(PairBatch(nothing, nothing, np.arange(2)))
    return Step(built, values)


def test_train_mode_outputs() -> None:
    data, built = recorded("train"), networks()
    with torch.no_grad():
        made, points = motion.reconstruction(built, data["source"], data["driving"])
    for found, name in zip(points, ("source", "driving"), strict=True):
        for ours, theirs in FIELDS.items():
            close(getattr(found, ours), data[f"gen.{name}_region_params.{theirs}"], 3e-5, f"{name} {ours}")
    close(made.motion.occlusion[0], data["gen.occlusion_map"], 3e-5, "occlusion")
    close(made.deformed, data["gen.deformed"], 1e-3, "deformed")
    close(made.prediction, data["gen.prediction"], 1e-3, "prediction")


def test_losses(step: Step) -> None:
    data = recorded("train")
    assert {name for name in step.values if name.startswith("loss/")} == set(LOSSES)
    for ours, theirs in LOSSES.items():
        assert step.values[ours] == pytest.approx(data[f"loss.{theirs}"].item(), rel=1e-4), ours


def test_gradients(step: Step) -> None:
    expected, compared = recorded("grads"), 0
    for ours, theirs in PUBLISHED.items():
        if ours == "avd":
            continue
        for name, parameter in step.networks[ours].named_parameters():
            key = name.replace("dense_motion_network.", "pixelwise_flow_predictor.")
            wanted, grad = expected.pop(f"{theirs}.{key}"), parameter.grad
            assert grad is not None, name
            if wanted.norm() < 1e-3:  # the true gradient is zero
                assert grad.norm() < 1e-3, name
            else:
                assert (grad - wanted).norm() / wanted.norm() < 6e-2, name
                compared += 1
    assert not expected
    assert compared == 98 - 21


def test_statistics_after_the_step(step: Step) -> None:
    sums = json.loads((KIT / "meta.json").read_text())["post_step_sums"]
    compared = 0
    for ours, theirs in PUBLISHED.items():
        for name, value in step.networks[ours].state_dict().items():
            if name.endswith(("running_mean", "running_var")) and ours != "avd":
                key = name.replace("dense_motion_network.", "pixelwise_flow_predictor.")
                total = value.double().sum().item()
                assert total == pytest.approx(sums[f"{theirs}.{key}"], rel=1e-5, abs=1e-5), name
                compared += 1
    assert compared == 44
