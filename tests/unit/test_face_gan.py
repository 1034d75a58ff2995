"""Training StyleGAN2: what each phase trains and when, exact resumption, parts and ranks that equal the whole."""

from __future__ import annotations

import copy
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_kit as kit
from torch import Tensor

from models.style.stylegan2.build import debug_config
from training.ada import Augmentation
from training.face_config import AdversarialConfig, FaceTrainConfig
from training.face_validation import KID, MadeValidation
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import face_gan
from training.recipes.face_gan import FaceGanRecipe
from training.recipes.face_gan_warm_up import Components
from training.shard_reader import ShardReader
from training.world import World

MODEL = debug_config()
BATCH = 8


def batch(step: int, rank: int = 0, size: int = 1) -> PairBatch:
    items = np.arange(step * BATCH, (step + 1) * BATCH)
    rng = np.random.default_rng(step)
    coarse = rng.integers(0, 256, (BATCH, 3, 4, 4), dtype=np.uint8)
    px = MODEL.size_px // 4
    mine = torch.from_numpy(coarse.repeat(px, axis=-1).repeat(px, axis=-2)[rank::size].copy())
    return PairBatch(mine, mine, items[rank::size])


def trainer(
    *, world: World | None = None, dtype: torch.dtype = torch.float32, gan: dict[str, Any] | None = None, **options: Any
) -> Trainer:
    torch.manual_seed(0)
    losses = AdversarialConfig(**{"r1_every_steps": 2, "path_every_steps": 2, **(gan or {})})
    base = {"batch_size": BATCH, "max_steps": 100, "ema_decay": 0.5, "adam_betas": (0.0, 0.99)}
    rates = {"lr_generator": 2e-3, "lr_discriminator": 2e-3}
    train = FaceTrainConfig(**{**base, **rates, **options}, gan=losses)
    networks = face_gan.build_networks(MODEL)
    recipe = face_gan.build(networks, model=MODEL, train=train, device=torch.device("cpu"), dtype=dtype)
    return Trainer(recipe, train, world or World())


def recipe_of(made: Trainer) -> FaceGanRecipe:
    assert isinstance(made.recipe, FaceGanRecipe)
    return made.recipe


def tensors(made: Trainer) -> dict[str, Tensor]:
    held = {f"{name}.{k}": v for name, net in made.recipe.networks.items() for k, v in net.state_dict().items()}
    if made.average is not None:
        held |= {f"ema.{key}": value for key, value in made.average.state_dict().items()}
    return {key: value.clone() for key, value in held.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor], prefix: str = "") -> bool:
    return all(torch.equal(a[key], b[key]) for key in a if key.startswith(prefix))


def terms(values: dict[str, float]) -> set[str]:
    return {key.partition("/")[2] for key in values if key.startswith("loss/")}


def test_penalties_come_lazily_and_the_rest_every_step() -> None:
    made, always = trainer(gan={"r1_every_steps": 3}), {"generator/gan", "discriminator/made", "discriminator/real"}
    seen = [terms(made.step(batch(step))) - always for step in range(4)]
    assert seen == [{"path/penalty", "slope/penalty"}, set(), {"path/penalty"}, {"slope/penalty"}]


def test_a_step_trains_both_networks_and_what_follows_them() -> None:
    made = trainer()
    before = tensors(made)
    made.step(batch(0))
    after = tensors(made)
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"generator", "discriminator", "ema", "path", "augmentation"}
    assert float(after["path.value"]) > 0
    assert float(after["generator.mean_style"].abs().sum()) > 0


def test_rates_of_0_leave_each_network_alone() -> None:
    for frozen, trained in (("generator", "discriminator"), ("discriminator", "generator")):
        made = trainer(**{f"lr_{frozen}": 0.0})
        before = tensors(made)
        made.step(batch(0))
        parameters = {f"{frozen}.{name}" for name, _ in made.recipe.networks[frozen].named_parameters()}
        after = tensors(made)
        assert all(torch.equal(before[name], after[name]) for name in parameters)
        assert not same(before, after, f"{trained}.")


def test_a_lazy_penalty_weighs_as_often_as_it_is_left_out() -> None:
    often, seldom = (trainer(gan={"r1_every_steps": every}).step(batch(0)) for every in (1, 4))
    assert often["figure/slope/slope"] > 0
    for values, every in ((often, 1), (seldom, 4)):
        assert values["loss/slope/penalty"] == pytest.approx(5.0 * every * values["figure/slope/slope"])


def test_adam_learns_less_a_step_where_a_penalty_steps_too() -> None:
    phases = {phase.name: phase for phase in trainer(gan={"r1_every_steps": 16, "path_length": 0.0}).recipe.phases}
    assert set(phases) == {"generator", "discriminator", "slope"}
    judging = phases["discriminator"].optimizer
    assert phases["slope"].optimizer is judging
    (group,) = judging.param_groups
    assert group["lr"] == pytest.approx(2e-3 * 16 / 17)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    (group,) = phases["generator"].optimizer.param_groups
    assert group["lr"] == 2e-3


def test_draws_depend_on_the_sample_alone() -> None:
    recipe = recipe_of(trainer())
    whole, share = recipe.prepare(batch(2)), recipe.prepare(batch(2, rank=1, size=2))
    assert set(whole) == set(share)
    for name in ("real", "draws", "codes", "change", "noise-0", "noise-3"):
        assert torch.equal(whole[name][1::2], share[name])
    assert torch.equal(whole["path-codes"][1::2], share["path-codes"])
    assert len(whole["path-codes"]) == BATCH // 2
    assert not torch.equal(whole["path-codes"], whole["codes"][: BATCH // 2])
    assert "path-codes" not in recipe.prepare(batch(3))


def test_mixing_changes_codes_at_a_layer_of_its_own() -> None:
    always, never = (recipe_of(trainer(gan={"mixing": share})) for share in (1.0, 0.0))
    changes = torch.cat([always.prepare(batch(step))["change"] for step in range(1, 20, 2)])
    assert set(changes.tolist()) == set(range(1, MODEL.num_styles))
    assert set(never.prepare(batch(1))["change"].tolist()) == {MODEL.num_styles}


def test_augmentation_grows_while_real_pictures_are_known_for_sure() -> None:
    rises = trainer(gan={"ada_target": 0.001, "ada_images": 40.0, "ada_every_steps": 1})
    rises.recipe.networks["discriminator"].get_parameter("final_linear.1.bias").data.fill_(50.0)
    seen = [rises.step(batch(step))["figure/discriminator/augmentation"] for step in range(4)]
    assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6])
    falls = trainer(gan={"ada_images": 40.0, "ada_every_steps": 1, "ada_initial": 0.5})
    falls.recipe.networks["discriminator"].get_parameter("final_linear.1.bias").data.fill_(-50.0)
    seen = [falls.step(batch(step))["figure/discriminator/augmentation"] for step in range(3)]
    assert seen == pytest.approx([0.5, 0.3, 0.1])


@pytest.mark.parametrize("learns", [True, False])
def test_noise_grows_only_where_it_may(learns: bool) -> None:
    made = trainer(gan={"learn_noise": learns})
    for step in range(2):
        made.step(batch(step))
    strengths = [v for k, v in made.recipe.networks["generator"].named_parameters() if k.endswith("noise.weight")]
    assert len(strengths) == MODEL.num_styles - 1
    assert any(bool(strength.any()) for strength in strengths) == learns


def test_codes_of_pictures_are_drawn_like_those_of_later() -> None:
    pictures = np.concatenate([batch(step).source.numpy() for step in range(12)])
    components = Components(pictures, 24)
    rest = torch.zeros(len(pictures), 24, dtype=torch.float64)
    codes = components.codes(torch.from_numpy(pictures).double() / 255, rest).numpy()
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(24), atol=1e-9)
    few = Components(pictures[:5], 24)  # five pictures differ in four directions
    rest = torch.arange(24.0).expand(5, 24)
    assert torch.equal(few.codes(torch.from_numpy(pictures[:5]).float() / 255, rest)[:, 4:], rest[:, 4:])


def fill(made: Trainer, held: dict[str, Tensor]) -> None:
    """Give a training the weights that `tensors` took of another."""
    assert made.average is not None
    for name, network in (*made.recipe.networks.items(), ("ema.generator", made.average.networks["generator"])):
        network.load_state_dict({k.removeprefix(f"{name}."): v for k, v in held.items() if k.startswith(f"{name}.")})


def warming(steps: int = 3) -> Trainer:
    made = trainer(gan={"warm_up_steps": steps, "lr_warm_up": 0.02})
    recipe_of(made).learn_components(np.concatenate([batch(step).source.numpy() for step in range(4)]))
    return made


def test_a_warm_up_comes_before_the_adversary() -> None:
    made = warming(4)
    seen = [{key.split("/")[1] for key in made.step(batch(step)) if key.startswith("loss/")} for step in range(6)]
    assert seen[:2] == [{"warm_up"}] * 2
    assert seen[2:4] == [{"warm_up", "discriminator", "slope"}, {"warm_up", "discriminator"}]
    assert seen[4:] == [{"generator", "path", "discriminator", "slope"}, {"generator", "discriminator"}]


def test_a_warm_up_redraws_the_pictures() -> None:
    made = warming(40)
    losses = [made.step(batch(step % 2))["loss/warm_up/l1"] for step in range(30)]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_a_resumed_warm_up_equals_the_unbroken_one_to_the_bit() -> None:
    unbroken, first = warming(), warming()
    for step in range(4):
        unbroken.step(batch(step))
    for step in range(2):
        first.step(batch(step))
    weights, state = tensors(first), copy.deepcopy(first.state_dict())
    resumed = warming()
    fill(resumed, weights)
    resumed.load_state_dict(state)
    for step in range(2, 4):
        resumed.step(batch(step))
    assert same(tensors(unbroken), tensors(resumed))


def test_a_resumed_training_equals_the_unbroken_one_to_the_bit() -> None:
    options = {"gan": {"ada_images": 50.0, "ada_every_steps": 3, "r1_every_steps": 3, "ada_initial": 0.4}}
    whole = trainer(**options)
    for step in range(4):
        whole.step(batch(step))
    kept = copy.deepcopy((whole.state_dict(), tensors(whole)))
    losses = [whole.step(batch(step)) for step in range(4, 8)]
    again = trainer(**options)
    fill(again, kept[1])
    again.load_state_dict(kept[0])
    augmentation = again.recipe.networks["augmentation"]
    assert isinstance(augmentation, Augmentation)
    assert float(augmentation.probability) not in (0.0, pytest.approx(0.4, abs=1e-9))
    assert [again.step(batch(step)) for step in range(4, 8)] == losses
    assert same(tensors(whole), tensors(again))


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-9, rtol=1e-6, msg=key)


def test_a_batch_in_parts_trains_as_the_whole() -> None:
    """But for running means, which move with each part: the path's length is left out here."""
    options = {"gan": {"path_length": 0.0, "ada_initial": 0.5, "ada_images": 100.0, "ada_every_steps": 1}}
    both = [trainer(dtype=torch.float64, accumulate=parts, **options) for parts in (1, 2)]
    values = [[made.step(batch(step)) for step in range(3)] for made in both]
    for first, second in zip(*values, strict=True):
        assert second == pytest.approx(first, rel=1e-6, abs=1e-9)
    one, two = ({k: v for k, v in tensors(made).items() if "mean_style" not in k} for made in both)
    close(one, two)


def test_the_path_is_the_same_in_parts_once_its_mean_is() -> None:
    both = [
        trainer(dtype=torch.float64, accumulate=parts, gan={"path_decay": 0.0, "path_every_steps": 1})
        for parts in (1, 2)
    ]
    one, two = ([made.step(batch(step)) for step in range(2)][-1] for made in both)
    assert two == pytest.approx(one, rel=1e-6, abs=1e-9)


def train_rank(rank: int, size: int, port: int, folder: str) -> None:
    """Two steps as one of several ranks; what came of it as a file."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    made = trainer(world=World(rank=rank, size=size), dtype=torch.float64, **RANKED)
    values = [made.step(batch(step, rank, size)) for step in range(2)]
    torch.save((values, tensors(made)), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


RANKED: dict[str, Any] = {"gan": {"ada_initial": 0.5, "ada_images": 100.0, "ada_every_steps": 1}, "accumulate": 1}


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=train_rank, args=(rank, 2, port, str(tmp_path))) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=200)
        assert process.exitcode == 0
    alone = trainer(dtype=torch.float64, **RANKED)
    wanted = [alone.step(batch(step)) for step in range(2)]
    (values, first), (_, second) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(first, second)
    for one, two in zip(wanted, values, strict=True):
        assert two == pytest.approx(one, rel=1e-6, abs=1e-9)
    close(tensors(alone), first)


def test_pictures_and_validation_show_the_same_codes_every_time(tmp_path: Path) -> None:
    made = trainer()
    recipe, reader = recipe_of(made), ShardReader(kit.write_shards(tmp_path, num_frames=1))
    judge = MadeValidation(reader, recipe, World(), num_pictures=4, size_px=MODEL.size_px)
    assert judge.judged_by == KID
    before = judge.run(made.judged()), recipe.pictures(made.judged(), batch(0))["samples"]
    again = judge.run(made.judged()), recipe.pictures(made.judged(), batch(1))["samples"]
    assert before[0] == again[0]
    np.testing.assert_array_equal(before[1], again[1])
    assert before[1].dtype == np.uint8
    assert before[1].shape == (4 * 34 - 2, 6 * 34 - 2, 3)
    assert before[0].keys() == {KID}
    assert before[0][KID] > 0.05, "noise is far from pictures"


def test_the_training_learns_a_colour() -> None:
    """Real pictures are all of one colour: what is made comes nearer to it."""
    made = trainer(gan={"r1": 1.0, "path_length": 0.0}, ema_decay=0.0, lr_generator=1e-2, lr_discriminator=1e-2)
    recipe = recipe_of(made)
    colour = torch.tensor([200, 60, 30], dtype=torch.uint8)[:, None, None].expand(BATCH, 3, 32, 32).contiguous()

    def distance() -> float:
        pictures = recipe.make(recipe.networks, 8)
        return float((pictures - colour[0] / 255).abs().mean())

    before = distance()
    for step in range(40):
        made.step(PairBatch(colour, colour, np.arange(step * BATCH, (step + 1) * BATCH)))
    assert distance() < 0.6 * before


def test_mixed_precision_trains_alike() -> None:
    full, mixed = (trainer(precision=precision).step(batch(0)) for precision in ("fp32", "bf16"))
    assert mixed.keys() == full.keys()
    for name in ("loss/generator/gan", "loss/discriminator/real", "loss/path/penalty"):
        assert mixed[name] == pytest.approx(full[name], rel=0.1)
        assert mixed[name] != full[name] or name == "loss/path/penalty"
