"""What the train stage says of a training: its report, and the table of its losses."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import Literal

from training.checkpoint import CheckpointInfo
from training.job import TrainJob, TrainResult
from training.validation import COPY_L1, L1

Backend = Literal["ray", "local"]
TOTAL = "loss/total"
KEPT = ("loss/", "figure/", "validation/")
"""What the names of the table's columns begin with."""
FIGURES = (
    "steps",
    "images_seen",
    "seconds",
    "step_s",
    "samples_per_s",
    "data_wait_s",
    "data_wait_share",
    "best_step",
    "best_metric",
    "stopped_early",
    "restarts",
    "num_workers",
    "device",
)
"""Taken over from `TrainResult`."""
Curves = list[tuple[int, dict[str, float]]]
"""Metrics by step, as the record holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondStage:
    """The training of the AVD networks, after all else."""

    run_name: str
    steps: int
    images_seen: int
    seconds: float
    step_s: float
    first_loss: float | None
    """As of the first stage."""
    last_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a training did, and with what; times are of all its attempts together unless the name says otherwise."""

    experiment: str
    preset: str
    dataset: str
    style_dataset: str | None
    split_rule: str
    """How test clips were set apart: ``identity``, ``source`` or ``time``."""
    data_sha256: str
    """Of the shards' index."""
    run_name: str
    run_folder: str
    backend: Backend
    steps: int
    images_seen: int
    seconds: float
    step_s: float
    samples_per_s: float
    data_wait_s: float
    data_wait_share: float
    best_step: int
    best_metric: float | None
    """Validation figure of the best checkpoint: L1, or KID in the style family."""
    validation: dict[str, float]
    """Figures of the final model, by name."""
    validation_l1: float | None
    """Of the final model."""
    validation_copy_source_l1: float | None
    """Of doing nothing, on the same pairs."""
    stopped_early: bool
    restarts: int
    num_workers: int
    device: str
    first_loss: float | None
    """Sum of all terms, mean of the first tenth of the steps."""
    last_loss: float | None
    """Likewise of the last tenth."""
    memory_mb: float | None
    """The most that rank 0's process (on a GPU, its device) has held."""
    num_parameters: dict[str, int]
    """By network."""
    second_stage: SecondStage | None
    """Of a model that has one."""
    weights_sha256: str
    mlflow_run_id: str | None
    tags: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a training left behind."""

    job: TrainJob
    result: TrainResult
    info: CheckpointInfo
    curves: Curves
    mlflow_run_id: str | None


def make_report(
    made: Made, after: Made | None = None, *, dataset: str, split_rule: str, backend: Backend
) -> TrainReport:
    """Put a training's figures together; ``after`` is its second stage."""
    first, last = _ends(made)
    figures = asdict(made.result)
    memory = [values["memory/mb"] for _, values in made.curves if "memory/mb" in values]
    return TrainReport(
        experiment=made.job.experiment,
        preset=made.job.preset,
        dataset=dataset,
        style_dataset=made.job.tags.get("style_dataset"),
        split_rule=split_rule,
        data_sha256=made.info.data,
        run_name=made.job.run_name,
        run_folder=made.job.run_folder,
        backend=backend,
        validation=dict(made.info.metrics),
        validation_l1=made.info.metrics.get(L1),
        validation_copy_source_l1=made.info.metrics.get(COPY_L1),
        first_loss=first,
        last_loss=last,
        memory_mb=max(memory, default=None),
        num_parameters=_parameters(made.job),
        second_stage=None if after is None else _second(after),
        weights_sha256=made.info.sha256,
        mlflow_run_id=made.mlflow_run_id,
        tags=dict(made.job.tags),
        **{key: figures[key] for key in FIGURES},
    )


def _second(made: Made) -> SecondStage:
    first, last = _ends(made)
    return SecondStage(
        run_name=made.job.run_name,
        steps=made.result.steps,
        images_seen=made.result.images_seen,
        seconds=made.result.seconds,
        step_s=made.result.step_s,
        first_loss=first,
        last_loss=last,
    )


def _ends(made: Made) -> tuple[float | None, float | None]:
    """The sum of all terms, mean of the first and of the last tenth of the steps."""
    totals = [total for _, values in made.curves if (total := total_loss(values)) is not None]
    part = max(1, len(totals) // 10)
    return (sum(totals[:part]) / part, sum(totals[-part:]) / part) if totals else (None, None)


def _parameters(job: TrainJob) -> dict[str, int]:
    """Counted on networks without memory."""
    import torch

    from training.job import load_callable

    with torch.device("meta"):
        networks = load_callable(job.build)(job.model)
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def losses_csv(curves: Curves) -> str:
    """A row per step: every loss, their sum, figures beside them, and the validation where there was one."""
    names = sorted({name for _, values in curves for name in values if name.startswith(KEPT)})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", TOTAL, *names])
    for step, values in curves:
        total = total_loss(values)
        if total is not None:
            writer.writerow([step, f"{total:.6g}", *(f"{values[n]:.6g}" if n in values else "" for n in names)])
    return text.getvalue()


def total_loss(values: dict[str, float]) -> float | None:
    """The sum of all losses of a step; None where there is none."""
    terms = [value for name, value in values.items() if name.startswith("loss/")]
    return sum(terms) if terms else None
