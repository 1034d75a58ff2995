"""The phases of a motion model's step: generator and detector in one, the discriminator in another.

Losses after Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, section 3.4, and "Motion
Representations for Articulated Animation", CVPR 2021, section 3.4; the hinge loss after "Promoting Animation Synthesis
Through Dual-Channel Fusion", equations 3 and 4. The order of operations is the published training's, so that batch
statistics and spectral norms move alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.precision import wide
from models.layers.resampling import ImagePyramid
from models.motion.background import BackgroundPredictor
from models.motion.discriminator import Discriminator, Judged
from models.motion.equivariance import Transform
from models.motion.generator import Generator
from models.motion.geometry import aligned, inverse_2x2, product_2x2
from models.motion.keypoints import Detector, Keypoints
from training.config import LossConfig, MotionTrainConfig
from training.phases import Batch, PhaseOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """In which numbers the networks compute; the losses are always taken in the weights' own."""

    device: torch.device
    bf16: bool = False

    def context(self) -> AbstractContextManager[object]:
        """Autocast where 16 bits are asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


@dataclass(frozen=True, slots=True)
class Used:
    """Networks that the generator's phase uses and does not train: no module, so that none of them is registered."""

    discriminator: Discriminator | None
    perceptual: nn.Module | None


class GeneratorPhase(nn.Module):
    """Trains generator, keypoint detector and, where there is one, background predictor together."""

    def __init__(
        self,
        generator: Generator,
        keypoint_detector: Detector,
        background_predictor: BackgroundPredictor | None = None,
        *,
        used: Used,
        train: MotionTrainConfig,
        align_corners: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.keypoint_detector = keypoint_detector
        self.background_predictor = background_predictor
        self.pyramid = ImagePyramid(train.perceptual_scales)
        self.used, self.align_corners, self.precision = used, align_corners, precision
        self.weights: LossConfig = train.losses
        self.points_tps = train.transform.points_tps

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``source`` and ``driving`` in [0, 1], (B, 3, H, W); ``theta`` (B, 2, 3) and ``control_params``
                (B, 1, P * P) of the equivariance losses' warp, unless both have the weight 0.
            carry: nothing is read.

        Returns:
            The weighted losses; ``prediction`` and the driving ``keypoints`` for the discriminator's phase.
        """
        source, driving = batch["source"], batch["driving"]
        with self.precision.context():
            seen: Keypoints = self.keypoint_detector(source)
            wanted: Keypoints = self.keypoint_detector(driving)
            background = None if self.background_predictor is None else self.background_predictor(source, driving)
            made = self.generator(
                source, source_keypoints=seen, driving_keypoints=wanted, background=background
            ).prediction
            losses = self._appearance(made, driving)
            losses |= self._adversarial(made, driving, wanted)
            losses |= self._equivariance(batch, wanted)
        return PhaseOutput(losses, {"prediction": made.detach(), "keypoints": wanted.value.detach()})

    def _appearance(self, made: Tensor, driving: Tensor) -> dict[str, Tensor]:
        weights, features = self.weights.perceptual, self.used.perceptual
        losses = {}
        if features is not None and any(weights):
            sizes, real_sizes = self.pyramid(made), self.pyramid(driving)
            terms = []
            for scale, size in sizes.items():
                levels = features(size)
                with torch.no_grad():
                    wanted = features(real_sizes[scale])
                terms += [weighted_l1(a, b, w) for a, b, w in zip(levels, wanted, weights, strict=False) if w]
            losses["perceptual"] = _sum(terms)
        if self.weights.pixel:
            losses["pixel"] = weighted_l1(made, driving, self.weights.pixel)
        return losses

    def _adversarial(self, made: Tensor, driving: Tensor, wanted: Keypoints) -> dict[str, Tensor]:
        discriminator = self.used.discriminator
        if discriminator is None:
            return {}
        keypoints = wanted.detach()
        with Frozen(discriminator):
            judged: list[Judged] = discriminator(made, keypoints)
            with torch.no_grad():
                real: list[Judged] = discriminator(driving, keypoints)
        losses = {"gan": generator_gan([one.score for one in judged], self.weights) * self.weights.generator_gan}
        weights = self.weights.feature_matching
        pairs = zip(judged, real, strict=True)
        triples = [triple for a, b in pairs for triple in zip(a.features, b.features, weights, strict=False)]
        if any(weights):
            losses["feature_matching"] = _sum([weighted_l1(a, b, w) for a, b, w in triples if w])
        return losses

    def _equivariance(self, batch: Batch, wanted: Keypoints) -> dict[str, Tensor]:
        """Keypoints of a warped frame, warped back, are the keypoints (NeurIPS 2019, equations 7 to 9).

        Regions likewise, by their centres and axes (CVPR 2021); axes have no direction.
        """
        weights, losses = self.weights, {}
        if not (weights.equivariance_value or weights.equivariance_jacobian):
            return {}
        if "theta" not in batch:
            raise ShapeError(must("the batch", "hold the warp of the equivariance losses", sorted(batch)))
        transform = Transform(
            theta=batch["theta"],
            control_params=batch["control_params"],
            points_tps=self.points_tps,
            align_corners=self.align_corners,
        )
        found: Keypoints = self.keypoint_detector(transform.warp_frame(batch["driving"]))
        value, wanted_value = _as(found.value, batch["theta"]), _as(wanted.value, batch["theta"])
        if weights.equivariance_value:
            back = transform.warp_points(value)
            losses["equivariance_value"] = weighted_l1(wanted_value, back, weights.equivariance_value)
        if weights.equivariance_jacobian and found.jacobian is not None and wanted.jacobian is not None:
            moved = product_2x2(transform.jacobian(value), _as(found.jacobian, value))
            ratio = product_2x2(inverse_2x2(_as(wanted.jacobian, value)), moved)
            ratio = ratio if wanted.covariance is None else aligned(ratio)
            unit = torch.eye(2, dtype=ratio.dtype, device=ratio.device)
            losses["equivariance_jacobian"] = weighted_l1(unit, ratio, weights.equivariance_jacobian)
        return losses


class DiscriminatorPhase(nn.Module):
    """Trains the discriminator on the generator phase's frame, which was made before the generator's update."""

    def __init__(self, discriminator: Discriminator, *, losses: LossConfig, precision: Precision) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.losses, self.precision = losses, precision

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The loss of `discriminator_gan`, the generated frame first, the real one second.

        Args:
            batch: ``driving`` in [0, 1], (B, 3, H, W).
            carry: ``prediction`` likewise, and ``keypoints`` (B, K, 2), both detached.
        """
        keypoints = Keypoints(carry["keypoints"], None)
        with self.precision.context():
            made: list[Judged] = self.discriminator(carry["prediction"], keypoints)
            real: list[Judged] = self.discriminator(batch["driving"], keypoints)
            bad, good = [one.score for one in made], [one.score for one in real]
            loss = discriminator_gan(bad, good, self.losses) * self.losses.discriminator_gan
        return PhaseOutput({"gan": loss}, {})


def generator_gan(made: Sequence[Tensor], losses: LossConfig) -> Tensor:
    """What the generator minimises of the scores of its frames, a map for each scale.

    ``lsgan``: (1 - fake)^2 (Mao et al., ICCV 2017). ``hinge``: -relu(alpha + fake). The paper prints a minus before
    both hinge losses, which would turn the discriminator's aim round: it is taken for a slip.
    """
    if losses.gan == "hinge":
        return _sum([-F.relu(losses.hinge_alpha + score).mean() for score in made])
    return _sum([(1 - score).square().mean() for score in made])


def discriminator_gan(made: Sequence[Tensor], real: Sequence[Tensor], losses: LossConfig) -> Tensor:
    """What the discriminator minimises: (1 - real)^2 + fake^2, or relu(beta - real) + relu(delta + fake)."""
    pairs = zip(made, real, strict=True)
    if losses.gan == "hinge":
        beta, delta = losses.hinge_beta, losses.hinge_delta
        return _sum([(F.relu(beta - good) + F.relu(delta + bad)).mean() for bad, good in pairs])
    return _sum([((1 - good).square() + bad.square()).mean() for bad, good in pairs])


@dataclass(slots=True)
class Frozen:
    """Gradients pass through the module and reach none of its weights."""

    module: nn.Module
    _trained: list[nn.Parameter] = field(default_factory=list)

    def __enter__(self) -> None:
        self._trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(True)


def weighted_l1(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Mean absolute difference times ``weight``, in at least 32 bits."""
    return (wide(a) - wide(b)).abs().mean() * weight


def _as(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
