"""How far a training is, for people who watch."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A training at one moment."""

    step: int
    num_steps: int
    step_s: float
    """Mean of the steps since the last report."""
    samples_per_s: float
    """Over all workers, likewise."""
    data_wait_share: float
    """Share of that time in which rank 0 waited for samples, 0 to 1."""
    memory_mb: float
    """Of rank 0: on a GPU the most that was allocated, else the process' resident set."""
    losses: Mapping[str, float]
    """Means over the workers, of the last step."""
    num_workers: int = 1
    attempt: int = 1

    def line(self) -> str:
        """One line of text."""
        losses = "  ".join(f"{name.removeprefix('loss/')} {value:.4g}" for name, value in self.losses.items())
        return (
            f"step {self.step}/{self.num_steps}  {self.step_s:.3g} s/step  {self.samples_per_s:.3g} samples/s  "
            f"data wait {self.data_wait_share:.1%}  {self.memory_mb:.0f} MB  {losses}"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**asdict(self), "losses": dict(self.losses)}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return Progress(**raw)


Show = Callable[[Progress], None]
"""Shows progress, on a terminal or in a log."""


def show_line(progress: Progress) -> None:
    """Show progress as a line of the log."""
    log.info("%s", progress.line())


def memory_mb(device: torch.device) -> float:
    """Memory of this process: the most allocated on its GPU, else its resident set; MB of 2^20 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * PAGE_BYTES / 2**20
