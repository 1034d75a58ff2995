"""How the motion family is trained: samples, phases, pictures; `training.recipes.motion_phases` holds the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ParamsError, Problem
from models.motion.background import BackgroundPredictor
from models.motion.config import MotionConfig
from models.motion.discriminator import Discriminator
from models.motion.equivariance import draw_parameters
from models.motion.generator import Generated, Generator
from models.motion.keypoints import Detector, Keypoints
from models.perceptual import build_perceptual
from training import pictures
from training.augment import augment
from training.config import MotionTrainConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.randomness import keyed
from training.recipes.motion_phases import DiscriminatorPhase, GeneratorPhase, Precision, Used
from training.speed import chosen, prepare_networks

AVERAGED = ("generator", "keypoint_detector", "background_predictor")
PERCEPTUAL_LEVELS = 5
PICTURED_PAIRS = 4
"""Rows of the grids of pictures."""


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: MotionConfig,
    train: MotionTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: nn.Module | None = None,
) -> MotionRecipe:
    """Set up the training of the motion family.

    Args:
        networks: of `models.motion.networks.build`; moved to ``device`` and ``dtype``.
        model: their configuration.
        train: weights of the losses, learning rates and so on.
        device: where the training computes.
        dtype: of the weights; float64 shows that two ways of computing are the same but for rounding.
        perceptual: features for the perceptual loss, image (B, 3, H, W) -> list of maps; the configured backbone
            unless given.

    Raises:
        ParamsError: the losses want a discriminator and the model has none, or the batch is too small for the model.
    """
    _check(model, train)
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    if perceptual is None and train.needs_backbone():
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    if perceptual is not None:
        perceptual.to(device=device, dtype=dtype)
    used = {} if perceptual is None else {"perceptual": perceptual}
    prepare_networks({**networks, **used}, chosen(train, device), device)
    return MotionRecipe(networks, model=model, train=train, device=device, dtype=dtype, perceptual=perceptual)


class MotionRecipe:
    """Phases, samples and pictures of the motion family."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        model: MotionConfig,
        train: MotionTrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        perceptual: nn.Module | None,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.averaged: tuple[str, ...] = tuple(name for name in AVERAGED if name in networks)
        self.model, self.train, self.device, self.dtype = model, train, device, dtype
        self.precision = Precision(device=device, bf16=train.precision == "bf16")
        self.phases: Sequence[Phase] = self._phases(perceptual)

    def _phases(self, perceptual: nn.Module | None) -> list[Phase]:
        generator, detector, background, discriminator = motion_networks(self.networks)
        train, adversarial = self.train, self.train.losses.gan != "none"
        module = GeneratorPhase(
            generator,
            detector,
            background,
            used=Used(discriminator if adversarial else None, perceptual),
            train=train,
            align_corners=self.model.align_corners,
            precision=self.precision,
        ).to(device=self.device, dtype=self.dtype)
        groups = {
            "generator": (generator.parameters(), train.lr_generator),
            "keypoint_detector": (detector.parameters(), train.lr_keypoint_detector),
        }
        if background is not None:
            groups["background_predictor"] = (background.parameters(), train.lr_generator)
        fused = chosen(train, self.device).fused_optimizer
        phases = [self._phase("generator", module, adam(groups, train.adam_betas, fused=fused))]
        if adversarial and discriminator is not None:
            judge = DiscriminatorPhase(discriminator, losses=train.losses, precision=self.precision)
            judged = {"discriminator": (discriminator.parameters(), train.lr_discriminator)}
            optimizer = adam(judged, train.adam_betas, fused=fused)
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
        """Frames to the device, in [0, 1], randomly changed; a random warp per sample, keyed by its number."""
        frames = augment(
            self._image(pairs.source), self._image(pairs.driving), pairs.items, self.train.augment, self.train.seed
        )
        batch = dict(zip(("source", "driving"), frames, strict=True))
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
        with torch.no_grad(), self.precision.context():
            made, _ = reconstruction(networks, self._image(source), self._image(driving))
        return made.prediction

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per pair: what it was made from, how it was moved, what came out.

        Source and driving frame with keypoints or regions, the flow as colours (hue its direction, strength its
        length), every occlusion map, the moved source, the result.
        """
        source, driving = (self._image(frames[:PICTURED_PAIRS]) for frames in (pairs.source, pairs.driving))
        with torch.no_grad():
            made, points = reconstruction(networks, source, driving)
        height, width = source.shape[-2:]
        columns = [_marked(frame, found) for frame, found in zip((source, driving), points, strict=True)]
        columns.append(pictures.enlarged(pictures.flow_colours(made.motion.deformation), height, width))
        for occlusion in made.motion.occlusion:
            columns.append(pictures.enlarged(pictures.as_frames(occlusion.expand(-1, 3, -1, -1)), height, width))
        columns += [pictures.as_frames(made.deformed), pictures.as_frames(made.prediction)]
        return {"reconstruction": pictures.grid(columns)}

    def _image(self, frames: Tensor) -> Tensor:
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)


def reconstruction(
    networks: Mapping[str, nn.Module], source: Tensor, driving: Tensor
) -> tuple[Generated, tuple[Keypoints, Keypoints]]:
    """Make driving frames from source frames, with the camera's motion where the model knows one.

    Args:
        networks: of `models.motion.networks.build`.
        source: in [0, 1], (B, 3, H, W).
        driving: likewise.

    Returns:
        What was made, and both frames' keypoints.
    """
    generator, detector, background, _ = motion_networks(networks)
    points: tuple[Keypoints, Keypoints] = (detector(source), detector(driving))
    moved = None if background is None else background(source, driving)
    made = generator(source, source_keypoints=points[0], driving_keypoints=points[1], background=moved)
    return made, points


def motion_networks(
    networks: Mapping[str, nn.Module],
) -> tuple[Generator, Detector, BackgroundPredictor | None, Discriminator | None]:
    """The networks of the family by their types."""
    generator, detector = networks["generator"], networks["keypoint_detector"]
    background, discriminator = networks.get("background_predictor"), networks.get("discriminator")
    assert isinstance(generator, Generator), "networks['generator'] is the motion family's"
    assert isinstance(detector, Detector), "networks['keypoint_detector'] is the motion family's"
    assert background is None or isinstance(background, BackgroundPredictor), "the background predictor likewise"
    assert discriminator is None or isinstance(discriminator, Discriminator), "the discriminator likewise"
    return generator, detector, background, discriminator


def _marked(image: Tensor, points: Keypoints) -> np.ndarray:
    value = points.value.float().cpu().numpy()
    if points.covariance is None:
        return pictures.with_points(pictures.as_frames(image), value)
    return pictures.with_regions(pictures.as_frames(image), value, points.covariance.float().cpu().numpy())


def _check(model: MotionConfig, train: MotionTrainConfig) -> None:
    """What neither configuration can know alone."""
    problems = []
    if train.losses.gan != "none" and not model.discriminator:
        problems.append(Problem("losses.gan", train.losses.gan, "be none, or model.discriminator be true"))
    losses = train.losses
    shown = any(losses.perceptual) and bool(train.perceptual_scales)
    moved = losses.equivariance_value or losses.equivariance_jacobian
    if not (shown or losses.pixel or losses.gan != "none" or moved):
        problems.append(Problem("losses", "weights of 0 alone", "have a term above 0"))
    if len(losses.perceptual) > PERCEPTUAL_LEVELS:
        rule = f"have a weight for each level of the backbone, {PERCEPTUAL_LEVELS} at most"
        problems.append(Problem("losses.perceptual", losses.perceptual, rule))
    if model.hourglass_attention == "channel" and train.batch_size < 2:
        rule = "be 2 or more with hourglass_attention: channel, which normalises one pixel over the batch"
        problems.append(Problem("batch_size", train.batch_size, rule))
    if problems:
        raise ParamsError(problems)
