"""Networks that a training takes in from others: as a part of its own, or to stand still beside what it trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from models.errors import CheckpointError, must
from training.checkpoint import fill, read_info, read_tensors
from training.runfolder import fetch_folder

log = logging.getLogger(__name__)

PARTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "psp": {"gan": {"generator": "generator"}},
    "dualstylegan": {
        "gan": {"generator": "generator.generator", "discriminator": "discriminator"},
        "encoder": {"encoder": "encoder"},
    },
}
"""Preset -> part -> (a network of the part's checkpoint -> the network, or the module in one, that it fills)."""


def take_in(networks: Mapping[str, nn.Module], parts: Mapping[str, str], preset: str) -> None:
    """Fill networks, or parts of them, from other trainings' exported models: by their moving averages where they have.

    Args:
        networks: of the training that begins, changed.
        parts: part -> folder or URL of a checkpoint. What is no network (``codes``) is left to others.
        preset: of the training.

    Raises:
        CheckpointError: a checkpoint is broken, or does not fit.
    """
    for part, pairs in PARTS.get(preset, {}).items():
        if part not in parts:
            continue
        with fetch_folder(parts[part]) as folder:
            info = read_info(folder)
            tensors = read_tensors(folder, info)
            wanted = {name: _module(networks, path) for name, path in pairs.items()}
            fill(wanted, tensors, ema=True, where=parts[part])
        log.info("took %s in from %s (step %d)", " and ".join(pairs), info.experiment or info.preset, info.step)


def _module(networks: Mapping[str, nn.Module], path: str) -> nn.Module:
    name, _, inner = path.partition(".")
    try:
        return networks[name].get_submodule(inner) if inner else networks[name]
    except (KeyError, AttributeError):
        raise CheckpointError(must("the networks", f"hold {path}", ", ".join(networks))) from None
