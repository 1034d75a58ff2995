"""Losses of facial destylisation, one number per picture: pictures that are optimised together do not meet in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.precision import wide

SEEN_PX = 256
"""Larger pictures are averaged down to this before anything looks at them."""
SMALLEST_NOISE_PX = 8
EPS = 1e-10


def seen(image: Tensor) -> Tensor:
    """A picture as losses see it: (B, 3, H, W) -> at most 256 px high and wide, by averaging."""
    return F.adaptive_avg_pool2d(image, SEEN_PX) if image.shape[-1] > SEEN_PX else image


def perceptual_distance(made: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Squared distance of the features' directions, mean over places, summed over levels.

    Zhang et al., CVPR 2018, equation 1, with all channels weighing alike.

    Args:
        made: levels of features, (B, C_i, h_i, w_i) each.
        wanted: likewise.

    Returns:
        (B,).
    """
    parts = [
        (_direction(wide(a)) - _direction(wide(b))).square().sum(dim=1).mean(dim=(1, 2))
        for a, b in zip(made, wanted, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def identity_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """One minus the cosine of two embeddings, (B, D) -> (B,), in 0 to 2."""
    return 1 - F.cosine_similarity(wide(made), wide(wanted), dim=1)


def pooled(levels: Sequence[Tensor]) -> Tensor:
    """The deepest level's mean over all places, (B, D): an embedding where no recogniser of faces is at hand."""
    return wide(levels[-1]).mean(dim=(2, 3))


def spread(codes: Tensor) -> Tensor:
    """How far a picture's codes lie apart: their deviation over the layers, mean over a code's numbers.

    Args:
        codes: (B, S, D).

    Returns:
        (B,).
    """
    return codes.std(dim=1).mean(dim=1)


def noise_correlation(noises: Sequence[Tensor]) -> Tensor:
    """Squared correlation of noise with itself one place on, down and across, at every scale down to 8 px.

    Karras et al., CVPR 2020, appendix D.

    Args:
        noises: (B, 1, h, h) each, h a power of two.

    Returns:
        (B,).
    """
    total = noises[0].new_zeros(noises[0].shape[0])
    for noise in noises:
        scaled = noise
        while True:
            for axis in (2, 3):
                total = total + (scaled * scaled.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
            if scaled.shape[-1] <= SMALLEST_NOISE_PX:
                break
            scaled = F.avg_pool2d(scaled, 2)
    return total


@torch.no_grad()
def normalise_(noises: Sequence[Tensor]) -> None:
    """Bring each picture's noise, (B, 1, h, w), back to mean 0 and deviation 1, in place."""
    for noise in noises:
        deviation, mean = torch.std_mean(noise, dim=(1, 2, 3), keepdim=True)
        noise.sub_(mean).div_(deviation)


def _direction(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + EPS).sqrt()
