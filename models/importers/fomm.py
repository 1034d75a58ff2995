"""Published First Order Motion Model checkpoints (``*.pth.tar``) into this project's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must

_NETWORKS = {"generator": "generator", "kp_detector": "keypoint_detector", "discriminator": "discriminator"}
"""Published name to ours. Inside, the entries' names are the same."""
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a checkpoint's entries."""

    loaded: dict[str, int]
    """Number of entries taken, by network."""
    ignored: tuple[str, ...]
    """What the checkpoint holds beside networks: optimisers, its epoch, networks that weren't asked for."""


def convert(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """State dicts by this project's network names.

    Counters of batches (``num_batches_tracked``) are left out: published trainings never advanced them, and some
    files lack them.

    Args:
        checkpoint: the file's dict.

    Raises:
        CheckpointError: it holds no keypoint detector or no generator.
    """
    for name in ("generator", "kp_detector"):
        if not isinstance(checkpoint.get(name), Mapping):
            fix = "This importer reads checkpoints of the First Order Motion Model"
            raise CheckpointError(must("the checkpoint", f"hold {name}", sorted(map(str, checkpoint)), fix))
    return {
        ours: {key: value for key, value in checkpoint[theirs].items() if not key.endswith("num_batches_tracked")}
        for theirs, ours in _NETWORKS.items()
        if isinstance(checkpoint.get(theirs), Mapping)
    }


def load_into(networks: Mapping[str, nn.Module], path: Path) -> ImportReport:
    """Fill networks from a published file.

    Args:
        networks: the ones to fill, of those that `models.motion.networks.build` makes. Checkpoints trained with
            torch 1.2 or older need networks built with ``align_corners`` set.
        path: the published file.

    Raises:
        CheckpointError: the file is missing, can't be read safely, or does not fit the networks' configuration.
    """
    checkpoint = _read(path)
    states = convert(checkpoint)
    for name, network in networks.items():
        if name not in states:
            raise CheckpointError(must(str(path), f"hold the {name}", sorted(states), "Don't ask for this network"))
        _fit(name, network, states[name])
    taken = {theirs for theirs, ours in _NETWORKS.items() if ours in networks}
    return ImportReport(
        loaded={name: len(states[name]) for name in networks},
        ignored=tuple(sorted(key for key in checkpoint if key not in taken)),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(must("the published checkpoint", "be a file", str(path)))
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, pickle's own among them
        fix = "Only files of plain tensors are read; get the file again from where it was published"
        raise CheckpointError(must(str(path), "be a readable checkpoint", type(error).__name__, fix)) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(must(str(path), "hold a dict", type(checkpoint).__name__))
    return checkpoint


def _fit(name: str, network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load, or say which entries do not fit."""
    own = {key: value.shape for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    given = {key: value.shape for key, value in state.items()}
    wrong = [f"{key} is missing" for key in own if key not in given]
    wrong += [f"{key} is not known" for key in given if key not in own]
    wrong += [
        f"{key} is {tuple(given[key])} and not {tuple(own[key])}"
        for key in own
        if key in given and own[key] != given[key]
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        fix = "Give the model options with which the checkpoint was trained"
        raise CheckpointError(must(f"the checkpoint's {name}", "fit the model", "; ".join(wrong[:_SHOWN]) + more, fix))
    network.load_state_dict(state, strict=False)
