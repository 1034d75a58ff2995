"""What can be set about the networks that turn photos into drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import check
from models.layers.names import SampleNormName

Layout = Literal["lwcomicgan", "animegan", "animeganv2", "cartoongan", "cyclegan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleConfig:
    """A generator and its critic."""

    size_px: int = 256
    """Height and width in training; the generator takes any size."""
    layout: Layout = "lwcomicgan"
    """Which sequence of blocks the generator is (`models.style.generator`)."""
    width: int = 64
    """Channels at full size; everything else is a multiple of it."""
    num_blocks: int = 4
    """Residual blocks at a quarter of the size."""
    norm: SampleNormName = "lin"
    critic_width: int = 64
    """Channels of the critic's first halving; 1, 2 and 4 times as many follow."""
    critic_spectral: bool = True
    critic_instance: bool = False
    """Instance normalisation in the critic besides."""

    def __post_init__(self) -> None:
        check(
            (self.size_px >= 32, "size_px", self.size_px, "be 32 or more"),
            (self.width >= 8 and self.width % 2 == 0, "width", self.width, "be even, and 8 or more"),
            (self.num_blocks >= 0, "num_blocks", self.num_blocks, "be 0 or more"),
            (self.critic_width >= 2, "critic_width", self.critic_width, "be 2 or more"),
            (self.critic_width % 2 == 0, "critic_width", self.critic_width, "be even"),
        )
