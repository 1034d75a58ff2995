"""What a training is asked to do, and what came of it: plain values that cross process borders."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import TrainingError, must
from models.families import NetworkConfig
from training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training."""

    experiment: str
    run_name: str
    """Names the run in the run folder and in the tracking store."""
    preset: str
    """A name in the catalogue of models."""
    recipe: str
    """``module:function`` that gives the phases."""
    build: str
    """``module:function`` that gives the networks."""
    model: NetworkConfig
    train: TrainConfig
    shards: str
    """Folder or URL of the shards."""
    style_shards: str | None = None
    """Likewise of the style pictures, in the style family."""
    run_folder: str
    """Folder or URL for checkpoints, records and pictures; every worker must reach it."""
    init_weights: str | None = None
    """Folder or URL of a checkpoint whose weights the training starts from."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What the training takes in from others -> folder or URL (`training.parts`); ``codes``: of the style pictures."""
    init_averaged: bool = False
    """Start from that checkpoint's moving average; else from its weights as they were trained."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Lineage, for the tracking store."""
    tracking_uri: str | None = None
    """null: records stay in the run folder."""
    tracking_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training did; times and rates are of all its attempts together unless the name says otherwise."""

    steps: int
    images_seen: int
    """Samples (pairs of frames) over all workers."""
    seconds: float
    step_s: float
    """Median of the last attempt."""
    samples_per_s: float
    data_wait_s: float
    """How long rank 0 stood still for its samples."""
    data_wait_share: float
    best_step: int
    best_metric: float | None
    """Validation L1 of the best checkpoint; None: never validated."""
    checkpoint: str
    """The last checkpoint."""
    stopped_early: bool
    interrupted: bool
    """Stopped by its user before its last step; it goes on from ``checkpoint``."""
    restarts: int
    num_workers: int
    device: str


def load_callable(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; only names out of the catalogue of models get here."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise TrainingError(must("recipe and build", "name module:function", name, str(error))) from error
    if not callable(found):
        raise TrainingError(must("recipe and build", "name a function", name))
    made: Callable[..., Any] = found
    return made
