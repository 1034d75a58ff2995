"""Builds the networks of DualStyleGAN's three stages."""

from __future__ import annotations

from torch import nn

from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from models.style.stylegan2.build import build_gan
from models.style.stylegan2.discriminator import Discriminator
from models.style.stylegan2.generator import Generator

__all__ = ["build_dualstyle", "build_encoder", "build_gan"]


def build_encoder(config: FaceConfig) -> dict[str, nn.Module]:
    """Fresh networks: ``encoder``, of codes in Z+, and the ``generator`` whose codes it finds."""
    return {"encoder": Encoder(config), "generator": Generator(config)}


def build_dualstyle(config: FaceConfig) -> dict[str, nn.Module]:
    """Fresh networks: ``generator`` with both paths, ``discriminator``, and ``encoder`` of codes in Z+."""
    return {
        "generator": DualStyleGenerator(config),
        "discriminator": Discriminator(config),
        "encoder": Encoder(config),
    }
