"""The processes that train together: who this one is, and the few things they say to each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from models.errors import InkmotionError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train. Every method is a collective: all ranks call it, in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    local_size: int = 1
    """Processes of this training on this machine; they share its CPUs."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.rank == 0

    @property
    def num_threads(self) -> int:
        """This machine's usable CPUs divided by its processes."""
        return max(1, len(os.sched_getaffinity(0)) // max(1, self.local_size))

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Everyone's numbers, float64, (size, len(values)), a row per rank; equal on every rank."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size == 1:
            return mine.cpu().numpy()[None]
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine)
        return torch.stack(rows).cpu().numpy()

    def share(self, error: InkmotionError | None, *, stop: bool = False) -> bool:
        """Agree on going on, so that no rank waits for one that has given up.

        Args:
            error: what this rank failed with.
            stop: whether this rank was asked to stop.

        Returns:
            Whether any rank was asked to stop.

        Raises:
            InkmotionError: the failure of the lowest rank that failed, on every rank.
        """
        flags = self.gather([float(error is not None), float(stop)])
        if not flags[:, 0].any():
            return bool(flags[:, 1].any())
        errors: list[InkmotionError | None] = [error]
        if self.size > 1:
            errors = [None] * self.size
            dist.all_gather_object(errors, error)
        raise next(found for found in errors if found is not None)

    def together(self, act: Callable[[], T]) -> T:
        """Do something that may fail on one rank alone, and fail on all ranks if it did.

        Args:
            act: may raise an InkmotionError; calls no collective.

        Returns:
            What ``act`` returned on this rank.

        Raises:
            InkmotionError: as `share` says.
        """
        done: list[T] = []
        error = None
        try:
            done.append(act())
        except InkmotionError as failure:
            error = failure
        self.share(error)
        return done[0]
