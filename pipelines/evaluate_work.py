"""What evaluation does to each clip, and who does it: this process, or several by Ray Data. The figures are equal.

The network's float output is compared with the decoded frames of the shards; nothing is encoded in between. Detectors
take 8-bit pictures, so for them alone the output is rounded.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models import errors
from models.contracts import Kind, ShardClip
from models.errors import CheckpointError, ClipError, EnvironmentProblem, must
from pipelines import detectors, strips
from pipelines.by_ray import by_workers
from pipelines.engines import Device, from_checkpoint
from pipelines.lookers import Looker, Seen
from pipelines.params import ClusterConfig, EvaluationConfig
from pipelines.score import Rests, Tally, VideoScore
from preprocessing.pose import WEIGHTS_VARIABLE
from training.metrics.catalog import METRICS
from training.metrics.l1 import copy_source_l1, frame_l1
from training.shard_reader import ShardReader

logger = logging.getLogger(__name__)

SMALL_PX, SMALL_EVERY = 128, 4
"""Frames below this size are a stand-in's: detectors look at every so many-th of them, unless told otherwise."""
_RAY_PAYS_S = 90.0
"""Estimated work of one process from which on starting others pays; a Ray of our own takes some 15 s."""
_FRAME_S, _LOOK_S = 0.6, 0.1
"""Rough cost of reconstructing a frame of 256 px and of looking at a frame, on one core."""


class Reconstructs(Protocol):
    """What is judged; `pipelines.engines.TorchSession` is one."""

    @property
    def size_px(self) -> int:
        """Height and width of its frames."""

    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Frames (N, S, S, 3) rebuilt from ``source`` (S, S, 3); float32 in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A few frames of one clip, to be drawn."""

    positions: tuple[int, ...]
    source: np.ndarray
    """(H, W, 3), float in [0, 1]."""
    driving: np.ndarray
    """(n, H, W, 3), float in [0, 1]."""
    result: np.ndarray

    def png(self) -> bytes:
        """As a strip."""
        rows = {
            "source": np.broadcast_to(self.source, self.driving.shape),
            "driving": self.driving,
            "result": self.result,
            "|difference|": strips.heat(self.result, self.driving),
        }
        return strips.strip_png(rows, [f"frame {position}" for position in self.positions])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs; plain values, which cross processes."""

    trained: str
    """Folder of the exported model."""
    shards: str
    """Folder or URL."""
    kind: Kind
    weights: str
    """Folder of pretrained files."""
    rests: Rests
    options: EvaluationConfig
    device: Device = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One clip to judge."""

    video: str
    columns: tuple[int, ...] = ()
    """Positions of the frames to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What became of a clip."""

    video: str
    score: VideoScore | None = None
    problem: str | None = None
    """Why there is no score."""
    strip: bytes = b""
    """PNG; empty: none was asked for."""
    device: str = ""
    worker: str = ""
    """Of the process that did it."""


class Examiner:
    """Judges clips one by one; opens the model, the shards and the detectors once.

    Args:
        job: which.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parts: tuple[Any, ShardReader, Looker | None] | None = None

    def examine(self, task: Task) -> Examined:
        """Judge a clip; what goes wrong with it is its own problem.

        Raises:
            CheckpointError: the model can't be opened.
            ClipError: the shards can't be opened.
            EnvironmentProblem: a detector, or a device, can't be used.
        """
        torch.set_flush_denormal(True)  # of this thread, whoever calls
        engine, reader, looker = self._opened()
        done = Examined(video=task.video, device=str(engine.device), worker=f"{socket.gethostname()}:{os.getpid()}")
        try:
            clip = next(clip for clip in reader.clips() if clip.id == task.video)
            score, shown = reconstruct(
                engine, reader, clip, options=self._job.options, columns=task.columns, looker=looker
            )
        except Exception as error:  # one video's failure must not end the others
            logger.debug("%s failed", task.video, exc_info=True)
            text = " ".join(str(error).split())
            return replace(done, problem=text or type(error).__name__)
        return replace(done, score=score, strip=shown.png() if shown else b"")

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for Ray: plain JSON in and out, because Arrow has no types for ours."""
        os.environ.setdefault(WEIGHTS_VARIABLE, self._job.weights)  # nodes have no checkout of their own
        task = Task(video=row["video"], columns=tuple(json.loads(row["columns"])))
        try:
            with torch_threads(self._job.options.num_threads):
                done = self.examine(task)
        except (CheckpointError, ClipError, EnvironmentProblem) as error:
            return {"fatal": type(error).__name__, "result": str(error), "strip": b""}
        plain = {**asdict(done), "strip": None}
        return {"fatal": "", "result": json.dumps(plain), "strip": done.strip}

    def _opened(self) -> tuple[Any, ShardReader, Looker | None]:
        if self._parts is None:
            job = self._job
            engine, _ = from_checkpoint(Path(job.trained), device=job.device, batch_size=job.options.batch_size)
            looker = detectors.build(job.kind, job.options, Path(job.weights), job.rests)
            self._parts = engine, ShardReader(job.shards), looker
        return self._parts


def reconstruct(
    engine: Reconstructs,
    reader: ShardReader,
    clip: ShardClip,
    *,
    options: EvaluationConfig,
    columns: Sequence[int] = (),
    looker: Looker | None = None,
) -> tuple[VideoScore, Shown | None]:
    """Reconstruct one clip from its first frame, some frames at a time, and judge it.

    Args:
        engine: what is judged.
        reader: of the shards.
        clip: which one.
        options: number of frames, and how many at once.
        columns: positions of the frames to keep for a strip.
        looker: finds points and identities; None: L1 alone.

    Raises:
        ClipError: a frame can't be read, or the model's output is not finite.
    """
    num_frames, every = num_frames_of(clip, options), look_every(options, engine.size_px)
    source = reader.frames(clip, [0])
    sums, kept = np.zeros(2, dtype=np.float64), []
    tallies, num_looked_at = dict[str, Tally](), 0
    first = looker.look(source) if looker else None
    for start in range(0, num_frames, options.batch_size):
        positions = range(start, min(start + options.batch_size, num_frames))
        frames = reader.frames(clip, positions)
        truth = frames.astype(np.float32) / 255
        result = engine.reconstruct(truth[0] if start == 0 else source[0].astype(np.float32) / 255, truth)
        l1, nothing = frame_l1(result, truth), copy_source_l1(truth, source[0].astype(np.float32) / 255)
        sums += l1.sum(dtype=np.float64), nothing.sum(dtype=np.float64)
        if not np.isfinite(sums).all():
            raise ClipError(must(f"the model's frames of {clip.id}", "be finite", f"L1 {sums[0]} by frame {start}"))
        kept += [(truth[place - start], result[place - start]) for place in columns if place in positions]
        looked = [place - start for place in positions if place % every == 0]
        if looker and first and looked:
            num_looked_at += len(looked)
            pair = looker.look(strips.as_bytes(result[looked])), looker.look(frames[looked])
            tallies = _added(tallies, tallies_of(*pair, first))
    score = VideoScore(
        video=clip.id,
        split=clip.split,
        identity=clip.identity,
        num_frames=num_frames,
        l1=float(sums[0] / num_frames),
        copy_source_l1=float(sums[1] / num_frames),
        num_looked_at=num_looked_at,
        tallies=tallies,
    )
    if not kept:
        return score, None
    driving, results = (np.stack(parts) for parts in zip(*kept, strict=True))
    shown = Shown(positions=tuple(columns), source=source[0].astype(np.float32) / 255, driving=driving, result=results)
    return score, shown


def tallies_of(result: Seen, truth: Seen, source: Seen) -> dict[str, Tally]:
    """Sums of every metric of points and identities.

    Args:
        result: what was found in N results.
        truth: what was found in their N true frames.
        source: what was found in the source, a single frame.
    """
    made = {}
    for name, metric in METRICS.items():
        if metric.of not in ("points", "identity"):
            continue
        parts = [getattr(seen, metric.of) for seen in (result, truth, source)]
        if any(part is None for part in parts):
            continue
        ours, true, still = parts
        figures = metric.compute(ours, true)
        copied = metric.compute(np.broadcast_to(still, true.shape), true)
        nobody = np.isnan(true.reshape(len(true), -1)).all(-1)
        made[name] = Tally(
            total=float(np.nansum(figures)),
            num_frames=int((~np.isnan(figures)).sum()),
            copy_total=float(np.nansum(copied)),
            copy_num_frames=int((~np.isnan(copied)).sum()),
            num_left_out=int(nobody.sum()),
            num_missed=int((~nobody & np.isnan(ours.reshape(len(ours), -1)).all(-1)).sum()),
        )
    return made


def num_frames_of(clip: ShardClip, options: EvaluationConfig) -> int:
    """How many of a clip's frames are reconstructed."""
    return clip.num_frames if options.max_frames is None else min(clip.num_frames, options.max_frames)


def look_every(options: EvaluationConfig, size_px: int) -> int:
    """Detectors look at every so many-th frame."""
    return options.detect_every or (SMALL_EVERY if size_px < SMALL_PX else 1)


def examine_all(job: Job, tasks: Sequence[Task], *, cluster: ClusterConfig, work_s: float) -> Iterator[Examined]:
    """Judge clips, here or by Ray Data; they come as they are done.

    Args:
        job: what is judged, on what.
        tasks: the clips.
        cluster: where Ray is.
        work_s: `estimate_s` of them.

    Raises:
        CheckpointError: the model can't be opened.
        ClipError: the shards can't be opened.
        EnvironmentProblem: no Ray, or a detector or device can't be used.
    """
    asked = job.options.num_workers
    if not tasks:
        return
    if asked == 1 or asked is None and (work_s < _RAY_PAYS_S or len(tasks) == 1):
        examiner = Examiner(job)
        with torch_threads(job.options.num_threads):
            yield from map(examiner.examine, tasks)
        return
    from pipelines.session import ray_session

    waiting = {task.video for task in tasks}
    with ray_session(cluster):
        for row in _on_ray(job, tasks):
            if row["fatal"]:
                raise _error(row["fatal"], row["result"])
            done = _decoded(row)
            waiting.discard(done.video)
            yield done
    for video in sorted(waiting):
        yield Examined(video=video, problem=must(video, "pass through the evaluation", "a process that died of it"))


def estimate_s(clips: Sequence[ShardClip], options: EvaluationConfig, size_px: int, *, looks: bool) -> float:
    """About how long one core takes, in seconds."""
    num_frames = sum(num_frames_of(clip, options) for clip in clips)
    looked = 2 * num_frames / look_every(options, size_px) if looks else 0.0
    return num_frames * _FRAME_S * (size_px / 256) ** 2 + looked * _LOOK_S


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch on so many threads of the CPU for the length of the block, so that sums are taken in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_ray(job: Job, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    rows = [{"video": task.video, "columns": json.dumps(task.columns)} for task in tasks]
    options, on_gpu = job.options, job.device != "cpu"
    how: dict[str, Any] = {"num_workers": options.num_workers, "num_threads": options.num_threads, "on_gpu": on_gpu}
    return by_workers(rows, Examiner, job, **how)


def _decoded(row: Mapping[str, Any]) -> Examined:
    raw = json.loads(row["result"])
    score = VideoScore.from_json(raw["score"]) if raw["score"] else None
    return Examined(**{**raw, "score": score, "strip": bytes(row["strip"])})


def _error(name: str, text: str) -> Exception:
    kind: Callable[[str], Exception] = getattr(errors, name)
    return kind(text)


def _added(sums: Mapping[str, Tally], more: Mapping[str, Tally]) -> dict[str, Tally]:
    return {name: sums.get(name, Tally()) + tally for name, tally in more.items()}
