"""Two runs, or two model versions, side by side: what was set otherwise, and what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import TrackingError, must
from pipelines.params import Params
from pipelines.registry import find, store_of
from pipelines.stage import Paths
from training.tracking.jsonl import read_card, read_metrics

SHOWN_TAGS = ("training.step", "training.images_seen", "data.index_sha256", "git.commit", "profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One of the two."""

    name: str
    settings: Mapping[str, str]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows of (key, first, second)."""

    names: tuple[str, str]
    settings: tuple[tuple[str, str, str], ...]
    """Only those that differ."""
    figures: tuple[tuple[str, float | None, float | None], ...]


def compare(first: str, second: str, params: Params | None, paths: Paths) -> Comparison:
    """Put two subjects side by side.

    Args:
        first: a run (a folder's name in runs/), an experiment (its newest run), ``NAME/VERSION`` or ``models:/...``.
        second: likewise.
        params: where the store is.
        paths: where the runs are.

    Raises:
        TrackingError: a subject does not exist; the message lists what does.
    """
    left, right = (subject(name, params, paths) for name in (first, second))
    keys = sorted({*left.settings, *right.settings})
    settings = [(key, left.settings.get(key, "-"), right.settings.get(key, "-")) for key in keys]
    names = sorted({*left.figures, *right.figures})
    return Comparison(
        names=(left.name, right.name),
        settings=tuple(row for row in settings if row[1] != row[2]),
        figures=tuple((name, left.figures.get(name), right.figures.get(name)) for name in names),
    )


def subject(name: str, params: Params | None, paths: Paths) -> Subject:
    """A run of this project or a version of the registry."""
    folder = _run_folder(name, paths)
    if folder is not None:
        return _of_run(folder)
    if name.startswith("models:/") or "/" in name or "@" in name:
        return _of_version(name if name.startswith("models:/") else f"models:/{name}", params, paths)
    known = ", ".join(sorted(path.name for path in _runs(paths))) or "none"
    fix = f"Runs here: {known}; versions are NAME/VERSION"
    raise TrackingError(must("compare", "be given runs or model versions that exist", name, fix))


def _runs(paths: Paths) -> list[Path]:
    root = paths.run("")
    return [path.parent for path in root.glob("*/records.jsonl")] if root.is_dir() else []


def _run_folder(name: str, paths: Paths) -> Path | None:
    exact = [path for path in _runs(paths) if path.name == name]
    of_experiment = [path for path in _runs(paths) if path.name.rpartition("-")[0] == name]
    newest = sorted(of_experiment, key=lambda path: path.stat().st_mtime)
    found = exact or newest
    return found[-1] if found else None


def _of_run(folder: Path) -> Subject:
    card = read_card(folder) or {}
    figures: dict[str, float] = {}
    for step, values in read_metrics(folder):
        figures |= {**values, "step": float(step)}
    settings = {**_texts(card.get("tags")), **_texts(card.get("params"))}
    return Subject(name=folder.name, settings=settings, figures=figures)


def _of_version(uri: str, params: Params | None, paths: Paths) -> Subject:
    version = find(uri, store_of(params, paths))
    settings = {key: version.tags[key] for key in SHOWN_TAGS if key in version.tags}
    for section in ("config.model", "config.train"):
        settings |= _flat(section.removeprefix("config."), json.loads(version.tags.get(section, "{}")))
    figures = {
        f"test {version.tags.get('metric.name', 'metric')}": _number(version.tags.get("metric.value")),
        "test copy-source": _number(version.tags.get("metric.copy_source")),
    }
    known = {key: value for key, value in figures.items() if value is not None}
    return Subject(name=version.uri, settings=settings, figures=known)


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    return {key: text for name, part in value.items() for key, text in _flat(f"{prefix}.{name}", part).items()}


def _texts(raw: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in raw.items()} if isinstance(raw, Mapping) else {}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
