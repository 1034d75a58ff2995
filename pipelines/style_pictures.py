"""A system's style pictures one by one: what was made of each lies in a file of its own and in the stage's journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from models.contracts import ShardClip
from models.errors import ClipError, must
from pipelines.journal import Work
from pipelines.strips import strip_png
from training.shard_reader import ShardReader
from training.speed import keep_memory

ITEMS = "pictures"
SHOWN = 8
"""Pictures in a report's strip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturesReport:
    """What a stage did that optimises something of every style picture."""

    name: str
    style_dataset: str
    pictures: int
    done_before: int
    """Of them, by an earlier run of the stage with the same settings and networks."""
    steps: int
    """Of each picture's optimisation."""
    first_loss: float
    """Mean over the pictures, before the optimisation's first step."""
    last_loss: float
    losses: Mapping[str, tuple[float, float]]
    """Each term's mean, before and after."""
    seconds: float
    picture_s: float
    """Seconds for each picture that was done now."""


def find(dataset: str, folder: Path) -> tuple[ShardReader, list[ShardClip]]:
    """A data set's shards, and all their pictures by the order of their ids.

    Raises:
        ClipError: there are no style pictures.
    """
    reader = ShardReader(folder)
    pictures = sorted((*reader.clips("train"), *reader.clips("test")), key=lambda clip: clip.id)
    if not pictures:
        raise ClipError(must(f"data set {dataset}", "hold a style picture", "none"))
    return reader, pictures


def numerics() -> torch.device:
    """Have torch give the same bits for the same picture; where to work."""
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    keep_memory()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read(pictures: Iterable[ShardClip], reader: ShardReader, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Each picture by its clip's id, in [0, 1], (3, H, W), on ``device``."""
    for clip in pictures:
        frame = reader.frames(clip, (0,))[0]
        yield clip.id, torch.from_numpy(frame.transpose(2, 0, 1).copy()).to(device, torch.float32) / 255


def keep(work: Work, item: str, key: str, tensors: Mapping[str, Tensor], result: Mapping[str, Any]) -> None:
    """Write down what was made of a picture.

    Args:
        work: of the stage.
        item: the picture's id.
        key: of everything that it depends on.
        tensors: what was made, by name; see `as_picture`.
        result: for the journal; ``begin`` and ``end`` are the terms of the loss, before the optimisation and after it.
    """
    name = f"{ITEMS}/{item}.safetensors"
    path = work.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(plain, partial)
    partial.replace(path)
    work.add(item, key, result, [name])


def kept(work: Work, item: str) -> dict[str, Tensor]:
    """What `keep` has written of a picture."""
    tensors: dict[str, Tensor] = safetensors.torch.load_file(work.folder / ITEMS / f"{item}.safetensors")
    return tensors


def figures(work: Work, done_now: int, seconds: float) -> dict[str, Any]:
    """What `PicturesReport` says of all pictures that are written down.

    Args:
        work: of the stage, swept.
        done_now: how many of them were done by this run.
        seconds: that it took.
    """
    results = work.results()

    def mean(when: str, term: str) -> float:
        return float(np.mean([result[when][term] for result in results]))

    losses = {term: (mean("begin", term), mean("end", term)) for term in results[0]["begin"]}
    return {
        "pictures": len(results),
        "done_before": len(results) - done_now,
        "first_loss": sum(first for first, _ in losses.values()),
        "last_loss": sum(last for _, last in losses.values()),
        "losses": losses,
        "seconds": round(seconds, 3),
        "picture_s": round(seconds / done_now, 3) if done_now else 0.0,
    }


def shown(pictures: Sequence[ShardClip]) -> Sequence[ShardClip]:
    """Those of a report's strip, evenly over all."""
    return pictures[:: max(1, len(pictures) // SHOWN)][:SHOWN]


def draw(pictures: Sequence[ShardClip], reader: ShardReader, work: Work, rows: Mapping[str, str], folder: Path) -> None:
    """Write strip.png: the style pictures above, and below what was made of each.

    Args:
        pictures: which.
        reader: of them.
        work: where what was made of them is kept.
        rows: label -> name of the kept tensor, a picture.
        folder: made if it is not there.
    """
    made = [kept(work, clip.id) for clip in pictures]
    frames = {"style picture": np.stack([reader.frames(clip, (0,))[0] for clip in pictures])}
    for label, name in rows.items():
        frames[label] = np.stack([each[name].numpy().transpose(1, 2, 0) for each in made])
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".strip.png.partial"
    partial.write_bytes(strip_png(frames))
    partial.replace(folder / "strip.png")


def as_picture(picture: Tensor) -> Tensor:
    """A picture about in [0, 1] as uint8, which is what is kept of it."""
    return picture.clamp(0, 1).mul(255).round().to(torch.uint8)
