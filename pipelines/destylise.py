"""The destylise stage: the codes of every style picture and of the face behind it; a killed one goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from models.perceptual import build_perceptual
from pipelines.dualstyle_steps import StepName, experiment_name
from pipelines.journal import Work, key_of, resumed
from pipelines.params import Params
from pipelines.stage import Paths, only_writer, write_report
from pipelines.style_pictures import (
    ITEMS,
    PicturesReport,
    as_picture,
    draw,
    figures,
    find,
    keep,
    numerics,
    read,
    shown,
)
from training.checkpoint import load_networks, read_info
from training.codes import Codes, code_table, write_codes
from training.destylise import Destylised, Destyliser, destylise

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestyliseReport(PicturesReport):
    """What the stage did; reports/destylise/<name>.json."""


def run(name: str, params: Params, paths: Paths) -> DestyliseReport:
    """Destylise the style pictures of a system.

    A picture's codes depend on itself, its name, the settings and the networks alone; what is done is not done again
    while these are the same, and a stage that was killed goes on with the next picture.

    Args:
        name: of the system, in ``dualstyles``.
        params: of the project.
        paths: of the project.

    Raises:
        CheckpointError: a network has not been trained.
        ClipError: there are no style pictures.
        TrainingError: an optimisation has left the numbers.
    """
    started_s = time.monotonic()
    system = params.dualstyle(name)
    config, target = system.destylise, paths.codes(name)
    reader, pictures = find(system.style_dataset, paths.shards(system.style_dataset))
    with only_writer(target), resumed(target) as work:
        trained: tuple[StepName, ...] = ("gan", "encoder", "tuned")
        parts = {step: paths.trained(experiment_name(name, step)) for step in trained}
        known = key_of(config, *(read_info(part).sha256 for part in parts.values()))
        keys = {clip.id: key_of(known, reader.index.shards[clip.shard].sha256, clip.row) for clip in pictures}
        left = [clip for clip in pictures if work.result(clip.id, keys[clip.id]) is None]
        if left:
            device = numerics()
            networks = _networks(parts, device)
            done = destylise(read(left, reader, device), networks, config)
            for number, one in enumerate(done, start=1):
                _keep(one, keys[one.name], work)
                log.info("destylised %s (%d of %d): loss %.3f, was %.3f", one.name, number, len(left), *_losses(one))
        work.sweep(clip.id for clip in pictures)
        codes = {clip.id: _codes(work.folder / ITEMS / f"{clip.id}.safetensors") for clip in pictures}
        write_codes(work.folder, code_table(codes, {"settings": asdict(config), "system": name}))
        found = figures(work, len(left), time.monotonic() - started_s)
        report = DestyliseReport(name=name, style_dataset=system.style_dataset, steps=config.steps, **found)
        draw(shown(pictures), reader, work, {"face behind it": "face"}, paths.pictures("destylise", name))
        write_report(paths.report("destylise", name), report)
    return report


def _networks(parts: Mapping[StepName, Path], device: torch.device) -> Destyliser:
    loaded = {step: load_networks(folder) for step, folder in parts.items()}
    train = loaded["encoder"][1].train
    weights = Path(train.perceptual_weights) if train.perceptual_weights else None
    perceptual: nn.Module = build_perceptual(train.perceptual_backbone, weights)
    found: dict[str, Any] = {
        "generator": loaded["gan"][0]["generator"],
        "fine_tuned": loaded["tuned"][0]["generator"],
        "encoder": loaded["encoder"][0]["encoder"],
        "perceptual": perceptual,
    }
    return Destyliser(**{key: network.to(device) for key, network in found.items()})


def _keep(one: Destylised, key: str, work: Work) -> None:
    tensors = {"extrinsic": one.codes.extrinsic, "intrinsic": one.codes.intrinsic, "face": as_picture(one.face)}
    keep(work, one.name, key, tensors, {"begin": dict(one.begin), "end": dict(one.end)})


def _losses(one: Destylised) -> tuple[float, float]:
    return sum(one.end.values()), sum(one.begin.values())


def _codes(path: Path) -> Codes:
    tensors = safetensors.torch.load_file(path)
    return Codes(tensors["extrinsic"], tensors["intrinsic"])
