"""What can be set about a training; the meaning, unit and rule of each key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from models.errors import check

Rule = tuple[bool, str, Any, str]
"""Whether it is kept, the key, its value, and what it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the motion family's losses; 0 leaves a term (and what only it needs) out."""

    perceptual: tuple[float, ...] = (10.0, 10.0, 10.0, 10.0, 10.0)
    """One weight per feature level of the backbone, at every scale of the pyramid."""
    pixel: float = 0.0
    """Mean absolute difference of the frames, in [0, 1]."""
    gan: Literal["none", "lsgan", "hinge"] = "none"
    """``none`` skips the discriminator's phase entirely, as published for VoxCeleb. ``lsgan``: least squares.
    ``hinge``: relu(beta - real) + relu(delta + fake) for the discriminator, -relu(alpha + fake) for the generator."""
    generator_gan: float = 1.0
    discriminator_gan: float = 1.0
    hinge_alpha: float = 1.0
    hinge_beta: float = 1.0
    hinge_delta: float = 1.0
    feature_matching: tuple[float, ...] = (10.0, 10.0, 10.0, 10.0)
    """One weight per block of the discriminator, from its entrance on; those beyond its blocks are not used."""
    equivariance_value: float = 10.0
    """Of keypoints, or of regions' centres."""
    equivariance_jacobian: float = 10.0
    """Of Jacobians, or of regions' axes."""

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "gan"}
        judged = self.gan == "none" or min(self.generator_gan, self.discriminator_gan) > 0
        check(
            *(
                (min(w if isinstance(w, tuple) else (w,), default=0.0) >= 0, key, w, "be 0 or more")
                for key, w in weights.items()
            ),
            (judged, "gan", self.gan, "be none where generator_gan or discriminator_gan is 0"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformConfig:
    """The random warp of the equivariance losses: affine plus thin-plate spline."""

    sigma_affine: float = 0.05
    sigma_tps: float = 0.005
    points_tps: int = 5

    def __post_init__(self) -> None:
        check(
            (self.sigma_affine >= 0, "sigma_affine", self.sigma_affine, "be 0 or more"),
            (self.sigma_tps >= 0, "sigma_tps", self.sigma_tps, "be 0 or more"),
            (self.points_tps >= 2, "points_tps", self.points_tps, "be 2 or more"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Random changes of a pair of frames, the same for both; 0 leaves one out. Flips have keys of their own."""

    brightness: float = 0.0
    """A factor in 1 - this to 1 + this; contrast and saturation likewise."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """A turn of the colour circle by up to this share of it, to either side; at most 0.5."""
    resize: tuple[float, float] = (1.0, 1.0)
    """Frames are scaled by a factor drawn between these, then cropped (or reflected) back to their size."""

    def __post_init__(self) -> None:
        names = ("brightness", "contrast", "saturation")
        check(
            *((0 <= getattr(self, name) <= 1, name, getattr(self, name), "lie in 0 to 1") for name in names),
            (0 <= self.hue <= 0.5, "hue", self.hue, "lie in 0 to 0.5"),
            (
                len(self.resize) == 2 and 0.5 <= self.resize[0] <= self.resize[1] <= 2,
                "resize",
                self.resize,
                "be two factors in 0.5 to 2, the smaller first",
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AvdConfig:
    """The second stage of a model with ``avd``: all but the AVD networks stand still (Siarohin et al., CVPR 2021)."""

    max_steps: int | None = None
    """null: as ``max_epochs`` says; 0: no second stage."""
    max_epochs: int | None = None
    batch_size: int = 256
    num_repeats: int = 1
    learning_rate: float = 1e-3
    milestone_epochs: tuple[int, ...] = ()
    distortion: float = 0.25
    """Driving regions are stretched by a factor in 1 - this to 1 + this along each axis, and must come back."""
    shift: float = 1.0
    """Weight of the centres' loss."""
    affine: float = 1.0
    """Weight of the axes' loss."""

    def __post_init__(self) -> None:
        check(
            (self.max_steps is None or self.max_steps >= 0, "max_steps", self.max_steps, "be 0 or more, or null"),
            (self.max_epochs is None or self.max_epochs >= 1, "max_epochs", self.max_epochs, "be 1 or more, or null"),
            (self.batch_size >= 2, "batch_size", self.batch_size, "be 2 or more"),
            (self.num_repeats >= 1, "num_repeats", self.num_repeats, "be 1 or more"),
            (self.learning_rate > 0, "learning_rate", self.learning_rate, "be above 0"),
            (0 <= self.distortion < 1, "distortion", self.distortion, "lie in [0, 1)"),
            (min(self.shift, self.affine) >= 0, "shift", min(self.shift, self.affine), "be 0 or more, like affine"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(ABC):
    """What every training has, whichever family it is of. Sizes are counts of samples unless the name says otherwise.

    A sample is a pair of frames in the motion family, a photo and a style picture in the style family.
    """

    seed: int = 0
    batch_size: int = 32
    """Global: over all workers."""
    max_steps: int = 100_000
    max_epochs: int | None = None
    """In place of ``max_steps``: an epoch visits every clip (or identity, or photo) ``num_repeats`` times."""
    max_seconds: float | None = None
    """The training also ends with the first step after so long, of all attempts together; null: never. Then how many
    steps it takes depends on the machine."""
    num_workers: int | None = None
    """Processes; null: one per GPU, or 1 without a GPU."""
    num_threads: int | None = None
    """Of each worker's CPU computation; null: the CPUs divided by the workers."""
    use_gpu: bool | None = None
    """null: when there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = True
    """Reduce gradients in rank order, so that any number of workers resumes bit for bit."""
    num_repeats: int = 1
    """How often an epoch visits each clip (or identity, or photo)."""
    flip_horizontal: bool = True
    lr_generator: float = 2e-4
    """A rate of 0 leaves a network's weights as they are; the statistics of its batch normalisation still move."""
    lr_discriminator: float = 2e-4
    """Of the discriminator, or critic."""
    adam_betas: tuple[float, float] = (0.5, 0.999)
    milestones: tuple[int, ...] = ()
    """Steps at which every learning rate is multiplied by ``gamma``."""
    milestone_epochs: tuple[int, ...] = ()
    """In place of ``milestones``, with ``max_epochs``."""
    gamma: float = 0.1
    max_grad_norm: float | None = None
    """Gradients of a phase are scaled down to this norm; null: never."""
    ema_decay: float = 0.999
    """Of the exponential moving average that is evaluated and registered; 0: none."""
    perceptual_backbone: Literal["effnet-lite0", "vgg19"] = "effnet-lite0"
    perceptual_weights: str | None = None
    """Path of torchvision's VGG-19 file; null: the project's weights folder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    channels_last: bool | None = None
    """Memory order of images and weights; null: where it is faster (on GPUs, and on CPUs in bf16)."""
    compile: bool = False
    """Let torch.compile make kernels of the networks; the first step then takes a minute."""
    fused_optimizer: bool | None = None
    """One kernel for all of Adam; null: yes."""
    log_every_steps: int = 10
    checkpoint_every_steps: int = 1_000
    keep_last: int = 3
    """Checkpoints kept beside the best one and the final one."""
    export: Literal["last", "best"] = "last"
    """Which checkpoint is the training's model: the final one, or the one that validated best."""
    validate_every_steps: int = 1_000
    """0: never; then the last checkpoint counts as the best."""
    early_stop_patience: int | None = None
    """Validations without a better figure after which the training ends with a final checkpoint; null: never."""
    picture_every_steps: int = 1_000
    """0: none."""
    max_failures: int = 3
    """How often lost workers are replaced before the training gives up; -1: always."""
    init_from: str | None = None
    """Fine-tune from ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a checkpoint's folder; null: from scratch."""
    feed_threads: int = 2
    """Decoding threads of each worker."""
    prefetch_batches: int = 4

    def __post_init__(self) -> None:
        check(*self._rules())

    @abstractmethod
    def needs_backbone(self) -> bool:
        """Whether a loss rests on the perceptual backbone."""

    def _rules(self) -> list[Rule]:
        at_least_one: tuple[str, ...] = (
            "batch_size",
            "max_steps",
            "num_repeats",
            "log_every_steps",
            "checkpoint_every_steps",
        )
        at_least_one += ("keep_last", "feed_threads", "prefetch_batches")
        not_negative: tuple[str, ...] = ("validate_every_steps", "picture_every_steps", "ema_decay")
        not_negative += ("lr_generator", "lr_discriminator")
        workers, epochs = 1 if self.num_workers is None else self.num_workers, self.max_epochs is not None
        return [
            *((getattr(self, key) >= 1, key, getattr(self, key), "be 1 or more") for key in at_least_one),
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in not_negative),
            (
                self.max_seconds is None or self.max_seconds > 0,
                "max_seconds",
                self.max_seconds,
                "be above 0, or null",
            ),
            (self.gamma > 0, "gamma", self.gamma, "be above 0"),
            (self.max_epochs is None or self.max_epochs >= 1, "max_epochs", self.max_epochs, "be 1 or more, or null"),
            (
                not self.milestone_epochs or epochs,
                "milestone_epochs",
                self.milestone_epochs,
                "stand with max_epochs; use milestones with max_steps",
            ),
            (
                not (self.milestones and epochs),
                "milestones",
                self.milestones,
                "stand with max_steps; use milestone_epochs with max_epochs",
            ),
            (
                all(milestone >= 1 for milestone in (*self.milestones, *self.milestone_epochs)),
                "milestones",
                (*self.milestones, *self.milestone_epochs),
                "each be 1 or more, milestone_epochs likewise",
            ),
            (self.num_workers is None or workers >= 1, "num_workers", self.num_workers, "be 1 or more, or null"),
            (
                self.num_threads is None or self.num_threads >= 1,
                "num_threads",
                self.num_threads,
                "be 1 or more, or null",
            ),
            (
                self.batch_size % max(workers, 1) == 0,
                "batch_size",
                self.batch_size,
                f"be divisible by num_workers ({workers})",
            ),
            (
                self.early_stop_patience is None or self.validate_every_steps > 0,
                "early_stop_patience",
                self.early_stop_patience,
                "be null where validate_every_steps is 0",
            ),
            (self.ema_decay < 1, "ema_decay", self.ema_decay, "be below 1"),
            (
                self.max_grad_norm is None or self.max_grad_norm > 0,
                "max_grad_norm",
                self.max_grad_norm,
                "be above 0, or null",
            ),
            (self.max_failures >= -1, "max_failures", self.max_failures, "be -1 or more"),
            (
                len(self.adam_betas) == 2 and all(0 <= beta < 1 for beta in self.adam_betas),
                "adam_betas",
                self.adam_betas,
                "be two numbers in [0, 1)",
            ),
            (
                self.early_stop_patience is None or self.early_stop_patience >= 1,
                "early_stop_patience",
                self.early_stop_patience,
                "be 1 or more, or null",
            ),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionTrainConfig(TrainConfig):
    """One training of the motion family, whose samples are pairs of frames."""

    id_sampling: bool = False
    """An epoch visits identities, and draws one of the identity's clips each time."""
    flip_time: bool = True
    lr_keypoint_detector: float = 2e-4
    perceptual_scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    losses: LossConfig = field(default_factory=LossConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    avd: AvdConfig = field(default_factory=AvdConfig)
    num_validation_pairs: int = 64

    def needs_backbone(self) -> bool:
        """Whether the perceptual loss weighs anything."""
        return any(self.losses.perceptual) and bool(self.perceptual_scales)

    def _rules(self) -> list[Rule]:
        workers = 1 if self.num_workers is None else self.num_workers
        return [
            *TrainConfig._rules(self),
            (self.num_validation_pairs >= 1, "num_validation_pairs", self.num_validation_pairs, "be 1 or more"),
            (self.lr_keypoint_detector >= 0, "lr_keypoint_detector", self.lr_keypoint_detector, "be 0 or more"),
            (
                not (self.avd.max_steps or self.avd.max_epochs) or self.avd.batch_size % max(workers, 1) == 0,
                "avd.batch_size",
                self.avd.batch_size,
                f"be divisible by num_workers ({workers})",
            ),
            (
                all(0 < scale <= 1 for scale in self.perceptual_scales),
                "perceptual_scales",
                self.perceptual_scales,
                "each lie in (0, 1]",
            ),
        ]
