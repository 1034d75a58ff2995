"""The pictures below a folder, and what their drawings are called. Names and links in it are not trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.errors import SourceError, must
from pipelines.stylise_photo import SUFFIXES
from preprocessing.video import PICTURE_SUFFIXES

READ_SUFFIXES = PICTURE_SUFFIXES | {".gif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A photo of the folder."""

    name: str
    """Below the folder."""
    target: str
    """Of its drawing, below the folder of drawings."""
    problem: str = ""
    """Why it can't be read."""


def listing(folder: Path) -> tuple[list[Entry], int]:
    """The pictures below a folder by name, and how many other files there are; hidden ones are none.

    Raises:
        SourceError: there is none, or the folder can't be read.
    """
    names, num_others = [], 0
    for name in _walk(folder):
        if PurePosixPath(name).suffix.lower() in READ_SUFFIXES:
            names.append(name)
        else:
            num_others += 1
    if not names:
        got = f"{num_others} other files" if num_others else "nothing"
        fix = f"Put pictures there ({', '.join(sorted(READ_SUFFIXES))})"
        raise SourceError(must(str(folder), "hold a picture", got, fix))
    targets = _targets(sorted(names))
    return [Entry(name=name, target=targets[name], problem=_problem(folder, name)) for name in targets], num_others


def printable(name: str) -> str:
    """A name in one line, with bytes that are no Unicode and control characters escaped."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of files below a folder, without hidden ones; linked folders are not entered, but told as files."""

    def stop(error: OSError) -> None:
        raise SourceError(must(str(error.filename), "be readable", error.strerror or str(error)))

    for inside, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(inside, name).is_symlink()]
        for name in (*files, *links):
            if not name.startswith("."):
                yield Path(inside, name).relative_to(folder).as_posix()


def _problem(folder: Path, name: str) -> str:
    path, shown = folder / name, printable(name)
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return must(shown, "lie in the folder", "a link that leads out of it")
    if not path.exists():
        return must(shown, "exist", "a link that leads nowhere")
    return "" if path.is_file() else must(shown, "be a file", "something else")


def _targets(names: Sequence[str]) -> dict[str, str]:
    """The drawing's name of each photo: its own; kinds that are not written become ``.png``, beside what is taken."""
    own = {name: name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES}
    taken = {target.lower() for target in own.values()}
    for name in names:
        if name not in own:
            target = str(PurePosixPath(name).with_suffix(".png"))
            own[name] = target if target.lower() not in taken else f"{name}.png"
            taken.add(own[name].lower())
    return {name: own[name] for name in names}
