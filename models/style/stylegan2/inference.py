"""Networks with modulated convolutions made ready for inference: the same numbers but for rounding, sooner."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from models.style.stylegan2.layers import EqualLinear
from models.style.stylegan2.modulated import ModulatedConv

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def prepared(network: M, *, channels_last: bool = True, bf16: bool = False) -> M:
    """A copy for inference, without gradients, in eval mode; the original stays as it is.

    What depends on the weights alone is computed once: their scales and their squares.

    Args:
        network: any that holds modulated convolutions. Its state dict is not the copy's.
        channels_last: keep the weights in the order that suits feature maps whose pixels' channels lie together.
        bf16: keep the modulated convolutions' weights in 16 bits; call the copy under autocast then.

    Returns:
        The copy, on the same device.
    """
    made = copy.deepcopy(network).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, ModulatedConv):
            module.keep_squares()
            if bf16:
                module.weight.data = module.weight.data.bfloat16()
        elif isinstance(module, EqualLinear):
            _scale(module)
    return made.to(memory_format=torch.channels_last) if channels_last else made  # type: ignore[call-overload,no-any-return]


def _scale(linear: EqualLinear) -> None:
    """Put the run-time scale into the weights, and a factor of 1 in its place."""
    linear.weight.mul_(linear.scale)
    linear.bias.mul_(linear.lr)
    linear.scale = linear.lr = 1.0
