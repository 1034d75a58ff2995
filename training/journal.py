"""Rank 0's record of a training: numbers and pictures in the run folder, and on their way to a tracking store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.job import TrainJob
from training.pictures import write_png
from training.progress import Progress, Show
from training.runfolder import PROGRESS, RECORDS, RunFolder
from training.tracking.jsonl import EndStatus, RecordLog, RunCard

TRACKING_EXPERIMENT = "inkmotion"
"""The tracking store's drawer for all runs."""
PICTURES = "pictures"


@dataclass(slots=True)
class FolderJournal:
    """Rank 0's record: every step's numbers to records.jsonl and the tracking store, progress to whoever watches."""

    job: TrainJob
    folder: RunFolder
    show: Show | None
    _records: RecordLog = field(init=False)
    _sender: Any = field(init=False, default=None)
    _end: EndStatus | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        card = RunCard(
            experiment=TRACKING_EXPERIMENT,
            run_name=self.job.run_name,
            params=flat_params(self.job),
            tags={**self.job.tags, "experiment": self.job.experiment, "preset": self.job.preset},
        )
        self._records = RecordLog(self.folder.local, card)
        if self.job.tracking_uri is not None:
            from training.tracking.mlflow import Sender

            self._sender = Sender(self.folder.local, self.job.tracking_uri, timeout_s=self.job.tracking_timeout_s)
            self._sender.start()

    def step(self, step: int, values: Mapping[str, float], progress: Progress | None) -> None:
        """Record a step's numbers; show how far the training is."""
        self._records.metrics(step, values)
        if progress is not None:
            self.folder.write_json(PROGRESS, progress.to_json())
            if self.show is not None:
                self.show(progress)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Keep pictures as PNG files."""
        for name, picture in pictures.items():
            path = self.folder.local / PICTURES / f"{name}-{step:08d}.png"
            write_png(path, picture)
            self.folder.publish([f"{PICTURES}/{path.name}"])
            self._records.picture(step, name, path)

    def finish(self) -> None:
        """The training has reached its end."""
        self._end = "FINISHED"

    def fail(self) -> None:
        """The training can't go on, and another attempt would only repeat it."""
        self._end = "FAILED"

    def close(self) -> None:
        """Send what waits; end the record if the training is over, else leave it open for the next attempt."""
        if self._end is not None:
            self._records.close(self._end)
        else:
            self._records.abandon()
        if self._sender is not None:
            self._sender.stop(flush=True)
        self.folder.publish(RECORDS)


def flat_params(job: TrainJob) -> dict[str, str]:
    """Model and training configuration as ``train.losses.pixel`` -> text, for a tracking store."""
    flat: dict[str, str] = {"preset": job.preset}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value if isinstance(value, str) else json.dumps(value)

    visit("model", asdict(job.model))
    visit("train", asdict(job.train))
    return flat
