"""A training in steps, and its second stage: what params.yaml says in epochs, counted on the shards at hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict

from models.contracts import ShardClip
from models.motion.config import MotionConfig
from pipelines.params import ExperimentConfig
from training.checkpoint import CheckpointInfo
from training.config import MotionTrainConfig
from training.feed import FeedOptions, PairSequence, ShardReader
from training.job import TrainJob
from training.style_config import StyleTrainConfig

AVD_RECIPE = "training.recipes.avd:build"
HASH_LETTERS = 8


def in_steps(experiment: ExperimentConfig, reader: ShardReader) -> ExperimentConfig:
    """The experiment with its epochs as steps; without epochs it stays as it is.

    An epoch has as many steps as there are whole batches of clips (or identities) times ``num_repeats``, 1 at least.
    """
    train, clips = experiment.train, reader.clips("train")
    by_identity = isinstance(train, MotionTrainConfig) and train.id_sampling
    if train.max_epochs is not None:
        every = steps_per_epoch(clips, train.batch_size, train.num_repeats, id_sampling=by_identity)
        milestones = tuple(epoch * every for epoch in train.milestone_epochs)
        train = dataclasses.replace(
            train, max_steps=train.max_epochs * every, milestones=milestones, max_epochs=None, milestone_epochs=()
        )
    if isinstance(train, MotionTrainConfig):
        train = _avd_in_steps(train, clips)
    if isinstance(train, StyleTrainConfig):
        every = steps_per_epoch(clips, train.batch_size, train.num_repeats, id_sampling=False)
        train = warm_up_in_steps(train, every)
    return dataclasses.replace(experiment, train=train)


def warm_up_in_steps(train: StyleTrainConfig, every: int) -> StyleTrainConfig:
    """The same with its warm-up in steps, of which an epoch has ``every``."""
    losses = train.losses
    if losses.warm_up_epochs is None:
        return train
    steps = losses.warm_up_epochs * every
    return dataclasses.replace(train, losses=dataclasses.replace(losses, warm_up_steps=steps, warm_up_epochs=None))


def steps_per_epoch(clips: list[ShardClip], batch_size: int, num_repeats: int, *, id_sampling: bool) -> int:
    """Whole batches in an epoch; 1 at least."""
    options = FeedOptions(batch_size=batch_size, num_repeats=num_repeats, id_sampling=id_sampling)
    return max(1, PairSequence(clips, options).items_per_epoch // batch_size)


def _avd_in_steps(train: MotionTrainConfig, clips: list[ShardClip]) -> MotionTrainConfig:
    avd = train.avd
    if avd.max_steps is not None or avd.max_epochs is None:
        return train
    every = steps_per_epoch(clips, avd.batch_size, avd.num_repeats, id_sampling=train.id_sampling)
    return dataclasses.replace(train, avd=dataclasses.replace(avd, max_steps=avd.max_epochs * every))


def is_avd_trained(info: CheckpointInfo) -> bool:
    """Whether the AVD networks of a checkpoint mean something: every articulated model has them from its start.

    An exported model has its second stage behind it; in a run's folder only the second stage's own checkpoints do,
    whose settings are those of `second_job`; imported ones come trained.
    """
    train = info.train
    if not isinstance(train, MotionTrainConfig):
        return False
    avd = train.avd
    if any(name.startswith("imported/") for name in info.metrics):
        return True
    is_second = (train.max_steps, train.batch_size, train.validate_every_steps) == (avd.max_steps, avd.batch_size, 0)
    return bool(avd.max_steps) and (info.state_sha256 is None or is_second)


def second_job(first: TrainJob, checkpoint: str, reader: ShardReader) -> TrainJob | None:
    """What trains the AVD networks after the first stage; None when the experiment has no second stage.

    Args:
        first: the first stage's job, in steps.
        checkpoint: its last one; the averaged weights are taken.
        reader: of the shards.
    """
    model, train = first.model, first.train
    if not isinstance(model, MotionConfig) or not isinstance(train, MotionTrainConfig):
        return None
    avd = train.avd
    if not model.avd or not avd.max_steps:
        return None
    every = steps_per_epoch(reader.clips("train"), avd.batch_size, avd.num_repeats, id_sampling=train.id_sampling)
    second = dataclasses.replace(
        train,
        batch_size=avd.batch_size,
        num_repeats=avd.num_repeats,
        max_steps=avd.max_steps,
        milestones=tuple(epoch * every for epoch in avd.milestone_epochs),
        validate_every_steps=0,
        picture_every_steps=0,
        init_from=None,
        losses=dataclasses.replace(train.losses, gan="none"),
    )
    begins = checkpoint.rstrip("/").rpartition("/")[2]  # a run that was given more steps needs its second stage anew
    facts = json.dumps([first.run_name, begins, asdict(avd)], sort_keys=True)
    suffix = f"-avd-{hashlib.sha256(facts.encode()).hexdigest()[:HASH_LETTERS]}"
    return dataclasses.replace(
        first,
        run_name=f"{first.run_name}{suffix}",
        run_folder=f"{first.run_folder.rstrip('/')}{suffix}",
        recipe=AVD_RECIPE,
        train=second,
        init_weights=checkpoint,
        init_averaged=True,
    )
