"""Judges a trained model: every clip of the test split is reconstructed from its first frame, beside doing nothing."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.contracts import INDEX_NAME, ShardClip, Split
from models.errors import ClipError, must
from pipelines import detectors, plots, strips
from pipelines.engines import Device
from pipelines.evaluate_work import Examined, Job, Task, estimate_s, examine_all, look_every, num_frames_of
from pipelines.journal import Work, key_of, resumed
from pipelines.params import ClusterConfig, EvaluationConfig, Params
from pipelines.progress import bar
from pipelines.score import Network, Rests, SplitScore, VideoScore, summarise, table
from pipelines.stage import Paths, only_writer, write_report, write_text
from pipelines.weights import folder_of
from training.checkpoint import CheckpointInfo, read_info
from training.metrics.catalog import METRICS
from training.shard_reader import ShardReader

logger = logging.getLogger(__name__)

JUDGED: tuple[Split, ...] = ("test", "unseen")
PROTOCOL = 1
"""Changes with everything that changes figures: what a killed evaluation has done counts no longer then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A clip that has no figures."""

    video: str
    split: Split
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReport:
    """What ``reports/evaluate/<name>.json`` holds."""

    experiment: str
    preset: str
    dataset: str
    seed: int
    metric: str
    """The one by which models are compared; name in the catalogue, where its protocol stands."""
    split_rule: str
    test: SplitScore
    unseen: SplitScore | None
    """Identities kept out of the training; None when the data set keeps none, or all of them failed."""
    size_px: int
    max_frames: int | None
    detect_every: int
    """Detectors looked at every so many-th frame."""
    jpeg_quality: int | None
    """Of the frames in the shards, which truth and sources are decoded from; None: not told."""
    detectors: tuple[Network, ...]
    """That metrics rest on, with their files' checksums."""
    failures: tuple[Failure, ...]
    """Clips that are in none of the figures."""
    step: int
    images_seen: int
    weights_sha256: str
    data_sha256: str
    """Of the shards' index, which holds the checksum of every shard."""
    trained_on_same_data: bool | None
    """The model's own record of its data's checksum equals ``data_sha256``; None: it has none."""
    device: str
    num_workers: int
    """Processes that did it."""
    num_resumed: int
    """Clips that an evaluation which did not end had done before."""
    seconds: float
    strips: tuple[str, ...]
    """Picture files in the folder beside the report."""


def run(name: str, params: Params, paths: Paths, *, device: Device = "auto") -> EvaluateReport:
    """Evaluate an experiment's exported model on its data set's test (and unseen) clips.

    Writes the report, a table of the videos, a bar plot and strips of pictures. Killed, it goes on with the next clip.

    Raises:
        ParamsError: the experiment is unknown.
        CheckpointError: it has no exported model.
        ClipError: its shards are missing, broken, of another size, or hold no test clip; or every test clip fails.
        EnvironmentProblem: no Ray, or a detector or device can't be used.
    """
    experiment, options = params.experiment(name), params.evaluation
    target, started_s = paths.report("evaluate", name), time.perf_counter()
    folder = paths.pictures("evaluate", name)
    with only_writer(target):
        info, reader = read_info(paths.trained(name)), ShardReader(paths.shards(experiment.dataset))
        clips = judged_clips(reader, info.model.size_px)
        data = hashlib.sha256((reader.folder / INDEX_NAME).read_bytes()).hexdigest()
        kind, weights = params.dataset(experiment.dataset).kind, folder_of(paths)
        job = Job(
            trained=str(paths.trained(name).absolute()),
            shards=str(paths.shards(experiment.dataset).absolute()),
            kind=kind,
            weights=str(weights.absolute()),
            rests=detectors.rests(kind, options, weights),
            options=options,
            device=device,
        )
        _tell_absent(job.rests)
        with resumed(folder) as done:
            results, num_resumed = _examine(job, clips, (info, data), done, params.cluster)
            scores = _scores(name, clips, results)
            _draw(done.folder, name, scores)
        report = EvaluateReport(
            experiment=name,
            preset=info.preset,
            dataset=experiment.dataset,
            seed=info.train.seed,
            metric=METRICS["l1"].name,
            split_rule=reader.index.split_rule,
            test=summarise([score for score in scores if score.split == "test"], job.rests),
            unseen=_unseen(scores, job.rests),
            size_px=info.model.size_px,
            max_frames=options.max_frames,
            detect_every=look_every(options, info.model.size_px),
            jpeg_quality=reader.index.extra.get("jpeg_quality"),
            detectors=tuple(one for one in (job.rests.points, job.rests.identity) if isinstance(one, Network)),
            failures=_failures(clips, results),
            step=info.step,
            images_seen=info.images_seen,
            weights_sha256=info.sha256,
            device=", ".join(sorted({done.device for done in results.values() if done.device})),
            num_workers=len({done.worker for done in results.values() if done.worker}),
            num_resumed=num_resumed,
            seconds=round(time.perf_counter() - started_s, 3),
            strips=tuple(strip_name(video) for video in _shown(clips, options) if results[video].score),
            data_sha256=data,
            trained_on_same_data=_same_data(info, data),
        )
        write_text(target.with_name(f"{name}-videos.csv"), table(scores, job.rests))
        write_report(target, report)
        if not report.failures:
            done.sweep(())  # what is finished begins anew; what failed is tried again, the rest stands
    _log(report)
    return report


def judged_clips(reader: ShardReader, size_px: int) -> list[ShardClip]:
    """The clips to judge, in the order test, unseen.

    Raises:
        ClipError: no test clip, or frames of another size than the model's.
    """
    if size_px != reader.index.size_px:
        got, fix = f"{reader.index.size_px} px", "Evaluate on the shards that it was trained on"
        raise ClipError(must(str(reader.folder), f"hold frames of the model's {size_px} px", got, fix))
    if not reader.clips("test"):
        fix = "Raise datasets.<name>.test_share, or add sources"
        raise ClipError(must(str(reader.folder), "hold a clip of split test", "none", fix))
    return [clip for split in JUDGED for clip in reader.clips(split)]


def _shown(clips: Sequence[ShardClip], options: EvaluationConfig) -> list[str]:
    """The clips of which strips are drawn."""
    return [clips[place].id for place in strips.spread(len(clips), options.num_strips)]


def _examine(
    job: Job, clips: Sequence[ShardClip], of: tuple[CheckpointInfo, str], done: Work, cluster: ClusterConfig
) -> tuple[dict[str, Examined], int]:
    """What became of each clip, and how many of those an earlier run had done."""
    info, data = of
    shown, options = set(_shown(clips, job.options)), job.options
    columns = {
        clip.id: tuple(strips.spread(num_frames_of(clip, options), options.strip_frames if clip.id in shown else 0))
        for clip in clips
    }
    settings = replace(options, num_workers=None)
    shared = (PROTOCOL, info.sha256, data, settings, job.kind, job.rests, job.device)
    keys = {clip.id: key_of(*shared, clip, columns[clip.id]) for clip in clips}
    stored = {clip.id: done.result(clip.id, keys[clip.id]) for clip in clips}
    results = {video: _stored(raw) for video, raw in stored.items() if raw}
    left = [clip for clip in clips if clip.id not in results]
    done.sweep(results)
    num_resumed = len(results)
    if results:
        logger.info("evaluate: %d of %d clips are done already", num_resumed, len(clips))
    looks = not isinstance(job.rests.points, str)
    work_s = estimate_s(left, options, info.model.size_px, looks=looks)
    found = examine_all(job, [Task(video=c.id, columns=columns[c.id]) for c in left], cluster=cluster, work_s=work_s)
    for one in bar(found, label="reconstructing", total=len(left)):
        results[one.video] = one
        if one.score is None:
            logger.warning("%s failed: %s", one.video, one.problem)
            continue
        files = [strip_name(one.video)] if one.strip else []
        for file in files:
            (done.folder / file).write_bytes(one.strip)
        done.add(one.video, keys[one.video], {**asdict(one), "strip": None}, files)
    done.sweep([video for video, one in results.items() if one.score])
    return results, num_resumed


def _stored(raw: Mapping[str, object]) -> Examined:
    score = VideoScore.from_json(raw["score"])  # type: ignore[arg-type]
    return Examined(video=score.video, score=score, device=str(raw["device"]), worker=str(raw["worker"]))


def _scores(name: str, clips: Sequence[ShardClip], results: Mapping[str, Examined]) -> list[VideoScore]:
    scores = [score for clip in clips if (score := results[clip.id].score)]
    if not any(score.split == "test" for score in scores):
        failed = _failures(clips, results)
        got = f"{len(failed)} failures, the first: {failed[0].reason}"
        raise ClipError(must(f"the evaluation of {name}", "reconstruct one test clip or more", got))
    return scores


def _failures(clips: Sequence[ShardClip], results: Mapping[str, Examined]) -> tuple[Failure, ...]:
    failed = [(clip, results[clip.id].problem) for clip in clips if results[clip.id].score is None]
    return tuple(Failure(video=clip.id, split=clip.split, reason=str(problem)) for clip, problem in failed)


def _unseen(scores: Sequence[VideoScore], rests: Rests) -> SplitScore | None:
    chosen = [score for score in scores if score.split == "unseen"]
    return summarise(chosen, rests) if chosen else None


def _same_data(info: CheckpointInfo, data: str) -> bool | None:
    if not info.data:
        return None
    if info.data != data:
        logger.warning("the model was trained on other shards (%s) than these (%s)", info.data[:12], data[:12])
    return info.data == data


def strip_name(video: str) -> str:
    """The file of a clip's strip."""
    return f"strip-{re.sub(r'[^A-Za-z0-9._-]+', '-', video)}.png"


def _draw(folder: Path, name: str, scores: Sequence[VideoScore]) -> None:
    rows = [(f"{score.video} ({score.split})", score.l1, score.copy_source_l1) for score in scores]
    (folder / "videos.png").write_bytes(plots.video_bars(rows, title=f"{name}: L1 of each video"))


def _tell_absent(rests: Rests) -> None:
    reasons = {network for _, network in rests if isinstance(network, str)}
    for reason in sorted(reasons):
        names = [metric.name for metric, network in rests if network == reason]
        logger.info("without %s: %s", ", ".join(names), reason)


def _log(report: EvaluateReport) -> None:
    for name, score in (("test", report.test), ("unseen", report.unseen)):
        if score is None:
            continue
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
        for metric, figure in score.metrics.items():
            if figure.value is not None and metric != "l1":
                copied = "-" if figure.copy_source is None else f"{figure.copy_source:.4f}"
                logger.info("%s, %s: %s %.4f, copy-source %s", report.experiment, name, metric, figure.value, copied)
    if report.failures:
        logger.warning("%d clips failed: %s", len(report.failures), ", ".join(one.video for one in report.failures))
