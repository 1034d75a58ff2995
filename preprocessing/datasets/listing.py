"""From a source folder in its real layout to the items in it: what the data sets' files share.

Folders, lists and names come from outside: a link that leads out, a name that is no name and a line that is no address
become items with a problem, never a path outside the folder.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from models.contracts import Split
from models.errors import SourceError, must
from preprocessing.config import DatasetConfig
from preprocessing.datasets.local import LocalFolder, safe_names
from preprocessing.datasets.spec import Item, Listing
from preprocessing.video import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from preprocessing.video_types import MediaError

if TYPE_CHECKING:
    from preprocessing.metadata import Segment

logger = logging.getLogger(__name__)

WATCH_URL = "https://www.youtube.com/watch?v={id}"
"""The canonical address of a video id."""
MAX_LIST_BYTES = 64 << 20
MAX_LINE_CHARS = 4096
_BAD_ID = re.compile(r"[/\\\x00-\x1f\x7f\s]|^\.|^$")
_MAX_ID_CHARS = 200
_MAX_SHOWN = 20
_Value = TypeVar("_Value")


def find_base(root: Path, *names: str) -> Path:
    """The folder that holds all of ``names``: the root, or the only folder in it that does (an archive's wrapper).

    Args:
        root: the source folder.
        names: of files or folders.

    Returns:
        The root where neither holds them.
    """

    def holds(folder: Path) -> bool:
        return all((folder / name).exists() for name in names)

    if holds(root) or not root.is_dir():
        return root
    inner = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.is_symlink() and holds(entry)]
    return inner[0] if len(inner) == 1 else root


def chosen(items: Sequence[Item], config: DatasetConfig) -> tuple[Item, ...]:
    """The items that a data set takes of those offered: whose files `only` matches, of these the first `max_items`."""
    if config.only is not None:
        items = [item for item in items if fnmatch.fnmatchcase(item.origin.rsplit("/", 1)[-1], config.only)]
    return tuple(items[: config.max_items])


def printable(name: str) -> str:
    """A name as one line: bytes that are no Unicode and control characters are escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def tree_items(base: Path, parts: Sequence[str], suffixes: frozenset[str]) -> list[Item]:
    """The files below some folders of a base, in order of their names.

    ``README*``, names that begin with a dot and ``.txt``, ``.csv`` and ``.json`` files are left out. Where videos are
    asked for, a folder of pictures is one item, turned away: its frames would have to become a video first.

    Args:
        base: an item's origin is its path below it.
        parts: folders below the base; those that are missing are left out.
        suffixes: of files that are media here, in lower case with their dot.

    Raises:
        SourceError: a folder can't be read.
    """
    try:
        found = sorted({origin for part in parts for origin in _walk(base, base / part, suffixes)})
    except OSError as error:
        raise SourceError(must(str(base), "be readable", str(error), "Change its permissions")) from None
    names = safe_names(found)
    return [_file_item(base, origin, names[origin], suffixes) for origin in found]


def _walk(base: Path, top: Path, suffixes: frozenset[str]) -> Iterator[str]:
    pending = [top] if top.is_dir() else []
    while pending:
        folder = pending.pop()
        files, inner, frames = _entries(folder, suffixes)
        if frames and folder != top:
            yield folder.relative_to(base).as_posix()
            continue
        pending += inner
        yield from (path.relative_to(base).as_posix() for path in files)


def _entries(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], list[Path], bool]:
    """Files (and links to folders), real folders, and whether pictures lie here that are no media of this kind."""
    files, inner = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or entry.name.upper().startswith("README"):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(Path(entry.path))
            elif suffix in PICTURE_SUFFIXES and suffix not in suffixes:
                return [], [], True
            elif suffix not in (".txt", ".csv", ".json"):
                files.append(Path(entry.path))
    return files, inner, False


def _file_item(base: Path, origin: str, name: str, suffixes: frozenset[str]) -> Item:
    path = base / origin
    return Item(name=name, origin=printable(origin), path=path, problem=_problem(base, path, origin, suffixes))


def _problem(base: Path, path: Path, origin: str, suffixes: frozenset[str]) -> MediaError | None:
    shown = printable(origin)
    if path.is_symlink() and not path.resolve().is_relative_to(base.resolve()):
        return MediaError(must(shown, "lie in the source folder", "a link that leads out of it"), "outside-folder")
    if not path.exists():
        return MediaError(must(shown, "exist", "a link that leads nowhere"), "missing")
    if path.is_dir():
        fix = "Join its frames to an mp4 or GIF, or take the videos that they come from"
        return MediaError(must(shown, "be a video", "a folder of pictures", fix), "unsupported")
    if path.suffix.lower() not in suffixes or not path.is_file():
        kinds = "picture" if suffixes <= PICTURE_SUFFIXES else "video or GIF"
        return MediaError(must(shown, f"be a {kinds}", path.suffix or "no suffix"), "unsupported")
    return None


def located(
    base: Path, origin: str, places: Iterable[str], suffixes: frozenset[str]
) -> tuple[Path | None, MediaError | None]:
    """Where a listed file lies, the first of some places below a base, and why it can't be taken from there.

    Args:
        base: the folder that nothing may lead out of.
        origin: the file's name in messages.
        places: paths below the base.
        suffixes: of files that are media here.
    """
    found = next((base / place for place in places if os.path.lexists(base / place)), None)
    return (None, None) if found is None else (found, _problem(base, found, origin, suffixes))


def sided(items: Iterable[Item], sides: Mapping[str, Split]) -> list[Item]:
    """The items, each on the side that its first folder stands for."""
    return [replace(item, split=sides.get(item.origin.partition("/")[0])) for item in items]


@dataclass(slots=True)
class _Line:
    number: int
    text: str


def read_lines(path: Path) -> list[_Line]:
    """The lines of a list that are not empty, numbered from 1.

    Raises:
        SourceError: it is missing, unreadable or too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_LIST_BYTES:
            raise SourceError(must(str(path), f"have at most {MAX_LIST_BYTES:,} bytes", f"{size:,}"))
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        fix = "Put the data set's own list there"
        raise SourceError(must(str(path), "be readable", error.strerror or str(error), fix)) from None
    lines = (_Line(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [line for line in lines if line.text]


def bad_line(path: Path, line: int, rule: str, got: str, *, reason: str = "bad-row") -> Item:
    """An item that stands for a line of a list that can't be used.

    Args:
        path: the list.
        line: its number, from 1.
        rule: what must hold, after the word "must".
        got: the line.
        reason: ``bad-row`` or ``duplicate-row``.
    """
    where = f"{path.name} line {line}"
    error = MediaError(
        must(where, rule, printable(got[:120]), "Mend the line, or leave it"),
        "duplicate-row" if reason == "duplicate-row" else "bad-row",
    )
    return Item(name=f"{safe_names([path.stem])[path.stem]}-line-{line}", origin=f"{path.name}:{line}", problem=error)


@dataclass(slots=True)
class _Video:
    """What the rows of a CSV say of one video."""

    splits: set[Split | None] = field(default_factory=set)
    identities: set[str | None] = field(default_factory=set)


def metadata_listing(folder: Path, metadata: Path, *, address: str = WATCH_URL) -> Listing:
    """The videos that a metadata CSV names, each once, in its order.

    Rows that can't be used name no video here; the cut accounts for each of them with its number.

    A video is looked for in ``videos`` and in the folder itself, as ``<id>.<suffix>`` and as the only video in
    ``<id>/``. One that is not there is to be fetched by its id. Other files in the folder are left alone.

    Args:
        folder: the source folder.
        metadata: the CSV, as `preprocessing.metadata.read_metadata` takes it.
        address: canonical address of an id, with ``{id}``; the origin of a video that is not there.

    Raises:
        SourceError: the CSV is missing, can't be used as a whole, or has no row that can be used (with their numbers).
    """
    from preprocessing.metadata import read_metadata

    if not metadata.is_file():
        fix = "Put the CSV there, or name it in the data set's metadata"
        raise SourceError(must(str(metadata), "be a CSV that says what to cut", "no such file", fix))
    segments, bad = read_metadata(metadata)
    if not segments:
        lines = "; ".join(row.detail.rstrip(".") for row in bad[:_MAX_SHOWN])
        more = f"; and {len(bad) - _MAX_SHOWN:,} more" if len(bad) > _MAX_SHOWN else ""
        raise SourceError(must(metadata.name, "hold a row that can be used", lines + more, "Mend its rows"))
    if bad:
        logger.warning("%s: %d rows can't be used; the cut's ledger names each", metadata.name, len(bad))
    videos = _by_id(segments)
    here = _videos_here(folder)
    names = safe_names([f"{one}{here[one].suffix.lower() if one in here else '.mp4'}" for one in videos])
    items = [
        _video_item(folder, one, video, name, here.get(one), address)
        for (one, video), name in zip(videos.items(), names.values(), strict=True)
    ]
    return Listing(items=tuple(items), metadata=metadata)


def _by_id(segments: Iterable[Segment]) -> dict[str, _Video]:
    videos: dict[str, _Video] = {}
    for segment in segments:
        video = videos.setdefault(segment.video_id, _Video())
        video.splits.add(segment.split)
        video.identities.add(segment.identity)
    return videos


def _video_item(folder: Path, one: str, video: _Video, name: str, path: Path | None, address: str) -> Item:
    item = Item(
        name=name,
        origin=printable(path.relative_to(folder).as_posix()) if path else address.replace("{id}", printable(one)),
        path=path,
        video_id=one,
        identity=_only(video.identities),
        split=_only(video.splits),
    )
    if path is not None:
        return replace(item, problem=_problem(folder, path, item.origin, VIDEO_SUFFIXES))
    if _BAD_ID.search(one) or len(one) > _MAX_ID_CHARS:
        error = MediaError(
            must("video_id", "be a plain id, without slashes and spaces", printable(one[:80])), "bad-row"
        )
        return replace(item, problem=error)
    return item


def _only(values: set[_Value | None]) -> _Value | None:
    return next(iter(values)) if len(values) == 1 else None


def _videos_here(folder: Path) -> dict[str, Path]:
    """Video files by the id that their name, or their folder's, stands for; nothing is looked up by an id's text."""
    found: dict[str, Path] = {}
    for place in (folder / "videos", folder):
        if not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            if entry.suffix.lower() in VIDEO_SUFFIXES and not entry.is_dir():
                found.setdefault(entry.stem, entry)
            elif entry.is_dir() and not entry.is_symlink():
                inner = [file for file in entry.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES]
                if len(inner) == 1:
                    found.setdefault(entry.name, inner[0])
    return found


def cropped_items(base: Path) -> list[Item]:
    """Clips that the public scripts have cropped already: ``train`` and ``test`` with ``<identity>#...mp4``.

    The identity is the text before the first ``#``: the person of VoxCeleb, else the video.
    """
    items = sided(tree_items(base, ("train", "test"), VIDEO_SUFFIXES), {"train": "train", "test": "test"})
    return [replace(item, identity=_before_hash(item.origin)) for item in items]


def _before_hash(origin: str) -> str | None:
    stem = Path(origin).stem
    return stem.partition("#")[0] or None if "#" in stem else None


def videos_or_clips(root: Path, config: DatasetConfig, *, dataset: str, csv: str) -> Listing:
    """A source of videos with a metadata CSV, or of the clips that were cropped by it.

    Args:
        root: the source folder.
        config: ``cut: metadata`` wants the CSV; any other cut takes the clips in ``train`` and ``test`` where they lie.
        dataset: its name, for messages.
        csv: name of the CSV where the data set names none.

    Raises:
        SourceError: neither is there.
    """
    wanted = config.metadata or csv
    base, cropped = find_base(root, wanted), find_base(root, "train", "test")
    has_csv, has_clips = (base / wanted).is_file(), (cropped / "train").is_dir() and (cropped / "test").is_dir()
    if config.cut_rule != "metadata" and has_clips:
        return Listing(items=tuple(cropped_items(cropped)))
    if has_csv:
        found = metadata_listing(base, base / wanted)
        return found if config.cut_rule == "metadata" else replace(found, metadata=None)
    if config.cut_rule != "metadata":
        return Listing(items=tuple(LocalFolder(root, dataset=dataset).items()))
    got = f"{root} with clips in train and test" if has_clips else f"{root} without it"
    fix = "Set cut: whole for clips that are cropped already" if has_clips else "Put the CSV beside the videos"
    raise SourceError(must(f"data set {dataset}", f"hold {wanted}", got, fix))


def not_empty(items: Sequence[Item], root: Path, dataset: str, layout: str) -> tuple[Item, ...]:
    """The items, of which there is at least one.

    Args:
        items: those found.
        root: the source folder.
        dataset: its name, for messages.
        layout: what should lie there, in a few words.

    Raises:
        SourceError: there is none.
    """
    if not items:
        fix = f"`inkmotion datasets show {dataset}` prints the layout"
        raise SourceError(must(f"data set {dataset}", f"hold {layout}", f"{root} without them", fix))
    return tuple(items)
