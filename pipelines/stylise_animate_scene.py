"""What `pipelines.stylise_animate` looks over before it makes anything: the photo with its faces, and the video."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from models.errors import ParamsError, Problem, SourceError, must
from pipelines import framing, transfer
from pipelines.animate import SUFFIXES, check_outputs
from pipelines.animate_show import check_gifs
from pipelines.engines import Engine
from pipelines.framing import Video
from pipelines.palette_gif import check_length
from pipelines.paste_back import Paster
from pipelines.photo_faces import PhotoFace, choose, face_at, find_faces
from pipelines.stylise_animate_types import Found, Stage, StyliseAnimateOptions, Watch
from pipelines.stylise_photo import read_photo
from pipelines.stylist import Stylist, check_style

EYES = threading.Lock()
"""Held by whoever looks for faces: the detectors crash when two threads look at once."""
_KEYPOINTS_AT_ONCE = 8
_ENDING = f"end in {' or '.join(SUFFIXES)}"
_BLURRY = 1.5
"""A face is called enlarged from this factor on."""
_MIRRORED = 0.25
"""What is told of a square that leaves the photo by more, as a share of its side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
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
    found: Found | None
    """The photo's faces, where they are known."""
    times_s: dict[str, float] = field(default_factory=dict)

    @property
    def outs(self) -> tuple[Path, ...]:
        """Files of the same frames."""
        return (self.out, *(self.out.with_suffix(suffix) for suffix in self.options.also))

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count the block's time."""
        before_s = time.perf_counter()
        yield
        self.times_s[stage] = round(time.perf_counter() - before_s, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything read and looked over, before anything is made."""

    picture: np.ndarray
    """The photo, uint8 (H, W, 3)."""
    found: tuple[PhotoFace, ...]
    faces: tuple[PhotoFace, ...]
    """Those that are taken."""
    video: Video
    files: tuple[tuple[Path, ...], ...]
    """Of each face, or of the one photo that all are pasted into: files of the same frames."""
    paster: Paster | None

    @property
    def outs(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for same in self.files for path in same)


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


def check(job: Job) -> None:
    """Refuse what can be seen to be wrong at once, without touching anything."""
    options, outs = job.options, job.outs
    check_style(job.stylist, job.style)
    transfer.check_mode(job.engine, options.motion.mode)
    problems = []
    if options.shown != "style" and not job.stylist.has_structure:
        problems.append(Problem("shown", options.shown, f"be style with {job.stylist.name}, which makes no other"))
    allowed, rule = ((".gif",), "end in .gif for an emoji") if options.emoji else (SUFFIXES, _ENDING)
    problems += [Problem("out", str(out), rule) for out in outs if out.suffix.lower() not in allowed]
    if len({out.suffix.lower() for out in outs}) < len(outs):
        problems.append(Problem("also", options.also, f"name each suffix once, and not that of {job.out.name}"))
    if problems:
        raise ParamsError(problems)
    if job.out.parent.is_dir():
        check_outputs(outs, inputs=(job.photo, job.driving))


def looked_at(job: Job) -> Scene:
    """The photo with its faces, and the video with its face."""
    options, engine = job.options, job.engine
    job.watch.step("faces", 0, 2)
    picture = job.found.picture if job.found else read_photo(job.photo).frame
    found, faces = _faces(job, picture)
    job.watch.step("faces", 1, 2)
    video = _video(job)
    is_one = options.paste_back or len(faces) == 1
    files = (job.outs,) if is_one else tuple(tuple(_named(out, face) for out in job.outs) for face in faces)
    outs = [path for same in files for path in same]
    squares = [face.square for face in faces]
    paster = Paster(picture, squares, max_px=options.max_px) if options.paste_back else None
    if options.emoji is not None:
        check_length(options.emoji, num_frames=video.num_frames, fps=video.fps)
    else:
        height, width = paster.photo.shape[:2] if paster else (engine.size_px, engine.size_px)
        check_gifs(outs, num_frames=video.num_frames, shape=(height, width))
    if job.out.parent.is_dir():
        check_outputs(outs, inputs=(job.photo, job.driving))
    return Scene(picture=picture, found=found, faces=faces, video=video, files=files, paster=paster)


def _faces(job: Job, picture: np.ndarray) -> tuple[tuple[PhotoFace, ...], tuple[PhotoFace, ...]]:
    """The faces in the photo, and those that are taken."""
    where, options = job.photo.name, job.options
    with EYES:
        if options.box is not None:
            return (), (face_at(picture, options.box, where=where),)
        found = job.found.faces if job.found else find_faces(picture)
    return found, choose(found, options.face, where=where, size=(picture.shape[1], picture.shape[0]))


def _video(job: Job) -> _Watched:
    """The driving video, cut to its face.

    Raises:
        SourceError: it shows none.
    """
    size_px, max_frames = job.engine.size_px, job.options.motion.max_frames
    with EYES:
        video = framing.frame_video(job.driving, size_px=size_px, crop=True, max_frames=max_frames)
    if video.framing != "face":
        fix = "Use a video of a face from the front"
        raise SourceError(must(str(job.driving), "show a face to move by", "none in the frames looked at", fix))
    return _Watched(**{part.name: getattr(video, part.name) for part in fields(video)}, watch=job.watch)


def _named(out: Path, face: PhotoFace) -> Path:
    return out.with_name(f"{out.stem}-{face.number}{out.suffix}")


def notes(job: Job, scene: Scene, num_bytes: Sequence[int]) -> Iterable[str]:
    """What the reader should know, a sentence each; ``num_bytes`` of the outputs."""
    most_kb = job.options.emoji.max_kb if job.options.emoji else None
    if most_kb is not None and max(num_bytes) > 1000 * most_kb:
        yield f"The emoji is larger than the {most_kb} kB asked for; take fewer frames (max_frames)."
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
