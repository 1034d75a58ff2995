"""Pictures optimised one by one (Gatys; whitening and colouring): the statistics meet the style's, the losses fall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.errors import ParamsError, ShapeError
from models.perceptual import Perceptual, Vgg19, build_perceptual
from models.style.gatys import GatysConfig, normalised_gram, optimise, share
from models.style.wct import WctConfig, transfer, whiten_colour

SIDE = 32


@pytest.fixture(scope="module")
def lite0() -> Perceptual:
    return build_perceptual("effnet-lite0")


@pytest.fixture(scope="module")
def vgg() -> Perceptual:
    """VGG-19's layout, narrow, with random weights that keep the signal's size."""
    rng, state, before = torch.Generator().manual_seed(0), {}, 3
    relative = {0: 1, 2: 1, 5: 2, 7: 2, 10: 4, 12: 4, 14: 4, 16: 4, 19: 8, 21: 8, 23: 8, 25: 8, 28: 8}
    for layer, wide in relative.items():
        state[f"features.{layer}.weight"] = torch.randn(wide * 4, before, 3, 3, generator=rng) * (2 / before / 9) ** 0.5
        state[f"features.{layer}.bias"] = torch.zeros(wide * 4)
        before = wide * 4
    return Vgg19(state)


@pytest.fixture(scope="module")
def pair(samples: Path) -> tuple[Tensor, Tensor]:
    return tuple(_picture(samples / name) for name in ("photos/wonders_tajMahal.jpg", "paintings/greatwave.jpg"))  # type: ignore[return-value]


def _picture(path: Path) -> Tensor:
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


# ---- Gatys


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("backbone", ["lite0", "vgg"])
def test_the_gram_matrices_near_the_styles(
    backbone: str, optimizer: Any, pair: tuple[Tensor, Tensor], request: pytest.FixtureRequest
) -> None:
    features: Perceptual = request.getfixturevalue(backbone)
    photo, style = pair
    losses: list[float] = []
    config = GatysConfig(steps=20, style_weight=100.0, style_levels=(1, 2, 3), content_level=3, optimizer=optimizer)
    made = optimise(photo, style, features, config, progress=lambda number, loss: losses.append(loss))
    assert 15 <= len(losses) <= 22
    assert min(losses) < 0.6 * losses[0]
    assert made.shape == photo.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    with torch.no_grad():
        before, after, wanted = (features(image) for image in (photo, made, style))
    for level in (0, 1, 2):
        gram = normalised_gram(wanted[level])
        assert float(share(normalised_gram(after[level]), gram)) < float(share(normalised_gram(before[level]), gram))


def test_more_weight_of_the_content_keeps_more_of_the_photo(lite0: Perceptual, pair: tuple[Tensor, Tensor]) -> None:
    photo, style = pair
    far, near = (
        float((optimise(photo, style, lite0, GatysConfig(steps=12, content_weight=weight)) - photo).abs().mean())
        for weight in (0.1, 1000.0)
    )
    assert near < 0.5 * far


def test_the_style_may_have_another_size(lite0: Perceptual, pair: tuple[Tensor, Tensor]) -> None:
    photo, style = pair
    config = GatysConfig(steps=2, total_variation=1.0)
    assert optimise(photo, style[..., :33, :40], lite0, config).shape == photo.shape


def test_an_optimisation_leaves_its_inputs_alone_and_is_the_same_again(
    lite0: Perceptual, pair: tuple[Tensor, Tensor]
) -> None:
    photo, style = pair
    before = photo.clone(), style.clone()
    first, again = (optimise(photo, style, lite0, GatysConfig(steps=3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before[0], photo)
    assert torch.equal(before[1], style)


# ---- Whitening and colouring


def _moments(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = features[0].flatten(1).double().numpy()
    return flat.mean(1), np.cov(flat, bias=True)


def test_coloured_features_have_the_styles_mean_and_covariance() -> None:
    rng = torch.Generator().manual_seed(0)
    mix, other = (torch.randn(6, 6, generator=rng) for _ in range(2))
    content = torch.einsum("ij,bjhw->bihw", mix, torch.randn(1, 6, 9, 11, generator=rng)) + 3
    style = torch.einsum("ij,bjhw->bihw", other, torch.rand(1, 6, 7, 5, generator=rng)) - 1
    found, wanted = (_moments(features) for features in (whiten_colour(content, style), style))
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=1e-5)


def test_colouring_equals_a_calculation_in_float64() -> None:
    """With the roots of the matrices by their singular values, in numpy."""
    rng = np.random.default_rng(0)
    content, style = rng.normal(size=(4, 30)), rng.normal(size=(4, 20)) ** 2

    def root(covariance: np.ndarray, power: float) -> np.ndarray:
        left, values, right = np.linalg.svd(covariance)
        made: np.ndarray = left @ np.diag(values**power) @ right
        return made

    centred = content - content.mean(1, keepdims=True)
    wanted = root(np.cov(style, bias=True), 0.5) @ root(np.cov(content, bias=True), -0.5) @ centred
    wanted += style.mean(1, keepdims=True)
    found = whiten_colour(torch.from_numpy(content).reshape(1, 4, 5, 6), torch.from_numpy(style).reshape(1, 4, 4, 5))
    np.testing.assert_allclose(found.reshape(4, 30).numpy(), wanted, rtol=0, atol=1e-12)


def test_colouring_with_its_own_style_changes_nothing() -> None:
    features = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whiten_colour(features, features), features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("content", [torch.zeros(1, 8, 3, 3), torch.randn(1, 8, 1, 2), torch.full((1, 8, 4, 4), 7.0)])
def test_directions_without_variance_stay_finite(content: Tensor) -> None:
    """Black pictures, fewer pixels than channels: the mean is the style's all the same."""
    style = torch.rand(1, 8, 5, 5)
    found = whiten_colour(content, style)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_transfer_nears_the_styles_covariance(optimizer: Any, lite0: Perceptual, pair: tuple[Tensor, Tensor]) -> None:
    photo, style = pair
    told: list[tuple[int, int, float]] = []
    config = WctConfig(strength=1.0, levels=(3, 2), steps=12, optimizer=optimizer)
    made = transfer(photo, style, lite0, config, progress=lambda *values: told.append(values))
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    for level in (3, 2):
        losses = [loss for found, _, loss in told if found == level]
        assert min(losses) < 0.9 * losses[0]
    with torch.no_grad():
        before, after, wanted = (_moments(lite0(image)[1])[1] for image in (photo, made, style))
    assert np.linalg.norm(after - wanted) < 0.7 * np.linalg.norm(before - wanted)


def test_without_strength_the_photo_comes_back(lite0: Perceptual, pair: tuple[Tensor, Tensor]) -> None:
    photo, style = pair
    torch.testing.assert_close(transfer(photo, style, lite0, WctConfig(strength=0.0, steps=3)), photo)


# ---- Refusals


@pytest.mark.parametrize("wrong", [torch.rand(3, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(1, 1, 8, 8)])
def test_what_is_no_single_picture_is_refused(wrong: Tensor, lite0: Perceptual) -> None:
    right = torch.rand(1, 3, 32, 32)
    with pytest.raises(ShapeError, match=r"the photo must be one RGB picture, \(1, 3, H, W\)"):
        optimise(wrong, right, lite0)
    with pytest.raises(ShapeError, match=r"the style picture must be one RGB picture"):
        transfer(right, wrong, lite0)


def test_features_of_two_backbones_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"features of content and style must be \(B, C, h, w\) of one B and C"):
        whiten_colour(torch.rand(1, 4, 3, 3), torch.rand(1, 5, 3, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"content_level": 6},
        {"style_levels": ()},
        {"style_levels": (0,)},
        {"content_weight": 0.0, "style_weight": 0.0},
        {"total_variation": -1.0},
        {"optimizer": "sgd"},
    ],
)
def test_senseless_settings_of_an_optimisation_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        GatysConfig(**options)


@pytest.mark.parametrize("options", [{"strength": 1.1}, {"levels": ()}, {"levels": (6,)}, {"steps": 0}])
def test_senseless_settings_of_a_transfer_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        WctConfig(**options)
