"""Stylises the face in a photo, and moves it with a video: the composed system.

The face is looked for in the photo, once, because detectors of faces fail on drawn ones. Its aligned square is what the
stylist draws, what the motion model moves, and what is turned back into the photo.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.errors import EnvironmentProblem, must
from pipelines import transfer
from pipelines.animate_show import writer_of
from pipelines.engines import SOURCES_KEPT
from pipelines.framing import Video
from pipelines.palette_gif import write_emoji
from pipelines.photo_faces import PhotoFace
from pipelines.sinks import Write, writing
from pipelines.strips import as_bytes
from pipelines.stylise_animate_scene import Job, Scene, check, looked_at, notes
from pipelines.stylise_animate_types import (
    FaceReport,
    Found,
    Mover,
    Seconds,
    Stage,
    Stopped,
    StyliseAnimateOptions,
    StyliseAnimateReport,
    Watch,
)
from pipelines.stylise_photo import whole
from pipelines.stylist import Output, Stylist
from pipelines.transfer import Driving, Transfer
from preprocessing.boxes import Box
from preprocessing.video import probe

__all__ = ["Found", "Mover", "Stage", "Stopped", "StyliseAnimateOptions", "StyliseAnimateReport", "Watch", "run"]

logger = logging.getLogger(__name__)

CROP_PX = 256
"""Smallest side of the crop that a stylist without a size of its own draws."""
_AT_ONCE, _AT_ONCE_OF_MANY = 4, 16
"""Frames between two looks whether to stop; of more faces than a model remembers encodings of, each look costs more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A face, cut out and stylised."""

    number: int
    crop: np.ndarray
    made: dict[Output, np.ndarray]
    frame: np.ndarray
    """What is moved, uint8 (S, S, 3) of the motion model's size."""


def run(
    photo: Path | Found,
    style: str,
    driving: Path,
    out: Path,
    *,
    stylist: Stylist,
    mover: Mover,
    options: StyliseAnimateOptions | None = None,
    watch: Watch | None = None,
) -> StyliseAnimateReport:
    """Stylise the face in a photo and move it with a video.

    Whatever is wrong with photo, style, video or output is found before a frame is made. Files appear whole, at the
    end, or not at all.

    Args:
        photo: any picture, of several in a file the first; or one whose faces are known, which nobody looks for again.
        style: one of the stylist's.
        driving: a video or GIF that shows a face.
        out: a ``.gif``, or an ``.mp4``, which keeps the driving video's sound. Of several faces that are not pasted
            back, ``OUT-NUMBER.SUFFIX`` for each. ``options.also`` adds files of the same frames.
        stylist: makes the pictures.
        mover: moves them.
        options: how.
        watch: follows the run, and may stop it.

    Raises:
        ParamsError: an unknown style or output, no face of that number, a mode that the model can't do.
        SourceError: no face, several and no choice, a face that is cut; a video without a face; unreadable media.
        EnvironmentProblem: the output can't be written, or the detectors' weights are missing.
        Stopped: the caller asked for it.
    """
    job = Job(
        photo=photo.path if isinstance(photo, Found) else photo,
        style=style,
        driving=driving,
        out=out,
        stylist=stylist,
        mover=mover[0],
        engine=mover[1],
        options=options or StyliseAnimateOptions(),
        watch=watch or Watch(),
        found=photo if isinstance(photo, Found) else None,
    )
    check(job)
    with job.timed("faces"):
        scene = looked_at(job)
    with _folder(out.parent) as making:
        with job.timed("style"):
            subjects = list(_stylised(job, scene))
        with job.timed("keypoints"):
            driven = transfer.look_over(job.engine, scene.video, smoothing=job.options.motion.smoothing)
            plans = [_plan(job, subject, driven) for subject in subjects]
        made = [[making / path.name for path in same] for same in scene.files]
        with job.timed("frames"):
            _write(job, scene, plans, driven, made)
        report = replace(_report(job, scene, plans, made), num_frames=driven.num_frames)
        pictures = _keep(subjects, job.options.pictures)
        for target in scene.outs:
            os.replace(making / target.name, target)
    logger.info("%d frames of %d faces: %s", report.num_frames, len(plans), ", ".join(report.outputs))
    return replace(report, pictures=pictures)


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A folder for unfinished files in ``parent``, which is made; nothing of both is left when the block fails."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            making = tempfile.TemporaryDirectory(dir=parent, prefix=".stylise-animate-")
        except OSError as error:
            got = error.strerror or str(error)
            raise EnvironmentProblem(must(str(parent), "be a folder that can be written", got)) from None
        with making as name:
            yield Path(name)
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def _stylised(job: Job, scene: Scene) -> Iterator[_Subject]:
    """The faces, cut out of the photo and drawn."""
    options, size_px = job.options, job.engine.size_px
    crop_px = job.stylist.size_px or max(CROP_PX, size_px)
    for place, face in enumerate(scene.faces):
        job.watch.step("style", place, len(scene.faces))
        crop = face.cut(scene.picture, size_px=crop_px)
        made = job.stylist.stylise(crop, job.style, structure=options.structure, colour=options.colour)
        yield _Subject(number=face.number, crop=crop, made=made, frame=_fitted(made[options.shown], size_px))


def _fitted(picture: np.ndarray, size_px: int) -> np.ndarray:
    if len(picture) == size_px:
        return picture
    kernel = cv2.INTER_AREA if len(picture) > size_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size_px, size_px), interpolation=kernel))


def _plan(job: Job, subject: _Subject, driven: Driving) -> Transfer:
    motion = job.options.motion
    return transfer.prepare(
        job.engine,
        subject.frame,
        driven,
        mode=motion.mode,
        adapt_scale=motion.adapt_scale,
        find_best_frame=motion.find_best_frame,
    )


def _write(job: Job, scene: Scene, plans: Sequence[Transfer], driven: Driving, made: Sequence[Sequence[Path]]) -> None:
    """Render all faces, and write them pasted into one picture, or each into its own files."""
    total = driven.num_frames * len(plans)
    files = [[(path, _writer(job, scene.video, path)) for path in same] for same in made]
    if scene.paster is not None:
        with writing(files[0]) as put:
            for moved in _moved(job, plans, driven, 0, total):
                put(np.stack([scene.paster.paste(faces) for faces in zip(*moved, strict=True)]))
        return
    for first in range(0, len(plans), SOURCES_KEPT):  # each file has an encoder of its own
        some = slice(first, first + SOURCES_KEPT)
        with ExitStack() as stack:
            puts = [stack.enter_context(writing(same)) for same in files[some]]
            for moved in _moved(job, plans[some], driven, first * driven.num_frames, total):
                for put, frames in zip(puts, moved, strict=True):
                    put(frames)


def _moved(job: Job, plans: Sequence[Transfer], driven: Driving, done: int, total: int) -> Iterator[list[np.ndarray]]:
    """Some frames of each face, uint8 (n, S, S, 3), then the next ones; ``done`` of ``total`` were made before."""
    step = _AT_ONCE if len(plans) <= SOURCES_KEPT else _AT_ONCE_OF_MANY
    for start in range(0, driven.num_frames, step):
        stop = min(start + step, driven.num_frames)
        job.watch.step("frames", done + start * len(plans), total)
        goals = [(plan.picture, plan.goal(job.engine, driven, start, stop)) for plan in plans]
        yield [as_bytes(job.engine.render(picture, goal)) for picture, goal in goals]


def _writer(job: Job, video: Video, path: Path) -> Write:
    look = job.options.emoji
    if look is None:
        audio = video.path if job.options.motion.keep_audio and video.has_audio else None
        return writer_of(path, fps=video.fps, audio_from=audio)
    return lambda target, frames: write_emoji(target, frames, fps=video.fps, look=look)


def _keep(subjects: Sequence[_Subject], folder: Path | None) -> tuple[str, ...]:
    """Write crops and stylised pictures as ``face-NUMBER-NAME.png``."""
    if folder is None:
        return ()
    kept = []
    for subject in subjects:
        for name, picture in (("crop", subject.crop), *subject.made.items()):
            path = folder / f"face-{subject.number}-{name}.png"
            with whole(path) as part:
                Image.fromarray(picture).save(part, format="PNG")
            kept.append(str(path))
    return tuple(kept)


def _report(job: Job, scene: Scene, plans: Sequence[Transfer], made: Sequence[Sequence[Path]]) -> StyliseAnimateReport:
    facts, options = [probe(path) for path in made[0]], job.options
    num_bytes = tuple(path.stat().st_size for same in made for path in same)
    return StyliseAnimateReport(
        photo=str(job.photo),
        driving=str(job.driving),
        style=job.style,
        stylist=job.stylist.name,
        mover=job.mover,
        outputs=tuple(map(str, scene.outs)),
        num_bytes=num_bytes,
        pictures=(),
        faces=tuple(_told(face, plan) for face, plan in zip(scene.faces, plans, strict=True)),
        num_found=len(scene.found),
        structure=options.structure,
        colour=options.colour,
        shown=options.shown,
        pasted=options.paste_back,
        motion=options.motion.mode,
        num_frames=scene.video.num_frames,
        fps=scene.video.fps,
        width=facts[0].width,
        height=facts[0].height,
        has_audio=any(each.has_audio for each in facts),
        seconds=Seconds(**job.times_s),
        note=" ".join(notes(job, scene, num_bytes)),
    )


def _told(face: PhotoFace, plan: Transfer) -> FaceReport:
    return FaceReport(
        number=face.number,
        head=Box(*(round(side, 1) for side in face.head)),
        side_px=round(face.square.side),
        is_aligned=face.is_aligned,
        reference_frame=plan.reference,
    )
