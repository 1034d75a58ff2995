"""Configuration of the motion family's networks: named options, not forks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import check


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig:
    """Networks of the First Order Motion Model, as published for 256 px unless set otherwise."""

    size_px: int = 256
    """Height and width of a frame."""
    num_keypoints: int = 10
    estimate_jacobian: bool = True
    single_jacobian_map: bool = False
    """One Jacobian map shared by all keypoints (published for MGif)."""
    temperature: float = 0.1
    """Of the heat maps' soft-max."""
    scale_factor: float = 0.25
    """Size at which keypoints and dense motion are computed, as a share of the frame's."""
    detector_expansion: int = 32
    detector_max_features: int = 1024
    detector_blocks: int = 5
    motion_expansion: int = 64
    motion_max_features: int = 1024
    motion_blocks: int = 5
    keypoint_variance: float = 0.01
    """Of the Gaussians that picture the keypoints to the dense-motion network, in squared image units."""
    generator_expansion: int = 64
    generator_max_features: int = 512
    generator_down_blocks: int = 2
    generator_bottleneck_blocks: int = 6
    estimate_occlusion: bool = True
    output_activation: Literal["sigmoid", "tanh"] = "sigmoid"
    discriminator_expansion: int = 32
    discriminator_max_features: int = 512
    discriminator_blocks: int = 4
    discriminator_spectral_norm: bool = True
    discriminator_keypoints: bool = False
    """The discriminator sees the driving keypoints' Gaussians beside the frame (published for the adversarial runs)."""
    discriminator_scales: tuple[float, ...] = (1.0,)
    align_corners: bool = False
    """Convention of every warp; True for checkpoints trained with torch <= 1.2."""

    def __post_init__(self) -> None:
        heat_px = round(self.size_px * self.scale_factor)
        step = 2 ** max(self.detector_blocks, self.motion_blocks)
        check(
            (self.size_px >= 16 and self.size_px % 4 == 0, "size_px", self.size_px, "be a multiple of 4, 16 or more"),
            (1 <= self.num_keypoints <= 100, "num_keypoints", self.num_keypoints, "lie in 1 to 100"),
            (self.temperature > 0, "temperature", self.temperature, "be above 0"),
            (0 < self.scale_factor <= 1, "scale_factor", self.scale_factor, "lie in (0, 1]"),
            (
                heat_px % step == 0,
                "size_px",
                self.size_px,
                f"give a scaled size (now {heat_px} px) that is a multiple of {step} (2 to the number of blocks)",
            ),
            (self.keypoint_variance > 0, "keypoint_variance", self.keypoint_variance, "be above 0"),
            (
                all(0 < scale <= 1 for scale in self.discriminator_scales),
                "discriminator_scales",
                self.discriminator_scales,
                "each lie in (0, 1]",
            ),
        )
