"""Style transfer by whitening and colouring of features (Li et al., NeurIPS 2017), without a trained decoder.

The published method turns features back into pictures with decoders that were trained for VGG-19. Here a picture is
optimised until it has the features instead: slower, untrained, and for any backbone. Levels are taken one after the
other, the coarsest first, as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import ShapeError, check, must
from models.layers.precision import wide
from models.perceptual import Perceptual
from models.style.gatys import Optimizer, minimise, share, single

SMALLEST_SHARE = 1e-5
"""Directions with less than this share of the greatest variance are taken for noise and left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WctConfig:
    """How much style, at which levels, and how long each is worked on."""

    strength: float = 0.6
    """1: the style's statistics alone; 0: the photo's features. The paper's alpha, and its value."""
    levels: tuple[int, ...] = (4, 3, 2, 1)
    """Of the backbone's five, 1 the finest; in the order of the work."""
    steps: int = 60
    """Evaluations of the loss for each level."""
    optimizer: Optimizer = "lbfgs"

    def __post_init__(self) -> None:
        check(
            (0 <= self.strength <= 1, "strength", self.strength, "lie in 0 to 1"),
            (bool(self.levels), "levels", self.levels, "name one level or more"),
            (all(1 <= level <= 5 for level in self.levels), "levels", self.levels, "each lie in 1 to 5"),
            (self.steps >= 1, "steps", self.steps, "be 1 or more"),
            (self.optimizer in ("lbfgs", "adam"), "optimizer", self.optimizer, "be lbfgs or adam"),
        )


def transfer(
    photo: Tensor,
    style: Tensor,
    backbone: Perceptual,
    config: WctConfig | None = None,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> Tensor:
    """Give a photo the statistics of a style picture's features.

    Args:
        photo: in [0, 1], (1, 3, H, W).
        style: likewise, of any size.
        backbone: whose features are whitened and coloured, on the photo's device.
        config: strength and levels; the paper's strength unless given.
        progress: called with the level, the number of the evaluation, from 1, and the loss there; what it raises ends
            the work.

    Returns:
        In [0, 1], (1, 3, H, W).

    Raises:
        ShapeError: one of the two is no single RGB picture.
    """
    config = config or WctConfig()
    single("photo", photo)
    single("style picture", style)
    with torch.no_grad():
        wanted = backbone(style)
    image = photo
    for level in config.levels:
        with torch.no_grad():
            found = backbone(image)[level - 1]
            target = torch.lerp(wide(found), whiten_colour(found, wanted[level - 1]), config.strength)
        tell = None if progress is None else _of_level(progress, level)
        loss = _distance(backbone, level, target)
        image = minimise(image, loss, config.steps, optimizer=config.optimizer, progress=tell)
    return image


def whiten_colour(content: Tensor, style: Tensor) -> Tensor:
    """Features that vary over the pixels as the content's, with mean and covariance of the style's (section 3.2).

    Exact where the content's features vary in as many directions as the style's: it needs more pixels than channels.
    Directions without variance can't be made to vary.

    Args:
        content: (B, C, h, w).
        style: (B, C, h', w').

    Returns:
        (B, C, h, w), in at least 32 bits; computed in 64.

    Raises:
        ShapeError: the two differ in batch or channels.
    """
    if content.ndim != 4 or style.ndim != 4 or content.shape[:2] != style.shape[:2]:
        got = f"{tuple(content.shape)} and {tuple(style.shape)}"
        raise ShapeError(must("features of content and style", "be (B, C, h, w) of one B and C", got))
    flat, goal = content.double().flatten(2), style.double().flatten(2)
    centred, mean = flat - flat.mean(2, keepdim=True), goal.mean(2, keepdim=True)
    white = _root(_covariance(centred), -0.5) @ centred
    coloured = _root(_covariance(goal - mean), 0.5) @ white + mean
    return coloured.reshape(content.shape).to(wide(content).dtype)


def _covariance(centred: Tensor) -> Tensor:
    """(B, C, N) without mean -> (B, C, C), over N."""
    return centred @ centred.transpose(1, 2) / centred.shape[2]


def _root(covariance: Tensor, power: float) -> Tensor:
    """A power of a symmetric matrix without its directions of no variance, (B, C, C)."""
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > variances[:, -1:].clamp_min(torch.finfo(variances.dtype).tiny) * SMALLEST_SHARE
    scales = torch.where(kept, variances.clamp_min(torch.finfo(variances.dtype).tiny) ** power, 0.0)
    root: Tensor = (directions * scales[:, None, :]) @ directions.transpose(1, 2)
    return root


def _distance(backbone: Perceptual, level: int, target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda image: share(backbone(image)[level - 1], target)


def _of_level(progress: Callable[[int, int, float], None], level: int) -> Callable[[int, float], None]:
    return lambda evaluation, loss: progress(level, evaluation, loss)
