"""How DualStyleGAN's extrinsic path is fine-tuned, in the source domain and then in the target domain.

`dualstyle_phases` holds the phases, `dualstyle_losses` the losses. Every draw is keyed by the sample, and what a whole
step does alike by the step: nothing depends on ranks, nor on where a training was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ClipError, ParamsError, Problem, must
from models.perceptual import build_perceptual
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from models.style.stylegan2.generator import mixed
from training import pictures
from training.dualstyle_feed import CodedBatch
from training.face_config import FaceTrainConfig, StyleTransferConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.randomness import keyed
from training.recipes.dualstyle_phases import (
    Around,
    DiscriminatorPhase,
    Embed,
    SlopePhase,
    SourcePhase,
    TargetPhase,
)
from training.recipes.motion_phases import Precision
from training.speed import chosen

PICTURED = 4


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: FaceConfig,
    train: FaceTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: nn.Module | None = None,
    embed: Embed | None = None,
) -> DualStyleRecipe:
    """Set up the fine-tuning of a DualStyleGAN.

    Args:
        networks: of `models.style.face_networks.build_dualstyle`; moved to ``device`` and ``dtype``. The generator's
            StyleGAN2 and the encoder are trained already, and stand still.
        model: their configuration.
        train: learning rates, precision, weights of the losses.
        device: where the training computes.
        dtype: of the weights.
        perceptual: features that the losses rest on; the configured backbone unless given.
        embed: tells faces apart; the backbone's deepest features unless given.

    Raises:
        ParamsError: the losses do not fit the domain or the networks.
    """
    _check(model, train.transfer)
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    if perceptual is None:
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    perceptual.to(device=device, dtype=dtype)
    return DualStyleRecipe(networks, train=train, device=device, dtype=dtype, perceptual=perceptual, embed=embed)


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
        embed: Embed | None = None,
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
            embed=embed,
        )
        self.phases: Sequence[Phase] = [self._making(), *self._judging()]

    def _making(self) -> Phase:
        """The extrinsic path's phase."""
        module = (SourcePhase if self.transfer.domain == "source" else TargetPhase)(self.around)
        module.to(self.device)
        groups = {"residuals": self.generator.residuals, "style": self.generator.style}
        optimizer = self._adam(self.train.lr_generator, groups, every_n_steps=None)
        return self._phase("generator", module, optimizer)

    def _judging(self) -> list[Phase]:
        """The discriminator's phase and its penalty's, which train with one optimiser."""
        if not self.transfer.adversarial:
            return []
        discriminator, gan = self.networks["discriminator"], self.train.gan
        every = gan.r1_every_steps if gan.r1 else None
        groups = {"discriminator": discriminator}
        optimizer = self._adam(self.train.lr_discriminator, groups, every_n_steps=every)
        phases = [self._phase("discriminator", DiscriminatorPhase(discriminator, self.around), optimizer)]
        if every is not None:
            slope = SlopePhase(discriminator, self.around)
            phases.append(Phase(name="r1", module=slope, optimizer=optimizer, every_n_steps=every))
        return phases

    def _adam(
        self, rate: float, networks: Mapping[str, nn.Module], *, every_n_steps: int | None
    ) -> torch.optim.Optimizer:
        """Adam; where a penalty takes a further step every n, slower by n / (n + 1) (Karras et al., appendix B)."""
        share = 1.0 if every_n_steps is None else every_n_steps / (every_n_steps + 1)
        first, second = self.train.adam_betas
        groups = {name: (network.parameters(), rate * share) for name, network in networks.items()}
        return adam(groups, (first**share, second**share), fused=chosen(self.train, self.device).fused_optimizer)

    def _phase(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> Phase:
        return Phase(
            name=name,
            module=module,
            optimizer=optimizer,
            scheduler=schedule(optimizer, self.train),
            max_grad_norm=self.train.max_grad_norm,
        )

    def prepare(self, pairs: PairBatch) -> Batch:
        """Bring pictures and codes to the device and draw the rest, keyed by sample and step.

        Args:
            pairs: faces (``source``); in the target domain a `CodedBatch`, whose style pictures come with codes.

        Raises:
            ClipError: codes are missing.
        """
        step = int(pairs.items.min()) // self.train.batch_size
        if self.transfer.domain == "source":
            return self._of_source(pairs, step)
        if not isinstance(pairs, CodedBatch):
            fix = "Destylise the style pictures first"
            raise ClipError(must("the style pictures", "come with their codes", "none", fix))
        return self._of_target(pairs, step)

    def _of_source(self, pairs: PairBatch, step: int) -> Batch:
        return {
            "real": self._image(pairs.source),
            "z1": self._normal(pairs, "z1"),
            "z2": self._normal(pairs, "z2"),
            "layer": self._alike(pairs, layer_at(self.transfer, step)),
            "encoded": self._alike(pairs, falls_to(step, self.transfer.encoded_share)),
        }

    def _of_target(self, pairs: CodedBatch, step: int) -> Batch:
        style = self._image(pairs.driving)
        paired = falls_to(step, self.transfer.paired_share)
        # Counted among the unpaired steps alone, so that the two shares do not fall into each other's step.
        others = step - taken(step, self.transfer.paired_share)
        encoded = not paired and falls_to(others, self.transfer.encoded_share)
        jitter = self._normal(pairs, "jitter", *pairs.extrinsic.shape[1:]) * self.transfer.code_jitter
        return {
            "real": style,
            "style": style,
            "photo": self._image(pairs.source),
            "extrinsic": self._code(pairs.extrinsic) + jitter,
            "intrinsic": self._paired(pairs) if paired else self._random(pairs),
            "paired": self._alike(pairs, paired),
            "encoded": self._alike(pairs, encoded),
        }

    def _paired(self, pairs: CodedBatch) -> Tensor:
        """The style pictures' own codes of structure; those of colour are drawn, for colour is extrinsic."""
        change = self.generator.config.structure_layers
        own = self._code(pairs.intrinsic)
        return torch.cat([own[:, :change], self._normal(pairs, "colour", *own.shape[1:])[:, change:]], dim=1)

    def _random(self, pairs: CodedBatch) -> Tensor:
        """Codes of a face that does not exist; mostly of two, that change at a layer drawn at random."""
        one, two = (self._normal(pairs, name) for name in ("z1", "z2"))
        num = self.generator.config.num_styles
        layers = []
        for item in pairs.items:
            draw = keyed(self.train.seed, "mixing", int(item))
            layers.append(int(draw.integers(1, num)) if draw.random() < self.train.gan.mixing else num)
        spread = self.generator.generator.spread
        return mixed(spread(one), spread(two), torch.tensor(layers))

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor, extrinsic: Tensor) -> Tensor:
        """Photos in the manner of style pictures.

        Args:
            networks: whose ``generator`` draws; the encoder is the recipe's own.
            photo: uint8, (B, 3, H, W).
            extrinsic: codes in Z+, (B, S, D).

        Returns:
            In [0, 1], (B, 3, H, W).
        """
        generator = networks["generator"]
        weights = torch.ones(self.generator.config.num_styles, device=self.device, dtype=self.dtype)
        with torch.no_grad(), self.around.precision.context():
            made: Tensor = generator(self.around.encoded(self._image(photo)), self._code(extrinsic), weights)
        return made.clamp(0, 1)

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per sample.

        Source domain: what the intrinsic codes alone give, the extrinsic ones alone, what is wanted, what is made.
        Target domain: the photo, what StyleGAN2 makes of its codes, the style picture, the photo in its manner.
        """
        if isinstance(pairs, CodedBatch) and self.transfer.domain == "target":
            columns = self._styled(networks, pairs)
        else:
            columns = self._exchanged(networks, pairs)
        return {"styled": pictures.grid([pictures.as_frames(column.clamp(0, 1)) for column in columns])}

    def _styled(self, networks: Mapping[str, nn.Module], pairs: CodedBatch) -> list[Tensor]:
        photo, style = pairs.source[:PICTURED], pairs.driving[:PICTURED]
        seen = self._image(photo)
        plain = self.around.plain(self.generator.styles(self.around.encoded(seen)))
        return [seen, plain, self._image(style), self.stylise(networks, photo, pairs.extrinsic[:PICTURED])]

    @torch.no_grad()
    def _exchanged(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> list[Tensor]:
        one, two = (self._normal(pairs, name)[:PICTURED] for name in ("z1", "z2"))
        first, second = (self.generator.styles(z) for z in (one, two))
        target = mixed(first, second, self.transfer.layers[-1])
        weights = torch.ones(first.shape[1], device=self.device, dtype=self.dtype)
        made: Tensor = networks["generator"](one, two, weights)
        return [*(self.around.plain(styles) for styles in (first, second, target)), made]

    def _normal(self, pairs: PairBatch, name: str, *shape: int) -> Tensor:
        """Numbers of the normal distribution, (B, D) or of a shape, keyed by the samples."""
        size = shape or (self.generator.config.style_dim,)
        drawn = [
            keyed(self.train.seed, name, int(item)).standard_normal(size, dtype=np.float32) for item in pairs.items
        ]
        return self._code(torch.from_numpy(np.stack(drawn)))

    def _alike(self, pairs: PairBatch, value: int) -> Tensor:
        """What holds for the whole step, once for every sample, int64, (B,)."""
        return torch.full((len(pairs.items),), int(value), device=self.device)

    def _code(self, codes: Tensor) -> Tensor:
        return codes.to(device=self.device, dtype=self.dtype)

    def _image(self, frames: Tensor) -> Tensor:
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)


def layer_at(transfer: StyleTransferConfig, step: int) -> int:
    """From which layer on the codes are exchanged in ``step`` (from 0); after the last span, as in it."""
    for layer, end in zip(transfer.layers, np.cumsum(transfer.layer_steps), strict=True):
        if step < end:
            return layer
    return transfer.layers[-1]


def falls_to(step: int, share: float) -> bool:
    """Whether ``step`` (from 0) is one of a share of all steps that lie as evenly as can be."""
    return taken(step + 1, share) > taken(step, share)


def taken(steps: int, share: float) -> int:
    """How many of the first ``steps`` are of the share; the small number is what 10 x 0.3 lacks of 3."""
    return int(steps * share + 1e-9)


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
