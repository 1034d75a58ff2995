"""A training's progress: a live bar on a terminal, lines of the log elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.train_report import total_loss
from training.job import TrainJob
from training.progress import Progress, Show, show_line
from training.style_validation import KID
from training.validation import L1

VALIDATED = {"L1": L1, "KID": KID}
"""Figures that a training is validated by, of any family."""


@contextmanager
def display(job: TrainJob) -> Iterator[Show]:
    """A live bar on a terminal, lines of the log elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield show_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(job.experiment), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("starting", total=job.train.max_steps)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.step, description=_bar_text(progress))

        yield show


def _bar_text(progress: Progress) -> str:
    total = total_loss(dict(progress.losses))
    judged = {word: progress.losses[name] for word, name in VALIDATED.items() if name in progress.losses}
    parts = [
        f"{progress.step_s:.3g} s/step",
        f"{progress.samples_per_s:.3g} samples/s",
        f"data wait {progress.data_wait_share:.0%}",
        f"{progress.memory_mb:.0f} MB",
        *([f"loss {total:.4g}"] if total is not None else []),
        *(f"{word} {value:.4g}" for word, value in judged.items()),
    ]
    return ", ".join(parts)
