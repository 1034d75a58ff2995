"""A look at a folder of media before anything runs: everything that is or may go wrong with it, all at once.

The files are opened as the stages open them, with the same limits, and nothing is written.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import InkmotionError, SourceError, must
from preprocessing.config import DatasetConfig
from preprocessing.crop import limits_of
from preprocessing.datasets.listing import chosen, metadata_listing
from preprocessing.datasets.local import LocalFolder, safe_names
from preprocessing.datasets.spec import DatasetSpec, Item, Listing
from preprocessing.preflight_checks import check_counts, check_rows, check_same, check_splits, units_of
from preprocessing.preflight_types import Finding, Level, Look, Preflight, Spread, Told
from preprocessing.video import VideoInfo, probe
from preprocessing.video_types import MediaError, Reason

__all__ = ["Finding", "Level", "Preflight", "Spread", "check_folder"]

METADATA_NAME = "metadata.csv"
_NUM_THREADS = 8
_SHOWN_SIZES = 4
_CLIP_BYTES_PER_PIXEL, _JPEG_BYTES_PER_PIXEL = 0.12, 0.35
"""Of a frame in a clip at crf 12, and in a shard at quality 95: measured on the sample media, roughly."""
Progress = Callable[[int, int], object]


def check_folder(
    name: str,
    folder: Path,
    config: DatasetConfig,
    spec: DatasetSpec | None,
    *,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Preflight:
    """Look a data set's folder over.

    Args:
        name: of the data set, for messages.
        folder: with the media: of the user's own, or a local copy in the layout of ``spec``.
        config: how it will be cut and split.
        spec: of the public data set that it is a copy of; None: media of the user's own.
        work: a folder on the disk where the stages will write; None: the current one.
        progress: called with (files looked at, files in all) now and then.

    Returns:
        All findings, the worst first, and the figures. It never raises for what is in the folder.
    """
    told = Told()
    found = _listed(name, folder, config, spec, told)
    wanted = chosen(found.items, config)
    if found.items and not wanted:
        where, got = f"datasets.{name}.only", f"{config.only!r}, and none of {len(found.items)} does"
        told.add("error", where, must(where, "match a file's name", got, "Mend the pattern, or set null"))
    looks = _looked(wanted, config, progress)
    for look in looks:
        if look.error is not None:
            told.item(look.item.origin, look.error)
    _check_boxes(found, told)
    segments = check_rows(found, config, told)
    _check_names(wanted, told)
    usable = [look for look in looks if look.error is None]
    _check_yield(looks, config, told)
    _check_sizes(usable, config, told)
    same = check_same(looks, config, told)
    units = units_of(segments, usable, same, config)
    check_splits(name, units, config, told)
    check_counts(units, config, spec, told)
    _check_room(usable, config, work or Path(), told)
    return _summed(name, folder, looks, units, told)


def _listed(name: str, folder: Path, config: DatasetConfig, spec: DatasetSpec | None, told: Told) -> Listing:
    """What is in the folder. Where its lists can't be used the media are looked at all the same."""
    try:
        if not folder.is_dir():
            LocalFolder(folder, dataset=name).items()
        if spec is not None:
            return spec.listing(folder, config)
        if config.cut_rule == "metadata":
            return metadata_listing(folder, folder / (config.metadata or METADATA_NAME))
        lists = [config.boxes] if config.boxes else []
        items = LocalFolder(folder, dataset=name, without=lists).items()
        return Listing(items=tuple(items), boxes=folder / config.boxes if config.boxes else None)
    except SourceError as error:
        told.add("error", str(folder), str(error))
    except OSError as error:
        told.add("error", str(folder), must(str(folder), "be readable", error.strerror or str(error)))
    if spec is not None or not folder.is_dir():
        return Listing(items=())
    try:
        csv = config.metadata or METADATA_NAME
        metadata = folder / csv if (folder / csv).is_file() else None  # each of its rows is told of
        return Listing(items=tuple(LocalFolder(folder, dataset=name, without=[csv]).items()), metadata=metadata)
    except (SourceError, OSError):
        return Listing(items=())


def _looked(items: Sequence[Item], config: DatasetConfig, progress: Progress | None) -> list[Look]:
    """Each item opened once; hashing and ffmpeg work outside Python, so threads suffice."""
    looks = {}
    with ThreadPoolExecutor(max_workers=min(_NUM_THREADS, os.cpu_count() or 1)) as pool:
        waiting = {pool.submit(_look, item, config): item.name for item in items}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                looks[waiting[future]] = future.result()
                if progress is not None:
                    progress(done, len(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [looks[item.name] for item in items]


def _look(item: Item, config: DatasetConfig) -> Look:
    look = Look(item=item)
    try:
        if item.problem is not None:
            raise item.problem
        if item.path is None:
            raise MediaError(must(item.origin, "lie in the folder", "no such file"), "missing")
        look = replace(look, num_bytes=item.path.stat().st_size)
        look = replace(look, info=probe(item.path, limits=limits_of(config)))
        _check_use(item.origin, look.info, config)
    except MediaError as error:
        return replace(look, error=error)
    except OSError as error:
        why = error.strerror or str(error)
        return replace(look, error=MediaError(must(item.origin, "be readable", why), "unreadable"))
    except InkmotionError:
        raise
    except Exception as error:  # what a decoder lets through about one file must not hide the other files' findings
        why = f"{type(error).__name__}: {error}"[:200]
        return replace(look, error=MediaError(must(item.origin, "be decodable", why), "undecodable"))
    return look


def _check_use(where: str, info: VideoInfo | None, config: DatasetConfig) -> None:
    """Turn away what the stages would turn away for its size, length or form alone."""
    assert info is not None, "the file was opened"
    size, is_still = f"{info.width}x{info.height}", config.kind == "images"
    smallest = max(2, config.min_source_px)
    sides = (info.width, info.height)
    by_subject = config.cut_rule in ("detect", "whole") and config.kind != "film"
    rules: tuple[tuple[bool, str, str, str, Reason], ...] = (
        (
            is_still and info.decoder != "pillow",
            "be a picture",
            f"a video of {info.num_frames} frames",
            "Use kind: film for its stills",
            "unsupported",
        ),
        (
            not is_still and config.cut_rule != "align" and info.num_frames < 2,
            "have 2 frames or more",
            "a single frame",
            "Use kind: images for pictures",
            "one-frame",
        ),
        (min(sides) < smallest, f"be at least {smallest} px wide and high", size, "Lower min_source_px", "too-small"),
        (
            by_subject and not is_still and info.num_frames < config.min_frames,
            f"have {config.min_frames} frames or more",
            f"{info.num_frames}",
            "Lower min_frames to keep it",
            "too-short",
        ),
        (
            by_subject and (min(sides) if is_still else max(sides)) < config.min_side_px,
            f"show its subject {config.min_side_px} px large",
            size,
            "Lower min_side_px to keep it",
            "too-small",
        ),
    )
    for broken, rule, got, fix, reason in rules:
        if broken:
            raise MediaError(must(where, rule, got, fix), reason)


def _check_boxes(found: Listing, told: Told) -> None:
    if found.boxes is None:
        return
    if not found.boxes.is_file():
        fix = "Write it, or set boxes to null to have them detected"
        told.add("error", found.boxes.name, must(found.boxes.name, "be a CSV of boxes", "no such file", fix))
        return
    from preprocessing.align import read_boxes

    boxes, problems = read_boxes(found.boxes)
    for problem in problems:
        told.add("warning", found.boxes.name, problem)
    origins = {item.origin for item in found.items}
    for unknown in sorted(set(boxes) - origins):
        told.many("warning", found.boxes.name, must(unknown, "be a file of the folder", "none of that name"), "boxes")
    without = len(origins - set(boxes))
    if boxes and without:
        text = f"{without} of {len(origins)} files have no box by hand; theirs are detected, or centred."
        told.add("note", found.boxes.name, text)


def _check_names(items: Iterable[Item], told: Told) -> None:
    """Names that differ by case, odd characters or suffix alone get a mark, so that none replaces another."""
    plain = defaultdict(list)
    for item in items:
        if item.path is not None and item.problem is None:
            plain[Path(safe_names([item.origin])[item.origin]).stem.lower()].append(item)
    for group in plain.values():
        if len(group) > 1:
            names = ", ".join(f"{item.origin} as {item.name}" for item in group[:3])
            text = f"{len(group)} names would be one in data/raw and are told apart by a mark: {names}."
            told.many("note", group[0].origin, text, "names")


def _check_yield(looks: Sequence[Look], config: DatasetConfig, told: Told) -> None:
    good = sum(look.error is None for look in looks)
    if looks and (not good or good < config.yield_floor * len(looks)):
        rule = f"hold at least {config.yield_floor:.0%} of usable items" if good else "hold one usable item"
        reasons = Counter(look.error.reason for look in looks if look.error)
        words = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        got = f"{good} of {len(looks)} ({words})"
        told.add("error", "yield", must("The folder", rule, got, "Mend or remove the others, or lower yield_floor"))


def _check_sizes(usable: Sequence[Look], config: DatasetConfig, told: Told) -> None:
    infos = [look.info for look in usable if look.info is not None]
    _tell_mixed(Counter(f"{info.width}x{info.height}" for info in infos), "frame sizes", "cut and resized alike", told)
    if config.makes == "clips":
        rates = Counter(f"{info.fps:.3g}" for info in infos)
        _tell_mixed(rates, "frame rates", "clips keep theirs, so motion between frames differs", told)
    frames = sum(info.num_frames for info in infos)
    if config.kind == "film" and infos and frames < config.num_stills:
        fix = "Lower num_stills, or add a film"
        told.add(
            "warning",
            "num_stills",
            must("num_stills", f"be at most the films' {frames} frames", config.num_stills, fix),
        )


def _tell_mixed(found: Counter[str], what: str, therefore: str, told: Told) -> None:
    if len(found) > 1:
        most = ", ".join(f"{value} ({number})" for value, number in found.most_common(_SHOWN_SIZES))
        more = f" and {len(found) - _SHOWN_SIZES} more" if len(found) > _SHOWN_SIZES else ""
        told.add("note", what, f"{len(found)} {what}: {most}{more}; {therefore}.")


def _check_room(usable: Sequence[Look], config: DatasetConfig, work: Path, told: Told) -> None:
    """Hold an estimate of all that the stages write against the free disk."""
    raw = sum(look.num_bytes for look in usable)
    frames = sum(look.info.num_frames for look in usable if look.info is not None)
    if config.makes == "stills":
        frames = min(frames, config.num_stills if config.kind == "film" else len(usable))
    per_pixel = (1.0 if config.makes == "stills" else _CLIP_BYTES_PER_PIXEL) + _JPEG_BYTES_PER_PIXEL
    needed = raw + int(frames * config.size_px**2 * per_pixel)
    free = _free_bytes(work)
    if free is not None and needed > free:
        got, fix = f"{free / 1e9:.2f} GB", "Free some space, or move the project's data folder"
        told.add("error", "disk", must("The disk", f"have about {needed / 1e9:.2f} GB free", got, fix))
    elif needed:
        there = f"; {free / 1e9:.1f} GB are free" if free is not None else ""
        text = f"About {max(needed / 1e9, 0.01):.2f} GB will be written (copies, clips or stills, shards){there}."
        told.add("note", "disk", text)


def _free_bytes(work: Path) -> int | None:
    import shutil

    place = work.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _summed(name: str, folder: Path, looks: Sequence[Look], units: Sequence[Any], told: Told) -> Preflight:
    usable = [look for look in looks if look.error is None]
    videos = [look.info for look in usable if look.info is not None and look.info.num_frames > 1]
    return Preflight(
        name=name,
        folder=folder,
        findings=told.findings(),
        num_items=len(looks),
        num_usable=len(usable),
        num_bytes=sum(look.num_bytes for look in looks),
        rejected=dict(Counter(str(look.error.reason) for look in looks if look.error).most_common()),
        num_of_split=dict(sorted(Counter(str(unit.split or "open") for unit in units).items())),
        frames=_spread([float(info.num_frames) for info in videos]),
        seconds=_spread([info.num_frames / info.fps for info in videos]),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(min=min(values), median=statistics.median(values), max=max(values))
