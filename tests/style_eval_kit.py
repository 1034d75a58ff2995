"""For tests of the evaluation of stylising models: sample pictures in shards, and engines."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from models.contracts import INDEX_NAME, ShardClip, ShardIndex
from models.errors import CheckpointError
from pipelines.evaluate_style_work import Stylises
from pipelines.params import ClusterConfig, EvaluationConfig
from preprocessing.shards import encode_frames, write_shard

SIZE_PX = 64
OPTIONS = EvaluationConfig(num_workers=1, num_strips=1, strip_frames=3, squares=1)
INFO = SimpleNamespace(
    step=5,
    images_seen=40,
    preset="toy",
    sha256="weights",
    model=SimpleNamespace(size_px=SIZE_PX),
    train=SimpleNamespace(seed=3),
)
"""What the evaluation reads of an exported model's manifest."""


@functools.cache
def pictures(folder: Path, count: int, size_px: int = SIZE_PX) -> np.ndarray:
    """The first pictures of a folder of samples, squares out of their middles, uint8 RGB, (count, S, S, 3)."""
    made = []
    for file in sorted(folder.glob("*.jpg"))[:count]:
        picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = picture[top : top + side, left : left + side]
        made.append(cv2.resize(square, (size_px, size_px), interpolation=cv2.INTER_AREA))
    return np.stack(made)


def make_shards(folder: Path, frames: np.ndarray, *, num_test: int, broken: tuple[int, ...] = ()) -> list[str]:
    """Shards of stills, the first ``num_test`` of split test; those of ``broken`` are no JPEG."""
    folder.mkdir(parents=True)
    ids = [f"still-{number}" for number in range(len(frames))]
    coded = {name: encode_frames(frame[None], quality=95) for name, frame in zip(ids, frames, strict=True)}
    for number in broken:
        coded[ids[number]][0] = b"no JPEG"
    shard = write_shard(list(coded.items()), folder / "shard-00000.parquet")
    clips: Any = [
        ShardClip(
            id=name,
            split="test" if row < num_test else "train",
            identity=name,
            num_frames=1,
            fps=1.0,
            shard=0,
            row=row,
        )
        for row, name in enumerate(ids)
    ]
    index = ShardIndex(
        dataset=folder.name,
        size_px=frames.shape[1],
        split_rule="source",
        shards=(shard,),
        clips=tuple(clips),
        extra={"jpeg_quality": 95},
    )
    (folder / INDEX_NAME).write_text(json.dumps(index.to_json()), encoding="utf-8")
    return ids


def params(**options: Any) -> Any:
    """What the evaluation reads of params.yaml."""
    experiment = SimpleNamespace(preset="toy", dataset="photos", style_dataset="paintings")
    evaluation = EvaluationConfig(**{**{key: getattr(OPTIONS, key) for key in OPTIONS.__slots__}, **options})
    return SimpleNamespace(experiment=lambda _name: experiment, evaluation=evaluation, cluster=ClusterConfig())


class Copies:
    """Hands the photos back."""

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        return np.asarray(pictures, dtype=np.float32) / 255


class Blurs:
    """Blurs them by 2 px."""

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in pictures]).astype(np.float32) / 255


class Recolours:
    """Makes them a little redder."""

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        return np.clip(pictures.astype(np.float32) / 255 * (1.08, 0.97, 0.88) + 0.02, 0, 1).astype(np.float32)


class Paints:
    """Shows paintings in place of photos, a different one for each."""

    def __init__(self, paintings: np.ndarray) -> None:
        self.paintings = paintings

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        chosen = [int(one.astype(np.int64).sum()) % len(self.paintings) for one in pictures]
        return self.paintings[chosen].astype(np.float32) / 255


def opened(engine: Stylises) -> Any:
    """What opens ``engine``, whatever the folder."""
    return functools.partial(_open, engine)


def _open(engine: Stylises, _folder: Path, _device: str) -> Stylises:
    return engine


def fails(_folder: Path, _device: str) -> Stylises:
    """An exported model that can't be opened."""
    raise CheckpointError("no model")
