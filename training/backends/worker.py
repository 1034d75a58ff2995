"""What every process of a training does, whoever started it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.errors import InkmotionError
from models.importers.moments import Moments, moments_in, restore, startable
from training.checkpoint import (
    CheckpointInfo,
    fill,
    read_info,
    read_state,
    read_tensors,
    tensors_of,
    write_checkpoint,
)
from training.config import TrainConfig
from training.feed import PairBatch
from training.job import TrainJob, TrainResult, load_callable
from training.journal import FolderJournal
from training.loop import Loop, Outside, Trainer
from training.material import Judges, open_material
from training.parts import take_in
from training.phases import Recipe
from training.progress import Show, show_line
from training.runfolder import SUMMARY, WORKERS, RunFolder, fetch_folder
from training.speed import keep_memory
from training.world import World

log = logging.getLogger(__name__)

BAD_BATCHES = "bad-batches"
STOP_POLL_S = 1.0
STOP_POLL_REMOTE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a backend lends to the worker."""

    show: Show | None = show_line
    """Where rank 0 shows progress; None: it only writes progress.json."""
    dtype: torch.dtype = torch.float32
    """Of the weights; float64 shows what is mere rounding."""
    catch_signals: bool = True
    """Let SIGTERM and SIGINT end the training after a last checkpoint."""


def work(job: TrainJob, world: World, hands: Hands | None = None) -> TrainResult:
    """Train, or go on training, to the end.

    Args:
        job: what to train.
        world: this process among its peers; torch.distributed's default group is ready when there are any.
        hands: what the backend lends.

    Returns:
        What was done, the same on every rank but for the times.

    Raises:
        InkmotionError: on every rank alike, where the others would wait for this one otherwise.
    """
    hands = hands or Hands()
    folder = RunFolder(job.run_folder)
    try:
        with _numerics(job.train, world):
            return _Worker(job, world, hands, folder).run()
    finally:
        folder.close()


class _Worker:
    def __init__(self, job: TrainJob, world: World, hands: Hands, folder: RunFolder) -> None:
        self.job, self.world, self.hands, self.folder = job, world, hands, folder
        self.attempt = self._enter()
        self.material = world.together(lambda: open_material(job))
        self.recipe = world.together(self._build)
        world.together(lambda: self.material.settle(self.recipe))
        self.trainer = Trainer(self.recipe, job.train, world)
        self.metrics: dict[str, float] = {}

    def run(self) -> TrainResult:
        self._restore()
        train, state = self.job.train, self.trainer.state
        validation = None
        if train.validate_every_steps:
            validation = self.world.together(lambda: self.material.validation(self.recipe, self.world))
        with self.material.feed(self.world) as feed, self._journal() as journal, self._stop() as stop:
            outside = Outside(
                save=self._save,
                validate=self._validate(validation),
                judged_by=validation.judged_by if validation is not None else "",
                journal=journal,
                stop=stop,
                picture_pairs=feed.assemble(0) if journal is not None and train.picture_every_steps else None,
                waited_s=lambda: feed.stats.waited_s,
                keep_batch=self._keep_batch,
                attempt=self.attempt,
            )
            loop = Loop(self.trainer, outside)
            loop.run(feed.batches(state.step))
            if journal is not None and not loop.interrupted:
                journal.finish()
        result = self._result(loop)
        if self.world.is_first:
            self.folder.write_json(SUMMARY, {"done": not result.interrupted, "result": asdict(result)})
        return result

    def _enter(self) -> int:
        """Rank 0 makes the folder ready and writes down who works here; all learn the attempt's number."""
        attempt = int(self.world.gather([self.world.together(self._open)])[0, 0])
        me = {"rank": self.world.rank, "pid": os.getpid(), "host": socket.gethostname()}
        everyone = [me]
        if self.world.size > 1:
            everyone = [me] * self.world.size
            torch.distributed.all_gather_object(everyone, me)
        if self.world.is_first:
            self.folder.write_json(WORKERS, {"attempt": attempt, "workers": everyone})
        return attempt

    def _open(self) -> int:
        if not self.world.is_first:
            return 0
        self.folder.open_for_writing()
        before = self.folder.read_json(WORKERS)
        return int(before["attempt"]) + 1 if isinstance(before, dict) and "attempt" in before else 1

    def _build(self) -> Recipe:
        job = self.job
        torch.manual_seed(job.train.seed)
        networks: dict[str, nn.Module] = load_callable(job.build)(job.model)
        take_in(networks, job.parts, job.preset)
        moments = self._fine_tune(networks, job.init_weights) if job.init_weights is not None else {}
        made: Recipe = load_callable(job.recipe)(
            networks, model=job.model, train=job.train, device=self.world.device, dtype=self.hands.dtype
        )
        restored = restore((phase.optimizer for phase in made.phases), made.networks, moments)
        if restored and self.world.is_first:
            log.info("going on with the optimisers' state of %s", ", ".join(restored))
        return made

    def _fine_tune(self, networks: Mapping[str, nn.Module], place: str) -> Moments:
        """Start from another model's weights; the optimisers start afresh, unless an import has brought their state."""
        with fetch_folder(place) as folder:
            info = read_info(folder)
            tensors, fresh = startable(read_tensors(folder, info), networks)
            begun = {name: network for name, network in networks.items() if name not in fresh}
            fill(begun, tensors, ema=self.job.init_averaged, where=place)
            is_import = info.step == 0 and info.state_sha256 is not None  # a training's own checkpoints have steps
            moments = moments_in(read_state(folder, info)) if is_import else {}
            moments = {name: moment for name, moment in moments.items() if name not in fresh}
        if self.world.is_first:
            log.info("starting from the weights of %s (%s, step %d)", place, info.experiment or info.preset, info.step)
            if fresh:
                log.info("it holds nothing of %s: fresh", ", ".join(sorted(fresh)))
        return moments

    def _restore(self) -> None:
        """Go on from the newest complete checkpoint, if there is one; rank 0 says which."""
        steps = self.folder.steps() if self.world.is_first else []
        newest = int(self.world.gather([steps[-1] if steps else -1])[0, 0])
        if newest >= 0:
            self.world.together(lambda: self._load(newest))

    def _load(self, step: int) -> None:
        folder = self.folder.checkpoint(step)
        info = read_info(folder)
        tensors = read_tensors(folder, info)
        fill(self.recipe.networks, tensors, ema=False, where=str(folder))
        if self.trainer.average is not None:
            fill(self.trainer.average.networks, tensors, ema=True, where=str(folder))
        self.trainer.load_state_dict(read_state(folder, info))
        self.metrics = dict(info.metrics)
        if self.world.is_first:
            log.info("going on from step %d of %s (attempt %d)", step, self.folder.location, self.attempt)

    def _save(self) -> None:
        job, state = self.job, self.trainer.state
        info = CheckpointInfo(
            step=state.step,
            images_seen=state.images_seen,
            preset=job.preset,
            model=job.model,
            train=job.train,
            sha256="",
            metrics=self.metrics,
            experiment=job.experiment,
            data=self.material.sha256,
        )
        average = self.trainer.average.state_dict() if self.trainer.average is not None else None
        tensors = tensors_of(self.recipe.networks, average)
        status = self.trainer.state_dict()
        self.folder.save(state.step, lambda folder: write_checkpoint(folder, info, tensors, status))
        self.folder.prune(keep_last=job.train.keep_last, keep=(state.best_step,))

    def _validate(self, validation: Judges | None) -> Callable[[Mapping[str, nn.Module]], dict[str, float]] | None:
        if validation is None:
            return None

        def validate(networks: Mapping[str, nn.Module]) -> dict[str, float]:
            judged = validation.run(networks)
            self.metrics |= judged
            return judged

        return validate

    def _keep_batch(self, step: int, pairs: PairBatch) -> str:
        """Write a batch that made a loss or gradient not finite: frames as the feed gave them, and their numbers."""
        name = f"{BAD_BATCHES}/step-{step:08d}-rank-{self.world.rank}.npz"
        path = self.folder.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = {"source": pairs.source, "driving": pairs.driving, "smooth": pairs.smooth}
        given = {key: value.numpy() for key, value in frames.items() if value is not None}
        np.savez_compressed(path, items=pairs.items, **given)  # type: ignore[arg-type]
        self.folder.publish([name])
        return f"{self.folder.location}/{BAD_BATCHES}"

    @contextlib.contextmanager
    def _journal(self) -> Iterator[FolderJournal | None]:
        if not self.world.is_first:
            yield None
            return
        journal = FolderJournal(self.job, self.folder, self.hands.show)
        try:
            yield journal
        except InkmotionError:
            journal.fail()
            raise
        finally:
            journal.close()

    @contextlib.contextmanager
    def _stop(self) -> Iterator[Callable[[], bool]]:
        asked = threading.Event()
        wait_s = STOP_POLL_S if self.folder.local == Path(self.folder.location) else STOP_POLL_REMOTE_S
        looked_s = time.monotonic()

        def stop() -> bool:
            nonlocal looked_s
            if self.world.is_first and not asked.is_set() and time.monotonic() - looked_s >= wait_s:
                looked_s = time.monotonic()
                if self.folder.is_asked_to_stop():
                    asked.set()
            return asked.is_set()

        with catching_signals(asked.set) if self.hands.catch_signals else contextlib.nullcontext():
            yield stop

    def _result(self, loop: Loop) -> TrainResult:
        state = self.trainer.state
        return TrainResult(
            steps=state.step,
            images_seen=state.images_seen,
            seconds=state.seconds,
            step_s=loop.clock.median_s,
            samples_per_s=state.images_seen / state.seconds if state.seconds else 0.0,
            data_wait_s=state.data_wait_s,
            data_wait_share=state.data_wait_s / state.seconds if state.seconds else 0.0,
            best_step=state.best_step or state.step,
            best_metric=state.best_metric,
            checkpoint=self.folder.place(state.step),
            stopped_early=state.stopped_early,
            interrupted=loop.interrupted,
            restarts=self.attempt - 1,
            num_workers=self.world.size,
            device=_device_name(self.world.device),
        )


@contextlib.contextmanager
def catching_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` on SIGTERM and SIGINT instead of dying; a second SIGINT interrupts at once. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGINT and seen:
            raise KeyboardInterrupt
        seen.append(number)
        log.info("asked to stop: finishing the step and writing a checkpoint")
        act()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _numerics(train: TrainConfig, world: World) -> Iterator[None]:
    """Same numbers every time: threads, denormals, deterministic kernels where there are any."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_flush_denormal(True)  # convolutions over a sharp soft-max's denormals crawl
    torch.set_num_threads(train.num_threads or world.num_threads)
    if world.device.type == "cpu":
        keep_memory()
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
        torch.backends.cudnn.benchmark = not train.deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(train.deterministic, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
