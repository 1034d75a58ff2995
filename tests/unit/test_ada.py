"""Adaptive augmentation: nothing happens at 0, everything can at 1, and its probability follows the real scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.ada import NUM_DRAWS, NUM_EVEN, NUM_GATES, Augmentation, draw
from training.randomness import keyed

GATES = ("flip", "turn", "shift", "scale", "angle", "stretch", "other", "offset")
GATES += ("brightness", "contrast", "negative", "hue", "saturation")
EVEN = ("flip", "turn", "shift_x", "shift_y", "angle", "other", "negative", "hue")
NORMAL = ("scale", "stretch", "offset_x", "offset_y", "brightness", "contrast", "saturation")


def photos(num: int = 4, px: int = 16) -> Tensor:
    return torch.rand(num, 3, px, px, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def draws(num: int = 4) -> Tensor:
    return torch.from_numpy(np.stack([draw(keyed(0, "test", i)) for i in range(num)]))


def only(*open_gates: str, **values: float) -> Tensor:
    """Random numbers of one picture that let those changes through alone, with those amounts, at p = 0.5."""
    assert (len(GATES), len(EVEN), len(NORMAL)) == (NUM_GATES, NUM_EVEN, NUM_DRAWS - NUM_GATES - NUM_EVEN)
    row = [0.0 if gate in open_gates else 0.99 for gate in GATES]
    row += [values.get(name, 0.5) for name in EVEN]
    row += [values.get(name, 0.0) for name in NORMAL]
    return torch.tensor([row], dtype=torch.float64)


def changed(picture: Tensor, row: Tensor) -> Tensor:
    made: Tensor = Augmentation(0.5)(picture, row)
    return made


def test_nothing_happens_at_probability_0() -> None:
    pictures = photos().float()
    assert torch.equal(Augmentation(0.0)(pictures, draws()), pictures)


def test_everything_changes_at_probability_1() -> None:
    pictures = photos(64)
    made = Augmentation(1.0)(pictures, draws(64))
    assert made.shape == pictures.shape
    assert torch.isfinite(made).all()
    assert ((made - pictures).abs().mean((1, 2, 3)) > 0.02).all()


def test_a_picture_that_nothing_happens_to_keeps_its_bits_beside_others() -> None:
    pictures = photos(64).float()
    made = Augmentation(0.05)(pictures, draws(64))
    same = (made == pictures).flatten(1).all(1)
    # Of 13 changes some are neutral by chance; 0.95^13 is 0.51.
    assert 0.3 < float(same.float().mean()) < 0.9


def test_flips_and_quarter_turns_move_whole_pixels() -> None:
    picture = photos(1)
    torch.testing.assert_close(changed(picture, only("flip", flip=0.9)), picture.flip(-1))
    assert torch.equal(changed(picture, only("flip", flip=0.1)), picture)
    for quarters, value in enumerate((0.1, 0.3, 0.6, 0.9)):
        turned = changed(picture, only("turn", turn=value))
        either = [picture.rot90(sign * quarters, (-2, -1)) for sign in (1, -1)]
        assert min(float((turned - one).abs().max()) for one in either) < 1e-12


def test_shifts_are_whole_pixels_and_reflect_the_border() -> None:
    picture = photos(1)
    made = changed(picture, only("shift", shift_x=1.0, shift_y=0.5))  # 1 / 8 of 16 px to the right
    torch.testing.assert_close(made[..., 2:], picture[..., :-2])
    torch.testing.assert_close(made[..., :2], picture[..., :2].flip(-1))


def test_a_larger_picture_shows_its_middle() -> None:
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 3, 32, 32)
    made = changed(ramp, only("scale", scale=5.0))  # 2^(0.2 * 5): twice as large
    inner = made[..., 8:24] - 0.5
    torch.testing.assert_close(inner, (ramp[..., 8:24] - 0.5) / 2)


def test_colours_change_as_they_are_called() -> None:
    picture, gray = photos(1), photos(1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    made = changed(picture, only("brightness", brightness=1.0))
    torch.testing.assert_close(made, picture + 0.1)  # 0.2 of a range of 2
    made = changed(picture, only("contrast", contrast=2.0))
    torch.testing.assert_close(made - 0.5, (picture - 0.5) * 2)
    made = changed(gray, only("negative", negative=0.9))
    torch.testing.assert_close(made, 1 - gray)
    made = changed(picture, only("saturation", saturation=-40.0))
    torch.testing.assert_close(made, picture.mean(1, keepdim=True).expand_as(picture), atol=1e-9, rtol=0)
    third = (1 + 2 / 3) / 2  # of a turn
    made = changed(picture, only("hue", hue=third))
    cycled = [picture.roll(sign, 1) for sign in (1, -1)]
    assert min(float((made - one).abs().max()) for one in cycled) < 1e-12
    torch.testing.assert_close(changed(gray, only("hue", hue=0.8)), gray)


def test_mixed_precision_leaves_places_and_colours_alone() -> None:
    pictures, numbers = photos().float(), draws().float()
    wanted = Augmentation(1.0)(pictures, numbers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Augmentation(1.0)(pictures, numbers), wanted)


def test_gradients_flow_through_every_change() -> None:
    pictures = photos(2, 6).requires_grad_()
    module = Augmentation(1.0)
    assert torch.autograd.gradcheck(lambda x: module(x, draws(2)), (pictures,))


def test_both_turns_together_are_as_likely_as_any_other_change() -> None:
    rows = draws(4000)
    rows[:, 0:4] = rows[:, 7:13] = 0.99  # shut
    rows[:, 5] = 0.99
    still = torch.zeros(4000, 3, 4, 4, dtype=torch.float64)
    still[:, :, 0, 1] = 1
    moved = (Augmentation(0.5)(still, rows) != still).flatten(1).any(1)
    assert float(moved.double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("score", "moves"), [(1.0, 1), (-1.0, -1), (0.0, -1)])
def test_the_probability_follows_the_sign_of_real_scores(score: float, moves: int) -> None:
    module = Augmentation(0.5)
    for _ in range(4):
        module.adapt(torch.full((8, 1), score), target=0.6, images=1000.0, after=16)
    assert float(module.probability) == pytest.approx(0.5 + moves * 32 / 1000)


def test_the_probability_moves_every_so_many_scores_and_stays_in_its_range() -> None:
    module, seen = Augmentation(0.0), []
    for _ in range(4):
        module.adapt(torch.ones(4, 1), target=0.6, images=10.0, after=8)
        seen.append(float(module.probability))
    assert seen == pytest.approx([0.0, 0.8, 0.8, 1.0])
    for _ in range(10):
        module.adapt(-torch.ones(4, 1), target=0.6, images=10.0, after=8)
    assert float(module.probability) == 0.0


def test_the_target_is_a_mean_sign() -> None:
    scores = torch.tensor([[3.0]] * 9 + [[-0.1]])  # mean sign 0.8, nine tenths above 0
    for target, rises in ((0.7, True), (0.85, False)):
        module = Augmentation(0.5)
        module.adapt(scores, target=target, images=100.0, after=10)
        assert (float(module.probability) > 0.5) is rises


def test_without_a_target_it_stays() -> None:
    module = Augmentation(0.3)
    module.adapt(torch.ones(8, 1), target=None, images=10.0, after=1)
    assert float(module.probability) == pytest.approx(0.3)
    assert math.isclose(float(module.seen), 0.0)


def test_its_state_is_its_buffers() -> None:
    first, second = Augmentation(), Augmentation()
    first.adapt(torch.ones(6, 1), target=0.6, images=100.0, after=8)
    second.load_state_dict(first.state_dict())
    for module in (first, second):
        module.adapt(torch.ones(6, 1), target=0.6, images=100.0, after=8)
    assert float(first.probability) == float(second.probability) > 0
