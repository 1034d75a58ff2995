"""How the motion family is trained: keypoints and generator in one phase, the discriminator in another.

Losses after Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, section 3.4 and the
published configurations; the order of operations is the published training's, so that batch statistics and spectral
norms move alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.resampling import ImagePyramid
from models.motion.config import MotionConfig
from models.motion.discriminator import Discriminator, Judged
from models.motion.equivariance import Transform, draw_parameters
from models.motion.generator import Generator
from models.motion.geometry import inverse_2x2, product_2x2
from models.motion.keypoints import KeypointDetector, Keypoints
from models.perceptual import build_perceptual
from training import pictures
from training.config import LossConfig, TrainConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase, PhaseOutput
from training.randomness import keyed

AVERAGED = ("generator", "keypoint_detector")
PICTURED_PAIRS = 4
"""Rows of the grids of pictures."""


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: MotionConfig,
    train: TrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: nn.Module | None = None,
) -> MotionRecipe:
    """Set up the training of the motion family.

    Args:
        networks: ``generator``, ``keypoint_detector`` and ``discriminator``; moved to ``device`` and ``dtype``.
        model: their configuration.
        train: weights of the losses, learning rates and so on.
        device: where the training computes.
        dtype: of the weights; float64 shows that two ways of computing are the same but for rounding.
        perceptual: features for the perceptual loss, image (B, 3, H, W) -> list of maps; the configured backbone
            unless given.
    """
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    if perceptual is None and any(train.losses.perceptual) and train.perceptual_scales:
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    if perceptual is not None:
        perceptual.to(device=device, dtype=dtype)
    return MotionRecipe(networks, model=model, train=train, device=device, dtype=dtype, perceptual=perceptual)


class MotionRecipe:
    """Phases, samples and pictures of the motion family."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        model: MotionConfig,
        train: TrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        perceptual: nn.Module | None,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.averaged: tuple[str, ...] = AVERAGED
        self.model, self.train, self.device, self.dtype = model, train, device, dtype
        self.precision = Precision(device=device, bf16=train.precision == "bf16")
        self.phases: Sequence[Phase] = self._phases(perceptual)

    def _phases(self, perceptual: nn.Module | None) -> list[Phase]:
        generator, detector = self.networks["generator"], self.networks["keypoint_detector"]
        discriminator = self.networks["discriminator"]
        assert isinstance(generator, Generator), "networks['generator'] is the motion family's"
        assert isinstance(detector, KeypointDetector), "networks['keypoint_detector'] is the motion family's"
        assert isinstance(discriminator, Discriminator), "networks['discriminator'] is the motion family's"
        train, adversarial = self.train, self.train.losses.generator_gan > 0
        module = GeneratorPhase(
            generator,
            detector,
            used=Used(discriminator if adversarial else None, perceptual),
            train=train,
            align_corners=self.model.align_corners,
            precision=self.precision,
        ).to(device=self.device, dtype=self.dtype)
        groups = {
            "generator": (generator.parameters(), train.lr_generator),
            "keypoint_detector": (detector.parameters(), train.lr_keypoint_detector),
        }
        phases = [self._phase("generator", module, adam(groups, train.adam_betas))]
        if adversarial:
            judge = DiscriminatorPhase(discriminator, weight=train.losses.discriminator_gan, precision=self.precision)
            optimizer = adam({"discriminator": (discriminator.parameters(), train.lr_discriminator)}, train.adam_betas)
            phases.append(self._phase("discriminator", judge, optimizer))
        return phases

    def _phase(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> Phase:
        return Phase(
            name=name,
            module=module,
            optimizer=optimizer,
            scheduler=schedule(optimizer, self.train),
            max_grad_norm=self.train.max_grad_norm,
        )

    def prepare(self, pairs: PairBatch) -> Batch:
        """Frames to the device, in [0, 1]; one random warp per sample, keyed by the sample's number."""
        batch = {"source": self._image(pairs.source), "driving": self._image(pairs.driving)}
        losses = self.train.losses
        if losses.equivariance_value or losses.equivariance_jacobian:
            key = (self.train.seed, "equivariance")
            drawn = [draw_parameters(keyed(*key, int(item)), self.train.transform) for item in pairs.items]
            for name in ("theta", "control_params"):
                stacked = np.stack([getattr(parameters, name) for parameters in drawn])
                batch[name] = torch.from_numpy(stacked).to(self.device, self.dtype)
        return batch

    def reconstruct(self, networks: Mapping[str, nn.Module], source: Tensor, driving: Tensor) -> Tensor:
        """Make ``driving`` (uint8, (B, 3, H, W)) from ``source``: in [0, 1], (B, 3, H, W)."""
        detector, generator = networks["keypoint_detector"], networks["generator"]
        frames = self._image(source), self._image(driving)
        with torch.no_grad(), self.precision.context():
            keypoints = [detector(frame) for frame in frames]
            made = generator(frames[0], source_keypoints=keypoints[0], driving_keypoints=keypoints[1])
        prediction: Tensor = made.prediction
        return prediction

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per pair: source and driving with keypoints, moved source, occlusion map, result."""
        source, driving = (self._image(frames[:PICTURED_PAIRS]) for frames in (pairs.source, pairs.driving))
        detector, generator = networks["keypoint_detector"], networks["generator"]
        with torch.no_grad():
            seen, wanted = detector(source), detector(driving)
            made = generator(source, source_keypoints=seen, driving_keypoints=wanted)
        columns = [
            pictures.with_points(pictures.as_frames(source), seen.value.float().cpu().numpy()),
            pictures.with_points(pictures.as_frames(driving), wanted.value.float().cpu().numpy()),
            pictures.as_frames(made.deformed),
            pictures.as_frames(made.prediction),
        ]
        if made.occlusion is not None:
            size = source.shape[-2], source.shape[-1]
            occlusion = nn.functional.interpolate(made.occlusion, size=size)
            columns.insert(3, pictures.as_frames(occlusion.expand(-1, 3, -1, -1)))
        return {"reconstruction": pictures.grid(columns)}

    def _image(self, frames: Tensor) -> Tensor:
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)


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
    """Trains generator and keypoint detector together."""

    def __init__(
        self,
        generator: Generator,
        keypoint_detector: KeypointDetector,
        *,
        used: Used,
        train: TrainConfig,
        align_corners: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.keypoint_detector = keypoint_detector
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
            made = self.generator(source, source_keypoints=seen, driving_keypoints=wanted).prediction
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
        with _Frozen(discriminator):
            judged: list[Judged] = discriminator(made, keypoints)
            with torch.no_grad():
                real: list[Judged] = discriminator(driving, keypoints)
        losses = {"gan": _sum([(1 - one.score).square().mean() for one in judged]) * self.weights.generator_gan}
        weights = self.weights.feature_matching
        pairs = zip(judged, real, strict=True)
        triples = [triple for a, b in pairs for triple in zip(a.features, b.features, weights, strict=False)]
        if any(weights):
            losses["feature_matching"] = _sum([weighted_l1(a, b, w) for a, b, w in triples if w])
        return losses

    def _equivariance(self, batch: Batch, wanted: Keypoints) -> dict[str, Tensor]:
        """Keypoints of a warped frame, warped back, are the keypoints (equations 7 to 9)."""
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
            unit = torch.eye(2, dtype=ratio.dtype, device=ratio.device)
            losses["equivariance_jacobian"] = weighted_l1(unit, ratio, weights.equivariance_jacobian)
        return losses


class DiscriminatorPhase(nn.Module):
    """Trains the discriminator on the generator phase's frame, which was made before the generator's update."""

    def __init__(self, discriminator: Discriminator, *, weight: float, precision: Precision) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.weight, self.precision = weight, precision

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Least-squares loss (Mao et al., ICCV 2017), the generated frame first, the real one second.

        Args:
            batch: ``driving`` in [0, 1], (B, 3, H, W).
            carry: ``prediction`` likewise, and ``keypoints`` (B, K, 2), both detached.
        """
        keypoints = Keypoints(carry["keypoints"], None)
        with self.precision.context():
            made: list[Judged] = self.discriminator(carry["prediction"], keypoints)
            real: list[Judged] = self.discriminator(batch["driving"], keypoints)
            pairs = zip(made, real, strict=True)
            terms = [((1 - good.score).square() + bad.score.square()).mean() for bad, good in pairs]
            loss = _sum(terms) * self.weight
        return PhaseOutput({"gan": loss}, {})


@dataclass(slots=True)
class _Frozen:
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
    return (_wide(a) - _wide(b)).abs().mean() * weight


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _as(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
