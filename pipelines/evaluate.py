"""Judges a trained model: every clip of the test split is reconstructed from its first frame, beside doing nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.contracts import INDEX_NAME, ShardClip, Split
from models.errors import ClipError, must
from pipelines import plots, strips
from pipelines.engines import Device, Engine, from_checkpoint
from pipelines.params import EvaluationConfig, Params
from pipelines.progress import bar
from pipelines.stage import Paths, fresh_folder, only_writer, write_report, write_text
from training.checkpoint import CheckpointInfo
from training.metrics.catalog import METRICS
from training.metrics.l1 import copy_source_l1, frame_l1
from training.shard_reader import ShardReader

logger = logging.getLogger(__name__)

JUDGED: tuple[Split, ...] = ("test", "unseen")
CSV_FIELDS = ("video", "split", "identity", "frames", "l1", "copy_source_l1", "ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """One clip's figures."""

    video: str
    split: Split
    identity: str
    num_frames: int
    l1: float
    """Mean over the clip's frames, images in [0, 1]."""
    copy_source_l1: float
    """The same with the first frame shown unmoved."""

    @property
    def ratio(self) -> float | None:
        """L1 over copy-source; None for a clip that does not move at all."""
        return self.l1 / self.copy_source_l1 if self.copy_source_l1 > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScore:
    """Figures over all clips of a split."""

    l1: float
    """Mean over all frames of all videos, as published evaluations take it."""
    copy_source_l1: float
    ratio: float | None
    """L1 over copy-source: below 1 the model beats doing nothing; None when nothing moves."""
    l1_mean_of_videos: float
    """Mean over the videos' means, so that long ones weigh no more."""
    copy_source_l1_mean_of_videos: float
    num_videos: int
    num_frames: int
    num_identities: int
    num_videos_better: int
    """Videos on which the model beats copy-source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReport:
    """What ``reports/evaluate/<name>.json`` holds."""

    experiment: str
    preset: str
    dataset: str
    seed: int
    metric: str
    """Name in the catalogue, where its protocol stands; it would name the backbone if it rested on one."""
    split_rule: str
    test: SplitScore
    unseen: SplitScore | None
    """Identities kept out of the training; None when the data set keeps none."""
    size_px: int
    max_frames: int | None
    step: int
    images_seen: int
    weights_sha256: str
    data_sha256: str
    """Of the shards' index, which holds the checksum of every shard."""
    trained_on_same_data: bool | None
    """The model's own record of its data's checksum equals ``data_sha256``; None: it has none."""
    device: str
    seconds: float
    strips: tuple[str, ...]
    """Picture files in the folder beside the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A few frames of one clip, kept to be drawn."""

    score: VideoScore
    positions: tuple[int, ...]
    source: np.ndarray
    """(H, W, 3), float in [0, 1]."""
    driving: np.ndarray
    """(n, H, W, 3), float in [0, 1]."""
    result: np.ndarray


def run(name: str, params: Params, paths: Paths, *, device: Device = "auto") -> EvaluateReport:
    """Evaluate an experiment's exported model on its data set's test (and unseen) clips.

    Writes the report, a table of the videos, a bar plot and strips of pictures.

    Raises:
        ParamsError: the experiment is unknown.
        CheckpointError: it has no exported model.
        ClipError: its shards are missing, broken, of another size, or hold no test clip.
    """
    experiment, options = params.experiment(name), params.evaluation
    target, started_s = paths.report("evaluate", name), time.perf_counter()
    with only_writer(target):
        engine, info = from_checkpoint(paths.trained(name), device=device, batch_size=options.batch_size)
        reader = ShardReader(paths.shards(experiment.dataset))
        scores, shown = judge(engine, reader, options)
        data = hashlib.sha256((reader.folder / INDEX_NAME).read_bytes()).hexdigest()
        report = EvaluateReport(
            experiment=name,
            preset=info.preset,
            dataset=experiment.dataset,
            seed=info.train.seed,
            metric=METRICS["l1"].name,
            split_rule=reader.index.split_rule,
            test=summarise([score for score in scores if score.split == "test"]),
            unseen=_unseen(scores),
            size_px=engine.size_px,
            max_frames=options.max_frames,
            step=info.step,
            images_seen=info.images_seen,
            weights_sha256=info.sha256,
            device=str(engine.device),
            seconds=round(time.perf_counter() - started_s, 3),
            strips=tuple(_strip_name(entry.score) for entry in shown),
            data_sha256=data,
            trained_on_same_data=_same_data(info, data),
        )
        _draw(paths.pictures("evaluate", name), name, scores, shown)
        write_text(target.with_name(f"{name}-videos.csv"), table(scores))
        write_report(target, report)
    _log(report)
    return report


def judge(engine: Engine, reader: ShardReader, options: EvaluationConfig) -> tuple[list[VideoScore], list[Shown]]:
    """Reconstruct every clip of the judged splits.

    Args:
        engine: finds keypoints and renders.
        reader: of the shards.
        options: how many frames, how many at once, how many strips of how many columns.

    Returns:
        The figures of each clip in the order test, unseen; and what the strips show.

    Raises:
        ClipError: no test clip, or frames of another size than the model's.
    """
    if engine.size_px != reader.index.size_px:
        got, fix = f"{reader.index.size_px} px", "Evaluate on the shards that it was trained on"
        raise ClipError(must(str(reader.folder), f"hold frames of the model's {engine.size_px} px", got, fix))
    clips = [clip for split in JUDGED for clip in reader.clips(split)]
    if not reader.clips("test"):
        fix = "Raise datasets.<name>.test_share, or add sources"
        raise ClipError(must(str(reader.folder), "hold a clip of split test", "none", fix))
    chosen = {clips[place].id for place in strips.spread(len(clips), options.num_strips)}
    scores, shown = [], []
    for clip in bar(clips, label="reconstructing", total=len(clips)):
        columns = strips.spread(_num_frames(clip, options), options.strip_frames if clip.id in chosen else 0)
        score, pictures = reconstruct(engine, reader, clip, options=options, columns=columns)
        scores.append(score)
        shown += [pictures] if pictures else []
    return scores, shown


def reconstruct(
    engine: Engine, reader: ShardReader, clip: ShardClip, *, options: EvaluationConfig, columns: Sequence[int] = ()
) -> tuple[VideoScore, Shown | None]:
    """Reconstruct one clip from its first frame, some frames at a time.

    Args:
        engine: finds keypoints and renders.
        reader: of the shards.
        clip: which one.
        options: number of frames, and how many at once.
        columns: positions of the frames to keep for a strip.
    """
    num_frames = _num_frames(clip, options)
    source = reader.frames(clip, [0])[0].astype(np.float32) / 255
    sums, kept = np.zeros(2, dtype=np.float64), []
    for start in range(0, num_frames, options.batch_size):
        positions = range(start, min(start + options.batch_size, num_frames))
        truth = reader.frames(clip, positions).astype(np.float32) / 255
        result = engine.render(source, engine.keypoints(truth))
        sums += frame_l1(result, truth).sum(dtype=np.float64), copy_source_l1(truth, source).sum(dtype=np.float64)
        kept += [(truth[place - start], result[place - start]) for place in columns if place in positions]
    score = VideoScore(
        video=clip.id,
        split=clip.split,
        identity=clip.identity,
        num_frames=num_frames,
        l1=float(sums[0] / num_frames),
        copy_source_l1=float(sums[1] / num_frames),
    )
    if not kept:
        return score, None
    driving, results = (np.stack(frames) for frames in zip(*kept, strict=True))
    return score, Shown(score=score, positions=tuple(columns), source=source, driving=driving, result=results)


def summarise(scores: Sequence[VideoScore]) -> SplitScore:
    """The figures over some videos (one or more)."""
    frames = np.array([score.num_frames for score in scores], dtype=np.float64)
    model = np.array([score.l1 for score in scores])
    nothing = np.array([score.copy_source_l1 for score in scores])
    l1, copy_l1 = float(np.average(model, weights=frames)), float(np.average(nothing, weights=frames))
    return SplitScore(
        l1=l1,
        copy_source_l1=copy_l1,
        ratio=l1 / copy_l1 if copy_l1 > 0 else None,
        l1_mean_of_videos=float(model.mean()),
        copy_source_l1_mean_of_videos=float(nothing.mean()),
        num_videos=len(scores),
        num_frames=int(frames.sum()),
        num_identities=len({score.identity for score in scores}),
        num_videos_better=int((model < nothing).sum()),
    )


def table(scores: Sequence[VideoScore]) -> str:
    """The videos' figures as CSV, worst ratio first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for score in sorted(scores, key=lambda score: (score.split, -(score.ratio or 0.0), score.video)):
        ratio = "" if score.ratio is None else f"{score.ratio:.6f}"
        figures = (f"{score.l1:.8f}", f"{score.copy_source_l1:.8f}", ratio)
        writer.writerow((score.video, score.split, score.identity, score.num_frames, *figures))
    return out.getvalue()


def _num_frames(clip: ShardClip, options: EvaluationConfig) -> int:
    return clip.num_frames if options.max_frames is None else min(clip.num_frames, options.max_frames)


def _unseen(scores: Sequence[VideoScore]) -> SplitScore | None:
    chosen = [score for score in scores if score.split == "unseen"]
    return summarise(chosen) if chosen else None


def _same_data(info: CheckpointInfo, data: str) -> bool | None:
    if not info.data:
        return None
    if info.data != data:
        logger.warning("the model was trained on other shards (%s) than these (%s)", info.data[:12], data[:12])
    return info.data == data


def _strip_name(score: VideoScore) -> str:
    return f"strip-{re.sub(r'[^A-Za-z0-9._-]+', '-', score.video)}.png"


def _draw(folder: Path, name: str, scores: Sequence[VideoScore], shown: Sequence[Shown]) -> None:
    with fresh_folder(folder) as making:
        rows = [(f"{score.video} ({score.split})", score.l1, score.copy_source_l1) for score in scores]
        (making / "videos.png").write_bytes(plots.video_bars(rows, title=f"{name}: L1 of each video"))
        for entry in shown:
            source = np.broadcast_to(entry.source, entry.driving.shape)
            picture = {
                "source": source,
                "driving": entry.driving,
                "result": entry.result,
                "|difference|": strips.heat(entry.result, entry.driving),
            }
            heads = [f"frame {position}" for position in entry.positions]
            strips.write_strip(making / _strip_name(entry.score), picture, heads)


def _log(report: EvaluateReport) -> None:
    for name, score in (("test", report.test), ("unseen", report.unseen)):
        if score is not None:
            logger.info(
                "%s, %s (split by %s, %d videos, %d frames): L1 %.4f, copy-source %.4f, ratio %s",
                report.experiment,
                name,
                report.split_rule,
                score.num_videos,
                score.num_frames,
                score.l1,
                score.copy_source_l1,
                "-" if score.ratio is None else f"{score.ratio:.3f}",
            )
