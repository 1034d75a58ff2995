"""Optimisers, their schedules, and the gradients' norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from training.config import TrainConfig

ADAM_EPS = 1e-8


def adam(
    groups: Mapping[str, tuple[Iterable[nn.Parameter], float]], betas: tuple[float, float], *, fused: bool = False
) -> torch.optim.Adam:
    """Adam with one group of parameters per network.

    Args:
        groups: name -> (parameters, learning rate).
        betas: decay of the gradients' first and second moment.
        fused: one kernel for everything; weights, gradients and moments must lie in the same order in memory.
    """
    described = [{"params": list(params), "lr": lr, "name": name} for name, (params, lr) in groups.items()]
    return torch.optim.Adam(described, betas=betas, eps=ADAM_EPS, fused=fused or None)


def schedule(optimizer: torch.optim.Optimizer, train: TrainConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """Every learning rate times ``gamma`` at each milestone; milestones count steps."""
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(train.milestones), gamma=train.gamma)


def clip(parameters: Sequence[nn.Parameter], max_norm: float | None) -> float:
    """The gradients' L2 norm, over all parameters; scales them down to ``max_norm`` when they exceed it.

    Not-finite gradients are left as they are: the caller stops the run.
    """
    given = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(given)
    value = float(norm)
    if max_norm is not None and math.isfinite(value):
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return value
