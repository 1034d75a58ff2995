"""What the report page reads: the stages' reports, the loss tables, the facts of the machine. Nothing here raises."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.catalog import MODELS
from models.families import Family
from pipelines.lineage import git_tags
from pipelines.params import Params
from pipelines.stage import Paths

logger = logging.getLogger(__name__)

STAGES = (
    "download",
    "cut",
    "shard",
    "train",
    "destylise",
    "refine",
    "stylise-clips",
    "evaluate",
    "register",
    "animate",
    "stylise",
)
PACKAGES = ("torch", "ray", "mlflow", "dvc", "onnxruntime", "numpy", "opencv-python", "decord2")

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """All reports that could be read, and a sentence for each that could not."""

    stages: Mapping[str, Mapping[str, Report]]
    """Stage -> name -> report."""
    problems: tuple[str, ...]

    def get(self, stage: str, name: str) -> Report:
        """One report; empty when the stage has not run."""
        return self.stages.get(stage, {}).get(name, {})

    def names(self, stage: str, known: Sequence[str] = ()) -> list[str]:
        """The known names, then those of further reports."""
        return [*known, *sorted(set(self.stages.get(stage, {})) - set(known))]


def read_reports(paths: Paths) -> Reports:
    """Read ``reports/<stage>/<name>.json`` of every stage."""
    stages: dict[str, dict[str, Report]] = {}
    problems: list[str] = []
    for stage in STAGES:
        stages[stage] = {}
        for path in sorted((paths.root / "reports" / stage).glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(content, dict):
                    raise ValueError(f"a {type(content).__name__} instead of a mapping")
                stages[stage][path.stem] = content
            except (OSError, ValueError) as error:
                problems.append(f"{path.relative_to(paths.root)} can't be read: {error}")
    return Reports(stages=stages, problems=tuple(problems))


def family_of(stage: str, name: str, params: Params, reports: Reports) -> Family:
    """The family of the model that a report is about, by its preset, its experiment's preset, or what it holds."""
    report, experiment = reports.get(stage, name), params.experiments.get(name)
    for preset in (report.get("preset"), experiment.preset if experiment else None):
        if isinstance(preset, str) and preset in MODELS:
            return MODELS[preset].family
    if name in params.dualstyles or name in params.systems:
        return "dualstyle" if name in params.dualstyles else "system"
    elsewhere = (reports.get(other, name) for other in ("train", "evaluate"))
    return "style" if any(one.get("style_dataset") for one in (report, *elsewhere)) else "motion"


def names_of(stage: str, family: Family, params: Params, reports: Reports) -> list[str]:
    """The experiments of one family, and further reports of a stage that are about its models."""
    names = reports.names(stage, list(params.experiments))
    return [name for name in names if family_of(stage, name, params, reports) == family]


def find(report: Any, *keys: str) -> Any:
    """The value of the first of ``keys`` that the report holds, at its top or nested in mappings; None without one."""
    for key in keys:
        level = [report]
        while level:
            mappings = [entry for entry in level if isinstance(entry, Mapping)]
            for entry in mappings:
                if entry.get(key) is not None:
                    return entry[key]
            level = [value for entry in mappings for value in entry.values()]
    return None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def size(value: Any) -> int:
    """How many: a whole number as it is, a collection by its length, anything else 0."""
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    counted = number(value)
    return int(counted) if counted is not None else 0


def whole(value: Any) -> int | None:
    """A whole number, or None."""
    if isinstance(value, Mapping | list):
        return len(value)
    counted = number(value)
    return None if counted is None else int(counted)


def mappings(value: Any) -> list[Report]:
    """The mappings among the entries of a list; none when it is no list."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | tuple) else []


def sums(value: Any) -> str:
    """Files' checksums, short, in one line."""
    found = value if isinstance(value, Mapping) else {}
    return ", ".join(f"{name} {str(digest)[:12]}" for name, digest in found.items())


def read_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Columns of a loss table as curves, name -> (steps, values); gaps are left out, and so is an unreadable table."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = _parsed(row.pop("step", None))
                for name, text in row.items():
                    value = _parsed(text)
                    if name and step is not None and value is not None:
                        steps, values = curves.setdefault(name, ([], []))
                        steps.append(step)
                        values.append(value)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        logger.debug("%s: %s", path, error)
    return curves


def versions() -> list[tuple[str, str]]:
    """Python's and the main packages' versions."""
    found = [("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append((name, "not installed"))
    return found


def machine() -> list[tuple[str, str]]:
    """What this page was made on."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return [
        ("System", f"{platform.system()} {platform.machine()}"),
        ("CPU cores", str(cores)),
        ("Memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("GPUs", ", ".join(gpus) or "none"),
    ]


def commit(root: Path) -> str:
    """The checkout's commit, short, and whether files differ from it; empty outside git."""
    tags = git_tags(root)
    short = tags.get("git.commit", "")[:10]
    return f"{short} with local changes" if tags.get("git.dirty") == "true" else short


def _parsed(text: Any) -> float | None:
    try:
        return number(float(text))
    except (TypeError, ValueError):
        return None
