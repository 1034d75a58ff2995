"""What a profile will take in time, memory and disk, before it runs: measured on this machine where that is cheap.

One training step of each kind of network is really computed on a small batch of noise and scaled to the configured
batch and steps; media are counted; everything else is a rule of thumb that the output names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from models.catalog import MODELS
from models.errors import InkmotionError
from pipelines.params import ExperimentConfig, Params
from pipelines.sources import local_folder, shown_source, spec_of
from pipelines.stage import Paths
from preprocessing.config import DatasetConfig
from training.config import MotionTrainConfig, TrainConfig
from training.style_config import StyleTrainConfig

PROBE_BATCH = 2
STAGE_OVERHEAD_S = 8.0
"""Of starting a stage's process and joining a running Ray."""
TRAIN_OVERHEAD_S = 25.0
"""Of Ray Train's controller and workers."""
FRAMES_PER_S = 150.0
"""Of cutting and sharding together, one core, 640 x 360 sources."""
JPEG_BYTES_PER_PIXEL = 0.35
"""At quality 95."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One line of the estimate."""

    stage: str
    seconds: float | None
    memory_bytes: int | None
    disk_bytes: int | None
    how: str
    """What the figures rest on."""


def run(params: Params, paths: Paths, *, only: str | None = None) -> list[Estimate]:
    """Estimate every data set and experiment of the chosen profile, or one experiment, a paper's among them."""
    rows: list[Estimate] = []
    if only is None:
        rows += [_dataset(name, params, paths) for name in params.datasets]
    experiments = params.experiments if only is None else {only: params.experiment(only)}
    probed: dict[Any, tuple[float, int, int] | str] = {}
    for name, experiment in experiments.items():
        key = (experiment.preset, experiment.model, _losses(experiment.train), experiment.train.perceptual_backbone)
        if key not in probed:
            probed[key] = _probe(experiment)
        rows.append(_experiment(name, _counted(experiment, paths), probed[key]))
    return rows


def _losses(train: TrainConfig) -> Any:
    return train.losses if isinstance(train, MotionTrainConfig | StyleTrainConfig) else None


def _counted(experiment: ExperimentConfig, paths: Paths) -> ExperimentConfig:
    """The experiment in steps, where its shards are there to count epochs on."""
    from pipelines.train_stages import in_steps
    from training.feed import ShardReader

    try:
        return in_steps(experiment, ShardReader(paths.shards(experiment.dataset)))
    except InkmotionError:
        return experiment


def describe(rows: list[Estimate]) -> str:
    """The estimate as a table with its sum."""
    lines = [f"{'stage':28}{'time':>10}{'memory':>10}{'disk':>10}  rests on"]
    for row in rows:
        figures = f"{_time(row.seconds):>10}{_bytes(row.memory_bytes):>10}{_bytes(row.disk_bytes):>10}"
        lines.append(f"{row.stage:28}{figures}  {row.how}")
    seconds = sum(row.seconds or 0 for row in rows)
    disk = sum(row.disk_bytes or 0 for row in rows)
    memory = max((row.memory_bytes or 0 for row in rows), default=0)
    lines.append(f"{'all (known parts)':28}{_time(seconds):>10}{_bytes(memory):>10}{_bytes(disk):>10}")
    return "\n".join(lines)


def _dataset(name: str, params: Params, paths: Paths) -> Estimate:
    config = params.datasets[name]
    folder = local_folder(paths.root, config)
    files = [file for file in folder.rglob("*") if file.is_file()] if folder is not None and folder.is_dir() else []
    stage = f"data of {name}"
    if not files:
        return _elsewhere(stage, config)
    frames = sum(_frames(file) for file in files[:200]) * len(files) / len(files[:200])
    kept = config.num_stills if config.makes == "stills" else frames
    disk = sum(file.stat().st_size for file in files) + kept * config.size_px**2 * JPEG_BYTES_PER_PIXEL * 2
    seconds = 2 * STAGE_OVERHEAD_S + frames / FRAMES_PER_S
    how = f"{len(files)} files, {frames:.0f} frames, {FRAMES_PER_S:.0f} frames/s"
    return Estimate(stage=stage, seconds=seconds, memory_bytes=2**30, disk_bytes=int(disk), how=how)


def _elsewhere(stage: str, config: DatasetConfig) -> Estimate:
    """Media that are not on this machine: what is published of their size."""
    spec = spec_of(config)
    disk = int(spec.num_gb * 1e9) if spec and spec.num_gb else None
    how = f"published size of {spec.name}" if disk and spec else f"no media in {shown_source(config)}"
    return Estimate(stage=stage, seconds=None, memory_bytes=None, disk_bytes=disk, how=how)


def _frames(file: Path) -> int:
    from preprocessing.video import probe

    try:
        return probe(file).num_frames or 0
    except InkmotionError:
        return 0


def _experiment(name: str, experiment: ExperimentConfig, probed: tuple[float, int, int] | str) -> Estimate:
    train, stage = experiment.train, f"training of {name}"
    if isinstance(probed, str):
        return Estimate(stage=stage, seconds=None, memory_bytes=None, disk_bytes=None, how=probed)
    sample_s, sample_bytes, weights = probed
    if train.max_epochs is not None:
        how = f"{train.max_epochs} epochs of shards that are not there yet; {sample_s:.2f} s a sample measured here"
        return Estimate(stage=stage, seconds=None, memory_bytes=None, disk_bytes=None, how=how)
    share = train.batch_size // (train.num_workers or 1)
    seconds = TRAIN_OVERHEAD_S + train.max_steps * sample_s * share
    kept = train.keep_last + 2  # the best and the final one
    state = weights * 4 * 4  # weights, their average and Adam's two moments, fp32
    memory = 2**29 + state + share * sample_bytes
    how = f"{train.max_steps} steps of {train.batch_size}; {sample_s:.2f} s a sample measured here"
    return Estimate(stage=stage, seconds=seconds, memory_bytes=memory, disk_bytes=kept * state, how=how)


def _probe(experiment: ExperimentConfig) -> tuple[float, int, int] | str:
    """(seconds a sample, bytes a sample, number of weights) of a training step here, or why it can't be had."""
    import numpy as np
    import torch

    from training.feed import PairBatch
    from training.job import load_callable

    torch.set_flush_denormal(True)
    spec = MODELS[experiment.preset]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        networks = load_callable(spec.build)(experiment.model)
        recipe = load_callable(spec.recipe)(networks, model=experiment.model, train=experiment.train, device=device)
    except InkmotionError as error:
        return str(error)
    size = experiment.model.size_px
    frames = torch.randint(0, 256, (2, PROBE_BATCH, 3, size, size), dtype=torch.uint8)
    pairs = PairBatch(frames[0], frames[1], np.arange(PROBE_BATCH))
    weights = sum(entry.numel() for network in networks.values() for entry in network.parameters())
    before = psutil.Process().memory_info().rss
    _step(recipe, pairs)  # the first step also plans and allocates
    grown = psutil.Process().memory_info().rss - before - weights * 4
    started = time.perf_counter()
    _step(recipe, pairs)
    seconds = (time.perf_counter() - started) / PROBE_BATCH
    return seconds, max(grown, 0) // PROBE_BATCH, weights


def _step(recipe: Any, pairs: Any) -> None:
    import torch

    batch = recipe.prepare(pairs)
    carry: dict[str, Any] = {}
    for phase in recipe.phases:
        made = phase.module(batch, carry)
        carry = {**carry, **made.carry}
        phase.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(made.losses.values())).sum().backward()  # type: ignore[no-untyped-call]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _bytes(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
