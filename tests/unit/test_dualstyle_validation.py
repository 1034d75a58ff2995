"""The checks of DualStyleGAN's fine-tuning: what they compare, and with what beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import training_kit as kit
from test_dualstyle_recipe import MODEL, SOURCE, TARGET, recipe_of, trainer

from training.codes import Codes, code_table
from training.dualstyle_validation import ExchangeValidation, StyledValidation
from training.shard_reader import ShardReader
from training.world import World


def test_the_source_domains_check_is_near_nothing_where_codes_are_exchanged_wholly() -> None:
    made = trainer(SOURCE | {"layers": (MODEL.structure_layers, MODEL.structure_layers)})
    figures = ExchangeValidation(recipe_of(made), num_pictures=5).run(made.judged())
    # T_c starts near the identity, and the residual blocks near 0: that is the exchange at the first colour layer.
    assert 0 < figures["validation/exchange_l1"] < 0.3 * figures["validation/intrinsic_l1"]
    assert figures == ExchangeValidation(recipe_of(made), num_pictures=5).run(made.judged())


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardReader, ShardReader]:
    folder: Path = tmp_path_factory.mktemp("judged")
    photos = kit.write_shards(folder / "photos", num_train=2, num_test=3, num_frames=1)
    styles = kit.write_shards(folder / "styles", num_train=4, num_test=0, num_frames=1)
    return ShardReader(photos), ShardReader(styles)


def test_the_target_domain_is_judged_by_drawings_and_pairs(readers: tuple[ShardReader, ShardReader]) -> None:
    made, draw = trainer(TARGET), torch.Generator().manual_seed(0)
    names = ("train-0", "train-1", "train-3")
    shape = (2, MODEL.num_styles, MODEL.style_dim)
    codes = code_table({name: Codes(*torch.randn(shape, generator=draw)) for name in names})
    check = StyledValidation(*readers, codes, recipe_of(made), World(), num_photos=3, size_px=kit.SIZE_PX)
    figures = check.run(made.judged())
    wanted = {f"validation/{name}" for name in ("kid", "photo_kid", "pair_l1", "content_l1")}
    assert figures.keys() == wanted
    assert check.judged_by in figures
    assert check.run(made.judged()) == figures, "it begins with the same style picture each time"
    generator = made.recipe.networks["generator"]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1)
    assert check.run({"generator": generator})["validation/pair_l1"] != figures["validation/pair_l1"]
