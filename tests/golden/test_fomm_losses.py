"""One step of the trainer reproduces the recorded step of the published training (see fomm-tiny/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.importers import fomm
from models.motion.config import MotionConfig
from models.motion.networks import build
from models.perceptual import Vgg19
from training.config import LossConfig, MotionTrainConfig
from training.feed import PairBatch
from training.loop import Trainer
from training.phases import Batch
from training.recipes import motion
from training.world import World

KIT = Path(__file__).parent / "fomm-tiny"
SLICES = {1: (0,), 2: (2, 5), 3: (7, 10), 4: (12, 14, 16, 19), 5: (21, 23, 25, 28)}
"""Layers of the recorded feature network by its slices."""
LOSSES = {
    "loss/generator/perceptual": "perceptual",
    "loss/generator/gan": "gen_gan",
    "loss/generator/feature_matching": "feature_matching",
    "loss/generator/equivariance_value": "equivariance_value",
    "loss/generator/equivariance_jacobian": "equivariance_jacobian",
    "loss/discriminator/gan": "disc_gan",
}
PUBLISHED = {"generator": "generator", "keypoint_detector": "kp_detector", "discriminator": "discriminator"}
MODEL = MotionConfig(
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
)
TRAIN = MotionTrainConfig(batch_size=2, perceptual_scales=(1.0, 0.5, 0.25), losses=LossConfig(gan="lsgan"))
LR = 2e-4


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(KIT / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def features() -> nn.Module:
    """The recorded feature network under torchvision's names of its layers."""
    entries = torch.load(KIT / "vgg.pt", weights_only=True)
    state = {}
    for number, layers in SLICES.items():
        for layer in layers:
            for kind in ("weight", "bias"):
                state[f"features.{layer}.{kind}"] = entries[f"slice{number}.{layer}.{kind}"]
    network = Vgg19(state)
    network.mean.copy_(entries["mean"][0])
    network.std.copy_(entries["std"][0])
    return network


class RecordedInput(motion.MotionRecipe):
    """The recipe, with the recorded frames and warp in the place of a batch."""

    def prepare(self, pairs: PairBatch) -> Batch:
        data = recorded("train")
        names = {"theta": "transform.theta", "control_params": "transform.control_params"}
        return {"source": data["source"], "driving": data["driving"], **{k: data[v] for k, v in names.items()}}


@dataclass(frozen=True, slots=True)
class Step:
    networks: dict[str, nn.Module]
    before: dict[str, Tensor]
    values: dict[str, float]


@pytest.fixture(scope="module")
def step() -> Step:
    networks = build(MODEL)
    fomm.load_into(networks, KIT / "tiny-checkpoint.pth.tar")
    before = {f"{n}.{k}": p.detach().clone() for n, net in networks.items() for k, p in net.named_parameters()}
    device = torch.device("cpu")
    recipe = RecordedInput(
        networks, model=MODEL, train=TRAIN, device=device, dtype=torch.float32, perceptual=features()
    )
    nothing = torch.empty(0, dtype=torch.uint8)
    values = Trainer(recipe, TRAIN, World()).step(PairBatch(nothing, nothing, np.arange(2)))
    return Step(networks, before, values)


def test_losses(step: Step) -> None:
    data = recorded("train")
    assert {name for name in step.values if name.startswith("loss/")} == set(LOSSES)
    for ours, theirs in LOSSES.items():
        assert step.values[ours] == pytest.approx(data[f"loss.{theirs}"].item(), rel=1e-4), ours


def test_gradients(step: Step) -> None:
    expected, compared = recorded("grads"), 0
    for ours, theirs in PUBLISHED.items():
        for name, parameter in step.networks[ours].named_parameters():
            wanted, grad = expected.pop(f"{theirs}.{name}"), parameter.grad
            assert grad is not None, name
            if wanted.norm() < 1e-3:  # the true gradient is zero
                assert grad.norm() < 1e-3, name
            else:
                assert (grad - wanted).norm() / wanted.norm() < 2e-2, name
                compared += 1
    assert not expected
    assert compared == 102 - 21


def test_statistics_and_singular_vectors_after_the_step(step: Step) -> None:
    sums = json.loads((KIT / "meta.json").read_text())["post_step_sums"]
    compared = 0
    for ours, theirs in PUBLISHED.items():
        for name, value in step.networks[ours].state_dict().items():
            if name.endswith(("running_mean", "running_var", "weight_u", "weight_v")):
                total = value.double().sum().item()
                assert total == pytest.approx(sums[f"{theirs}.{name}"], rel=1e-5, abs=1e-5), name
                compared += 1
    assert compared == 48


def test_every_network_took_an_adam_step(step: Step) -> None:
    """The first step of Adam moves a weight by the learning rate, in the sign of its gradient."""
    for ours, network in step.networks.items():
        for name, parameter in network.named_parameters():
            moved = parameter.detach() - step.before[f"{ours}.{name}"]
            assert parameter.grad is not None
            clear = parameter.grad.abs() > 1e-3
            assert torch.allclose(moved[clear], -LR * parameter.grad[clear].sign(), rtol=1e-2, atol=1e-6), name
            assert moved.abs().max() < LR * 1.01, name
