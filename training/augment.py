"""Random changes of pictures, on the device, keyed by the sample.

Both frames of a clip are changed alike, a photo and a style picture apart. It is what the published
configurations do with brightness, contrast, saturation, hue and size; the four changes of colour are applied in an
order drawn for each sample, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import AugmentConfig
from training.randomness import keyed

COLOURS = ("brightness", "contrast", "saturation", "hue")
_GRAY = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma."""


class Draw(NamedTuple):
    """What is done to one sample."""

    order: tuple[int, ...]
    """Positions in `COLOURS`, in the order of their application."""
    amounts: tuple[float, ...]
    """Factor of brightness, contrast and saturation, turn of the hue; by position in `COLOURS`."""
    scale: float
    shift: tuple[float, float]
    """Where the crop lies in the room that the scale leaves, each in [0, 1]."""


def draw(rng: np.random.Generator, config: AugmentConfig) -> Draw:
    """Draw one sample's changes."""
    spreads = [getattr(config, name) for name in COLOURS]
    amounts = [1 + rng.uniform(-spread, spread) for spread in spreads[:3]] + [rng.uniform(-spreads[3], spreads[3])]
    order = tuple(int(i) for i in rng.permutation(len(COLOURS)))
    scale, x, y = rng.uniform(*config.resize), rng.uniform(), rng.uniform()
    return Draw(order, tuple(float(amount) for amount in amounts), float(scale), (float(x), float(y)))


def augment(
    source: Tensor, driving: Tensor, items: np.ndarray, config: AugmentConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Change the pairs of a batch.

    Args:
        source: in [0, 1], (B, 3, H, W).
        driving: likewise.
        items: the samples' numbers, (B,).
        config: how strongly.
        seed: of the training.

    Returns:
        Both, in [0, 1]; the same tensors when nothing is asked for.
    """
    first, second = _changed((source, driving), config, [(seed, "augment", int(item)) for item in items])
    return first, second


def augment_pictures(
    pictures: Tensor, *alike: Tensor, items: np.ndarray, config: AugmentConfig, seed: int, of: Literal["photo", "style"]
) -> tuple[Tensor, ...]:
    """Change the photos, or the style pictures, of a batch; those two are drawn for apart, as they are no pair.

    Args:
        pictures: in [0, 1], (B, 3, H, W).
        alike: likewise; what is changed as ``pictures`` are, sample by sample: edge-smoothed copies of them.
        items: the samples' numbers, (B,).
        config: how strongly.
        seed: of the training.
        of: which of the two they are, a part of the draws' key.

    Returns:
        ``pictures`` and ``alike``, in [0, 1]; the same tensors when nothing is asked for.
    """
    return _changed((pictures, *alike), config, [(seed, "augment", of, int(item)) for item in items])


def _changed(
    together: tuple[Tensor, ...], config: AugmentConfig, keys: Sequence[tuple[int, *tuple[int | str, ...]]]
) -> tuple[Tensor, ...]:
    """Tensors (B, 3, H, W) whose n-th pictures are all changed as the n-th key says."""
    coloured = any(getattr(config, name) for name in COLOURS)
    resized = tuple(config.resize) != (1.0, 1.0)
    if not (coloured or resized):
        return together
    draws = [draw(keyed(*key), config) for key in keys]
    stacked = torch.stack(together, dim=1)
    if resized:
        stacked = _rescale(stacked, draws)
    if coloured:
        stacked = _recolour(stacked, draws)
    return stacked.unbind(1)


def _rescale(pairs: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Frames scaled, then cropped, or filled up with their reflection, to their old size: (B, n, 3, H, W)."""
    rows = []
    for one in draws:
        room = 1 - 1 / one.scale  # of the frame, to both sides together; below 0 where the frame became smaller
        middle = [(2 * place - 1) * max(room, 0.0) for place in one.shift]
        rows.append([[1 / one.scale, 0.0, middle[0]], [0.0, 1 / one.scale, middle[1]]])
    theta = torch.tensor(rows, dtype=pairs.dtype, device=pairs.device)
    flat = pairs.flatten(1, 2)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    read = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return read.reshape(pairs.shape)


def _recolour(pairs: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Samples that share an order are changed together: (B, n, 3, H, W)."""
    changed = torch.empty_like(pairs)
    for order in sorted({one.order for one in draws}):
        chosen = [place for place, one in enumerate(draws) if one.order == order]
        part = pairs[chosen]
        for kind in order:
            amounts = torch.tensor([draws[place].amounts[kind] for place in chosen], dtype=pairs.dtype)
            part = _CHANGES[kind](part, amounts.to(pairs.device)[:, None, None, None, None])
        changed[chosen] = part
    return changed


def _gray(pairs: Tensor) -> Tensor:
    weights = torch.tensor(_GRAY, dtype=pairs.dtype, device=pairs.device)[:, None, None]
    return (pairs * weights).sum(-3, keepdim=True)


def _brightness(pairs: Tensor, factor: Tensor) -> Tensor:
    return (pairs * factor).clamp(0, 1)


def _contrast(pairs: Tensor, factor: Tensor) -> Tensor:
    mean = _gray(pairs).mean((-3, -2, -1), keepdim=True)
    return (pairs * factor + mean * (1 - factor)).clamp(0, 1)


def _saturation(pairs: Tensor, factor: Tensor) -> Tensor:
    return (pairs * factor + _gray(pairs) * (1 - factor)).clamp(0, 1)


def _hue(pairs: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV (Smith, SIGGRAPH 1978): value and saturation stay."""
    value, least = pairs.amax(-3, keepdim=True), pairs.amin(-3, keepdim=True)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = pairs.unbind(-3)
    top, span = value.squeeze(-3), safe.squeeze(-3)
    of_red, of_green, of_blue = (green - blue) / span, (blue - red) / span + 2, (red - green) / span + 4
    sector = torch.where(top == red, of_red, torch.where(top == green, of_green, of_blue))
    turned = (sector.unsqueeze(-3) + turn * 6) % 6
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=pairs.dtype, device=pairs.device)[:, None, None]
    place = (offsets + turned) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
