"""The recorded Articulated Animation model (golden/articulated-tiny) in this project's networks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.motion.config import MotionConfig
from models.motion.networks import build

KIT = Path(__file__).parent / "golden" / "articulated-tiny"
PUBLISHED = {
    "generator": "generator",
    "keypoint_detector": "region_predictor",
    "background_predictor": "bg_predictor",
    "avd": "avd_network",
}
"""Here -> in the kit's checkpoint."""


def model(*, align_corners: bool = False) -> MotionConfig:
    return MotionConfig(
        motion="articulated",
        background="affine",
        generator_skips=True,
        heat_map_padding=3,
        discriminator=False,
        avd=True,
        size_px=64,
        scale_factor=0.25,
        num_keypoints=5,
        detector_expansion=8,
        detector_max_features=32,
        detector_blocks=2,
        motion_expansion=8,
        motion_max_features=32,
        motion_blocks=3,
        background_expansion=8,
        background_max_features=32,
        background_blocks=3,
        generator_expansion=8,
        generator_max_features=32,
        generator_bottleneck_blocks=2,
        avd_identity_features=16,
        avd_pose_features=16,
        align_corners=align_corners,
    )


def networks(*, align_corners: bool = False) -> dict[str, nn.Module]:
    built = build(model(align_corners=align_corners))
    entries = torch.load(KIT / "tiny-checkpoint.pth.tar", weights_only=True)
    for ours, theirs in PUBLISHED.items():
        state = {_ours(key): value for key, value in entries[theirs].items()}
        built[ours].load_state_dict(state, strict=True)
    return built


def _ours(key: str) -> str:
    return key.replace("pixelwise_flow_predictor.", "dense_motion_network.")
