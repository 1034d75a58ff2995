"""The cut stage: raw media to square clips with their manifest, on Ray Data, an item to a task."""

from __future__ import annotations

import functools
import json
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.contracts import Clip
from models.errors import EnvironmentProblem, must
from pipelines.params import Params
from pipelines.progress import bar
from pipelines.session import ray_session
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from preprocessing.clips import write_manifest
from preprocessing.config import DatasetConfig
from preprocessing.contact import contact_sheet
from preprocessing.crop import ItemResult, cut_item
from preprocessing.ledger import LedgerRow, check_yield, counts, read_ledger, write_ledger
from preprocessing.splits import assign
from preprocessing.video import MediaError

logger = logging.getLogger(__name__)

CutTask = Callable[[LedgerRow, Path, DatasetConfig, Path], ItemResult]
"""(ledger row, source file, configuration, folder for the output) -> what became of it."""

_MAX_BLOCKS = 2000
_RETRIES = 2
"""Of an item whose process, or node, died."""
_TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What the stage made; reports/cut/<name>.json."""

    dataset: str
    kind: str
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


def run(name: str, params: Params, paths: Paths) -> CutReport:
    """Cut the media of a data set of faces, bodies or cartoons into clips.

    Args:
        name: of the data set.
        params: how it is cut and split; where Ray is.
        paths: where raw media are and clips go. Every Ray node must reach both.

    Raises:
        ClipError: the download stage has not run, or an identity or file is in two splits.
        ParamsError: too few identities or sources for the split's rule.
        SourceError: too few items can be used; with counts by reason.
        EnvironmentProblem: no Ray, a full disk, or another process writes the same clips.
    """
    return cut_dataset(name, params, paths, task=cut_item)


def cut_dataset(name: str, params: Params, paths: Paths, *, task: CutTask) -> CutReport:
    """Run ``task`` on every item that the download kept; split, manifest, ledger, contact sheet and report follow."""
    config = params.dataset(name)
    raw, target = paths.raw(name).absolute(), paths.cut(name, config.makes).absolute()
    items = [row for row in read_ledger(raw) if row.state == "kept"]
    with only_writer(target), fresh_folder(target) as making:
        with ray_session(params.cluster):
            start = time.monotonic()
            results = list(bar(_told(_results(items, config, (raw, making), task), len(items)), label=f"cut {name}"))
            seconds = time.monotonic() - start
        results.sort(key=lambda result: result.row.item)
        rows = [result.row for result in results]
        share = check_yield(name, rows, config.yield_floor)
        clips = assign(name, [clip for result in results for clip in result.clips], config)
        write_manifest(making, clips)
        write_ledger(making, rows)
        contact_sheet(making, clips, paths.pictures("cut", name) / "contact.png")
    report = _report(name, config, results, clips, (share, seconds))
    write_report(paths.report("cut", name), report)
    logger.info("cut %s: %d clips of %d items, %.0f frames/s", name, len(clips), len(rows), report.frames_per_s)
    return report


def _results(
    items: Sequence[LedgerRow], config: DatasetConfig, folders: tuple[Path, Path], task: CutTask
) -> Iterator[ItemResult]:
    """What became of each item, as they come. An item whose process died is rejected, and the others go on."""
    raw, making = folders
    waiting = {row.item: row for row in items}
    work = functools.partial(_work, raw=str(raw), making=str(making), config=config, task=task)
    for encoded in _on_ray([{"row": json.dumps(asdict(row))} for row in items], work):
        outcome = json.loads(encoded["result"])
        if "problem" in outcome:
            raise EnvironmentProblem(outcome["problem"])
        result = _decoded(outcome)
        del waiting[result.row.item]
        yield result
    for row in waiting.values():
        _forget(row, making)
        died = MediaError(must(row.item, "pass through the cut", "a process that died of it"), "failed")
        yield ItemResult(row=row.rejected(died))


def _forget(row: LedgerRow, making: Path) -> None:
    """Remove what a dead process left of an item."""
    ours = re.compile(rf"\.?{re.escape(Path(row.item).stem)}-\d{{6}}(-\d{{1,5}})?\.")
    for path in making.iterdir():
        if ours.match(path.name):
            path.unlink()


def _on_ray(rows: list[dict[str, Any]], work: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    import ray

    if not rows:
        return
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


def _work(row: dict[str, Any], *, raw: str, making: str, config: DatasetConfig, task: CutTask) -> dict[str, Any]:
    """What one Ray task does with one item; plain JSON in and out, because Arrow has no types for ours."""
    import cv2

    cv2.setNumThreads(1)  # a process per core: more threads would only be in each other's way
    ledger_row = LedgerRow(**json.loads(row["row"]))
    try:
        result = task(ledger_row, Path(raw) / ledger_row.item, config, Path(making))
    except EnvironmentProblem as problem:
        return {"result": json.dumps({"problem": str(problem)})}
    return {"result": json.dumps(asdict(result))}


def _decoded(outcome: dict[str, Any]) -> ItemResult:
    clips = tuple(Clip.from_row(clip) for clip in outcome["clips"])
    return ItemResult(**{**outcome, "row": LedgerRow(**outcome["row"]), "clips": clips})


def _told(results: Iterator[ItemResult], total: int) -> Iterator[ItemResult]:
    """Log now and then how far it is: items, yield, frames/s and the time left."""
    start = told = time.monotonic()
    done = kept = frames = 0
    for result in results:
        done, kept, frames = done + 1, kept + (result.row.state == "kept"), frames + result.num_frames
        if result.row.state == "rejected":
            logger.warning("%s rejected (%s): %s", result.row.origin, result.row.reason, result.row.detail)
        now = time.monotonic()
        if now - told > _TELL_EVERY_S:
            told, rate, left = now, frames / (now - start), (now - start) / done * (total - done)
            logger.info(
                "%d of %d items, yield %.0f %%, %.0f frames/s, %.0f s left", done, total, 100 * kept / done, rate, left
            )
        yield result


def _report(
    name: str, config: DatasetConfig, results: Sequence[ItemResult], clips: Sequence[Clip], figures: tuple[float, float]
) -> CutReport:
    share, seconds = figures
    rows = [result.row for result in results]
    frames_of_split, dropped = Counter[str](), Counter[str]()
    for clip in clips:
        frames_of_split[clip.split] += clip.num_frames
    for result in results:
        dropped.update(result.dropped)
    source_frames = sum(result.num_frames for result in results)
    return CutReport(
        dataset=name,
        kind=config.kind,
        items=len(rows),
        kept=sum(row.state == "kept" for row in rows),
        rejected=counts(rows),
        kept_share=round(share, 4),
        clips=len(clips),
        frames=sum(frames_of_split.values()),
        clips_of_split=dict(Counter(clip.split for clip in clips)),
        frames_of_split=dict(frames_of_split),
        split_rule=config.split,
        identities=len({clip.identity for clip in clips}),
        source_frames=source_frames,
        source_seconds=round(sum(result.seconds for result in results), 3),
        dropped_frames={reason: count for reason, count in sorted(dropped.items()) if count},
        decoders=dict(Counter(str(row.decoder) for row in rows if row.state == "kept")),
        seconds=round(seconds, 3),
        frames_per_s=round(source_frames / seconds, 1) if seconds else 0.0,
    )
