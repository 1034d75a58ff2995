"""Builds the networks of StyleGAN2."""

from __future__ import annotations

from torch import nn

from models.style.face_config import FaceConfig
from models.style.stylegan2.discriminator import Discriminator
from models.style.stylegan2.generator import Generator


def build_gan(config: FaceConfig) -> dict[str, nn.Module]:
    """Fresh networks: ``generator`` and ``discriminator``."""
    return {"generator": Generator(config), "discriminator": Discriminator(config)}


def debug_config() -> FaceConfig:
    """As small as it goes: for tests."""
    return FaceConfig(
        size_px=32,
        style_dim=16,
        mapping_layers=2,
        max_channels=8,
        structure_layers=3,
        encoder_px=32,
        encoder_width=4,
        encoder_units=(1, 1, 1, 1),
    )
