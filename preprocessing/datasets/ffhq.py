"""FFHQ: 70,000 portraits from Flickr at 1024x1024, aligned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from models.contracts import Split
from models.errors import SourceError, must
from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import find_base, located, not_empty, printable, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Item, Licence, Listing, Remote
from preprocessing.video import PICTURE_SUFFIXES
from preprocessing.video_types import MediaError, Reason

NAME, METADATA = "ffhq", "ffhq-dataset-v2.json"
IMAGES, THUMBNAILS = "images1024x1024", "thumbnails128x128"
NUM_TRAIN = 60_000
"""The first so many pictures are for training, the rest for validation (NVIDIA's page)."""
THUMBNAIL_PX = 128
_CHUNK, _MAX_ENTRY_CHARS, _MAX_ENTRIES = 1 << 20, 1 << 18, 1_000_000
_PATH = re.compile(r"(images1024x1024|thumbnails128x128)/\d{5}/\d{5}\.png")
_NUMBER = re.compile(r"\d{5,6}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NEW = "name a picture that is new"
_PAGE = "https://github.com/NVlabs/ffhq-dataset"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The pictures that the metadata name, or those in the folder where there are no metadata.

    With ``size_px`` of 128 or less the thumbnails (1.95 GB in place of 89.1) are taken.

    Args:
        root: the source folder.
        config: of the data set.

    Raises:
        SourceError: the metadata are no JSON of that form, or there is no picture.
    """
    part = THUMBNAILS if config.size_px <= THUMBNAIL_PX else IMAGES
    base = find_base(root, METADATA)
    has_metadata = (base / METADATA).is_file()
    items = list(_described(base, part)) if has_metadata else _found(find_base(root, part), part)
    return Listing(items=not_empty(items, root, NAME, f"{METADATA} or {part}/00000/00000.png"))


def _described(base: Path, part: str) -> Iterator[Item]:
    kind, seen = "thumbnail" if part == THUMBNAILS else "image", set[str]()
    for number, (key, entry) in enumerate(entries(base / METADATA)):
        item = _item(base, entry, kind)
        if isinstance(item, str):
            yield _bad_entry(
                number, key, f"hold {kind}.file_path, file_url, file_size and file_md5 of FFHQ's form", item
            )
        elif item.name in seen:
            yield _bad_entry(number, key, _NEW, item.origin)
        else:
            seen.add(item.name)
            yield item


def _bad_entry(number: int, key: str, rule: str, got: str) -> Item:
    where = f"{METADATA} entry {printable(key)[:40]}"
    reason: Reason = "duplicate-row" if rule == _NEW else "bad-row"
    error = MediaError(must(where, rule, printable(got)[:200]), reason)
    return Item(name=f"entry-{number}", origin=f"{METADATA}:{printable(key)[:40]}", problem=error)


def _item(base: Path, entry: Any, kind: str) -> Item | str:
    """An entry's picture, or what stands there in its place."""
    image = entry.get(kind) if isinstance(entry, Mapping) else None
    if not isinstance(image, Mapping):
        return f"no {kind}"
    path, url, md5 = (str(image.get(name)) for name in ("file_path", "file_url", "file_md5"))
    size = image.get("file_size")
    if not (_PATH.fullmatch(path) and _MD5.fullmatch(md5) and isinstance(size, int) and size > 0 and _is_drive(url)):
        return json.dumps({"path": path, "url": url, "size": size, "md5": md5})
    # as NVIDIA's script puts it, without the folder's name, or flat
    places = (path, path.partition("/")[2], Path(path).name)
    place, problem = located(base, path, places, PICTURE_SUFFIXES)
    return Item(
        name=Path(path).name,
        origin=path,
        path=place,
        problem=problem,
        urls=(url,),
        num_bytes=size,
        md5=md5,
        split="train" if entry.get("category") == "training" else "test",
    )


def _is_drive(url: str) -> bool:
    return len(url) < 500 and url.startswith("https://drive.google.com/") and url.isprintable()


def _found(base: Path, part: str) -> list[Item]:
    """The pictures of a folder without metadata; the side goes by the number in the name."""
    top = part if (base / part).is_dir() else "."
    items = tree_items(base, (top,), PICTURE_SUFFIXES)
    return [replace(item, split=_side(item)) for item in items]


def _side(item: Item) -> Split | None:
    stem = Path(item.origin).stem
    if _NUMBER.fullmatch(stem) is None:
        return None
    return "train" if int(stem) < NUM_TRAIN else "test"


def entries(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON object, one at a time: the memory does not grow with the file (268 MB).

    Args:
        path: the file; each entry has at most 262,144 characters, and there are at most a million.

    Raises:
        SourceError: it is no such object.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _Entries(file, path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(must(path.name, "be readable JSON", str(error)[:200], "Fetch it again")) from None


class _Entries:
    """``{"0": {...}, "1": {...}}``, read in chunks."""

    def __init__(self, file: TextIO, where: str) -> None:
        self._file, self._where, self._text, self._at = file, where, "", 0
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        if self._peek() == "}":
            return
        for _ in range(_MAX_ENTRIES):
            key = self._value()
            self._take(":")
            value = self._value()
            if not isinstance(key, str):
                raise self._wrong(repr(key)[:80])
            yield key, value
            if self._peek() == "}":
                return
            self._take(",")
        raise self._wrong(f"more than {_MAX_ENTRIES:,} entries")

    def _more(self) -> bool:
        chunk = self._file.read(_CHUNK)
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _take(self, sign: str) -> None:
        found = self._peek()
        if found != sign:
            raise self._wrong(found or "its end", f"have {sign!r} here")
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        if len(self._text) - self._at < _MAX_ENTRY_CHARS:
            self._more()
        try:
            value, end = self._decoder.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            raise self._wrong(str(error)[:120]) from None
        if end - self._at > _MAX_ENTRY_CHARS:
            raise self._wrong(f"an entry of {end - self._at:,} characters")
        self._at = end
        return value

    def _wrong(self, got: str, rule: str = "be an object of FFHQ's entries") -> SourceError:
        return SourceError(must(self._where, rule, printable(got), "Fetch it again"))


SPEC = DatasetSpec(
    name=NAME,
    title="FFHQ (Flickr-Faces-HQ)",
    kind="images",
    papers=("dualstyle: StyleGAN2 and the first stages of DualStyleGAN",),
    homepage=_PAGE,
    licence=Licence(
        name="CC BY-NC-SA 4.0 (the set); CC BY, CC BY-NC, public domain or U.S. government works (each picture)",
        url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
        allows="Use, change and pass on, not for commerce, with credit, changes told, under the same licence.",
    ),
    terms=(
        "By NVIDIA, CC BY-NC-SA 4.0: no commercial use; cite Karras, Laine, Aila, A Style-Based Generator\n"
        "Architecture for Generative Adversarial Networks, CVPR 2019. Each picture keeps its author's licence,\n"
        "which the metadata name; some ask for credit. People may have their picture removed: look whether yours\n"
        "is still in the current set."
    ),
    remotes=(
        Remote(
            name=METADATA,
            urls=("https://drive.google.com/uc?id=16N0RV4fHI6joBuKbQAoG34V_cQk7vxSA",),
            num_bytes=267_793_842,
            md5="425ae20f06a4da1d4dc0f46d40ba5fd6",
            status=(
                "Google Drive; size and md5 are those of NVIDIA's own download script. Quota and 403 errors are "
                "reported since 2020; not tried."
            ),
        ),
    ),
    form=None,
    layout="""\
ffhq/
|-- ffhq-dataset-v2.json          metadata: addresses, sizes, md5, licences (may be absent)
|-- images1024x1024/
|   |-- 00000/
|   |   |-- 00000.png
|   |   `-- ... 00999.png
|   `-- ... 69000/
`-- thumbnails128x128/            taken instead when size_px is 128 or less
    `-- 00000/00000.png ...""",
    how_to_get=(
        "`inkmotion download` fetches the metadata, then each picture from Google Drive, checked by size and md5. "
        "Drive limits how often a file may be fetched in a day (reason `quota`): stop, and go on the next day "
        "with `--retry quota`; what is there is never fetched again.\n\n"
        "A copy from elsewhere (a colleague, a mirror of the zip) is the practical way: set `source` to the "
        "folder that holds `images1024x1024/`. With the metadata beside it every picture is checked.\n\n"
        "For 128x128 and less only the thumbnails are fetched (1.95 GB)."
    ),
    listing=listing,
    settings={
        "makes": "stills",
        "cut": "whole",
        "size_px": 1024,
        "split": "official",
        "min_side_px": 128,
        "jpeg_quality": 100,
        "yield_floor": 0.99,
    },
    counts=(
        Count(of={"train": 60_000, "test": 10_000}, unit="images", who="NVIDIA's page", is_expected=True),
        Count(of={"all": 70_000}, unit="images", who="DualStyle paper; StyleGAN's authors train on all of them"),
    ),
    num_gb=89.1,
    notes=(
        "The pictures are aligned already: cut: whole keeps every pixel at size_px 1024, and scales to any other size.",
        "The unaligned originals (in-the-wild-images, 955 GB) are not taken. cut: align aligns portraits of your "
        "own the same way.",
        "One picture is one identity: the set does not say who is seen, and one person may be in several.",
        "For a training on all 70,000 as StyleGAN's, set split: source with a small test_share.",
        "Yield floor 0.99: a picture is missing only where Drive refused it.",
    ),
)
