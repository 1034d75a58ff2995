"""The phases of DualStyleGAN's fine-tuning: the extrinsic path, the discriminator, and its penalty (R1).

Yang et al., CVPR 2022, section 3.3. Only the extrinsic path learns; StyleGAN2 inside it, and the encoder, stand still.
Pictures are made with the generator's own noise, so that a result and what it is held against differ by codes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.style.dualstylegan import DualStyleGenerator
from models.style.stylegan2.generator import mixed
from models.style.stylegan2.regularisers import r1_penalty
from training.destylise_losses import identity_distance, pooled, seen
from training.face_config import AdversarialConfig, StyleTransferConfig
from training.phases import Batch, PhaseOutput
from training.recipes.dualstyle_losses import (
    CONTEXT_LEVEL,
    SOURCE_LEVELS,
    TARGET_LEVELS,
    contextual_loss,
    favour,
    level_loss,
    statistics_loss,
    told_apart,
    weight_norms,
)
from training.recipes.motion_phases import Frozen, Precision

Embed = Callable[[Tensor], Tensor]
"""Pictures in [0, 1] to what tells faces apart, (B, D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the phases use and do not train: no module, so that nothing of it is registered."""

    transfer: StyleTransferConfig
    gan: AdversarialConfig
    precision: Precision
    generator: DualStyleGenerator
    discriminator: nn.Module
    encoder: nn.Module
    perceptual: nn.Module
    embed: Embed | None = None

    def identity(self, image: Tensor, levels: list[Tensor]) -> Tensor:
        """What tells faces apart: a recogniser's answer, or else the backbone's deepest features."""
        return pooled(levels) if self.embed is None else self.embed(image)

    @torch.no_grad()
    def encoded(self, pictures: Tensor) -> Tensor:
        """Codes of pictures in [0, 1], (B, 3, H, W), in Z+: (B, S, D)."""
        self.encoder.eval()
        codes: Tensor = self.encoder(pictures)
        return codes.detach()

    @torch.no_grad()
    def plain(self, styles: Tensor) -> Tensor:
        """What StyleGAN2 makes of styles, (B, S, D): the extrinsic path is left out."""
        return self.generator.generator.synthesis(styles)


class ExtrinsicPhase(nn.Module):
    """What both domains have: the extrinsic path is what is registered, and trains."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self.residuals, self.style = around.generator.residuals, around.generator.style
        self.around = around
        weights = torch.ones(around.generator.config.num_styles)
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor

    def made(self, intrinsic: Tensor, extrinsic: Tensor) -> Tensor:
        """A picture of both styles, (B, S, D) each in W+, with weights of 1."""
        spaces: dict[str, str] = {"intrinsic_space": "w+", "extrinsic_space": "w+"}
        made: Tensor = self.around.generator(intrinsic, extrinsic, self.weights, **spaces)
        return made

    def favour(self, made: Tensor) -> dict[str, Tensor]:
        """The adversarial term."""
        around = self.around
        if not around.transfer.adversarial:
            return {}
        with Frozen(around.discriminator):
            score = around.discriminator(made)
        return {"gan": favour(score) * around.transfer.adversarial}


class SourcePhase(ExtrinsicPhase):
    """Source domain: the extrinsic path learns to do what exchanging codes does (equation 3)."""

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``z1`` and ``z2``, (B, D); ``layer``, (B,), from which on the codes are exchanged; ``encoded``, (B,):
                1 where the extrinsic codes are those of the encoded picture of z2. It is the same for all.
            carry: nothing is read.

        Returns:
            The weighted losses; ``made`` for the discriminator.
        """
        around, generator = self.around, self.around.generator
        with around.precision.context():
            with torch.no_grad():
                one, two = (generator.styles(batch[name]) for name in ("z1", "z2"))
                target = around.plain(mixed(one, two, batch["layer"]))
                extrinsic = two
                if bool(batch["encoded"][0]):
                    extrinsic = generator.styles(around.encoded(around.plain(two)))
            made = self.made(one, extrinsic)
            losses = self.favour(made)
            if around.transfer.perceptual:
                with torch.no_grad():
                    wanted = around.perceptual(seen(target))
                near = level_loss(around.perceptual(seen(made)), wanted, SOURCE_LEVELS)
                losses["perceptual"] = near * around.transfer.perceptual
        return PhaseOutput(losses, {"made": made.detach()})


class TargetPhase(ExtrinsicPhase):
    """Target domain: a style picture's codes give the picture, or a face in its manner (equations 4 to 7)."""

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``style`` pictures in [0, 1], (B, 3, H, W); ``extrinsic`` codes of them, jittered, and ``intrinsic``
                ones in Z+, (B, S, D); ``paired``, (B,): 1 where the intrinsic codes are the style pictures' own;
                ``encoded``, (B,): 1 where they are those of ``photo``, (B, 3, H, W). Both are the same for all.
            carry: nothing is read.

        Returns:
            The weighted losses; ``made`` for the discriminator.
        """
        around, generator = self.around, self.around.generator
        with around.precision.context():
            with torch.no_grad():
                codes = around.encoded(batch["photo"]) if bool(batch["encoded"][0]) else batch["intrinsic"]
                intrinsic, extrinsic = generator.styles(codes), generator.styles(batch["extrinsic"])
            made = self.made(intrinsic, extrinsic)
            losses = self.favour(made) | self._seen(made, intrinsic, batch)
            if around.transfer.regularisation:
                losses["regularisation"] = weight_norms(self.residuals.parameters()) * around.transfer.regularisation
        return PhaseOutput(losses, {"made": made.detach()})

    def _seen(self, made: Tensor, intrinsic: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses that the backbone, or a recogniser of faces, sees."""
        around, weights, losses = self.around, self.around.transfer, dict[str, Tensor]()
        looked = seen(made)
        found = around.perceptual(looked)
        with torch.no_grad():
            style = around.perceptual(seen(batch["style"]))
        if weights.perceptual and bool(batch["paired"][0]):
            losses["perceptual"] = level_loss(found, style, TARGET_LEVELS) * weights.perceptual
        if weights.contextual:
            alike = contextual_loss(found[CONTEXT_LEVEL], style[CONTEXT_LEVEL])
            losses["contextual"] = alike * weights.contextual
        if weights.feature_matching:
            losses["feature_matching"] = statistics_loss(found, style) * weights.feature_matching
        if weights.identity:
            with torch.no_grad():
                content = seen(around.plain(intrinsic))
                known = around.identity(content, around.perceptual(content))
            distance = identity_distance(around.identity(looked, found), known)
            losses["identity"] = distance.mean() * weights.identity
        return losses


class DiscriminatorPhase(nn.Module):
    """Trains the discriminator to tell real pictures of the domain from made ones."""

    def __init__(self, discriminator: nn.Module, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The logistic loss.

        Args:
            batch: ``real`` pictures in [0, 1], (B, 3, H, W).
            carry: ``made``, likewise.

        Returns:
            The weighted loss, and the mean scores as figures.
        """
        around = self.around
        with around.precision.context():
            # One after the other: the deviation over a group of pictures must not mix them.
            real, made = self.discriminator(batch["real"]), self.discriminator(carry["made"])
        figures = {"real": real.detach().mean(), "made": made.detach().mean()}
        return PhaseOutput({"gan": told_apart(real, made) * around.transfer.adversarial}, {}, figures)


class SlopePhase(nn.Module):
    """Keeps the discriminator's slope at real pictures small (R1); taken in some steps only, it weighs more in them."""

    def __init__(self, discriminator: nn.Module, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The penalty of ``real`` pictures in [0, 1], (B, 3, H, W): gamma / 2, times the steps between."""
        gan = self.around.gan
        pictures = batch["real"].detach().requires_grad_(True)
        penalty = r1_penalty(self.discriminator(pictures), pictures)
        return PhaseOutput({"r1": penalty * (gan.r1 / 2 * gan.r1_every_steps)}, {}, {"slope": penalty.detach()})
