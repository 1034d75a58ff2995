"""The hourglass: an encoder and a decoder of equal depth, joined by skip connections (Newell et al., ECCV 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers.blocks import DownBlock, UpBlock


class HourglassEncoder(nn.Module):
    """Halves the size ``num_blocks`` times."""

    def __init__(
        self,
        in_channels: int,
        *,
        expansion: int,
        num_blocks: int,
        max_features: int,
        attention: str = "none",
        residual: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels, *(min(max_features, expansion * 2 ** (i + 1)) for i in range(num_blocks))]
        own = attention if attention == "channel" else "none"  # scSE belongs to decoders
        self.down_blocks = nn.ModuleList(
            DownBlock(before, after, residual=residual, attention=own)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out_channels = widths[-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> all levels, the input first, each half the one before."""
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class HourglassDecoder(nn.Module):
    """Doubles the size ``num_blocks`` times, and beside each result lays the encoder's level of that size."""

    def __init__(
        self,
        in_channels: int,
        *,
        expansion: int,
        num_blocks: int,
        max_features: int,
        attention: str = "none",
        residual: bool = False,
    ) -> None:
        super().__init__()
        blocks = []
        for i in reversed(range(num_blocks)):
            deeper = min(max_features, expansion * 2 ** (i + 1))
            joined = deeper if i == num_blocks - 1 else 2 * deeper
            blocks.append(UpBlock(joined, min(max_features, expansion * 2**i), residual=residual, attention=attention))
        self.up_blocks = nn.ModuleList(blocks)
        self.out_channels = expansion + in_channels

    def forward(self, levels: list[Tensor]) -> Tensor:
        """The encoder's levels -> (B, expansion + in, H, W)."""
        out = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            raised: Tensor = block(out)
            out = torch.cat([raised, skip.to(raised.dtype)], dim=1)
        return out


class Hourglass(nn.Module):
    """Encoder and decoder; the input itself is the last part of the output."""

    def __init__(
        self,
        in_channels: int,
        *,
        expansion: int,
        num_blocks: int,
        max_features: int,
        attention: str = "none",
        residual: bool = False,
    ) -> None:
        """Build both halves.

        Args:
            in_channels: of the input.
            expansion: width of the first stage is twice this; it doubles with every stage.
            num_blocks: stages of each half.
            max_features: the widest a stage gets.
            attention: ``none``, ``channel`` (behind every stage) or ``scse`` (behind every stage of the decoder).
            residual: a residual block in every stage.
        """
        super().__init__()
        shape: dict[str, Any] = {"expansion": expansion, "num_blocks": num_blocks, "max_features": max_features}
        shape |= {"attention": attention, "residual": residual}
        self.encoder = HourglassEncoder(in_channels, **shape)
        self.decoder = HourglassDecoder(in_channels, **shape)
        self.out_channels = self.decoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out_channels, H, W); H and W must be multiples of 2 to ``num_blocks``."""
        out: Tensor = self.decoder(self.encoder(x))
        return out
