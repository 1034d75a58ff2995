"""Fine-tuning DualStyleGAN: what each domain's step trains and shows, exact resumption, and that losses fall."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import ClipError, ParamsError
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from training.codes import Codes, code_table
from training.dualstyle_feed import CodedBatch, coded
from training.face_config import AdversarialConfig, FaceTrainConfig, StyleTransferConfig
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import dualstyle as recipes
from training.recipes.dualstyle import DualStyleRecipe
from training.recipes.dualstyle_samples import falls_to, layer_at
from training.world import World

SIZE, BATCH = 32, 4
MODEL = FaceConfig(
    size_px=SIZE,
    style_dim=16,
    mapping_layers=2,
    max_channels=8,
    structure_layers=3,
    encoder_px=SIZE,
    encoder_width=4,
    encoder_units=(1, 1, 1, 1),
)
NAMES = ("a", "b", "c")
SOURCE: dict[str, Any] = {"layers": (3, 2), "layer_steps": (3, 5)}
TARGET: dict[str, Any] = {
    "domain": "target",
    "adversarial": 1.0,
    "perceptual": 1.0,
    "contextual": 0.25,
    "feature_matching": 0.25,
    "identity": 1.0,
    "regularisation": 0.015,
    "encoded_share": 0.5,
}


class Levels(nn.Module):
    """Five maps, each half the size of the one before: a backbone without weights."""

    name = "levels"

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [image * 2 - 1]
        for _ in range(4):
            levels.append(nn.functional.avg_pool2d(levels[-1], 2))
        return levels


def codes() -> dict[str, Codes]:
    draw = torch.Generator().manual_seed(5)
    return {name: Codes(*torch.randn(2, MODEL.num_styles, MODEL.style_dim, generator=draw)) for name in NAMES}


def batch(step: int) -> CodedBatch:
    items = np.arange(step * BATCH, (step + 1) * BATCH)
    coarse = np.random.default_rng(step).integers(0, 256, (BATCH, 3, 4, 4), dtype=np.uint8)
    styles = np.random.default_rng(7).integers(0, 256, (len(NAMES), 3, 4, 4), dtype=np.uint8)[items % len(NAMES)]
    photo, style = (torch.from_numpy(x.repeat(SIZE // 4, axis=-1).repeat(SIZE // 4, axis=-2)) for x in (coarse, styles))
    names = tuple(NAMES[item % len(NAMES)] for item in items)
    return coded(PairBatch(photo, style, items), code_table(codes()), names)


def trainer(
    transfer: dict[str, Any], *, seed: int = 0, rate: float = 2e-3, train: dict[str, Any] | None = None, **gan: Any
) -> Trainer:
    torch.manual_seed(0)
    networks = recipes.build_networks(MODEL)
    # The penalty is taken often, so that its phase shows in few steps.
    config = FaceTrainConfig(
        seed=seed,
        batch_size=BATCH,
        max_steps=100,
        ema_decay=0.5,
        adam_betas=(0.0, 0.99),
        lr_generator=rate,
        lr_discriminator=rate,
        transfer=StyleTransferConfig(**transfer),
        gan=AdversarialConfig(**{"r1_every_steps": 2, "path_length": 0.0, **gan}),
        **(train or {}),
    )
    made = recipes.build(networks, model=MODEL, train=config, device=torch.device("cpu"), perceptual=Levels())
    return Trainer(made, config, World())


def recipe_of(made: Trainer) -> DualStyleRecipe:
    assert isinstance(made.recipe, DualStyleRecipe)
    return made.recipe


def states(made: Trainer) -> dict[str, Tensor]:
    nets = made.recipe.networks.items()
    return {f"{name}.{key}": value.clone() for name, net in nets for key, value in net.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The networks' parts in which something differs."""
    return {".".join(key.split(".")[:2]) for key in before if not torch.equal(before[key], after[key])}


def terms(values: dict[str, float]) -> set[str]:
    return {key.partition("/")[2] for key in values if key.startswith("loss/")}


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_only_the_extrinsic_path_and_the_discriminator_learn(transfer: dict[str, Any]) -> None:
    made = trainer(transfer)
    before = states(made)
    for step in range(2):
        made.step(batch(step))
    parts = changed(before, states(made))
    others = {part for part in parts if not part.startswith(("discriminator.", "augmentation."))}
    assert others == {"generator.residuals", "generator.style"}
    assert "discriminator.convs" in parts
    own = {name for name, parameter in made.recipe.networks["generator"].named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in own} == {"residuals", "style"}
    gradients = [p.grad for p in made.recipe.networks["generator"].parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients), "ranks would wait for what is not used"


def test_all_weights_of_the_extrinsic_path_learn() -> None:
    made = trainer(SOURCE)
    before = states(made)
    for step in range(3):
        made.step(batch(step))
    after = states(made)
    still = [key for key in before if key.startswith("generator.residuals") and torch.equal(before[key], after[key])]
    assert not still


def test_the_source_domain_has_its_terms_and_its_exchange_learns() -> None:
    made = trainer(SOURCE | {"layer_steps": (1, 99), "adversarial": 0.0}, rate=1e-2)
    losses = [made.step(batch(step % 2)) for step in range(16)]
    assert terms(losses[0]) == {"generator/perceptual"}
    assert np.mean([v["loss/generator/perceptual"] for v in losses[-4:]]) < 0.9 * np.mean(
        [v["loss/generator/perceptual"] for v in losses[1:5]]
    )
    assert terms(trainer(SOURCE).step(batch(0))) == {
        *("generator/gan", "generator/perceptual", "discriminator/gan", "slope/penalty"),
    }


def test_the_target_domain_takes_turns() -> None:
    made = trainer(TARGET | {"adversarial": 0.0})
    both = {f"generator/{term}" for term in ("contextual", "feature_matching", "identity/levels", "regularisation")}
    assert [terms(made.step(batch(step))) for step in range(3)] == [both, both | {"generator/perceptual"}, both]


def test_a_pair_is_learnt() -> None:
    made = trainer(TARGET | {"paired_share": 1.0, "adversarial": 0.0, "code_jitter": 0.0, "identity": 0.0}, rate=1e-2)
    values = [made.step(batch(0)) for _ in range(12)]
    first, last = (values[i]["loss/generator/perceptual"] for i in (0, -1))
    assert last < 0.9 * first


def test_codes_are_exchanged_at_the_layer_of_the_step() -> None:
    transfer = StyleTransferConfig(**SOURCE)
    assert [layer_at(transfer, step) for step in range(10)] == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    prepared = [recipe_of(trainer(SOURCE)).prepare(batch(step)) for step in (2, 3)]
    assert [given["layer"].tolist() for given in prepared] == [[3] * BATCH, [2] * BATCH]


@pytest.mark.parametrize(("share", "of_twelve"), [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12), (0.3, 3)])
def test_a_share_of_the_steps_is_just_that(share: float, of_twelve: int) -> None:
    found = [falls_to(step, share) for step in range(12)]
    assert sum(found) == of_twelve
    assert sum(falls_to(step, share) for step in range(1000)) == round(1000 * share)


def test_paired_and_encoded_steps_come_as_often_as_they_should() -> None:
    made = recipe_of(trainer(TARGET))
    kinds = [made.prepare(batch(step)) for step in range(8)]
    paired, encoded = ([bool(kind[name][0]) for kind in kinds] for name in ("paired", "encoded"))
    assert (sum(paired), sum(encoded)) == (4, 2)
    assert not any(a and b for a, b in zip(paired, encoded, strict=True))


def test_extrinsic_codes_are_jittered_and_paired_colours_drawn() -> None:
    plain = recipe_of(trainer(TARGET | {"code_jitter": 0.0, "paired_share": 1.0})).prepare(batch(1))
    shaken = recipe_of(trainer(TARGET | {"code_jitter": 0.1, "paired_share": 1.0})).prepare(batch(1))
    given, change = batch(1), MODEL.structure_layers
    assert torch.equal(plain["extrinsic"], given.extrinsic)
    assert float((shaken["extrinsic"] - given.extrinsic).std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(plain["intrinsic"][:, :change], given.intrinsic[:, :change])
    assert not torch.equal(plain["intrinsic"][:, change:], given.intrinsic[:, change:])


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_what_is_drawn_depends_on_the_samples_alone(transfer: dict[str, Any]) -> None:
    whole = recipe_of(trainer(transfer)).prepare(batch(1))
    torch.manual_seed(4)
    other = recipe_of(trainer(transfer))
    other.prepare(batch(0))
    again = other.prepare(batch(1))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    full = batch(1)
    part = coded(
        PairBatch(full.source[1::2], full.driving[1::2], full.items[1::2]), code_table(codes()), full.names[1::2]
    )
    half = other.prepare(part)
    assert all(torch.equal(whole[name][1::2], half[name]) for name in whole)
    assert not torch.equal(whole["real" if transfer is SOURCE else "extrinsic"], other.prepare(batch(2))["real"])
    seeded = recipe_of(trainer(transfer, seed=1)).prepare(batch(1))
    name = "z1" if transfer is SOURCE else "extrinsic"
    assert not torch.equal(seeded[name], whole[name])


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_a_resumed_training_equals_the_unbroken_one_to_the_bit(transfer: dict[str, Any]) -> None:
    options: dict[str, Any] = {"path_length": 2.0, "path_every_steps": 2, "ada_every_steps": 1, "ada_images": 16.0}
    whole = trainer(transfer, **options)
    for step in range(2):
        whole.step(batch(step))
    assert whole.average is not None
    kept = copy.deepcopy((whole.state_dict(), states(whole), whole.average.state_dict()))
    for step in range(2, 4):
        whole.step(batch(step))
    again = trainer(transfer, **options)
    for name, network in again.recipe.networks.items():
        own = {key.removeprefix(f"{name}."): value for key, value in kept[1].items() if key.startswith(f"{name}.")}
        network.load_state_dict(own)
    assert again.average is not None
    average = {key.removeprefix("generator."): value for key, value in kept[2].items()}
    again.average.networks["generator"].load_state_dict(average)
    again.load_state_dict(kept[0])
    torch.randn(3)
    for step in range(2, 4):
        again.step(batch(step))
    assert not changed(states(whole), states(again))
    first, second = whole.average.state_dict(), again.average.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_path_length_and_the_augmentation_take_part_and_resume() -> None:
    made = trainer(TARGET, path_length=2.0, path_every_steps=2, ada_images=16.0, ada_every_steps=1, ada_target=0.5)
    values = [made.step(batch(step)) for step in range(2)]
    assert ["loss/path/penalty" in found for found in values] == [True, False]
    assert values[0]["figure/path/length"] > 0
    path, augmentation = (made.recipe.networks[name].state_dict() for name in ("path", "augmentation"))
    assert float(path["value"]) == pytest.approx(0.01 * values[0]["figure/path/length"], rel=1e-4)
    assert values[0]["figure/discriminator/augmentation"] == 0
    assert float(augmentation["probability"]) in (0, 0.25, 0.5)


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_a_batch_in_parts_trains_as_a_whole_one(transfer: dict[str, Any]) -> None:
    first, second = (trainer(transfer, train={"accumulate": parts}) for parts in (1, 2))
    values = [made.step(batch(1)) for made in (first, second)]
    for term in values[0]:
        # The discriminator looks at groups of pictures, which parts divide.
        if not term.startswith(("loss/discriminator", "figure", "grad_norm", "loss/slope", "loss/generator/gan")):
            assert values[0][term] == pytest.approx(values[1][term], rel=1e-4), term


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_mixed_precision_comes_near_full_precision(transfer: dict[str, Any]) -> None:
    values = [
        trainer(transfer, train={"precision": which}, path_length=2.0).step(batch(0)) for which in ("fp32", "bf16")
    ]
    assert values[0].keys() == values[1].keys()
    for term, value in values[0].items():
        if term.startswith("loss/"):
            assert values[1][term] == pytest.approx(value, rel=0.1), term


def test_the_encoder_keeps_its_statistics_in_training_mode() -> None:
    made = trainer(SOURCE | {"encoded_share": 1.0})
    before = states(made)
    made.step(batch(0))
    made.resume_training_mode()
    made.step(batch(1))
    assert not any(part.startswith("encoder") for part in changed(before, states(made)))


def test_style_pictures_without_codes_are_refused_in_words() -> None:
    plain = PairBatch(*batch(0))
    with pytest.raises(ClipError, match="the style pictures must come with their codes; got none. Destylise"):
        trainer(TARGET).step(plain)
    trainer(SOURCE).step(plain)


@pytest.mark.parametrize("transfer", [SOURCE, TARGET])
def test_pictures_show_where_codes_come_from_and_what_is_made(transfer: dict[str, Any]) -> None:
    made = trainer(transfer)
    shown = made.recipe.pictures(made.judged(), batch(0))["styled"]
    assert shown.dtype == np.uint8
    assert shown.shape[0] >= BATCH * SIZE
    assert shown.shape[1] >= 4 * SIZE


def test_photos_are_drawn_in_the_manner_of_codes() -> None:
    made = trainer(TARGET)
    generator = made.recipe.networks["generator"]
    assert isinstance(generator, DualStyleGenerator)
    given = batch(0)
    one = recipe_of(made).stylise(made.judged(), given.source, given.extrinsic)
    other = recipe_of(made).stylise(made.judged(), given.source, given.extrinsic.flip(0))
    assert one.shape == (BATCH, 3, SIZE, SIZE)
    assert 0 <= float(one.min()) < float(one.max()) <= 1
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "transfer",
    [
        {**SOURCE, "perceptual": 0.0},
        {**SOURCE, "contextual": 0.25},
        {**SOURCE, "regularisation": 0.1},
        {**SOURCE, "layers": (8, 2)},
        {"domain": "target", "adversarial": 0.0},
        {**TARGET, "paired_share": 1.5},
    ],
)
def test_losses_that_make_no_sense_are_refused(transfer: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        trainer(transfer)
