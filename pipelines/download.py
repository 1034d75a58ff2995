"""The download stage: the media of a source into data/raw, each looked at once, with a ledger row for each.

Every item is written down as it is done, so a stage that is killed goes on with the next one; the output appears under
its name when all items are through. What could not be had stays in the ledger with its reason, and is tried again on
request.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.errors import EnvironmentProblem, must
from pipelines.journal import Work, key_of, resumed, same_file
from pipelines.params import Params
from pipelines.progress import Rejections, watched
from pipelines.sources import BOXES_NAME, METADATA_NAME, listing, shown_source, spec_of
from pipelines.stage import Paths, only_writer, write_report
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import limits_of, turned_away
from preprocessing.datasets.spec import Item, Listing
from preprocessing.fetch import Fetcher, Wanted
from preprocessing.ledger import LedgerRow, check_yield, counts, write_ledger
from preprocessing.video import MediaError, probe

logger = logging.getLogger(__name__)

_CLONE = 0x40049409  # Linux' FICLONE: a copy that shares its blocks until one of the two is written


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadReport:
    """What the stage took in; reports/download/<name>.json."""

    dataset: str
    preset: str | None
    source: str
    items: int
    kept: int
    rejected: dict[str, int]
    """Number of items by reason."""
    kept_share: float
    bytes: int
    decoders: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What all items of a stage share."""

    config: DatasetConfig
    fetcher: Fetcher
    work: Work
    scratch: Path
    video_url: str | None
    num_threads: int


def run(name: str, params: Params, paths: Paths, *, retry: Sequence[str] = ()) -> DownloadReport:
    """Take in the media of a data set.

    The source itself is never changed: its files are copied (sharing their blocks where the file system can).

    Args:
        name: of the data set.
        params: its source, limits and yield floor; how to fetch.
        paths: where raw media go.
        retry: reasons (or ``all``) of rejected items that are tried again.

    Raises:
        SourceError: the source is missing or empty, or too few of its items can be used; with counts by reason. What
            was had stays for the next try, and `inkmotion ledger` shows it.
        ParamsError: the terms of a public data set are not accepted.
        EnvironmentProblem: the output can't be written, or another process writes it.
    """
    config, target, start = params.dataset(name), paths.raw(name), time.monotonic()
    scratch = target.parent / f".{target.name}.source"
    with only_writer(target), Fetcher(params.fetching) as fetcher, resumed(target) as work:
        scratch.mkdir(exist_ok=True)
        found = listing(name, paths.root, config, fetcher, scratch)
        spec = spec_of(config)
        template = config.video_url or (f"{config.mirror.rstrip('/')}/{{id}}.mp4" if config.mirror else None)
        template = template or (spec.video_url if spec else None)
        many = max(params.fetching.connections, min(8, os.cpu_count() or 1))
        task = _Task(config=config, fetcher=fetcher, work=work, scratch=scratch, video_url=template, num_threads=many)
        rows = _all(found.items, task, label=f"download {name}", retry=retry)
        work.sweep(item.name for item in found.items)
        _keep_lists(found, work.folder)
        write_ledger(work.folder, rows)
        share = check_yield(name, rows, config.yield_floor)
    shutil.rmtree(scratch, ignore_errors=True)
    kept = [row for row in rows if row.state == "kept"]
    report = DownloadReport(
        dataset=name,
        preset=config.preset,
        source=shown_source(config),
        items=len(rows),
        kept=len(kept),
        rejected=counts(rows),
        kept_share=round(share, 4),
        bytes=sum(row.num_bytes for row in kept),
        decoders=tally(row.decoder for row in kept if row.decoder),
        seconds=round(time.monotonic() - start, 3),
    )
    write_report(paths.report("download", name), report)
    logger.info("download %s: %d of %d items kept, %.1f MB", name, report.kept, report.items, report.bytes / 1e6)
    return report


def tally(words: Iterable[str]) -> dict[str, int]:
    """How often each word comes, by name."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def _all(items: Sequence[Item], task: _Task, *, label: str, retry: Sequence[str]) -> list[LedgerRow]:
    """Each item's row in the items' order: what an earlier run has done stands, unless it is to be tried again."""
    keys = {item.name: _key(item, task) for item in items}
    rows: dict[str, LedgerRow] = {}
    for item in items:
        before = task.work.result(item.name, keys[item.name])
        if before is not None:
            row = LedgerRow(**before)
            if row.state == "kept" or not {"all", row.reason} & set(retry):
                rows[item.name] = row
    left = [item for item in items if item.name not in rows]
    if rows:
        logger.info("%s: %d of %d items are done already", label, len(rows), len(items))
    rejections = Rejections(label.split()[-1])
    for row in watched(_taken(left, task), label=label, total=len(left), describe=_described, unit="MB"):
        rejections.tell(row)
        if row.reason != "failed":  # a fault of ours or the machine's: the next run tries it again
            task.work.add(row.item, keys[row.item], asdict(row), [row.item] if row.state == "kept" else [])
        rows[row.item] = row
    return [rows[item.name] for item in items]


def _described(row: LedgerRow) -> tuple[bool, float]:
    return row.state == "kept", row.num_bytes / 1e6


def _taken(items: Sequence[Item], task: _Task) -> Iterator[LedgerRow]:
    """Rows as they come. Threads suffice: fetching waits, hashing and ffmpeg work outside Python."""
    with ThreadPoolExecutor(max_workers=task.num_threads) as pool:
        waiting = [pool.submit(take, item, task) for item in items]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            task.fetcher.close()  # what is under way ends now, and goes on with the next run
            raise


def _key(item: Item, task: _Task) -> str:
    """Of everything that decides an item's row; a local file that changed is taken again."""
    seen: tuple[int, ...] = ()
    if item.path is not None and not item.path.is_relative_to(task.scratch) and item.path.exists():
        stat = item.path.stat()
        seen = (stat.st_size, stat.st_mtime_ns)
    config = task.config
    limits = (config.kind, config.min_source_px, limits_of(config))
    place = (item.origin, item.video_id, item.sha256, item.md5, item.num_bytes, item.identity, item.split)
    return key_of(place, str(item.problem), seen, limits)


def take(item: Item, task: _Task) -> LedgerRow:
    """Fetch or copy one item, look at it and put it into the stage's folder under its safe name.

    Returns:
        Its row: kept, or rejected with the reason.

    Raises:
        EnvironmentProblem: the folder can't be written.
    """
    row = LedgerRow(
        item=item.name,
        origin=item.origin,
        state="kept",
        video_id=item.video_id,
        identity=item.identity,
        split=item.split,
    )
    with turned_away(row, task.work.folder) as failed:
        if item.problem is not None:
            raise item.problem
        path, checksum = _had(item, task)
        info = probe(path, limits=limits_of(task.config))
        _check_size(item, info.width, info.height, info.num_frames, task.config)
        final = task.work.folder / item.name
        final.unlink(missing_ok=True)
        if item.path is None:
            path.replace(final)
        else:
            _copy(path, final) if not path.is_relative_to(task.scratch) else same_file(path, final)
        return replace(
            row,
            num_bytes=final.stat().st_size,
            sha256=checksum or sha256_of(final),
            decoder=info.decoder,
        )
    if item.path is None:
        _fetched_to(item, task).unlink(missing_ok=True)  # the next try is not to look at the same file again
    return row.rejected(failed[0])


def _fetched_to(item: Item, task: _Task) -> Path:
    return task.scratch / "items" / item.name


def _had(item: Item, task: _Task) -> tuple[Path, str | None]:
    """The item's file on this machine, and its sha256 if that is known by the way."""
    if item.path is not None:
        return item.path, None
    target = _fetched_to(item, task)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # fetched whole by a run that was killed before it was looked at
        return target, None
    if item.video_id is not None and task.video_url is not None:
        return target, task.fetcher.video(item.video_id, target, url_template=task.video_url).sha256
    if not item.urls:
        raise MediaError(must(item.origin, "have an address", "none"), "missing")
    wanted = Wanted(urls=item.urls, num_bytes=item.num_bytes, sha256=item.sha256, md5=item.md5)
    return target, task.fetcher.file(wanted, target).sha256


def _check_size(item: Item, width: int, height: int, num_frames: int, config: DatasetConfig) -> None:
    smallest = max(2, config.min_source_px)
    if min(width, height) < smallest:
        rule = f"be at least {smallest} px wide and high"
        raise MediaError(must(item.origin, rule, f"{width}x{height}"), "too-small")
    if num_frames < 2 and config.kind != "images" and config.cut_rule != "align":
        raise MediaError(must(item.origin, "have 2 frames or more", "a single frame"), "one-frame")


def _keep_lists(found: Listing, folder: Path) -> None:
    for source, name in ((found.metadata, METADATA_NAME), (found.boxes, BOXES_NAME)):
        if source is not None and source.is_file():
            shutil.copyfile(source, folder / name)


def _copy(source: Path, target: Path) -> None:
    """Copy content and nothing else: no link, so that nothing done to the copy ever reaches the user's file."""
    try:
        with source.open("rb") as old, target.open("xb") as new:
            if not _cloned(old.fileno(), new.fileno()):
                shutil.copyfileobj(old, new, 1 << 20)
        target.chmod(0o644)
    except FileExistsError:
        raise EnvironmentProblem(must(str(target), "be free", "a file of that name", "Try again")) from None


def _cloned(old: int, new: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(new, _CLONE, old)
    except (ImportError, OSError):
        return False
    return True
