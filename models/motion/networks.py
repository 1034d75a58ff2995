"""Builds the networks of the motion family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from models.errors import check
from models.motion.avd import AvdNetwork
from models.motion.background import BackgroundPredictor
from models.motion.config import MotionConfig
from models.motion.discriminator import Discriminator
from models.motion.generator import Generator
from models.motion.keypoints import KeypointDetector, RegionPredictor

DEBUG: Mapping[str, Any] = MappingProxyType(
    {
        "size_px": 32,
        "num_keypoints": 3,
        "scale_factor": 0.5,
        "background_expansion": 4,
        "background_max_features": 16,
        "background_blocks": 2,
        "detector_expansion": 4,
        "detector_max_features": 16,
        "detector_blocks": 2,
        "motion_expansion": 4,
        "motion_max_features": 16,
        "motion_blocks": 2,
        "generator_expansion": 4,
        "generator_max_features": 16,
        "generator_bottleneck_blocks": 1,
        "discriminator_expansion": 4,
        "discriminator_max_features": 16,
        "discriminator_blocks": 2,
    }
)
"""Options of a family member small enough for tests: some milliseconds a step on one CPU core."""


def debug_config(**options: Any) -> MotionConfig:
    """The small configuration of `DEBUG`, with ``options`` laid over it."""
    return MotionConfig(**{**DEBUG, **options})


def build(config: MotionConfig) -> dict[str, nn.Module]:
    """Fresh networks, in train mode, on the default device.

    Args:
        config: their options.

    Returns:
        ``generator`` and ``keypoint_detector`` (of keypoints or regions), and as the configuration says
        ``discriminator``, ``background_predictor`` and ``avd``.

    Raises:
        ParamsError: the frame is too small for the networks' depth.
    """
    _check_sizes(config)
    detector = RegionPredictor if config.motion == "articulated" else KeypointDetector
    networks: dict[str, nn.Module] = {"generator": Generator(config), "keypoint_detector": detector(config)}
    if config.discriminator:
        networks["discriminator"] = Discriminator(config)
    if config.background != "none":
        networks["background_predictor"] = BackgroundPredictor(config)
    if config.avd:
        networks["avd"] = AvdNetwork(config)
    return networks


def _check_sizes(config: MotionConfig) -> None:
    """The detector's last convolution eats 6 pixels; each block of the discriminator eats 3 and halves the rest."""
    smallest = min(config.discriminator_scales, default=1.0)
    patch_px = round(config.size_px * smallest)
    for i in range(config.discriminator_blocks):
        patch_px = (patch_px - 3) // (2 if i < config.discriminator_blocks - 1 else 1)
    down = 2**config.generator_down_blocks
    check(
        (
            config.heat_px >= 2,
            "size_px",
            config.size_px,
            f"give a scaled size of 8 px or more (now {config.scaled_px})",
        ),
        (
            patch_px >= 1 or not config.discriminator,
            "discriminator_blocks",
            config.discriminator_blocks,
            f"leave a patch of {config.size_px} px frames; use fewer blocks or larger scales",
        ),
        (config.size_px % down == 0, "generator_down_blocks", config.generator_down_blocks, f"divide {config.size_px}"),
    )
