"""Epochs counted in steps, the second stage of articulated models, the GAN losses, batches kept for inspection."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_kit as kit
from torch import Tensor

from models.catalog import MODELS, presets_of
from models.errors import CheckpointError, ParamsError, TrainingError
from models.motion.geometry import principal_axes
from models.motion.keypoints import Keypoints
from models.motion.networks import build, debug_config
from pipelines import train as stage
from pipelines.params import ExperimentConfig, Params
from pipelines.stage import Paths
from pipelines.train_stages import in_steps, is_avd_trained, steps_per_epoch
from training.checkpoint import load_networks, read_info
from training.config import AvdConfig, LossConfig, MotionTrainConfig
from training.feed import ShardReader
from training.randomness import keyed
from training.recipes import avd, motion
from training.recipes.avd import stretched
from training.recipes.motion_phases import discriminator_gan, generator_gan
from training.runfolder import RunFolder
from training.state import TrainState


def articulated(**options: Any) -> Any:
    changed = {key: value for key, value in MODELS["articulated"].model.items() if key != "heat_map_padding"}
    return debug_config(**{**changed, "avd_identity_features": 4, "avd_pose_features": 4, **options})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(stage, "_tracking_uri", lambda params, paths: None)
    made = Paths(tmp_path)
    kit.write_shards(made.shards("toy"))
    return made


def params(train: MotionTrainConfig) -> Params:
    from test_training_pipeline import params as plain

    experiment = ExperimentConfig(preset="articulated", dataset="toy", model=articulated(), train=train)
    return dataclasses.replace(plain(), experiments={"small": experiment})


def train_config(**options: Any) -> MotionTrainConfig:
    plain: dict[str, Any] = {"max_steps": 3, "num_workers": 1, "losses": LossConfig(pixel=1.0, perceptual=())}
    return kit.train_config(**{**plain, **options})


# ---- epochs


def test_epochs_become_steps_of_the_shards_at_hand(paths: Paths) -> None:
    reader = ShardReader(paths.shards("toy"))  # four clips for training
    given = train_config(max_epochs=3, milestone_epochs=(1, 2), num_repeats=5, batch_size=4)
    made = in_steps(ExperimentConfig(preset="fomm", dataset="toy", model=debug_config(), train=given), reader).train
    assert (made.max_steps, made.milestones) == (3 * 5, (5, 10))
    assert made.max_epochs is None
    assert steps_per_epoch(reader.clips("train"), 3, 1, id_sampling=False) == 1
    assert steps_per_epoch(reader.clips("train"), 100, 1, id_sampling=False) == 1


def test_milestones_in_epochs_need_epochs() -> None:
    with pytest.raises(ParamsError, match="milestone_epochs must stand with max_epochs"):
        MotionTrainConfig(milestone_epochs=(1,))


# ---- the second stage


def test_both_stages_make_one_model(paths: Paths) -> None:
    given = train_config(avd=AvdConfig(max_steps=4, batch_size=4))
    report = stage.run("small", params(given), paths, backend="local")
    assert report.second_stage is not None
    assert (report.steps, report.second_stage.steps) == (3, 4)
    assert report.num_parameters["avd"] > 0
    networks, info = load_networks(paths.trained("small"))
    assert (info.step, info.train.batch_size) == (3, given.batch_size)
    alone = stage.run("small", params(train_config()), paths, backend="local")
    assert alone.run_name == report.run_name, "the second stage does not change the first"
    before, _ = load_networks(paths.trained("small"))
    for name, network in networks.items():
        same = [torch.equal(a, b) for a, b in zip(network.parameters(), before[name].parameters(), strict=True)]
        assert all(same) == (name != "avd"), name
    assert json.loads(paths.report("train", "small").read_text())["second_stage"] is None


def test_more_steps_train_the_second_stage_anew(paths: Paths) -> None:
    given = train_config(avd=AvdConfig(max_steps=2, batch_size=4))
    first = stage.run("small", params(given), paths, backend="local")
    before, _ = load_networks(paths.trained("small"))
    more = dataclasses.replace(given, max_steps=5)
    report = stage.run("small", params(more), paths, backend="local", resume=first.run_name)
    assert (report.steps, report.second_stage.steps if report.second_stage else None) == (5, 2)
    after, info = load_networks(paths.trained("small"))
    assert info.step == 5
    detectors = (networks["keypoint_detector"].state_dict() for networks in (before, after))
    assert not all(torch.equal(a, b) for a, b in zip(*(state.values() for state in detectors), strict=True))


def test_avd_counts_as_trained_after_the_second_stage_alone(paths: Paths) -> None:
    given = train_config(avd=AvdConfig(max_steps=2, batch_size=4))
    stage.run("small", params(given), paths, backend="local")
    (first,) = [folder for folder in (paths.root / "runs").glob("small-*") if "-avd-" not in folder.name]
    (second,) = (paths.root / "runs").glob("small-*-avd-*")
    assert not is_avd_trained(read_info(first / "step-00000003"))
    assert is_avd_trained(read_info(second / "step-00000002"))
    assert is_avd_trained(read_info(paths.trained("small")))


def test_a_second_stages_batch_is_checked_before_the_first_stage() -> None:
    with pytest.raises(ParamsError, match=r"avd.batch_size must be divisible by num_workers \(3\); got 256"):
        MotionTrainConfig(num_workers=3, batch_size=3, avd=AvdConfig(max_steps=5))
    assert MotionTrainConfig(num_workers=3, batch_size=3).avd.batch_size == 256


def test_avd_learns_to_undo_the_stretch() -> None:
    torch.manual_seed(0)
    model = articulated()
    networks = build(model)
    train = MotionTrainConfig(batch_size=16, avd=AvdConfig(learning_rate=3e-3))
    recipe = avd.build(networks, model=model, train=train, device=torch.device("cpu"))
    (phase,) = recipe.phases
    frames = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    losses = []
    for step in range(60):
        batch = recipe.prepare(kit.PairBatch(frames, frames.flip(0), np.arange(step * 16, step * 16 + 16)))
        phase.optimizer.zero_grad()
        total = torch.stack(list(phase.module(batch, {}).losses.values())).sum()
        total.backward()
        phase.optimizer.step()
        losses.append(total.item())
    assert np.mean(losses[-5:]) < 0.3 * losses[0]
    assert {name for name, network in networks.items() if any(p.requires_grad for p in network.parameters())} == {"avd"}


def test_stretches_are_keyed_by_the_sample() -> None:
    model = articulated()
    recipe = avd.build(build(model), model=model, train=MotionTrainConfig(seed=3), device=torch.device("cpu"))
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    given = recipe.prepare(kit.PairBatch(frames, frames, np.array([4, 9])))["stretch"]
    wanted = np.stack([keyed(3, "avd", item).uniform(0.75, 1.25, 2) for item in (4, 9)])
    torch.testing.assert_close(given, torch.from_numpy(wanted).float())


def test_stretched_regions_are_those_of_a_stretched_picture() -> None:
    spread = torch.tensor([[[[0.05, 0.02], [0.02, 0.04]]]])
    regions = Keypoints(torch.tensor([[[0.5, -0.25]]]), principal_axes(spread), spread)
    made = stretched(regions, torch.tensor([[2.0, 0.5]]))
    scale = torch.diag(torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(made.value, torch.tensor([[[1.0, -0.125]]]))
    torch.testing.assert_close(made.covariance, scale @ spread @ scale)


def test_a_model_without_avd_has_no_second_stage() -> None:
    model = debug_config()
    with pytest.raises(CheckpointError, match="second stage must have AVD networks"):
        avd.build(build(model), model=model, train=MotionTrainConfig(), device=torch.device("cpu"))


# ---- losses


def test_hinge_losses_by_hand() -> None:
    losses = LossConfig(gan="hinge", hinge_alpha=0.5, hinge_beta=1.0, hinge_delta=2.0)
    fake, real = torch.tensor([-3.0, 0.25]), torch.tensor([0.5, 4.0])
    assert generator_gan([fake], losses).item() == pytest.approx(-(0 + 0.75) / 2)
    assert discriminator_gan([fake], [real], losses).item() == pytest.approx((0.5 + 0) / 2 + (0 + 2.25) / 2)


def test_least_squares_by_hand() -> None:
    losses = LossConfig(gan="lsgan")
    fake, real = torch.tensor([0.5]), torch.tensor([0.25])
    assert generator_gan([fake], losses).item() == pytest.approx(0.25)
    assert discriminator_gan([fake], [real], losses).item() == pytest.approx(0.75**2 + 0.5**2)


def test_hinge_pulls_both_ways() -> None:
    """The generator wants a higher score, the discriminator a lower one."""
    losses, score = LossConfig(gan="hinge"), torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(generator_gan([score], losses), score)[0] < 0
    assert torch.autograd.grad(discriminator_gan([score], [torch.ones(1)], losses), score)[0] > 0


@pytest.mark.parametrize("preset", presets_of("motion"))
def test_every_preset_trains(preset: str) -> None:
    torch.manual_seed(0)
    model = debug_config(**{k: v for k, v in MODELS[preset].model.items() if k != "heat_map_padding"})
    gan = MODELS[preset].train.get("losses", {}).get("gan", "none")
    train = MotionTrainConfig(batch_size=2, losses=LossConfig(perceptual=(), pixel=1.0, gan=gan))
    recipe = motion.build(build(model), model=model, train=train, device=torch.device("cpu"))
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    batch, carry = recipe.prepare(kit.PairBatch(frames, frames.flip(0), np.arange(2))), dict[str, Tensor]()
    for phase in recipe.phases:
        losses, more, *_ = phase.module(batch, carry)
        torch.stack(list(losses.values())).sum().backward()
        carry.update(more)
        own = list(phase.module.parameters())
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in own)
    assert [phase.name for phase in recipe.phases] == ["generator"] + ["discriminator"] * (gan != "none")


def test_a_gan_loss_needs_a_discriminator() -> None:
    model = debug_config(discriminator=False)
    train = MotionTrainConfig(losses=LossConfig(gan="lsgan", perceptual=()))
    with pytest.raises(ParamsError, match=r"losses.gan must be none, or model.discriminator be true"):
        motion.build(build(model), model=model, train=train, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (LossConfig(perceptual=(), equivariance_value=0, equivariance_jacobian=0), "losses must have a term above 0"),
        (LossConfig(perceptual=(1.0,) * 6), "losses.perceptual must have a weight for each level of the backbone, 5"),
    ],
)
def test_losses_that_train_nothing_or_more_than_there_is_are_refused(losses: LossConfig, says: str) -> None:
    model = debug_config()
    with pytest.raises(ParamsError, match=says):
        motion.build(build(model), model=model, train=MotionTrainConfig(losses=losses), device=torch.device("cpu"))


def test_channel_attention_needs_two_samples() -> None:
    model = debug_config(hourglass_attention="channel")
    train = MotionTrainConfig(batch_size=1, losses=LossConfig(perceptual=()))
    with pytest.raises(ParamsError, match="batch_size must be 2 or more with hourglass_attention: channel"):
        motion.build(build(model), model=model, train=train, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"max_epochs": 3, "milestones": (5,)},
        {"milestones": (-1,)},
        {"early_stop_patience": 2, "validate_every_steps": 0},
    ],
)
def test_settings_that_would_be_ignored_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        MotionTrainConfig(**options)


@pytest.mark.parametrize("option", ["generator_gan", "discriminator_gan"])
def test_an_adversarial_loss_without_weight_is_refused(option: str) -> None:
    with pytest.raises(ParamsError, match="gan must be none where"):
        LossConfig(gan="lsgan", **{option: 0.0})


def test_a_validation_that_is_not_finite_is_never_the_best() -> None:
    state = TrainState(step=1)
    assert not state.judge(float("nan"))
    state.step = 2
    assert state.judge(0.5)
    assert (state.best_step, state.best_metric) == (2, 0.5)
    state.step = 3
    assert not state.judge(float("nan"))
    assert state.best_step == 2


# ---- a step that can't be taken


def test_shards_of_another_size_than_the_models_are_refused(paths: Paths) -> None:
    wrong = params(train_config())
    experiment = wrong.experiments["small"]
    larger = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, size_px=64))
    with pytest.raises(TrainingError, match=r"model.size_px must be the shards' size \(32 px\); got 64"):
        stage.run("small", dataclasses.replace(wrong, experiments={"small": larger}), paths, backend="local")


def test_a_batch_that_can_not_be_kept_does_not_hide_what_went_wrong(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.recipes import motion_phases

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(motion_phases, "weighted_l1", lambda a, b, weight: (a - b).mean() * float("nan"))
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(TrainingError, match=r"must be finite.*could not be kept: No space left on device"):
        stage.run("small", params(train_config()), paths, backend="local")


def test_the_batch_of_a_bad_step_is_kept(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.recipes import motion_phases

    plain = motion_phases.weighted_l1
    calls: list[int] = []

    def spoilt(a: Tensor, b: Tensor, weight: float) -> Tensor:
        calls.append(1)
        return plain(a, b, weight) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(motion_phases, "weighted_l1", spoilt)
    given = train_config(max_steps=4, checkpoint_every_steps=1, validate_every_steps=0)
    with pytest.raises(TrainingError) as caught:
        stage.run("small", params(given), paths, backend="local")
    text = str(caught.value)
    assert "in step 2 on rank 0 must be finite; got nan" in text
    (kept,) = paths.root.glob("runs/small-*/bad-batches/step-00000002-rank-0.npz")
    assert str(kept.parent) in text
    with np.load(kept) as arrays:
        assert arrays["source"].shape == arrays["driving"].shape == (given.batch_size, 3, 32, 32)
        assert arrays["items"].tolist() == list(range(given.batch_size, 2 * given.batch_size))
    assert RunFolder(str(kept.parent.parent)).steps() == [1], "the last good checkpoint stays"
