"""Random changes of pairs: keyed by the sample, alike for both frames, and what each does to known colours."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import ParamsError
from training.augment import COLOURS, Draw, _recolour, _rescale, augment, augment_pictures
from training.config import AugmentConfig

ALL = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, resize=(0.8, 1.2))
STILL = Draw((0, 1, 2, 3), (1.0, 1.0, 1.0, 0.0), 1.0, (0.5, 0.5))


def frames(count: int = 3, size_px: int = 16) -> Tensor:
    return torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_for_is_nothing_done() -> None:
    source, driving = frames(), frames()
    made = augment(source, driving, np.arange(3), AugmentConfig(), 0)
    assert made[0] is source
    assert made[1] is driving


def test_changes_belong_to_the_sample() -> None:
    source = frames()
    whole, _ = augment(source, source, np.array([5, 6, 7]), ALL, 0)
    part, _ = augment(source[1:2], source[1:2], np.array([6]), ALL, 0)
    torch.testing.assert_close(whole[1:2], part)
    other, _ = augment(source, source, np.array([5, 6, 7]), ALL, 1)
    assert not torch.allclose(whole, other)


def test_both_frames_are_changed_alike_and_stay_in_range() -> None:
    source = frames()
    first, second = augment(source, source.clone(), np.arange(3), ALL, 0)
    torch.testing.assert_close(first, second)
    assert 0 <= first.min() <= first.max() <= 1
    assert not torch.allclose(first, source)


def test_a_draw_that_changes_nothing_gives_the_frames_back() -> None:
    pairs = torch.stack([frames(), frames()], 1)
    torch.testing.assert_close(_recolour(pairs, [STILL] * 3), pairs, rtol=0, atol=1e-6)
    torch.testing.assert_close(_rescale(pairs, [STILL] * 3), pairs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.25, 0.5])
def test_hue_turns_as_hsv_does(turn: float) -> None:
    pairs = torch.stack([frames(1, 4), frames(1, 4)], 1)
    made = _recolour(pairs, [Draw((3,), (1.0, 1.0, 1.0, turn), 1.0, (0.5, 0.5))])
    for y in range(4):
        for x in range(4):
            hue, saturation, value = colorsys.rgb_to_hsv(*pairs[0, 0, :, y, x].tolist())
            wanted = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
            assert made[0, 0, :, y, x].tolist() == pytest.approx(wanted, abs=1e-5)


def test_brightness_contrast_and_saturation_of_known_colours() -> None:
    pairs = torch.tensor([0.4, 0.2, 0.6])[None, None, :, None, None].expand(1, 2, 3, 2, 2).clone()
    gray = 0.299 * 0.4 + 0.587 * 0.2 + 0.114 * 0.6
    wanted = {
        0: [0.2, 0.1, 0.3],
        1: [0.5 * c + 0.5 * gray for c in (0.4, 0.2, 0.6)],
        2: [0.5 * c + 0.5 * gray for c in (0.4, 0.2, 0.6)],
    }
    for kind, colours in wanted.items():
        amounts = tuple(0.5 if i == kind else STILL.amounts[i] for i in range(len(COLOURS)))
        made = _recolour(pairs, [Draw((kind,), amounts, 1.0, (0.5, 0.5))])
        assert made[0, 0, :, 0, 0].tolist() == pytest.approx(colours, abs=1e-6)


def test_a_larger_frame_shows_a_part_and_a_smaller_one_all() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 2, 3, 32, 32).contiguous()
    nearer = _rescale(ramp, [STILL._replace(scale=1.25, shift=(1.0, 0.5))])
    assert nearer[0, 0, 0, 0].min() > 0.18  # the left fifth is out of sight
    assert nearer[0, 0, 0, 0].max() > 0.95
    further = _rescale(ramp, [STILL._replace(scale=0.8)])
    middle = further[0, 0, 0, 0, 4:28]
    assert (middle.min(), middle.max()) == (pytest.approx(0.0, abs=0.05), pytest.approx(1.0, abs=0.05))


@pytest.mark.parametrize("wrong", [{"hue": 0.6}, {"brightness": -0.1}, {"resize": (1.2, 0.8)}, {"resize": (0.1, 1.0)}])
def test_wrong_strengths_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParamsError, match=f"{next(iter(wrong))} must"):
        AugmentConfig(**wrong)  # type: ignore[arg-type]


def test_photos_and_style_pictures_are_changed_apart() -> None:
    same, items = frames(), np.arange(5, 8)
    (photo,) = augment_pictures(same, items=items, config=ALL, seed=0, of="photo")
    (style,) = augment_pictures(same, items=items, config=ALL, seed=0, of="style")
    assert all(not torch.allclose(one, other, atol=0.02) for one, other in zip(photo, style, strict=True))
    assert not torch.allclose(photo, augment(same, same, items, ALL, 0)[0])
    assert 0 <= min(photo.min(), style.min()) <= max(photo.max(), style.max()) <= 1


def test_changes_of_pictures_belong_to_the_sample() -> None:
    pictures = frames()
    (whole,) = augment_pictures(pictures, items=np.array([5, 6, 7]), config=ALL, seed=0, of="style")
    (part,) = augment_pictures(pictures[1:2], items=np.array([6]), config=ALL, seed=0, of="style")
    torch.testing.assert_close(whole[1:2], part)
    (other,) = augment_pictures(pictures, items=np.array([5, 6, 7]), config=ALL, seed=1, of="style")
    assert not torch.allclose(whole, other)


def test_copies_are_changed_as_their_pictures() -> None:
    pictures, items = frames(), np.arange(3)
    made, copies = augment_pictures(pictures, pictures.clone(), items=items, config=ALL, seed=0, of="style")
    torch.testing.assert_close(made, copies)
    (alone,) = augment_pictures(pictures, items=items, config=ALL, seed=0, of="style")
    torch.testing.assert_close(made, alone)
    untouched = augment_pictures(pictures, copies, items=items, config=AugmentConfig(), seed=0, of="style")
    assert untouched[0] is pictures
    assert untouched[1] is copies
