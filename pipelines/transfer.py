"""A driving video in two passes: its keypoints, all of them; then frames, some at a time.

Keypoints of a frame take 0.4 KB, so those of a long video fit in memory where its frames do not. With all of them at
hand, the reference frame can be the best of the whole video, smoothing looks ahead, and further sources cost no further
detection.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.errors import SourceError, must
from pipelines.engines import Engine, no_avd
from pipelines.framing import Video
from pipelines.progress import bar
from pipelines.served.motion import Motion, best_frame, joined, smooth, transfer
from pipelines.strips import as_bytes

Mode = Literal["relative", "absolute", "avd"]
RENDER_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Driving:
    """A driving video whose keypoints are known."""

    video: Video
    motion: Motion
    """Of all frames, smoothed."""
    seconds: float
    """Time that the pass took."""
    detect_s: float
    """Of it, the networks' share."""

    @property
    def num_frames(self) -> int:
        """As decoded."""
        return len(self.motion.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some frames on end of an animation."""

    start: int
    driving: np.ndarray | None
    """uint8, (n, S, S, 3), if they were asked for."""
    result: np.ndarray
    """uint8, (n, S, S, 3)."""
    render_s: float


def look_over(engine: Engine, video: Video, *, smoothing: float) -> Driving:
    """The first pass: the keypoints of every frame.

    Args:
        engine: finds keypoints.
        video: decoded once, some frames at a time.
        smoothing: see `pipelines.served.motion.smooth`.

    Raises:
        SourceError: the video can't be used.
    """
    found, started_s, detect_s = [], time.perf_counter(), 0.0
    batches = -(-video.num_frames // RENDER_AT_ONCE)
    for batch in bar(video.batches(), label="finding keypoints", total=batches):
        before_s = time.perf_counter()
        found.append(engine.keypoints(batch))
        detect_s += time.perf_counter() - before_s
    if not found:
        raise SourceError(must(str(video.path), "hold a frame", "none"))
    motion = smooth(joined(found), smoothing)
    return Driving(video=video, motion=motion, seconds=time.perf_counter() - started_s, detect_s=detect_s)


def check_mode(engine: Engine, mode: Mode) -> None:
    """Refuse what the model can't do.

    Raises:
        ParamsError: mode ``avd``, and the model has no AVD network.
    """
    if mode == "avd" and not engine.has_avd:
        raise no_avd()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How a driving video moves a picture."""

    picture: np.ndarray
    """uint8, (S, S, 3)."""
    start: Motion
    """The picture's keypoints."""
    reference: int
    """Position of the driving frame that counts as the picture's pose; 0 where none is needed."""
    mode: Mode
    adapt_scale: bool

    def goal(self, engine: Engine, driving: Driving, start: int, stop: int) -> Motion:
        """Where the picture's keypoints go in the frames from ``start`` to before ``stop``."""
        part = driving.motion.part(start, stop)
        if self.mode == "avd":
            return engine.disentangle(self.picture, part)
        reference = driving.motion.take(self.reference)
        return transfer(self.start, part, reference, relative=self.mode == "relative", adapt_scale=self.adapt_scale)


def prepare(
    engine: Engine, picture: np.ndarray, driving: Driving, *, mode: Mode, adapt_scale: bool, find_best_frame: bool
) -> Transfer:
    """Find a picture's keypoints, and the reference frame for relative motion.

    Args:
        engine: finds keypoints.
        picture: uint8, (S, S, 3).
        driving: the video.
        mode: what of the driving keypoints is taken; see `pipelines.served.motion`.
        adapt_scale: scale relative movement by the ratio of the keypoints' convex hulls.
        find_best_frame: the reference is the frame whose pose is nearest the picture's; else the first.

    """
    start = engine.keypoints(picture[None])
    reference = best_frame(start, driving.motion) if mode == "relative" and find_best_frame else 0
    return Transfer(picture=picture, start=start, reference=reference, mode=mode, adapt_scale=adapt_scale)


def render(engine: Engine, plan: Transfer, driving: Driving, *, with_driving: bool) -> Iterator[Part]:
    """The second pass: frame after frame of the animation, at most `RENDER_AT_ONCE` in a part.

    Args:
        engine: renders.
        plan: what to move, and how.
        driving: the video.
        with_driving: decode the driving frames again, to show them beside the result.
    """
    total = -(-driving.num_frames // RENDER_AT_ONCE)
    for start, frames, count in bar(_chunks(driving, with_driving), label="rendering", total=total):
        before_s = time.perf_counter()
        result = as_bytes(engine.render(plan.picture, plan.goal(engine, driving, start, start + count)))
        yield Part(start=start, driving=frames, result=result, render_s=time.perf_counter() - before_s)


def _chunks(driving: Driving, with_driving: bool) -> Iterator[tuple[int, np.ndarray | None, int]]:
    """First frame, driving frames and number of frames of each part."""
    if not with_driving:
        for start in range(0, driving.num_frames, RENDER_AT_ONCE):
            yield start, None, min(RENDER_AT_ONCE, driving.num_frames - start)
        return
    start = 0
    for batch in driving.video.batches():
        frames = batch[: driving.num_frames - start]
        if len(frames):
            yield start, frames, len(frames)
        start += len(frames)
