"""What the evaluation of a stylising model does to each picture.

Pictures are stylised and looked at one by one, so what is found does not depend on who does it, or with what others.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from safetensors.numpy import save

from models.contracts import ShardClip
from models.errors import CheckpointError, ClipError, EnvironmentProblem, ShapeError, must
from pipelines.engines import Device, pick_device
from pipelines.evaluate_work import torch_threads
from pipelines.score import Network
from pipelines.strips import as_bytes
from pipelines.style_features import EFFNET, build
from training.metrics.content import content_distance, gradient_energy
from training.metrics.features import EffnetLite0, FeatureNetwork, Look
from training.shard_reader import ShardReader

logger = logging.getLogger(__name__)

Of = Literal["photos", "styles"]
Sets = Literal["made", "untouched", "style"]


class Stylises(Protocol):
    """What is judged."""

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        """Drawings of photos: uint8 (N, H, W, 3) -> float32 (N, H, W, 3) in [0, 1]."""


OpenEngine = Callable[[Path, Device], Stylises]
"""(folder of the exported model, device) -> what stylises; crosses processes, so it must be picklable."""


def open_trained(folder: Path, device: Device) -> Stylises:
    """The engine of an exported model.

    Raises:
        CheckpointError: it can't be opened.
        EnvironmentProblem: the device can't be used.
    """
    from pipelines.style_engines import from_checkpoint

    engine: Stylises = from_checkpoint(folder, device=device)[0]
    return engine


class Place(NamedTuple):
    """Where a picture lies."""

    clip: str
    position: int
    square: int = 0
    """Which of the squares that it is cut into, row by row."""
    squares: int = 1
    """Along each side."""

    def __str__(self) -> str:
        frame = f"{self.clip}:{self.position}" if self.position else self.clip
        return f"{frame}#{self.square}" if self.squares > 1 else frame

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """This square of a picture (H, W, 3)."""
        side = min(picture.shape[:2]) // self.squares
        top, left = (number * side for number in divmod(self.square, self.squares))
        return picture[top : top + side, left : left + side]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One picture to judge."""

    of: Of
    place: Place
    others: tuple[Place, ...] = ()
    """Other photos, whose distance from this one is the measure of content."""
    shown: bool = False
    """Whether photo and drawing are wanted back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs; plain values, which cross processes."""

    trained: str
    """Folder of the exported model."""
    photos: str
    """Shards, a folder or URL."""
    styles: str
    weights: str
    """Folder of pretrained files."""
    judges: Mapping[str, Network | str]
    size_px: int | None = None
    """Height and width that pictures are scaled down to before they are cut; None: they stay as they are."""
    num_threads: int
    num_workers: int | None
    device: Device = "auto"
    open_engine: OpenEngine = open_trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A drawing's own."""

    content: float
    """Mean absolute difference of its content map and its photo's."""
    content_others: float | None
    """The same of its photo and other photos, their mean; None: none of those can be read."""
    energy: float
    """`gradient_energy`."""
    photo_energy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What became of a picture."""

    of: Of
    place: Place
    figures: Figures | None = None
    """Of a photo's drawing."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``<set>/<judge>/features`` and ``.../logits``; ``photo`` and ``drawing``, uint8 (H, W, 3), if shown."""
    problem: str | None = None
    """Why there is nothing."""
    device: str = ""
    worker: str = ""
    """Of the process that did it."""

    def look(self, which: Sets, judge: str) -> Look:
        """What a judge said of it."""
        return Look(self.arrays[f"{which}/{judge}/features"], self.arrays[f"{which}/{judge}/logits"])


class Examiner:
    """Judges pictures one by one; opens the model, the shards and the judges once.

    Args:
        job: which.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine: Stylises | None = None
        self._readers: dict[Of, ShardReader] = {}
        self._judges: dict[str, FeatureNetwork] = {}
        self._last: tuple[Place, np.ndarray, np.ndarray] | None = None
        """The photo that was drawn last, and its drawing."""

    def examine(self, task: Task) -> Examined:
        """Judge a picture; what goes wrong with it is its own problem.

        Raises:
            CheckpointError: the model, or a judge's file, can't be opened.
            ClipError: the shards can't be opened.
            EnvironmentProblem: a judge, or a device, can't be used.
        """
        torch.set_flush_denormal(True)  # of this thread, whoever calls
        engine = self._opened()
        device = str(getattr(engine, "device", pick_device(self._job.device)))
        about: Any = {"of": task.of, "place": task.place, "device": device, "worker": _this_process()}
        try:
            with torch_threads(self._job.num_threads):
                figures, arrays = self._photo(engine, task) if task.of == "photos" else self._style(task)
        except Exception as error:  # one picture's failure must not end the others
            logger.debug("%s failed", task.place, exc_info=True)
            return Examined(**about, problem=" ".join(str(error).split()) or type(error).__name__)
        return Examined(**about, figures=figures, arrays=arrays)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for Ray: JSON and safetensors in and out, because Arrow has no types for ours."""
        try:
            done = self.examine(_task(json.loads(row["task"])))
        except (CheckpointError, ClipError, EnvironmentProblem) as error:
            return {"fatal": type(error).__name__, "result": str(error), "arrays": b""}
        plain = {
            "of": done.of,
            "place": done.place,
            "figures": asdict(done.figures) if done.figures else None,
            "problem": done.problem,
            "device": done.device,
            "worker": done.worker,
        }
        return {"fatal": "", "result": json.dumps(plain), "arrays": save(dict(done.arrays))}

    def _opened(self) -> Stylises:
        if self._engine is None:
            job = self._job
            self._readers = {"photos": ShardReader(job.photos), "styles": ShardReader(job.styles)}
            self._judges = build(job.judges, Path(job.weights), pick_device(job.device))
            self._engine = job.open_engine(Path(job.trained), job.device)
        return self._engine

    def _read(self, of: Of, place: Place) -> np.ndarray:
        """The picture that a place is a square of, uint8 (H, W, 3)."""
        clip = next(clip for clip in self._readers[of].clips() if clip.id == place.clip)
        picture, side = self._readers[of].frames(clip, [place.position])[0], self._job.size_px
        if side is not None and side < picture.shape[0]:
            picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        return np.asarray(picture)

    def _square(self, of: Of, place: Place) -> np.ndarray:
        return np.ascontiguousarray(place.cut(self._read(of, place)))

    def _style(self, task: Task) -> tuple[None, dict[str, np.ndarray]]:
        return None, self._looks("style", self._square("styles", task.place))[0]

    def _photo(self, engine: Stylises, task: Task) -> tuple[Figures, dict[str, np.ndarray]]:
        whole, drawn = self._drawn(engine, task.place)
        photo, drawing = (np.ascontiguousarray(task.place.cut(picture)) for picture in (whole, drawn))
        arrays, made = self._looks("made", drawing)
        more, own = self._looks("untouched", photo)
        others = [content_distance(other, own) for other in self._content_maps(task.others)]
        shown = {"photo": whole, "drawing": drawn} if task.shown else {}
        figures = Figures(
            content=content_distance(made, own),
            content_others=float(np.mean(others)) if others else None,
            energy=gradient_energy(drawing),
            photo_energy=gradient_energy(photo),
        )
        return figures, {**arrays, **more, **shown}

    def _drawn(self, engine: Stylises, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """A photo and its drawing, which is made whole; its squares come one after the other."""
        key = place._replace(square=0)
        if self._last is None or self._last[0] != key:
            photo = self._read("photos", place)
            self._last = key, photo, drawing_of(engine, photo)
        return self._last[1:]

    def _content_maps(self, places: Sequence[Place]) -> Iterator[np.ndarray]:
        """Of photos, without those that can't be read: they fail by themselves."""
        for place in places:
            with suppress(ClipError):
                yield self._embedded().look_with_content(self._square("photos", place))[1]

    def _looks(self, which: Sets, picture: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What all judges say of a picture, and its content map."""
        look, content = self._embedded().look_with_content(picture)
        looks = {EFFNET: look}
        looks |= {name: judge.look(picture) for name, judge in self._judges.items() if name != EFFNET}
        arrays = {f"{which}/{name}/{key}": value for name, one in looks.items() for key, value in one._asdict().items()}
        return arrays, content

    def _embedded(self) -> EffnetLite0:
        embedded = self._judges[EFFNET]
        assert isinstance(embedded, EffnetLite0), "the embedded judge knows content"
        return embedded


def drawing_of(engine: Stylises, photo: np.ndarray) -> np.ndarray:
    """A photo's drawing, rounded to 8 bits: uint8 (H, W, 3) -> the same.

    Raises:
        ShapeError: the engine's drawing has another shape.
        ClipError: it is not finite.
    """
    drawing = engine.stylise(photo[None])
    if drawing.shape != (1, *photo.shape):
        raise ShapeError(must("a drawing", f"have its photo's shape {photo.shape}", f"{drawing.shape[1:]}"))
    if not np.isfinite(drawing).all():
        raise ClipError(must("a drawing", "be finite", "NaN or infinity"))
    return np.asarray(as_bytes(drawing)[0])


def places_of(clips: Sequence[ShardClip], squares: int = 1) -> list[Place]:
    """Every square of every picture of some clips, in the index's order; a still is but one picture."""
    return [
        Place(clip.id, position, square, squares)
        for clip in clips
        for position in range(clip.num_frames)
        for square in range(squares**2)
    ]


def photo_tasks(places: Sequence[Place], shown: Sequence[int] = ()) -> list[Task]:
    """Tasks of photos; each is compared with the same square of the next photo and with one half the set away.

    Args:
        places: two or more.
        shown: positions of those that are drawn.
    """
    count = len(places)
    every = places[0].squares ** 2
    steps = sorted({every, max(count // 2, every)})
    return [
        Task(
            of="photos",
            place=place,
            others=tuple(places[(number + step) % count] for step in steps),
            shown=number in shown,
        )
        for number, place in enumerate(places)
    ]


def _task(raw: Mapping[str, Any]) -> Task:
    others = tuple(Place(*other) for other in raw["others"])
    return Task(of=raw["of"], place=Place(*raw["place"]), others=others, shown=raw["shown"])


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
