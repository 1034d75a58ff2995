"""From a film to distinct stills by scene, evenly over its length.

The film is decoded once. Every frame is measured (`preprocessing.looks`, `preprocessing.scenes`); meanwhile the film
is divided into short slots, `TRIES` for each still that is asked for, and the sharpest frame of each slot waits as a
candidate, already cut to its square, in memory or in a nameless file in the target folder. At the end scenes,
transitions, titles and credits are known, and candidates are chosen (`preprocessing.choose`). The black bars are learnt
on the way: what was cut before they were known well is cut again in a second pass, which ends at the last such frame.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from models.contracts import Clip, Split
from models.errors import must
from preprocessing.boxes import Box
from preprocessing.choose import Candidate, Choice, choose
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames, limits_of, turned_away
from preprocessing.hashing import perceptual_hash
from preprocessing.ledger import LedgerRow
from preprocessing.looks import Bars, Look
from preprocessing.scenes import FATES, READ_EVERY, Scenes, Watcher, find_scenes
from preprocessing.smooth import smooth_path, write_smooth
from preprocessing.splits import split_by_time, whose
from preprocessing.video import FrameReader, Limits, MediaError, VideoInfo, open_video

TRIES = 4
"""Candidates for each still that is asked for."""
_IN_MEMORY_BYTES = 64 << 20
_NUM_BAR_FRAMES = 256


def stills_item(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """Take the stills out of one film; nothing but the files in ``target`` and the result is touched.

    Candidates that do not fit in 64 MiB wait on the disk of ``target``: 12 ``size_px`` squared bytes a still.

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set: how many stills, how distinct, which size.
        target: folder for the stills, which exists.

    Returns:
        A row of one frame for each still, and the item's ledger row. Every decoded frame is kept or counted in
        ``dropped``: ``black``, ``flat``, ``title``, ``credits``, ``transition``, ``blurred``, ``duplicate``,
        ``not-needed``, or ``gap`` between training and test.

    Raises:
        EnvironmentProblem: the stills can't be written (a full disk).
    """
    with turned_away(row, target) as failed:
        return _stills(row, source, config, target)
    return ItemResult(row=row.rejected(failed[0]))


def _stills(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    start, limits = time.monotonic(), limits_of(config)
    with _Squares(config.size_px, target) as squares:
        with open_video(source, limits=limits) as reader:
            film = _watch(reader, config, squares)
        stale = {one.number: one for one in film.candidates if not _fits(one.box, film.bars)}
        if stale:
            left = replace(limits, timeout_s=max(limits.timeout_s - (time.monotonic() - start), 0.001))
            _cut_again(source, left, stale, film.bars.square, squares)
        choice = choose(
            film.candidates,
            film.scenes,
            num_frames=len(film.scenes.fates),
            num_stills=config.num_stills,
            hash_distance=config.hash_distance,
        )
        dropped = _dropped(film.scenes, choice)
        if not choice.kept:
            got = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            raise MediaError(must(row.item, "hold a frame that shows a scene", got), "no-distinct-frame")
        row = replace(row, state="kept", decoder=film.info.decoder)
        chosen = [one for one in film.candidates if one.number in set(choice.kept)]
        clips = _write(chosen, film, row, config, target, squares=squares)
    if len(clips) < len(chosen):
        dropped["gap"] = len(chosen) - len(clips)
    num_frames = len(film.scenes.fates)
    return ItemResult(
        row=replace(row, num_clips=len(clips)),
        clips=tuple(clips),
        num_frames=num_frames,
        seconds=num_frames / film.info.fps,
        dropped=dropped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Film:
    """What is known of a film after one pass."""

    scenes: Scenes
    bars: Bars
    candidates: list[Candidate]
    info: VideoInfo
    times_s: np.ndarray | None
    """When each frame is shown."""


class _Squares:
    """Cut squares that wait for the choice: in memory up to 64 MiB, then in a file without a name."""

    def __init__(self, size_px: int, folder: Path) -> None:
        self.size_px = size_px
        self._num_bytes = size_px * size_px * 3
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - by __exit__
        self._count = 0

    def __enter__(self) -> _Squares:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, square: np.ndarray) -> int:
        """Take a square in; gives its place."""
        self._count += 1
        self.put(self._count - 1, square)
        return self._count - 1

    def put(self, place: int, square: np.ndarray) -> None:
        """Put another square in a place."""
        self._file.seek(place * self._num_bytes)
        self._file.write(np.ascontiguousarray(square).tobytes())

    def get(self, place: int) -> np.ndarray:
        """The square in a place, uint8 RGB."""
        self._file.seek(place * self._num_bytes)
        return np.frombuffer(self._file.read(self._num_bytes), np.uint8).reshape(self.size_px, self.size_px, 3)


class _Slots:
    """Keeps the sharpest frame of each slot of a film, and cuts it when the slot is over."""

    def __init__(self, length: float, calm: float, bars: Bars, squares: _Squares) -> None:
        self._length, self._calm = max(1.0, length), calm
        self._bars, self._squares = bars, squares
        self._best: tuple[bool, float] | None = None
        self._frame: tuple[int, np.ndarray] | None = None
        self._slot = -1
        self.candidates: list[Candidate] = []

    def offer(self, number: int, frame: np.ndarray, look: Look, change: float) -> None:
        """Take the next frame that shows something; the first after a sudden change only if there is no other."""
        slot = int(number / self._length)
        if slot != self._slot:
            self.finish()
            self._slot = slot
        value = (change < self._calm, look.sharpness)
        if self._best is None or value > self._best:
            self._best, self._frame = value, (number, frame)

    def finish(self) -> None:
        """Cut what the slot has."""
        if self._frame is not None and self._best is not None:
            number, frame = self._frame
            box, size_px = self._bars.square, self._squares.size_px
            square = crop_frames(frame[None], box, size_px=size_px)[0]
            self.candidates.append(
                Candidate(
                    number=number,
                    box=box,
                    sharpness=self._best[1],
                    hash=perceptual_hash(square),
                    place=self._squares.add(square),
                )
            )
        self._best = self._frame = None


def _watch(reader: FrameReader, config: DatasetConfig, squares: _Squares) -> _Film:
    """Look at every frame once."""
    info = reader.info
    watcher, bars = Watcher(), Bars(info.width, info.height, cut=config.letterbox == "cut")
    slots = _Slots(info.num_frames / (config.num_stills * TRIES), config.scene_threshold / 3, bars, squares)
    bar_step = READ_EVERY * max(1, info.num_frames // (_NUM_BAR_FRAMES * READ_EVERY))  # text is known there
    for number, frame in _numbered(reader):
        look, change = watcher.add(frame, bars.picture)
        if not (look.is_black or look.is_flat or look.ink is not None):
            if number % bar_step == 0:
                bars.add(frame)
            slots.offer(number, frame, look, change)
    slots.finish()
    return _Film(
        scenes=find_scenes(watcher.finish(), threshold=config.scene_threshold),
        bars=bars,
        candidates=slots.candidates,
        info=reader.info,
        times_s=reader.timestamps(),
    )


def _fits(box: Box, bars: Bars) -> bool:
    """Whether a square holds no bar, and hardly less of the picture than could be had."""
    picture, square = bars.picture, bars.square
    slack = max(1.0, 0.01 * square.width)
    inside = box.within((int(picture.right), int(picture.bottom))) == box
    inside = inside and box.left >= picture.left and box.top >= picture.top
    return inside and all(abs(one - other) <= slack for one, other in zip(box, square, strict=True))


def _cut_again(source: Path, limits: Limits, stale: dict[int, Candidate], box: Box, squares: _Squares) -> None:
    """Cut these candidates by another box."""
    last = max(stale)
    with open_video(source, limits=limits) as reader:
        for number, frame in _numbered(reader):
            if number in stale:
                square = crop_frames(frame[None], box, size_px=squares.size_px)[0]
                squares.put(stale[number].place, square)
                stale[number].box, stale[number].hash = box, perceptual_hash(square)
            if number == last:
                return


def _numbered(reader: FrameReader) -> Iterator[tuple[int, np.ndarray]]:
    number = 0
    for batch in reader.batches():
        for frame in batch:
            yield number, frame
            number += 1


def _dropped(scenes: Scenes, choice: Choice) -> dict[str, int]:
    """Frames that are no still, by reason."""
    left = np.ones(len(scenes.fates), bool)
    left[list((*choice.kept, *choice.duplicates, *choice.blurred))] = False
    counts: dict[str, int] = {name: int((scenes.fates == place).sum()) for place, name in enumerate(FATES) if name}
    counts["blurred"], counts["duplicate"] = len(choice.blurred), len(choice.duplicates)
    counts["not-needed"] = int((left & (scenes.fates == 0)).sum())
    return {reason: count for reason, count in counts.items() if count}


def _write(
    chosen: list[Candidate], film: _Film, row: LedgerRow, config: DatasetConfig, target: Path, *, squares: _Squares
) -> list[Clip]:
    splits = splits_of([one.number for one in chosen], row, config)
    clips, paths = list[Clip](), list[Path]()
    try:
        for one in chosen:
            if one.number in splits:
                name = f"{Path(row.item).stem}-{one.number:06d}"
                paths.append(target / f"{name}.png")
                still = squares.get(one.place)
                Image.fromarray(still).save(paths[-1])
                smooth = write_smooth(still, paths[-1]) if config.smooth else None
                clip = _clip(paths[-1], one, film, row, config, split=splits[one.number])
                clips.append(replace(clip, smooth=smooth))
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
            smooth_path(path).unlink(missing_ok=True)
        raise
    return clips


def _clip(path: Path, one: Candidate, film: _Film, row: LedgerRow, config: DatasetConfig, *, split: Split) -> Clip:
    times_s = film.times_s
    known = times_s is not None and one.number < len(times_s)
    return Clip(
        id=path.stem,
        path=path.name,
        split=split,
        identity=whose(row, config.identity_pattern),
        num_frames=1,
        fps=film.info.fps,
        size_px=config.size_px,
        box=one.box[:],
        start_frame=one.number,
        start_s=round(float(times_s[one.number]) if times_s is not None and known else one.number / film.info.fps, 3),
        sha256=sha256_of(path),
        origin=row.origin,
        origin_sha256=row.sha256,
        decoder=film.info.decoder,
    )


def splits_of(numbers: list[int], row: LedgerRow, config: DatasetConfig) -> dict[int, Split]:
    """The split of each still of one source, by its frame's number; those in the gap between training and test lack."""
    if config.split != "time":
        return dict.fromkeys(numbers, row.split or "train")
    spans = [(number, number + 1) for number in numbers]
    parts = split_by_time(spans, test_share=config.test_share, gap_frames=config.gap_frames, min_frames=1)
    return {start: split for _, (start, _), split in parts}
