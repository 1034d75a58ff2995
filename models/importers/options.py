"""Every option of an imported model's networks, and who says so: the tensors, their settings, what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.catalog import MODELS
from models.errors import CheckpointError, must
from models.importers.layout import Kind
from models.importers.report import OptionRow
from models.importers.settings import Settings, key_of
from models.importers.shapes import Fitted
from models.motion.config import SCALED_PX, MotionConfig

_SHAPES, _PUBLISHED = "the tensors' shapes", "the published default"
_UNSEEN = {
    "fomm": ("temperature", "heat_map_padding", "keypoint_variance"),
    "articulated": ("temperature", "heat_map_padding", "generator_skips"),
}
"""Options that leave no trace in the tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the tensors' shapes can't tell, as the user says it."""

    settings: Any = None
    """Content of the published settings file (``config.yaml``); None: what was published by default."""
    align_corners: bool = False
    """The convention of every warp: true for files that were trained with torch 1.2 or older."""
    size_px: int | None = None
    """Of the frames; None: as the settings say, else the size that gives motion at 64 px."""


def merge(fitted: Fitted, settings: Settings, assumptions: Assumptions, *, kind: Kind, where: str) -> list[OptionRow]:
    """Every option that anybody says something about: the shapes first, then the settings, then what was published.

    Args:
        fitted: what the shapes say.
        settings: what the published settings file says; empty without one.
        assumptions: what the user says.
        kind: of the checkpoint.
        where: names the checkpoint in errors.

    Raises:
        CheckpointError: settings and shapes contradict each other.
    """
    given = {name: said for name, said in settings.values.items() if _is_about(name, fitted)}
    _refuse_contradictions(fitted, given, kind=kind, where=where)
    said: dict[str, tuple[Any, str]] = {name: (value, _SHAPES) for name, value in fitted.options.items()}
    said = {**given, **said, **_of_the_user(assumptions)}
    for name, bound in fitted.at_least.items():
        published = getattr(MotionConfig(), name)
        fits = name.endswith("max_features") and published >= bound
        said.setdefault(name, (published, _PUBLISHED) if fits else (bound, _SHAPES))
    for name in _UNSEEN[kind]:
        said.setdefault(name, (MODELS[kind].model.get(name, getattr(MotionConfig(), name)), _PUBLISHED))
    scaled = f"the published size of the motion, {SCALED_PX} px"
    said.setdefault("size_px", (round(SCALED_PX / fitted.options["scale_factor"]), scaled))
    said.setdefault("align_corners", (False, "torch since 1.3"))
    if kind == "articulated":
        said["motion"] = ("articulated", "--kind")
    rows = [OptionRow(option=name, value=value, source=source) for name, (value, source) in said.items()]
    return sorted(rows, key=lambda row: row.option)


def _of_the_user(assumptions: Assumptions) -> dict[str, tuple[Any, str]]:
    said: dict[str, tuple[Any, str]] = {"align_corners": (True, "you")} if assumptions.align_corners else {}
    return said if assumptions.size_px is None else {**said, "size_px": (assumptions.size_px, "you")}


def _is_about(option: str, fitted: Fitted) -> bool:
    """Whether the file holds the network that an option is about; settings may describe one that was left out."""
    part = option.partition("_")[0]
    return part not in ("discriminator", "background") or fitted.options.get(part, "none") not in (False, "none")


def _refuse_contradictions(fitted: Fitted, given: dict[str, tuple[Any, str]], *, kind: Kind, where: str) -> None:
    wrong = []
    for name, (value, _) in given.items():
        if name in fitted.options and not _equal(value, fitted.options[name]):
            wrong.append(f"{key_of(name, kind)} is {value} where the tensors say {fitted.options[name]}")
        elif name in fitted.at_least and value < fitted.at_least[name]:
            wrong.append(f"{key_of(name, kind)} is {value} where the tensors say {fitted.at_least[name]} or more")
    if wrong:
        fix = "Give the settings with which this very file was trained, or none"
        raise CheckpointError(must(f"the settings for {where}", "fit the tensors", "; ".join(wrong), fix))


def _equal(given: Any, told: Any) -> bool:
    if isinstance(given, float) and isinstance(told, float):
        return abs(given - told) < 1e-3 * told
    return bool(given == told)
