"""Whether a training's report is of the settings that the params files describe now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError
from models.motion.config import MotionConfig
from pipelines.settings import ExperimentConfig, params_sha256
from training.config import MotionTrainConfig
from training.style_config import StyleTrainConfig

if TYPE_CHECKING:
    from training.checkpoint import CheckpointInfo

Difference = tuple[str, Any, Any]
"""A key, what is described, what was used."""


def difference(report: Mapping[str, Any], experiment: ExperimentConfig, trained: Path) -> Difference | None:
    """What sets the training that a report tells of apart from the one that is described; None: nothing.

    The report holds a checksum of all settings, with epochs as steps. Where another is expected, the exported model's
    manifest says which key differs; keys that change how a training runs and not what comes out may. Steps of an epoch
    follow from the report's steps. They can't after an early stop, nor for the AVD settings of a model without a second
    stage: without the manifest such settings in epochs are not compared.

    Args:
        report: of the train stage.
        experiment: as described.
        trained: folder of the exported model, which may be missing.
    """
    second = report.get("second_stage")
    avd_steps = second.get("steps") if isinstance(second, Mapping) else None
    wanted = in_steps(experiment, None if report.get("stopped_early") else report.get("steps"), avd_steps)
    tags = report.get("tags")
    found = tags.get("params_sha256") if isinstance(tags, Mapping) else None
    if wanted is not None and found == params_sha256(wanted):
        return None
    info = _manifest(report, trained)
    if info is None:
        return None if wanted is None else ("params_sha256", params_sha256(wanted), found)
    second_steps = info.train.avd.max_steps if isinstance(info.train, MotionTrainConfig) else None
    described = in_steps(experiment, info.train.max_steps, second_steps) or experiment
    return next(_differing(described, info), None)


def in_steps(experiment: ExperimentConfig, steps: Any, avd_steps: Any) -> ExperimentConfig | None:
    """The experiment with its epochs as steps, counted on what a finished training took; None where that is not told.

    Args:
        experiment: as described.
        steps: of the first stage, all of them; None: not told.
        avd_steps: of the second.
    """
    train = experiment.train
    if train.max_epochs is not None:
        if not isinstance(steps, int):
            return None
        every = steps // train.max_epochs
        milestones = tuple(epoch * every for epoch in train.milestone_epochs)
        length = max(1, every * train.max_epochs)
        train = replace(train, max_steps=length, milestones=milestones, max_epochs=None, milestone_epochs=())
        if isinstance(train, StyleTrainConfig):
            from pipelines.train_stages import warm_up_in_steps  # brings torch along

            train = warm_up_in_steps(train, every)
    if isinstance(train, MotionTrainConfig) and train.avd.max_steps is None and train.avd.max_epochs is not None:
        if not isinstance(avd_steps, int):
            return None
        train = replace(train, avd=replace(train.avd, max_steps=avd_steps))
    return replace(experiment, train=train)


def _manifest(report: Mapping[str, Any], trained: Path) -> CheckpointInfo | None:
    """The exported model's, where it is the report's model."""
    from training.checkpoint import read_info  # brings torch along

    try:
        info = read_info(trained)
    except (CheckpointError, RecursionError):
        return None
    return info if info.sha256 == report.get("weights_sha256") else None


def _differing(described: ExperimentConfig, info: CheckpointInfo) -> Iterator[Difference]:
    from pipelines.train import OPERATIONAL

    skipped = set(OPERATIONAL)
    if described.train.perceptual_weights is None:  # the manifest names the file that was found
        skipped.add("perceptual_weights")
    if isinstance(described.model, MotionConfig) and not described.model.avd:
        skipped.add("avd")
    for part, wanted, found in (("model", described.model, info.model), ("train", described.train, info.train)):
        wanted_leaves, found_leaves = dict(_leaves(asdict(wanted))), dict(_leaves(asdict(found)))
        for key, value in wanted_leaves.items():
            if key.partition(".")[0] not in skipped and value != found_leaves.get(key):
                yield f"{part}.{key}", value, found_leaves.get(key)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
