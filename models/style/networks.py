"""Builds the networks of the style family."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from models.style.config import StyleConfig
from models.style.critic import StyleCritic
from models.style.generator import StyleGenerator


def build(config: StyleConfig) -> dict[str, nn.Module]:
    """Fresh networks: ``generator`` and ``critic``; for CycleGAN also ``generator_back`` and ``critic_back``."""
    networks: dict[str, nn.Module] = {"generator": StyleGenerator(config), "critic": StyleCritic(config)}
    if config.layout == "cyclegan":
        networks |= {"generator_back": StyleGenerator(config), "critic_back": StyleCritic(config)}
    return networks


def debug_config(config: StyleConfig | None = None) -> StyleConfig:
    """The same layout, as small as it goes: for tests."""
    return replace(config or StyleConfig(), size_px=32, width=8, num_blocks=1, critic_width=4)
