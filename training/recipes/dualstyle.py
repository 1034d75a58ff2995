"""How DualStyleGAN's extrinsic path is fine-tuned, in the source domain and then in the target domain.

`dualstyle_samples` draws what a step needs, `dualstyle_phases` holds the phases, `dualstyle_losses` the losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ParamsError, Problem
from models.layers.precision import wide
from models.perceptual import build_perceptual
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.face_networks import build_dualstyle
from models.style.psp import Encoder
from models.style.stylegan2.generator import mixed
from training import ada, pictures
from training.dualstyle_feed import CodedBatch
from training.face_config import FaceTrainConfig, StyleTransferConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.recipes.dualstyle_phases import (
    Around,
    DiscriminatorPhase,
    PathPhase,
    SlopePhase,
    SourcePhase,
    TargetPhase,
)
from training.recipes.dualstyle_samples import Samples
from training.recipes.face_encoder import Identity
from training.recipes.face_gan_phases import PathMean
from training.recipes.motion_phases import Precision
from training.speed import chosen

PICTURED = 4


def build_networks(config: FaceConfig) -> dict[str, nn.Module]:
    """Fresh networks of a training: those of DualStyleGAN, and what else a checkpoint has to hold.

    ``augmentation`` and ``path`` have no weights: their buffers are the augmentation's probability and the running mean
    of the path's length.
    """
    return {**build_dualstyle(config), "augmentation": ada.Augmentation(), "path": PathMean()}


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: FaceConfig,
    train: FaceTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: nn.Module | None = None,
    identity: Identity | None = None,
) -> DualStyleRecipe:
    """Set up the fine-tuning of a DualStyleGAN.

    Args:
        networks: of `build_networks`; moved to ``device`` and ``dtype``. The generator's StyleGAN2 and the encoder are
            trained already, and stand still. The augmentation's probability is set to ``gan.ada_initial``.
        model: their configuration.
        train: learning rates, precision, weights of the losses.
        device: where the training computes.
        dtype: of the weights.
        perceptual: features that the losses rest on; the configured backbone unless given.
        identity: a face recogniser; the backbone's deepest features unless given.

    Raises:
        ParamsError: the losses do not fit the domain or the networks.
    """
    _check(model, train.transfer)
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    cast(ada.Augmentation, networks["augmentation"]).probability.fill_(train.gan.ada_initial)
    if perceptual is None:
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    perceptual.to(device=device, dtype=dtype)
    return DualStyleRecipe(networks, train=train, device=device, dtype=dtype, perceptual=perceptual, identity=identity)


class DualStyleRecipe:
    """Phases, samples and pictures of DualStyleGAN's fine-tuning."""

    averaged: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        train: FaceTrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        perceptual: nn.Module,
        identity: Identity | None = None,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.train, self.transfer, self.device, self.dtype = train, train.transfer, device, dtype
        self.generator = cast(DualStyleGenerator, self.networks["generator"])
        self.encoder = cast(Encoder, self.networks["encoder"])
        self.generator.generator.requires_grad_(False)
        self.encoder.requires_grad_(False)
        self.around = Around(
            transfer=train.transfer,
            gan=train.gan,
            precision=Precision(device=device, bf16=train.precision == "bf16"),
            generator=self.generator,
            discriminator=self.networks["discriminator"],
            encoder=self.encoder,
            perceptual=perceptual,
            augmentation=cast(ada.Augmentation, self.networks["augmentation"]),
            path=cast(PathMean, self.networks["path"]),
            batch_size=train.batch_size,
            parts=train.accumulate,
            identity=identity,
        )
        self.samples = Samples(train, self.generator, device, dtype)
        self.phases: Sequence[Phase] = [*self._making(), *self._judging()]

    def _making(self) -> list[Phase]:
        """The extrinsic path's phase and its path length's, which train with one optimiser."""
        gan, make = self.train.gan, SourcePhase if self.transfer.domain == "source" else TargetPhase
        groups = {"residuals": self.generator.residuals, "style": self.generator.style}
        every = gan.path_every_steps if gan.path_length else None
        optimizer = self._adam(self.train.lr_generator, groups, every)
        phases = [self._phase("generator", make(self.around).to(self.device), optimizer)]
        if every is not None:
            module = PathPhase(self.around).to(self.device)
            phases.append(self._phase("path", module, optimizer, every_n_steps=every))
        return phases

    def _judging(self) -> list[Phase]:
        """The discriminator's phase and its penalty's, which train with one optimiser."""
        if not self.transfer.adversarial:
            return []
        discriminator, gan = self.networks["discriminator"], self.train.gan
        every = gan.r1_every_steps if gan.r1 else None
        optimizer = self._adam(self.train.lr_discriminator, {"discriminator": discriminator}, every)
        phases = [self._phase("discriminator", DiscriminatorPhase(discriminator, self.around), optimizer)]
        if every is not None:
            phases.append(self._phase("slope", SlopePhase(discriminator, self.around), optimizer, every_n_steps=every))
        return phases

    def _adam(self, rate: float, networks: Mapping[str, nn.Module], every: int | None) -> torch.optim.Optimizer:
        """Adam that steps once more for a penalty ``every`` few steps, and so learns and forgets less.

        Karras et al., CVPR 2020, appendix B.
        """
        share = 1.0 if every is None else every / (every + 1)
        first, second = self.train.adam_betas
        groups = {name: (network.parameters(), rate * share) for name, network in networks.items()}
        return adam(groups, (first**share, second**share), fused=chosen(self.train, self.device).fused_optimizer)

    def _phase(
        self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer, *, every_n_steps: int | None = None
    ) -> Phase:
        """A phase of every step, with the schedule of its optimiser, or of every n-th one."""
        return Phase(
            name=name,
            module=module,
            optimizer=optimizer,
            scheduler=schedule(optimizer, self.train) if every_n_steps is None else None,
            every_n_steps=every_n_steps or 1,
            parts=self.train.accumulate,
            max_grad_norm=self.train.max_grad_norm,
        )

    def prepare(self, pairs: PairBatch) -> Batch:
        """Bring pictures and codes to the device and draw the rest, keyed by sample and step.

        Args:
            pairs: faces (``source``); in the target domain a `CodedBatch`, whose style pictures come with codes.

        Raises:
            ClipError: codes are missing.
        """
        return self.samples.prepare(pairs, self.phases)

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor, extrinsic: Tensor) -> Tensor:
        """Photos in the manner of style pictures.

        Args:
            networks: whose ``generator`` draws; the encoder is the recipe's own.
            photo: uint8, (B, 3, H, W).
            extrinsic: codes in Z+, (B, S, D).

        Returns:
            In [0, 1], (B, 3, H, W).
        """
        return self.draw(networks, self.around.encoded(self.samples.image(photo)), extrinsic)

    @torch.no_grad()
    def draw(self, networks: Mapping[str, nn.Module], intrinsic: Tensor, extrinsic: Tensor) -> Tensor:
        """Pictures of codes in Z+, (B, S, D) or (B, D), with weights of 1: in [0, 1], (B, 3, H, W)."""
        weights = torch.ones(self.generator.config.num_styles, device=self.device, dtype=self.dtype)
        codes = self.samples.code(intrinsic), self.samples.code(extrinsic)
        with self.around.precision.context():
            made: Tensor = networks["generator"](*codes, weights)
        return wide(made).clamp(0, 1)

    @torch.no_grad()
    def plain(self, intrinsic: Tensor) -> Tensor:
        """What StyleGAN2 makes of codes in Z+, the extrinsic path left out: in [0, 1], (B, 3, H, W)."""
        with self.around.precision.context():
            made = self.around.plain(self.generator.styles(self.samples.code(intrinsic)))
        return wide(made).clamp(0, 1)

    @torch.no_grad()
    def exchanged(self, networks: Mapping[str, nn.Module], items: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the source domain is about, for samples of these numbers.

        Returns:
            What the intrinsic code alone gives, the extrinsic one alone, both exchanged at the last layer, and what
            the networks make of the two: in [0, 1], (B, 3, H, W) each.
        """
        one, two = (self.samples.normal_of(items, name) for name in ("z1", "z2"))
        first, second = (self.generator.styles(z) for z in (one, two))
        wanted = self.around.plain(mixed(first, second, self.transfer.layers[-1])).clamp(0, 1)
        return self.plain(one), self.plain(two), wanted, self.draw(networks, one, two)

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per sample.

        Source domain: what the intrinsic codes alone give, the extrinsic ones alone, what is wanted, what is made.
        Target domain: the photo, what StyleGAN2 makes of its codes, the style picture, the photo in its manner.
        """
        columns: Sequence[Tensor]
        if isinstance(pairs, CodedBatch) and self.transfer.domain == "target":
            photo, style = pairs.source[:PICTURED], pairs.driving[:PICTURED]
            seen = self.samples.image(photo)
            made = self.stylise(networks, photo, pairs.extrinsic[:PICTURED])
            columns = [seen, self.plain(self.around.encoded(seen)), self.samples.image(style), made]
        else:
            columns = self.exchanged(networks, pairs.items[:PICTURED])
        return {"styled": pictures.grid([pictures.as_frames(column) for column in columns])}


def _check(model: FaceConfig, transfer: StyleTransferConfig) -> None:
    """What neither configuration can know alone."""
    problems = []
    if transfer.domain == "source":
        if not transfer.perceptual:
            problems.append(Problem("transfer.perceptual", 0.0, "be above 0 in the source domain"))
        for key in ("contextual", "feature_matching", "identity", "regularisation"):
            if value := getattr(transfer, key):
                problems.append(Problem(f"transfer.{key}", value, "be 0 in the source domain, which has no such term"))
        if max(transfer.layers) >= model.num_styles:
            rule = f"each be below the number of styles ({model.num_styles})"
            problems.append(Problem("transfer.layers", transfer.layers, rule))
    elif not any(getattr(transfer, key) for key in ("contextual", "feature_matching", "adversarial")):
        rule = "be above 0, or feature_matching, or adversarial: perceptual is of paired steps alone"
        problems.append(Problem("transfer.contextual", 0.0, rule))
    if problems:
        raise ParamsError(problems)
