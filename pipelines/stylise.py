"""Makes drawings of a photo, a folder of photos or a video, by a model of the style family."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import check
from pipelines import stylise_photo, stylise_video
from pipelines.params import ClusterConfig, Params
from pipelines.processes import term_as_exit
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from pipelines.stylise_folder import REPORT_NAME, FolderReport, Job, stylise_folder
from pipelines.stylise_models import ModelSource, StyleEngine, of_experiment, open_model
from pipelines.stylise_photo import MAX_PIXELS
from pipelines.stylise_plan import Kind, Source, look, plan
from pipelines.stylise_show import Pairs, first_pairs, write_pictures, write_strip

__all__ = [
    "FolderReport",
    "ModelSource",
    "StyliseOptions",
    "StyliseReport",
    "open_model",
    "plan",
    "run",
    "stylise",
]

logger = logging.getLogger(__name__)

LEAST_TILE_PX = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class StyliseOptions:
    """How drawings are made."""

    strength: float = 1.0
    """0 the photo, 1 the drawing, between them a blend."""
    temporal: bool = False
    """Keep the drawings of a video steady."""
    max_frames: int | None = None
    """Of a video; None: all."""
    tile_px: int | None = None
    """Side of the tiles that large pictures are drawn in; None: the engine's choice."""
    max_pixels: int = MAX_PIXELS
    """Of a photo; larger ones are refused before they are decoded. A photo takes some 12 bytes of memory a pixel."""
    num_workers: int | None = None
    """Processes that share a folder, by Ray Data; 1: this one alone; None: as many as pay."""
    overwrite: bool = False
    """Draw a folder's photos again whose drawings are there."""

    def __post_init__(self) -> None:
        frames, tile, workers = self.max_frames, self.tile_px, self.num_workers
        check(
            (0 <= self.strength <= 1, "strength", self.strength, "lie in 0 to 1"),
            (frames is None or frames >= 1, "max_frames", frames, "be 1 or more"),
            (tile is None or tile >= LEAST_TILE_PX, "tile", tile, f"be {LEAST_TILE_PX} px or more"),
            (workers is None or workers >= 1, "num_workers", workers, "be 1 or more"),
            (self.max_pixels >= 1, "max_pixels", self.max_pixels, "be 1 or more"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StyliseReport:
    """What was made of a photo or video; also ``reports/stylise/<name>.json`` of the stage."""

    source: str
    kind: Kind
    outputs: tuple[str, ...]
    model: str
    """Where the network came from: a model version or a checkpoint."""
    strength: float
    temporal: bool
    width: int
    height: int
    num_frames: int
    fps: float | None
    """None: a photo."""
    has_audio: bool
    seconds: float
    draw_s: float
    """The networks' share; of a video with what keeps it steady."""
    warping_error: float | None = None
    """Of a steady video's first ``num_compared`` frames, in [0, 1]; see `pipelines.stylise_temporal.warping_error`."""
    warping_error_by_frame: float | None = None
    """Of the same frames, drawn each for itself."""
    sharpness_share: float | None = None
    """Of the steady drawings, over that of the others; 1: nothing is lost."""
    num_compared: int = 0
    note: str = ""
    """What the reader should know; else empty."""


def run(name: str, params: Params, paths: Paths) -> StyliseReport | FolderReport:
    """Make one stylisation of params.yaml with the experiment's registered model, and pictures for the report.

    A photo becomes ``photo.png``, ``drawing.png`` and ``strip.png``, the two beside each other; a video its mp4 and
    the same of a still; a folder its drawings below ``drawings/`` and a strip of the first ones.

    Raises:
        ParamsError: the stylisation is unknown, or its model moves pictures.
        SourceError: its source can't be used.
        TrackingError: the experiment has no registered model, or the registry is away.
    """
    config, target = params.stylisation(name), paths.report("stylise", name)
    options = StyliseOptions(strength=config.strength, temporal=config.temporal, max_frames=config.max_frames)
    with only_writer(target), term_as_exit():
        source = look(paths.root / config.source)
        model = of_experiment(config.experiment, params, paths)
        folder = paths.pictures("stylise", name)
        with fresh_folder(folder) as making:
            report = _shown(name, model, source, making, options, params.cluster)
        shown = tuple(f"reports/stylise/{name}/{path.name}" for path in sorted(folder.iterdir()))
        if isinstance(report, FolderReport):
            report = replace(report, source=config.source, out=f"reports/stylise/{name}/drawings")
        else:
            report = replace(report, source=config.source, outputs=shown)
        write_report(target, report)
    return report


def stylise(
    model: ModelSource,
    source: Path,
    out: Path,
    *,
    options: StyliseOptions,
    cluster: ClusterConfig | None = None,
) -> StyliseReport | FolderReport:
    """Draw a photo, a folder of photos or a video; each output appears whole or not at all.

    Photos keep their transparency (in PNG and WebP) and colour profile; their EXIF rotation is done, other data are
    left out. GIFs of several frames are videos, unless the output is a picture; of animated WebPs, of TIFFs and the
    like the first picture is taken.

    Args:
        model: from `pipelines.stylise_models.open_model`.
        source: a photo, a folder (every picture below it), or a video.
        out: a ``.png``, ``.jpg`` or ``.webp`` for a photo; a folder for a folder; a ``.mp4``, ``.gif`` or ``.webp`` for
            a video.
        options: how.
        cluster: where Ray is, for a folder; None: the environment's, else a local one.

    Raises:
        ParamsError: an output of another kind, or that is also the input.
        SourceError: the source can't be used; existing outputs stay as they are.
        CheckpointError: the model can't be opened.
        EnvironmentProblem: the output can't be written.
    """
    seen = plan(source, out, max_pixels=options.max_pixels)
    with term_as_exit():
        if seen.kind == "folder":
            job = _job(model, source, out, options)
            return stylise_folder(
                job,
                cluster=cluster or ClusterConfig(),
                num_workers=options.num_workers,
                overwrite=options.overwrite,
            )
        engine = model.engine()
        made = _photo if seen.kind == "photo" else _video
        report, _ = made(engine, seen, [out], options)
    logger.info("%s: %.1f s", out, report.seconds)
    return replace(report, model=model.name)


def _job(model: ModelSource, source: Path, out: Path, options: StyliseOptions) -> Job:
    return Job(
        model=model,
        source=str(source.absolute()),
        out=str(out.absolute()),
        strength=options.strength,
        tile_px=options.tile_px,
        max_pixels=options.max_pixels,
    )


def _photo(
    engine: StyleEngine, source: Source, outs: Sequence[Path], options: StyliseOptions
) -> tuple[StyliseReport, Pairs]:
    started_s = time.perf_counter()
    photo = stylise_photo.read_photo(source.path, max_pixels=options.max_pixels)
    before_s = time.perf_counter()
    drawing = stylise_photo.draw(engine, photo.frame, strength=options.strength, tile_px=options.tile_px)
    draw_s = time.perf_counter() - before_s
    for out in outs:
        stylise_photo.write_drawing(out, drawing, photo)
    notes = [photo.note, "A photo has nothing to keep steady." if options.temporal else ""]
    if photo.alpha is not None and any(out.suffix.lower() in (".jpg", ".jpeg") for out in outs):
        notes.append("A jpg has no transparency: what was transparent is white.")
    report = StyliseReport(
        source=str(source.path),
        kind="photo",
        outputs=tuple(map(str, outs)),
        model="",
        strength=options.strength,
        temporal=False,
        width=photo.frame.shape[1],
        height=photo.frame.shape[0],
        num_frames=1,
        fps=None,
        has_audio=False,
        seconds=round(time.perf_counter() - started_s, 3),
        draw_s=round(draw_s, 3),
        note=" ".join(filter(None, notes)),
    )
    return report, [(photo.frame, drawing)]


def _video(
    engine: StyleEngine, source: Source, outs: Sequence[Path], options: StyliseOptions
) -> tuple[StyliseReport, Pairs]:
    assert source.info is not None, "a video's facts are known"
    started_s = time.perf_counter()
    drawn = stylise_video.stylise_video(
        engine,
        source.path,
        outs,
        strength=options.strength,
        temporal=options.temporal,
        tile_px=options.tile_px,
        max_frames=options.max_frames,
    )
    compared = drawn.comparison
    report = StyliseReport(
        source=str(source.path),
        kind="video",
        outputs=tuple(map(str, outs)),
        model="",
        strength=options.strength,
        temporal=options.temporal,
        width=source.info.width,
        height=source.info.height,
        num_frames=drawn.num_frames,
        fps=drawn.fps,
        has_audio=drawn.has_audio,
        seconds=round(time.perf_counter() - started_s, 3),
        draw_s=round(drawn.draw_s, 3),
        warping_error=compared.error if compared else None,
        warping_error_by_frame=compared.error_by_frame if compared else None,
        sharpness_share=compared.sharpness_share if compared else None,
        num_compared=compared.num_frames if compared else 0,
    )
    return report, drawn.stills


def _shown(
    name: str, model: ModelSource, source: Source, folder: Path, options: StyliseOptions, cluster: ClusterConfig
) -> StyliseReport | FolderReport:
    """Draw for a page, into a folder."""
    if source.kind == "folder":
        made = stylise_folder(_job(model, source.path, folder / "drawings", options), cluster=cluster)
        for beside in (folder / "drawings").glob(f"*{REPORT_NAME}*"):  # told in the stage's own report
            beside.unlink()
        write_strip(folder / "strip.png", first_pairs(source.path, folder / "drawings"))
        return made
    draw = _photo if source.kind == "photo" else _video
    outs = [] if source.kind == "photo" else [folder / f"{name}.mp4"]
    report, pairs = draw(model.engine(), source, outs, options)
    write_pictures(folder, pairs)
    return replace(report, model=model.name)
