"""VoxCeleb1: interviews of celebrities on YouTube, cut by the public metadata CSV of the first order motion model."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import WATCH_URL, videos_or_clips
from preprocessing.datasets.spec import Count, DatasetSpec, Form, Licence, Listing, Remote

NAME, CSV = "voxceleb1", "vox-metadata.csv"
_REPOSITORY = "https://raw.githubusercontent.com/AliaksandrSiarohin/video-preprocessing"
_PINNED = "1c175c8977f4af84a8f829247bf2247295425c31"


def listing(root: Path, config: DatasetConfig) -> Listing:
    """The videos that the CSV names, or clips that are cropped already.

    Args:
        root: holds the CSV and ``videos/``, or ``train/`` and ``test/``.
        config: ``cut: metadata`` wants the CSV.

    Raises:
        SourceError: neither is there.
    """
    return videos_or_clips(root, config, dataset=NAME, csv=CSV)


SPEC = DatasetSpec(
    name=NAME,
    title="VoxCeleb1",
    kind="faces",
    papers=(
        "cbam-mso: table 1, training and reconstruction",
        "dualstyle: FOMM is trained on it and on its stylised frames",
    ),
    homepage="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
    licence=Licence(
        name="annotations: CC BY 4.0 (not read again in 2026); the videos belong to their uploaders",
        url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
        allows="Research on the videos under YouTube's terms and the law where you are; no video may be passed on.",
    ),
    terms=(
        "The list of clips is public (github.com/AliaksandrSiarohin/video-preprocessing, which states no\n"
        "licence). The videos are on YouTube: its terms (https://www.youtube.com/t/terms) allow downloads only\n"
        "where YouTube or the owner permits them, or the law does. VoxCeleb asks that its annotations be used for\n"
        "research and that its paper (Nagrani, Chung, Zisserman, Interspeech 2017) be cited. The faces are of\n"
        "real, named people: a model trained on them must not be used to put words in their mouths."
    ),
    remotes=(
        Remote(
            name=CSV,
            urls=(f"{_REPOSITORY}/master/{CSV}", f"{_REPOSITORY}/{_PINNED}/{CSV}"),
            status=(
                "The repository's own file; a stored copy of it (1,265,155 bytes, with partition and person_id) "
                "was read in 2026, the address itself was not tried. No checksum is published."
            ),
        ),
    ),
    video_url=WATCH_URL,
    form=Form(
        url="https://mm.kaist.ac.kr/datasets/voxceleb/",
        what=(
            "Only for boxes of your own (cut: detect) from VoxCeleb's face tracks: the form gives links to the "
            "annotations (vox1_dev_txt.zip, vox1_test_txt.zip). The CSV needs no form. Reported to work in "
            "2024-07, unreachable at times; the older host www.robots.ox.ac.uk/~vgg/data/voxceleb asks for a "
            "login (2024)."
        ),
    ),
    layout="""\
voxceleb1/
|-- vox-metadata.csv              video_id,start,end,bbox,fps,width,height,partition,person_id
`-- videos/
    |-- WMh3ye5tBsE.mp4           the whole video; any of mp4, mkv, webm ...
    `-- ...

or, cropped already (cut: whole):

voxceleb1/
|-- train/
|   `-- id10005#WMh3ye5tBsE#003657#003994.mp4
`-- test/
    `-- id10280#NXjT3732Ekg#001093#001192.mp4""",
    how_to_get=(
        "`inkmotion download` fetches the CSV, then each of its 3,442 videos by id. Many are gone (private, "
        "removed) and YouTube turns servers away: reports of 2022 to 2026 name most or all ids as failing from "
        "data centres. Run it from a home connection, with `fetching.cookies` and `fetching.pause_s`; stop and start "
        "it at will; `inkmotion ledger NAME` says what is missing and why, `--retry bot-check` tries those again.\n\n"
        "With a copy of the videos (a colleague's, a mirror), put them into `videos/` beside the CSV and set "
        "`source`; or set `video_url` to the mirror, with `{id}`.\n\n"
        "Clips cropped by the public scripts (`train/`, `test/`) are taken as they are with `cut: whole`."
    ),
    listing=listing,
    settings={
        "makes": "clips",
        "cut": "metadata",
        "metadata": CSV,
        "resize": "stretch",
        "size_px": 256,
        "split": "official",
        "min_frames": 32,
        "max_frames": 1024,
        "min_side_px": 1,
        "increase": 0.1,
        "iou_cut": 0.25,
        "outside": "reject",
        "yield_floor": 0.5,
    },
    counts=(
        Count(of={"train": 19_550, "test": 525}, unit="clips", who="rows of vox-metadata.csv", is_expected=True),
        Count(of={"train": 18_130, "test": 503}, unit="clips", who="CBAM-MSO paper"),
        Count(of={"train": 19_522, "test": 525}, unit="clips", who="FOMM's author, 2020"),
        Count(of={"train": 12_331, "test": 444}, unit="clips", who="FOMM paper; an error by its author's word"),
        Count(of={"all": 22_496}, unit="videos", who="DualStyle paper (all utterances' videos, before cutting)"),
        Count(of={"all": 3_442}, unit="videos", who="video ids in vox-metadata.csv"),
    ),
    num_gb=None,
    notes=(
        "The size of the raw videos is not published; the crops as PNG take about 300 GB (public scripts).",
        "Start, end and box of a row hold at the row's fps and picture size; they are scaled to the video at hand.",
        "The public scripts stretch the box to a square (resize: stretch, as here); resize: square grows it instead.",
        "min_side_px is 1, for the public scripts cut every row. With 256 the list holds 17,703 and 476 rows (a count "
        "by a user of the scripts, 2020).",
        "A row has 64 to 1,024 frames at its own fps; min_frames is half of 64, so that a copy of the video with "
        "fewer frames a second is kept and one that breaks off is not.",
        "The test side is the people id10270 to id10309: nobody is on both sides.",
        "Yield floor 0.5: the CBAM-MSO paper still had 93 % of the rows; with under half of them, scores can't be set "
        "beside the papers'.",
        "Set cut: detect to find the faces anew: iou_cut, max_frames, increase and outside: reject are those of the "
        "public crop script, which has min_frames 64 and min_side_px 256.",
    ),
)
