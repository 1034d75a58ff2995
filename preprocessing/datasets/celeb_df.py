"""Celeb-DF v2: videos of celebrities, and deepfakes made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.errors import must
from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import bad_line, find_base, not_empty, read_lines, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Form, Item, Licence, Listing
from preprocessing.video import VIDEO_SUFFIXES
from preprocessing.video_types import MediaError

NAME, TEST_LIST = "celeb-df-v2", "List_of_testing_videos.txt"
PARTS = ("Celeb-real", "YouTube-real", "Celeb-synthesis")
_PERSON = re.compile(r"(id\d{1,3})_(?:id\d{1,3}_)?\d{1,5}")
_LINE = re.compile(r"[01]\s+([A-Za-z-]+/[A-Za-z0-9_.-]+)")
_PAGE = "https://github.com/yuezunli/celeb-deepfakeforensics"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The videos of the three folders, each with its person and its side in the official test list.

    The person of ``id0_0000.mp4`` and of the deepfake ``id0_id1_0000.mp4`` is ``id0``, whose video it is; those of
    YouTube-real are not named. A listed video that is missing, and a line of another form, are items with a problem.

    Args:
        root: the source folder.
        config: of the data set. With ``split: official`` the test list must be there.

    Raises:
        SourceError: there is no video, or no list where it is needed.
    """
    base = next((find_base(root, part) for part in PARTS if (find_base(root, part) / part).is_dir()), root)
    items = [replace(item, origin=item.origin.replace("/videos/", "/", 1)) for item in _videos(base)]
    path = base / TEST_LIST
    if path.is_file() or config.split == "official":
        items = _with_list(items, path)
    return Listing(items=not_empty(items, root, NAME, "Celeb-real/, YouTube-real/ and Celeb-synthesis/"))


def _videos(base: Path) -> list[Item]:
    items = tree_items(base, PARTS, VIDEO_SUFFIXES)
    return [replace(item, identity=_person(item)) for item in items]


def _person(item: Item) -> str | None:
    found = _PERSON.fullmatch(Path(item.origin).stem)
    return found[1] if found and not item.origin.startswith("YouTube-real/") else None


def _with_list(items: Sequence[Item], path: Path) -> list[Item]:
    tested: dict[str, int] = {}
    bad = []
    for line in read_lines(path):
        found = _LINE.fullmatch(line.text)
        if found is None:
            bad.append(bad_line(path, line.number, "read 1 or 0, a space, and folder/video.mp4", line.text))
        elif found[1] in tested:
            rule = f"name a video that is new; line {tested[found[1]]} names it"
            bad.append(bad_line(path, line.number, rule, line.text, reason="duplicate-row"))
        else:
            tested[found[1]] = line.number
    here = {item.origin for item in items}
    absent = [_absent(path, origin, number) for origin, number in tested.items() if origin not in here]
    return [replace(item, split="test" if item.origin in tested else "train") for item in items] + bad + absent


def _absent(path: Path, origin: str, line: int) -> Item:
    error = MediaError(must(origin, f"be there, as {path.name} line {line} says", "no such file"), "missing")
    return Item(name=f"missing-line-{line}", origin=origin, split="test", problem=error)


SPEC = DatasetSpec(
    name=NAME,
    title="Celeb-DF v2",
    kind="faces",
    papers=("jam: table 1",),
    homepage=_PAGE,
    licence=Licence(
        name="Terms to Use Celeb-DF",
        url="https://forms.gle/2jYBby6y1FBU3u6q9",
        allows="What the form's terms grant to whom is accepted; the videos are the property of their owners.",
    ),
    terms=(
        'Celeb-DF is handed out "as it is" to those whose form is accepted, under the Terms to Use Celeb-DF that\n'
        "the form shows. The videos come from the internet and do not belong to its authors; who is seen may ask\n"
        "to be removed. Do not pass it on; cite Li et al., Celeb-DF: A Large-scale Challenging Dataset for\n"
        "DeepFake Forensics, CVPR 2020."
    ),
    remotes=(),
    form=Form(
        url="https://forms.gle/2jYBby6y1FBU3u6q9",
        what=(
            "Fill in the Google form (in China: https://wj.qq.com/s2/8540155/b5d9/); a "
            "link to the archive comes by mail. Questions: deepfakeforensics@gmail.com"
        ),
    ),
    layout="""\
celeb-df-v2/
|-- Celeb-real/                   590 videos of 59 people
|   `-- id0_0000.mp4              (or Celeb-real/videos/id0_0000.mp4)
|-- YouTube-real/                 300 videos of others
|   `-- 00000.mp4
|-- Celeb-synthesis/              5,639 deepfakes
|   `-- id0_id1_0000.mp4          the video of id0 with the face of id1
`-- List_of_testing_videos.txt    518 lines: 1 Celeb-real/id1_0007.mp4 (1 is real, 0 is fake)""",
    how_to_get=(
        "By form only: nothing is fetched. Unpack the archive and set `source` to the folder that holds "
        "`Celeb-real/`. The form's addresses are those of the authors' page (read in a stored copy in 2026, not "
        "tried).\n\n"
        "Leave `Celeb-synthesis/` out of the folder to train on real faces alone."
    ),
    listing=listing,
    settings={
        "makes": "clips",
        "cut": "detect",
        "size_px": 256,
        "split": "identity",
        "test_share": 0.1,
        "min_frames": 64,
        "max_frames": 1024,
        "min_side_px": 128,
        "increase": 0.1,
        "iou_cut": 0.25,
        "outside": "pad",
        "yield_floor": 0.8,
    },
    counts=(
        Count(of={"all": 6_529}, unit="videos", who="the authors' page: 590 + 300 real, 5,639 fake", is_expected=True),
        Count(of={"all": 6_229}, unit="videos", who="JAM paper: 590 raw videos, 5,639 deepfakes"),
        Count(of={"test": 518}, unit="videos", who="List_of_testing_videos.txt"),
    ),
    num_gb=None,
    notes=(
        "The archive's size is not published on the page.",
        "The JAM paper names the set and its size, but neither a cut nor a split. The faces are cut as "
        "VoxCeleb's, with a smallest side of 128 px in place of 256, for the heads are small in many of these "
        "videos (our choice).",
        "The official list (split: official) is one for deepfake detection: it has other videos of the same people on "
        "both sides, so the leak check refuses it. The default draws people: split: identity.",
        "A deepfake shows two people: the footage is one's, the face another's. It stays with the footage, so a "
        "face may be seen on both sides; leave the deepfakes out where that matters.",
        "Who is seen in YouTube-real is not told: each video counts as a person of its own.",
        "Yield floor 0.8: small or turned heads are not found in some videos.",
    ),
)
