"""The phases of StyleGAN2's step: generator, its path length, discriminator, its slope at real pictures.

After Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 3 and appendix B, with
the augmentation of `training.ada`. Both penalties are taken in some steps only, and weigh more in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import wide
from models.style.stylegan2.discriminator import Discriminator
from models.style.stylegan2.generator import Generator, mixed
from models.style.stylegan2.regularisers import path_length, r1_penalty
from training.ada import Augmentation, sum_over_ranks
from training.face_config import AdversarialConfig
from training.phases import Batch, PhaseOutput
from training.recipes.motion_phases import Frozen, Precision

MEAN_STYLE_DECAY = 0.995
"""Of the generator's mean style, a step."""
SEEN_BY_GENERATOR, SEEN_REAL, SEEN_MADE = range(3)
"""Places of the draws by which pictures are changed before the discriminator sees them."""


class PathMean(nn.Module):
    """The running mean of the path's length; a network of the training, so that checkpoints hold it."""

    value: Tensor
    """Scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(0.0))

    @torch.no_grad()
    def follow(self, lengths: Tensor, decay: float) -> Tensor:
        """Move towards the mean of all ranks' lengths, (B,), and give the new value; a collective."""
        total, number = sum_over_ranks(torch.stack([lengths.sum(), torch.ones_like(lengths).sum()]))
        self.value.lerp_((total / number).to(self.value.dtype), decay)
        return self.value.clone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the phases use and do not train: no module, so that nothing of it is registered."""

    weights: AdversarialConfig
    precision: Precision
    discriminator: Discriminator
    augmentation: Augmentation
    path: PathMean
    batch_size: int
    """Global: over all workers and parts."""
    parts: int = 1
    """A step's batch goes through in so many."""


class GeneratorPhase(nn.Module):
    """Trains the generator to please the discriminator (non-saturating loss, Goodfellow et al., NeurIPS 2014)."""

    def __init__(self, generator: Generator, around: Around) -> None:
        super().__init__()
        self.generator, self.around = generator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The loss of one batch of codes.

        Args:
            batch: ``codes`` (B, 2, D), ``change`` (B,), ``noise-0`` and so on (B, 1, h, w), ``draws`` (B, 3, draws).
            carry: nothing is read.

        Returns:
            The loss; ``made`` for the discriminator, in about [0, 1], (B, 3, H, W).
        """
        generator, around = self.generator, self.around
        with around.precision.context():
            styles = styles_of(generator, batch["codes"], batch["change"])
            made = generator.synthesis(styles, noise_in(batch))
            seen = around.augmentation(wide(made), batch["draws"][:, SEEN_BY_GENERATOR])
            with Frozen(around.discriminator):
                scores = around.discriminator(seen)
        self._follow(styles)
        return PhaseOutput({"gan": F.softplus(-scores).mean()}, {"made": made.detach()})

    @torch.no_grad()
    def _follow(self, styles: Tensor) -> None:
        """Let the mean style follow the styles of the layers' two ends, (B, S, D), of all ranks."""
        ends = styles[:, [0, -1]].flatten(0, 1)
        everyone = sum_over_ranks(torch.cat([ends.sum(0), ends.new_full((1,), float(len(ends)))]))
        mean, decay = self.generator.mean_style, MEAN_STYLE_DECAY ** (1 / self.around.parts)
        mean.lerp_((everyone[:-1] / everyone[-1]).to(mean.dtype), 1 - decay)


class PathPhase(nn.Module):
    """Makes equal steps in the styles equal steps in the picture (equation 4)."""

    def __init__(self, generator: Generator, around: Around) -> None:
        super().__init__()
        self.generator, self.around = generator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The weighted penalty, in full precision.

        Args:
            batch: as for the generator with ``path-`` before each name, ``path-picture``, (B', 3, H, W), and no draws.
            carry: nothing is read.

        Returns:
            The penalty; the mean length as a figure.
        """
        around, weights = self.around, self.around.weights
        styles = styles_of(self.generator, batch["path-codes"], batch["path-change"])
        made = self.generator.synthesis(styles, noise_in(batch, "path-"))
        lengths = path_length(made, styles, batch["path-picture"])
        mean = around.path.follow(lengths, 1 - (1 - weights.path_decay) ** (1 / around.parts))
        penalty = (lengths - mean).square().mean() * (weights.path_length * weights.path_every_steps)
        # Some weights have no part in the slopes: their gradient is 0 and not missing, which the ranks could not add.
        return PhaseOutput({"penalty": penalty + 0 * made.sum()}, {}, {"length": lengths.detach().mean()})


class DiscriminatorPhase(nn.Module):
    """Trains the discriminator to tell real pictures from made ones, and lets the augmentation follow its scores."""

    def __init__(self, discriminator: Discriminator, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Both losses.

        Args:
            batch: ``real`` in [0, 1], (B, 3, H, W), and ``draws``.
            carry: ``made`` of the generator's phase.

        Returns:
            The losses; as figures the mean sign of the real scores and the augmentation's probability in this step.
        """
        around, weights = self.around, self.around.weights
        made = around.augmentation(wide(carry["made"]), batch["draws"][:, SEEN_MADE])
        real = around.augmentation(batch["real"], batch["draws"][:, SEEN_REAL])
        with around.precision.context():
            scores_made, scores_real = self.discriminator(made), self.discriminator(real)
            losses = {"made": F.softplus(scores_made).mean(), "real": F.softplus(-scores_real).mean()}
        figures = {
            "real_sign": scores_real.detach().sign().mean(),
            "augmentation": around.augmentation.probability.clone(),
        }
        around.augmentation.adapt(
            scores_real,
            target=weights.ada_target,
            images=weights.ada_images,
            after=weights.ada_every_steps * around.batch_size,
        )
        return PhaseOutput(losses, {"seen": real}, figures)


class SlopePhase(nn.Module):
    """Keeps the discriminator flat where pictures are real (R1: Mescheder et al., ICML 2018).

    The slope is taken at what the discriminator sees, behind the augmentation.
    """

    def __init__(self, discriminator: Discriminator, around: Around) -> None:
        super().__init__()
        self.discriminator, self.around = discriminator, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """The weighted penalty, in full precision; ``carry["seen"]`` are real pictures as the phase before saw them."""
        weights = self.around.weights
        seen = carry["seen"].detach().requires_grad_()
        scores = self.discriminator(seen)
        found = r1_penalty(scores, seen)
        penalty = found * (weights.r1 / 2 * weights.r1_every_steps)
        # As in the path's phase: the last bias has no part in the slope.
        return PhaseOutput({"penalty": penalty + 0 * scores.sum()}, {}, {"slope": found.detach()})


def styles_of(generator: Generator, codes: Tensor, change: Tensor) -> Tensor:
    """Styles of pictures made of two codes each.

    Args:
        generator: whose mapping is taken.
        codes: of the normal distribution, (B, 2, D).
        change: the layer from which on the second counts, (B,); S: none.

    Returns:
        (B, S, D).
    """
    first, second = generator.mapping(codes.flatten(0, 1)).reshape(codes.shape).unbind(1)
    return mixed(generator.spread(first), generator.spread(second), change)


def noise_in(batch: Batch, prefix: str = "") -> list[Tensor]:
    """The noise of each styled convolution, (B, 1, h, w), out of a prepared batch."""
    names = (f"{prefix}noise-{number}" for number in range(len(batch)))
    return [batch[name] for name in names if name in batch]
