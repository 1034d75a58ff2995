"""The phases of DualStyleGAN's fine-tuning: the extrinsic path, its path length, the discriminator, and its slope.

Yang et al., CVPR 2022, section 3.3. Only the extrinsic path learns; StyleGAN2 inside it, and the encoder, stand still.
Pictures are made with the generator's own noise, so that a result and what it is held against differ by codes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.precision import wide
from models.style.dualstylegan import DualStyleGenerator
from models.style.stylegan2.generator import mixed
from models.style.stylegan2.regularisers import path_length, r1_penalty
from training.ada import Augmentation
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
from training.recipes.face_encoder import Identity
from training.recipes.face_gan_phases import SEEN_BY_GENERATOR, SEEN_MADE, SEEN_REAL, PathMean
from training.recipes.motion_phases import Frozen, Precision


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
    augmentation: Augmentation
    path: PathMean
    batch_size: int
    """Global: over all workers and parts."""
    parts: int = 1
    """A step's batch goes through in so many."""
    identity: Identity | None = None
    """A recogniser of faces; None: the backbone's deepest features."""

    def look(self, image: Tensor, levels: list[Tensor]) -> Tensor:
        """What tells faces apart, (B, D), of pictures and of the backbone's features of them."""
        return pooled(levels) if self.identity is None else self.identity.look(image)

    @property
    def identity_name(self) -> str:
        """By what faces are told apart, as the loss carries it."""
        return str(getattr(self.perceptual, "name", "features")) if self.identity is None else self.identity.name

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

    def favour(self, made: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The adversarial term."""
        around = self.around
        if not around.transfer.adversarial:
            return {}
        seen_picture = around.augmentation(wide(made), batch["draws"][:, SEEN_BY_GENERATOR])
        with Frozen(around.discriminator):
            score = around.discriminator(seen_picture)
        return {"gan": favour(score) * around.transfer.adversarial}


class SourcePhase(ExtrinsicPhase):
    """Source domain: the extrinsic path learns to do what exchanging codes does (equation 3)."""

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``z1`` and ``z2``, (B, D); ``layer``, (B,), from which on the codes are exchanged; ``encoded``, (B,):
                1 where the extrinsic codes are those of the encoded picture of z2, the same for all; ``draws`` of the
                augmentation, (B, 3, draws).
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
            losses = self.favour(made, batch)
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
                ``draws`` as in the source domain.
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
            losses = self.favour(made, batch) | self._seen(made, intrinsic, batch)
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
                known = around.look(content, around.perceptual(content))
            distance = identity_distance(around.look(looked, found), known)
            losses[f"identity/{around.identity_name}"] = distance.mean() * weights.identity
        return losses


class PathPhase(ExtrinsicPhase):
    """Makes equal steps in the intrinsic styles equal steps in the picture (Karras et al., CVPR 2020, equation 4)."""

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The weighted penalty, in full precision.

        Args:
            batch: ``path-intrinsic`` and ``path-extrinsic`` codes in Z+, (B', S, D), and ``path-picture``,
                (B', 3, H, W), standard normal.
            carry: nothing is read.

        Returns:
            The penalty; the mean length as a figure.
        """
        around, gan = self.around, self.around.gan
        with torch.no_grad():
            inner, outer = (around.generator.styles(batch[f"path-{name}"]) for name in ("intrinsic", "extrinsic"))
        inner.requires_grad_(True)
        made = self.made(inner, outer)
        lengths = path_length(made, inner, batch["path-picture"])
        mean = around.path.follow(lengths, 1 - (1 - gan.path_decay) ** (1 / around.parts))
        penalty = (lengths - mean).square().mean() * (gan.path_length * gan.path_every_steps)
        # Some weights have no part in the slopes: their gradient is 0 and not missing, which the ranks could not add.
        return PhaseOutput({"penalty": penalty + 0 * made.sum()}, {}, {"length": lengths.detach().mean()})


class DiscriminatorPhase(nn.Module):
    """Trains the discriminator to tell the domain's pictures from made ones; the augmentation follows its scores."""

    def __init__(self, discriminator: nn.Module, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The logistic loss.

        Args:
            batch: ``real`` pictures in [0, 1], (B, 3, H, W), and ``draws``.
            carry: ``made``, likewise.

        Returns:
            The weighted loss; ``seen``, the real pictures as they were judged; as figures the mean scores and the
            augmentation's probability in this step.
        """
        around, gan = self.around, self.around.gan
        seen_made = around.augmentation(wide(carry["made"]), batch["draws"][:, SEEN_MADE])
        seen_real = around.augmentation(batch["real"], batch["draws"][:, SEEN_REAL])
        with around.precision.context():
            # One after the other: the deviation over a group of pictures must not mix them.
            real, made = self.discriminator(seen_real), self.discriminator(seen_made)
        figures = {
            "real": real.detach().mean(),
            "made": made.detach().mean(),
            "augmentation": around.augmentation.probability.clone(),
        }
        after = gan.ada_every_steps * around.batch_size
        around.augmentation.adapt(real, target=gan.ada_target, images=gan.ada_images, after=after)
        loss = told_apart(real, made) * around.transfer.adversarial
        return PhaseOutput({"gan": loss}, {"seen": seen_real.detach()}, figures)


class SlopePhase(nn.Module):
    """Keeps the discriminator's slope at real pictures small (R1); taken in some steps only, it weighs more in them."""

    def __init__(self, discriminator: nn.Module, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The penalty of ``carry["seen"]``, in [0, 1], (B, 3, H, W): gamma / 2, times the steps between."""
        gan = self.around.gan
        pictures = carry["seen"].detach().requires_grad_(True)
        scores = self.discriminator(pictures)
        penalty = r1_penalty(scores, pictures)
        loss = penalty * (gan.r1 / 2 * gan.r1_every_steps)
        # As in the path's phase: the last bias has no part in the slope.
        return PhaseOutput({"penalty": loss + 0 * scores.sum()}, {}, {"slope": penalty.detach()})
