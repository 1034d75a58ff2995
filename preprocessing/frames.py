"""From a film to distinct stills, evenly over its length.

The film is divided into as many equal stretches as stills are wanted. Of each stretch the frame in the middle is taken;
where that is black, or too like a still that is kept, the frames at its quarters are tried.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from models.contracts import Clip, Split
from models.errors import must
from preprocessing.boxes import central_square
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames, limits_of, turned_away
from preprocessing.ledger import LedgerRow
from preprocessing.splits import identity_of, split_by_time
from preprocessing.video import MediaError, VideoInfo, open_video

THUMBNAIL_PX = 32
BLACK_MEAN, BLACK_CONTRAST = 16.0, 6.0
"""A frame darker than the one, or flatter (standard deviation) than the other, shows nothing. Gray values, 0-255."""
_TRIES = (0.5, 0.25, 0.75)


@dataclass(slots=True)
class _Chosen:
    """The stills kept so far."""

    frames: list[tuple[int, np.ndarray]] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def stills_item(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """Take the stills out of one film; nothing but the files in ``target`` and the result is touched.

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set: how many stills, how distinct, which size.
        target: folder for the stills, which exists.

    Returns:
        A row of one frame for each still, and the item's ledger row.

    Raises:
        EnvironmentProblem: the stills can't be written (a full disk).
    """
    with turned_away(row, target) as failed:
        return _stills(row, source, config, target)
    return ItemResult(row=row.rejected(failed[0]))


def _stills(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    with open_video(source, limits=limits_of(config)) as reader:
        chosen, count = _Chosen(), 0
        wanted = _candidates(reader.info.num_frames, config.num_stills)
        stretch: list[tuple[int, np.ndarray]] = []
        for batch in reader.batches():
            for number, frame in enumerate(batch, start=count):
                if number in wanted:
                    stretch.append((number, _squared(frame, config.size_px)))
                    if wanted[number] == "last":
                        _choose(stretch, chosen, config.min_difference)
                        stretch = []
            count += len(batch)
        _choose(stretch, chosen, config.min_difference)
        info = reader.info
    if not chosen.frames:
        got = f"none in {count} frames"
        raise MediaError(must(row.item, "hold a frame that is not black", got), "no-distinct-frame")
    row = replace(row, state="kept", decoder=info.decoder)
    clips = _write(chosen, row, config, target, info=info)
    dropped = {**chosen.dropped, "gap": len(chosen.frames) - len(clips)}
    return ItemResult(
        row=replace(row, num_clips=len(clips)),
        clips=tuple(clips),
        num_frames=count,
        seconds=count / info.fps,
        dropped={reason: number for reason, number in dropped.items() if number},
    )


def _candidates(num_frames: int, num_stills: int) -> dict[int, Literal["", "last"]]:
    """Frames that may become stills; the last of each stretch is marked."""
    marks: dict[int, Literal["", "last"]] = {}
    length = num_frames / num_stills
    for number in range(num_stills):
        places = sorted({min(int((number + share) * length), num_frames - 1) for share in _TRIES})
        marks.update(dict.fromkeys(places, ""))
        marks[places[-1]] = "last"
    return marks


def _choose(stretch: list[tuple[int, np.ndarray]], chosen: _Chosen, min_difference: float) -> None:
    """Keep the first good frame of a stretch: its middle, else the others in order."""
    if not stretch:
        return
    middle = len(stretch) // 2
    reason = ""
    for number, frame in [stretch[middle], *stretch[:middle], *stretch[middle + 1 :]]:
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        thumbnail = cv2.resize(gray, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
        if thumbnail.mean() < BLACK_MEAN or thumbnail.std() < BLACK_CONTRAST:
            reason = reason or "black"
        elif any(np.abs(thumbnail - kept).mean() < min_difference for kept in chosen.thumbnails):
            reason = reason or "alike"
        else:
            chosen.frames.append((number, frame))
            chosen.thumbnails.append(thumbnail)
            return
    chosen.dropped[reason] += 1


def _squared(frame: np.ndarray, size_px: int) -> np.ndarray:
    box = central_square((frame.shape[1], frame.shape[0]))
    return np.asarray(crop_frames(frame[None], box, size_px=size_px)[0])


def _write(chosen: _Chosen, row: LedgerRow, config: DatasetConfig, target: Path, *, info: VideoInfo) -> list[Clip]:
    frames = sorted(chosen.frames, key=lambda entry: entry[0])
    splits = _splits([number for number, _ in frames], config)
    template = Clip(
        id="",
        path="",
        split="train",
        identity=identity_of(row.item, config.identity_pattern),
        num_frames=1,
        fps=info.fps,
        size_px=config.size_px,
        box=central_square((info.width, info.height))[:],
        start_frame=0,
        sha256="",
        origin=row.origin,
        origin_sha256=row.sha256,
        decoder=info.decoder,
    )
    clips = []
    for number, frame in frames:
        if number in splits:
            name = f"{Path(row.item).stem}-{number:06d}"
            path = target / f"{name}.png"
            Image.fromarray(frame).save(path)
            file = replace(template, id=name, path=path.name, sha256=sha256_of(path))
            clips.append(replace(file, start_frame=number, split=splits[number]))
    return clips


def _splits(numbers: list[int], config: DatasetConfig) -> dict[int, Split]:
    if config.split != "time":
        return dict.fromkeys(numbers, "train")
    spans = [(number, number + 1) for number in numbers]
    parts = split_by_time(spans, test_share=config.test_share, gap_frames=config.gap_frames, min_frames=1)
    return {start: split for _, (start, _), split in parts}
