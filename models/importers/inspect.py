"""Reads a published checkpoint whole: what it is, the configuration that fits it, its weights and optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ParamsError, must
from models.importers import moments as optimisers
from models.importers.entries import COUNTER, States, account, collect, refuse_unfit
from models.importers.layout import LAYOUTS, Kind, Layout
from models.importers.options import Assumptions, merge
from models.importers.reading import PublishedFile, read
from models.importers.report import ImportReport, OptionRow, rows_of
from models.importers.settings import Settings, read_settings
from models.importers.shapes import infer
from models.motion.config import SCALED_PX, MotionConfig
from models.motion.networks import build

_FIX_ENTRIES = "The file is damaged or was trained with other code than the published; it can't be taken in part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A published checkpoint in this project's terms."""

    preset: str
    config: MotionConfig
    states: States
    """State dicts that fit the networks of ``config``, counters of batches included."""
    moments: optimisers.Moments
    report: ImportReport

    def networks(self) -> dict[str, nn.Module]:
        """The networks, filled, in eval mode."""
        made = build(self.config)
        for name, network in made.items():
            network.load_state_dict(self.states[name])
            network.eval().requires_grad_(False)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All tensors as ``<network>.<entry>``, as checkpoints hold them."""
        return {f"{name}.{entry}": value for name, state in self.states.items() for entry, value in state.items()}

    def settings(self) -> dict[str, Any]:
        """Options that a training from this model must state, since a profile may have others; not the frames' size."""
        mine = asdict(self.config)
        stated = [row.option for row in self.report.options if row.option not in ("size_px", "motion")]
        return {name: mine[name] for name in stated if mine[name] is not None}


def inspect(path: Path, kind: Kind, assumptions: Assumptions | None = None) -> Imported:
    """Read a published checkpoint and work out what it is.

    Args:
        path: the published file.
        kind: what it is meant to be.
        assumptions: what its tensors' shapes can't tell.

    Raises:
        CheckpointError: the file can't be read safely, is of another method, is damaged, does not fit the published
            networks entry by entry, or the settings given contradict it. The message says which and why.
    """
    return convert(read(path), kind, assumptions or Assumptions(), where=str(path))


def convert(file: PublishedFile, kind: Kind, assumptions: Assumptions, *, where: str) -> Imported:
    """`inspect`, of a file that is read already; ``where`` names it in errors."""
    layout = LAYOUTS[kind]
    entries = collect(file.content, layout, where=where)
    settings = Settings()
    if assumptions.settings is not None:
        settings = read_settings(assumptions.settings, kind, where=f"the settings for {where}")
    fitted = infer(entries.states, articulated=kind == "articulated", where=where)
    rows = merge(fitted, settings, assumptions, kind=kind, where=where)
    config = _config(rows, where)
    wanted = _skeletons(config, where)
    accounts = account(entries.states, wanted, layout)
    refuse_unfit(accounts, where=where, fix=_FIX_ENTRIES)
    found = optimisers.collect(file.content, entries.states, layout)
    report = ImportReport(
        kind=kind,
        file=file.name,
        sha256=file.sha256,
        epoch=_epoch(file.content, layout),
        networks=rows_of(accounts, entries.counters),
        options=tuple(rows),
        optimisers=found.outcomes,
        ignored=entries.ignored,
        unknown_settings=settings.unknown,
        ignored_settings=settings.ignored,
        notes=(*entries.notes, *_notes(config, settings, kind)),
    )
    states = {name: _in_order(entries.states[name], wanted[name]) for name in wanted}
    return Imported(preset=kind, config=config, states=states, moments=found.moments, report=report)


def fill(networks: Mapping[str, nn.Module], path: Path, layout: Layout) -> ImportReport:
    """Fill given networks from a published file, whose other networks are left alone.

    Args:
        networks: the ones to fill, of those that `models.motion.networks.build` makes.
        path: the published file.
        layout: of the file.

    Raises:
        CheckpointError: the file can't be read safely, lacks a network, or does not fit these networks.
    """
    file, where = read(path), str(path)
    entries = collect(file.content, layout, where=where)
    for name in networks:
        if name not in entries.states:
            raise CheckpointError(must(where, f"hold the {name}", sorted(entries.states), "Don't ask for this network"))
    wanted = {name: network.state_dict() for name, network in networks.items()}
    accounts = account(entries.states, wanted, layout)
    refuse_unfit(accounts, where=where, fix="Give the model options with which the checkpoint was trained")
    for name, network in networks.items():
        network.load_state_dict(_in_order(entries.states[name], wanted[name]))
    unasked = [theirs for theirs, ours in layout.networks.items() if theirs in file.content and ours not in networks]
    beside = [name for name in (*layout.optimisers, *layout.epochs) if name in file.content]
    return ImportReport(
        kind=layout.kind,
        file=file.name,
        sha256=file.sha256,
        epoch=_epoch(file.content, layout),
        networks=rows_of(accounts, entries.counters),
        options=(),
        optimisers={},
        ignored=tuple(sorted({*entries.ignored, *unasked, *beside})),
        notes=entries.notes,
    )


def _config(rows: list[OptionRow], where: str) -> MotionConfig:
    options = {row.option: row.value for row in rows}
    if abs(options["scale_factor"] * options["size_px"] - SCALED_PX) < 1e-6:
        options["scale_factor"] = None  # then a training at another size keeps its motion at 64 px
    try:
        return MotionConfig(**options)
    except ParamsError as error:
        got = "; ".join(map(str, error.problems))
        raise CheckpointError(must(f"the model in {where}", "be one that can be built here", got)) from None


def _skeletons(config: MotionConfig, where: str) -> dict[str, dict[str, Tensor]]:
    """State dicts of the networks without their memory: a damaged file must not make this process allocate."""
    try:
        with torch.device("meta"):
            return {name: network.state_dict() for name, network in build(config).items()}
    except ParamsError as error:
        got = "; ".join(map(str, error.problems))
        raise CheckpointError(must(f"the model in {where}", "be one that can be built here", got)) from None


def _in_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the network's own order, with counters of batches at 0."""
    zero = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in wanted.items() if key.endswith(COUNTER)}
    return {key: zero[key] if key in zero else state[key] for key in wanted}


def _epoch(content: Mapping[str, Any], layout: Layout) -> int | None:
    epochs = [content[name] for name in layout.epochs if name in content]
    return next((int(one) for one in epochs if isinstance(one, int) and 0 <= one < 10**9), None)


def _notes(config: MotionConfig, settings: Settings, kind: Kind) -> list[str]:
    notes = []
    if not settings.values and kind == "articulated":
        notes.append(
            "without its settings (--config) the padding of the heat maps is taken for 3, as for VoxCeleb;"
            " the models of TaiChi, MGif and TED have 0"
        )
    if config.scaled_px != SCALED_PX:
        notes.append(f"keypoints and motion are found at {config.scaled_px} px, not at {SCALED_PX} as published")
    if not config.align_corners:
        notes.append("files that were trained with torch 1.2 or older need --align-corners, or frames come out shifted")
    if kind == "fomm" and not config.discriminator:
        notes.append("the file has no discriminator: adversarial training starts with a fresh one")
    if settings.values.get("background", ("none",))[0] != "none" and config.background == "none":
        notes.append("the file lacks the background predictor of its settings; animation does without it")
    return notes
