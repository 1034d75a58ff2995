"""The style family's losses against numbers written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.style.networks import build, debug_config
from training.recipes.style_losses import (
    colour_loss,
    content_loss,
    gradient_penalty,
    gram,
    gray,
    least_squares,
    texture_loss,
    total_variation,
    wasserstein,
    yuv,
)


def test_yuv_of_known_colours() -> None:
    colours = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = yuv(colours[:, :, None, None])[:, :, 0, 0]
    wanted = [[0, 0, 0], [1, 0, 0], [0.299, -0.14714119, 0.61497538], [0.114, 0.43601035, -0.10001026]]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-6, rtol=0)
    torch.testing.assert_close(gray(colours[:, :, None, None])[2, :, 0, 0], torch.full((3,), 0.299))


def test_gram_is_the_sum_of_products() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # (1, 2, 1, 2)
    torch.testing.assert_close(gram(features), torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4)


def test_textures_do_not_depend_on_where_things_are() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 8, 6, 6)
    moved = features.flatten(2)[:, :, torch.randperm(36)].unflatten(2, (6, 6))
    assert float(texture_loss(features, moved)) < 1e-6
    assert float(content_loss(features, moved)) > 0.5


def test_colour_is_l1_of_y_and_huber_of_u_and_v() -> None:
    made, photo = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    made[:, 0] = 1.0  # red
    u, v = -0.14714119, 0.61497538
    assert float(colour_loss(made, photo)) == pytest.approx(0.299 + u * u / 2 + v * v / 2, abs=1e-6)


def test_total_variation_of_a_step() -> None:
    image = torch.zeros(1, 1, 2, 3)
    image[..., 2] = 2.0
    assert float(total_variation(image)) == pytest.approx(4 * 2 / 4)


def test_the_critic_gains_where_the_real_ones_score_higher() -> None:
    assert float(wasserstein(torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 1.0))) == 2.0


def test_least_squares_are_zero_at_what_is_wanted() -> None:
    scores = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 1, 1, 3)
    assert float(least_squares(scores, 1.0)) == pytest.approx((1 + 0 + 4) / 3)
    assert float(least_squares(scores.to(torch.bfloat16), 0.0)) == pytest.approx(10 / 3)


def penalty_by_hand(weight: Tensor, real: Tensor, made: Tensor, share: Tensor) -> float:
    """Of the critic whose patches are pixels with the score sum_c w_c x_c^2, of gradient 2 w_c x_c, in plain loops."""
    terms = []
    for b in range(real.shape[0]):
        square = 0.0
        _, channels, height, width = real.shape
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    between = float(made[b, c, y, x]) + float(share[b]) * float(real[b, c, y, x] - made[b, c, y, x])
                    square += (2 * float(weight[c]) * between) ** 2
        terms.append((math.sqrt(square) - 1) ** 2)
    return math.fsum(terms) / len(terms)


def test_the_gradient_penalty_equals_a_calculation_by_hand() -> None:
    torch.manual_seed(0)
    real, made = (torch.rand(3, 3, 4, 5, dtype=torch.float64) * 9 for _ in range(2))
    share, weight = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0]).double()

    def critic(x: Tensor) -> Tensor:
        return torch.einsum("c,bchw->bhw", weight, x.square())[:, None]

    found = gradient_penalty(critic, real, made, share)
    assert float(found.detach()) == pytest.approx(penalty_by_hand(weight, real, made, share), rel=1e-12)


def test_the_penalty_sees_the_sum_of_the_patches() -> None:
    """Four patches that each see a pixel of their own: the slope of all is 2, not 1 / 2."""
    real, made = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
    assert float(gradient_penalty(lambda x: x * 1, real, made, torch.rand(1)).detach()) == pytest.approx(1.0)


def test_a_straight_critic_of_slope_one_pays_nothing() -> None:
    real, made = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    size = real[0].numel()
    straight = gradient_penalty(
        lambda x: x.sum((1, 2, 3))[:, None, None, None] / math.sqrt(size), real, made, torch.rand(2)
    )
    assert float(straight.detach()) == pytest.approx(0.0, abs=1e-10)


def test_the_penalty_teaches_the_critic_and_nothing_else() -> None:
    """Its gradient reaches every layer of the critic, twice differentiated, as finite differences say."""
    torch.manual_seed(0)
    critic = build(debug_config())["critic"].double().eval()
    real, made = (torch.rand(2, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    share = torch.tensor([0.25, 0.75], dtype=torch.float64)
    made.requires_grad_(True)
    gradient_penalty(critic, real, made.detach(), share).backward()
    assert made.grad is None
    weights = [
        module for module in critic.modules() if isinstance(module, nn.Module) and hasattr(module, "weight_orig")
    ]
    assert len(weights) == 7
    for module in (weights[0], weights[-1]):
        weight, step = module.weight_orig, 1e-6
        assert isinstance(weight, Tensor)
        flat, slope = weight.data.view(-1), weight.grad
        assert slope is not None
        around = []
        for sign in (1, -1):
            flat[0] += sign * step
            around.append(float(gradient_penalty(critic, real, made.detach(), share).detach()))
            flat[0] -= sign * step
        assert float(slope.view(-1)[0]) == pytest.approx((around[0] - around[1]) / (2 * step), rel=1e-4, abs=1e-9)
