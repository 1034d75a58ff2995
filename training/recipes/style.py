"""How the style family is trained on photos and style pictures that are no pairs; `style_phases` holds the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ParamsError, Problem
from models.perceptual import build_perceptual
from models.style.config import StyleConfig
from training import pictures
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.randomness import keyed
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
        generator, critic = self.networks["generator"], self.networks["critic"]
        style, train, begin = self.style, self.train, self.style.warm_up_steps
        around = Around(
            weights=style,
            precision=self.precision,
            perceptual=perceptual,
            generator=generator,
            critic=critic if style.gan != "none" else None,
        )
        phases: list[Phase] = []
        if begin:
            optimizer = self._adam("generator", generator, style.lr_warm_up)
            phases.append(
                Phase(name="warm_up", module=WarmUpPhase(generator, around), optimizer=optimizer, stop_step=begin)
            )
        optimizer = self._adam("generator", generator, train.lr_generator)
        module = StyleGeneratorPhase(generator, around)
        every = style.critic_steps if style.gan != "none" else 1
        phases.append(self._phase("generator", module, optimizer, first_step=begin, every_n_steps=every))
        if style.gan == "none":
            return phases
        optimizer = self._adam("critic", critic, train.lr_discriminator)
        limits = {"wasserstein": style.max_wasserstein} if style.gan == "wgan-gp" else {}
        judge = CriticPhase(critic, around)
        phases.append(self._phase("critic", judge, optimizer, first_step=begin, limits=limits))
        if style.gan == "wgan-gp":
            slope = PenaltyPhase(critic, around)
            limits = {"slope": style.max_penalty}
            lazily = {"first_step": begin, "every_n_steps": style.penalty_every_steps, "limits": limits}
            phases.append(Phase(name="penalty", module=slope, optimizer=optimizer, **lazily))  # type: ignore[arg-type]
        return phases

    def _adam(self, name: str, network: nn.Module, rate: float) -> torch.optim.Adam:
        fused = chosen(self.train, self.device).fused_optimizer
        return adam({name: (network.parameters(), rate)}, self.train.adam_betas, fused=fused)

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
        """Photos (``pairs.source``) and style pictures (``pairs.driving``) to the device; where slopes are taken."""
        batch = {"photo": self._image(pairs.source), "style": self._image(pairs.driving)}
        if self.style.gan == "wgan-gp":
            shares = [keyed(self.train.seed, "penalty", int(item)).uniform() for item in pairs.items]
            batch["share"] = torch.tensor(shares, dtype=self.dtype, device=self.device)
        return batch

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
    problems = []
    if not (style.content or style.texture or style.colour or style.total_variation or style.gan != "none"):
        problems.append(Problem("style", "weights of 0 alone", "have a term above 0"))
    if style.warm_up_steps and not style.content:
        problems.append(
            Problem("style.warm_up_steps", style.warm_up_steps, "be 0 where content is: it is all it learns")
        )
    if style.smooth_negative:
        rule = "be 0: the feed gives no edge-smoothed pictures yet"
        problems.append(Problem("style.smooth_negative", style.smooth_negative, rule))
    if model.layout == "cyclegan":
        problems.append(Problem("model.layout", model.layout, "be one without a way back: cycles are not trained yet"))
    if problems:
        raise ParamsError(problems)
