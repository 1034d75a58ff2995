"""What the importers of StyleGAN2, pSp and DualStyleGAN share: telling files apart, and filling networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.importers.entries import Account, States, refuse_unfit
from models.importers.layout import LAYOUTS, describe

METHODS = {
    **{kind: layout.title for kind, layout in LAYOUTS.items()},
    "stylegan2": "StyleGAN2",
    "psp": "pSp",
    "dualstyle": "DualStyleGAN",
}
"""``--kind`` of an import -> the method whose files it takes."""
Compare = Callable[[str, Mapping[str, Tensor], Mapping[str, Tensor]], Account]
"""Accounts for the entries of the network of this name: those given, and those wanted."""


def fill(networks: Mapping[str, nn.Module], states: States, compare: Compare, *, where: str) -> None:
    """Load a file's state dicts into given networks: all of them, or none where one does not fit.

    Args:
        networks: by our names, changed.
        states: of the file.
        compare: accounts for a network's entries.
        where: names the file in errors.

    Raises:
        CheckpointError: the file lacks a network, or has one of other sizes.
    """
    for name, network in networks.items():
        if name not in states:
            raise CheckpointError(must(where, f"hold the {name}", sorted(states), "Don't ask for this network"))
        fix = "Build the networks with the file's sizes (inspect tells them)"
        refuse_unfit([compare(name, states[name], network.state_dict())], where=where, fix=fix)
    for name, network in networks.items():
        network.load_state_dict(states[name])


def filled(networks: Mapping[str, nn.Module], states: States) -> dict[str, nn.Module]:
    """Networks made for a file, with its entries, in eval mode and not to be trained."""
    for name, network in networks.items():
        network.load_state_dict(states[name])
        network.eval().requires_grad_(False)
    return dict(networks)


def kind_of(content: Mapping[str, Any]) -> str | None:
    """The ``--kind`` that a file is to be imported by, as its entries say; None: of none that is known."""
    title = describe(content)
    for layout in LAYOUTS.values():
        if layout.title == title:
            return layout.kind
    generator, state = content.get("g_ema"), content.get("state_dict")
    if _names(generator, "input."):
        return "stylegan2"
    if _names(generator, "generator.") and _names(generator, "res."):
        return "dualstyle"
    return "psp" if _names(state, "encoder.") else None


def told(content: Mapping[str, Any]) -> str:
    """What a file is, to be said to whoever gave it for another one."""
    kind = kind_of(content)
    return describe(content) if kind is None else f"a checkpoint of {METHODS[kind]}"


def advice(content: Mapping[str, Any], fix: str) -> str:
    """What to do with a file of another method: the kind that takes it, else ``fix``."""
    kind = kind_of(content)
    return fix if kind is None else f"It is a file for --kind {kind}"


def _names(state: object, beginning: str) -> bool:
    """Whether a network of a file has entries whose names begin so."""
    return isinstance(state, Mapping) and any(str(key).startswith(beginning) for key in state)
