"""Training the style family: what each phase trains and when, exact resumption, and that divergence stops it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import ClipError, ParamsError, TrainingError
from models.style.networks import build, debug_config
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import style as recipes
from training.recipes.style import StyleRecipe
from training.style_config import StyleLossConfig, StyleTrainConfig
from training.world import World

SIZE, BATCH = 32, 2


class Levels(nn.Module):
    """Five maps, each half the size of the one before: a backbone without weights."""

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [image * 2 - 1]
        for _ in range(4):
            levels.append(nn.functional.avg_pool2d(levels[-1], 2))
        return levels


def batch(step: int) -> PairBatch:
    rng = np.random.default_rng(step)
    coarse = rng.integers(0, 256, (2, BATCH, 3, 4, 4), dtype=np.uint8)
    photo, style = torch.from_numpy(coarse.repeat(SIZE // 4, axis=-1).repeat(SIZE // 4, axis=-2))
    return PairBatch(photo, style, np.arange(step * BATCH, (step + 1) * BATCH))


def trainer(**options: Any) -> Trainer:
    torch.manual_seed(0)
    losses = StyleLossConfig(**{"adversarial": 1.0, "content_level": 1, **options})
    rates = {"lr_generator": 1e-3, "lr_discriminator": 1e-3}
    train = StyleTrainConfig(batch_size=BATCH, max_steps=100, ema_decay=0.5, losses=losses, **rates)
    made = recipes.build(
        build(debug_config()),
        model=debug_config(),
        train=train,
        device=torch.device("cpu"),
        perceptual=Levels(),
    )
    return Trainer(made, train, World(rank=0, size=1, device=torch.device("cpu")))


def weights(made: Trainer, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in made.recipe.networks[name].state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def terms(values: dict[str, float]) -> set[str]:
    return {key.partition("/")[2] for key in values if key.startswith(("loss/", "figure/"))}


def test_a_step_trains_generator_and_critic_with_every_term() -> None:
    made = trainer(total_variation=1.0)
    before = weights(made, "generator"), weights(made, "critic")
    values = made.step(batch(0))
    assert terms(values) == {
        *(f"generator/{term}" for term in ("gan", "content", "texture", "colour", "total_variation")),
        *("critic/gan", "critic/wasserstein", "penalty/penalty", "penalty/slope"),
    }
    assert not same(before[0], weights(made, "generator"))
    assert not same(before[1], weights(made, "critic"))
    assert values["loss/penalty/penalty"] == pytest.approx(10 * values["figure/penalty/slope"])


def test_the_penalty_is_not_multiplied_with_the_adversarial_weight() -> None:
    values = trainer(adversarial=350.0).step(batch(0))
    assert values["loss/penalty/penalty"] == pytest.approx(10 * values["figure/penalty/slope"])


def test_the_generator_comes_every_few_steps_and_the_penalty_lazily() -> None:
    made, seen = trainer(critic_steps=3, penalty_every_steps=2), []
    for step in range(6):
        before = weights(made, "generator")
        found = terms(made.step(batch(step)))
        seen.append(("generator/gan" in found, "penalty/penalty" in found, same(before, weights(made, "generator"))))
        assert "critic/gan" in found
    assert [generator for generator, _, _ in seen] == [True, False, False, True, False, False]
    assert [penalty for _, penalty, _ in seen] == [True, False, True, False, True, False]
    assert [stood for _, _, stood in seen] == [False, True, True, False, True, True]


def test_a_lazy_penalty_weighs_as_often_as_it_is_left_out() -> None:
    often, seldom = (trainer(penalty_every_steps=every).step(batch(0)) for every in (1, 4))
    assert seldom["loss/penalty/penalty"] == pytest.approx(4 * often["loss/penalty/penalty"])


def test_the_warm_up_learns_content_alone() -> None:
    made = trainer(warm_up_steps=30, lr_warm_up=3e-3)
    critic = weights(made, "critic")
    losses = [made.step(batch(step % 2)) for step in range(30)]
    assert all(terms(values) == {"warm_up/content"} for values in losses)
    assert same(critic, weights(made, "critic"))
    first, last = (values["loss/warm_up/content"] for values in (losses[0], losses[-1]))
    assert last < 0.8 * first
    assert "critic/gan" in terms(made.step(batch(30)))


def test_least_squares_have_no_penalty_and_content_alone_no_critic() -> None:
    assert not any("penalty" in term for term in terms(trainer(gan="lsgan", gray_negative=1.0).step(batch(0))))
    alone = trainer(gan="none")
    critic = weights(alone, "critic")
    assert terms(alone.step(batch(0))) == {"generator/content", "generator/texture", "generator/colour"}
    assert same(critic, weights(alone, "critic"))


def test_the_critic_learns_to_tell_both_apart() -> None:
    made = trainer(critic_steps=1000, adversarial=100.0)
    pairs = batch(0)
    style = torch.full_like(pairs.driving, 230)
    distances = [made.step(PairBatch(pairs.source, style, pairs.items))["figure/critic/wasserstein"] for _ in range(25)]
    assert distances[-1] > distances[0] + 0.05


def test_a_resumed_training_equals_the_unbroken_one_to_the_bit() -> None:
    options = {"critic_steps": 2, "penalty_every_steps": 3, "warm_up_steps": 2}
    whole = trainer(**options)
    for step in range(5):
        whole.step(batch(step))
    kept = copy.deepcopy(
        {
            "state": whole.state_dict(),
            "networks": {name: net.state_dict() for name, net in whole.recipe.networks.items()},
            "average": whole.average.state_dict() if whole.average is not None else {},
        }
    )
    for step in range(5, 12):
        whole.step(batch(step))
    again = trainer(**options)
    for name, network in again.recipe.networks.items():
        network.load_state_dict(kept["networks"][name])
    assert again.average is not None
    assert whole.average is not None
    again.average.networks["generator"].load_state_dict(
        {key.removeprefix("generator."): value for key, value in kept["average"].items()}
    )
    again.load_state_dict(kept["state"])
    for step in range(5, 12):
        again.step(batch(step))
    for name in whole.recipe.networks:
        assert same(weights(whole, name), weights(again, name)), name
    assert same(dict(whole.average.state_dict()), dict(again.average.state_dict()))


@pytest.mark.parametrize(
    ("limit", "term"), [("max_wasserstein", "critic/wasserstein"), ("max_penalty", "penalty/slope")]
)
def test_a_diverging_critic_stops_the_training_with_its_numbers(limit: str, term: str) -> None:
    made = trainer(**{limit: 1e-9})
    with pytest.raises(TrainingError, match=rf"loss/{term} in step 1 must stay within 1e-09: the critic has diverged"):
        made.step(batch(0))


def test_pictures_show_photo_drawing_and_style() -> None:
    made = trainer()
    assert isinstance(made.recipe, StyleRecipe)
    shown = made.recipe.pictures(made.judged(), batch(0))["stylised"]
    assert shown.dtype == np.uint8
    assert shown.shape[0] >= BATCH * SIZE
    assert shown.shape[1] >= 3 * SIZE
    drawing = made.recipe.stylise(made.judged(), batch(0).source)
    assert drawing.shape == (BATCH, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    "options",
    [
        {"adversarial": 0.0},
        {"penalty": 0.0},
        {"content_level": 6},
        {"critic_steps": 0},
        {"gan": "none", "content": 0.0, "texture": 0.0, "colour": 0.0},
        {"warm_up_steps": 3, "content": 0.0},
        {"cycle": 10.0},
        {"identity": 5.0},
        {"real": 1.2},
        {"gan": "lsgan", "made_negative": 0.0},
    ],
)
def test_losses_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        trainer(**options)


def with_smooth(pairs: PairBatch, smooth: Tensor) -> PairBatch:
    return pairs._replace(smooth=smooth)


def test_edge_smoothed_pictures_are_wrong_ones_for_the_critic() -> None:
    pairs = batch(0)
    plain, like_style, black = (
        trainer(gan="lsgan", smooth_negative=weight).step(given)["loss/critic/gan"]
        for weight, given in (
            (0.0, pairs),
            (1.0, with_smooth(pairs, pairs.driving)),
            (1.0, with_smooth(pairs, torch.zeros_like(pairs.driving))),
        )
    )
    assert like_style > plain
    assert like_style != black
    doubled = trainer(gan="lsgan", smooth_negative=2.0).step(with_smooth(pairs, pairs.driving))["loss/critic/gan"]
    assert doubled - plain == pytest.approx(2 * (like_style - plain), rel=1e-4)


def test_a_batch_without_its_edge_smoothed_pictures_is_refused_in_words() -> None:
    rule = "the style pictures must come with edge-smoothed copies; got none. Have them made"
    with pytest.raises(ClipError, match=rule):
        trainer(gan="lsgan", smooth_negative=1.0).step(batch(0))


def test_the_critics_terms_have_weights_of_their_own() -> None:
    def loss(**options: float) -> float:
        return trainer(gan="lsgan", **options).step(batch(0))["loss/critic/gan"]

    both = loss()
    real, made = loss(real=3.0) - both, loss(made_negative=3.0) - both
    assert min(real, made) > 0
    assert both == pytest.approx(real / 2 + made / 2, rel=1e-5)
