"""Losses of the style family: content, gray texture, colour, and the Wasserstein critic's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.precision import wide

_YUV = ((0.299, 0.587, 0.114), (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026))


def yuv(image: Tensor) -> Tensor:
    """Brightness and two colour differences (BT.601) of pictures in [0, 1], (B, 3, H, W).

    Returns:
        (B, 3, H, W): Y in [0, 1], U in [-0.436, 0.436], V in [-0.615, 0.615].
    """
    return torch.einsum("ij,bjhw->bihw", image.new_tensor(_YUV), image)


def gray(image: Tensor) -> Tensor:
    """The brightness alone, in three equal channels: (B, 3, H, W) -> same."""
    return yuv(image)[:, :1].expand_as(image)


def gram(features: Tensor) -> Tensor:
    """How features go together: sums of products over all pixels (LWComicGAN, equation 1), over the number of values.

    Args:
        features: (B, C, h, w).

    Returns:
        (B, C, C).
    """
    flat = wide(features).flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def content_loss(made: Tensor, photo: Tensor) -> Tensor:
    """Mean absolute difference of two feature maps (equation 3)."""
    return (wide(made) - wide(photo)).abs().mean()


def texture_loss(made: Tensor, style: Tensor) -> Tensor:
    """Mean absolute difference of the Gram matrices of two feature maps (equation 4).

    The equation prints the photo on the right; the text, and AnimeGAN, from which it comes, mean the style picture in
    gray. ``style`` is the gray style picture's map here.
    """
    return (gram(made) - gram(style)).abs().mean()


def colour_loss(made: Tensor, photo: Tensor) -> Tensor:
    """Absolute difference of Y, Huber's of U and V (equation 5), means over pixels, added.

    Args:
        made: in [0, 1], (B, 3, H, W).
        photo: likewise.
    """
    a, b = yuv(wide(made)), yuv(wide(photo))
    return F.l1_loss(a[:, 0], b[:, 0]) + F.huber_loss(a[:, 1], b[:, 1]) + F.huber_loss(a[:, 2], b[:, 2])


def total_variation(image: Tensor) -> Tensor:
    """Mean square difference of neighbouring pixels, down and across, added."""
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.square().mean() + across.square().mean()


def wasserstein(real: Tensor, made: Tensor) -> Tensor:
    """How much higher the critic scores the real ones, a scalar; the critic maximises it (equation 2).

    Args:
        real: scores of patches, (B, 1, h, w).
        made: likewise.
    """
    return real.mean() - made.mean()


def least_squares(scores: Tensor, wanted: float) -> Tensor:
    """Mean squared distance of scores (B, 1, h, w) from what they should be (Mao et al., ICCV 2017)."""
    loss: Tensor = (wide(scores) - wanted).square().mean()
    return loss


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, share: Tensor) -> Tensor:
    """Mean squared distance from 1 of the gradient's length, between real and made pictures (equation 2, last term).

    Gulrajani et al., NeurIPS 2017: pictures on the line between a real and a made one, the gradient of a picture's
    score with respect to the whole picture, its Euclidean norm. The equation prints the square of the mean; here it is
    the mean of the squares, as in its source. A picture's score is the sum of its patches' here, as in AnimeGAN: a mean
    of many patches hardly has a slope, which the critic would make up for by scores that outweigh every other loss.

    Args:
        critic: pictures (B, 3, H, W) -> scores (B, 1, h, w); each picture must be judged by itself.
        real: in [0, 1], (B, 3, H, W).
        made: likewise, detached.
        share: where on the line, 0 made and 1 real, (B,).
    """
    between = torch.lerp(made, real, share[:, None, None, None].to(real.dtype)).detach().requires_grad_(True)
    scores = critic(between).sum()
    (slope,) = torch.autograd.grad(scores, between, create_graph=True)
    lengths = wide(slope).flatten(1).norm(dim=1)
    penalty: Tensor = (lengths - 1).square().mean()
    return penalty
