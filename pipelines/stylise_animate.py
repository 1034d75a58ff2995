"""Stylises the face in a photo, and moves it with a video: the composed system.

The face is looked for in the photo, once, because detectors of faces fail on drawn ones. Its aligned square is what the
stylist draws, what the motion model moves, and what is turned back into the photo.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.errors import EnvironmentProblem, ParamsError, Problem, SourceError, must
from pipelines import framing, transfer
from pipelines.animate import SUFFIXES, check_outputs
from pipelines.animate_show import check_gifs, writer_of
from pipelines.engines import SOURCES_KEPT, Engine
from pipelines.framing import Video
from pipelines.palette_gif import write_emoji
from pipelines.paste_back import Paster
from pipelines.photo_faces import PhotoFace, choose, face_at, find_faces
from pipelines.sinks import Write, writing
from pipelines.strips import as_bytes
from pipelines.stylise_animate_types import (
    FaceReport,
    Mover,
    Seconds,
    Stage,
    Stopped,
    StyliseAnimateOptions,
    StyliseAnimateReport,
    Watch,
)
from pipelines.stylise_photo import read_photo, whole
from pipelines.stylist import Output, Stylist, check_style
from pipelines.transfer import Driving, Transfer
from preprocessing.boxes import Box
from preprocessing.video import probe

__all__ = ["Mover", "Stage", "Stopped", "StyliseAnimateOptions", "StyliseAnimateReport", "Watch", "run"]

logger = logging.getLogger(__name__)

CROP_PX = 256
"""Smallest side of the crop that a stylist without a size of its own draws."""
_AT_ONCE, _AT_ONCE_OF_MANY = 4, 16
"""Frames between two looks whether to stop; of more faces than a model remembers encodings of, each look costs more."""
_KEYPOINTS_AT_ONCE = 8
_BLURRY = 1.5
"""A face is called enlarged from this factor on."""
_MIRRORED = 0.25
"""What is told of a square that leaves the photo by more, as a share of its side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What was asked for."""

    photo: Path
    style: str
    driving: Path
    out: Path
    stylist: Stylist
    mover: str
    engine: Engine
    options: StyliseAnimateOptions
    watch: Watch
    times_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count the block's time."""
        before_s = time.perf_counter()
        yield
        self.times_s[stage] = round(time.perf_counter() - before_s, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """Everything read and looked over, before anything is made."""

    picture: np.ndarray
    """The photo, uint8 (H, W, 3)."""
    found: tuple[PhotoFace, ...]
    faces: tuple[PhotoFace, ...]
    """Those that are taken."""
    video: Video
    outs: tuple[Path, ...]
    paster: Paster | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A face, cut out and stylised."""

    number: int
    crop: np.ndarray
    made: dict[Output, np.ndarray]
    frame: np.ndarray
    """What is moved, uint8 (S, S, 3) of the motion model's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched(Video):
    """A driving video that is followed while it is decoded."""

    watch: Watch

    def batches(self) -> Iterator[np.ndarray]:
        """See `Video.batches`; fewer frames a batch."""
        done = 0
        for batch in Video.batches(self):
            for start in range(0, len(batch), _KEYPOINTS_AT_ONCE):
                self.watch.step("keypoints", done, self.num_frames)
                part = batch[start : start + _KEYPOINTS_AT_ONCE]
                yield part
                done += len(part)


def run(
    photo: Path,
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
        photo: any picture; of several in a file the first.
        style: one of the stylist's.
        driving: a video or GIF that shows a face.
        out: a ``.gif``, or an ``.mp4``, which keeps the driving video's sound. Of several faces that are not pasted
            back, ``OUT-NUMBER.SUFFIX`` for each.
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
    job = _Job(
        photo=photo,
        style=style,
        driving=driving,
        out=out,
        stylist=stylist,
        mover=mover[0],
        engine=mover[1],
        options=options or StyliseAnimateOptions(),
        watch=watch or Watch(),
    )
    _check(job)
    with job.timed("faces"):
        scene = _looked_at(job)
    with _folder(out.parent) as making:
        with job.timed("style"):
            subjects = list(_stylised(job, scene))
        with job.timed("keypoints"):
            driven = transfer.look_over(job.engine, scene.video, smoothing=job.options.motion.smoothing)
            plans = [_plan(job, subject, driven) for subject in subjects]
        made = [making / path.name for path in scene.outs]
        with job.timed("frames"):
            _write(job, scene, plans, driven, made)
        report = replace(_report(job, scene, plans, made), num_frames=driven.num_frames)
        pictures = _keep(subjects, job.options.pictures)
        for path, target in zip(made, scene.outs, strict=True):
            os.replace(path, target)
    logger.info("%d frames of %d faces: %s", report.num_frames, len(plans), ", ".join(report.outputs))
    return replace(report, pictures=pictures)


def _check(job: _Job) -> None:
    """Refuse what can be seen to be wrong at once, without touching anything."""
    options, suffix = job.options, job.out.suffix.lower()
    check_style(job.stylist, job.style)
    transfer.check_mode(job.engine, options.motion.mode)
    problems = []
    if options.shown != "style" and not job.stylist.has_structure:
        problems.append(Problem("shown", options.shown, f"be style with {job.stylist.name}, which makes no other"))
    if options.emoji is not None and suffix != ".gif":
        problems.append(Problem("out", str(job.out), "end in .gif for an emoji"))
    elif suffix not in SUFFIXES:
        problems.append(Problem("out", str(job.out), f"end in {' or '.join(SUFFIXES)}"))
    if problems:
        raise ParamsError(problems)
    if job.out.parent.is_dir():
        check_outputs([job.out], inputs=(job.photo, job.driving))


def _looked_at(job: _Job) -> _Scene:
    """The photo with its faces, and the video with its face."""
    options, engine = job.options, job.engine
    job.watch.step("faces", 0, 2)
    picture = read_photo(job.photo).frame
    found, faces = _faces(job, picture)
    job.watch.step("faces", 1, 2)
    video = _video(job)
    outs = (job.out,) if options.paste_back or len(faces) == 1 else tuple(_named(job.out, face) for face in faces)
    squares = [face.square for face in faces]
    paster = Paster(picture, squares, max_px=options.max_px) if options.paste_back else None
    if options.emoji is None:
        height, width = paster.photo.shape[:2] if paster else (engine.size_px, engine.size_px)
        check_gifs(outs, num_frames=video.num_frames, shape=(height, width))
    if job.out.parent.is_dir():
        check_outputs(outs, inputs=(job.photo, job.driving))
    return _Scene(picture=picture, found=found, faces=faces, video=video, outs=outs, paster=paster)


def _faces(job: _Job, picture: np.ndarray) -> tuple[tuple[PhotoFace, ...], tuple[PhotoFace, ...]]:
    """The faces in the photo, and those that are taken."""
    where, options = job.photo.name, job.options
    if options.box is not None:
        return (), (face_at(picture, options.box, where=where),)
    found = find_faces(picture)
    return found, choose(found, options.face, where=where, size=(picture.shape[1], picture.shape[0]))


def _video(job: _Job) -> _Watched:
    """The driving video, cut to its face.

    Raises:
        SourceError: it shows none.
    """
    size_px, max_frames = job.engine.size_px, job.options.motion.max_frames
    video = framing.frame_video(job.driving, size_px=size_px, crop=True, max_frames=max_frames)
    if video.framing != "face":
        fix = "Use a video of a face from the front"
        raise SourceError(must(str(job.driving), "show a face to move by", "none in the frames looked at", fix))
    return _Watched(**{part.name: getattr(video, part.name) for part in fields(video)}, watch=job.watch)


def _named(out: Path, face: PhotoFace) -> Path:
    return out.with_name(f"{out.stem}-{face.number}{out.suffix}")


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


def _stylised(job: _Job, scene: _Scene) -> Iterator[_Subject]:
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


def _plan(job: _Job, subject: _Subject, driven: Driving) -> Transfer:
    motion = job.options.motion
    return transfer.prepare(
        job.engine,
        subject.frame,
        driven,
        mode=motion.mode,
        adapt_scale=motion.adapt_scale,
        find_best_frame=motion.find_best_frame,
    )


def _write(job: _Job, scene: _Scene, plans: Sequence[Transfer], driven: Driving, made: Sequence[Path]) -> None:
    """Render all faces, and write them pasted into one file, or each into its own."""
    total = driven.num_frames * len(plans)
    if scene.paster is not None:
        with writing([(made[0], _writer(job, scene.video, made[0]))]) as put:
            for moved in _moved(job, plans, driven, 0, total):
                put(np.stack([scene.paster.paste(faces) for faces in zip(*moved, strict=True)]))
        return
    for first in range(0, len(plans), SOURCES_KEPT):  # each file has an encoder of its own
        some = slice(first, first + SOURCES_KEPT)
        with ExitStack() as stack:
            files = [[(path, _writer(job, scene.video, path))] for path in made[some]]
            puts = [stack.enter_context(writing(file)) for file in files]
            for moved in _moved(job, plans[some], driven, first * driven.num_frames, total):
                for put, frames in zip(puts, moved, strict=True):
                    put(frames)


def _moved(job: _Job, plans: Sequence[Transfer], driven: Driving, done: int, total: int) -> Iterator[list[np.ndarray]]:
    """Some frames of each face, uint8 (n, S, S, 3), then the next ones; ``done`` of ``total`` were made before."""
    step = _AT_ONCE if len(plans) <= SOURCES_KEPT else _AT_ONCE_OF_MANY
    for start in range(0, driven.num_frames, step):
        stop = min(start + step, driven.num_frames)
        job.watch.step("frames", done + start * len(plans), total)
        goals = [(plan.picture, plan.goal(job.engine, driven, start, stop)) for plan in plans]
        yield [as_bytes(job.engine.render(picture, goal)) for picture, goal in goals]


def _writer(job: _Job, video: Video, path: Path) -> Write:
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


def _report(job: _Job, scene: _Scene, plans: Sequence[Transfer], made: Sequence[Path]) -> StyliseAnimateReport:
    facts, options = probe(made[0]), job.options
    return StyliseAnimateReport(
        photo=str(job.photo),
        driving=str(job.driving),
        style=job.style,
        stylist=job.stylist.name,
        mover=job.mover,
        outputs=tuple(map(str, scene.outs)),
        num_bytes=tuple(path.stat().st_size for path in made),
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
        width=facts.width,
        height=facts.height,
        has_audio=facts.has_audio,
        seconds=Seconds(**job.times_s),
        note=" ".join(_notes(job, scene)),
    )


def _told(face: PhotoFace, plan: Transfer) -> FaceReport:
    return FaceReport(
        number=face.number,
        head=Box(*(round(side, 1) for side in face.head)),
        side_px=round(face.square.side),
        is_aligned=face.is_aligned,
        reference_frame=plan.reference,
    )


def _notes(job: _Job, scene: _Scene) -> Iterable[str]:
    left_out = [face for face in scene.found if face.beyond] if job.options.face == "all" else []
    if left_out:
        numbers = ", ".join(str(face.number) for face in left_out)
        yield f"Faces that the photo's border cuts were left out: {numbers}."
    if any(not face.is_aligned for face in scene.faces):
        yield "No detector sees a face in the box, so it was cut out upright."
    height, width = scene.picture.shape[:2]
    around = [(face.square.bounds(), _MIRRORED * face.square.side) for face in scene.faces]
    if any(min(box.left, box.top, width - box.right, height - box.bottom) < -most for box, most in around):
        yield "A face is near the photo's border; what is missing around it was filled in."
    if scene.paster is not None:
        times = max(square.side for square in scene.paster.squares) / job.engine.size_px
        if times > _BLURRY:
            yield f"The face was enlarged {times:.1f} times to fit into the photo, so it is less sharp than the photo."
    if scene.video.num_frames == 1 and job.options.motion.mode == "relative":
        yield "The driving video has one frame, so there is no movement to transfer; try mode absolute."
