"""The stylise-clips stage: shards of motion clips, and beside some of them the same clip as a system's cartoon.

A motion model of faces and cartoons is trained on both. The clips come along as they are, their JPEG bytes untouched.
A cartoon does not flicker: one style serves the whole clip, all frames have the generator's fixed noise, the face is
cut by one square, and its codes are smoothed over time.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.contracts import INDEX_NAME, ShardClip, ShardFile, ShardIndex
from models.errors import ClipError, ParamsError, Problem, must
from pipelines.clip_cartoons import cartoon
from pipelines.dualstyle_steps import experiment_name
from pipelines.face_engines import TorchFaces, from_checkpoint
from pipelines.journal import Work, key_of, resumed, same_file
from pipelines.params import Params
from pipelines.settings import StylisedDataset
from pipelines.stage import Paths, only_writer, write_report
from pipelines.strips import spread, write_strip
from preprocessing.shards import encode_frames, file_sha256, write_index, write_shard
from training.codes import codes_sha256
from training.randomness import keyed
from training.shard_reader import ShardReader

log = logging.getLogger(__name__)

STAGE = "stylise-clips"
JPEG_QUALITY = 95
"""Where the clips' index says none."""
SHOWN, SHOWN_FRAMES = 3, 8
"""Clips in the report's strip, and frames of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyliseClipsReport:
    """What the stage made; reports/stylise-clips/<name>.json."""

    name: str
    dataset: str
    system: str
    clips: int
    """All: those of the data set, and their stylised copies."""
    frames: int
    clips_of_split: Mapping[str, int]
    stylised_clips: int
    stylised_frames: int
    stylised_of_split: Mapping[str, int]
    num_unaligned: int
    """Stylised clips in which no face was found: their whole frames were taken for the face."""
    unaligned: tuple[str, ...]
    """Their ids."""
    styles: Mapping[str, int]
    """Style -> clips in it."""
    smoothing: float
    size_px: int
    split_rule: str
    data_sha256: str
    """Of the data set's index."""
    weights_sha256: str
    index_sha256: str
    clips_before: int
    """Of the stylised clips, by an earlier run of the stage with the same settings, clips and networks."""
    seconds: float
    frames_per_s: float
    """Stylised frames that were made now; 0: none were."""
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A clip that gets a stylised copy."""

    clip: ShardClip
    style: str

    @property
    def id(self) -> str:
        """Of the copy."""
        return f"{self.clip.id}-{self.style}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A shard of copies."""

    file: ShardFile
    picks: tuple[Pick, ...]
    unaligned: tuple[str, ...]
    is_new: bool


def run(name: str, params: Params, paths: Paths) -> StyliseClipsReport:
    """Make the shards of a stylised data set.

    What is done is not done again while the settings, the clips and the networks are the same; a stage that was killed
    goes on with the next shard, and leaves the old shards until all are done.

    Args:
        name: of the stylised data set; its shards lie under this name.
        params: of the project.
        paths: of the project.

    Raises:
        CheckpointError: the system's DualStyleGAN is not trained, or its codes are missing.
        ClipError: there are no clips, or their shards are broken.
        EnvironmentProblem: another process writes the same shards, or the face detector's weights are missing.
        ParamsError: the stylised data set is called as the one that it is made of.
    """
    return stylise_clips(name, params.stylised(name), paths)


def stylise_clips(name: str, settings: StylisedDataset, paths: Paths) -> StyliseClipsReport:
    """As `run`, with settings from elsewhere."""
    started_s, target = time.monotonic(), paths.shards(name)
    if name == settings.dataset:
        rule = "have a name other than its data set's, whose shards it would replace"
        raise ParamsError([Problem("dataset", settings.dataset, rule)])
    with only_writer(target):
        reader = ShardReader(paths.shards(settings.dataset))
        trained, codes = paths.trained(experiment_name(settings.system, "target")), paths.refined(settings.system)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        engine, info = from_checkpoint(trained, codes, device=device)
        picks = picked(reader.clips(), settings, engine.styles)
        with resumed(target) as work:
            originals = [_kept(number, reader, work) for number in range(len(reader.index.shards))]
            known = (info.sha256, codes_sha256(codes), settings.structure, settings.colour, settings.smoothing)
            made = list(_all_made(picks, reader, engine, settings, key_of(known), work))
            work.sweep([*map(_original, range(len(originals))), *(shard.file.path for shard in made)])
            write_index(work.folder, _index(name, reader.index, originals, made))
        drawn = _draw(picks, reader, ShardReader(target), paths.pictures(STAGE, name))
        report = _report(name, settings, paths, made, drawn, info.sha256, time.monotonic() - started_s)
        write_report(paths.report(STAGE, name), report)
    return report


def picked(clips: Sequence[ShardClip], settings: StylisedDataset, styles: Sequence[str]) -> list[Pick]:
    """Which clips get a stylised copy, and in which style, in the clips' order.

    Both depend on the seed and the clip's id alone, so that a new clip moves no other. Where the share leaves a split
    without any, the clip that is drawn first is taken.

    Args:
        clips: of a data set.
        settings: share, styles and seed.
        styles: the system's.

    Raises:
        ClipError: there are no clips, or a copy would have the id of a clip.
    """
    if not clips:
        raise ClipError(must(f"data set {settings.dataset}", "hold a clip", "none", "Cut and shard it again"))
    used = [styles[place] for place in spread(len(styles), settings.styles or len(styles))]
    drawn = {clip.id: float(keyed(settings.seed, clip.id, "share").random()) for clip in clips}
    chosen = {name for name, number in drawn.items() if number < settings.share}
    for split in {clip.split for clip in clips} if settings.share > 0 else ():
        names = [clip.id for clip in clips if clip.split == split]
        if not chosen.intersection(names):
            chosen.add(min(names, key=lambda name: (drawn[name], name)))
    picks = [
        Pick(clip=clip, style=used[int(keyed(settings.seed, clip.id, "style").integers(len(used)))])
        for clip in clips
        if clip.id in chosen
    ]
    given = Counter([*drawn, *(pick.id for pick in picks)])
    twice = [name for name, count in given.items() if count > 1]
    if twice:
        rule = "give every clip and every copy a name of its own"
        raise ClipError(must(f"data set {settings.dataset}", rule, twice[0], "Rename its source"))
    return picks


def _original(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def _kept(number: int, reader: ShardReader, work: Work) -> ShardFile:
    """A shard of the data set as it is, under its number: a second name of the file where that can be."""
    shard, item = reader.index.shards[number], _original(number)
    path, here = (reader.folder / shard.path).resolve(), work.folder / item
    if work.result(item, shard.sha256) is None:
        found = file_sha256(path)
        if found != shard.sha256:
            rule = f"have sha256 {shard.sha256[:12]} as indexed"
            raise ClipError(must(str(path), rule, found[:12], "Make the shards again"))
        here.unlink(missing_ok=True)
        same_file(path, here)
        work.add(item, shard.sha256, {}, [item])
    return ShardFile(**{**asdict(shard), "path": item})


def _all_made(
    picks: Sequence[Pick], reader: ShardReader, engine: TorchFaces, settings: StylisedDataset, known: str, work: Work
) -> Iterator[_Made]:
    """A shard of copies for every shard with clips that get one, so that new shards change no others."""
    for number, shard in enumerate(reader.index.shards):
        here = tuple(pick for pick in picks if pick.clip.shard == number)
        if not here:
            continue
        item = f"stylised-{number:05d}.parquet"
        key = key_of(known, shard.sha256, tuple((pick.id, pick.clip.row) for pick in here))
        result = work.result(item, key)
        if result is None:
            file, unaligned = _write(here, reader, engine, settings, work.folder / item)
            work.add(item, key, {"file": asdict(file), "unaligned": unaligned}, [item])
            yield _Made(file=file, picks=here, unaligned=tuple(unaligned), is_new=True)
        else:
            file = ShardFile(**result["file"])
            yield _Made(file=file, picks=here, unaligned=tuple(result["unaligned"]), is_new=False)


def _write(
    picks: Sequence[Pick], reader: ShardReader, engine: TorchFaces, settings: StylisedDataset, path: Path
) -> tuple[ShardFile, list[str]]:
    quality, unaligned = reader.index.extra.get("jpeg_quality", JPEG_QUALITY), list[str]()

    def rows() -> Iterator[tuple[str, list[bytes]]]:
        for pick in picks:
            started_s = time.monotonic()
            batches, is_aligned = cartoon(pick.clip, pick.style, reader, engine, settings)
            if not is_aligned:
                unaligned.append(pick.id)
                log.warning("clip %s: no face was found, its whole frames are stylised", pick.clip.id)
            yield pick.id, [coded for batch in batches for coded in encode_frames(batch, quality=quality)]
            rate = pick.clip.num_frames / max(time.monotonic() - started_s, 1e-9)
            log.info("stylised %s: %d frames, %.1f frames/s", pick.id, pick.clip.num_frames, rate)

    return write_shard(rows(), path), unaligned


def _index(name: str, index: ShardIndex, originals: Sequence[ShardFile], made: Sequence[_Made]) -> ShardIndex:
    """The clips as they were, then the copies; a person's copies are one identity, who shares the person's split."""
    copies = [
        ShardClip(**{**asdict(pick.clip), **_changed(pick), "shard": shard, "row": row})
        for shard, one in enumerate(made, start=len(originals))
        for row, pick in enumerate(one.picks)
    ]
    return ShardIndex(
        dataset=name,
        size_px=index.size_px,
        split_rule=index.split_rule,
        shards=(*originals, *(one.file for one in made)),
        clips=(*index.clips, *copies),
        extra=index.extra,
    )


def _changed(pick: Pick) -> dict[str, Any]:
    return {"id": pick.id, "identity": f"{pick.clip.identity}-stylised"}


def _draw(picks: Sequence[Pick], before: ShardReader, after: ShardReader, folder: Path) -> tuple[str, ...]:
    """A strip: of some clips the frames, and below them those of the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    if not picks:
        return ()
    copies, rows = {clip.id: clip for clip in after.clips()}, dict[str, np.ndarray]()
    for place in spread(len(picks), SHOWN):
        pick = picks[place]
        shown = spread(pick.clip.num_frames, SHOWN_FRAMES)
        rows[pick.clip.id], rows[pick.id] = before.frames(pick.clip, shown), after.frames(copies[pick.id], shown)
    write_strip(folder / "strip.png", rows)
    return ("strip.png",)


def _report(
    name: str,
    settings: StylisedDataset,
    paths: Paths,
    made: Sequence[_Made],
    drawn: tuple[str, ...],
    weights_sha256: str,
    seconds: float,
) -> StyliseClipsReport:
    index = ShardReader(paths.shards(name)).index
    picks = [pick for shard in made for pick in shard.picks]
    new_frames = sum(pick.clip.num_frames for shard in made if shard.is_new for pick in shard.picks)
    unaligned = tuple(sorted(one for shard in made for one in shard.unaligned))
    return StyliseClipsReport(
        name=name,
        dataset=settings.dataset,
        system=settings.system,
        clips=len(index.clips),
        frames=sum(clip.num_frames for clip in index.clips),
        clips_of_split=dict(Counter(clip.split for clip in index.clips)),
        stylised_clips=len(picks),
        stylised_frames=sum(pick.clip.num_frames for pick in picks),
        stylised_of_split=dict(Counter(pick.clip.split for pick in picks)),
        num_unaligned=len(unaligned),
        unaligned=unaligned,
        styles=dict(Counter(pick.style for pick in picks)),
        smoothing=settings.smoothing,
        size_px=index.size_px,
        split_rule=index.split_rule,
        data_sha256=file_sha256(paths.shards(settings.dataset) / INDEX_NAME),
        weights_sha256=weights_sha256,
        index_sha256=file_sha256(paths.shards(name) / INDEX_NAME),
        clips_before=sum(len(shard.picks) for shard in made if not shard.is_new),
        seconds=round(seconds, 3),
        frames_per_s=round(new_frames / seconds, 1),
        pictures=drawn,
    )
