"""Fashion: women who model a dress before a white wall, by the University of British Columbia."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from models.contracts import Split
from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import (
    MAX_LINE_CHARS,
    bad_line,
    find_base,
    located,
    not_empty,
    read_lines,
    sided,
    tree_items,
)
from preprocessing.datasets.local import safe_names
from preprocessing.datasets.spec import Count, DatasetSpec, Item, Licence, Listing, Remote
from preprocessing.video import VIDEO_SUFFIXES

NAME = "fashion"
LISTS: dict[str, Split] = {"fashion_train.txt": "train", "fashion_test.txt": "test"}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9+%._-]*")
_PAGE = "https://vision.cs.ubc.ca/datasets/fashion/"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The videos that the two URL lists name, and those in ``train`` and ``test`` that no list names.

    A listed video is looked for in ``train`` or ``test``, in ``videos`` and beside the lists. A line that is no http(s)
    address of a video, or an address for the second time, is an item with a problem.

    Args:
        root: the source folder: lists, videos or both.
        config: of the data set; nothing in it changes the listing.

    Raises:
        SourceError: there is neither a list nor a video.
    """
    base = next((find_base(root, name) for name in LISTS if (find_base(root, name) / name).is_file()), None)
    listed = list(_listed(base)) if base else []
    folder = base or find_base(root, "train", "test")
    here = sided(tree_items(folder, ("train", "test"), VIDEO_SUFFIXES), {"train": "train", "test": "test"})
    known = {item.path for item in listed}
    items = _named(listed + [item for item in here if item.path not in known])
    return Listing(items=not_empty(items, root, NAME, "fashion_train.txt and fashion_test.txt, or train/ and test/"))


def _listed(base: Path) -> Iterator[Item]:
    seen: dict[str, str] = {}
    for name, split in LISTS.items():
        path = base / name
        for line in read_lines(path) if path.is_file() else ():
            file = _file_of(line.text)
            if file is None:
                yield bad_line(path, line.number, "be an http(s) address of a video", line.text)
            elif file in seen:
                rule = f"name a video that is new; it stands in {seen[file]}"
                yield bad_line(path, line.number, rule, line.text, reason="duplicate-row")
            else:
                seen[file] = f"{name} line {line.number}"
                origin = f"{split}/{file}"
                found, problem = located(base, origin, (origin, f"videos/{file}", file), VIDEO_SUFFIXES)
                yield Item(name=file, origin=origin, path=found, urls=(line.text,), split=split, problem=problem)


def _file_of(line: str) -> str | None:
    """The file that an address ends in; None where it is no address of a video."""
    if len(line) > MAX_LINE_CHARS or any(char.isspace() for char in line):
        return None
    try:
        parts = urlsplit(line)
    except ValueError:
        return None
    file = unquote(parts.path.rpartition("/")[2])
    is_video = Path(file).suffix.lower() in VIDEO_SUFFIXES and _PLAIN.fullmatch(file) is not None
    return file if parts.scheme in ("http", "https") and parts.hostname and is_video else None


def _named(items: list[Item]) -> list[Item]:
    """The items with safe names, unique in all."""
    names = safe_names([item.origin for item in items])
    return [replace(item, name=names[item.origin]) for item in items]


SPEC = DatasetSpec(
    name=NAME,
    title="Fashion (UBC)",
    kind="bodies",
    papers=("dcf: table 1, all four rows",),
    homepage=_PAGE,
    licence=Licence(
        name="none stated; the videos are a shop's product films",
        url=_PAGE,
        allows="Nothing is granted: research under the exceptions of your own law; no video may be passed on.",
    ),
    terms=(
        "The lists are public on the page of the UBC computer vision group, which states no licence. The videos\n"
        "are product films on Amazon's servers and belong to their owners. Use them for research, do not pass\n"
        "them on, and cite Zablotskaia et al., DwNet: Dense warp-based network for pose-guided human video\n"
        "generation, BMVC 2019."
    ),
    remotes=tuple(
        Remote(
            name=name,
            urls=(f"{_PAGE}resources/fashion_dataset/{name}",),
            status=(
                "Named by the page and by public scripts; users fetched all 600 videos through it in 2024-01; the "
                "address was not tried. No checksum is published."
            ),
        )
        for name in LISTS
    ),
    form=None,
    layout="""\
fashion/
|-- fashion_train.txt             an address a line: https://m.media-amazon.com/images/I/91D23ZVV6NS.mp4
|-- fashion_test.txt
|-- train/                        (or all videos in videos/, or beside the lists)
|   `-- 91+bCFG1jOS.mp4
`-- test/
    `-- 91-3003CN5S.mp4

The lists may be absent where train/ and test/ hold the videos.""",
    how_to_get=(
        "`inkmotion download` fetches the two lists, then each video from the address in its line. Where an "
        "address is gone, the ledger says so.\n\n"
        "A mirror of the videos is at `https://huggingface.co/datasets/tsaiyue/ubc_fashion` (named by users in "
        "2024-04; not tried): fetch it with that site's own tool, put the videos into `train/` and `test/` and set "
        "`source`."
    ),
    listing=listing,
    settings={
        "makes": "clips",
        "cut": "whole",
        "size_px": 256,
        "split": "official",
        "min_frames": 64,
        "max_frames": 1024,
        "min_side_px": 256,
        "yield_floor": 0.95,
    },
    counts=(Count(of={"train": 500, "test": 100}, unit="videos", who="DwNet paper; its lists", is_expected=True),),
    num_gb=0.5,
    notes=(
        "The DCF paper says nothing of its cut and split; the lists' split is taken. FOMM squeezes the whole frame to "
        "256x256; here it is padded to a square with its border, which is white. Set cut: detect to follow the person.",
        "About 600 videos of some 12 s: 0.5 GB as a user fetched them in 2024.",
        "A video is one identity. The lists name no person: the same woman may be seen on both sides.",
        "Names may hold + and begin with a digit; they are made safe for files, the origin keeps them.",
        "Yield floor 0.95: a shop removes a film now and then; the lists must hold otherwise.",
    ),
)
