"""StyleGAN2's penalties in closed form, and gradients of gradients through its layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.style.stylegan2.build import build_gan, debug_config
from models.style.stylegan2.discriminator import ResBlock
from models.style.stylegan2.generator import Generator
from models.style.stylegan2.modulated import StyledConv, ToRGB
from models.style.stylegan2.regularisers import path_length, r1_penalty

CONFIG = debug_config()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_the_slope_of_a_linear_judge_is_its_weights() -> None:
    """A judge a.(2x - 1) of published pictures 2x - 1 has the slope a, wherever."""
    weights, pictures = drawn(3 * 4 * 4), drawn(5, 3, 4, 4, seed=1)
    penalty = r1_penalty((pictures * 2 - 1).flatten(1) @ weights[:, None], pictures)
    assert torch.allclose(penalty, weights.square().sum())
    (slope,) = torch.autograd.grad(penalty, weights)
    assert torch.allclose(slope, 2 * weights)


def test_the_slope_of_each_picture_counts_by_its_square() -> None:
    pictures = torch.tensor([0.5, 1.5], dtype=torch.float64).reshape(2, 1, 1, 1).requires_grad_()
    published = pictures * 2 - 1  # 0 and 2
    penalty = r1_penalty(published.flatten(1).square(), pictures)
    assert penalty.item() == pytest.approx((0**2 + 4**2) / 2)


def test_the_path_of_a_linear_generator_is_its_matrix() -> None:
    """Published pictures A w, one layer: |A^T y| / sqrt(H W)."""
    matrix, styles, noise = drawn(3 * 4 * 4, 6), drawn(2, 1, 6, seed=1), drawn(2, 3, 4, 4, seed=2).detach()
    pictures = (styles[:, 0] @ matrix.T).reshape(2, 3, 4, 4) * 0.5 + 0.5
    lengths = path_length(pictures, styles, noise)
    assert torch.allclose(lengths, (noise.flatten(1) @ matrix).norm(dim=1) / 4)
    (slope,) = torch.autograd.grad(lengths.sum(), matrix)
    assert float(slope.detach().abs().sum()) > 0


def test_the_path_is_the_root_of_the_mean_over_layers() -> None:
    styles, noise = drawn(2, 4, 6), torch.ones(2, 3, 2, 2, dtype=torch.float64)
    pictures = (styles.sum((1, 2)) * 0.5)[:, None, None, None].expand(2, 3, 2, 2)
    assert torch.allclose(path_length(pictures, styles, noise), torch.tensor(12 / 2 * math.sqrt(6)).double())


@pytest.mark.parametrize("up", [False, True])
def test_gradients_of_gradients_of_a_styled_convolution(up: bool) -> None:
    torch.manual_seed(0)
    layer = StyledConv(2, 3, 2, up=up).double()
    nn.init.constant_(layer.noise.weight, 0.3)
    x, style, noise = drawn(2, 2, 3, 3), drawn(2, 2, seed=1), torch.randn(1, 1, 3 * (1 + up), 3 * (1 + up)).double()

    def run(x: Tensor, style: Tensor, *_: Tensor) -> Tensor:
        made: Tensor = layer(x, style, noise)
        return made

    inputs = (x, style, *layer.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_gradients_of_gradients_of_colours_and_of_the_judge() -> None:
    torch.manual_seed(0)
    colours, block = ToRGB(2, 2).double(), ResBlock(2, 3).double()
    inputs = (drawn(2, 2, 4, 4), drawn(2, 2, seed=1), drawn(2, 3, 2, 2, seed=2))
    assert torch.autograd.gradgradcheck(lambda *given: colours(*given), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: block(x), (drawn(2, 2, 4, 4),), fast_mode=True)


def test_both_penalties_reach_every_weight_that_they_can() -> None:
    torch.manual_seed(0)
    networks = build_gan(CONFIG)
    generator = networks["generator"]
    assert isinstance(generator, Generator)
    styles = generator.spread(generator.mapping(torch.randn(4, CONFIG.style_dim)))
    pictures = generator.synthesis(styles, generator.make_noise(4, torch.Generator().manual_seed(0)))
    path_length(pictures, styles, torch.randn_like(pictures)).sum().backward()
    without = {name for name, value in generator.named_parameters() if value.grad is None}
    assert without <= {name for name, _ in generator.named_parameters() if name.endswith("bias")}
    real = pictures.detach().requires_grad_()
    r1_penalty(networks["discriminator"](real), real).backward()
    weights = dict(networks["discriminator"].named_parameters())
    assert all(bool(value.grad is not None and value.grad.any()) for name, value in weights.items() if "weight" in name)
