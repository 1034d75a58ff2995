"""Facial destylisation: losses fall, and a picture's codes depend on the picture, its name and the seed alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from dualstyle_kit import Levels
from torch import Tensor

from models.errors import ParamsError, TrainingError
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from models.style.stylegan2.generator import Generator
from training.codes import Codes
from training.destylise import Destylised, Destyliser, destylise, learning_rate, refine
from training.destylise_config import DestyliseConfig, RefineConfig
from training.destylise_losses import noise_correlation, normalise_, perceptual_distance, seen, spread

CONFIG = FaceConfig(
    size_px=32,
    style_dim=16,
    mapping_layers=2,
    max_channels=8,
    structure_layers=3,
    encoder_px=32,
    encoder_width=4,
    encoder_units=(1, 1, 1, 1),
)
QUICK = DestyliseConfig(steps=12)


@pytest.fixture(scope="module")
def networks() -> Destyliser:
    torch.manual_seed(0)
    generator = Generator(CONFIG)
    fine_tuned = copy.deepcopy(generator)
    with torch.no_grad():
        for parameter in fine_tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    generator.set_mean_style(64, torch.Generator().manual_seed(1))
    return Destyliser(generator=generator, fine_tuned=fine_tuned, encoder=Encoder(CONFIG), perceptual=Levels())


def picture(seed: int) -> Tensor:
    coarse = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


def found(networks: Destyliser, *names: str, **options: Any) -> list[Destylised]:
    config = dataclasses.replace(QUICK, **options)
    return list(destylise(((name, picture(ord(name[0]))) for name in names), networks, config))


def same(one: Destylised, other: Destylised) -> bool:
    pairs = ((one.codes.extrinsic, other.codes.extrinsic), (one.codes.intrinsic, other.codes.intrinsic))
    return all(torch.equal(a, b) for a, b in (*pairs, (one.face, other.face))) and one.end == other.end


def test_the_losses_fall_and_all_is_as_large_as_it_should_be(networks: Destyliser) -> None:
    (one,) = found(networks, "a", steps=30)
    assert one.codes.extrinsic.shape == one.codes.intrinsic.shape == (CONFIG.num_styles, CONFIG.style_dim)
    assert one.face.shape == (3, 32, 32)
    assert set(one.begin) == {"perceptual", "identity", "mse", "spread", "noise"}
    for term in ("perceptual", "mse", "noise"):
        assert one.end[term] < 0.9 * one.begin[term], term
    assert sum(one.end.values()) < 0.5 * sum(one.begin.values())


def test_the_first_codes_are_the_extrinsic_ones_and_keep_the_colours(networks: Destyliser) -> None:
    (one,) = found(networks, "a")
    with torch.no_grad():
        first = networks.encoder(picture(ord("a"))[None])[0]
    assert torch.equal(one.codes.extrinsic, first)
    change = CONFIG.structure_layers
    assert torch.equal(one.codes.intrinsic[change:], first[change:])
    assert not torch.equal(one.codes.intrinsic[:change], first[:change])
    (free,) = found(networks, "a", keep_colours=False)
    assert not torch.equal(free.codes.intrinsic[change:], first[change:])


def test_a_pictures_codes_do_not_depend_on_what_was_done_before(networks: Destyliser) -> None:
    together = found(networks, "a", "b", "c")
    torch.manual_seed(99)
    torch.randn(7)
    (alone,) = found(networks, "c")
    assert same(together[2], alone)
    assert not same(together[0], together[1])


def test_they_depend_on_seed_and_name(networks: Destyliser) -> None:
    (one,) = found(networks, "a")
    assert not same(one, found(networks, "a", seed=1)[0])
    assert not same(one, found(networks, "a again")[0])


def test_pictures_that_are_done_together_do_not_meet(networks: Destyliser) -> None:
    alone = found(networks, "a", "b", "c")
    for one, other in zip(alone, found(networks, "a", "b", "c", batch=2), strict=True):
        assert one.name == other.name
        torch.testing.assert_close(one.codes.intrinsic, other.codes.intrinsic, atol=1e-3, rtol=1e-3)


def test_nothing_of_the_networks_changes(networks: Destyliser) -> None:
    nets = (networks.generator, networks.fine_tuned, networks.encoder)
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    found(networks, "a", steps=3)
    for net, state in zip(nets, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())


def test_it_tells_of_every_step(networks: Destyliser) -> None:
    heard: list[tuple[Sequence[str], int]] = []
    work = destylise([("a", picture(1))], networks, QUICK, tell=lambda names, step: heard.append((names, step)))
    list(work)
    assert heard == [(["a"], step + 1) for step in range(QUICK.steps)]


def test_a_recogniser_takes_the_place_of_the_backbone(networks: Destyliser) -> None:
    asked: list[torch.Size] = []

    def embed(image: Tensor) -> Tensor:
        asked.append(image.shape)
        return image.flatten(1)[:, :7]

    list(destylise([("a", picture(1))], dataclasses.replace(networks, embed=embed), QUICK))
    assert len(asked) == QUICK.steps + 2
    assert set(asked) == {torch.Size((1, 3, 32, 32))}


def test_a_picture_that_leaves_the_numbers_is_named(networks: Destyliser) -> None:
    work = destylise([("a", picture(1)), ("worse", picture(2) * torch.inf)], networks, QUICK)
    assert next(work).name == "a"
    with pytest.raises(TrainingError, match="the losses of 'worse' after 0 steps must be finite"):
        next(work)


def test_the_rate_rises_stays_and_falls() -> None:
    config = DestyliseConfig(learning_rate=0.2, ramp_up=0.1, ramp_down=0.5)
    rates = [learning_rate(share / 20, config) for share in range(21)]
    assert rates[0] == 0
    assert rates[1] == pytest.approx(0.1)
    assert rates[2:11] == pytest.approx([0.2] * 9)
    assert rates[15] == pytest.approx(0.1)
    assert rates[20] == pytest.approx(0)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"truncation": 0.0}, {"ramp_up": 0.0}, {"noise": -1.0}, {"perceptual": 0.0, "mse": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        DestyliseConfig(**options)


def test_refining_fits_both_parts_of_the_code_at_their_own_pace() -> None:
    torch.manual_seed(0)
    network, draw = DualStyleGenerator(CONFIG), torch.Generator().manual_seed(2)
    codes = Codes(*torch.randn(2, CONFIG.num_styles, CONFIG.style_dim, generator=draw))

    def refined(**options: Any) -> Any:
        config = RefineConfig(**{"steps": 12, "lr_colour": 0.05, **options})
        return next(refine([("a", picture(1), codes)], network, Levels(), config))

    one = refined()
    assert set(one.begin) == {"perceptual", "contextual", "noise"}
    assert one.end["perceptual"] < one.begin["perceptual"]
    assert torch.equal(one.extrinsic, refined().extrinsic)
    change = CONFIG.structure_layers
    moved = (one.extrinsic - codes.extrinsic).abs()
    assert 0 < float(moved[:change].max()) < float(moved[change:].max())
    assert one.before.shape == one.after.shape == (3, 32, 32)
    assert one.distances[1] < one.distances[0]  # without the noise that was fitted, too
    still = refined(lr_structure=0.0)
    assert torch.equal(still.extrinsic[:change], codes.extrinsic[:change])
    assert not torch.equal(still.extrinsic[change:], codes.extrinsic[change:])
    taken = refined(steps=0)
    assert torch.equal(taken.extrinsic, codes.extrinsic)
    assert torch.equal(taken.before, taken.after)
    assert taken.begin == taken.end
    with pytest.raises(ParamsError):
        refined(steps=-1)


def test_large_pictures_are_looked_at_small() -> None:
    assert seen(torch.zeros(1, 3, 512, 512)).shape == (1, 3, 256, 256)
    assert seen(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_features_of_one_direction_are_near() -> None:
    features = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    assert float(perceptual_distance([features], [features * 5]).max()) < 1e-8
    assert perceptual_distance([features, features], [-features, features]).tolist() == pytest.approx([4, 4], rel=1e-5)


def test_noise_without_correlation_costs_next_to_nothing_and_stripes_do() -> None:
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 1, 64, 64, generator=draw)
    stripes = torch.ones(1, 1, 64, 64)
    stripes[..., 32:, :] = -1
    cost = noise_correlation([torch.cat([noise, stripes])])
    assert float(cost[0]) < 0.01 < 1 < float(cost[1])
    scaled = [noise * 3 + 1]
    normalise_(scaled)
    torch.testing.assert_close(scaled[0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaled[0].std(), torch.tensor(1.0))


def test_equal_codes_have_no_spread() -> None:
    codes = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(1)).expand(2, 5, 8)
    assert spread(codes).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert float(spread(codes + torch.arange(5.0)[None, :, None])[0]) == pytest.approx(2.5**0.5, rel=1e-5)
