"""The loop, with a model of one weight: order, failures, validation, early stop, stopping."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import ClipError, TrainingError
from training.config import MotionTrainConfig
from training.feed import PairBatch
from training.loop import Loop, Outside, Trainer
from training.optim import adam
from training.phases import Batch, Phase, PhaseOutput
from training.progress import Progress
from training.validation import COPY_L1, L1
from training.world import World


class Pull(nn.Module):
    """Pulls a weight towards the batch's numbers."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.name, self.calls = name, calls

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        self.calls.append(self.name)
        loss = (self.weight - batch["number"]).square().mean()
        return PhaseOutput({"distance": loss, "nothing": loss * 0}, {self.name: self.weight.detach().clone()})


class Toy:
    """A recipe of two phases; the second rests every other step."""

    def __init__(self, max_grad_norm: float | None = None) -> None:
        self.calls: list[str] = []
        modules = {name: Pull(name, self.calls) for name in ("first", "second")}
        self.networks: Mapping[str, nn.Module] = modules
        self.averaged = ("first",)
        self.phases = [
            Phase(
                name=name,
                module=module,
                optimizer=adam({name: (module.parameters(), 0.1)}, (0.5, 0.999)),
                every_n_steps=1 if name == "first" else 2,
                max_grad_norm=max_grad_norm,
            )
            for name, module in modules.items()
        ]

    def prepare(self, pairs: PairBatch) -> Batch:
        return {"number": torch.from_numpy(pairs.items).float()}

    def reconstruct(self, networks: Mapping[str, nn.Module], source: Tensor, driving: Tensor) -> Tensor:
        return source

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        return {"toy": np.zeros((2, 2, 3), np.uint8)}


@dataclass(slots=True)
class Notes:
    """A journal that remembers."""

    values: list[dict[str, float]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)

    def step(self, step: int, values: Mapping[str, float], progress: Progress | None) -> None:
        self.values.append(dict(values))
        assert len(self.values) == step
        if progress is not None:
            self.progress.append(progress)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        self.drawn.append(step)


def batches(*numbers: float, forever: bool = True) -> Iterator[PairBatch]:
    nothing = torch.empty(0)
    yield from (PairBatch(nothing, nothing, np.array([number])) for number in numbers)
    while forever:
        yield PairBatch(nothing, nothing, np.array([1.0]))


def config(**options: Any) -> MotionTrainConfig:
    base = {"batch_size": 2, "max_steps": 6, "log_every_steps": 3, "checkpoint_every_steps": 4, "ema_decay": 0.5}
    return MotionTrainConfig(**{**base, "picture_every_steps": 0, "validate_every_steps": 0, **options})


def loop(train: MotionTrainConfig, toy: Toy | None = None, **outside: Any) -> tuple[Loop, list[int]]:
    saved: list[int] = []
    trainer = Trainer(toy or Toy(), train, World())
    made = Loop(trainer, Outside(save=lambda: saved.append(trainer.state.step), **outside))
    return made, saved


def test_phases_run_in_order_and_rest_when_not_due() -> None:
    toy = Toy()
    made, saved = loop(config(max_steps=3), toy)
    made.run(batches())
    assert toy.calls == ["first", "second", "first", "first", "second"]
    assert (made.state.step, made.state.images_seen) == (3, 6)
    assert saved == [3]
    assert not made.interrupted


def test_every_step_is_told_and_progress_now_and_then() -> None:
    notes = Notes()
    made, saved = loop(config(picture_every_steps=4), journal=notes, picture_pairs=next(batches()))
    made.run(batches())
    assert saved == [4, 6]
    assert len(notes.values) == 6
    assert notes.drawn == [4, 6]
    assert set(notes.values[1]) == {"loss/first/distance", "loss/first/nothing", "grad_norm/first"}
    assert notes.values[0]["loss/second/distance"] == 1.0
    assert [progress.step for progress in notes.progress] == [3, 6]
    assert notes.values[2]["lr/second"] == 0.1
    line = notes.progress[0].line()
    assert line.startswith("step 3/6 ")
    assert "samples/s" in line
    assert "data wait" in line
    assert Progress.from_json(notes.progress[0].to_json()) == notes.progress[0]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(number: float) -> None:
    toy = Toy()
    made, saved = loop(config(), toy)
    with pytest.raises(TrainingError, match=r"loss/first/distance in step 3 on rank 0 must be finite; got (nan|inf)"):
        made.run(batches(1.0, 1.0, number))
    assert made.state.step == 2
    assert all(torch.isfinite(parameter).all() for net in toy.networks.values() for parameter in net.parameters())
    assert saved == []


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    toy = Toy()
    made, _ = loop(config(), toy)
    toy.networks["first"].weight.register_hook(lambda grad: grad * math.inf)  # type: ignore[union-attr, operator]
    with pytest.raises(TrainingError, match="gradient of phase 'first' in step 1 must be finite"):
        made.run(batches())
    assert torch.equal(next(toy.networks["first"].parameters()).detach(), torch.zeros(1))


def test_gradients_are_clipped_per_phase() -> None:
    toy, notes = Toy(max_grad_norm=0.5), Notes()
    made, _ = loop(config(max_steps=1), toy, journal=notes)
    made.run(batches(10.0))
    assert notes.values[0]["grad_norm/first"] == 20.0
    grad = next(toy.networks["first"].parameters()).grad
    assert grad is not None
    assert grad.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_the_best_validation_is_kept_and_patience_ends_the_training() -> None:
    scores = iter([0.5, 0.3, 0.4, 0.35, 0.2])
    notes = Notes()

    def validate(networks: Mapping[str, nn.Module]) -> dict[str, float]:
        assert all(not network.training for network in networks.values())
        return {L1: next(scores), COPY_L1: 0.6}

    train = config(max_steps=10, validate_every_steps=1, early_stop_patience=2, checkpoint_every_steps=100)
    made, saved = loop(train, validate=validate, judged_by=L1, journal=notes)
    made.run(batches())
    assert made.state.stopped_early
    assert (made.state.step, made.state.best_step, made.state.best_metric) == (4, 2, 0.3)
    assert saved == [1, 2, 4]  # each best one, and the final one
    assert [values[L1] for values in notes.values] == [0.5, 0.3, 0.4, 0.35]
    assert made.trainer.recipe.networks["first"].training


def test_without_an_average_the_networks_are_judged_and_train_on() -> None:
    toy = Toy()
    made, _ = loop(
        config(ema_decay=0.0, validate_every_steps=3), toy, judged_by=L1, validate=lambda networks: {L1: 1.0}
    )
    assert made.trainer.average is None
    made.run(batches())
    assert toy.networks["first"].training
    assert made.state.best_step == 3


def test_a_wish_to_stop_ends_with_a_checkpoint() -> None:
    wishes = iter([False, False, True])
    made, saved = loop(config(), stop=lambda: next(wishes))
    made.run(batches())
    assert made.interrupted
    assert saved == [2]
    assert made.state.step == 2


def test_a_failing_feed_ends_the_training() -> None:
    def failing() -> Iterator[PairBatch]:
        yield from batches(1.0, forever=False)
        raise ClipError("shard-0 must be readable; got nothing.")

    made, saved = loop(config())
    with pytest.raises(ClipError, match="shard-0"):
        made.run(failing())
    assert made.state.step == 1
    assert saved == []


def test_a_finished_training_takes_no_step() -> None:
    made, saved = loop(config(max_steps=2))
    made.run(batches())
    again, saved_again = loop(config(max_steps=2))
    again.state.step = 2
    again._saved_step = 2
    again.run(batches())
    assert saved == [2]
    assert saved_again == []


def test_state_round_trip_continues_alike() -> None:
    whole, _ = loop(config(max_steps=6), whole_toy := Toy())
    whole.run(batches())
    first, _ = loop(config(max_steps=3), first_toy := Toy())
    first.run(batches())
    second, _ = loop(config(max_steps=6), second_toy := Toy())
    for name, network in second_toy.networks.items():
        network.load_state_dict(first_toy.networks[name].state_dict())
    second.trainer.load_state_dict(first.trainer.state_dict())
    second.run(batches())
    for name, network in whole_toy.networks.items():
        other = second_toy.networks[name].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in network.state_dict().items())


def test_together_shares_one_ranks_failure() -> None:
    world = World()
    assert world.together(lambda: 3) == 3
    assert world.share(None, stop=True)
    assert not world.share(None)

    def fail() -> None:
        raise ClipError("broken")

    with pytest.raises(ClipError, match="broken"):
        world.together(fail)
    assert world.gather([1.0, 2.0]).tolist() == [[1.0, 2.0]]


def test_a_training_ends_when_its_time_is_up() -> None:
    made, saved = loop(
        config(max_steps=50, max_seconds=1e-6, checkpoint_every_steps=100),
        Toy(),
        judged_by=L1,
        validate=lambda networks: {L1: 1.0},
    )
    made.run(batches())
    assert (made.state.step, made.state.stopped_early, saved) == (1, True, [1])
    later, _ = loop(config(max_steps=50, max_seconds=3600.0), Toy())
    later.run(batches())
    assert (later.state.step, later.state.stopped_early) == (50, False)
