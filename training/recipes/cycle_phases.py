"""The phases of a model that also learns the way back (Zhu et al., CycleGAN, ICCV 2017), with least squares.

Both generators learn in one phase, both critics in the other. The published training shows its critics a history of
50 made pictures; here they see the latest alone, so that a checkpoint holds everything that a training goes on from.
Differences of pictures are taken of values in [-1, 1], for which the published weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.precision import wide
from training.phases import Batch, PhaseOutput
from training.recipes.motion_phases import Frozen, Precision
from training.recipes.style_losses import least_squares
from training.style_config import StyleLossConfig


@dataclass(frozen=True, slots=True)
class CycleAround:
    """What the phases use and do not train: no module, so that nothing of it is registered."""

    weights: StyleLossConfig
    precision: Precision
    networks: Mapping[str, nn.Module]
    """``generator``, ``critic``, and ``..._back`` of both; a phase looks up those of the other."""


class CycleGeneratorPhase(nn.Module):
    """Trains both generators: each critic's favour, the way there and back, and leaving alone what is there already."""

    def __init__(self, generator: nn.Module, generator_back: nn.Module, around: CycleAround) -> None:
        super().__init__()
        self.generator, self.generator_back, self.around = generator, generator_back, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch (equations 1 to 3, and the identity loss of section 5.2).

        Args:
            batch: ``photo`` and ``style``, unpaired, in [0, 1], (B, 3, H, W).
            carry: nothing is read.

        Returns:
            The weighted losses, those of the way from style to photo named ``..._back``; ``made`` (drawings) and
            ``made_back`` (photos) for the critics.
        """
        photo, style, weights = batch["photo"], batch["style"], self.around.weights
        losses: dict[str, Tensor] = {}
        with self.around.precision.context():
            made, made_back = self.generator(photo), self.generator_back(style)
            for suffix, image in (("", made), ("_back", made_back)):
                critic = self.around.networks[f"critic{suffix}"]
                with Frozen(critic):
                    losses[f"gan{suffix}"] = least_squares(critic(image), 1.0) * weights.adversarial
            losses["cycle"] = _apart(self.generator_back(made), photo) * weights.cycle
            losses["cycle_back"] = _apart(self.generator(made_back), style) * weights.cycle
            if weights.identity:
                losses["identity"] = _apart(self.generator(style), style) * weights.identity
                losses["identity_back"] = _apart(self.generator_back(photo), photo) * weights.identity
        return PhaseOutput(losses, {"made": made.detach(), "made_back": made_back.detach()})


class CycleCriticPhase(nn.Module):
    """Trains both critics: one tells style pictures from drawings, the other photos from what was made of style."""

    def __init__(self, critic: nn.Module, critic_back: nn.Module, around: CycleAround) -> None:
        super().__init__()
        self.critic, self.critic_back, self.around = critic, critic_back, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Least squares of both critics.

        Args:
            batch: ``photo`` and ``style``, in [0, 1], (B, 3, H, W).
            carry: ``made`` and ``made_back`` where the generators had their turn in this step.
        """
        weights, networks = self.around.weights, self.around.networks
        losses = {}
        with self.around.precision.context():
            for suffix, critic, real, source in (
                ("", self.critic, batch["style"], batch["photo"]),
                ("_back", self.critic_back, batch["photo"], batch["style"]),
            ):
                made = carry.get(f"made{suffix}")
                if made is None:
                    with torch.no_grad():
                        made = networks[f"generator{suffix}"](source)
                good, bad = critic(torch.cat([real, made.to(real.dtype)])).chunk(2)
                loss = least_squares(good, 1.0) * weights.real + least_squares(bad, 0.0) * weights.made_negative
                losses[f"gan{suffix}"] = loss * weights.adversarial
        return PhaseOutput(losses, {})


def _apart(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of pictures, as of values in [-1, 1]."""
    return (wide(made) - wide(wanted)).abs().mean() * 2
