"""Trained networks made ready for inference: fewer operations, the same numbers but for rounding."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.layers.attention import ChannelAttention
from models.layers.blocks import ResidualBlock, SameBlock, UpBlock, doubling_kernel

M = TypeVar("M", bound=nn.Module)

MOST_CHANNELS = 256
"""Up blocks with more of them work on maps so small that the larger kernel costs more than it saves."""


@torch.no_grad()
def folded(network: M, *, channels_last: bool = True, bf16: bool = False) -> M:
    """A copy for inference on a CPU, without gradients, in eval mode; the original stays as it is.

    Batch normalisation goes into the convolution before it (Jacob et al., CVPR 2018, section 3.2): in blocks, between
    the two convolutions of residual blocks, in channel attention. That in front of a residual block stays, because its
    input is also the block's. Up blocks double and convolve at once (`models.layers.blocks.doubling_kernel`).

    Args:
        network: of the motion family, trained. Its state dict's names are not the copy's.
        channels_last: keep the weights in the order that suits feature maps whose pixels' channels lie together.
        bf16: keep the convolutions' weights in 16 bits; call the copy under autocast then.

    Returns:
        The copy, on the same device.
    """
    made = copy.deepcopy(network).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, SameBlock):
            _fold(module, "conv", "norm")
            if isinstance(module, UpBlock) and module.mode == "nearest" and module.conv.in_channels <= MOST_CHANNELS:
                _double_at_once(module)
        elif isinstance(module, ResidualBlock):
            _fold(module, "conv1", "norm2")
        elif isinstance(module, ChannelAttention):
            _fold(module, "reduce", "norm")
    if bf16:  # channel attention computes in full precision, whatever is around it
        exact = {id(part) for each in made.modules() if isinstance(each, ChannelAttention) for part in each.modules()}
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and id(module) not in exact:
                module.to(torch.bfloat16)
    return made.to(memory_format=torch.channels_last) if channels_last else made  # type: ignore[call-overload,no-any-return]


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    """Put a normalisation into the convolution before it, and nothing in its place."""
    before, after = getattr(module, conv), getattr(module, norm)
    module.register_module(conv, fuse_conv_bn_eval(before, after))
    module.register_module(norm, nn.Identity())


def _double_at_once(block: UpBlock) -> None:
    weight, bias = block.conv.weight, block.conv.bias
    made = nn.ConvTranspose2d(weight.shape[1], weight.shape[0], 4, stride=2, padding=1, device=weight.device)
    made.weight = _parameter(doubling_kernel(weight))
    made.bias = None if bias is None else _parameter(bias)
    block.doubling = made.eval()
    block.register_module("conv", nn.Identity())


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.clone(), requires_grad=False)
