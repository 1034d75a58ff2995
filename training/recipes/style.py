"""How the style family is trained on photos and style pictures that are no pairs.

`style_phases` holds the losses of the layouts with one generator, `cycle_phases` those of CycleGAN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ClipError, ParamsError, Problem, must
from models.perceptual import build_perceptual
from models.style.config import StyleConfig
from training import pictures
from training.augment import augment_pictures
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.randomness import keyed
from training.recipes.cycle_phases import CycleAround, CycleCriticPhase, CycleGeneratorPhase
from training.recipes.motion_phases import Precision
from training.recipes.style_phases import Around, CriticPhase, PenaltyPhase, StyleGeneratorPhase, WarmUpPhase
from training.speed import chosen
from training.style_config import StyleLossConfig, StyleTrainConfig

PICTURED = 4


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: StyleConfig,
    train: StyleTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: nn.Module | None = None,
) -> StyleRecipe:
    """Set up the training of a stylising model.

    Args:
        networks: of `models.style.networks.build`; moved to ``device`` and ``dtype``.
        model: their configuration.
        train: learning rates, backbone, precision, weights of the losses, the rhythm of generator and critic.
        device: where the training computes.
        dtype: of the weights.
        perceptual: features for content and texture; the configured backbone unless given.

    Raises:
        ParamsError: the losses do not fit the networks.
    """
    style = train.losses
    _check(model, style)
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    if perceptual is None and train.needs_backbone():
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    if perceptual is not None:
        perceptual.to(device=device, dtype=dtype)
    return StyleRecipe(networks, train=train, device=device, dtype=dtype, perceptual=perceptual)


class StyleRecipe:
    """Phases, samples and pictures of a model that learns from unpaired pictures."""

    averaged: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        train: StyleTrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        perceptual: nn.Module | None,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.train, self.style, self.device, self.dtype = train, train.losses, device, dtype
        self.precision = Precision(device=device, bf16=train.precision == "bf16")
        self.phases: Sequence[Phase] = self._phases(perceptual)

    def _phases(self, perceptual: nn.Module | None) -> list[Phase]:
        if "generator_back" in self.networks:
            return self._cycle()
        around = Around(
            weights=self.style,
            precision=self.precision,
            perceptual=perceptual,
            generator=self.networks["generator"],
            critic=self.networks["critic"] if self.style.gan != "none" else None,
        )
        return [*self._generator(around), *self._critic(around)]

    def _generator(self, around: Around) -> list[Phase]:
        """The warm-up and the generator's own phase."""
        generator, style, begin = self.networks["generator"], self.style, self.style.warm_up_steps
        phases = []
        if begin:
            optimizer = self._adam(style.lr_warm_up, generator=generator)
            warm_up = WarmUpPhase(generator, around)
            phases.append(Phase(name="warm_up", module=warm_up, optimizer=optimizer, stop_step=begin))
        optimizer = self._adam(self.train.lr_generator, generator=generator)
        module = StyleGeneratorPhase(generator, around)
        every = style.critic_steps if style.gan != "none" else 1
        return [*phases, self._phase("generator", module, optimizer, first_step=begin, every_n_steps=every)]

    def _critic(self, around: Around) -> list[Phase]:
        """The critic's phase and the penalty's, which train with one optimiser."""
        critic, style, begin = self.networks["critic"], self.style, self.style.warm_up_steps
        if style.gan == "none":
            return []
        optimizer = self._adam(self.train.lr_discriminator, critic=critic)
        limits = {"wasserstein": style.max_wasserstein} if style.gan == "wgan-gp" else {}
        phases = [self._phase("critic", CriticPhase(critic, around), optimizer, first_step=begin, limits=limits)]
        if style.gan == "wgan-gp":
            slope = PenaltyPhase(critic, around)
            limits = {"slope": style.max_penalty}
            lazily = {"first_step": begin, "every_n_steps": style.penalty_every_steps, "limits": limits}
            phases.append(Phase(name="penalty", module=slope, optimizer=optimizer, **lazily))  # type: ignore[arg-type]
        return phases

    def _cycle(self) -> list[Phase]:
        """Two generators in one phase, their two critics in the other."""
        networks, around = self.networks, CycleAround(self.style, self.precision, self.networks)
        making = CycleGeneratorPhase(networks["generator"], networks["generator_back"], around)
        judging = CycleCriticPhase(networks["critic"], networks["critic_back"], around)
        optimizers = [
            self._adam(rate, **{name: networks[name] for name in names})
            for rate, names in (
                (self.train.lr_generator, ("generator", "generator_back")),
                (self.train.lr_discriminator, ("critic", "critic_back")),
            )
        ]
        return [
            self._phase("generators", making, optimizers[0], every_n_steps=self.style.critic_steps),
            self._phase("critics", judging, optimizers[1]),
        ]

    def _adam(self, rate: float, **networks: nn.Module) -> torch.optim.Adam:
        fused = chosen(self.train, self.device).fused_optimizer
        groups = {name: (network.parameters(), rate) for name, network in networks.items()}
        return adam(groups, self.train.adam_betas, fused=fused)

    def _phase(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> Phase:
        return Phase(
            name=name,
            module=module,
            optimizer=optimizer,
            scheduler=schedule(optimizer, self.train),
            max_grad_norm=self.train.max_grad_norm,
            **options,  # type: ignore[arg-type]
        )

    def prepare(self, pairs: PairBatch) -> Batch:
        """Photos (``pairs.source``) and style pictures (``pairs.driving``) to the device; where slopes are taken.

        Raises:
            ClipError: the losses need edge-smoothed pictures and the batch has none.
        """
        batch: dict[str, Tensor] = {"photo": self._image(pairs.source), "style": self._image(pairs.driving)}
        if self.style.gan != "none" and self.style.smooth_negative:
            if pairs.smooth is None:
                fix = "Have them made with the style pictures' data set, or set smooth_negative to 0"
                raise ClipError(must("the style pictures", "come with edge-smoothed copies", "none", fix))
            batch["smooth"] = self._image(pairs.smooth)
        batch = self._augmented(batch, pairs.items)
        if self.style.gan == "wgan-gp":
            shares = [keyed(self.train.seed, "penalty", int(item)).uniform() for item in pairs.items]
            batch["share"] = torch.tensor(shares, dtype=self.dtype, device=self.device)
        return batch

    def _augmented(self, batch: dict[str, Tensor], items: np.ndarray) -> dict[str, Tensor]:
        """Photos and style pictures changed apart; copies as what they are copies of."""
        draws: dict[str, Any] = {"items": items, "config": self.train.augment, "seed": self.train.seed}
        made = dict(batch)
        (made["photo"],) = augment_pictures(batch["photo"], of="photo", **draws)
        copies = {name: batch[name] for name in ("smooth",) if name in batch}
        made["style"], *others = augment_pictures(batch["style"], *copies.values(), of="style", **draws)
        return made | dict(zip(copies, others, strict=True))

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), as drawings: in [0, 1], (B, 3, H, W)."""
        with torch.no_grad(), self.precision.context():
            made: Tensor = networks["generator"](self._image(photo))
        return made

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per photo: the photo, the drawing, a style picture that it has nothing to do with."""
        photo, style = pairs.source[:PICTURED], pairs.driving[:PICTURED]
        columns = [self._image(photo), self.stylise(networks, photo), self._image(style)]
        return {"stylised": pictures.grid([pictures.as_frames(column) for column in columns])}

    def _image(self, frames: Tensor) -> Tensor:
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)


def _check(model: StyleConfig, style: StyleLossConfig) -> None:
    """What neither configuration can know alone."""
    problems = _of_cycles(style) if model.layout == "cyclegan" else _of_one_way(style)
    if problems:
        raise ParamsError(problems)


def _of_one_way(style: StyleLossConfig) -> list[Problem]:
    problems = []
    if not (style.content or style.texture or style.colour or style.total_variation or style.gan != "none"):
        problems.append(Problem("losses", "weights of 0 alone", "have a term above 0"))
    if style.warm_up_steps and not style.content:
        problems.append(
            Problem("losses.warm_up_steps", style.warm_up_steps, "be 0 where content is: it is all it learns")
        )
    for key in ("cycle", "identity"):
        if value := getattr(style, key):
            problems.append(Problem(f"losses.{key}", value, "be 0 with a layout that has no way back"))
    return problems


def _of_cycles(style: StyleLossConfig) -> list[Problem]:
    problems = []
    if style.gan != "lsgan":
        problems.append(Problem("losses.gan", style.gan, "be lsgan with layout: cyclegan"))
    if not style.cycle:
        problems.append(Problem("losses.cycle", style.cycle, "be above 0 with layout: cyclegan"))
    others = ("content", "texture", "colour", "total_variation", "gray_negative", "smooth_negative", "warm_up_steps")
    for key in others:
        if value := getattr(style, key):
            problems.append(Problem(f"losses.{key}", value, "be 0 with layout: cyclegan, which has no such term"))
    return problems
