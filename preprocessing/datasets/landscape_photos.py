"""Landscape photos: the 6,656 photos of AnimeGAN's release."""

from __future__ import annotations

from pathlib import Path

from models.contracts import Split
from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import find_base, not_empty, sided, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Licence, Listing, Remote
from preprocessing.video import PICTURE_SUFFIXES

NAME, PHOTOS = "landscape-photos", "train_photo"
SIDES: dict[str, Split] = {PHOTOS: "train", "val": "test", "test": "test"}


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The photos of ``train_photo``, ``val`` and ``test``; all pictures of a folder without them.

    The style folders of the archive (``Hayao``, ``Paprika``, ``Shinkai``, ``SummerWar``) are no photos and left out.

    Args:
        root: the source folder.
        config: of the data set; nothing in it changes the listing.

    Raises:
        SourceError: there is no picture.
    """
    base = find_base(root, PHOTOS)
    if (base / PHOTOS).is_dir():
        items = sided(tree_items(base, tuple(SIDES), PICTURE_SUFFIXES), SIDES)
    else:
        items = tree_items(root, (".",), PICTURE_SUFFIXES)
    return Listing(items=not_empty(items, root, NAME, "photos in train_photo/"))


SPEC = DatasetSpec(
    name=NAME,
    title="Landscape photos (AnimeGAN)",
    kind="images",
    papers=("lwcomicgan: the photos that are turned into the style",),
    homepage="https://github.com/TachibanaYoshino/AnimeGAN",
    licence=Licence(
        name="none stated for the photos; AnimeGAN asks for non-commercial use",
        url="https://github.com/TachibanaYoshino/AnimeGAN",
        allows="Research and teaching, no commercial use; who took the photos is not told.",
    ),
    terms=(
        "The archive is a release of the AnimeGAN repository, which offers its work for non-commercial research.\n"
        "Neither the photos' authors nor their licences are named, and the archive also holds stills of\n"
        "copyrighted films (the style folders, which this data set leaves alone). Use it for research, do not\n"
        "pass it on; cite Chen, Liu, Chen, AnimeGAN: a novel lightweight GAN for photo animation, 2019."
    ),
    remotes=(
        Remote(
            name="dataset.zip",
            urls=("https://github.com/TachibanaYoshino/AnimeGAN/releases/download/dataset-1/dataset.zip",),
            is_archive=True,
            status=(
                "A GitHub release, named by the repository's page, by public scripts and by users up to 2025-02; "
                "not tried. No size or checksum is published."
            ),
        ),
    ),
    form=None,
    layout="""\
landscape-photos/
|-- train_photo/                  6,656 photos, 256x256
|   `-- 0.jpg ...
|-- val/                          photos to look at while training: the test side here
|-- test/                         photos to look at afterwards: the test side here
`-- Hayao/ Paprika/ Shinkai/ SummerWar/    styles: left alone

or photos of your own, in any folders below the source.""",
    how_to_get=(
        "`inkmotion download` fetches the release's archive and unpacks it.\n\n"
        "Any folder of landscape photos can stand in: set `source`, and `split: source` where it has no `train_photo/`."
    ),
    listing=listing,
    settings={
        "makes": "stills",
        "cut": "whole",
        "size_px": 256,
        "split": "official",
        "min_side_px": 256,
        "smooth": False,
        "yield_floor": 0.95,
    },
    counts=(
        Count(of={"train": 6_656}, unit="images", who="LWComicGAN paper; AnimeGAN's train_photo", is_expected=True),
    ),
    num_gb=None,
    notes=(
        "The archive's size is not published.",
        "The largest square in the middle is taken; the archive's photos are square already.",
        "Only train_photo is in the paper's 6,656. What val and test hold, and how many, was not checked; the "
        "paper's own test photos are not told.",
        "The photos show landscapes: a model trained on them does badly on faces (AnimeGAN's page).",
        "Yield floor 0.95: a few pictures of val and test may be smaller than 256 px.",
    ),
)
