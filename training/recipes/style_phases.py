"""The phases of a stylising model's step: a warm-up on content alone, generator, critic, gradient penalty.

Losses after "LWComicGAN: A Lightweight Method for Realizing Scene Animation", equations 2 to 6; the critic's further
negatives after CartoonGAN (Chen et al., CVPR 2018) and AnimeGAN (Chen et al., ISICA 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.phases import Batch, PhaseOutput
from training.recipes.motion_phases import Frozen, Precision
from training.recipes.style_losses import (
    colour_loss,
    content_loss,
    gradient_penalty,
    gray,
    least_squares,
    texture_loss,
    total_variation,
    wasserstein,
)
from training.style_config import StyleLossConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the phases use and do not train: no module, so that nothing of it is registered."""

    weights: StyleLossConfig
    precision: Precision
    perceptual: nn.Module | None = None
    generator: nn.Module | None = None
    critic: nn.Module | None = None

    def features(self, image: Tensor) -> Tensor:
        """The backbone's level that content and texture are taken from."""
        assert self.perceptual is not None, "the losses that need features come with a backbone"
        found: Tensor = self.perceptual(image)[self.weights.content_level - 1]
        return found


class WarmUpPhase(nn.Module):
    """Trains the generator to give the photo back, as the backbone sees it."""

    def __init__(self, generator: nn.Module, around: Around) -> None:
        super().__init__()
        self.generator, self.around = generator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The content loss of ``photo``, in [0, 1], (B, 3, H, W)."""
        photo, around = batch["photo"], self.around
        with around.precision.context():
            made = self.generator(photo)
            with torch.no_grad():
                wanted = around.features(photo)
            loss = content_loss(around.features(made), wanted) * around.weights.content
        return PhaseOutput({"content": loss}, {})


class StyleGeneratorPhase(nn.Module):
    """Trains the generator: content and colour of the photo, texture of the style, the critic's favour."""

    def __init__(self, generator: nn.Module, around: Around) -> None:
        super().__init__()
        self.generator, self.around = generator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``photo`` and ``style``, unpaired, in [0, 1], (B, 3, H, W).
            carry: nothing is read.

        Returns:
            The weighted losses; ``made`` for the critic.
        """
        photo, around, weights = batch["photo"], self.around, self.around.weights
        losses: dict[str, Tensor] = {}
        with around.precision.context():
            made = self.generator(photo)
            if around.critic is not None:
                with Frozen(around.critic):
                    score = around.critic(made)
                favour = least_squares(score, 1.0) if weights.gan == "lsgan" else -score.mean()
                losses["gan"] = favour * weights.adversarial
            losses |= self._seen(made, batch)
            if weights.colour:
                losses["colour"] = colour_loss(made, photo) * weights.colour
            if weights.total_variation:
                losses["total_variation"] = total_variation(made) * weights.total_variation
        return PhaseOutput(losses, {"made": made.detach()})

    def _seen(self, made: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses that the backbone sees."""
        around, weights, losses = self.around, self.around.weights, {}
        if not (weights.content or weights.texture):
            return {}
        found = around.features(made)
        with torch.no_grad():
            wanted = around.features(torch.cat([batch["photo"], gray(batch["style"])]))
        photo, style = wanted.chunk(2)
        if weights.content:
            losses["content"] = content_loss(found, photo) * weights.content
        if weights.texture:
            losses["texture"] = texture_loss(found, style) * weights.texture
        return losses


class CriticPhase(nn.Module):
    """Trains the critic to tell style pictures from made ones, and from what looks like style and is none."""

    def __init__(self, critic: nn.Module, around: Around) -> None:
        super().__init__()
        self.critic, self.around = critic, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The critic's loss; equation 2 without its last term, or least squares.

        Args:
            batch: ``photo``, ``style`` and, for ``smooth_negative``, ``smooth``.
            carry: ``made`` where the generator had its turn in this step.

        Returns:
            The weighted loss, ``made`` (for the penalty), and the Wasserstein distance's estimate as a figure.
        """
        around, weights = self.around, self.around.weights
        with around.precision.context():
            made = carry["made"] if "made" in carry else self._made(batch["photo"])
            wrong = {"made": (made, weights.made_negative)}
            if weights.gray_negative:
                wrong["gray"] = (gray(batch["style"]), weights.gray_negative)
            if weights.smooth_negative:
                wrong["smooth"] = (batch["smooth"], weights.smooth_negative)
            scores = self.critic(torch.cat([batch["style"], *(image for image, _ in wrong.values())]))
            real, *bad = scores.chunk(1 + len(wrong))
            loss = self._loss(real, bad, [weight for _, weight in wrong.values()])
        distance = wasserstein(real.detach(), bad[0].detach())
        return PhaseOutput({"gan": loss * weights.adversarial}, {"made": made}, {"wasserstein": distance})

    @torch.no_grad()
    def _made(self, photo: Tensor) -> Tensor:
        assert self.around.generator is not None, "the critic's phase knows the generator"
        made: Tensor = self.around.generator(photo)
        return made

    def _loss(self, real: Tensor, bad: list[Tensor], shares: list[float]) -> Tensor:
        if self.around.weights.gan == "lsgan":
            good = least_squares(real, 1.0) * self.around.weights.real
            return good + torch.stack([least_squares(s, 0.0) * w for s, w in zip(bad, shares, strict=True)]).sum()
        total = sum(shares)
        return torch.stack([score.mean() * w for score, w in zip(bad, shares, strict=True)]).sum() / total - real.mean()


class PenaltyPhase(nn.Module):
    """Keeps the critic's slope at 1 (equation 2, last term); taken in some steps only, it weighs more in them.

    ``adversarial`` does not multiply it, as in AnimeGAN, though equations 2 and 6 together say so. Adam divides by the
    recent gradients' size: a penalty hundreds of times larger than the critic's own loss leaves nothing of the latter.
    """

    def __init__(self, critic: nn.Module, around: Around) -> None:
        super().__init__()
        self.critic, self.around = critic, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The weighted penalty.

        Args:
            batch: ``style``, and ``share`` (B,), where between a made and a style picture the slope is taken.
            carry: ``made``.
        """
        weights = self.around.weights
        found = gradient_penalty(self.critic, batch["style"], carry["made"].to(batch["style"].dtype), batch["share"])
        factor = weights.penalty * weights.penalty_every_steps
        return PhaseOutput({"penalty": found * factor}, {}, {"slope": found.detach()})
