"""An animation film: stills of it are the style that photos are turned into."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.ink_film import film_listing
from preprocessing.datasets.spec import Count, DatasetSpec, Licence, Listing

NAME = "animation-film"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """All video files of the folder; the stills are spread over all of them.

    Args:
        root: the source folder.
        config: of the data set; nothing in it changes the listing.

    Raises:
        SourceError: there is no video.
    """
    return film_listing(root, NAME)


SPEC = DatasetSpec(
    name=NAME,
    title="Animation film",
    kind="film",
    papers=('lwcomicgan: the anime style; 1,792 stills of "The Wind Rises"',),
    homepage="https://en.wikipedia.org/wiki/The_Wind_Rises",
    licence=Licence(
        name="the film's own; \"The Wind Rises\" is under copyright, Blender's open films are CC BY",
        url="https://studio.blender.org/films/",
        allows="With a copyrighted film what the law where you are allows; with a CC BY film anything, with credit.",
    ),
    terms=(
        'Nothing is fetched: the film is a file of yours. "The Wind Rises" (2013, Studio Ghibli) is under\n'
        "copyright; its stills, and a model that paints like it, may not be free to pass on. Name the licence of\n"
        "a free film in your model card: CC BY asks for credit."
    ),
    remotes=(),
    form=None,
    layout="""\
animation-film/
`-- film.mkv                      one film file or several; any of mp4, mkv, webm, mov ...""",
    how_to_get=(
        "Put a copy that you own (a disc, a purchase) into a folder and set `source`. It is cut as the paper's "
        "set: 1,792 stills of 256x256.\n\n"
        "Free films that can stand in: the open films of the Blender Foundation under CC BY, such as Big Buck "
        "Bunny and Sintel (CC BY 3.0) or Spring (CC BY 4.0), at https://studio.blender.org/films/ (each film's "
        "page names its licence: look; the addresses were not tried). They are rendered, not drawn.\n\n"
        "AnimeGAN's archive of `landscape-photos` has a folder `Hayao/style` with stills of the same film; that "
        "these are the paper's 1,792 is likely and not verified. To use them, add that folder as a data set of "
        "kind images."
    ),
    listing=listing,
    settings={
        "makes": "stills",
        "cut": "scenes",
        "size_px": 256,
        "split": "time",
        "test_share": 0.1,
        "num_stills": 1_792,
        "scene_threshold": 27.0,
        "hash_distance": 8,
        "letterbox": "cut",
        "smooth": True,
        "timeout_s": 7200.0,
        "max_source_frames": 400_000,
        "yield_floor": 1.0,
    },
    counts=(Count(of={"all": 1_792}, unit="images", who="LWComicGAN paper", is_expected=True),),
    num_gb=None,
    notes=(
        "The size is that of your file.",
        "The paper gives the number of stills, not how they were chosen: they are spread evenly over the film's "
        "scenes.",
        "A short film gives fewer; the report says how many, and require_counts makes that an error.",
        "smooth: the AnimeGAN family's losses need an edge-smoothed copy of each still.",
        "Yield floor 1.0: each film must give stills.",
    ),
)
