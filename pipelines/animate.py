"""Moves a picture with a video: keypoints of both, the motion transferred, the frames rendered and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from models.errors import EnvironmentProblem, ParamsError, Problem, must
from pipelines import framing, registry, strips
from pipelines.engines import Device, Engine, from_checkpoint, from_version
from pipelines.framing import Framed
from pipelines.params import AnimationConfig, Params
from pipelines.progress import bar
from pipelines.served.motion import Motion, best_frame, transfer
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from preprocessing.video import write_gif, write_video

logger = logging.getLogger(__name__)

SUFFIXES = (".gif", ".mp4")
RENDER_AT_ONCE = 32
SHOWN_PX = 256
"""Smallest side of a panel: what a small model makes is enlarged to it, or nobody sees anything."""
PANEL_GAP_PX = 6
STRIP_FRAMES = 6
WEBP_QUALITY = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateOptions:
    """How a picture is moved and shown."""

    relative: bool = True
    """Transfer the driving video's movement since its reference frame; false: its absolute keypoints."""
    adapt_scale: bool = False
    """Relative motion scaled by the ratio of the keypoints' convex hulls."""
    find_best_frame: bool = True
    """Reference frame: the one whose pose is nearest the source's; false: the first."""
    crop: bool = True
    """Cut the face out of picture and video; where none is found the middle is taken."""
    max_frames: int | None = None
    side_by_side: bool = False
    """Show source, driving frame and result beside each other, each at least `SHOWN_PX` wide."""
    keep_audio: bool = True
    """An mp4 keeps the driving video's sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateReport:
    """What was made of what; also ``reports/animate/<name>.json`` of the stage."""

    source: str
    driving: str
    outputs: tuple[str, ...]
    model: str
    """Where the networks came from: a model version or a checkpoint."""
    motion: Literal["relative", "absolute"]
    adapt_scale: bool
    reference_frame: int
    """Position of the driving frame that counts as the source's pose; 0 with absolute motion."""
    framing_source: framing.Framing
    """``face``, or ``centre`` when no face was looked for or found."""
    framing_driving: framing.Framing
    num_frames: int
    fps: float
    size_px: int
    has_audio: bool
    seconds: float
    rendered_frames_per_s: float
    note: str
    """What the reader should know, as a face that was not found; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Animation:
    """A picture in motion, in memory."""

    source: Framed
    driving: Framed
    result: np.ndarray
    """uint8, (N, S, S, 3)."""
    reference_frame: int
    render_s: float


def run(name: str, params: Params, paths: Paths) -> AnimateReport:
    """Make one animation of params.yaml with the experiment's registered model: GIF, mp4 and a strip of pictures.

    Raises:
        ParamsError: the animation is unknown.
        SourceError: its picture or video can't be used.
        TrackingError: the experiment has no registered model, or the registry is away.
    """
    config, target = params.animation(name), paths.report("animate", name)
    options = stage_options(config)
    source, driving = paths.root / config.source, paths.root / config.driving
    with only_writer(target):
        model, engine = registered(config.experiment, params, paths)
        with fresh_folder(paths.pictures("animate", name)) as making:
            outs = [making / f"{name}{suffix}" for suffix in SUFFIXES]
            report, made = _animate(engine, source, driving, outs, options=options, model=model)
            _write_strip(making / "strip.png", made)
            _write_webp(making / f"{name}.webp", made)
        folder = f"reports/animate/{name}"
        report = replace(
            report,
            source=config.source,
            driving=config.driving,
            outputs=tuple(f"{folder}/{out.name}" for out in outs),
        )
        write_report(target, report)
    return report


def animate(
    engine: Engine, source: Path, driving: Path, outs: Sequence[Path], *, options: AnimateOptions, model: str = ""
) -> AnimateReport:
    """Move a picture with a video and write the result.

    Args:
        engine: of a model version (`MotionSession`) or a checkpoint (`pipelines.engines.TorchSession`).
        source: a picture of any size, or a video whose first frame is taken.
        driving: a video, GIF or picture of any size.
        outs: files to write, ``.gif`` or ``.mp4``; each appears whole or not at all.
        options: how to move and show it.
        model: named in the report.

    Raises:
        ParamsError: an output of another kind, or one that is also an input.
        SourceError: the picture or the video can't be used; existing outputs stay as they are.
        EnvironmentProblem: the output's folder can't be written.
    """
    return _animate(engine, source, driving, outs, options=options, model=model)[0]


def _animate(
    engine: Engine, source: Path, driving: Path, outs: Sequence[Path], *, options: AnimateOptions, model: str
) -> tuple[AnimateReport, Animation]:
    started_s = time.perf_counter()
    check_outputs(outs, inputs=(source, driving))
    made = compute(engine, source, driving, options=options)
    for out in outs:
        _write(out, made, options, audio_from=driving)
    report = AnimateReport(
        source=str(source),
        driving=str(driving),
        outputs=tuple(map(str, outs)),
        model=model,
        motion="relative" if options.relative else "absolute",
        adapt_scale=options.adapt_scale,
        reference_frame=made.reference_frame,
        framing_source=made.source.framing,
        framing_driving=made.driving.framing,
        num_frames=len(made.result),
        fps=made.driving.fps,
        size_px=engine.size_px,
        has_audio=made.driving.has_audio and options.keep_audio and any(out.suffix.lower() == ".mp4" for out in outs),
        seconds=round(time.perf_counter() - started_s, 3),
        rendered_frames_per_s=round(len(made.result) / max(made.render_s, 1e-9), 2),
        note=_note(made, options),
    )
    logger.info("%d frames in %.1f s: %s", report.num_frames, report.seconds, ", ".join(out.name for out in outs))
    return report, made


def compute(engine: Engine, source: Path, driving: Path, *, options: AnimateOptions) -> Animation:
    """Read, frame, transfer and render, without writing anything.

    Raises:
        SourceError: the picture or the video can't be used.
    """
    picture = framing.frame_picture(source, size_px=engine.size_px, crop=options.crop)
    video = framing.frame_video(driving, size_px=engine.size_px, crop=options.crop, max_frames=options.max_frames)
    before_s = time.perf_counter()
    motion, reference = move(engine, picture.frames[0], video.frames, options=options)
    result = np.empty_like(video.frames)
    chunks = range(0, len(result), RENDER_AT_ONCE)
    for start in bar(chunks, label="rendering", total=len(chunks)):
        chosen = slice(start, start + RENDER_AT_ONCE)
        part = Motion(motion.value[chosen], motion.jacobian[chosen])
        result[chosen] = strips.as_bytes(engine.render(picture.frames[0], part))
    render_s = time.perf_counter() - before_s
    return Animation(source=picture, driving=video, result=result, reference_frame=reference, render_s=render_s)


def move(engine: Engine, source: np.ndarray, driving: np.ndarray, *, options: AnimateOptions) -> tuple[Motion, int]:
    """Keypoints that the source shall take, and the position of the reference frame.

    Args:
        engine: finds keypoints.
        source: uint8, (S, S, 3).
        driving: uint8, (N, S, S, 3).
        options: relative or absolute, and how.
    """
    start, moved = engine.keypoints(source[None]), engine.keypoints(driving)
    place = best_frame(start, moved) if options.relative and options.find_best_frame else 0
    reference = Motion(moved.value[place : place + 1], moved.jacobian[place : place + 1])
    wanted = transfer(start, moved, reference, relative=options.relative, adapt_scale=options.adapt_scale)
    return wanted, place


def stage_options(config: AnimationConfig) -> AnimateOptions:
    """The options of a stage: those of params.yaml, shown side by side."""
    return AnimateOptions(
        relative=config.relative,
        adapt_scale=config.adapt_scale,
        find_best_frame=config.find_best_frame,
        crop=config.crop,
        max_frames=config.max_frames,
        side_by_side=True,
    )


def check_outputs(outs: Sequence[Path], *, inputs: Sequence[Path] = ()) -> None:
    """Refuse what can't be written before any work is done.

    Raises:
        ParamsError: an output that is neither GIF nor mp4, is a folder, or is one of the inputs.
        EnvironmentProblem: its folder can't be made.
    """
    problems = []
    taken = {path.resolve() for path in inputs}
    for out in outs:
        if out.suffix.lower() not in SUFFIXES:
            problems.append(Problem("out", str(out), f"end in {' or '.join(SUFFIXES)}"))
        elif out.is_dir():
            problems.append(Problem("out", str(out), "name a file, not a folder"))
        elif out.resolve() in taken:
            problems.append(Problem("out", str(out), "be another file than the source and the driving video"))
    if problems:
        raise ParamsError(problems)
    for out in outs:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            got = error.strerror or str(error)
            raise EnvironmentProblem(must(str(out.parent), "be a folder that can be written", got)) from None


def panels(made: Animation) -> Iterator[np.ndarray]:
    """Source, driving frame and result beside each other, uint8 (H, W, 3) each, on white."""
    side = max(SHOWN_PX, made.result.shape[1])
    gap = np.full((side, PANEL_GAP_PX, 3), 255, dtype=np.uint8)
    source = np.asarray(strips.enlarge(made.source.frames[0], side))
    for driving, result in zip(made.driving.frames, made.result, strict=True):
        shown = (np.asarray(strips.enlarge(frame, side)) for frame in (driving, result))
        yield np.concatenate([source, gap, next(shown), gap, next(shown)], axis=1)


def _write(out: Path, made: Animation, options: AnimateOptions, *, audio_from: Path) -> None:
    frames = panels(made) if options.side_by_side else iter(made.result)
    if out.suffix.lower() == ".gif":
        write_gif(out, frames, fps=made.driving.fps)
        return
    audio = audio_from if options.keep_audio and made.driving.has_audio else None
    write_video(out, frames, fps=made.driving.fps, audio_from=audio)


def _write_strip(path: Path, made: Animation) -> None:
    places = strips.spread(len(made.result), STRIP_FRAMES)
    source = np.repeat(made.source.frames, len(places), axis=0)
    rows = {"source": source, "driving": made.driving.frames[places], "result": made.result[places]}
    strips.write_strip(path, rows, [f"frame {place}" for place in places])


def _write_webp(path: Path, made: Animation) -> None:
    """For pages: true colours at a tenth of the GIF's size."""
    frames = [Image.fromarray(frame) for frame in panels(made)]
    options: dict[str, Any] = {"duration": round(1000 / made.driving.fps), "loop": 0, "quality": WEBP_QUALITY}
    frames[0].save(path, format="WEBP", save_all=True, append_images=frames[1:], **options)


def _note(made: Animation, options: AnimateOptions) -> str:
    if not options.crop:
        return ""
    missed = [
        name for name, part in (("source", made.source), ("driving video", made.driving)) if part.framing != "face"
    ]
    return f"No face was found in the {' and the '.join(missed)}; the middle was taken." if missed else ""


def registered(experiment: str, params: Params, paths: Paths) -> tuple[str, Engine]:
    """The experiment's champion, or its candidate while there is no champion, as ``models:/NAME/VERSION``.

    Raises:
        TrackingError: it has neither, or the registry is away.
    """
    store = registry.store_of(params, paths)
    aliases = {alias for version in registry.versions_of(experiment, store) for alias in version.aliases}
    alias = registry.CHAMPION if registry.CHAMPION in aliases else registry.CANDIDATE
    return from_version(f"models:/{experiment}@{alias}", store)


def open_engine(
    params: Params | None, paths: Paths, *, model: str | None, checkpoint: Path | None, device: Device = "auto"
) -> tuple[str, Engine]:
    """What the command line names: a model version or a checkpoint, and where it came from.

    Args:
        params: of the project, for its registry; None: the environment's.
        paths: of the project.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/NAME``.
        checkpoint: a checkpoint's or exported model's folder.
        device: ``auto`` takes a GPU when there is one.

    Raises:
        ParamsError: neither or both are named.
        TrackingError: no such version, or the registry is away.
        CheckpointError: no whole checkpoint.
        EnvironmentProblem: no such device.
    """
    if (model is None) == (checkpoint is None):
        got = "neither" if model is None else "both"
        raise ParamsError([Problem("model and checkpoint", got, "be given one of the two (--model or --checkpoint)")])
    if model is not None:
        return from_version(model, registry.store_of(params, paths), device=device)
    assert checkpoint is not None, "one of the two is given"
    return str(checkpoint), from_checkpoint(checkpoint, device=device)[0]
