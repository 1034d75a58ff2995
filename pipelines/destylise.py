"""The destylise stage: the codes of every style picture and of the face behind it; a killed one goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.contracts import ShardClip
from models.errors import ClipError, must
from models.perceptual import build_perceptual
from pipelines.dualstyle_steps import StepName, experiment_name
from pipelines.journal import Work, key_of, resumed
from pipelines.params import Params
from pipelines.stage import Paths, only_writer, write_report
from training.checkpoint import load_networks, read_info
from training.codes import Codes, code_table, write_codes
from training.destylise import Destylised, Destyliser, destylise
from training.destylise_config import DestyliseConfig
from training.feed import ShardReader
from training.speed import keep_memory

log = logging.getLogger(__name__)

ITEMS = "pictures"
SHOWN = 8
"""Pictures in the report's strip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestyliseReport:
    """What the stage did; reports/destylise/<name>.json."""

    name: str
    style_dataset: str
    pictures: int
    done_before: int
    """Of them, by an earlier run of the stage with the same settings and networks."""
    steps: int
    """Of each picture's optimisation."""
    first_loss: float
    """Mean over the pictures, before the optimisation's first step."""
    last_loss: float
    losses: Mapping[str, tuple[float, float]]
    """Each term's mean, before and after."""
    seconds: float
    picture_s: float
    """Seconds for each picture that was done now."""


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
    reader = ShardReader(paths.shards(system.style_dataset))
    pictures = sorted((*reader.clips("train"), *reader.clips("test")), key=lambda clip: clip.id)
    if not pictures:
        raise ClipError(must(f"data set {system.style_dataset}", "hold a style picture", "none"))
    with only_writer(target), resumed(target) as work:
        trained: tuple[StepName, ...] = ("gan", "encoder", "tuned")
        parts = {step: paths.trained(experiment_name(name, step)) for step in trained}
        known = key_of(config, *(read_info(part).sha256 for part in parts.values()))
        keys = {clip.id: key_of(known, reader.index.shards[clip.shard].sha256, clip.row) for clip in pictures}
        left = [clip for clip in pictures if work.result(clip.id, keys[clip.id]) is None]
        if left:
            _numerics()
            networks = _networks(parts)
            done = destylise(_read(left, reader, networks.generator), networks, config)
            for number, one in enumerate(done, start=1):
                _keep(one, keys[one.name], work)
                log.info("destylised %s (%d of %d): loss %.3f, was %.3f", one.name, number, len(left), *_losses(one))
        work.sweep(clip.id for clip in pictures)
        codes = {clip.id: _codes(work.folder / ITEMS / f"{clip.id}.safetensors") for clip in pictures}
        write_codes(work.folder, code_table(codes, {"settings": asdict(config), "system": name}))
        report = _report(name, system.style_dataset, config, work, pictures, len(left), time.monotonic() - started_s)
        _draw(pictures[:: max(1, len(pictures) // SHOWN)][:SHOWN], reader, work, paths.pictures("destylise", name))
        write_report(paths.report("destylise", name), report)
    return report


def _numerics() -> None:
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    keep_memory()


def _networks(parts: Mapping[StepName, Path]) -> Destyliser:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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


def _read(pictures: list[ShardClip], reader: ShardReader, generator: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each picture by its clip's name, in [0, 1], (3, H, W), where the generator is."""
    device = next(generator.parameters()).device
    for clip in pictures:
        frame = reader.frames(clip, (0,))[0]
        yield clip.id, torch.from_numpy(frame.transpose(2, 0, 1).copy()).to(device, torch.float32) / 255


def _keep(one: Destylised, key: str, work: Work) -> None:
    name = f"{ITEMS}/{one.name}.safetensors"
    path = work.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    face = one.face.clamp(0, 1).mul(255).round().to(torch.uint8).contiguous()
    tensors = {"extrinsic": one.codes.extrinsic, "intrinsic": one.codes.intrinsic, "face": face}
    safetensors.torch.save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, partial)
    partial.replace(path)
    work.add(one.name, key, {"begin": dict(one.begin), "end": dict(one.end)}, [name])


def _losses(one: Destylised) -> tuple[float, float]:
    return sum(one.end.values()), sum(one.begin.values())


def _codes(path: Path) -> Codes:
    tensors = safetensors.torch.load_file(path)
    return Codes(tensors["extrinsic"], tensors["intrinsic"])


def _report(
    name: str,
    dataset: str,
    config: DestyliseConfig,
    work: Work,
    pictures: list[ShardClip],
    done_now: int,
    seconds: float,
) -> DestyliseReport:
    results = work.results()
    terms = {term: (_mean(results, "begin", term), _mean(results, "end", term)) for term in results[0]["begin"]}
    return DestyliseReport(
        name=name,
        style_dataset=dataset,
        pictures=len(pictures),
        done_before=len(pictures) - done_now,
        steps=config.steps,
        first_loss=sum(first for first, _ in terms.values()),
        last_loss=sum(last for _, last in terms.values()),
        losses=terms,
        seconds=round(seconds, 3),
        picture_s=round(seconds / done_now, 3) if done_now else 0.0,
    )


def _mean(results: list[dict[str, Any]], when: str, term: str) -> float:
    return float(np.mean([result[when][term] for result in results]))


def _draw(shown: list[ShardClip], reader: ShardReader, work: Work, folder: Path) -> None:
    """A strip: style pictures above, the faces behind them below."""
    from PIL import Image

    columns = []
    for clip in shown:
        face = safetensors.torch.load_file(work.folder / ITEMS / f"{clip.id}.safetensors")["face"].numpy()
        style = reader.frames(clip, (0,))[0]
        lower = np.asarray(
            Image.fromarray(face.transpose(1, 2, 0)).resize(style.shape[1::-1], Image.Resampling.NEAREST)
        )
        columns.append(np.concatenate([style, lower]))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".strip.png.partial"
    Image.fromarray(np.concatenate(columns, axis=1)).save(partial, format="PNG")
    partial.replace(folder / "strip.png")
