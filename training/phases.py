"""A GAN's step as a list of phases: the loop runs them in order and knows no generator and no discriminator."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.feed import PairBatch
from training.world import World

Batch = Mapping[str, Tensor]
"""What a recipe prepares for one step, on the device, a row per sample of this rank."""


class PhaseOutput(NamedTuple):
    """What a phase's module returns."""

    losses: dict[str, Tensor]
    """Weighted scalars by the term's name; the phase minimises their sum."""
    carry: dict[str, Tensor]
    """What later phases of the same step need, detached."""
    figures: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
    """Scalars to be seen beside the losses, detached; nothing minimises them."""


@dataclass(slots=True, kw_only=True)
class Phase:
    """One part of a step: a module whose ``forward(batch, carry)`` gives a `PhaseOutput`, and what trains it.

    The module registers exactly the networks that the phase trains. Networks which it only uses are kept outside of
    ``nn.Module``'s registry (in a tuple, say), so that they are neither wrapped nor given gradients.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    every_n_steps: int = 1
    """The phase runs in its first step and every n-th after it."""
    first_step: int = 0
    """Before it the phase stands still, and its schedule with it."""
    stop_step: int | None = None
    """The phase runs before this step only; None: to the end."""
    parts: int = 1
    """The batch goes through the module in so many parts, whose gradients are added: the memory of one of them."""
    max_grad_norm: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of losses and figures, by name: beyond it, to either side, the training has diverged and stops."""

    def is_due(self, step: int) -> bool:
        """Whether the phase runs in ``step`` (counted from 0)."""
        since = step - self.first_step
        return since >= 0 and (self.stop_step is None or step < self.stop_step) and since % self.every_n_steps == 0

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and scheduler; the weights are saved with the networks."""
        scheduler = self.scheduler.state_dict() if self.scheduler else None
        return {"optimizer": self.optimizer.state_dict(), "scheduler": scheduler}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])


class Recipe(Protocol):
    """How a family of models is trained."""

    networks: Mapping[str, nn.Module]
    """Everything that a checkpoint keeps, by name."""
    phases: Sequence[Phase]
    averaged: tuple[str, ...]
    """Names of the networks whose moving average is evaluated and registered."""

    def prepare(self, pairs: PairBatch) -> Batch:
        """Bring a batch of frames to the device and draw what the step needs, keyed by the samples' numbers."""
        ...

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """Named grids to look at, each uint8, (H, W, 3)."""
        ...


def part_of(rows: Batch, part: int, parts: int) -> Batch:
    """Every ``parts``-th row of all tensors from row ``part`` on: what that rank of ``parts`` would have."""
    return rows if parts == 1 else {name: value[part::parts] for name, value in rows.items()}


def joined(outputs: Sequence[PhaseOutput]) -> PhaseOutput:
    """What the parts of a batch gave, as the whole would: mean losses and figures, and the rows in their order."""
    if len(outputs) == 1:
        return outputs[0]

    def means(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([terms[name].detach() for terms in each]).mean() for name in each[0]}

    carry = {
        name: torch.stack([output.carry[name] for output in outputs], 1).flatten(0, 1) for name in outputs[0].carry
    }
    return PhaseOutput(means([output.losses for output in outputs]), carry, means([out.figures for out in outputs]))


def distribute(phase: Phase, world: World, *, deterministic: bool) -> nn.Module:
    """The phase's module as the loop calls it: wrapped so that gradients are averaged over the ranks.

    Args:
        phase: whose module trains on every rank, with equal weights.
        world: the ranks.
        deterministic: add the gradients in the order of the ranks, so that the bits depend neither on the buckets'
            layout (which changes after the first step of a process) nor on the transport.
    """
    if world.size == 1:
        return phase.module
    # Our batch norm synchronises its statistics and the other buffers follow from equal weights: none is broadcast.
    new_name = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    options: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    wrapped = DistributedDataParallel(phase.module, **options)
    if deterministic:
        # The hook's annotations would be strings here, which the registration refuses; a lambda has none.
        wrapped.register_comm_hook(world.size, lambda size, bucket: _mean_in_rank_order(size, bucket))
    return wrapped


def _mean_in_rank_order(size: int, bucket: Any) -> torch.futures.Future[Tensor]:
    mine = bucket.buffer()
    everyone = [torch.empty_like(mine) for _ in range(size)]
    work = dist.all_gather(everyone, mine, async_op=True)

    def mean(_: Any) -> Tensor:
        total = everyone[0]
        for other in everyone[1:]:
            total += other
        return total.div_(size)

    future: torch.futures.Future[Tensor] = work.get_future().then(mean)
    return future
