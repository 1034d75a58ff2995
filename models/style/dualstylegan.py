"""DualStyleGAN: StyleGAN2 with a second, extrinsic path of styles (Yang et al., CVPR 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.precision import full_precision, wide
from models.style.face_config import FaceConfig
from models.style.psp import Space
from models.style.stylegan2.generator import Generator
from models.style.stylegan2.layers import GAIN, LEAK, BiasedLeaky, EqualConv, EqualLinear, PixelNorm

NEAR_ZERO = 0.01
"""Of what is drawn for the extrinsic path's weights, so that at first it changes next to nothing (section 3.2)."""
STRUCTURE_DEPTH = 2
"""Linear layers of T_s."""


class AdaptiveNorm(nn.Module):
    """Instance normalisation, whose scale and shift a style says (Huang and Belongie, ICCV 2017, equation 8)."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.style = nn.Linear(style_dim, 2 * channels)
        with torch.no_grad():
            self.style.bias[:channels] = 1
            self.style.bias[channels:] = 0

    def forward(self, x: Tensor, style: Tensor, gain: float = 1.0) -> Tensor:
        """(B, C, h, w) and (B, D) -> (B, C, h, w), times ``gain``, which costs nothing here."""
        gamma, beta = (self.style(style) * gain)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(beta, gamma, F.instance_norm(x))


class ModRes(nn.Module):
    """What a style adds to features, in their own channels: two convolutions, each behind an adaptive normalisation."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.conv, self.conv2 = _small_conv(channels), _small_conv(channels)
        self.norm, self.norm2 = AdaptiveNorm(channels, style_dim), AdaptiveNorm(channels, style_dim)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, h, w) and (B, D) -> what is to be added, (B, C, h, w)."""
        for conv, norm in ((self.conv, self.norm), (self.conv2, self.norm2)):
            x = _convolved(conv, norm, x, style)
        return x


class DualStyleGenerator(nn.Module):
    """The face that intrinsic codes say, in the manner that extrinsic codes say.

    S is `FaceConfig.num_styles`, D the length of a code. The extrinsic path has S parts, ``residuals``: behind the
    first `FaceConfig.structure_layers` styled convolutions a modulative residual block each, which changes structure;
    for the layers above, and for the last colours, a linear layer (T_c) each, which blends the layer's style.
    ``style`` is T_s, through which the residual blocks see the extrinsic styles.
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.config, dim = config, config.style_dim
        self.style = nn.Sequential(
            PixelNorm(),
            *(EqualLinear(dim, dim, lr=config.mapping_lr, activate=True) for _ in range(STRUCTURE_DEPTH)),
        )
        self.generator = Generator(config)
        sizes = [2 ** ((layer + 5) // 2) for layer in range(config.structure_layers)]
        blocks = [ModRes(config.channels(px), dim) for px in sizes]
        colours = [_near_identity(dim) for _ in range(config.structure_layers, config.num_styles)]
        self.residuals = nn.ModuleList([*blocks, *colours])

    def forward(
        self,
        intrinsic: Tensor,
        extrinsic: Tensor,
        weights: Tensor,
        *,
        psi: float = 1.0,
        noise: Sequence[Tensor] | None = None,
        intrinsic_space: Space = "z+",
        extrinsic_space: Space = "z+",
        fuse_layers: int | None = None,
    ) -> Tensor:
        """Make pictures.

        Args:
            intrinsic: codes of the faces, (B, S, D), or (B, D), the same for every layer.
            extrinsic: codes of the manners, likewise; those of a single one serve the whole batch.
            weights: of the extrinsic path, a layer: 0 leaves the layer as intrinsic, 1 takes it over wholly; (S,) or
                (B, S). See `default_weights`.
            psi: pulls the intrinsic styles towards ``generator.mean_style``, which 0 gives and 1 does not; 0.75 is the
                published choice. There the styles are pulled towards 0, and so they are here while no mean is set: the
                files of the published generator hold none. Extrinsic styles are never pulled.
            noise: as in `models.style.stylegan2.generator.Generator.synthesis`.
            intrinsic_space: what the intrinsic codes are: ``w+`` are styles, behind the mapping network.
            extrinsic_space: likewise.
            fuse_layers: the extrinsic path acts on so many layers, from the coarsest on; None: on all.

        Returns:
            About in [0, 1], not clamped, (B, 3, size_px, size_px).

        Raises:
            ShapeError: codes or weights do not fit the network or each other.
        """
        inner = self.generator.truncate(self.styles(intrinsic, intrinsic_space), psi)
        outer = self.styles(extrinsic, extrinsic_space)
        if outer.shape[0] not in (1, inner.shape[0]):
            got = f"{outer.shape[0]} to {inner.shape[0]} faces"
            raise ShapeError(must("the extrinsic codes", "be of one manner, or of one for each face", got))
        shares = self._shares(weights, inner)
        active = self.config.num_styles if fuse_layers is None else fuse_layers
        return self.fused(inner, outer.expand_as(inner), shares, noise=noise, active=active)

    def styles(self, codes: Tensor, space: Space = "z+") -> Tensor:
        """Codes (B, S, D) or (B, D) of a space as styles (B, S, D), in W+.

        Raises:
            ShapeError: they are not of this network's number or length.
        """
        num, dim = self.config.num_styles, self.config.style_dim
        if codes.ndim not in (2, 3) or codes.shape[-1] != dim or (codes.ndim == 3 and codes.shape[1] != num):
            rule = f"be (B, {num}, {dim}) or (B, {dim})"
            raise ShapeError(must("the codes", rule, tuple(codes.shape), "Use codes made for this size"))
        return self.generator.spread(codes if space == "w+" else self.generator.mapping(codes))

    def fused(
        self, inner: Tensor, outer: Tensor, weights: Tensor, *, noise: Sequence[Tensor] | None, active: int
    ) -> Tensor:
        """Styles of both paths to pictures.

        Args:
            inner: intrinsic styles, (B, S, D).
            outer: extrinsic styles, (B, S, D).
            weights: (B, S).
            noise: as in ``forward``.
            active: number of layers on which the extrinsic path acts.

        Returns:
            As ``forward``.
        """
        structure = min(self.config.structure_layers, active)
        with full_precision(outer):
            seen = self.style(wide(outer[:, :structure]))
            blended = self._blended(wide(inner), wide(outer), wide(weights), active)

        def after(layer: int, x: Tensor) -> Tensor:
            if layer >= structure:
                return x
            share = weights[:, layer, None, None, None].to(x.dtype)
            return torch.addcmul(x, share, self.residuals[layer](x, seen[:, layer]))

        return self.generator.synthesis(blended, noise, after=after)

    def _blended(self, inner: Tensor, outer: Tensor, weights: Tensor, active: int) -> Tensor:
        """The styles of all layers, where colours are blended: w T_c(extrinsic) + (1 - w) intrinsic."""
        first = self.config.structure_layers
        if active <= first:
            return inner
        taken = torch.stack([self.residuals[layer](outer[:, layer]) for layer in range(first, active)], 1)
        share = weights[:, first:active, None]
        colours = share * taken + (1 - share) * inner[:, first:active]
        return torch.cat([inner[:, :first], colours, inner[:, active:]], 1)

    def _shares(self, weights: Tensor, styles: Tensor) -> Tensor:
        """Weights (B, S), where the styles (B, S, D) are."""
        batch, num, _ = styles.shape
        if tuple(weights.shape) not in ((num,), (1, num), (batch, num)):
            rule = f"be ({num},), or ({batch}, {num}) for {batch} faces"
            raise ShapeError(must("the weights", rule, tuple(weights.shape), "Give one for each layer"))
        return weights.to(styles.device).expand(batch, num)


def default_weights(config: FaceConfig, structure: float = 0.75, colour: float = 1.0) -> Tensor:
    """Weights of the extrinsic path, (S,), as published: 0.75 of the structure, and the colours wholly."""
    num_colours = config.num_styles - config.structure_layers
    return torch.tensor([structure] * config.structure_layers + [colour] * num_colours)


def modulative_blocks(network: DualStyleGenerator) -> Iterator[ModRes]:
    """The blocks that change structure, from the coarsest."""
    for part in network.residuals:
        if isinstance(part, ModRes):
            yield part


def _small_conv(channels: int) -> nn.Sequential:
    conv = EqualConv(channels, channels, 3)
    with torch.no_grad():
        conv.weight.mul_(NEAR_ZERO)
    return nn.Sequential(conv, BiasedLeaky(channels))


def _convolved(conv: nn.Sequential, norm: AdaptiveNorm, x: Tensor, style: Tensor) -> Tensor:
    """Normalise, convolve, bias, leaky ReLU; the factors of the two last are taken where they cost least."""
    equal, biased = cast(EqualConv, conv[0]), cast(BiasedLeaky, conv[1])
    level = norm(x, style, equal.scale * GAIN)
    return F.leaky_relu_(F.conv2d(level, equal.weight, biased.bias * GAIN, padding=equal.padding), LEAK)


def _near_identity(dim: int) -> EqualLinear:
    """T_c as it starts: the extrinsic style as it is."""
    linear = EqualLinear(dim, dim)
    with torch.no_grad():
        linear.weight.mul_(NEAR_ZERO).add_(torch.eye(dim, device=linear.weight.device) * math.sqrt(dim))
    return linear
