"""The generator of StyleGAN2 (Karras et al., CVPR 2020): codes to pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.precision import full_precision, wide
from models.style.face_config import FaceConfig
from models.style.stylegan2.layers import EqualLinear, PixelNorm
from models.style.stylegan2.modulated import StyledConv, ToRGB

FIRST_PX = 4
"""Height and width of the learned constant."""
CODES_AT_ONCE = 4096

After = Callable[[int, Tensor], Tensor]
"""Number of a styled convolution, from 0, and its features (B, C, h, w) -> the features to go on with."""


class Constant(nn.Module):
    """The learned input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, FIRST_PX, FIRST_PX))

    def forward(self, batch: int) -> Tensor:
        """(batch, C, 4, 4)."""
        return self.input.expand(batch, -1, -1, -1)


class Generator(nn.Module):
    """Codes in, pictures out. S is `FaceConfig.num_styles`, D the length of a code.

    Names of the entries are those of the published state dicts.
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.config, dim = config, config.style_dim
        linear = {"lr": config.mapping_lr, "activate": True}
        self.style = nn.Sequential(
            PixelNorm(),
            *(EqualLinear(dim, dim, **linear) for _ in range(config.mapping_layers)),  # type: ignore[arg-type]
        )
        width = config.channels(FIRST_PX)
        self.input = Constant(width)
        self.conv1 = StyledConv(width, width, dim)
        self.to_rgb1 = ToRGB(width, dim, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for px in (2**power for power in range(3, int(math.log2(config.size_px)) + 1)):
            before, width = width, config.channels(px)
            self.convs.extend((StyledConv(before, width, dim, up=True), StyledConv(width, width, dim)))
            self.to_rgbs.append(ToRGB(width, dim))
        self.noises = nn.Module()
        for number, px in enumerate(noise_sizes(config)):
            self.noises.register_buffer(f"noise_{number}", torch.randn(1, 1, px, px))
        self.register_buffer("mean_style", torch.zeros(dim))
        self.mean_style: Tensor

    def mapping(self, z: Tensor) -> Tensor:
        """Codes of the normal distribution to styles.

        Args:
            z: (B, D), or (B, S, D), each by itself.

        Returns:
            Of the same shape, in at least 32 bits.
        """
        with full_precision(z):
            styles: Tensor = self.style(wide(z))
        return styles

    def truncate(self, styles: Tensor, psi: float) -> Tensor:
        """Pull styles (..., D) towards `mean_style`: 1 leaves them, 0 gives the mean (appendix A)."""
        return styles if psi == 1 else torch.lerp(self.mean_style, styles, psi)

    @torch.no_grad()
    def set_mean_style(self, num: int, draw: torch.Generator) -> None:
        """Take the mean over ``num`` random codes, drawn by ``draw``, as `mean_style`."""
        total = torch.zeros_like(self.mean_style)
        for start in range(0, num, CODES_AT_ONCE):
            z = torch.randn(min(CODES_AT_ONCE, num - start), self.config.style_dim, generator=draw, device=draw.device)
            total += self.mapping(z.to(total.device)).sum(0)
        self.mean_style.copy_(total / num)

    def fixed_noise(self) -> list[Tensor]:
        """The noise that belongs to the network, for each of the S - 1 styled convolutions (1, 1, h, w)."""
        return list(self.noises.buffers())

    def make_noise(self, batch: int, draw: torch.Generator, device: torch.device | str = "cpu") -> list[Tensor]:
        """Fresh noise of each styled convolution, (batch, 1, h, w), drawn by ``draw``."""
        sizes = noise_sizes(self.config)
        return [torch.randn(batch, 1, px, px, generator=draw, device=draw.device).to(device) for px in sizes]

    def synthesis(self, styles: Tensor, noise: Sequence[Tensor] | None = None, *, after: After | None = None) -> Tensor:
        """Styles to pictures.

        Args:
            styles: (B, S, D).
            noise: of each of the S - 1 styled convolutions, (B or 1, 1, h, w); None: `fixed_noise`.
            after: what changes the features behind each styled convolution; None: nothing.

        Returns:
            About in [0, 1], not clamped, (B, 3, H, W), in at least 32 bits.

        Raises:
            ShapeError: styles or noise are not of this network's number or size.
        """
        grains = self.fixed_noise() if noise is None else list(noise)
        self._check(styles, grains)
        keep = after if after is not None else _unchanged
        x = keep(0, self.conv1(self.input(styles.shape[0]), styles[:, 0], grains[0]))
        picture = self.to_rgb1(x, styles[:, 1])
        for number, to_rgb in enumerate(self.to_rgbs):
            for i in (2 * number + 1, 2 * number + 2):
                x = keep(i, self.convs[i - 1](x, styles[:, i], grains[i]))
            picture = to_rgb(x, styles[:, 2 * number + 3], picture)
        made: Tensor = picture * 0.5 + 0.5
        return made

    def forward(self, z: Tensor, psi: float = 1.0, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Codes to pictures.

        Args:
            z: of the normal distribution, (B, D), or (B, S, D).
            psi: how far from the mean style, see `truncate`.
            noise: as in `synthesis`.

        Returns:
            About in [0, 1], (B, 3, H, W).
        """
        return self.synthesis(self.spread(self.truncate(self.mapping(z), psi)), noise)

    def spread(self, style: Tensor) -> Tensor:
        """(B, D) -> (B, S, D), the same for every layer; (B, S, D) stays."""
        return style[:, None].expand(-1, self.config.num_styles, -1) if style.ndim == 2 else style

    def _check(self, styles: Tensor, noise: Sequence[Tensor]) -> None:
        wanted = (self.config.num_styles, self.config.style_dim)
        if styles.ndim != 3 or tuple(styles.shape[1:]) != wanted:
            rule = f"be (B, {wanted[0]}, {wanted[1]}) for {self.config.size_px} px"
            raise ShapeError(must("the styles", rule, tuple(styles.shape), "Use codes made for this size"))
        sizes = noise_sizes(self.config)
        shapes = [tuple(each.shape[-2:]) for each in noise]
        if shapes != [(px, px) for px in sizes]:
            rule = f"have one plane for each of the {len(sizes)} styled convolutions, of {sizes} px"
            raise ShapeError(must("the noise", rule, shapes, "Draw it with make_noise"))


def noise_sizes(config: FaceConfig) -> list[int]:
    """Height and width of each styled convolution's result: 4, 8, 8, 16, 16, ..."""
    return [2 ** ((number + 5) // 2) for number in range(config.num_styles - 1)]


def mixed(first: Tensor, second: Tensor, layer: int | Tensor) -> Tensor:
    """Style mixing (Karras et al., CVPR 2019, section 3.1): the one's codes below a layer, the other's from it on.

    Args:
        first: (B, S, D).
        second: (B, S, D).
        layer: where they change, 0 (all of the second) to S (all of the first); or one a sample, (B,).

    Returns:
        (B, S, D).
    """
    number = torch.arange(first.shape[1], device=first.device)
    change = torch.as_tensor(layer, device=first.device).reshape(-1, 1)
    return torch.where((number < change)[..., None], first, second)


def styled_convs(generator: Generator) -> Iterator[StyledConv]:
    """All of them, in the order of their numbers."""
    for module in (generator.conv1, *generator.convs):
        assert isinstance(module, StyledConv), "nothing else stands among them"
        yield module


def _unchanged(_number: int, features: Tensor) -> Tensor:
    return features
