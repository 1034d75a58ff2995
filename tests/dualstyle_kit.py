"""The smallest networks of a DualStyleGAN, the folders that its trainings leave, and a backbone that costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.style.face_config import FaceConfig
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.face_config import FaceTrainConfig

SMALL = FaceConfig(
    size_px=32,
    style_dim=16,
    mapping_layers=2,
    max_channels=8,
    structure_layers=5,
    encoder_px=32,
    encoder_width=4,
    encoder_units=(1, 1, 1, 1),
)


def exported(folder: Path, preset: str, networks: dict[str, Any]) -> Path:
    """Networks as a trained experiment's folder."""
    folder.mkdir(parents=True)
    info = CheckpointInfo(step=1, images_seen=1, preset=preset, model=SMALL, train=FaceTrainConfig(), sha256="")
    write_checkpoint(folder, info, tensors_of(networks), None)
    return folder


class Levels(nn.Module):
    """Five maps, each half the size of the one before: a backbone without weights."""

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [image * 2 - 1]
        for _ in range(4):
            levels.append(nn.functional.avg_pool2d(levels[-1], 2))
        return levels
