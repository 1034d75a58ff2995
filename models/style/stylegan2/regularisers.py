"""Penalties that StyleGAN2 is trained with, in the units of the published code, whose pictures lie in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

PUBLISHED_RANGE = 2.0
"""Length of the published range of pictures, of which ours is one."""


def r1_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """The squared slope of the scores at real pictures (Mescheder et al., ICML 2018, equation 9), without gamma / 2.

    Args:
        scores: of the pictures, (B, 1).
        pictures: in [0, 1], (B, 3, H, W), with ``requires_grad``.

    Returns:
        A scalar: the mean over the batch, differentiable again.
    """
    (slope,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return slope.div(PUBLISHED_RANGE).square().flatten(1).sum(1).mean()


def path_length(pictures: Tensor, styles: Tensor, noise_picture: Tensor) -> Tensor:
    """How far pictures move with their styles (Karras et al., CVPR 2020, equation 4): |J^T y| of random pictures y.

    Args:
        pictures: made of ``styles``, (B, 3, H, W).
        styles: (B, S, D), in the pictures' graph.
        noise_picture: standard normal, (B, 3, H, W); it is divided by sqrt(H W) here (appendix B).

    Returns:
        (B,): the root of the mean over the S layers of the squared length, differentiable again. The penalty is the
        mean of its squared distance from a running mean.
    """
    pixels = pictures.shape[2] * pictures.shape[3]
    weighed = (pictures * noise_picture).sum() * (PUBLISHED_RANGE / pixels**0.5)
    (slope,) = torch.autograd.grad(weighed, styles, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()
