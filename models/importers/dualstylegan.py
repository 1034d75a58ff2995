"""Published DualStyleGAN checkpoints (``generator.pt``) into this project's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ParamsError, must
from models.importers.entries import States, refuse_unfit
from models.importers.faces import METHODS, advice, fill, filled, told
from models.importers.reading import PublishedFile, read, shown
from models.importers.report import OptionRow, rows_of
from models.importers.stylegan2 import MEAN, MEAN_OURS, NETWORKS, GanReport, account, config_of, entries, mean_of
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.stylegan2.discriminator import Discriminator

METHOD = METHODS["dualstyle"]
_INSIDE = "generator."
"""Beginning of the names of StyleGAN2's entries, published and ours."""
_PUBLISHED_PATH, _PATH = "res.", "residuals."
_SHOWN = 6
_SEEN = ("size_px", "style_dim", "mapping_layers", "max_channels", "channel_multiplier", "structure_layers")
_FIX = "The file is damaged or of another method; it can't be taken in part"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDualStyle:
    """A published checkpoint in this project's terms."""

    config: FaceConfig
    """Nothing in the file tells of the encoder: its sizes are the published ones."""
    states: States
    """``generator`` and, where the file has one, ``discriminator``: state dicts that fit the networks of ``config``."""
    has_mean: bool
    """Whether the file says the mean style; the published one does not, and its styles are pulled towards 0."""
    report: GanReport

    def networks(self) -> dict[str, nn.Module]:
        """The networks that the file holds, filled, in eval mode."""
        return filled(_networks(self.config, self.states), self.states)


def inspect(path: Path) -> ImportedDualStyle:
    """Read a published checkpoint: a dict of ``g_ema``, with StyleGAN2 inside, perhaps ``latent_avg`` and ``d``.

    Args:
        path: the published file.

    Raises:
        CheckpointError: the file can't be read safely, is of another method, or does not fit entry by entry.
    """
    return convert(read(path), where=str(path))


def load_into(networks: Mapping[str, nn.Module], path: Path) -> GanReport:
    """Fill given networks from a published file.

    Args:
        networks: ``generator`` (a `DualStyleGenerator`), ``discriminator`` or both.
        path: the published file.

    Raises:
        CheckpointError: as `inspect` says, or the file lacks a network, or has one of other sizes.
    """
    found = inspect(path)
    fill(networks, found.states, account, where=str(path))
    return found.report


def convert(file: PublishedFile, *, where: str) -> ImportedDualStyle:
    """`inspect`, of a file that is read already; ``where`` names it in errors."""
    content, states, kernels = file.content, States(), 0
    for theirs, ours in NETWORKS.items():
        if isinstance(content.get(theirs), Mapping):
            raw, dropped = entries(content[theirs], where=f"{where}: {theirs}")
            states[ours], kernels = {_ours(key): value for key, value in raw.items()}, kernels + dropped
    if not any(key.startswith(_PATH) for key in states.get("generator", {})):
        fix = advice(content, "Give the published file, with both paths of the generator in g_ema")
        raise CheckpointError(must(where, f"be a checkpoint of {METHOD}", _other(content), fix))
    config = _config(states["generator"], where=f"{where}: g_ema")
    states["generator"][_INSIDE + MEAN_OURS] = mean_of(content, config.style_dim, where=where)
    with torch.device("meta"):
        wanted = {name: network.state_dict() for name, network in _networks(config, states).items()}
    accounts = [account(name, state, wanted[name]) for name, state in states.items()]
    refuse_unfit(accounts, where=where, fix=_FIX)
    known = (*NETWORKS, MEAN)
    report = GanReport(
        method=METHOD,
        file=file.name,
        sha256=file.sha256,
        networks=rows_of(accounts, {}),
        kernels=kernels,
        options=_options(config),
        ignored=tuple(shown(name) for name in content if name not in known),
        notes=() if MEAN in content else ("intrinsic styles are pulled towards 0, as published: no mean style is set",),
    )
    ordered = {name: {key: state[key] for key in wanted[name]} for name, state in states.items()}
    return ImportedDualStyle(config=config, states=ordered, has_mean=MEAN in content, report=report)


def _networks(config: FaceConfig, states: Mapping[str, object]) -> dict[str, nn.Module]:
    kinds = {"generator": DualStyleGenerator, "discriminator": Discriminator}
    return {name: kind(config) for name, kind in kinds.items() if name in states}


def _ours(key: str) -> str:
    return _PATH + key.removeprefix(_PUBLISHED_PATH) if key.startswith(_PUBLISHED_PATH) else key


def _other(content: Mapping[str, object]) -> str:
    """What a file is that has no extrinsic path."""
    raw = content.get("g_ema")
    if not isinstance(raw, Mapping):
        return told(content)
    listed = ", ".join(shown(name) for name in list(raw)[:_SHOWN])
    return f"no {_PUBLISHED_PATH}* among {len(raw)} entries ({listed}, ...)"


def _config(state: Mapping[str, Tensor], *, where: str) -> FaceConfig:
    inside = {key.removeprefix(_INSIDE): value for key, value in state.items() if key.startswith(_INSIDE)}
    config = config_of(inside, where=where)
    structure = 0
    while f"{_PATH}{structure}.conv.0.weight" in state:
        structure += 1
    try:
        return replace(config, structure_layers=structure)
    except ParamsError as error:
        raise CheckpointError(must(where, f"be a generator of {METHOD}", str(error).rstrip("."), _FIX)) from error


def _options(config: FaceConfig) -> tuple[OptionRow, ...]:
    mine = asdict(config)
    told = tuple(OptionRow(option=name, value=mine[name], source="the tensors' shapes") for name in _SEEN)
    return (*told, OptionRow(option="mapping_lr", value=config.mapping_lr, source="the published default"))
