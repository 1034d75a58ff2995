"""Small networks of the motion family with lively weights, and their graphs, made once for all tests of a process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from models.catalog import MODELS
from models.export import export_motion
from models.motion.config import MotionConfig
from models.motion.networks import build, debug_config

SIZE = 32
MIXED: Mapping[str, Any] = MappingProxyType(
    {
        "estimate_jacobian": False,
        "hourglass_attention": "channel",
        "hourglass_residual": True,
        "flow_attention": "cbam",
        "occlusion": "multi-scale",
        "generator_skips": True,
        "output_activation": "tanh",
        "discriminator": False,
    }
)
"""Options of several papers together, without Jacobians."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Networks in eval mode, and their graph."""

    config: MotionConfig
    networks: dict[str, nn.Module]
    path: Path


def networks_of(config: MotionConfig) -> dict[str, nn.Module]:
    """Fresh networks whose normalisation statistics and Jacobians are not the trivial ones, in train mode."""
    torch.manual_seed(0)
    nets = build(config)
    detector, generator = nets["keypoint_detector"], nets["generator"]
    frames = torch.rand(4, 3, config.size_px, config.size_px)
    with torch.no_grad():
        if isinstance(getattr(detector, "jacobian", None), nn.Conv2d):
            detector.jacobian.weight.normal_(0, 0.02)  # type: ignore[union-attr, operator]
        for _ in range(3):
            found, other = detector(frames), detector(frames.flip(0))
            generator(frames, source_keypoints=found, driving_keypoints=other)
            if "avd" in nets:
                nets["avd"](found, other)
    return nets


def debug_of(preset: str) -> MotionConfig:
    """The small configuration with a preset's options; ``mixed`` is `MIXED`."""
    options = MIXED if preset == "mixed" else MODELS[preset].model
    return debug_config(**{**options, "generator_bottleneck_blocks": len(options.get("generator_dilations", (1,)))})


@functools.cache
def exported(preset: str) -> Exported:
    """A preset's small networks and their graph."""
    config = debug_of(preset)
    nets = {name: network.eval() for name, network in networks_of(config).items()}
    path = _folder() / preset / "motion.onnx"
    export_motion(nets, config, path)
    return Exported(config=config, networks=nets, path=path)


def pictures(count: int, *, seed: int = 0) -> np.ndarray:
    """Random frames, uint8, (count, SIZE, SIZE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def planes(frames: np.ndarray) -> torch.Tensor:
    """uint8 frames (N, H, W, 3) as the networks take them, (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="inkmotion-motion-kit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
