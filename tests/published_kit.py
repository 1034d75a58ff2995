"""Checkpoints as the published code writes them, of our smallest networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.importers.layout import LAYOUTS, Kind
from models.importers.options import Assumptions
from models.motion.networks import build, debug_config

AA: dict[str, Any] = {
    "motion": "articulated",
    "background": "affine",
    "generator_skips": True,
    "discriminator": False,
    "avd": True,
    "heat_map_padding": 3,
}
SIZED = Assumptions(size_px=32)


def published(nets: Mapping[str, nn.Module], kind: Kind = "fomm", **more: Any) -> dict[str, Any]:
    """A checkpoint as the published code writes it."""
    layout = LAYOUTS[kind]
    content: dict[str, Any] = {
        theirs: OrderedDict((layout.theirs(ours, key), value) for key, value in nets[ours].state_dict().items())
        for theirs, ours in layout.networks.items()
        if ours in nets
    }
    return {**content, layout.epochs[0]: 12, **more}


def write(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def stepped(network: nn.Module, order: list[str], *, steps: int, rate: float = 2e-4) -> torch.optim.Adam:
    """Adam over a network's parameters in an order, stepped with made-up gradients."""
    named = dict(network.named_parameters())
    optimizer = torch.optim.Adam([named[name] for name in order], lr=rate, betas=(0.5, 0.999))
    for step in range(steps):
        give_gradients(network, seed=step)
        optimizer.step()
    return optimizer


def give_gradients(network: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(network.named_parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def trained(folder: Path, *, old: bool = False) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Adam], Path]:
    """Networks whose entries stand in another order than ours, their optimisers, and the file."""
    torch.manual_seed(0)
    theirs = build(debug_config())
    content, optimizers = published(theirs, epoch=99), {}
    for name, ours in LAYOUTS["fomm"].networks.items():
        turned = OrderedDict(reversed(content[name].items()))
        order = [key for key in turned if key in dict(theirs[ours].named_parameters())]
        optimizers[ours] = stepped(theirs[ours], order, steps=3)
        content[name] = OrderedDict((key, theirs[ours].state_dict()[key].clone()) for key in turned)
        state = optimizers[ours].state_dict()
        content[f"optimizer_{name}"] = _as_before_torch_1_5(state) if old else state
    return theirs, optimizers, write(folder / "x.pth.tar", content)


def _as_before_torch_1_5(state: dict[str, Any]) -> dict[str, Any]:
    """Parameters named by their addresses, steps as plain numbers."""
    number = {index: 140_000_000_000 + 97 * index for index in state["param_groups"][0]["params"]}
    entries = {number[i]: {**entry, "step": int(entry["step"])} for i, entry in state["state"].items()}
    return {"state": entries, "param_groups": [{**state["param_groups"][0], "params": list(number.values())}]}
