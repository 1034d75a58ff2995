"""A video in, its drawing out: decoded, drawn and written a few frames at a time, with the video's sound."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.errors import ParamsError, Problem
from pipelines.progress import bar
from pipelines.sinks import Write, writing
from pipelines.strips import spread
from pipelines.stylise_models import StyleEngine
from pipelines.stylise_photo import shown, whole
from pipelines.stylise_temporal import Comparison, Steadier
from preprocessing.video import DEFAULT_LIMITS, VideoInfo, open_video, write_gif, write_video

SUFFIXES = (".mp4", ".gif", ".webp")
COMPARED_FRAMES = 24
"""Of a steady video that are also drawn each alone, to tell what steadiness gains and costs."""
STILLS = 4
_AT_ONCE_PIXELS, _MOST_AT_ONCE = 1 << 18, 16
"""Pixels and frames that the networks are given together."""
_RAW_BYTES = 1 << 30
"""Of the frames of a GIF or WebP, which are all in memory while it is written."""
_WEBP_QUALITY = 85
_LIMITS = replace(DEFAULT_LIMITS, timeout_s=7 * 86_400.0)
"""Of the source: its time runs while the networks work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was made of a video."""

    num_frames: int
    fps: float
    has_audio: bool
    draw_s: float
    """The networks' share of the time, and that of the steadiness."""
    comparison: Comparison | None
    """Of the first frames of a steady video."""
    stills: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(photo, drawing), uint8 (H, W, 3), of some frames over the video."""


def stylise_video(
    engine: StyleEngine,
    source: Path,
    outs: Sequence[Path],
    *,
    strength: float = 1.0,
    temporal: bool = False,
    tile_px: int | None = None,
    max_frames: int | None = None,
) -> Drawn:
    """Draw a video's frames into files, in memory that does not grow with its length.

    Args:
        engine: makes the drawings.
        source: a video or GIF.
        outs: what to write, each ``.mp4`` (keeps the sound), ``.gif`` or ``.webp``; whole or not at all.
        strength: 0 the photo, 1 the drawing.
        temporal: keep the drawings steady; see `pipelines.stylise_temporal`.
        tile_px: see the engine.
        max_frames: stop after so many; None: all.

    Raises:
        ParamsError: the video is too long for a GIF or WebP.
        SourceError: the video can't be decoded to its end.
        EnvironmentProblem: an output can't be written.
    """
    with open_video(source, limits=_LIMITS) as reader:
        info = reader.info
        num_frames = info.num_frames if max_frames is None else min(info.num_frames, max_frames)
        check_fits(outs, info, num_frames)
        at_once = max(1, min(_MOST_AT_ONCE, _AT_ONCE_PIXELS // (info.width * info.height)))
        draw = (_Steady if temporal else _Alone)(engine, strength=strength, tile_px=tile_px)
        audio = source if info.has_audio and any(out.suffix.lower() == ".mp4" for out in outs) else None
        keeper, count = _Stills(num_frames), 0
        batches = bar(_first(reader.batches(at_once), num_frames), label="drawing", total=-(-num_frames // at_once))
        with writing([(out, _writer_of(out, fps=info.fps, audio_from=audio)) for out in outs]) as put:
            for photos in batches:
                drawings = draw.step(photos)
                put(drawings)
                keeper.keep(count, photos, drawings)
                count += len(drawings)
    return Drawn(
        num_frames=count,
        fps=info.fps,
        has_audio=audio is not None,
        draw_s=draw.seconds,
        comparison=draw.comparison,
        stills=tuple(keeper.kept),
    )


def check_fits(outs: Sequence[Path], info: VideoInfo, num_frames: int) -> None:
    """Refuse GIFs and WebPs that would fill the memory.

    Raises:
        ParamsError: the raw frames of one take more than 1 GiB.
    """
    most = _RAW_BYTES // (info.width * info.height * 4)
    rule = f"be an mp4 or take max_frames: of {info.width}x{info.height} it holds at most {most} of {num_frames} frames"
    too_long = [out for out in outs if out.suffix.lower() != ".mp4" and num_frames > most]
    if too_long:
        raise ParamsError([Problem("out", str(out), rule) for out in too_long])


class _Alone:
    """Draws each frame for itself."""

    comparison: Comparison | None = None

    def __init__(self, engine: StyleEngine, *, strength: float, tile_px: int | None) -> None:
        self._engine, self._strength, self._tile_px = engine, strength, tile_px
        self.seconds = 0.0

    def step(self, photos: np.ndarray) -> np.ndarray:
        """Photos, uint8 (n, H, W, 3), as drawings, likewise."""
        before_s = time.perf_counter()
        made = shown(self._engine.stylise(photos, strength=self._strength, tile_px=self._tile_px))
        self.seconds += time.perf_counter() - before_s
        return made


class _Steady:
    """Draws frames one after another, and the first ones also for themselves."""

    def __init__(self, engine: StyleEngine, *, strength: float, tile_px: int | None) -> None:
        self._steadier = Steadier(engine, strength=strength, tile_px=tile_px)
        self.comparison: Comparison | None = Comparison(engine, strength=strength, tile_px=tile_px)
        self.seconds = 0.0

    def step(self, photos: np.ndarray) -> np.ndarray:
        """Photos, uint8 (n, H, W, 3), as drawings, likewise."""
        return np.stack([self._one(photo) for photo in photos])

    def _one(self, photo: np.ndarray) -> np.ndarray:
        before_s = time.perf_counter()
        made = self._steadier.step(photo)
        self.seconds += time.perf_counter() - before_s
        if self.comparison is not None and self.comparison.num_frames < COMPARED_FRAMES:
            self.comparison.add(photo, made, self._steadier.movement)
        return shown(made)


class _Stills:
    """Keeps a few frames, spread over a video of ``num_frames``."""

    def __init__(self, num_frames: int) -> None:
        self._places = set(spread(num_frames, STILLS))
        self.kept: list[tuple[np.ndarray, np.ndarray]] = []

    def keep(self, start: int, photos: np.ndarray, drawings: np.ndarray) -> None:
        for place, pair in enumerate(zip(photos, drawings, strict=True), start=start):
            if place in self._places:
                self.kept.append((pair[0].copy(), pair[1].copy()))


def _first(batches: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """So many frames; what else the file holds is left, and so is any fault in it."""
    left = count
    for batch in batches:
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def _writer_of(out: Path, *, fps: float, audio_from: Path | None) -> Write:
    def write(path: Path, frames: Iterator[np.ndarray]) -> None:
        suffix = out.suffix.lower()
        if suffix == ".gif":
            write_gif(path, frames, fps=fps)
        elif suffix == ".webp":
            write_webp(path, frames, fps=fps)
        else:
            write_video(path, frames, fps=fps, audio_from=audio_from)

    return write


def write_webp(path: Path, frames: Iterable[np.ndarray], *, fps: float) -> None:
    """Write a WebP that plays for ever, whole or not at all; its frames are held in memory until they are all there.

    Args:
        path: the file.
        frames: batches, uint8 RGB (n, H, W, 3), one frame at least.
        fps: frames per second.
    """
    images = [Image.fromarray(frame) for batch in frames for frame in batch]
    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0, "quality": _WEBP_QUALITY}
    with whole(path) as part:
        images[0].save(part, format="WEBP", save_all=True, append_images=images[1:], **options)
