"""The families of models, and what each one's networks are described by. No torch."""

from __future__ import annotations

from typing import Literal

from models.motion.config import MotionConfig
from models.style.config import StyleConfig

Family = Literal["motion", "style"]
"""``motion``: a picture is moved by a video; ``style``: photos become drawings."""
NetworkConfig = MotionConfig | StyleConfig

NETWORKS: dict[Family, type[NetworkConfig]] = {"motion": MotionConfig, "style": StyleConfig}
