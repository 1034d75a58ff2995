"""The background's motion: how the camera moved between two frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.hourglass import HourglassEncoder
from models.layers.precision import full_precision, wide
from models.motion.config import MotionConfig

_STILL = {
    "shift": (0.0, 0.0),
    "affine": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "perspective": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
}
"""Numbers of each kind of motion when nothing moves."""


class BackgroundPredictor(nn.Module):
    """An encoder on both frames and one linear layer (Siarohin et al., CVPR 2021, section 3.3); still at first."""

    def __init__(self, config: MotionConfig) -> None:
        """Build it for ``config.background``, which must not be ``none``."""
        super().__init__()
        self.kind = config.background
        self.tanh = config.output_activation == "tanh"
        self.encoder = HourglassEncoder(6, **config.hourglass("background"))
        still = torch.tensor(_STILL[config.background])
        self.fc = nn.Linear(self.encoder.out_channels, len(still))
        nn.init.zeros_(self.fc.weight)
        with torch.no_grad():
            self.fc.bias.copy_(still)

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """Estimate the motion.

        Args:
            source: frames in [0, 1], (B, 3, H, W).
            driving: likewise.

        Returns:
            Where the driving background's points lie in the source, of homogeneous coordinates, (B, 3, 3).
        """
        both = torch.cat([source, driving], dim=1)
        seen = self.encoder(both * 2 - 1 if self.tanh else both)[-1]
        with full_precision(seen):
            numbers = self.fc(wide(seen).mean((-2, -1)))
        return self._matrix(numbers)

    def _matrix(self, numbers: Tensor) -> Tensor:
        one, nothing = torch.ones_like(numbers[:, :1]), torch.zeros_like(numbers[:, :1])
        if self.kind == "shift":
            rows = [one, nothing, numbers[:, :1], nothing, one, numbers[:, 1:], nothing, nothing, one]
        elif self.kind == "affine":
            rows = [numbers, nothing, nothing, one]
        else:
            rows = [numbers, one]
        return torch.cat(rows, dim=1).reshape(-1, 3, 3)
