"""Where a training stands: everything that is neither a weight nor an optimiser's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from models.errors import CheckpointError, must

STATE_SCHEMA = 1


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Counters of a training; equal on every rank."""

    step: int = 0
    """Steps taken, and so the feed's next step."""
    images_seen: int = 0
    """Samples over all ranks."""
    best_step: int = 0
    """Whose checkpoint validated best; 0: none yet."""
    best_metric: float | None = None
    validations_since_best: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    """Of all attempts, up to this step."""
    data_wait_s: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain values, and torch's own random state."""
        return {**asdict(self), "schema_version": STATE_SCHEMA, "rng": torch.get_rng_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; sets torch's random state too.

        Raises:
            CheckpointError: another schema.
        """
        if state.get("schema_version") != STATE_SCHEMA:
            rule = f"have schema_version {STATE_SCHEMA}"
            raise CheckpointError(must("the training's state", rule, state.get("schema_version")))
        names = set(self.__dataclass_fields__)
        missing = sorted(names - set(state))
        if missing:
            raise CheckpointError(must("the training's state", "hold every counter", f"none of {missing}"))
        for name in names:
            setattr(self, name, state[name])
        torch.set_rng_state(state["rng"])

    def judge(self, metric: float) -> bool:
        """Note a validation at the present step; whether it is the best so far (lower is better, not finite never)."""
        if math.isfinite(metric) and (self.best_metric is None or metric < self.best_metric):
            self.best_metric, self.best_step, self.validations_since_best = metric, self.step, 0
            return True
        self.validations_since_best += 1
        return False
