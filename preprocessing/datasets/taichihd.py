"""TaiChiHD: people doing Tai Chi on YouTube, cut by the public metadata CSV of the first order motion model."""

from __future__ import annotations

from pathlib import Path

from preprocessing.config import DatasetConfig
from preprocessing.datasets.listing import WATCH_URL, videos_or_clips
from preprocessing.datasets.spec import Count, DatasetSpec, Licence, Listing, Remote

NAME, CSV = "taichihd", "taichi-metadata.csv"
_GITHUB = "https://raw.githubusercontent.com/AliaksandrSiarohin"


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
    title="TaiChiHD",
    kind="bodies",
    papers=("cbam-mso: tables 1 and 2, training, reconstruction and ablation",),
    homepage="https://github.com/AliaksandrSiarohin/video-preprocessing",
    licence=Licence(
        name="list: MIT in first-order-model, none stated in video-preprocessing; the videos belong to their uploaders",
        url="https://github.com/AliaksandrSiarohin/first-order-model/blob/master/LICENSE.md",
        allows="Research on the videos under YouTube's terms and the law where you are; no video may be passed on.",
    ),
    terms=(
        "The list of clips is public. The videos are on YouTube: its terms (https://www.youtube.com/t/terms) allow\n"
        "downloads only where YouTube or the owner permits them, or the law does. Cite Siarohin et al., First Order\n"
        "Motion Model for Image Animation, NeurIPS 2019."
    ),
    remotes=(
        Remote(
            name=CSV,
            urls=(
                f"{_GITHUB}/first-order-model/master/data/taichi-loading/{CSV}",
                f"{_GITHUB}/video-preprocessing/master/{CSV}",
            ),
            status=(
                "Stored copies of both files were read in 2026, the addresses themselves were not tried. The first one "
                "has the column partition (196,418 bytes), which the cut needs; of the second one a version without it "
                "exists (180,467 bytes) and is refused. No checksum is published."
            ),
        ),
    ),
    video_url=WATCH_URL,
    form=None,
    layout="""\
taichihd/
|-- taichi-metadata.csv           video_id,start,end,bbox,fps,width,height,partition
`-- videos/
    |-- u6rJiF-gPx8.mp4           the whole video; any of mp4, mkv, webm ...
    `-- ...

or, cropped already (cut: whole):

taichihd/
|-- train/
|   `-- u6rJiF-gPx8#000080#000300.mp4
`-- test/
    `-- FBuF0xOal9M#046320#046458.mp4""",
    how_to_get=(
        "`inkmotion download` fetches the CSV, then each of its 280 videos by id. Reports of 2025 and 2026 say "
        "that all ids fail from servers, also videos that are live: run it from a home connection, with "
        "`fetching.cookies` and `fetching.pause_s`. `inkmotion ledger NAME` says what is missing and why.\n\n"
        "The earlier ready-made archives of the authors (Yandex Disk, Google Drive) were withdrawn from their "
        "page.\n\n"
        "With a copy of the videos, put them into `videos/` beside the CSV and set `source`. Clips cropped by the "
        "public scripts (`train/`, `test/`) are taken as they are with `cut: whole`."
    ),
    listing=listing,
    settings={
        "makes": "clips",
        "cut": "metadata",
        "metadata": CSV,
        "resize": "stretch",
        "size_px": 256,
        "split": "official",
        "min_frames": 64,
        "max_frames": 1024,
        "min_side_px": 1,
        "min_source_px": 300,
        "increase": 0.05,
        "body_detector": "pose",
        "min_person_share": 0.1,
        "max_camera_flow_px": 1.0,
        "max_intensity_jump": 1.5,
        "outside": "reject",
        "yield_floor": 0.5,
    },
    counts=(
        Count(of={"train": 3_049, "test": 285}, unit="clips", who="rows of taichi-metadata.csv", is_expected=True),
        Count(of={"train": 2_652, "test": 285}, unit="clips", who="CBAM-MSO paper"),
        Count(of={"all": 280}, unit="videos", who="video ids in taichi-metadata.csv"),
    ),
    num_gb=None,
    notes=(
        "The size of the raw videos is not published; the crops as PNG take about 80 GB (public scripts).",
        "Boxes are square in the list, so resize: stretch changes them only where the video at hand has another shape.",
        "The identity is the video: the list names no person, so one person may be seen in videos on both sides.",
        "A row has 128 to 1,024 frames at its own fps; min_frames is half of 128, so that a copy of the video with "
        "fewer frames a second is kept and one that breaks off is not.",
        "The list has no video smaller than 300 px (min_source_px).",
        "Set cut: detect to find the persons anew: the limits above are those of the public crop script (there Mask "
        "R-CNN, here BlazePose), which has min_frames 128 and min_side_px 256.",
        "Yield floor 0.5: the CBAM-MSO paper still had 88 % of the rows; with under half of them, scores can't be set "
        "beside the papers'.",
    ),
)
