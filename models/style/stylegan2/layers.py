"""Layers of StyleGAN2 (Karras et al., CVPR 2020): weights scaled as they are used, and resampling with [1, 3, 3, 1].

A weight is drawn with deviation 1 and multiplied by 1 / sqrt(its inputs) at run time, so that every layer learns at the
same speed (Karras et al., ICLR 2018, section 4.1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
GAIN = math.sqrt(2)
"""After each leaky ReLU, which halves the variance."""
TAPS = (1.0, 3.0, 3.0, 1.0)
EPSILON = 1e-8
SMALL_PIXELS = 32 * 32
"""Up to so many pixels of its input, a transposed convolution is slower than the plain ones that equal it."""


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU times `GAIN`."""
    return F.leaky_relu(x, LEAK) * GAIN


def blur_kernel(gain: float = 1.0) -> Tensor:
    """The outer product of [1, 3, 3, 1] with itself, sum ``gain``; (4, 4)."""
    taps = torch.tensor(TAPS)
    return torch.outer(taps, taps) * (gain / 64)


def doubling(x: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution of stride 2 by a 3x3 kernel: each pixel adds its kernel at twice its place.

    On CPUs, small maps without gradients are computed as four plain convolutions, one for each place in a 2x2 block.

    Args:
        x: (B, in, H, W).
        weight: (out, in, 3, 3).

    Returns:
        (B, out, 2H + 1, 2W + 1).
    """
    is_small = x.shape[2] * x.shape[3] <= SMALL_PIXELS and x.device.type == "cpu"
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not is_small:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    order = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    shape = x.shape[0], weight.shape[0], 2 * x.shape[2] + 1, 2 * x.shape[3] + 1
    made = torch.empty(shape, dtype=weight.dtype, device=x.device, memory_format=order)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # an even line sees two lines of the kernel, an odd one one
        taps = weight[:, :, row::2, column::2].flip(2, 3).contiguous(memory_format=order)
        made[:, :, row::2, column::2] = F.conv2d(x, taps, padding=(1 - row, 1 - column))
    return made


class PixelNorm(nn.Module):
    """Each code divided by the root of its mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> same."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON)


class EqualLinear(nn.Module):
    """A linear layer with run-time scaling, and a leaky ReLU where asked for."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: float = 0.0, lr: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr)
        self.bias = nn.Parameter(torch.full((out_features,), bias))
        self.scale, self.lr, self.activate = lr / math.sqrt(in_features), lr, activate

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        bias = self.bias if self.lr == 1 else self.bias * self.lr
        out = F.linear(x, self.weight if self.scale == 1 else self.weight * self.scale, bias)
        return leaky(out) if self.activate else out


class EqualConv(nn.Module):
    """A convolution with run-time scaling and without a bias; it keeps the size, over its stride."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.stride, self.padding = stride, kernel_size // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W); with a stride, nothing is added beyond the border."""
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class BiasedLeaky(nn.Module):
    """A bias a channel, leaky ReLU, `GAIN`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        return leaky(x + self.bias[:, None, None].to(x.dtype))


class Blur(nn.Module):
    """Each channel convolved with [1, 3, 3, 1] both ways, with zeros beyond the border; its kernel is no state."""

    def __init__(self, *, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(gain), persistent=False)
        self.kernel: Tensor
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, (H + 2 padding - 4) / stride + 1, ...), plus a bias a channel (C,)."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        shift = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight, shift, stride=self.stride, padding=self.padding, groups=channels)


class Upsample(nn.Module):
    """Twice the size: zeros between the pixels, then [1, 3, 3, 1] both ways. For the few channels of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(4.0), persistent=False)
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        batch, channels, height, width = x.shape
        planes = x.reshape(-1, 1, height, width)
        made = F.conv_transpose2d(planes, self.kernel.to(x.dtype)[None, None], stride=2, padding=1)
        return made.reshape(batch, channels, 2 * height, 2 * width)
