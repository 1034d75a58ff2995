"""The families of models, and what each one's networks are described by. No torch."""

from __future__ import annotations

from typing import Literal

from models.motion.config import MotionConfig
from models.style.config import StyleConfig
from models.style.face_config import FaceConfig

Family = Literal["motion", "style", "dualstyle", "system"]
"""``motion``: a picture is moved by a video; ``style``: photos become drawings; ``dualstyle``: faces become cartoons by
StyleGAN2 and what is built on it; ``system``: one of these and one of motion as a single model, never trained."""
NetworkConfig = MotionConfig | StyleConfig | FaceConfig

NETWORKS: dict[Family, type[NetworkConfig]] = {"motion": MotionConfig, "style": StyleConfig, "dualstyle": FaceConfig}
