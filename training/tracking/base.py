"""What a training may say about itself, whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Receives what a training measures and draws; only rank 0 has one."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record plain numbers of one optimiser step; names are slash paths such as ``loss/generator/perceptual``."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Record a picture file that was drawn at a step."""

    def close(self) -> None:
        """End the record; nothing may follow."""


class NoTracker:
    """A tracker that forgets everything: what ranks other than 0 get."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
