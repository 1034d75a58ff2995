"""What can be made again, how big it is, and its removal."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.stage import Paths

What = Literal["outputs", "runs", "cache", "store"]

PLACES: dict[What, tuple[tuple[str, ...], str]] = {
    "outputs": (("data", "reports"), "stage outputs; `dvc checkout` brings them back from the cache"),
    "runs": (("runs",), "checkpoints of trainings; an unfinished training starts again without them"),
    "cache": ((".dvc/cache", ".dvc/tmp"), "DVC's copies of outputs, old experiments' too"),
    "store": (("mlflow.db", "mlartifacts"), "tracked runs and REGISTERED MODELS of the local store"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something that can be removed."""

    what: What
    path: Path
    num_bytes: int
    means: str


def find(paths: Paths, whats: tuple[What, ...]) -> list[Place]:
    """What of the kinds asked for is there, with its size on disk."""
    return [
        Place(what=what, path=paths.root / name, num_bytes=_size(paths.root / name), means=PLACES[what][1])
        for what in whats
        for name in PLACES[what][0]
        if (paths.root / name).exists()
    ]


def remove(places: list[Place]) -> None:
    """Remove places that `find` gave."""
    for place in places:
        if place.path.is_dir() and not place.path.is_symlink():
            shutil.rmtree(place.path)
        else:
            place.path.unlink()


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
