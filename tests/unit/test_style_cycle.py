"""Training the way there and back (CycleGAN): the losses against numbers written out, what trains, exact resumption."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import ParamsError
from models.style.config import StyleConfig
from models.style.networks import build, debug_config
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import style as recipes
from training.recipes.cycle_phases import CycleAround, CycleCriticPhase, CycleGeneratorPhase
from training.recipes.motion_phases import Precision
from training.style_config import StyleLossConfig, StyleTrainConfig
from training.world import World

SIZE, BATCH, CPU = 32, 2, torch.device("cpu")
ALONE = {"content": 0.0, "texture": 0.0, "colour": 0.0}
PUBLISHED: dict[str, Any] = {"gan": "lsgan", "adversarial": 1.0, "cycle": 10.0, "identity": 5.0, **ALONE}
MODEL = debug_config(StyleConfig(layout="cyclegan", norm="instance", critic_spectral=False, critic_instance=True))
NAMES = ("generator", "generator_back", "critic", "critic_back")


def batch(step: int) -> PairBatch:
    rng = np.random.default_rng(step)
    coarse = rng.integers(0, 256, (2, BATCH, 3, 8, 8), dtype=np.uint8)
    photo, style = torch.from_numpy(coarse.repeat(SIZE // 8, axis=-1).repeat(SIZE // 8, axis=-2))
    return PairBatch(photo, style, np.arange(step * BATCH, (step + 1) * BATCH))


def trainer(**options: Any) -> Trainer:
    torch.manual_seed(0)
    losses, rates = StyleLossConfig(**(PUBLISHED | options)), {"lr_generator": 1e-3, "lr_discriminator": 1e-3}
    train = StyleTrainConfig(batch_size=BATCH, max_steps=100, ema_decay=0.5, losses=losses, **rates)
    made = recipes.build(build(MODEL), model=MODEL, train=train, device=CPU)
    return Trainer(made, train, World(rank=0, size=1, device=CPU))


def weights(made: Trainer, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in made.recipe.networks[name].state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


class Plus(nn.Module):
    """Adds a number to every pixel, or to the mean of every pixel's channels."""

    def __init__(self, number: float, *, mean: bool = False) -> None:
        super().__init__()
        self.number, self.mean = nn.Parameter(torch.tensor(number)), mean

    def forward(self, image: Tensor) -> Tensor:
        return (image.mean(1, keepdim=True) if self.mean else image) + self.number


def around(networks: dict[str, nn.Module], **options: float) -> CycleAround:
    return CycleAround(StyleLossConfig(**(PUBLISHED | options)), Precision(device=CPU), networks)


def test_the_generators_losses_by_hand() -> None:
    photo, style = torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), 0.5)
    critics: dict[str, nn.Module] = {"critic": Plus(0.0, mean=True), "critic_back": Plus(0.5, mean=True)}
    phase = CycleGeneratorPhase(Plus(0.125), Plus(0.0625), around(critics))
    losses, carry, _ = phase({"photo": photo, "style": style}, {})
    wanted = {
        "gan": (1 - 0.375) ** 2,
        "gan_back": (1 - 1.0625) ** 2,
        "cycle": 10 * 2 * 0.1875,
        "cycle_back": 10 * 2 * 0.1875,
        "identity": 5 * 2 * 0.125,
        "identity_back": 5 * 2 * 0.0625,
    }
    assert {name: float(value.detach()) for name, value in losses.items()} == pytest.approx(wanted)
    torch.testing.assert_close(carry["made"], photo + 0.125)
    torch.testing.assert_close(carry["made_back"], style + 0.0625)


@pytest.mark.parametrize("carried", [True, False])
def test_the_critics_losses_by_hand(carried: bool) -> None:
    """Whether the generators had their turn in this step or not."""
    photo, style = torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), 0.5)
    makers: dict[str, nn.Module] = {"generator": Plus(0.125), "generator_back": Plus(0.25)}
    carry = {"made": photo + 0.125, "made_back": style + 0.25} if carried else {}
    phase = CycleCriticPhase(
        Plus(0.0, mean=True), Plus(0.5, mean=True), around(makers, real=0.5, made_negative=0.25, adversarial=2.0)
    )
    losses = phase({"photo": photo, "style": style}, carry).losses
    there = 0.5 * (1 - 0.5) ** 2 + 0.25 * 0.375**2
    back = 0.5 * (1 - 0.75) ** 2 + 0.25 * 1.25**2
    assert float(losses["gan"].detach()) == pytest.approx(2 * there)
    assert float(losses["gan_back"].detach()) == pytest.approx(2 * back)
    assert all(parameter.grad is None for maker in makers.values() for parameter in maker.parameters())


def test_a_step_trains_all_four_networks() -> None:
    made = trainer()
    before = {name: weights(made, name) for name in NAMES}
    values = made.step(batch(0))
    terms = {key.removeprefix("loss/") for key in values if key.startswith("loss/")}
    generators = {f"generators/{term}{way}" for term in ("gan", "cycle", "identity") for way in ("", "_back")}
    assert terms == generators | {"critics/gan", "critics/gan_back"}
    assert not any(same(before[name], weights(made, name)) for name in NAMES)
    assert made.recipe.averaged == ("generator",)


def test_critics_alone_train_between_the_generators_turns() -> None:
    made = trainer(critic_steps=2)
    made.step(batch(0))
    before = {name: weights(made, name) for name in NAMES}
    made.step(batch(1))
    assert [same(before[name], weights(made, name)) for name in NAMES] == [True, True, False, False]


def test_pictures_learn_to_come_back() -> None:
    made = trainer(identity=0.0)
    losses = [made.step(batch(step % 2)) for step in range(20)]
    first, last = (sum(v["loss/generators/cycle"] for v in part) for part in (losses[:2], losses[-2:]))
    assert last < 0.85 * first


def test_a_resumed_training_equals_the_unbroken_one_to_the_bit() -> None:
    whole = trainer(critic_steps=2)
    for step in range(3):
        whole.step(batch(step))
    state = copy.deepcopy(whole.state_dict())
    networks = {name: weights(whole, name) for name in NAMES}
    for step in range(3, 7):
        whole.step(batch(step))
    again = trainer(critic_steps=2)
    for name in NAMES:
        again.recipe.networks[name].load_state_dict(networks[name])
    again.load_state_dict(state)
    for step in range(3, 7):
        again.step(batch(step))
    assert all(same(weights(whole, name), weights(again, name)) for name in NAMES)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"gan": "wgan-gp"}, "losses.gan must be lsgan with layout: cyclegan; got 'wgan-gp'"),
        ({"cycle": 0.0}, "losses.cycle must be above 0 with layout: cyclegan; got 0.0"),
        ({"content": 1.0}, "losses.content must be 0 with layout: cyclegan"),
        ({"smooth_negative": 1.0}, "losses.smooth_negative must be 0 with layout: cyclegan"),
        ({"cycle": -1.0}, "cycle must be 0 or more"),
    ],
)
def test_losses_that_cycles_do_not_have_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ParamsError, match=rule):
        trainer(**options)
