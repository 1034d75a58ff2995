"""Aligned faces out of videos: frames evenly over the length, each cut as a picture is (`preprocessing.align`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from models.contracts import Clip
from models.errors import must
from preprocessing.align import aligned_item, cut_face
from preprocessing.boxes import Box
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, limits_of, turned_away
from preprocessing.frames import splits_of
from preprocessing.ledger import LedgerRow
from preprocessing.splits import whose
from preprocessing.video import open_video
from preprocessing.video_types import MediaError, VideoInfo


def aligned_media(
    row: LedgerRow, source: Path, config: DatasetConfig, target: Path, box: Box | None = None
) -> ItemResult:
    """Cut aligned faces out of a picture (one) or out of a video (``num_stills``, evenly over its frames).

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set. Frames of a video whose face is not found, or too small, are dropped and counted;
            ``split: time`` takes the test from the video's end.
        target: folder for the stills, which exists.
        box: as for `preprocessing.align.aligned_item`; of pictures alone.

    Returns:
        A row of one frame for each still, and the item's ledger row: a video without any face is rejected
        (``no-subject``).

    Raises:
        EnvironmentProblem: a still can't be written, or the landmarks' weights are missing.
    """
    with turned_away(row, target) as failed:
        with open_video(source, limits=limits_of(config)) as reader:
            if reader.info.decoder == "pillow" or config.kind == "images":
                return aligned_item(row, source, config, target, box)
            info, chosen = reader.info, _evenly(reader.info.num_frames, config.num_stills)
            picked = _picked(reader.batches(), chosen)
            stills, dropped = _cut(picked, row, config)
        if not stills:
            got = ", ".join(f"{count} frames with {reason}" for reason, count in dropped.items())
            raise MediaError(must(row.item, "show a face", got, "Leave it out"), "no-subject")
        clips = _written(stills, info, row, config, target)
        if len(clips) < len(stills):
            dropped["gap"] = len(stills) - len(clips)
        kept = replace(row, state="kept", reason=None, decoder=info.decoder, num_clips=len(clips))
        seconds = info.num_frames / info.fps
        return ItemResult(row=kept, clips=tuple(clips), num_frames=info.num_frames, seconds=seconds, dropped=dropped)
    return ItemResult(row=row.rejected(failed[0]))


def _evenly(num_frames: int, wanted: int) -> set[int]:
    """The middles of equal spans."""
    count = min(num_frames, wanted)
    return {int((place + 0.5) * num_frames / count) for place in range(count)}


def _picked(batches: Iterator[np.ndarray], chosen: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    number, last = 0, max(chosen, default=-1)
    for batch in batches:
        for frame in batch:
            if number in chosen:
                yield number, frame
            number += 1
        if number > last:
            return


def _cut(
    frames: Iterator[tuple[int, np.ndarray]], row: LedgerRow, config: DatasetConfig
) -> tuple[dict[int, tuple[np.ndarray, Box]], dict[str, int]]:
    """Aligned faces by the frames' numbers, and why others are missing."""
    stills, dropped = dict[int, tuple[np.ndarray, Box]](), dict[str, int]()
    for number, frame in frames:
        try:
            stills[number] = cut_face(frame, row.item, config)
        except MediaError as error:
            dropped[error.reason] = dropped.get(error.reason, 0) + 1
    return stills, dropped


def _written(
    stills: dict[int, tuple[np.ndarray, Box]], info: VideoInfo, row: LedgerRow, config: DatasetConfig, target: Path
) -> list[Clip]:
    splits, clips, paths = splits_of(list(stills), row, config), list[Clip](), list[Path]()
    try:
        for number, (still, box) in stills.items():
            if number not in splits:
                continue
            path = target / f"{Path(row.item).stem}-{number:06d}.png"
            paths.append(path)
            Image.fromarray(still).save(path, format="PNG")
            clips.append(
                Clip(
                    id=path.stem,
                    path=path.name,
                    split=splits[number],
                    identity=whose(row, config.identity_pattern),
                    num_frames=1,
                    fps=info.fps,
                    size_px=config.size_px,
                    box=box[:],
                    start_frame=number,
                    start_s=round(number / info.fps, 3),
                    sha256=sha256_of(path),
                    origin=row.origin,
                    origin_sha256=row.sha256,
                    decoder=info.decoder,
                )
            )
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return clips
