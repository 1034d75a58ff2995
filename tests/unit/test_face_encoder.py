"""Training the encoder: what it learns from, that the generator stands still, exact resumption."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_kit as kit
from torch import Tensor, nn

from models.errors import ParamsError
from models.perceptual import Perceptual
from models.style.psp import Encoder, Space
from models.style.stylegan2.build import debug_config
from models.style.stylegan2.generator import Generator
from training.face_config import EncoderLossConfig, FaceTrainConfig
from training.face_validation import DISTANCE, L1, MEAN_DISTANCE, MEAN_L1, EncodedValidation
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import face_encoder
from training.recipes.face_encoder import FaceEncoderRecipe, Identity, perceptual_distance
from training.shard_reader import ShardReader
from training.world import World

MODEL = debug_config()
BATCH = 4


class Levels(Perceptual):
    """Five maps, each half the size of the one before: a backbone without weights."""

    def __init__(self) -> None:
        super().__init__("levels", "")

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [image * 2 - 1]
        for _ in range(4):
            levels.append(nn.functional.avg_pool2d(levels[-1], 2))
        return levels


def batch(step: int, rank: int = 0, size: int = 1) -> PairBatch:
    items = np.arange(step * BATCH, (step + 1) * BATCH)
    coarse = np.random.default_rng(step).integers(0, 256, (BATCH, 3, 4, 4), dtype=np.uint8)
    mine = torch.from_numpy(coarse.repeat(8, axis=-1).repeat(8, axis=-2)[rank::size].copy())
    return PairBatch(mine, mine, items[rank::size])


def networks(space: Space = "z+") -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {"encoder": Encoder(MODEL, space=space), "generator": Generator(MODEL)}
    generator = made["generator"]
    assert isinstance(generator, Generator)
    for convolution in (generator.to_rgb1, *generator.to_rgbs):  # as far apart as a trained generator's pictures
        convolution.get_parameter("conv.weight").data.mul_(3)
    return made


def trainer(
    losses: dict[str, Any] | None = None, *, space: Space = "z+", identity: Identity | None = None, **options: Any
) -> Trainer:
    base = {"batch_size": BATCH, "max_steps": 100, "ema_decay": 0.5, "lr_generator": 1e-3, "adam_betas": (0.9, 0.999)}
    train = FaceTrainConfig(**{**base, **options}, encoder=EncoderLossConfig(**(losses or {})))
    recipe = face_encoder.build(
        networks(space),
        model=MODEL,
        train=train,
        device=torch.device("cpu"),
        perceptual=Levels(),
        identity=identity,
    )
    return Trainer(recipe, train, World())


def recipe_of(made: Trainer) -> FaceEncoderRecipe:
    assert isinstance(made.recipe, FaceEncoderRecipe)
    return made.recipe


def weights(made: Trainer, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in made.recipe.networks[name].state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def terms(values: dict[str, float]) -> set[str]:
    return {key.partition("/")[2] for key in values if key.startswith("loss/")}


def test_the_encoder_learns_and_the_generator_stands_still() -> None:
    made = trainer()
    before = weights(made, "encoder"), weights(made, "generator")
    values = made.step(batch(0))
    assert terms(values) == {"encoder/l2", "encoder/perceptual", "encoder/identity/levels", "encoder/code"}
    assert not same(before[0], weights(made, "encoder"))
    assert same(before[1], weights(made, "generator"))
    assert all(parameter.grad is None for parameter in made.recipe.networks["generator"].parameters())


def test_weights_of_0_leave_terms_out_and_all_of_them_nothing() -> None:
    values = trainer({"perceptual": 0.0, "identity": 0.0, "made_share": 0.0}).step(batch(0))
    assert terms(values) == {"encoder/l2"}
    with pytest.raises(ParamsError, match="encoder must have a term above 0; got 'weights of 0 alone'"):
        trainer({"l2": 0.0, "perceptual": 0.0, "identity": 0.0, "made_share": 0.0})


def test_made_samples_are_what_the_generator_makes_of_their_codes() -> None:
    made = trainer({"made_share": 0.5})
    recipe, known = recipe_of(made), []
    for step in range(8):
        pairs = batch(step)
        prepared = recipe.prepare(pairs)
        known += prepared["known"].tolist()
        generator = recipe.networks["generator"]
        assert isinstance(generator, Generator)
        pictures = generator.synthesis(generator.mapping(prepared["codes"])).clamp(0, 1)
        for place, is_known in enumerate(prepared["known"].bool().tolist()):
            wanted = pictures[place] if is_known else pairs.source[place] / 255
            torch.testing.assert_close(prepared["picture"][place], wanted, atol=1e-5, rtol=0)
    assert 8 < sum(known) < 24


def test_draws_depend_on_the_sample_alone() -> None:
    recipe = recipe_of(trainer())
    whole, share = recipe.prepare(batch(1)), recipe.prepare(batch(1, rank=1, size=2))
    for name in ("known", "codes"):
        assert torch.equal(whole[name][1::2], share[name])
    torch.testing.assert_close(whole["picture"][1::2], share["picture"])


def test_codes_in_w_plus_start_from_the_mean_style() -> None:
    made = trainer(space="w+")
    recipe = recipe_of(made)
    encoder, generator = recipe.networks["encoder"], recipe.networks["generator"]
    assert isinstance(encoder, Encoder)
    assert isinstance(generator, Generator)
    assert torch.equal(encoder.mean_code, generator.mean_style.expand_as(encoder.mean_code))
    assert float(generator.mean_style.abs().sum()) > 0
    prepared = recipe.prepare(batch(0))
    pictures = generator.synthesis(prepared["codes"]).clamp(0, 1)
    known = prepared["known"].bool()
    torch.testing.assert_close(prepared["picture"][known], pictures[known], atol=1e-5, rtol=0)
    assert "encoder/code" in terms(made.step(batch(0)))


def test_a_face_recogniser_may_say_whose_face_it_is() -> None:
    """One that sees no difference leaves no loss, under its own name."""

    def blind(faces: Tensor) -> Tensor:
        return torch.ones(len(faces), 3) + 0 * faces.sum()

    values = trainer(identity=Identity("blind", blind)).step(batch(0))
    assert values["loss/encoder/identity/blind"] == pytest.approx(0.0, abs=1e-6)


def test_the_distance_is_0_for_the_same_and_grows_with_the_difference() -> None:
    pictures, backbone = batch(0).source / 255, Levels()
    steps = [float(perceptual_distance(backbone, pictures + amount, pictures).mean()) for amount in (0.0, 0.05, 0.2)]
    assert steps[0] == 0
    assert steps[0] < steps[1] < steps[2] <= 2


def test_a_resumed_training_equals_the_unbroken_one_to_the_bit() -> None:
    whole = trainer()
    for step in range(2):
        whole.step(batch(step))
    assert whole.average is not None
    kept = copy.deepcopy(
        (whole.state_dict(), weights(whole, "encoder"), whole.average.networks["encoder"].state_dict())
    )
    losses = [whole.step(batch(step)) for step in range(2, 5)]
    again = trainer()
    assert again.average is not None
    again.recipe.networks["encoder"].load_state_dict(kept[1])
    again.average.networks["encoder"].load_state_dict(kept[2])
    again.load_state_dict(kept[0])
    assert [again.step(batch(step)) for step in range(2, 5)] == losses
    assert same(weights(whole, "encoder"), weights(again, "encoder"))
    assert same(whole.average.networks["encoder"].state_dict(), again.average.networks["encoder"].state_dict())


def test_it_learns_the_codes_of_made_pictures() -> None:
    made = trainer({"made_share": 1.0, "perceptual": 0.0, "identity": 0.0}, lr_generator=3e-3)
    values = [made.step(batch(step % 2)) for step in range(60)]
    first, last = (
        np.mean([value["loss/encoder/l2"] + value["loss/encoder/code"] for value in part])
        for part in (values[:4], values[-4:])
    )
    assert last < 0.75 * first


def test_validation_stands_beside_the_mean_picture(tmp_path: Path) -> None:
    made = trainer()
    recipe, reader = recipe_of(made), ShardReader(kit.write_shards(tmp_path, num_frames=1, num_test=3))
    judge = EncodedValidation(reader, recipe, World(), num_pictures=8, size_px=MODEL.size_px)
    values = judge.run(made.judged())
    assert values.keys() == {L1, DISTANCE, MEAN_L1, MEAN_DISTANCE}
    assert judge.judged_by == L1
    assert judge.run(made.judged()) == values
    test = torch.from_numpy(np.stack([reader.frames(clip, (0,))[0] for clip in reader.clips("test")]))
    wanted = test.permute(0, 3, 1, 2).float() / 255
    mean = recipe.mean_picture().clamp(0, 1)
    assert values[MEAN_L1] == pytest.approx(float((wanted - mean).abs().mean()), rel=1e-5)
    grid = recipe.pictures(made.judged(), batch(0))["encoded"]
    assert (grid.dtype, grid.shape) == (np.uint8, (BATCH * 34 - 2, 2 * 34 - 2, 3))


def test_without_test_pictures_nothing_is_judged(tmp_path: Path) -> None:
    made = trainer()
    reader = ShardReader(kit.write_shards(tmp_path, num_frames=1, num_test=0))
    judge = EncodedValidation(reader, recipe_of(made), World(), num_pictures=8, size_px=MODEL.size_px)
    assert judge.run(made.judged()) == {}


def test_mixed_precision_trains_alike() -> None:
    full, mixed = (trainer(precision=precision).step(batch(0)) for precision in ("fp32", "bf16"))
    assert mixed.keys() == full.keys()
    for name in ("loss/encoder/l2", "loss/encoder/code"):
        assert mixed[name] == pytest.approx(full[name], rel=0.1)
        assert mixed[name] != full[name]
