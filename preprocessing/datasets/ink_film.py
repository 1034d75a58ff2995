"""An ink-animation film: stills of it are the style that photos are turned into."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import not_empty, tree_items
from preprocessing.datasets.spec import Count, DatasetSpec, Licence, Listing
from preprocessing.video import VIDEO_SUFFIXES

NAME = "ink-film"
_PAGE = "https://en.wikipedia.org/wiki/Feelings_of_Mountains_and_Waters"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """All video files of the folder; the stills are spread over all of them.

    Args:
        root: the source folder.
        config: of the data set; nothing in it changes the listing.

    Raises:
        SourceError: there is no video.
    """
    return film_listing(root, NAME)


def film_listing(root: Path, dataset: str) -> Listing:
    """The films of a folder.

    Args:
        root: the source folder.
        dataset: its name, for messages.

    Raises:
        SourceError: there is no video.
    """
    return Listing(items=not_empty(tree_items(root, (".",), VIDEO_SUFFIXES), root, dataset, "a film (mp4, mkv ...)"))


SPEC = DatasetSpec(
    name=NAME,
    title="Ink-animation film",
    kind="film",
    papers=('lwcomicgan: the ink style; 718 stills of "Landscape Emotion"',),
    homepage=_PAGE,
    licence=Licence(
        name='the film\'s own; "Landscape Emotion" is under copyright',
        url=_PAGE,
        allows="What the law where you are allows with a copy that you own; stills may not be passed on.",
    ),
    terms=(
        'Nothing is fetched: the film is a file of yours. "Landscape Emotion" (also Feeling from Mountain and\n'
        "Water, 1988, Shanghai Animation Film Studio) is under copyright, and so are most ink-wash films, the\n"
        "oldest of 1960 in many countries too: that a film can be watched on the internet makes it neither free\n"
        "nor in the public domain."
    ),
    remotes=(),
    form=None,
    layout="""\
ink-film/
`-- landscape-emotion.mp4         one film file or several; any of mp4, mkv, webm, mov ...""",
    how_to_get=(
        "Put a copy that you own (a disc, a purchase) into a folder and set `source`. It is cut as the paper's "
        "set was made: 718 stills of 256x256, taken by a program.\n\n"
        "No ink-wash film is known to us under a free licence. To try the stage without one, take any film of "
        "`animation-film`, or your own paintings as a data set of kind images."
    ),
    listing=listing,
    settings={
        "makes": "stills",
        "cut": "scenes",
        "size_px": 256,
        "split": "time",
        "test_share": 0.1,
        "num_stills": 718,
        "scene_threshold": 27.0,
        "hash_distance": 8,
        "letterbox": "cut",
        "smooth": True,
        "timeout_s": 7200.0,
        "max_source_frames": 400_000,
        "yield_floor": 1.0,
    },
    counts=(Count(of={"all": 718}, unit="images", who="LWComicGAN paper, 256x256", is_expected=True),),
    num_gb=None,
    notes=(
        "The size is that of your file.",
        'The paper says only "automatic frame interception written in python": scenes, near-duplicates, black frames, '
        "credits and bars are this project's care.",
        "Ink-wash pictures hold much empty paper. Where too few stills come out, lower hash_distance (5, say) and "
        "scene_threshold (12, say).",
        "Fewer than 718 stills come out of a short film; the report says how many, and require_counts makes that "
        "an error.",
        "smooth: the AnimeGAN family's losses need an edge-smoothed copy of each still.",
        "Yield floor 1.0: each film must give stills.",
    ),
)
