"""Who judges the pictures of a stylising model: this process, or several by Ray Data. What is found is equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from safetensors.numpy import load

from models import errors
from models.errors import must
from pipelines.by_ray import by_workers
from pipelines.evaluate_style_work import Examined, Examiner, Figures, Job, Place, Task
from pipelines.params import ClusterConfig
from pipelines.score import Network

_RAY_PAYS_S = 90.0
"""Estimated work of one process from which on starting others pays; a Ray of our own takes some 15 s."""
_STYLISE_S, _LOOK_S = 0.6, 0.1
"""Rough cost of stylising a picture of 256 px and of a look at one, on one core."""


def examine_all(job: Job, tasks: Sequence[Task], *, cluster: ClusterConfig, size_px: int) -> Iterator[Examined]:
    """Judge pictures, here or by Ray Data; they come as they are done.

    Args:
        job: what is judged, on what.
        tasks: the pictures.
        cluster: where Ray is.
        size_px: height and width of the pictures.

    Raises:
        CheckpointError: the model, or a judge's file, can't be opened.
        ClipError: the shards can't be opened.
        EnvironmentProblem: no Ray, or a judge or device can't be used.
    """
    if job.num_workers == 1 or job.num_workers is None and estimate_s(job, tasks, size_px) < _RAY_PAYS_S:
        yield from map(Examiner(job).examine, tasks)
        return
    from pipelines.session import ray_session

    waiting = {(task.of, task.place) for task in tasks}
    with ray_session(cluster):
        for row in _on_ray(job, tasks):
            if row["fatal"]:
                kind: Callable[[str], Exception] = getattr(errors, row["fatal"])
                raise kind(row["result"])
            done = _decoded(row)
            waiting.discard((done.of, done.place))
            yield done
    for of, place in sorted(waiting):
        problem = must(str(place), "pass through the evaluation", "a process that died of it")
        yield Examined(of=of, place=place, problem=problem)


def estimate_s(job: Job, tasks: Sequence[Task], size_px: int) -> float:
    """About how long one core takes, in seconds."""
    num_judges = sum(isinstance(judge, Network) for judge in job.judges.values())
    num_photos = sum(task.of == "photos" for task in tasks)
    num_looks = len(tasks) + sum(1 + len(task.others) for task in tasks if task.of == "photos")
    return num_photos * _STYLISE_S * (size_px / 256) ** 2 + num_looks * num_judges * _LOOK_S


def _on_ray(job: Job, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    rows = [{"task": json.dumps(asdict(task))} for task in tasks]
    how: dict[str, Any] = {
        "num_workers": job.num_workers,
        "num_threads": job.num_threads,
        "on_gpu": job.device != "cpu",
    }
    return by_workers(rows, Examiner, job, **how)


def _decoded(row: Mapping[str, Any]) -> Examined:
    raw = json.loads(row["result"])
    figures = Figures(**raw["figures"]) if raw["figures"] else None
    return Examined(**{**raw, "place": Place(*raw["place"]), "figures": figures, "arrays": load(bytes(row["arrays"]))})
