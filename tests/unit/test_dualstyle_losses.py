"""Losses of DualStyleGAN's fine-tuning, against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.recipes.dualstyle_losses import (
    EPS,
    contextual_loss,
    favour,
    level_loss,
    statistics_loss,
    told_apart,
    weight_norms,
)


def contextual_by_loops(made: Tensor, style: Tensor, h: float) -> float:
    """Equations 1 to 5 of Mechrez et al., one number after another, in float64."""
    total = 0.0
    for x, y in zip(made.double(), style.double(), strict=True):
        mean = y.mean(dim=(1, 2))
        xs = [x[:, i, j] - mean for i in range(x.shape[1]) for j in range(x.shape[2])]
        ys = [y[:, i, j] - mean for i in range(y.shape[1]) for j in range(y.shape[2])]
        rows = []
        for a in xs:
            d = [1 - float(a @ b) / (float(a.norm()) * float(b.norm())) for b in ys]
            near = min(d) + EPS
            w = [math.exp((1 - value / near) / h) for value in d]
            rows.append([value / sum(w) for value in w])
        best = [max(row[j] for row in rows) for j in range(len(ys))]
        total += -math.log(sum(best) / len(best) + EPS)
    return total / len(made)


@pytest.mark.parametrize("h", [0.2, 0.5])
def test_the_contextual_loss_is_that_of_the_equations(h: float) -> None:
    draw = torch.Generator().manual_seed(1)
    made, style = torch.randn(2, 3, 5, 4, 4, generator=draw, dtype=torch.float64)[:, :, :, :3]
    assert float(contextual_loss(made, style, h)) == pytest.approx(contextual_by_loops(made, style, h), rel=1e-10)


def test_the_contextual_loss_does_not_mind_where_things_are() -> None:
    draw = torch.Generator().manual_seed(2)
    style = torch.randn(1, 6, 5, 5, generator=draw)
    order = torch.randperm(25, generator=draw)
    moved = style.flatten(2)[:, :, order].view_as(style)
    other = torch.randn(1, 6, 5, 5, generator=draw)
    assert float(contextual_loss(style, style)) < 0.01
    assert float(contextual_loss(moved, style)) == pytest.approx(float(contextual_loss(style, style)), abs=1e-5)
    assert float(contextual_loss(other, style)) > 0.3


def test_pictures_of_a_batch_do_not_meet_in_the_contextual_loss() -> None:
    made, style = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    alone = [float(contextual_loss(made[i : i + 1], style[i : i + 1])) for i in range(2)]
    assert float(contextual_loss(made, style)) == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_the_contextual_loss_can_be_followed_downhill() -> None:
    draw = torch.Generator().manual_seed(4)
    style = torch.randn(1, 4, 4, 4, generator=draw)
    made = torch.randn(1, 4, 4, 4, generator=draw).requires_grad_(True)
    optimizer = torch.optim.Adam([made], lr=0.05)
    begin = float(contextual_loss(made.detach(), style))
    for _ in range(60):
        optimizer.zero_grad()
        contextual_loss(made, style).backward()
        optimizer.step()
    assert float(contextual_loss(made.detach(), style)) < 0.5 * begin


def test_levels_weigh_what_they_are_given() -> None:
    made, wanted = ([torch.full((1, 2, 2, 2), value)] * 3 for value in (0.0, 2.0))
    assert float(level_loss(made, wanted, (0.5, 0.0, 0.25))) == pytest.approx(1.5)


def test_statistics_are_compared_over_the_places() -> None:
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    turned = [x.flip(-1) for x in [features] * 3]
    assert float(statistics_loss([features] * 3, turned)) == pytest.approx(0, abs=1e-10)
    raised = [features, features + 2, features]
    assert float(statistics_loss(raised, [features] * 3)) == pytest.approx(4, rel=1e-5)
    flat = torch.zeros(1, 3, 4, 4, requires_grad=True)
    statistics_loss([flat] * 3, [features[:1]] * 3).backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


def test_the_adversaries_want_the_opposite() -> None:
    scores = torch.tensor([[-1.0], [2.0]])
    assert float(favour(scores)) == pytest.approx((math.log1p(math.e) + math.log1p(math.exp(-2))) / 2, rel=1e-6)
    assert float(told_apart(scores, scores)) == pytest.approx(float(favour(scores) + favour(-scores)), rel=1e-6)


def test_norms_are_added_tensor_by_tensor() -> None:
    net = nn.Linear(2, 1)
    nn.init.constant_(net.weight, 3.0)
    nn.init.constant_(net.bias, -1.0)
    assert float(weight_norms(net.parameters()).detach()) == pytest.approx(math.sqrt(18) + 1, rel=1e-6)
