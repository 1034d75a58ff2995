"""Convolution blocks shared by the networks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attention as attention_block
from models.layers.norms import BatchNorm2d

ENOUGH_PIXELS = 1024
"""Pixels of a map from which a transposed convolution pays for the making of its kernel."""


class SameBlock(nn.Module):
    """Convolution, batch normalisation, ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _Stage(SameBlock):
    """A `SameBlock` with what an option lays behind it: a residual block, an attention block."""

    def __init__(self, in_channels: int, out_channels: int, *, residual: bool = False, attention: str = "none") -> None:
        super().__init__(in_channels, out_channels)
        self.residual = ResidualBlock(out_channels) if residual else None
        self.attention = attention_block(attention, out_channels)

    def refine(self, x: Tensor) -> Tensor:
        """The residual block, where there is one."""
        return x if self.residual is None else self.residual(x)

    def attend(self, x: Tensor) -> Tensor:
        """The attention block, where there is one."""
        return x if self.attention is None else self.attention(x)


class DownBlock(_Stage):
    """Convolution, batch normalisation, ReLU, halved by averaging."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H/2, W/2)."""
        return self.attend(F.avg_pool2d(self.refine(super().forward(x)), 2))


class UpBlock(_Stage):
    """Doubled by repetition (or bilinearly), convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        residual: bool = False,
        attention: str = "none",
        mode: Literal["nearest", "bilinear"] = "nearest",
    ) -> None:
        super().__init__(in_channels, out_channels, residual=residual, attention=attention)
        self.mode = mode
        self.doubling: nn.ConvTranspose2d | None = None
        """What doubles and convolves at once, where it has been made for inference (`models.fold`)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W)."""
        return self.attend(self.refine(F.relu(self.norm(self._raised(x)), inplace=True)))

    def _raised(self, x: Tensor) -> Tensor:
        """Doubled and convolved."""
        if self.doubling is not None:
            raised: Tensor = self.doubling(x)
        elif self.mode == "nearest" and _is_cheaper_transposed(x):
            kernel = doubling_kernel(self.conv.weight)
            raised = F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)
        else:
            aligned = None if self.mode == "nearest" else False
            raised = self.conv(F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=aligned))
        return raised


def doubling_kernel(weight: Tensor) -> Tensor:
    """Kernel of the transposed convolution that equals doubling by repetition, then a 3x3 convolution.

    Stride 2, padding 1. Each of the 16 weights is a sum of up to four of the nine, whose pixels are equal: 16
    multiplications a pixel instead of 36.

    Args:
        weight: of the 3x3 convolution, (out, in, 3, 3).

    Returns:
        (in, out, 4, 4).
    """
    wide_kernel = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    across = wide_kernel[..., :-1] + wide_kernel[..., 1:]
    return across[..., :-1, :] + across[..., 1:, :]


def _is_cheaper_transposed(x: Tensor) -> bool:
    """On CPUs, on large maps; a graph that is traced for elsewhere keeps the plain operations."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return x.shape[2] * x.shape[3] >= ENOUGH_PIXELS


class NarrowConv2d(nn.Conv2d):
    """A square convolution to few channels, the size kept; the same numbers and entries as ``nn.Conv2d``.

    On CPUs three output channels leave most of each vector unused. There every row of the kernel is convolved by
    itself, all rows at once as channels of one result, which are then moved and added.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        if torch.compiler.is_compiling() or input.device.type != "cpu":
            return super().forward(input)
        size, reach, height = self.kernel_size[0], self.kernel_size[0] // 2, input.shape[-2]
        rows = self.weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)
        lines = F.pad(F.conv2d(input, rows, padding=(0, reach)), (0, 0, reach, reach))
        parts = [line[:, :, i : i + height] for i, line in enumerate(lines.chunk(size, dim=1))]
        total = parts[0] if self.bias is None else parts[0] + self.bias[:, None, None]
        for part in parts[1:]:
            total = total + part
        return total


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, added to the input (He et al., ECCV 2016)."""

    def __init__(self, channels: int, *, dilation: int = 1, attention: str = "none") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm1 = BatchNorm2d(channels)
        self.norm2 = BatchNorm2d(channels)
        self.attention = attention_block(attention, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        inner: Tensor = self.conv1(F.relu(self.norm1(x), inplace=True))
        outer: Tensor = self.conv2(F.relu(self.norm2(inner), inplace=True))
        return x + (outer if self.attention is None else self.attention(outer))
