"""Moves pictures with a video: keypoints of both, the motion transferred, frames rendered and written as they come."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import EnvironmentProblem, ParamsError, Problem, check, must
from pipelines import framing, registry, transfer
from pipelines.animate_show import Keeper, Shower, check_gifs, writer_of
from pipelines.engines import Device, Engine, from_checkpoint, from_version
from pipelines.framing import Picture
from pipelines.params import AnimationConfig, Params
from pipelines.sinks import writing
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from pipelines.transfer import Driving, Mode

logger = logging.getLogger(__name__)

SUFFIXES = (".gif", ".mp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateOptions:
    """How a picture is moved and shown."""

    mode: Mode = "relative"
    """``relative``: the driving video's movement since its reference frame; ``absolute``: its keypoints as they are;
    ``avd``: the source's shape in the driving pose, of models with an AVD network."""
    adapt_scale: bool = False
    """Relative motion scaled by the ratio of the keypoints' convex hulls; regions always are."""
    find_best_frame: bool = True
    """Reference frame of relative motion: the one whose pose is nearest the source's; false: the first."""
    smoothing: float = 0.0
    """Standard deviation, in frames, of a Gaussian over the driving keypoints in time; 0: none."""
    crop: bool = True
    """Cut the face out of picture and video; where none is found the middle is taken."""
    max_frames: int | None = None
    side_by_side: bool = False
    """Show source, driving frame and result beside each other, each at least `animate_show.SHOWN_PX` wide."""
    keep_audio: bool = True
    """An mp4 keeps the driving video's sound."""

    def __post_init__(self) -> None:
        check(smoothing_rule(self.smoothing))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateReport:
    """What was made of what; also ``reports/animate/<name>.json`` of the stage."""

    source: str
    driving: str
    outputs: tuple[str, ...]
    model: str
    """Where the networks came from: a model version or a checkpoint."""
    motion: Mode
    adapt_scale: bool
    smoothing: float
    reference_frame: int
    """Position of the driving frame that counts as the source's pose; 0 unless motion is relative."""
    framing_source: framing.Framing
    """``face``, or ``centre`` when no face was looked for or found."""
    framing_driving: framing.Framing
    num_frames: int
    fps: float
    size_px: int
    has_audio: bool
    seconds: float
    rendered_frames_per_s: float
    """Frames over the networks' time, keypoints included."""
    note: str
    """What the reader should know, as a face that was not found; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Everything read and looked over, before a frame is rendered."""

    pictures: tuple[Picture, ...]
    driving: Driving
    options: AnimateOptions


def run(name: str, params: Params, paths: Paths) -> AnimateReport:
    """Make one animation of params.yaml with the experiment's registered model: GIF, mp4, WebP and a strip of pictures.

    Raises:
        ParamsError: the animation is unknown, or its model has no AVD network for mode ``avd``.
        SourceError: its picture or video can't be used.
        TrackingError: the experiment has no registered model, or the registry is away.
    """
    config, target = params.animation(name), paths.report("animate", name)
    source, driving = paths.root / config.source, paths.root / config.driving
    with only_writer(target):
        model, engine = registered(config.experiment, params, paths)
        with fresh_folder(paths.pictures("animate", name)) as making:
            outs = [making / f"{name}{suffix}" for suffix in SUFFIXES]
            opened = open_all(engine, [source], driving, outs, options=stage_options(config))
            keeper = Keeper(opened.pictures[0].frame, opened.driving.num_frames)
            report = _make(engine, opened, 0, outs, keeper=keeper)
            keeper.write_strip(making / "strip.png")
            keeper.write_webp(making / f"{name}.webp", fps=report.fps)
        outputs = tuple(f"reports/animate/{name}/{out.name}" for out in outs)
        report = replace(report, source=config.source, driving=config.driving, outputs=outputs, model=model)
        write_report(target, report)
    return report


def animate(
    engine: Engine, sources: Sequence[Path], driving: Path, out: Path, *, options: AnimateOptions, model: str = ""
) -> list[AnimateReport]:
    """Move pictures with a video and write what comes out, in memory that does not grow with the video.

    The driving keypoints are found once, and each source is encoded once.

    Args:
        engine: of a model version (`MotionSession`) or a checkpoint (`pipelines.engines.TorchSession`).
        sources: pictures of any size, or videos whose first frame is taken.
        driving: a video, GIF or picture of any size.
        out: the file to write, ``.gif`` or ``.mp4``; each appears whole or not at all. Of several sources see `named`.
        options: how to move and show them.
        model: named in the reports.

    Returns:
        A report for each source.

    Raises:
        ParamsError: an output of another kind, too long for a GIF, or also an input; a mode that the model can't do.
        SourceError: a picture or the video can't be used; existing outputs stay as they are.
        EnvironmentProblem: the output's folder can't be written.
    """
    outs = named(out, sources)
    check_outputs(outs, inputs=(*sources, driving))
    opened = open_all(engine, sources, driving, outs, options=options)
    reports = [_make(engine, opened, place, [target]) for place, target in enumerate(outs)]
    pairs = zip(reports, sources, strict=True)
    return [replace(report, source=str(source), driving=str(driving), model=model) for report, source in pairs]


def named(out: Path, sources: Sequence[Path]) -> list[Path]:
    """``out`` itself for one source; for several ``OUT-SOURCE.SUFFIX``, equal names told apart by numbers."""
    if len(sources) == 1:
        return [out]
    made: list[Path] = []
    for source in sources:
        numbers = ("" if number == 1 else f"-{number}" for number in itertools.count(1))
        names = (out.with_name(f"{out.stem}-{source.stem}{number}{out.suffix}") for number in numbers)
        made.append(next(name for name in names if name not in made))
    return made


def open_all(
    engine: Engine, sources: Sequence[Path], driving: Path, outs: Sequence[Path], *, options: AnimateOptions
) -> Opened:
    """Read the pictures and take the first pass over the driving video; whatever is wrong with them is found here.

    Args:
        engine: finds keypoints.
        sources: pictures.
        driving: the video.
        outs: the files to be written.
        options: how to move and show them.

    Raises:
        ParamsError: the video is too long for a GIF, or the model has no AVD network for mode ``avd``.
        SourceError: a picture or the video can't be used.
    """
    transfer.check_mode(engine, options.mode)
    pictures = tuple(framing.frame_picture(path, size_px=engine.size_px, crop=options.crop) for path in sources)
    video = framing.frame_video(driving, size_px=engine.size_px, crop=options.crop, max_frames=options.max_frames)
    shape = Shower(pictures[0].frame, is_wide=options.side_by_side).shape
    check_gifs(outs, num_frames=video.num_frames, shape=shape)
    seen = transfer.look_over(engine, video, smoothing=options.smoothing)
    return Opened(pictures=pictures, driving=seen, options=options)


def _make(
    engine: Engine, opened: Opened, place: int, outs: Sequence[Path], *, keeper: Keeper | None = None
) -> AnimateReport:
    """Render one picture's animation into files; ``keeper`` sees everything that is shown."""
    picture, driving, options = opened.pictures[place], opened.driving, opened.options
    video, started_s, render_s = driving.video, time.perf_counter(), 0.0
    plan = transfer.prepare(
        engine,
        picture.frame,
        driving,
        mode=options.mode,
        adapt_scale=options.adapt_scale,
        find_best_frame=options.find_best_frame,
    )
    shower = Shower(picture.frame, is_wide=options.side_by_side)
    audio = video.path if options.keep_audio and video.has_audio else None
    parts = transfer.render(engine, plan, driving, with_driving=options.side_by_side or keeper is not None)
    with writing([(out, writer_of(out, fps=video.fps, audio_from=audio)) for out in outs]) as put:
        for part in parts:
            shown = shower.show(part)
            put(shown)
            render_s += part.render_s
            if keeper is not None:
                keeper.keep(part, shown)
    report = AnimateReport(
        source="",
        driving="",
        outputs=tuple(map(str, outs)),
        model="",
        motion=options.mode,
        adapt_scale=options.adapt_scale,
        smoothing=options.smoothing,
        reference_frame=plan.reference,
        framing_source=picture.framing,
        framing_driving=video.framing,
        num_frames=driving.num_frames,
        fps=video.fps,
        size_px=engine.size_px,
        has_audio=audio is not None and any(out.suffix.lower() == ".mp4" for out in outs),
        seconds=round(driving.seconds + time.perf_counter() - started_s, 3),
        rendered_frames_per_s=round(driving.num_frames / max(render_s + driving.detect_s, 1e-9), 2),
        note=" ".join(_notes(picture, driving, options)),
    )
    logger.info("%d frames in %.1f s: %s", report.num_frames, report.seconds, ", ".join(out.name for out in outs))
    return report


def _notes(picture: Picture, driving: Driving, options: AnimateOptions) -> Iterable[str]:
    framings = {"source": picture.framing, "driving video": driving.video.framing}
    missed = [name for name, found in framings.items() if options.crop and found != "face"]
    if missed:
        yield f"No face was found in the {' and the '.join(missed)}; the middle was taken."
    if driving.num_frames == 1 and options.mode == "relative":
        yield "The driving video has one frame, so there is no movement to transfer; try mode absolute."


def smoothing_rule(width: float) -> tuple[bool, str, float, str]:
    """The rule of `AnimateOptions.smoothing`, for `models.errors.check`."""
    return 0 <= width <= 100, "smoothing", width, "lie in 0 to 100 frames"


def stage_options(config: AnimationConfig) -> AnimateOptions:
    """The options of a stage: those of params.yaml, shown side by side."""
    return AnimateOptions(
        mode=config.mode,
        adapt_scale=config.adapt_scale,
        find_best_frame=config.find_best_frame,
        smoothing=config.smoothing,
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
    return str(checkpoint), from_checkpoint(checkpoint, device=device, fold=True)[0]
