"""Generators that turn a photo into a drawing: each layout is a sequence of blocks, so that all run one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.names import SampleNormName
from models.style.blocks import Conv, Down, Inverted, Residual, Separable, Up, reflected
from models.style.config import Layout, StyleConfig

MULTIPLE = 4
"""Heights and widths are rounded up to it inside, because all layouts halve twice."""


class StyleGenerator(nn.Module):
    """Photo in, drawing out, of the same size."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*LAYOUTS[config.layout](config.width, config.num_blocks, config.norm))

    def forward(self, image: Tensor) -> Tensor:
        """Stylise pictures.

        Args:
            image: in [0, 1], (B, 3, H, W), any height and width from 1 px up.

        Returns:
            In [0, 1], (B, 3, H, W).

        Raises:
            ShapeError: no batch of RGB pictures of one size.
        """
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
            got = tuple(image.shape) if isinstance(image, Tensor) else f"a {type(image).__name__}"
            fix = "Stack RGB pictures of one size; stylise pictures of other sizes in another call"
            raise ShapeError(must("the pictures", "be a tensor (B, 3, H, W) with values in [0, 1]", got, fix))
        height, width = image.shape[-2:]
        made = torch.tanh(self.blocks(padded(image * 2 - 1)))
        return (made[..., :height, :width] + 1) / 2


def padded(x: Tensor) -> Tensor:
    """Continue pictures (B, C, H, W) to the right and below, up to the next multiple, by their last row and column."""
    down, right = (-size % MULTIPLE for size in x.shape[-2:])
    down, right = max(down, MULTIPLE * 2 - x.shape[-2]), max(right, MULTIPLE * 2 - x.shape[-1])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def _lwcomicgan(width: int, num_blocks: int, norm: SampleNormName) -> Iterator[nn.Module]:
    """LWComicGAN: a 7x7 convolution, 3x3 ones, four residual blocks, LIN after every convolution (section III C).

    The paper draws the blocks and prints the total (2,796,416) but no widths. This is the one layout next to AnimeGAN's
    that has this total without contradicting the text, where LIN has a third parameter a channel in the residual
    blocks; LIN as equation 7 describes it has two, which makes 2,791,296.
    """
    one, two, four = width, 2 * width, 4 * width
    yield Conv(3, one, 7, norm=norm)
    yield Conv(one, one, norm=norm)
    yield Down(one, two, norm=norm, branch=True)
    yield Conv(two, two, norm=norm)
    yield Separable(two, two, norm=norm)
    yield Down(two, four, norm=norm, branch=False)
    yield Conv(four, four, norm=norm)
    yield from (Inverted(four, four, norm=norm, bias=True) for _ in range(num_blocks))
    yield Conv(four, four, norm=norm)
    yield Up(Separable(four, two, norm=norm))
    yield Separable(two, two, norm=norm)
    yield Conv(two, two, norm=norm)
    yield Up(Separable(two, two, norm=norm))
    yield Separable(two, one, norm=norm)
    yield Conv(one, one, norm=norm)
    yield reflected(one, 3, 3)


def _animegan(width: int, num_blocks: int, norm: SampleNormName) -> Iterator[nn.Module]:
    """AnimeGAN (Chen et al., ISICA 2019), with 8 blocks and instance normalisation."""
    one, two, four = width, 2 * width, 4 * width
    yield Conv(3, one, norm=norm)
    yield Conv(one, one, norm=norm)
    yield Down(one, two, norm=norm, branch=True)
    yield Conv(two, two, norm=norm)
    yield Separable(two, two, norm=norm)
    yield Down(two, four, norm=norm, branch=True)
    yield Conv(four, four, norm=norm)
    yield from (Inverted(four, four, norm=norm) for _ in range(num_blocks))
    yield Conv(four, four, norm=norm)
    yield Up(Separable(four, two, norm=norm))
    yield Separable(two, two, norm=norm)
    yield Conv(two, two, norm=norm)
    yield Up(Separable(two, two, norm=norm))
    yield Conv(two, one, norm=norm)
    yield Conv(one, one, norm=norm)
    yield reflected(one, 3, 1)


def _animeganv2(width: int, num_blocks: int, norm: SampleNormName) -> Iterator[nn.Module]:
    """AnimeGANv2 (its public second version), with 4 blocks and layer normalisation."""
    half, one, two, four = width // 2, width, 2 * width, 4 * width
    yield Conv(3, half, 7, norm=norm)
    yield Conv(half, one, stride=2, norm=norm)
    yield Conv(one, one, norm=norm)
    yield Conv(one, two, stride=2, norm=norm)
    yield from (Conv(two, two, norm=norm) for _ in range(2))
    yield from (Inverted(two if i == 0 else four, four, norm=norm, bias=True) for i in range(num_blocks))
    yield Conv(four if num_blocks else two, two, norm=norm)
    yield Up(Conv(two, two, norm=norm))
    yield Conv(two, two, norm=norm)
    yield Up(Conv(two, one, norm=norm))
    yield Conv(one, one, norm=norm)
    yield Conv(one, half, 7, norm=norm)
    yield reflected(half, 3, 1)


def _cartoongan(width: int, num_blocks: int, norm: SampleNormName) -> Iterator[nn.Module]:
    """CartoonGAN (Chen et al., CVPR 2018), with 8 blocks; one normalisation for every two convolutions that resize."""
    one, two, four = width, 2 * width, 4 * width
    yield Conv(3, one, 7, norm=norm, activation="relu")
    for before, after in ((one, two), (two, four)):
        yield Conv(before, after, stride=2, norm=None, activation="none")
        yield Conv(after, after, norm=norm, activation="relu")
    yield from (Residual(four, norm=norm) for _ in range(num_blocks))
    for before, after in ((four, two), (two, one)):
        yield Up(Conv(before, after, norm=None, activation="none"))
        yield Conv(after, after, norm=norm, activation="relu")
    yield reflected(one, 3, 7)


def _cyclegan(width: int, num_blocks: int, norm: SampleNormName) -> Iterator[nn.Module]:
    """CycleGAN's generator (Zhu et al., ICCV 2017), with 9 blocks; it resizes and convolves in place of transposing."""
    one, two, four = width, 2 * width, 4 * width
    yield Conv(3, one, 7, norm=norm, activation="relu")
    yield Conv(one, two, stride=2, norm=norm, activation="relu")
    yield Conv(two, four, stride=2, norm=norm, activation="relu")
    yield from (Residual(four, norm=norm) for _ in range(num_blocks))
    yield Up(Conv(four, two, norm=norm, activation="relu"))
    yield Up(Conv(two, one, norm=norm, activation="relu"))
    yield reflected(one, 3, 7, bias=True)


LAYOUTS: dict[Layout, Callable[[int, int, SampleNormName], Iterator[nn.Module]]] = {
    "lwcomicgan": _lwcomicgan,
    "animegan": _animegan,
    "animeganv2": _animeganv2,
    "cartoongan": _cartoongan,
    "cyclegan": _cyclegan,
}
