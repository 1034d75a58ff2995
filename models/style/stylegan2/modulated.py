"""Convolutions whose weights a style scales, and what a generator is made of (Karras et al., CVPR 2020, section 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import full_precision, wide
from models.style.stylegan2.layers import EPSILON, GAIN, LEAK, Blur, EqualLinear, Upsample, doubling


class ModulatedConv(nn.Module):
    """y = d * conv(s * x), equal to a convolution with demodulated weights of each sample's own (equations 1, 3).

    The style scales what goes in, and 1 / (deviation of the scaled weights) what comes out: all samples share one
    kernel, whatever their number, on any device and in an ONNX graph.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, in_channels, bias=1.0)
        self.blur = Blur(padding=1, gain=4.0) if up else None
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.demodulate, self.padding = demodulate, kernel_size // 2
        self.register_buffer("squares", None, persistent=False)
        self.squares: Tensor | None

    @torch.no_grad()
    def keep_squares(self) -> None:
        """Compute once what demodulation needs of the weights. They must not change from here on."""
        self.squares = wide(self.weight.detach()).square().sum((2, 3))

    def scales(self, style: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the style (B, D) multiplies: the input by (B, in), and the output by (B, out) where it demodulates."""
        with full_precision(style):
            into = self.modulation(wide(style)) * self.scale
            if not self.demodulate:
                return into, None
            squares = self.weight.square().sum((2, 3)) if self.squares is None else self.squares
            return into, torch.rsqrt(F.linear(into.square(), squares) + EPSILON)

    def convolve(self, x: Tensor, into: Tensor) -> Tensor:
        """The convolution of the scaled input, to twice the size where asked for; not demodulated.

        Args:
            x: (B, in, H, W).
            into: (B, in).

        Returns:
            (B, out, H, W), or (B, out, 2H, 2W).
        """
        x = x * into.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            return F.conv2d(x, self.weight, padding=self.padding)
        wider: Tensor = self.blur(doubling(x, self.weight))
        return wider

    def convolve_one(self, x: Tensor, into: Tensor, out: Tensor, bias: Tensor) -> Tensor:
        """The same for a single sample, by weights of its own: scales and bias then cost no passes over the features.

        Args:
            x: (1, in, H, W).
            into: (1, in).
            out: (1, out).
            bias: added to the demodulated result, (out,).

        Returns:
            (1, out, H, W), or (1, out, 2H, 2W).
        """
        own = self.weight * (out[0, :, None, None, None] * into[0, :, None, None])
        if self.blur is None:
            return F.conv2d(x, own.to(x.dtype), bias.to(x.dtype), padding=self.padding)
        wider: Tensor = self.blur(doubling(x, own.to(x.dtype)), bias)
        return wider

    def is_cheaper_alone(self, x: Tensor) -> bool:
        """Whether `convolve_one` may be used, without gradients, and passes over fewer numbers than `convolve`."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.shape[0] != 1:
            return False
        out_channels, in_channels = self.weight.shape[:2]
        grown = 1 if self.blur is None else 4
        return x.shape[2] * x.shape[3] * (in_channels + grown * out_channels) > self.weight.numel()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B, in, H, W).
            style: (B, D).

        Returns:
            (B, out, H, W), or (B, out, 2H, 2W).
        """
        into, out = self.scales(style)
        made = self.convolve(x, into)
        return made if out is None else made * out.to(made.dtype)[:, :, None, None]


class NoiseStrength(nn.Module):
    """How much noise is added: one number a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class ChannelBias(nn.Module):
    """A bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(in_channels, out_channels, 3, style_dim, up=up)
        self.noise = NoiseStrength()
        self.activate = ChannelBias(out_channels)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Convolve and activate.

        Args:
            x: (B, in, H, W).
            style: (B, D).
            noise: (B or 1, 1, H', W'), of the result's size.

        Returns:
            (B, out, H', W'), which is (H, W) or twice that.
        """
        into, out = self.conv.scales(style)
        assert out is not None, "styled convolutions demodulate"
        # The leaky ReLU's gain goes in front of it, where it costs nothing: it is linear in positive factors.
        out, bias, grain = out * GAIN, self.activate.bias * GAIN, noise * (self.noise.weight * GAIN)
        if self.conv.is_cheaper_alone(x):
            made = self.conv.convolve_one(x, into, out, bias)
        else:
            made = self.conv.convolve(x, into)
            gain, shift = (part.to(made.dtype) for part in (out[:, :, None, None], bias[:, None, None]))
            made = torch.addcmul(shift, made, gain)
        return F.leaky_relu_(made.add_(grain.to(made.dtype)), LEAK)


class ToRGB(nn.Module):
    """Features to colours, by a 1x1 convolution without demodulation, added to the smaller picture so far."""

    def __init__(self, in_channels: int, style_dim: int, *, up: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Upsample() if up else None

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        """Add this size's colours.

        Args:
            x: (B, in, H, W).
            style: (B, D).
            below: the picture so far, about in [-1, 1], (B, 3, H / 2, W / 2); None at the smallest size.

        Returns:
            (B, 3, H, W), in at least 32 bits.
        """
        into, _ = self.conv.scales(style)
        # Scaling three rows of weights is cheaper than scaling all features.
        weight = self.conv.weight.flatten(1) * into[:, None, :]
        made = torch.matmul(weight.to(x.dtype), x.flatten(2)).reshape(-1, 3, *x.shape[2:])
        made = wide(made) + self.bias
        return made if below is None or self.upsample is None else made + self.upsample(below)
