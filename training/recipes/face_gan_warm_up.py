"""StyleGAN2's warm-up: before anything judges it, the generator learns to redraw the pictures it will be judged by.

It is none of the papers': they have millions of pictures and weeks. A picture's code are its principal components,
whitened, so that over the pictures codes have the mean and the covariance of those that are drawn later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import wide
from models.perceptual import Perceptual
from models.style.stylegan2.generator import Generator
from training.phases import Batch, PhaseOutput
from training.recipes.face_encoder import perceptual_distance
from training.recipes.face_gan_phases import noise_in
from training.recipes.motion_phases import Precision

COARSE_PX = 16
"""Components are those of pictures scaled to so many pixels."""
LEAST = 1e-3
"""Components whose deviation is a smaller share of the first one's than this are noise."""


class Components:
    """Pictures' principal components, each scaled to a variance of 1.

    Args:
        pictures: uint8, (N, 3, H, H), of which mean, directions and deviations are taken; two or more.
        num: length of a code. Where the pictures have fewer components, the rest of a code is what it is given.
    """

    def __init__(self, pictures: np.ndarray, num: int) -> None:
        flat = _coarse(torch.from_numpy(pictures).double() / 255).numpy()
        self.mean = flat.mean(0)
        _, sizes, directions = np.linalg.svd(flat - self.mean, full_matrices=False)
        kept = min(num, int((sizes > LEAST * sizes[0]).sum()))
        signs = np.sign(directions[np.arange(kept), np.abs(directions[:kept]).argmax(1)])  # else the library's choice
        self.basis = directions[:kept] * (signs * np.sqrt(len(flat) - 1) / sizes[:kept])[:, None]

    def codes(self, pictures: Tensor, rest: Tensor) -> Tensor:
        """Codes of pictures in [0, 1], (B, 3, H, H): (B, D), beyond the components as ``rest``, (B, D), says."""
        basis, mean = (torch.from_numpy(part).to(pictures) for part in (self.basis, self.mean))
        found = (_coarse(pictures) - mean) @ basis.T
        return torch.cat([found, rest[:, found.shape[1] :].to(found.dtype)], 1)


class WarmUpPhase(nn.Module):
    """Trains the generator to make of a picture's code that picture."""

    def __init__(self, generator: Generator, perceptual: Perceptual, precision: Precision) -> None:
        super().__init__()
        self.generator = generator
        self.around = (perceptual, precision)  # a tuple, so that nothing of it is registered

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``real`` in [0, 1], (B, 3, H, W), their ``components`` (B, D), and ``noise-0`` and so on.
            carry: nothing is read.

        Returns:
            The mean absolute and the perceptual difference; ``made`` for the discriminator, in about [0, 1].
        """
        perceptual, precision = self.around
        with precision.context():
            styles = self.generator.spread(self.generator.mapping(batch["components"]))
            made = wide(self.generator.synthesis(styles, noise_in(batch)))
            losses = {"l1": F.l1_loss(made, batch["real"])}
            losses["perceptual"] = perceptual_distance(perceptual, made, batch["real"]).mean()
        return PhaseOutput(losses, {"made": made.detach()})


def _coarse(pictures: Tensor) -> Tensor:
    """(N, 3, H, H) -> (N, 3 COARSE_PX^2)."""
    return F.adaptive_avg_pool2d(pictures, COARSE_PX).flatten(1)
