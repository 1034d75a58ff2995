"""Published checkpoints of StyleGAN2, pSp and DualStyleGAN, in miniature, of networks that the tests make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.style.dualstylegan import DualStyleGenerator

State = dict[str, Tensor]


def kernel(gain: float) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64 * gain


def scrambled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and statistic drawn anew, in eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 0.9)
    return network.eval()


def published_generator(network: nn.Module, start: str = "") -> State:
    """StyleGAN2's: modulated weights have an axis of samples, blurs and doublings their kernels."""
    state = {}
    for key, value in network.state_dict().items():
        if key == "mean_style":
            continue
        is_modulated = key.endswith("conv.weight")
        state[start + key] = value[None].clone() if is_modulated else value.clone()
        if is_modulated and key.startswith("convs.") and int(key.split(".")[1]) % 2 == 0:
            state[start + key.replace("conv.weight", "conv.blur.kernel")] = kernel(4)
        if is_modulated and key.startswith("to_rgbs."):
            state[start + key.replace("conv.weight", "upsample.kernel")] = kernel(4)
    return state


def published_discriminator(network: nn.Module) -> State:
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith((".conv2.1.weight", ".skip.1.weight")):
            state[key.replace(".1.weight", ".0.kernel")] = kernel(1)
        state[key] = value.clone()
    return state


def published_dualstyle(network: DualStyleGenerator) -> State:
    """The extrinsic path is called ``res``."""
    state = {f"style.{key}": value.clone() for key, value in network.style.state_dict().items()}
    state |= published_generator(network.generator, "generator.")
    return state | {f"res.{key}": value.clone() for key, value in network.residuals.state_dict().items()}


def published_encoder(encoder: nn.Module, decoder: nn.Module | None, **more: Any) -> dict[str, Any]:
    """A whole checkpoint of pSp."""
    own = encoder.state_dict()
    state = {f"encoder.{key}": value.clone() for key, value in own.items() if key != "mean_code"}
    if decoder is not None:
        state |= published_generator(decoder, "decoder.")
    return {"state_dict": state, **more}


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path
