"""Style transfer without a trained generator: the picture itself is optimised (Gatys et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.errors import ShapeError, check, must
from models.layers.precision import wide
from models.perceptual import Perceptual

ADAM_RATE = 0.02
"""Of pixels in [0, 1]."""

Loss = Callable[[Tensor], Tensor]
"""Of a picture in [0, 1], (1, 3, H, W); a scalar."""
Progress = Callable[[int, float], None] | None
"""Called with the number of the evaluation, from 1, and the loss there."""
Optimizer = Literal["lbfgs", "adam"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatysConfig:
    """What a picture is optimised for, and how long.

    Both losses are shares of what the photo's features and the style's Gram matrices are themselves, so that the
    weights mean the same with any backbone. The paper's weights belong to its sums.
    """

    content_weight: float = 1.0
    style_weight: float = 10.0
    content_level: int = 4
    """Of the backbone's five, 1 the finest; the paper has conv4_2."""
    style_levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Equally weighted, as in the paper."""
    total_variation: float = 0.0
    steps: int = 300
    """Evaluations of the loss; L-BFGS may take a few less or more."""
    optimizer: Optimizer = "lbfgs"
    """``lbfgs``, as in the paper, or ``adam``."""

    def __post_init__(self) -> None:
        weights = (self.content_weight, self.style_weight, self.total_variation)
        levels = (self.content_level, *self.style_levels)
        check(
            (min(weights) >= 0, "content_weight", min(weights), "be 0 or more, like the other weights"),
            (max(weights[:2]) > 0, "style_weight", self.style_weight, "be above 0 where content_weight is 0"),
            (bool(self.style_levels), "style_levels", self.style_levels, "name one level or more"),
            (all(1 <= level <= 5 for level in levels), "style_levels", levels, "lie in 1 to 5, like content_level"),
            (self.steps >= 1, "steps", self.steps, "be 1 or more"),
            (self.optimizer in ("lbfgs", "adam"), "optimizer", self.optimizer, "be lbfgs or adam"),
        )


def optimise(
    photo: Tensor,
    style: Tensor,
    backbone: Perceptual,
    config: GatysConfig | None = None,
    *,
    progress: Progress = None,
) -> Tensor:
    """Give a photo the texture of a style picture; starts from the photo.

    Args:
        photo: in [0, 1], (1, 3, H, W).
        style: likewise, of any size.
        backbone: whose features content and texture are taken from, on the photo's device.
        config: the weights, levels and steps.
        progress: called with the number of the evaluation, from 1, and the loss there; what it raises ends the work.

    Returns:
        The best picture that was met, in [0, 1], (1, 3, H, W).

    Raises:
        ShapeError: one of the two is no single RGB picture.
    """
    config = config or GatysConfig()
    single("photo", photo)
    single("style picture", style)
    with torch.no_grad():
        content = backbone(photo)[config.content_level - 1]
        levels = backbone(style)
    targets = {level: normalised_gram(levels[level - 1]) for level in config.style_levels}

    def loss(image: Tensor) -> Tensor:
        found = backbone(image)
        value = config.content_weight * share(found[config.content_level - 1], content)
        value = value + config.style_weight * style_distance(found, targets)
        if config.total_variation:
            value = value + config.total_variation * _roughness(image)
        return value

    return minimise(photo, loss, config.steps, optimizer=config.optimizer, progress=progress)


def normalised_gram(features: Tensor) -> Tensor:
    """Mean products of features (B, C, h, w) over the pixels, in at least 32 bits: (B, C, C)."""
    flat = wide(features).flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def share(found: Tensor, wanted: Tensor) -> Tensor:
    """Sum of squared differences over the sum of ``wanted``'s squares, a scalar in at least 32 bits."""
    found, wanted = wide(found), wide(wanted)
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny)


def style_distance(found: Sequence[Tensor], targets: dict[int, Tensor]) -> Tensor:
    """Squared differences of Gram matrices (equations 3 to 5), in shares of the style's own; mean over the levels.

    Args:
        found: the backbone's levels, (B, C_i, h_i, w_i) each.
        targets: Gram matrices (B, C_i, C_i) by the level's number, from 1.
    """
    shares = [share(normalised_gram(found[level - 1]), wanted) for level, wanted in targets.items()]
    return torch.stack(shares).mean()


def single(name: str, image: Tensor) -> None:
    """Refuse what is not one RGB picture.

    Raises:
        ShapeError: with the shape that came.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        rule = "be one RGB picture, (1, 3, H, W), with values in [0, 1]"
        raise ShapeError(must(f"the {name}", rule, tuple(image.shape)))


def minimise(start: Tensor, loss: Loss, steps: int, *, optimizer: Optimizer, progress: Progress = None) -> Tensor:
    """The best picture that an optimisation of pixels in [0, 1] meets.

    Args:
        start: in [0, 1], (1, 3, H, W); left as it is.
        loss: what is minimised.
        steps: evaluations of ``loss``; L-BFGS ends earlier where nothing is left to gain, or a few later.
        optimizer: L-BFGS needs fewer evaluations, Adam less memory.
        progress: told of each evaluation.
    """
    return (_lbfgs if optimizer == "lbfgs" else _adam)(start, loss, steps, progress)


def _lbfgs(start: Tensor, loss: Loss, steps: int, progress: Progress) -> Tensor:
    """L-BFGS on free numbers, of which the loss sees what lies in [0, 1]."""
    seen = _Best(loss, progress)
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
    optimizer = torch.optim.LBFGS([image], max_iter=steps, max_eval=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        # Clamped pixels have no slope: without a price for being outside they would never come back.
        beyond = (image - image.detach().clamp(0, 1)).square().sum()
        value = seen(image.clamp(0, 1)) + beyond
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return seen.image


def _adam(start: Tensor, loss: Loss, steps: int, progress: Progress) -> Tensor:
    """Adam on the pixels, clamped after each step."""
    seen = _Best(loss, progress)
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=ADAM_RATE)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(seen(image))
        optimizer.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return seen.image


class _Best:
    """Evaluates a loss and remembers the picture that had the smallest."""

    def __init__(self, loss: Loss, progress: Progress) -> None:
        self.loss, self.progress = loss, progress
        self.image = torch.empty(0)
        self.value, self.evaluations = float("inf"), 0

    def __call__(self, image: Tensor) -> Tensor:
        value = self.loss(image)
        found, self.evaluations = float(value.detach()), self.evaluations + 1
        if found < self.value or not self.image.numel():
            self.value, self.image = found, image.detach().clone()
        if self.progress is not None:
            self.progress(self.evaluations, found)
        return value


def _roughness(image: Tensor) -> Tensor:
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.square().mean() + across.square().mean()
