"""A folder of photos in, a folder of drawings out: in this process, or by Ray Data on any number of nodes.

Every photo stands for itself: a broken one is reported and the others are done, one that was drawn before is kept. So a
stopped run goes on. Names and links in the folder are not trusted: nothing outside it is read, nothing outside the
target is written.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import errors
from models.errors import CheckpointError, EnvironmentProblem, InkmotionError, must
from pipelines.params import ClusterConfig
from pipelines.progress import watched
from pipelines.stage import only_writer, write_report
from pipelines.stylise_listing import Entry, listing, printable
from pipelines.stylise_models import ModelSource, StyleEngine
from pipelines.stylise_photo import (
    MAX_PIXELS,
    PART_PREFIX,
    PART_SUFFIX,
    check_fits,
    draw,
    facts_of,
    read_photo,
    write_drawing,
)

logger = logging.getLogger(__name__)

REPORT_NAME = "stylise.json"
_PICTURE_S, _RAY_PAYS_S = 3.0, 90.0
"""Rough cost of a photo on one core, and estimated work from which on starting others pays."""
_MAX_BLOCKS, _RETRIES = 2000, 2
_TOLD_IN_FULL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What became of a folder's photos; also ``stylise.json`` beside the drawings."""

    source: str
    out: str
    model: str
    strength: float
    num_pictures: int
    num_made: int
    num_kept: int
    """Drawn by an earlier run."""
    num_failed: int
    failures: tuple[tuple[str, str], ...]
    """(photo, reason) each."""
    num_others: int
    """Files that are no pictures, as videos; they are left alone."""
    seconds: float
    pictures_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs; plain values, which cross processes."""

    model: ModelSource
    source: str
    """Folder, which every node reaches."""
    out: str
    strength: float = 1.0
    tile_px: int | None = None
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a photo."""

    name: str
    problem: str = ""
    """Why there is no drawing; empty: there is one."""


def stylise_folder(
    job: Job, *, cluster: ClusterConfig, num_workers: int | None = None, overwrite: bool = False
) -> FolderReport:
    """Draw every picture below a folder; drawings have their photos' names.

    Args:
        job: what is drawn, by what.
        cluster: where Ray is.
        num_workers: processes that share the photos; 1: this one alone; None: as many as pay.
        overwrite: draw those again that are there.

    Returns:
        The counts; photos that failed are told there, not raised.

    Raises:
        SourceError: the folder holds no picture or can't be read.
        CheckpointError: the model can't be opened.
        EnvironmentProblem: the drawings can't be written, or no Ray can be had.
    """
    started_s, out = time.perf_counter(), Path(job.out)
    entries, num_others = listing(Path(job.source))
    with only_writer(out / REPORT_NAME):
        _remove_parts(out)
        wanted = [entry for entry in entries if not entry.problem and (overwrite or not (out / entry.target).exists())]
        failures = [(printable(entry.name), entry.problem) for entry in entries if entry.problem]
        num_kept = len(entries) - len(wanted) - len(failures)
        for done in _draw_all(job, wanted, cluster=cluster, num_workers=num_workers):
            if done.problem:
                failures.append((printable(done.name), done.problem))
        _tell(failures)
        seconds, num_made = time.perf_counter() - started_s, len(entries) - num_kept - len(failures)
        report = FolderReport(
            source=job.source,
            out=job.out,
            model=job.model.name,
            strength=job.strength,
            num_pictures=len(entries),
            num_made=num_made,
            num_kept=num_kept,
            num_failed=len(failures),
            failures=tuple(sorted(failures)),
            num_others=num_others,
            seconds=round(seconds, 3),
            pictures_per_s=round(num_made / max(seconds, 1e-9), 2),
        )
        write_report(out / REPORT_NAME, report)
    return report


class Drawer:
    """Draws photos one by one; opens the model once.

    Args:
        job: which.
        num_threads: of torch, on the CPU; None: as it is.
    """

    def __init__(self, job: Job, num_threads: int | None = None) -> None:
        self._job, self._num_threads = job, num_threads
        self._engine: StyleEngine | None = None

    def draw(self, name: str, target: str) -> Done:
        """Draw one photo; what goes wrong with it is its own problem.

        Raises:
            CheckpointError: the model can't be opened.
            EnvironmentProblem: there is no such device.
            OSError: the drawing can't be written.
        """
        job, out = self._job, Path(self._job.out) / target
        engine = self._opened()
        try:
            path = Path(job.source) / name
            check_fits(out, facts_of(path, max_pixels=job.max_pixels))
            photo = read_photo(path, max_pixels=job.max_pixels)
            drawing = draw(engine, photo.frame, strength=job.strength, tile_px=job.tile_px)
        except Exception as error:  # one photo's failure must not end the others
            logger.debug("%s failed", name, exc_info=True)
            return Done(name=name, problem=" ".join(str(error).split()) or type(error).__name__)
        write_drawing(out, drawing, photo)
        return Done(name=name)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for Ray: bytes and text in and out, for Arrow has no type for names that are no Unicode."""
        from pipelines.command_line import explain

        try:
            done = self.draw(os.fsdecode(row["name"]), os.fsdecode(row["target"]))
        except (InkmotionError, OSError) as error:
            kind = type(error).__name__ if isinstance(error, InkmotionError) else EnvironmentProblem.__name__
            return {"name": row["name"], "problem": explain(error) or str(error), "fatal": kind}
        return {"name": row["name"], "problem": done.problem, "fatal": ""}

    def _opened(self) -> StyleEngine:
        if self._engine is None:
            if self._num_threads is not None:
                import torch

                torch.set_num_threads(self._num_threads)
            self._engine = self._job.model.engine()
        return self._engine


def _draw_all(job: Job, entries: Sequence[Entry], *, cluster: ClusterConfig, num_workers: int | None) -> Iterator[Done]:
    if not entries:
        return
    is_small = len(entries) * _PICTURE_S < _RAY_PAYS_S
    here = len(entries) == 1 or num_workers == 1 or (num_workers is None and is_small)
    results = _here(job, entries) if here else _on_ray(job, entries, cluster, num_workers)
    yield from watched(
        results,
        label="drawing",
        total=len(entries),
        describe=lambda done: (not done.problem, 1.0),
        unit="pictures",
    )


def _here(job: Job, entries: Sequence[Entry]) -> Iterator[Done]:
    drawer = Drawer(job)
    for entry in entries:
        yield drawer.draw(entry.name, entry.target)


def _on_ray(job: Job, entries: Sequence[Entry], cluster: ClusterConfig, num_workers: int | None) -> Iterator[Done]:
    from pipelines.session import ray_session

    waiting = {entry.name for entry in entries}
    with ray_session(cluster):
        for row in _rows(job, entries, num_workers):
            if row["fatal"]:
                raise getattr(errors, row["fatal"], CheckpointError)(row["problem"])
            done = Done(name=os.fsdecode(row["name"]), problem=row["problem"])
            waiting.discard(done.name)
            yield done
    for name in sorted(waiting):
        yield Done(name=name, problem=must(printable(name), "be drawn", "a process that died of it"))


def _rows(job: Job, entries: Sequence[Entry], num_workers: int | None) -> Iterator[dict[str, Any]]:
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the progress is told here
    rows = [{"name": os.fsencode(entry.name), "target": os.fsencode(entry.target)} for entry in entries]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # Ray's context warns of itself, too
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        before, context.max_errored_blocks = context.max_errored_blocks, -1  # who dies takes no others along
        most = min(num_workers or len(rows), len(rows))
        size: dict[str, Any] = {"min_size": 1, "max_size": most} if num_workers is None else {"size": most}
        have: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        try:
            blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
            drawn = blocks.map(
                Drawer,  # type: ignore[arg-type]  # Ray builds it on each worker
                fn_constructor_args=(job, 1),
                compute=ray.data.ActorPoolStrategy(**size),
                num_cpus=1,
                num_gpus=0 if job.model.device == "cpu" else min(1, int(have.get("GPU", 0))),
                max_restarts=-1,
                max_task_retries=_RETRIES,
            )
            yield from drawn.iter_rows()
        finally:
            context.max_errored_blocks = before


def _remove_parts(out: Path) -> None:
    """Files that a killed run was writing."""
    for path in out.rglob(f"{PART_PREFIX}*{PART_SUFFIX}"):
        path.unlink(missing_ok=True)


def _tell(failures: Sequence[tuple[str, str]]) -> None:
    for name, problem in failures[:_TOLD_IN_FULL]:
        logger.warning("%s failed: %s", name, problem)
    if len(failures) > _TOLD_IN_FULL:
        logger.warning("%d more failed: see %s", len(failures) - _TOLD_IN_FULL, REPORT_NAME)
