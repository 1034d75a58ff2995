"""What is to be drawn and where to, looked over before a model is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.errors import EnvironmentProblem, ParamsError, Problem, SourceError, must
from pipelines import stylise_photo, stylise_video
from pipelines.stylise_photo import MAX_PIXELS
from preprocessing.video import VideoInfo

Kind = Literal["photo", "folder", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is to be drawn, looked over before a model is opened."""

    path: Path
    kind: Kind
    info: VideoInfo | None
    """None: a folder."""


def plan(path: Path, out: Path, *, max_pixels: int = MAX_PIXELS) -> Source:
    """Look over what is to be drawn, and refuse what can't be written, before a model is opened.

    Raises:
        ParamsError: an output of another kind, or that is also the input.
        SourceError: the source can't be used.
        EnvironmentProblem: the output's folder can't be made.
    """
    source = look(path, max_pixels=max_pixels)
    if source.kind == "folder":
        _check_folders(path, out)
    else:
        source = _fitting(source, out)
        _check_file(source, out)
    try:
        (out if source.kind == "folder" else out.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = error.strerror or str(error)
        raise EnvironmentProblem(must(str(out), "be where files can be written", got)) from None
    return source


def look(path: Path, *, max_pixels: int = MAX_PIXELS) -> Source:
    """What a path holds.

    Raises:
        SourceError: nothing that can be drawn.
    """
    if path.is_dir():
        return Source(path=path, kind="folder", info=None)
    if not path.exists():
        fix = "Name a picture, a folder of pictures, or a video"
        raise SourceError(must(str(path), "exist", "no such file or folder", fix))
    info = stylise_photo.facts_of(path, max_pixels=max_pixels)
    return Source(path=path, kind="photo" if info.num_frames == 1 else "video", info=info)


def _fitting(source: Source, out: Path) -> Source:
    """A GIF of several frames is a video, unless a picture is asked for."""
    is_gif = source.info is not None and source.info.decoder == "pillow"
    is_picture = out.suffix.lower() in stylise_photo.SUFFIXES and out.suffix.lower() not in stylise_video.SUFFIXES
    return replace(source, kind="photo") if source.kind == "video" and is_gif and is_picture else source


def _check_file(source: Source, out: Path) -> None:
    assert source.info is not None, "folders are checked elsewhere"
    suffixes = stylise_photo.SUFFIXES if source.kind == "photo" else stylise_video.SUFFIXES
    problems = []
    if out.suffix.lower() not in suffixes:
        problems.append(Problem("out", str(out), f"end in {', '.join(suffixes)} for a {source.kind}"))
    if out.is_dir():
        problems.append(Problem("out", str(out), "name a file, not a folder"))
    elif out.resolve() == source.path.resolve():
        problems.append(Problem("out", str(out), "be another file than the source"))
    if problems:
        raise ParamsError(problems)
    if source.kind == "photo":
        stylise_photo.check_fits(out, source.info)


def _check_folders(source: Path, out: Path) -> None:
    inside, target = source.resolve(), out.resolve()
    if out.exists() and not out.is_dir():
        raise ParamsError([Problem("out", str(out), "name a folder, as the source is one")])
    if target.is_relative_to(inside) or inside.is_relative_to(target):
        raise ParamsError([Problem("out", str(out), f"lie apart from the source folder {source}")])
