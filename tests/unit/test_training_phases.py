"""The motion family's phases: what they train, what they only use, and what each weight of 0 leaves out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.motion.networks import build, debug_config
from training.config import LossConfig, MotionTrainConfig
from training.feed import PairBatch
from training.optim import adam, clip, schedule
from training.phases import Phase, distribute
from training.recipes import motion
from training.world import World

FULL = LossConfig(gan="lsgan", pixel=1.0, perceptual=(1.0, 1.0))
GENERATOR_TERMS = {"perceptual", "pixel", "gan", "feature_matching", "equivariance_value", "equivariance_jacobian"}


class Halves(nn.Module):
    """A feature network of two levels."""

    def forward(self, image: Tensor) -> list[Tensor]:
        return [image, nn.functional.avg_pool2d(image, 2)]


def recipe(losses: LossConfig = FULL, **options: Any) -> motion.MotionRecipe:
    torch.manual_seed(0)
    model = debug_config(**options.pop("model", {}))
    train = MotionTrainConfig(batch_size=2, perceptual_scales=(1.0, 0.5), losses=losses, **options)
    device = torch.device("cpu")
    return motion.build(build(model), model=model, train=train, device=device, perceptual=Halves())


def pairs(*items: int) -> PairBatch:
    rng = np.random.default_rng(0)
    frames = [torch.from_numpy(rng.integers(0, 256, (len(items), 3, 32, 32), dtype=np.uint8)) for _ in range(2)]
    return PairBatch(frames[0], frames[1], np.array(items))


def test_all_terms_are_there_and_finite() -> None:
    made = recipe()
    batch = made.prepare(pairs(0, 1))
    generator, discriminator = made.phases
    losses, carry, *_ = generator.module(batch, {})
    assert set(losses) == GENERATOR_TERMS
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    assert set(carry) == {"prediction", "keypoints"}
    assert not any(value.requires_grad for value in carry.values())
    assert set(discriminator.module(batch, carry).losses) == {"gan"}


def test_generator_phase_trains_its_own_networks_and_no_other() -> None:
    made = recipe()
    generator, discriminator = made.phases
    registered = {name.split(".")[0] for name, _ in generator.module.named_parameters()}
    assert registered == {"generator", "keypoint_detector"}
    losses, _, *_ = generator.module(made.prepare(pairs(0, 1)), {})
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in generator.module.parameters())
    assert all(parameter.grad is None for parameter in discriminator.module.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.module.parameters())


def test_a_generator_without_gan_has_no_discriminator_phase() -> None:
    made = recipe(LossConfig(perceptual=(1.0,)))
    assert [phase.name for phase in made.phases] == ["generator"]
    before = {key: value.clone() for key, value in made.networks["discriminator"].state_dict().items()}
    losses, _, *_ = made.phases[0].module(made.prepare(pairs(0, 1)), {})
    assert set(losses) == {"perceptual", "equivariance_value", "equivariance_jacobian"}
    after = made.networks["discriminator"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("losses", "model", "terms"),
    [
        (LossConfig(perceptual=(), pixel=1.0, equivariance_value=0, equivariance_jacobian=0), {}, {"pixel"}),
        (
            LossConfig(perceptual=(), pixel=1.0),
            {"estimate_jacobian": False},
            {"pixel", "equivariance_value"},
        ),
        (LossConfig(perceptual=(0.0, 2.0), equivariance_value=0), {}, {"perceptual", "equivariance_jacobian"}),
        (
            LossConfig(gan="lsgan", feature_matching=(), perceptual=()),
            {},
            {"gan", "equivariance_value", "equivariance_jacobian"},
        ),
    ],
)
def test_a_weight_of_zero_leaves_its_term_out(losses: LossConfig, model: dict[str, Any], terms: set[str]) -> None:
    made = recipe(losses, model=model)
    batch = made.prepare(pairs(0, 1))
    assert set(made.phases[0].module(batch, {}).losses) == terms
    assert ("theta" in batch) == bool(losses.equivariance_value or losses.equivariance_jacobian)


def test_losses_scale_with_their_weights() -> None:
    doubled = LossConfig(
        gan="lsgan",
        generator_gan=2.0,
        pixel=2.0,
        perceptual=(2.0, 2.0),
        feature_matching=(20.0,) * 4,
        equivariance_value=20.0,
        equivariance_jacobian=20.0,
    )
    once, twice = ((r := recipe(losses)).phases[0].module(r.prepare(pairs(0, 1)), {})[0] for losses in (FULL, doubled))
    for name in GENERATOR_TERMS:
        assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-5), name


def test_warps_belong_to_the_sample_and_not_to_the_rank() -> None:
    made = recipe()
    whole, part = made.prepare(pairs(4, 5, 6, 7)), made.prepare(pairs(5, 7))
    for name in ("theta", "control_params"):
        assert torch.equal(whole[name][1::2], part[name])
        assert not torch.equal(whole[name][0], whole[name][1])


def test_frames_come_in_unit_range() -> None:
    given = pairs(0, 1)
    batch = recipe().prepare(given)
    assert batch["source"].dtype == torch.float32
    assert torch.equal((batch["source"] * 255).round().byte(), given.source)


def test_keypoints_reach_the_discriminator_where_it_sees_them() -> None:
    made = recipe(model={"discriminator_keypoints": True})
    batch = made.prepare(pairs(0, 1))
    losses, carry, *_ = made.phases[0].module(batch, {})
    assert torch.isfinite(losses["gan"])
    assert torch.isfinite(made.phases[1].module(batch, carry).losses["gan"])


def test_bf16_keeps_losses_in_32_bits_and_near() -> None:
    exact, rough = (recipe(precision=precision) for precision in ("fp32", "bf16"))
    results = [made.phases[0].module(made.prepare(pairs(0, 1)), {})[0] for made in (exact, rough)]
    for name in GENERATOR_TERMS - {"equivariance_jacobian", "equivariance_value"}:
        assert results[1][name].dtype == torch.float32
        assert results[1][name].item() == pytest.approx(results[0][name].item(), rel=0.1), name
    assert results[0]["perceptual"].item() != results[1]["perceptual"].item()


def test_reconstruct_and_pictures() -> None:
    made = recipe()
    networks = {name: network.eval() for name, network in made.networks.items()}
    given = pairs(0, 1)
    frames = made.reconstruct(networks, given.source, given.driving)
    assert frames.shape == (2, 3, 32, 32)
    assert 0 <= frames.min() <= frames.max() <= 1
    (picture,) = made.pictures(networks, given).values()
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * 34 - 2, 6 * 34 - 2, 3)  # source, driving, flow, occlusion map, moved, result


def test_learning_rates_and_milestones() -> None:
    made = recipe(lr_generator=1e-3, lr_keypoint_detector=1e-4, milestones=(2,), gamma=0.1)
    optimizer, scheduler = made.phases[0].optimizer, made.phases[0].scheduler
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {
        "generator": 1e-3,
        "keypoint_detector": 1e-4,
    }
    assert optimizer.defaults["betas"] == (0.5, 0.999)
    assert scheduler is not None
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-5])


def test_one_process_needs_no_wrapper() -> None:
    phase = recipe().phases[0]
    assert distribute(phase, World(), deterministic=True) is phase.module


def test_a_phase_may_rest() -> None:
    module = nn.Linear(1, 1)
    optimizer = adam({"all": (module.parameters(), 1e-3)}, (0.5, 0.999))
    phase = Phase(name="lazy", module=module, optimizer=optimizer, every_n_steps=3)
    assert [phase.is_due(step) for step in range(4)] == [True, False, False, True]
    state = phase.state_dict()
    assert state["scheduler"] is None
    other = Phase(name="lazy", module=module, optimizer=adam({"all": (module.parameters(), 1.0)}, (0.5, 0.9)))
    other.load_state_dict(state)
    assert other.optimizer.param_groups[0]["lr"] == 1e-3


def test_gradients_are_measured_and_clipped() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip([weight], None) == pytest.approx(5.0)
    assert torch.equal(weight.grad, torch.tensor([3.0, 4.0]))
    assert clip([weight], 1.0) == pytest.approx(5.0)
    assert weight.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
    weight.grad = torch.tensor([float("nan"), 1.0])
    assert np.isnan(clip([weight], 1.0))


def test_schedule_survives_a_safe_load(tmp_path: Any) -> None:
    module = nn.Linear(1, 1)
    optimizer = adam({"all": (module.parameters(), 1.0)}, (0.5, 0.999))
    train = dataclasses.replace(MotionTrainConfig(), milestones=(1, 1, 3))
    scheduler = schedule(optimizer, train)
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    scheduler.load_state_dict(loaded)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
