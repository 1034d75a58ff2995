"""The catalogue of models: a plain dict from a preset's name to what builds and trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A preset. Networks are built by ``build`` (``module:function``), trained by ``recipe`` (likewise).

    Both are names, not imports: reading the catalogue costs nothing and needs no torch.
    """

    build: str
    recipe: str
    model: Mapping[str, Any] = field(default_factory=dict)
    """Options of the networks' configuration that differ from its defaults."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Options of the training's configuration that differ from its defaults."""
    summary: str = ""


MODELS: dict[str, ModelSpec] = {
    "fomm": ModelSpec(
        build="models.motion.networks:build",
        recipe="training.recipes.motion:build",
        summary="First Order Motion Model (NeurIPS 2019), as published for VoxCeleb at 256 px",
    ),
}
