"""MGif: animated GIFs of walking cartoon animals, found by an image search."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import find_base, not_empty, sided, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Licence, Listing, Remote
from preprocessing.video import VIDEO_SUFFIXES

NAME = "mgif"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The GIFs in ``train`` and ``test``, of the folder or of the only folder in it that has both.

    Args:
        root: the source folder.
        config: of the data set; nothing in it changes the listing.

    Raises:
        SourceError: there is no GIF.
    """
    items = tree_items(find_base(root, "train", "test"), ("train", "test"), VIDEO_SUFFIXES)
    found = not_empty(sided(items, {"train": "train", "test": "test"}), root, NAME, "GIFs in train/ and test/")
    return Listing(items=found)


SPEC = DatasetSpec(
    name=NAME,
    title="MGif",
    kind="cartoons",
    papers=("cbam-mso: table 1", "jam: table 1"),
    homepage="https://github.com/AliaksandrSiarohin/monkey-net",
    licence=Licence(
        name="none stated; each GIF belongs to whoever drew it",
        url="https://github.com/AliaksandrSiarohin/monkey-net",
        allows="Nothing is granted: research under the exceptions of your own law; no GIF may be passed on.",
    ),
    terms=(
        'The GIFs were collected with an image search ("cat cycle gif animation" and the like) by the authors of\n'
        "Monkey-Net, who state no licence; the drawings belong to their makers. Use them for research, do not\n"
        "pass them on, and cite Siarohin et al., Animating Arbitrary Objects via Deep Motion Transfer, CVPR 2019."
    ),
    remotes=(
        Remote(
            name="moving-gif.zip",
            urls=("https://yadi.sk/d/5VdqLARizmnj3Q",),
            is_archive=True,
            status=(
                "A public link of Yandex Disk, named by the first order motion model's page; no report of rot was "
                "found up to 2026, and it was not tried. No size or checksum is published. That it is one zip "
                "with a folder moving-gif in it is what users' reports suggest."
            ),
        ),
    ),
    form=None,
    layout="""\
mgif/
`-- moving-gif/                   or train/ and test/ at once
    |-- train/
    |   |-- 00000.gif
    |   `-- ...
    `-- test/
        |-- 00000.gif
        `-- ...""",
    how_to_get=(
        "`inkmotion download` fetches the archive from Yandex Disk and unpacks it. Where Yandex is blocked, fetch "
        "it by hand (`https://yadi.sk/d/5VdqLARizmnj3Q`), unpack it and set `source`.\n\n"
        "The GIFs as they were found, before their backgrounds were removed, are at "
        "`https://yadi.sk/d/VBFiPs95yO7sMA` (Monkey-Net's page); the papers use the ones above."
    ),
    listing=listing,
    settings={
        "makes": "clips",
        "cut": "whole",
        "size_px": 256,
        "split": "official",
        "min_frames": 2,
        "max_frames": 1024,
        "min_side_px": 1,
        "yield_floor": 0.98,
    },
    counts=(
        Count(of={"train": 900, "test": 100}, unit="clips", who="CBAM-MSO paper and FOMM's split", is_expected=True),
    ),
    num_gb=None,
    notes=(
        "The archive's size is not published.",
        "The GIFs are 256x256; of others every size is taken (min_side_px 1).",
        "The whole picture is taken, padded to a square where it is none; transparency becomes white.",
        "A GIF's own frame durations and disposal count, and a loop is not repeated.",
        "One GIF is one identity; one animal may have been drawn for several GIFs.",
        "Yield floor 0.98: one archive either comes whole or not at all.",
    ),
)
