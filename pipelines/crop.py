"""The cut stage: raw media to square clips or stills with their manifest, an item to a task; many items on Ray Data.

Every item is written down as it is done, so a stage that is killed goes on with the next one.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from models.contracts import Clip
from models.errors import EnvironmentProblem, SourceError, must
from pipelines.apart import each_apart
from pipelines.cut_work import CutWork, work_of
from pipelines.journal import Work, key_of, resumed
from pipelines.params import ClusterConfig, Params
from pipelines.progress import Rejections, watched
from pipelines.session import ray_session
from pipelines.sources import spec_of
from pipelines.stage import Paths, only_writer, write_report
from preprocessing.clips import write_manifest
from preprocessing.config import DatasetConfig
from preprocessing.contact import contact_sheet
from preprocessing.crop import ItemResult
from preprocessing.datasets.spec import DatasetSpec
from preprocessing.ledger import LedgerRow, check_yield, counts, read_ledger, write_ledger
from preprocessing.pose import WEIGHTS_VARIABLE, weights_folder
from preprocessing.splits import assign
from preprocessing.video import MediaError

logger = logging.getLogger(__name__)

Execute = Callable[[list[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]], Iterator[dict[str, Any]]]
"""(rows, work) -> results as they come, without those whose process died."""

_RAY_PAYS_BYTES = 32 << 20
"""Media from which on Ray pays (about a minute of one core): it and its workers take some 10 s to begin."""
_MAX_BLOCKS = 2000
_RETRIES = 2
"""Of an item whose process, or node, died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What the stage made; reports/cut/<name>.json."""

    dataset: str
    kind: str
    cut: str
    preset: str | None
    expected: dict[str, int]
    """Clips, videos or images of each split that the full data set of the preset holds."""
    found: dict[str, int]
    """How many of those there are."""
    items: int
    kept: int
    rejected: dict[str, int]
    """Number of items by reason."""
    kept_share: float
    clips: int
    frames: int
    """In the clips."""
    clips_of_split: dict[str, int]
    frames_of_split: dict[str, int]
    clip_seconds: dict[str, float]
    """Shortest, median and longest clip."""
    split_rule: str
    identities: int
    source_frames: int
    """Decoded."""
    source_seconds: float
    """Of video, as played."""
    dropped_frames: dict[str, int]
    """Source frames of kept items that are in no clip, by reason; overlapping subjects count each."""
    decoders: dict[str, int]
    """Kept items by decoder."""
    seconds: float
    """Of work, without the start of Ray."""
    frames_per_s: float


def run(name: str, params: Params, paths: Paths, *, retry: Sequence[str] = ()) -> CutReport:
    """Cut the media of a data set into clips or stills.

    Args:
        name: of the data set.
        params: how it is cut and split; where Ray is.
        paths: where raw media are and clips go. Every Ray node must reach both.
        retry: reasons (or ``all``) of rejected items that are tried again.

    Raises:
        ClipError: the download stage has not run, or an identity or file is in two splits.
        ParamsError: too few identities or sources for the split's rule.
        SourceError: too few items can be used; with counts by reason. What is done stays for the next try.
        EnvironmentProblem: no Ray, a full disk, or another process writes the same clips.
    """
    config, raw = params.dataset(name), paths.raw(name)
    rows = read_ledger(raw)
    work = replace(work_of(config, rows, raw), retry=frozenset(retry))
    return cut_dataset(name, params, paths, work=work)


def cut_dataset(name: str, params: Params, paths: Paths, *, work: CutWork) -> CutReport:
    """Do ``work`` on every item that the download kept; split, manifest, ledger, contact sheet and report follow."""
    config = params.dataset(name)
    raw, target = paths.raw(name).absolute(), paths.cut(name, config.makes).absolute()
    items = [row for row in read_ledger(raw) if row.state == "kept"]
    with only_writer(target), resumed(target) as done:
        results, seconds = _cut_all(name, params, items, (raw, done), work)
        rows = sorted([*_rows(results), *work.without_item], key=lambda row: row.item)
        write_ledger(done.folder, rows)
        share = check_yield(name, rows, config.yield_floor)
        clips = assign(name, [clip for result in results for clip in result.clips], config)
        check_counts(name, counted(spec_of(config), clips, rows), config)
        write_manifest(done.folder, clips)
        contact_sheet(done.folder, clips, paths.pictures("cut", name) / "contact.png")
    report = _report(name, config, (rows, results), clips, (share, seconds))
    write_report(paths.report("cut", name), report)
    logger.info("cut %s: %d clips of %d items, %.0f frames/s", name, len(clips), len(rows), report.frames_per_s)
    return report


def _rows(results: Sequence[ItemResult]) -> list[LedgerRow]:
    return [row for result in results for row in result.parts or (result.row,)]


def counted(spec: DatasetSpec | None, clips: Sequence[Clip], rows: Sequence[LedgerRow]) -> dict[str, int]:
    """How much there is of what the full data set is held against, in the unit of its published numbers.

    Args:
        spec: the preset; None gives nothing.
        clips: that were cut.
        rows: the cut's ledger.

    Returns:
        Number by split, for the splits that are published.
    """
    if spec is None or spec.expected is None:
        return {}
    of_item = [row.split for row in rows if row.state == "kept"]
    sides = of_item if spec.expected.unit == "videos" else [clip.split for clip in clips]
    found = {**Counter(map(str, sides)), "all": len(sides)}
    return {split: found.get(split, 0) for split in spec.expected.of}


def check_counts(name: str, found: Mapping[str, int], config: DatasetConfig) -> None:
    """See that a preset's splits are as large as published, where the settings ask for it.

    Raises:
        SourceError: a split holds less than ``yield_floor`` of the published number.
    """
    spec = spec_of(config)
    if not config.require_counts or spec is None or spec.expected is None:
        return
    for split, wanted in spec.expected.of.items():
        if found[split] < config.yield_floor * wanted:
            rule = (
                f"hold at least {config.yield_floor:.0%} of the {wanted:,} {spec.expected.unit} published for {split}"
            )
            fix = "`inkmotion ledger` tells what is missing; set require_counts: false to go on with these"
            raise SourceError(must(f"data set {name}", rule, f"{found[split]:,}", fix))


def _cut_all(
    name: str, params: Params, items: Sequence[LedgerRow], folders: tuple[Path, Work], work: CutWork
) -> tuple[list[ItemResult], float]:
    """The results of all items in the items' order, and the seconds of work: what a killed stage has done stands."""
    raw, done = folders
    config = params.dataset(name)
    folder_of_weights = weights_folder()
    keys = {row.item: _key(row, config, work) for row in items}
    stored = {row.item: done.result(row.item, keys[row.item]) for row in items}
    results = {item: result for item, kept in stored.items() if kept and not _again(result := _decoded(kept), work)}
    left = [row for row in items if row.item not in results]
    done.sweep(results)
    if results:
        logger.info("cut %s: %d of %d items are done already", name, len(results), len(items))
    start = time.monotonic()
    if left:
        with _executor(left, params.cluster) as execute, attempt(done.folder) as making:
            start, rejections = time.monotonic(), Rejections(name)
            found = _results(left, config, (raw, making, folder_of_weights), work, execute)
            for result in watched(found, label=f"cut {name}", total=len(left), describe=_described, unit="frames"):
                for row in _rows([result]):
                    rejections.tell(row)
                files = _placed(result, making, done.folder)
                if result.row.reason != "failed":  # a fault of ours or the machine's: the next run tries it again
                    done.add(result.row.item, keys[result.row.item], asdict(result), files)
                results[result.row.item] = result
    seconds = time.monotonic() - start
    done.sweep(results)
    return [results[row.item] for row in items], seconds


def _again(result: ItemResult, work: CutWork) -> bool:
    rejected = {str(row.reason) for row in _rows([result]) if row.state == "rejected"}
    return bool(rejected and work.retry & {"all", *rejected})


@contextmanager
def attempt(folder: Path) -> Iterator[Path]:
    """A folder of this run's own for what tasks write: a task that outlives its killed stage does no harm."""
    making = Path(tempfile.mkdtemp(dir=folder, prefix=".attempt-"))
    try:
        yield making
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _placed(result: ItemResult, making: Path, folder: Path) -> list[str]:
    """Move an item's files to where they stay; their names."""
    files = [name for clip in result.clips for name in (clip.path, clip.smooth) if name is not None]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(making / name, folder / name)
    return files


def _described(result: ItemResult) -> tuple[bool, float]:
    return result.row.state == "kept", result.num_frames


_NOT_OF_AN_ITEM: dict[str, Any] = {
    "yield_floor": 0.0,
    "require_counts": False,
    "seed": 0,
    "accept_terms": False,
    "mirror": None,
    "video_url": None,
    "max_items": None,
    "only": None,
    "clips_per_shard": 1,
    "jpeg_quality": 1,
}


def _key(row: LedgerRow, config: DatasetConfig, work: CutWork) -> str:
    """Of everything that decides what becomes of an item."""
    return key_of(row, replace(config, **_NOT_OF_AN_ITEM), work.task.__name__, work.extras.get(row.item))


def _results(
    items: Sequence[LedgerRow],
    config: DatasetConfig,
    folders: tuple[Path, Path, Path],
    work: CutWork,
    execute: Execute,
) -> Iterator[ItemResult]:
    """What became of each item, as they come. An item whose process died is rejected, and the others go on."""
    raw, making, weights = folders
    waiting = {row.item: row for row in items}
    where = {"raw": str(raw), "making": str(making), "weights": str(weights)}
    task = functools.partial(_work, where=where, config=config, work=work)
    for encoded in execute([{"row": json.dumps(asdict(row))} for row in items], task):
        outcome = json.loads(encoded["result"])
        if "problem" in outcome:
            raise EnvironmentProblem(outcome["problem"])
        result = _decoded(outcome)
        del waiting[result.row.item]
        yield result
    for row in waiting.values():
        died = MediaError(must(row.item, "pass through the cut", "a process that died of it"), "failed")
        yield ItemResult(row=row.rejected(died))


@contextmanager
def _executor(items: Sequence[LedgerRow], cluster: ClusterConfig) -> Iterator[Execute]:
    """Who does the work: Ray, or a few processes of this machine where there is little of it."""
    if sum(row.num_bytes for row in items) < _RAY_PAYS_BYTES:
        yield functools.partial(each_apart, num_workers=cluster.num_cpus or os.cpu_count() or 1)
        return
    with ray_session(cluster):
        yield _on_ray


def _on_ray(rows: list[dict[str, Any]], work: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the stage tells its progress itself
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # Ray's context warns of itself, too
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        before, context.max_errored_blocks = context.max_errored_blocks, -1  # who dies takes no others along
        try:
            blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
            # Ray Data would start an item whose process dies again and again, for ever
            yield from blocks.map(work, num_cpus=1, max_retries=_RETRIES).iter_rows()
        finally:
            context.max_errored_blocks = before


def _work(row: dict[str, Any], *, where: dict[str, str], config: DatasetConfig, work: CutWork) -> dict[str, Any]:
    """What one Ray task does with one item; plain JSON in and out, because Arrow has no types for ours."""
    import cv2

    cv2.setNumThreads(1)  # a process per core: more threads would only be in each other's way
    os.environ.setdefault(WEIGHTS_VARIABLE, where["weights"])  # nodes have no checkout of their own
    ledger_row = LedgerRow(**json.loads(row["row"]))
    extra = (work.extras[ledger_row.item],) if ledger_row.item in work.extras else ()
    try:
        result = work.task(ledger_row, Path(where["raw"]) / ledger_row.item, config, Path(where["making"]), *extra)
    except EnvironmentProblem as problem:
        return {"result": json.dumps({"problem": str(problem)})}
    return {"result": json.dumps(asdict(result))}


def _decoded(outcome: dict[str, Any]) -> ItemResult:
    clips = tuple(Clip.from_row(clip) for clip in outcome["clips"])
    parts = tuple(LedgerRow(**part) for part in outcome["parts"])
    return ItemResult(**{**outcome, "row": LedgerRow(**outcome["row"]), "clips": clips, "parts": parts})


def _report(
    name: str,
    config: DatasetConfig,
    found: tuple[Sequence[LedgerRow], Sequence[ItemResult]],
    clips: Sequence[Clip],
    figures: tuple[float, float],
) -> CutReport:
    (rows, results), (share, seconds) = found, figures
    spec = spec_of(config)
    frames_of_split, dropped = Counter[str](), Counter[str]()
    for clip in clips:
        frames_of_split[clip.split] += clip.num_frames
    for result in results:
        dropped.update(result.dropped)
    source_frames = sum(result.num_frames for result in results)
    return CutReport(
        dataset=name,
        kind=config.kind,
        cut=config.cut_rule,
        preset=config.preset,
        expected=dict(spec.expected.of) if spec and spec.expected else {},
        found=counted(spec, clips, rows),
        items=len(rows),
        kept=sum(row.state == "kept" for row in rows),
        rejected=counts(rows),
        kept_share=round(share, 4),
        clips=len(clips),
        frames=sum(frames_of_split.values()),
        clips_of_split=dict(Counter(clip.split for clip in clips)),
        frames_of_split=dict(frames_of_split),
        clip_seconds=_durations(clips),
        split_rule=config.split,
        identities=len({clip.identity for clip in clips}),
        source_frames=source_frames,
        source_seconds=round(sum(result.seconds for result in results), 3),
        dropped_frames={reason: count for reason, count in sorted(dropped.items()) if count},
        decoders=dict(Counter(str(row.decoder) for row in rows if row.state == "kept")),
        seconds=round(seconds, 3),
        frames_per_s=round(source_frames / seconds, 1) if seconds else 0.0,
    )


def _durations(clips: Sequence[Clip]) -> dict[str, float]:
    seconds = sorted(clip.num_frames / clip.fps for clip in clips if clip.num_frames > 1)
    if not seconds:
        return {}
    return {"min": round(seconds[0], 3), "median": round(median(seconds), 3), "max": round(seconds[-1], 3)}
