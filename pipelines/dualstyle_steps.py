"""The trainings that make one DualStyleGAN, in their order, and what each of them needs of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StepName = Literal["gan", "encoder", "tuned", "source", "target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One training."""

    preset: str
    dataset: Literal["dataset", "style_dataset"] = "dataset"
    """Which of the system's two data sets it learns from."""
    takes_styles: bool = False
    """It learns from the style pictures besides, with their codes."""
    start: StepName | None = None
    """Whose weights it goes on with."""
    parts: tuple[StepName, ...] = ()
    """Whose networks it takes in, averaged: a part of its own, or one that stands still."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """The paper's settings (DualStyleGAN, CVPR 2022; the system's paper, 2.2)."""


STEPS: dict[StepName, Step] = {
    "gan": Step(preset="stylegan2", train={"max_steps": 780_000, "batch_size": 32}),
    "encoder": Step(preset="psp", parts=("gan",), train={"max_steps": 300_000, "batch_size": 8}),
    "tuned": Step(preset="stylegan2", dataset="style_dataset", start="gan", train={"max_steps": 600, "batch_size": 32}),
    "source": Step(
        preset="dualstylegan",
        parts=("gan", "encoder"),
        train={
            "max_steps": 3_600,
            "batch_size": 32,
            "transfer": {"domain": "source", "adversarial": 0.1, "perceptual": 0.5},
        },
    ),
    "target": Step(
        preset="dualstylegan",
        takes_styles=True,
        start="source",
        train={
            "max_steps": 1_400,
            "batch_size": 32,
            "transfer": {
                "domain": "target",
                "adversarial": 1.0,
                "perceptual": 1.0,
                "contextual": 0.25,
                "feature_matching": 0.25,
                "identity": 1.0,
                "regularisation": 0.015,
            },
        },
    ),
}
"""``gan``: StyleGAN2 on faces; ``encoder``: pSp for it; ``tuned``: the GAN on the style pictures, for destylisation;
``source``, ``target``: DualStyleGAN's two domains. Between these two the style pictures are destylised."""


def experiment_name(system: str, step: StepName) -> str:
    """How the training of a step is called: ``dualstyle-cartoon-gan``."""
    return f"{system}-{step}"


def names_of(system: str) -> tuple[str, ...]:
    """Names of all of a system's trainings."""
    return tuple(experiment_name(system, step) for step in STEPS)
