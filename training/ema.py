"""An exponential moving average of networks: steadier than the weights of any one step."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Copies of networks that follow them slowly, parameters and buffers alike.

    After update number n the copies are ``decay_n * copies + (1 - decay_n) * networks`` with
    ``decay_n = min(decay, (1 + n) / (10 + n))``: the first steps count for little, because the weights are random then.
    Whole-number buffers are copied.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.networks = {
            name: copy.deepcopy(network).eval().requires_grad_(False) for name, network in networks.items()
        }

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module], step: int) -> None:
        """Follow the networks; ``step`` counts the updates from 1."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for name, average in self.networks.items():
            old, new = average.state_dict(), networks[name].state_dict()
            moving = [key for key, value in old.items() if value.is_floating_point()]
            torch._foreach_lerp_([old[key] for key in moving], [new[key] for key in moving], weight)
            for key in old.keys() - set(moving):
                old[key].copy_(new[key])

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors as ``<network>.<entry>``."""
        return {
            f"{name}.{key}": value
            for name, network in self.networks.items()
            for key, value in network.state_dict().items()
        }
