"""Losses of DualStyleGAN's fine-tuning: features where they lie, wherever they lie, and their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import wide

SOURCE_LEVELS = (0.5, 0.5, 0.5, 0.0, 0.0)
"""Weights of the backbone's levels in the source domain, the finest first."""
TARGET_LEVELS = (0.0, 0.5, 1.0, 0.0, 0.0)
STYLE_LEVELS = (1, 2)
"""Whose statistics are matched (places in the list of levels)."""
CONTEXT_LEVEL = 2
BAND_WIDTH = 0.2
EPS = 1e-5


def level_loss(made: Sequence[Tensor], wanted: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Mean absolute difference of features, level by level, weighted and added.

    Args:
        made: levels of (B, C_i, h_i, w_i).
        wanted: likewise.
        weights: one per level; 0 leaves it out, and one of them is above 0.
    """
    parts = [F.l1_loss(wide(a), wide(b)) * w for a, b, w in zip(made, wanted, weights, strict=True) if w]
    return torch.stack(parts).sum()


def contextual_loss(made: Tensor, style: Tensor, band_width: float = BAND_WIDTH) -> Tensor:
    """How badly the style picture's features are found among the made one's, wherever they lie.

    Mechrez et al., ECCV 2018, equations 1 to 5, with the cosine distance of features from the style picture's mean.

    Args:
        made: features, (B, C, h, w); memory grows with the square of h * w.
        style: likewise.
        band_width: the smaller, the nearer a feature must be to count as found.

    Returns:
        The mean over the pictures, 0 or more.
    """
    mean = wide(style).mean(dim=(2, 3), keepdim=True)
    found, wanted = (F.normalize((wide(x) - mean).flatten(2), dim=1) for x in (made, style))
    distance = 1 - found.transpose(1, 2) @ wanted
    relative = distance / (distance.amin(dim=2, keepdim=True) + EPS)
    # The softmax is equations 3 and 4 at once: exp((1 - relative) / band_width) over its sum.
    likeness = torch.softmax(-relative / band_width, dim=2)
    context = likeness.amax(dim=1).mean(dim=1)
    return -torch.log(context + EPS).mean()


def statistics_loss(made: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the features' means and deviations over all places (Huang and Belongie, ICCV 2017).

    Args:
        made: levels of features, of which `STYLE_LEVELS` count.
        style: likewise.
    """
    parts = []
    for level in STYLE_LEVELS:
        of_made, of_style = _statistics(made[level]), _statistics(style[level])
        parts.append(F.mse_loss(of_made[0], of_style[0]) + F.mse_loss(of_made[1], of_style[1]))
    return torch.stack(parts).sum()


def weight_norms(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The sum of the tensors' Euclidean norms."""
    return torch.stack([parameter.norm() for parameter in parameters]).sum()


def favour(scores: Tensor) -> Tensor:
    """The generator's loss, non-saturating: scores of made pictures (B, 1) should be high."""
    return F.softplus(-wide(scores)).mean()


def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's logistic loss: scores of real pictures (B, 1) should be high, of made ones low."""
    return F.softplus(-wide(real)).mean() + F.softplus(wide(made)).mean()


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over all places, (B, C) each; the small number keeps a flat map's slope finite."""
    flat = wide(features).flatten(2)
    return flat.mean(dim=2), (flat.var(dim=2, unbiased=False) + EPS).sqrt()
