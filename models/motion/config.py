"""Configuration of the motion family's networks: named options, not forks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from models.errors import check

SCALED_PX = 64
"""Size at which the published networks find keypoints and dense motion, whatever the frame's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig:
    """Networks of the First Order Motion Model, as published for 256 px unless set otherwise."""

    motion: Literal["first-order", "articulated"] = "first-order"
    """``first-order``: keypoints with Jacobians. ``articulated``: regions, whose axes come out of their heat maps."""
    size_px: int = 256
    """Height and width of a frame."""
    num_keypoints: int = 10
    """Keypoints, or regions."""
    estimate_jacobian: bool = True
    single_jacobian_map: bool = False
    """One Jacobian map shared by all keypoints (published for MGif)."""
    temperature: float = 0.1
    """Of the heat maps' soft-max."""
    heat_map_padding: int = 0
    """Of the 7x7 convolution that makes the heat maps; 3 keeps their size (published for AA on VoxCeleb)."""
    scale_factor: float | None = None
    """Size at which keypoints and dense motion are computed, as a share of the frame's; null: what makes it 64 px."""
    width: float = 1.0
    """Factor on every ``*_expansion`` and ``*_max_features``."""
    detector_expansion: int = 32
    detector_max_features: int = 1024
    detector_blocks: int = 5
    motion_expansion: int = 64
    motion_max_features: int = 1024
    motion_blocks: int = 5
    keypoint_variance: float = 0.01
    """Of the Gaussians that picture the keypoints to the dense-motion network, in squared image units; regions are
    pictured by their own covariance."""
    background: Literal["none", "shift", "affine", "perspective"] = "none"
    """What the camera's motion is taken for, estimated from both frames while training and reconstructing."""
    background_expansion: int = 32
    background_max_features: int = 1024
    background_blocks: int = 5
    hourglass_attention: Literal["none", "channel", "scse"] = "none"
    """``channel``: in every stage of encoder and decoder; ``scse``: in every stage of the decoder."""
    hourglass_residual: bool = False
    """A residual block in every stage of the hourglasses."""
    flow_attention: Literal["none", "cbam", "max-cbam"] = "none"
    """On the dense-motion hourglass's output; ``max-cbam``: channels weighed by maxima alone, twice as sharply."""
    occlusion: Literal["none", "single", "multi-scale"] = "single"
    """``multi-scale``: a map for each of the generator's sizes, applied after its residual blocks."""
    generator_expansion: int = 64
    generator_max_features: int = 512
    generator_down_blocks: int = 2
    generator_bottleneck_blocks: int = 6
    generator_attention: Literal["none", "scse"] = "none"
    """In the residual blocks, and in the up blocks where ``generator_residual`` is set."""
    generator_residual: bool = False
    """A residual block in every down and up block."""
    generator_dilations: tuple[int, ...] = ()
    """Of the residual blocks' convolutions, in turn; empty: 1."""
    generator_skips: bool = False
    """Every size of the source's features, moved, fills what is seen; the decoder fills the rest."""
    output_activation: Literal["sigmoid", "tanh"] = "sigmoid"
    """``tanh``: the networks compute with images in [-1, 1]; what goes in and out is in [0, 1] all the same."""
    discriminator: bool = True
    discriminator_expansion: int = 32
    discriminator_max_features: int = 512
    discriminator_blocks: int = 4
    discriminator_norm: Literal["instance", "spectral", "multi"] = "multi"
    """``instance``: of the outputs; ``spectral``: of the weights; ``multi``: both."""
    discriminator_head: Literal["plain", "dual-channel-fusion"] = "plain"
    discriminator_keypoints: bool = False
    """The discriminator sees the driving keypoints' Gaussians beside the frame (published for the adversarial runs)."""
    discriminator_scales: tuple[float, ...] = (1.0,)
    avd: bool = False
    """Networks that part identity and pose (animation via disentanglement), trained in a second stage."""
    avd_identity_features: int = 64
    avd_pose_features: int = 64
    align_corners: bool = False
    """Convention of every warp; True for checkpoints trained with torch <= 1.2."""

    @property
    def scale(self) -> float:
        """`scale_factor`, resolved."""
        return self.scale_factor if self.scale_factor is not None else min(1.0, SCALED_PX / max(self.size_px, 1))

    @property
    def scaled_px(self) -> int:
        """Size at which keypoints and dense motion are computed."""
        return round(self.size_px * self.scale)

    @property
    def heat_px(self) -> int:
        """Size of the heat maps."""
        return self.scaled_px - 6 + 2 * self.heat_map_padding

    def features(self, channels: int) -> int:
        """A number of channels, times `width`."""
        return max(1, round(channels * self.width))

    def hourglass(self, part: Literal["detector", "motion", "background"]) -> dict[str, Any]:
        """``expansion``, ``num_blocks`` and ``max_features`` of a part's hourglass."""
        return {
            "expansion": self.features(getattr(self, f"{part}_expansion")),
            "num_blocks": getattr(self, f"{part}_blocks"),
            "max_features": self.features(getattr(self, f"{part}_max_features")),
        }

    def __post_init__(self) -> None:
        check(*self._rules_of_counts())
        check(*self._rules_of_sizes(), *self._rules_of_options())

    def _rules_of_counts(self) -> tuple[tuple[bool, str, object, str], ...]:
        """What the other rules take for granted."""
        positive: tuple[str, ...] = ("detector_blocks", "motion_blocks", "background_blocks", "discriminator_blocks")
        positive += ("avd_identity_features", "avd_pose_features")
        positive += tuple(name for name in self.__dataclass_fields__ if name.endswith(("_expansion", "_max_features")))
        counted = ("generator_down_blocks", "generator_bottleneck_blocks")
        return (
            *((getattr(self, name) >= 1, name, getattr(self, name), "be 1 or more") for name in positive),
            *((getattr(self, name) >= 0, name, getattr(self, name), "be 0 or more") for name in counted),
        )

    def _rules_of_sizes(self) -> tuple[tuple[bool, str, object, str], ...]:
        step = 2 ** max(self.detector_blocks, self.motion_blocks)
        whole = self.scale > 0 and abs(round(1 / self.scale) * self.scale - 1) < 1e-6
        divisor = 2**self.background_blocks if self.background != "none" else 1
        return (
            (
                16 <= self.size_px <= 1024 and self.size_px % 4 == 0,
                "size_px",
                self.size_px,
                "be a multiple of 4 in 16 to 1024",
            ),
            (1 <= self.num_keypoints <= 100, "num_keypoints", self.num_keypoints, "lie in 1 to 100"),
            (0 < self.width <= 4, "width", self.width, "lie in (0, 4]"),
            (self.temperature > 0, "temperature", self.temperature, "be above 0"),
            (0 <= self.heat_map_padding <= 3, "heat_map_padding", self.heat_map_padding, "lie in 0 to 3"),
            (
                self.scale_factor is None or whole,
                "scale_factor",
                self.scale_factor,
                "be 1 over a whole number, or null",
            ),
            (
                self.scale_factor is not None or whole,
                "size_px",
                self.size_px,
                f"be a multiple of {SCALED_PX}, or below it; or set scale_factor",
            ),
            (
                self.scaled_px % step == 0,
                "size_px",
                self.size_px,
                f"give a scaled size (now {self.scaled_px} px) divisible by {step} (2 to the number of blocks)",
            ),
            (
                self.size_px % divisor == 0,
                "size_px",
                self.size_px,
                f"be a multiple of {divisor} (2 to background_blocks)",
            ),
            (self.keypoint_variance > 0, "keypoint_variance", self.keypoint_variance, "be above 0"),
            (
                bool(self.discriminator_scales) and all(0 < scale <= 1 for scale in self.discriminator_scales),
                "discriminator_scales",
                self.discriminator_scales,
                "have a scale, each in (0, 1]",
            ),
            (
                all(1 <= rate <= 16 for rate in self.generator_dilations),
                "generator_dilations",
                self.generator_dilations,
                "each lie in 1 to 16",
            ),
        )

    def _rules_of_options(self) -> tuple[tuple[bool, str, object, str], ...]:
        """Combinations that make no sense, each with its reason."""
        articulated = self.motion == "articulated"
        unattended = self.generator_attention == "none"
        return (
            (
                self.estimate_jacobian or not articulated,
                "estimate_jacobian",
                self.estimate_jacobian,
                "be true with motion: articulated, whose regions always have axes",
            ),
            (
                not (self.single_jacobian_map and articulated),
                "single_jacobian_map",
                self.single_jacobian_map,
                "be false with motion: articulated, which has no Jacobian map",
            ),
            (
                not self.single_jacobian_map or self.estimate_jacobian,
                "single_jacobian_map",
                self.single_jacobian_map,
                "be false where estimate_jacobian is",
            ),
            (
                not self.avd or articulated,
                "avd",
                self.avd,
                "be false with motion: first-order: what it parts are the axes of regions",
            ),
            (
                self.occlusion != "multi-scale" or self.generator_down_blocks >= 1,
                "occlusion",
                self.occlusion,
                "be single or none where the generator has one size only (generator_down_blocks: 0)",
            ),
            (
                self.occlusion != "none" or not self.generator_skips,
                "generator_skips",
                self.generator_skips,
                "be false with occlusion: none, which leaves nothing to blend by",
            ),
            (
                unattended or self.generator_residual or self.generator_bottleneck_blocks > 0,
                "generator_attention",
                self.generator_attention,
                "be none where the generator has no residual block to attend in",
            ),
            (
                not self.generator_dilations or self.generator_bottleneck_blocks > 0,
                "generator_dilations",
                self.generator_dilations,
                "be empty where generator_bottleneck_blocks is 0",
            ),
            (
                self.discriminator or not self.discriminator_keypoints,
                "discriminator_keypoints",
                self.discriminator_keypoints,
                "be false where discriminator is",
            ),
        )
