"""Media that the user has already: a folder, with all its subfolders."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from models.contracts import Split
from models.errors import SourceError, must
from preprocessing.datasets.spec import Item
from preprocessing.video import SUFFIXES
from preprocessing.video_types import MediaError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 80


class LocalFolder:
    """All files below a folder, in order of their names, without ``README*`` and names that begin with a dot.

    A file below a folder called ``train`` or ``test`` is on that side of the official split.

    Args:
        folder: where the media are.
        dataset: named in messages.
        without: paths below the folder of lists that are no media.
    """

    def __init__(self, folder: Path, *, dataset: str, without: Sequence[str] = ()) -> None:
        self._folder, self._dataset, self._without = folder, dataset, frozenset(without)

    def items(self) -> list[Item]:
        """The files, those that can't be media or lie outside marked as such.

        Raises:
            SourceError: the folder is missing, no folder, unreadable or empty.
        """
        where = f"datasets.{self._dataset}.source"
        if not self._folder.is_dir():
            got = f"{self._folder} ({'a file' if self._folder.exists() else 'no such folder'})"
            raise SourceError(must(where, "name a folder with media", got, "Put the media there, or name their folder"))
        try:
            origins = sorted(set(self._walk()) - self._without)
        except PermissionError as error:
            raise SourceError(must(where, "be readable", str(error), "Change its permissions")) from None
        if not origins:
            raise SourceError(must(where, "hold media", f"{self._folder} (empty)", "Put the media there"))
        names = safe_names(origins)
        return [self._item(origin, names[origin]) for origin in origins]

    def _walk(self) -> list[str]:
        found = []

        def stop(error: OSError) -> None:
            raise error

        for folder, inner, files in os.walk(self._folder, onerror=stop):
            inner[:] = [name for name in inner if not name.startswith(".")]
            kept = [name for name in files if not name.startswith(".") and not name.upper().startswith("README")]
            links = [
                name for name in inner if Path(folder, name).is_symlink()
            ]  # listed, so that they are accounted for
            found += [Path(folder, name).relative_to(self._folder).as_posix() for name in kept + links]
        return found

    def _item(self, origin: str, name: str) -> Item:
        path = self._folder / origin
        return Item(
            name=name,
            origin=_printable(origin),
            path=path,
            split=official_side(origin),
            problem=self._problem(path, origin),
        )

    def _problem(self, path: Path, origin: str) -> MediaError | None:
        shown = _printable(origin)
        if path.is_symlink() and not path.resolve().is_relative_to(self._folder.resolve()):
            return MediaError(must(shown, "lie in the source folder", "a link that leads out of it"), "outside-folder")
        if not path.exists():
            return MediaError(must(shown, "exist", "a link that leads nowhere"), "missing")
        if not path.is_file():
            return MediaError(must(shown, "be a file", "something else"), "unsupported")
        if path.suffix.lower() not in SUFFIXES:
            got = path.suffix or "no suffix"
            return MediaError(must(shown, "be a video, GIF or picture", got), "unsupported")
        return None


def official_side(origin: str) -> Split | None:
    """The side of a file that lies below a folder called ``train`` or ``test``; None elsewhere."""
    found = {part.lower() for part in Path(origin).parts[:-1]} & {"train", "test"}
    return "test" if found == {"test"} else "train" if found == {"train"} else None


def safe_names(origins: Sequence[str]) -> dict[str, str]:
    """File names for data/raw by origin: harmless in any shell, path or URL, and unique also without their suffix."""
    plain = {origin: _safe(origin) for origin in origins}
    taken = Counter(Path(name).stem.lower() for name in plain.values())
    return {
        origin: name if taken[Path(name).stem.lower()] == 1 else _marked(name, origin) for origin, name in plain.items()
    }


def _safe(origin: str) -> str:
    path = Path(origin)
    stem = _UNSAFE.sub("_", "--".join([*path.parts[:-1], path.stem])).strip("._-")
    suffix = _UNSAFE.sub("", path.suffix.lower())
    if not stem or len(stem) > _LONGEST_STEM:
        return _marked((stem[:_LONGEST_STEM] or "item") + suffix, origin)
    return stem + suffix


def _marked(name: str, origin: str) -> str:
    mark = hashlib.sha256(origin.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{Path(name).stem}_{mark}{Path(name).suffix}"


def _printable(origin: str) -> str:
    """A name that is no valid Unicode, shown with its bytes escaped."""
    return origin.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
