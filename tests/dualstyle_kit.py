"""The smallest networks of a DualStyleGAN, and the folders that its trainings leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
