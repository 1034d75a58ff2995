"""What can be set about the networks of DualStyleGAN: StyleGAN2, its pSp encoder, and the extrinsic style path."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.errors import check


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceConfig:
    """One description for all of them, so that what is trained in one stage fits into the next.

    The defaults are the published networks at 256 px; ``size_px: 1024`` gives those of the papers.
    """

    size_px: int = 256
    """Height and width of the generated face: a power of two."""
    style_dim: int = 512
    """Length of a style code."""
    mapping_layers: int = 8
    mapping_lr: float = 0.01
    """Learning rate of the mapping network, as a factor of the generator's."""
    channel_multiplier: float = 2.0
    """Of the channels at 64 px and above."""
    max_channels: int = 512
    """No layer is wider, at any resolution."""
    structure_layers: int = 7
    """Layers of the extrinsic path that change structure, by modulative residual blocks; those above change colour."""
    encoder_px: int = 256
    """Height and width of what the encoder sees: the face is scaled to it."""
    encoder_width: int = 64
    """Channels of the encoder's first stage; the stages above have 2, 4 and 8 times as many."""
    encoder_units: tuple[int, ...] = (3, 4, 14, 3)
    """Residual units of the encoder's four stages (IR-SE50)."""

    def __post_init__(self) -> None:
        powers = (self.size_px, self.encoder_px)
        rule = "be a power of two in 32 to 1024"
        check(
            *(
                (32 <= px <= 1024 and math.log2(px).is_integer(), key, px, rule)
                for key, px in zip(("size_px", "encoder_px"), powers, strict=True)
            ),
            (self.style_dim >= 8, "style_dim", self.style_dim, "be 8 or more"),
            (self.mapping_layers >= 2, "mapping_layers", self.mapping_layers, "be 2 or more"),
            (self.mapping_lr > 0, "mapping_lr", self.mapping_lr, "be above 0"),
            (self.channel_multiplier > 0, "channel_multiplier", self.channel_multiplier, "be above 0"),
            (self.max_channels >= 8, "max_channels", self.max_channels, "be 8 or more"),
            (
                self.structure_layers % 2 == 1 and 1 <= self.structure_layers < self.num_styles,
                "structure_layers",
                self.structure_layers,
                f"be odd, and below the number of styles ({self.num_styles})",
            ),
            (self.encoder_width >= 4, "encoder_width", self.encoder_width, "be 4 or more"),
            (
                len(self.encoder_units) == 4 and min(self.encoder_units) >= 1,
                "encoder_units",
                self.encoder_units,
                "be four counts of 1 or more",
            ),
        )

    @property
    def num_styles(self) -> int:
        """Style codes of one picture: 18 at 1024 px, 14 at 256."""
        return 2 * int(math.log2(self.size_px)) - 2

    def channels(self, px: int) -> int:
        """Channels of the generator's and the discriminator's layers at ``px``: 512 up to 32, then halving."""
        wide = 512 if px <= 32 else int(512 * 32 / px * self.channel_multiplier)
        return min(wide, self.max_channels)
