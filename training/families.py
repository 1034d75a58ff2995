"""What can be set about a training, by the family of its model."""

from __future__ import annotations

from models.families import Family
from training.config import MotionTrainConfig, TrainConfig
from training.face_config import FaceTrainConfig
from training.style_config import StyleTrainConfig

TRAININGS: dict[Family, type[TrainConfig]] = {
    "motion": MotionTrainConfig,
    "style": StyleTrainConfig,
    "dualstyle": FaceTrainConfig,
}
