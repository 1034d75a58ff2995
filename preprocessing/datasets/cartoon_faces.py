"""Cartoon faces: the 317 drawn faces of Toonify."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import not_empty, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Form, Licence, Listing
from preprocessing.video import PICTURE_SUFFIXES

NAME, BOXES = "cartoon-faces", "boxes.csv"
_MEGA = "https://mega.nz/file/HslSXS4a#7UBanJTjJqUl_2Z-JmAsreQYiJUKC-8UlZDR0rUsarw"
_PAGE = "https://github.com/justinpinkney/toonify"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """All pictures of the folder, and the CSV of boxes given by hand where there is one.

    Args:
        root: the source folder.
        config: `boxes` names the CSV; null: ``boxes.csv``, if it is there.

    Raises:
        SourceError: there is no picture.
    """
    items = not_empty(tree_items(root, (".",), PICTURE_SUFFIXES), root, NAME, "pictures of faces")
    boxes = root / (config.boxes or BOXES)
    return Listing(items=items, boxes=boxes if config.boxes or boxes.is_file() else None)


SPEC = DatasetSpec(
    name=NAME,
    title="Cartoon faces (Toonify)",
    kind="images",
    papers=("dualstyle: the target style of DualStyleGAN",),
    homepage=_PAGE,
    licence=Licence(
        name="none stated; the drawings belong to their studios and artists",
        url=_PAGE,
        allows="Nothing is granted: research under the exceptions of your own law; no picture may be passed on.",
    ),
    terms=(
        "The pictures are cut out of films and drawings by the author of Toonify, who states no licence for them.\n"
        "Use them for research, do not pass them on, and cite Pinkney, Adler, Resolution Dependent GAN\n"
        "Interpolation for Controllable Image Synthesis Between Domains, 2020."
    ),
    remotes=(),
    form=Form(
        url=_MEGA,
        what=(
            "Open the link in a browser: Mega decrypts files there, so no ordinary download can fetch it. Unpack "
            "the archive and name its folder"
        ),
    ),
    layout="""\
cartoon-faces/
|-- Cartoons_00003_01.jpg         317 faces, in this folder or in folders below it
|-- ...
`-- boxes.csv                     file,left,top,right,bottom: boxes given by hand (may be absent)""",
    how_to_get=(
        "By hand: the link of Toonify's and DualStyleGAN's pages leads to Mega (both pages read in stored copies "
        "in 2026; the link was not tried), which hands files out to a browser alone. Unpack the archive and set "
        "`source`.\n\n"
        "Any folder of drawn faces can stand in."
    ),
    listing=listing,
    settings={
        "makes": "stills",
        "cut": "align",
        "size_px": 1024,
        "split": "source",
        "test_share": 0.05,
        "min_side_px": 64,
        "outside": "pad",
        "jpeg_quality": 100,
        "yield_floor": 0.98,
    },
    counts=(Count(of={"all": 317}, unit="images", who="DualStyle paper; DualStyleGAN's page", is_expected=True),),
    num_gb=None,
    notes=(
        "The archive's size is not published.",
        "DualStyleGAN takes the pictures as they come, aligned by Toonify: set cut: whole for the very same "
        "pixels. Aligning them again, as here, changes them little and takes in faces of your own, whatever their "
        "place.",
        "Face detectors miss many cartoons: such a picture is aligned by its row in boxes.csv, else kept with a "
        "centred box, and the manifest says which.",
        "A picture is one identity; a character may have been drawn in several.",
        "Yield floor 0.98: no picture is rejected for want of a face, only what can't be read or is too small.",
    ),
)
