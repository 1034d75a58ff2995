"""What can be set about training StyleGAN2, its encoder and DualStyleGAN; the meaning, unit and rule of each key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.errors import check
from training.config import Rule, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialConfig:
    """Generator against discriminator as in StyleGAN2 (Karras et al., CVPR 2020), with adaptive augmentation."""

    r1: float = 10.0
    """Weight of the squared slope at real pictures, halved (gamma / 2), taken lazily; 0: none."""
    r1_every_steps: int = 16
    path_length: float = 2.0
    """Weight of the path length's penalty, taken lazily; 0: none."""
    path_every_steps: int = 4
    path_batch_shrink: int = 2
    """The penalty is taken on the batch divided by this."""
    path_decay: float = 0.01
    """Of the moving average of the path's length."""
    mixing: float = 0.9
    """Share of the pictures made of two codes, that change at a layer drawn at random."""
    ada_target: float | None = 0.6
    """Mean sign of the real pictures' scores (1: all above 0, 0: half of them), towards which augmentation moves; null:
    its probability stays at ``ada_initial``."""
    ada_initial: float = 0.0
    ada_images: float = 500_000.0
    """After so many pictures the probability can have gone from 0 to 1."""
    ada_every_steps: int = 8
    warm_up_steps: int = 0
    """For so many steps the generator learns to redraw the training's pictures from their principal components, and in
    the second half of them the discriminator learns beside; then StyleGAN2's training begins. For few pictures and
    little time; 0: as published."""
    lr_warm_up: float = 0.02
    """Of the generator's layers, whose weights have a deviation of 1; ten times the published rate of what follows."""
    learn_noise: bool = True
    """Whether the generator's noise, which is nothing at first, may grow. Small networks draw speckle with it before
    they have learnt a face."""

    def __post_init__(self) -> None:
        shares = {"mixing": self.mixing, "ada_initial": self.ada_initial, "path_decay": self.path_decay}
        counts = ("r1_every_steps", "path_every_steps", "path_batch_shrink", "ada_every_steps")
        check(
            *((0 <= share <= 1, key, share, "lie in 0 to 1") for key, share in shares.items()),
            *((getattr(self, key) >= 1, key, getattr(self, key), "be 1 or more") for key in counts),
            (
                min(self.r1, self.path_length) >= 0,
                "r1",
                min(self.r1, self.path_length),
                "be 0 or more, like path_length",
            ),
            (
                self.ada_target is None or 0 < self.ada_target < 1,
                "ada_target",
                self.ada_target,
                "lie between 0 and 1, or be null",
            ),
            (self.lr_warm_up > 0, "lr_warm_up", self.lr_warm_up, "be above 0"),
            (self.warm_up_steps >= 0, "warm_up_steps", self.warm_up_steps, "be 0 or more"),
            (self.ada_images > 0, "ada_images", self.ada_images, "be above 0"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderLossConfig:
    """Losses of the pSp encoder (Richardson et al., CVPR 2021); 0 leaves a term out."""

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    """Of the perceptual backbone's deepest features' direction, or of a face recogniser's where one is given."""
    made_share: float = 0.5
    """Share of the samples that the generator makes, whose codes are known."""
    code: float = 1.0
    """Of the known codes' squared distance."""

    def __post_init__(self) -> None:
        weights = ("l2", "perceptual", "identity", "code")
        check(
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in weights),
            (0 <= self.made_share <= 1, "made_share", self.made_share, "lie in 0 to 1"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleTransferConfig:
    """Progressive fine-tuning of DualStyleGAN (the paper's 3.2); 0 leaves a term out."""

    domain: Literal["source", "target"] = "source"
    """``source``: pictures of the generator's own domain, colours and structures exchanged between codes;
    ``target``: the style pictures, with the codes that destylisation found."""
    layers: tuple[int, ...] = (7, 6, 5)
    """Source domain: the layer at which the codes are exchanged, one after another."""
    layer_steps: tuple[int, ...] = (300, 300, 3000)
    """For so many steps each; ``max_steps`` is their sum."""
    adversarial: float = 0.1
    perceptual: float = 0.5
    contextual: float = 0.0
    """Target domain (0.25): features of result and style picture, wherever in the picture they lie."""
    feature_matching: float = 0.0
    """Target domain (0.25): means and deviations of the same features."""
    identity: float = 0.0
    """Target domain (1): of result and content."""
    regularisation: float = 0.0
    """Target domain (0.015): of the residual blocks' weights."""
    code_jitter: float = 0.1
    """Standard deviation of what is added to extrinsic codes."""
    paired_share: float = 0.5
    """Target domain: share of the steps in which a style picture's own intrinsic code goes with its extrinsic one."""
    encoded_share: float = 0.25
    """Share of the steps whose codes are those of an encoded picture: in the source domain the extrinsic ones; in the
    target domain, of the steps that are not paired, the intrinsic ones, and the picture is a photo. In the others they
    are drawn."""

    def __post_init__(self) -> None:
        weights = ("adversarial", "perceptual", "contextual", "feature_matching", "identity", "regularisation")
        shares = ("paired_share", "encoded_share")
        check(
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in (*weights, "code_jitter")),
            *((0 <= getattr(self, key) <= 1, key, getattr(self, key), "lie in 0 to 1") for key in shares),
            (
                len(self.layers) == len(self.layer_steps) >= 1,
                "layer_steps",
                self.layer_steps,
                f"be as many as the layers ({len(self.layers)})",
            ),
            (min(self.layers, default=0) >= 1, "layers", self.layers, "each be 1 or more"),
            (min(self.layer_steps, default=0) >= 1, "layer_steps", self.layer_steps, "each be 1 or more"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTrainConfig(TrainConfig):
    """One training of a network of DualStyleGAN's; which of the three parts counts, the preset says."""

    gan: AdversarialConfig = field(default_factory=AdversarialConfig)
    encoder: EncoderLossConfig = field(default_factory=EncoderLossConfig)
    transfer: StyleTransferConfig = field(default_factory=StyleTransferConfig)
    accumulate: int = 1
    """A step's batch goes through the networks in so many parts, whose gradients are added: the memory of a part."""
    num_validation_pictures: int = 32
    """Made, or encoded, and judged in each validation."""

    def needs_backbone(self) -> bool:
        """Validation and every recipe but StyleGAN2's own rest on the backbone."""
        return True

    def _rules(self) -> list[Rule]:
        workers = 1 if self.num_workers is None else self.num_workers
        parts = max(self.accumulate, 1) * max(workers, 1)
        return [
            *TrainConfig._rules(self),
            (self.accumulate >= 1, "accumulate", self.accumulate, "be 1 or more"),
            (
                self.batch_size % parts == 0,
                "batch_size",
                self.batch_size,
                f"be divisible by accumulate times num_workers ({parts})",
            ),
            (
                self.num_validation_pictures >= 2,
                "num_validation_pictures",
                self.num_validation_pictures,
                "be 2 or more",
            ),
        ]
