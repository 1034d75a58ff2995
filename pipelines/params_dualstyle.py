"""How params files describe a DualStyleGAN: an entry of ``dualstyles`` is five trainings and a destylisation.

Precedence of a training's settings, weakest first: the paper's (`pipelines.dualstyle_steps`), those of
``profiles.<profile>.face`` (its ``train``, then the step's own), the entry's. A null inherits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.catalog import MODELS
from models.errors import Problem
from models.families import NETWORKS
from pipelines.dualstyle_steps import STEPS, StepName, experiment_name
from pipelines.layers import Layer, build, last, mapping_of, one_length, unknown_keys
from pipelines.settings import DualStyleSystem, ExperimentConfig
from training.destylise_config import DestyliseConfig, RefineConfig
from training.families import TRAININGS

KEYS = ("dataset", "style_dataset", "model", "destylise", "refine", *STEPS)
FACE_KEYS = ("model", "train", "destylise", "refine", *STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cartoon:
    """What an entry says, resolved; less than all of it where something is wrong."""

    system: DualStyleSystem | None = None
    experiments: dict[str, ExperimentConfig] = field(default_factory=dict)
    """By name: `pipelines.dualstyle_steps.experiment_name`."""


def read(
    name: str, described: Layer, face: Layer, datasets: Mapping[str, list[Layer]], problems: list[Problem]
) -> Cartoon:
    """A system and its trainings.

    Args:
        name: of the system.
        described: the entry.
        face: what the profile says of all such systems.
        datasets: what describes each known data set, weakest first.
        problems: receives what is wrong.
    """
    path, own = described
    problems += [*unknown_keys(path, own, KEYS), *unknown_keys(face[0], face[1], FACE_KEYS)]
    wrong = [key for key in ("dataset", "style_dataset") if own.get(key) not in datasets]
    problems += [Problem(f"{path}.{key}", own.get(key), f"be one of {', '.join(datasets)}") for key in wrong]
    if wrong:
        return Cartoon()
    sides = [face, described]
    destylise = build(DestyliseConfig, _parts(sides, "destylise", problems), f"{path}.destylise", problems)
    refine = build(RefineConfig, _parts(sides, "refine", problems), f"{path}.refine", problems)
    size = (f"datasets.{own['dataset']}", {"size_px": last(datasets[own["dataset"]], "size_px")})
    made = {step: _training(name, step, size, sides, problems) for step in STEPS}
    experiments = {experiment_name(name, step): found for step, found in made.items() if found is not None}
    if destylise is None or refine is None:
        return Cartoon(experiments=experiments)
    sets = {key: str(own[key]) for key in ("dataset", "style_dataset")}
    return Cartoon(system=DualStyleSystem(**sets, destylise=destylise, refine=refine), experiments=experiments)


def _training(
    name: str, step: StepName, size: Layer, sides: list[Layer], problems: list[Problem]
) -> ExperimentConfig | None:
    spec, (path, own) = STEPS[step], sides[-1]
    network = build(NETWORKS["dualstyle"], [size, *_parts(sides, "model", problems)], f"{path}.model", problems)
    start = {"init_from": f"data/trained/{experiment_name(name, spec.start)}"} if spec.start else {}
    trained: list[Layer] = [
        (f"models.{spec.preset}", MODELS[spec.preset].train),
        (f"the step {step}", {**spec.train, **start}),
        *_parts(sides[:1], "train", problems),
        *_parts(sides, step, problems),
    ]
    train = build(TRAININGS["dualstyle"], one_length(trained), f"{path}.{step}", problems)
    if network is None or train is None:
        return None
    parts: dict[str, str] = {part: experiment_name(name, part) for part in spec.parts}
    return ExperimentConfig(
        preset=spec.preset,
        dataset=own[spec.dataset],
        style_dataset=own["style_dataset"] if spec.takes_styles else None,
        model=network,
        train=train,
        parts={**parts, "codes": name} if spec.takes_styles else parts,
    )


def _parts(sides: list[Layer], key: str, problems: list[Problem]) -> list[Layer]:
    """What each of the layers says under a key."""
    return [(f"{path}.{key}", mapping_of(f"{path}.{key}", side.get(key), problems)) for path, side in sides]
