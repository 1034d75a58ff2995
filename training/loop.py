"""The training loop: deterministic, counted in steps, the same on every rank."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.errors import InkmotionError, TrainingError, must
from training.config import TrainConfig
from training.ema import MovingAverage
from training.feed import PairBatch
from training.optim import clip
from training.phases import Batch, Phase, PhaseOutput, Recipe, distribute, joined, part_of
from training.progress import Progress, memory_mb
from training.state import TrainState
from training.world import World

STEP_TIMES_KEPT = 2_000
FIX_NON_FINITE = "Lower the learning rates, set max_grad_norm, or use fp32; the last checkpoint is sound"


class Trainer:
    """Takes steps: runs a recipe's phases, their optimisers, and the moving average."""

    def __init__(self, recipe: Recipe, train: TrainConfig, world: World, state: TrainState | None = None) -> None:
        self.recipe, self.train, self.world = recipe, train, world
        self.state = state or TrainState()
        self.modules = [distribute(phase, world, deterministic=train.deterministic) for phase in recipe.phases]
        averaged = {name: recipe.networks[name] for name in recipe.averaged}
        self.average = MovingAverage(averaged, train.ema_decay) if train.ema_decay > 0 else None

    def step(self, pairs: PairBatch) -> dict[str, float]:
        """Take one step.

        Returns:
            ``loss/<phase>/<term>``, weighted, and ``figure/<phase>/<name>``, means over the ranks, and
            ``grad_norm/<phase>``; equal on all ranks.

        Raises:
            TrainingError: a loss or gradient is not finite; the weights are as before the phase's update. Raised on
                every rank.
        """
        batch, carry, values = self.recipe.prepare(pairs), dict[str, Tensor](), dict[str, float]()
        for phase, module in zip(self.recipe.phases, self.modules, strict=True):
            if phase.is_due(self.state.step):
                values |= self._run(phase, module, batch, carry)
            if phase.scheduler is not None and self.state.step >= phase.first_step:
                phase.scheduler.step()
        self.state.step += 1
        self.state.images_seen += self.train.batch_size
        if self.average is not None:
            self.average.update(self.recipe.networks, self.state.step)
        return values

    def _run(self, phase: Phase, module: nn.Module, batch: Batch, carry: dict[str, Tensor]) -> dict[str, float]:
        phase.optimizer.zero_grad(set_to_none=True)
        output = joined([self._forth_and_back(phase, module, part, batch, carry) for part in range(phase.parts)])
        values = self._agreed(phase, output)
        trained = [parameter for group in phase.optimizer.param_groups for parameter in group["params"]]
        norm = clip(trained, phase.max_grad_norm)
        if not math.isfinite(norm):  # after the reduction, and so on all ranks alike
            where = f"the gradient of phase {phase.name!r} in step {self.state.step + 1}"
            raise TrainingError(must(where, "be finite", norm, FIX_NON_FINITE))
        phase.optimizer.step()
        carry.update(output.carry)
        return {**values, f"grad_norm/{phase.name}": norm}

    def _forth_and_back(self, phase: Phase, module: nn.Module, part: int, batch: Batch, carry: Batch) -> PhaseOutput:
        """One part of a batch; its gradients are added to those of the parts before, over the ranks after the last."""
        waits = part < phase.parts - 1 and isinstance(module, DistributedDataParallel)
        with module.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator] # not narrowed by `waits`
            output: PhaseOutput = module(part_of(batch, part, phase.parts), part_of(carry, part, phase.parts))
            torch.autograd.backward(torch.stack(list(output.losses.values())).sum() / phase.parts)
        return output

    def _agreed(self, phase: Phase, output: PhaseOutput) -> dict[str, float]:
        """Means over the ranks; every rank sees every other's numbers, so all stop or none."""
        losses = {**output.losses, **output.figures}
        everyone = self.world.gather(torch.stack([loss.detach() for loss in losses.values()]).tolist())
        wrong = np.argwhere(~np.isfinite(everyone))
        if len(wrong):
            rank, term = int(wrong[0][0]), list(losses)[int(wrong[0][1])]
            where = f"loss/{phase.name}/{term} in step {self.state.step + 1} on rank {rank}"
            raise TrainingError(must(where, "be finite", float(everyone[rank, wrong[0][1]]), FIX_NON_FINITE))
        means = dict(zip(losses, everyone.mean(axis=0).tolist(), strict=True))
        for term, limit in phase.limits.items():
            if abs(means.get(term, 0.0)) > limit:
                where = f"loss/{phase.name}/{term} in step {self.state.step + 1}"
                rule = f"stay within {limit:g}: the critic has diverged"
                fix = "Lower the learning rates, or raise the penalty; the last checkpoint is sound"
                raise TrainingError(must(where, rule, f"{means[term]:.4g}", fix))
        kinds = {term: "loss" if term in output.losses else "figure" for term in means}
        return {f"{kinds[term]}/{phase.name}/{term}": mean for term, mean in means.items()}

    def judged(self) -> dict[str, nn.Module]:
        """The networks to evaluate: the moving average, or else the networks themselves, put into eval mode."""
        if self.average is not None:
            return dict(self.average.networks)
        return {name: self.recipe.networks[name].eval() for name in self.recipe.averaged}

    def resume_training_mode(self) -> None:
        """Undo what `judged` may have done."""
        for network in self.recipe.networks.values():
            network.train()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the networks' tensors."""
        phases = {phase.name: phase.state_dict() for phase in self.recipe.phases}
        return {"train": self.state.state_dict(), "phases": phases}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.state.load_state_dict(state["train"])
        for phase in self.recipe.phases:
            phase.load_state_dict(state["phases"][phase.name])


class Journal(Protocol):
    """Whom rank 0 tells what happens."""

    def step(self, step: int, values: Mapping[str, float], progress: Progress | None) -> None:
        """A step is done; ``progress`` is given every now and then."""
        ...

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures were made, uint8, (H, W, 3) each."""
        ...


@dataclass(slots=True, kw_only=True)
class Outside:
    """What the loop needs of the world around it."""

    save: Callable[[], None]
    """Write a checkpoint of the present step (called on rank 0)."""
    validate: Callable[[Mapping[str, nn.Module]], dict[str, float]] | None = None
    """Judge networks; a collective."""
    judged_by: str = ""
    """The figure of ``validate`` that says which checkpoint is the best; lower is better."""
    journal: Journal | None = None
    """Rank 0's."""
    stop: Callable[[], bool] = lambda: False
    """Whether this process was asked to stop."""
    picture_pairs: PairBatch | None = None
    """What the pictures show (rank 0)."""
    waited_s: Callable[[], float] = lambda: 0.0
    """How long the feed has kept this rank waiting."""
    keep_batch: Callable[[int, PairBatch], str] | None = None
    """Keep this rank's batch of a step that went wrong, for inspection; the folder of all ranks' batches."""
    attempt: int = 1


@dataclass(slots=True)
class Clock:
    """Times of the steps of this attempt."""

    steps_s: deque[float] = field(default_factory=lambda: deque(maxlen=STEP_TIMES_KEPT))
    since_report: list[float] = field(default_factory=list)
    waited_at_report_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)

    def note(self, seconds: float) -> None:
        """A step took so long."""
        self.steps_s.append(seconds)
        self.since_report.append(seconds)

    @property
    def median_s(self) -> float:
        """Median of this attempt's steps."""
        return statistics.median(self.steps_s) if self.steps_s else 0.0


class Loop:
    """Runs a trainer to its last step, with validations, checkpoints and pictures on the way."""

    def __init__(self, trainer: Trainer, outside: Outside) -> None:
        self.trainer, self.outside = trainer, outside
        self.train, self.state, self.world = trainer.train, trainer.state, trainer.world
        self.clock = Clock()
        self.interrupted = False
        self._saved_step = self.state.step
        self._before_s, self._before_wait_s = self.state.seconds, self.state.data_wait_s

    def run(self, batches: Iterator[PairBatch]) -> None:
        """Train until the last step, an early stop, or a wish to stop.

        Args:
            batches: this rank's, from step ``state.step`` on.

        Raises:
            InkmotionError: the same on every rank; checkpoints written before are sound.
        """
        while self.state.step < self.train.max_steps and not self.state.stopped_early:
            began_s = time.perf_counter()
            pairs = self._next(batches)
            if pairs is None:
                self.interrupted = True
                break
            values = self._step(pairs)
            self._end_in_time()
            best = self._validate(values)
            self.clock.note(time.perf_counter() - began_s)
            self._tell(values)
            if self._is_due(self.train.checkpoint_every_steps) or best or self.state.stopped_early:
                self._save()
        if self._saved_step != self.state.step:
            self._save()

    def _end_in_time(self) -> None:
        """Let this step be the last one when the time is up; rank 0's clock counts."""
        if self.train.max_seconds is None:
            return
        spent_s = self._before_s + time.perf_counter() - self.clock.began_s
        if float(self.world.gather([spent_s])[0, 0]) >= self.train.max_seconds:
            self.state.stopped_early = True

    def _step(self, pairs: PairBatch) -> dict[str, float]:
        """Take one step; when it can't be taken, this rank's batch is kept."""
        step = self.state.step + 1
        try:
            return self.trainer.step(pairs)
        except TrainingError as error:
            if self.outside.keep_batch is None:
                raise
            try:
                place = self.outside.keep_batch(step, pairs)
            except OSError as full:
                raise TrainingError(f"{error} The batch could not be kept: {full.strerror or full}.") from error
            raise TrainingError(f"{error} Every rank's batch is kept in {place}.") from error

    def _next(self, batches: Iterator[PairBatch]) -> PairBatch | None:
        """The next batch; None when any rank was asked to stop."""
        pairs, error = None, None
        try:
            pairs = next(batches)
        except InkmotionError as failure:
            error = failure
        return None if self.world.share(error, stop=self.outside.stop()) else pairs

    def _is_due(self, every_steps: int) -> bool:
        is_last = self.state.stopped_early or self.state.step == self.train.max_steps
        return every_steps > 0 and (self.state.step % every_steps == 0 or is_last)

    def _validate(self, values: dict[str, float]) -> bool:
        """Judge when it is time to; whether this is the best so far."""
        validate = self.outside.validate
        if validate is None or not self._is_due(self.train.validate_every_steps):
            return False
        judged = validate(self.trainer.judged())
        self.trainer.resume_training_mode()
        values |= judged
        if self.outside.judged_by not in judged:
            return False
        best, patience = self.state.judge(judged[self.outside.judged_by]), self.train.early_stop_patience
        self.state.stopped_early |= patience is not None and self.state.validations_since_best >= patience
        return best

    def _tell(self, values: dict[str, float]) -> None:
        journal, state = self.outside.journal, self.state
        if journal is None:
            return
        progress = None
        if self._is_due(self.train.log_every_steps):
            progress = self._progress(values)
            values |= _timings(progress, self.trainer.recipe.phases)
        journal.step(state.step, values, progress)
        if self.outside.picture_pairs is not None and self._is_due(self.train.picture_every_steps):
            made = self.trainer.recipe.pictures(self.trainer.judged(), self.outside.picture_pairs)
            self.trainer.resume_training_mode()
            journal.pictures(state.step, made)

    def _progress(self, values: Mapping[str, float]) -> Progress:
        clock, waited_s = self.clock, self.outside.waited_s()
        spent_s = sum(clock.since_report)
        step_s = spent_s / len(clock.since_report)
        share = (waited_s - clock.waited_at_report_s) / spent_s if spent_s > 0 else 0.0
        clock.since_report, clock.waited_at_report_s = [], waited_s
        return Progress(
            step=self.state.step,
            num_steps=self.train.max_steps,
            step_s=step_s,
            samples_per_s=self.train.batch_size / step_s if step_s > 0 else 0.0,
            data_wait_share=min(1.0, share),
            memory_mb=memory_mb(self.world.device),
            losses={
                name: value for name, value in values.items() if name.startswith(("loss/", "figure/", "validation/"))
            },
            num_workers=self.world.size,
            attempt=self.outside.attempt,
        )

    def _save(self) -> None:
        """Rank 0 writes; all learn whether it could."""
        self.state.seconds = self._before_s + time.perf_counter() - self.clock.began_s
        self.state.data_wait_s = self._before_wait_s + self.outside.waited_s()
        self.world.together(self.outside.save if self.world.is_first else lambda: None)
        self._saved_step = self.state.step


def _timings(progress: Progress, phases: Sequence[Phase]) -> dict[str, float]:
    values = {
        "time/step_s": progress.step_s,
        "time/samples_per_s": progress.samples_per_s,
        "time/data_wait_share": progress.data_wait_share,
        "memory/mb": progress.memory_mb,
    }
    for phase in phases:
        for group in phase.optimizer.param_groups:
            values[f"lr/{group.get('name', phase.name)}"] = float(group["lr"])
    return values
