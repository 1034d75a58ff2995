"""What a look at a folder says of copies, people, splits and published numbers."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.contracts import Split
from models.errors import SourceError, must
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.datasets.spec import DatasetSpec, Listing
from preprocessing.ledger import LedgerRow
from preprocessing.preflight_types import Level, Look, Told
from preprocessing.splits import MIN_IDENTITIES, MIN_PART_FRAMES, identity_of, is_only_picture, whose

if TYPE_CHECKING:
    from preprocessing.metadata import Segment

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What a clip will come from: a usable item, or a row of the metadata CSV whose video is usable."""

    where: str
    """The file, or the row."""
    item: str
    """Its name in the data set."""
    identity: str
    source: str
    """Equal for items of equal content."""
    split: Split | None
    num_frames: int


def check_same(looks: Sequence[Look], config: DatasetConfig, told: Told) -> dict[str, str]:
    """Find files of equal content. Only files of equal size are read, and of those only equal heads in full.

    Returns:
        For each item that is a copy, the name of the first one of its content.
    """
    first: dict[str, str] = {}
    for group in _equal(looks):
        names = [look.item.origin for look in group]
        first |= {look.item.name: group[0].item.name for look in group[1:]}
        sides = {look.item.split for look in group} - {None}
        text = f"{len(names)} files have the same content: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}."
        if config.split == "official" and len(sides) > 1:
            told.many("error", names[0], f"{text} They are on both sides of the official lists.", "leaks")
        else:
            told.many("warning", names[0], f"{text} Each will be cut; remove the copies.", "copies")
    return first


def _equal(looks: Iterable[Look]) -> list[list[Look]]:
    groups = _grouped([list(looks)], lambda look: str(look.num_bytes))
    groups = _grouped(groups, lambda look: _head_of(_path(look)))
    return _grouped(groups, lambda look: sha256_of(_path(look)))


def _grouped(groups: Iterable[list[Look]], key: Callable[[Look], str]) -> list[list[Look]]:
    found: dict[tuple[int, str], list[Look]] = defaultdict(list)
    for place, group in enumerate(groups):
        for look in group:
            if look.num_bytes and look.item.path is not None:
                try:
                    found[place, key(look)].append(look)
                except OSError:
                    continue
    return [group for group in found.values() if len(group) > 1]


def _path(look: Look) -> Path:
    assert look.item.path is not None, "it was opened"
    return look.item.path


def _head_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()


def check_rows(found: Listing, config: DatasetConfig, told: Told) -> list[Segment] | None:
    """Find the rows of the metadata CSV that can't be used.

    Returns:
        The others; None where nothing is cut by a CSV.
    """
    if found.metadata is None or config.cut_rule != "metadata":
        return None
    from preprocessing.metadata import read_metadata

    try:
        segments, bad = read_metadata(found.metadata)
    except SourceError:  # told already, by the listing
        return []
    for row in bad:
        told.many("warning", f"{found.metadata.name} line {row.row}", f"{row.detail} ({row.reason})", row.reason)
    offered = {item.video_id for item in found.items}
    for segment in segments:
        if segment.video_id not in offered:
            where = f"{found.metadata.name} line {segment.row}"
            told.many("warning", where, f"Its video {segment.video_id[:80]!r} is not offered (no-video).", "no-video")
    return segments


def units_of(
    segments: Sequence[Segment] | None, usable: Sequence[Look], same: Mapping[str, str], config: DatasetConfig
) -> list[Unit]:
    """What clips will come from.

    Args:
        segments: rows of the metadata CSV; None: whole items.
        usable: items that will be taken.
        same: for each copy the item of its content.
        config: of the data set.
    """
    if segments is None:
        return [_unit(look, same, config) for look in usable]
    by_id = {look.item.video_id: _unit(look, same, config) for look in usable}
    units = []
    for segment in segments:
        unit = by_id.get(segment.video_id)
        if unit is not None:
            identity = unit.identity if config.identity_pattern else segment.identity or unit.identity
            where, num_frames = f"{segment.video_id}, line {segment.row}", segment.end - segment.start
            units.append(replace(unit, where=where, identity=identity, split=segment.split, num_frames=num_frames))
    return units


def _unit(look: Look, same: Mapping[str, str], config: DatasetConfig) -> Unit:
    item = look.item
    row = LedgerRow(item=item.name, origin=item.origin, state="kept", identity=item.identity)
    return Unit(
        where=item.origin,
        item=item.name,
        identity=whose(row, config.identity_pattern),
        source=same.get(item.name, item.name),
        split=item.split,
        num_frames=look.info.num_frames if look.info is not None else 0,
    )


def check_splits(name: str, units: Sequence[Unit], config: DatasetConfig, told: Told) -> None:
    """See that the split's rule can be kept: enough people or sources, something on each side, nobody on both.

    Args:
        name: of the data set.
        units: what clips will come from.
        config: with the rule.
        told: takes the findings.
    """
    if not units:
        return
    _check_identities(units, config, told)
    seen = [unit for unit in units if unit.identity not in config.unseen]
    where = f"datasets.{name}.split"
    if not seen:
        told.add("error", where, must(f"datasets.{name}.unseen", "leave somebody to train on", "everybody"))
    elif config.split == "official":
        _check_official(where, seen, told)
    elif config.split == "time":
        _check_time(where, seen, config, told)
    else:
        _check_drawn(where, seen, config, told)


def _check_identities(units: Sequence[Unit], config: DatasetConfig, told: Told) -> None:
    people = {unit.identity for unit in units}
    for absent in [identity for identity in config.unseen if identity not in people]:
        fix = "Look at identity_pattern and the files' names"
        told.add("warning", "unseen", must("unseen", "name identities that are there", repr(absent), fix))
    if config.identity_pattern is None:
        return
    items = {unit.item: unit.identity for unit in units}
    others = [item for item, identity in items.items() if identity_of(item, config.identity_pattern) == Path(item).stem]
    if others:
        text = (
            f"{len(others)} of {len(items)} names don't match (as {others[0]}); each counts as an identity of its own."
        )
        told.add("warning" if len(others) < len(items) else "error", "identity_pattern", text)
    sizes = Counter(items.values()).most_common(3)
    most = ", ".join(f"{identity} ({number})" for identity, number in sizes)
    more = len(set(items.values())) > len(sizes)
    told.add(
        "note",
        "identity_pattern",
        f"{len(set(items.values()))} identities in {len(items)} files: {most}{' ...' if more else ''}.",
    )


def _check_official(where: str, units: Sequence[Unit], told: Told) -> None:
    sides = Counter(unit.split for unit in units)
    for side in ("train", "test"):
        if not sides[side] and not (side == "train" and sides[None]):
            fix = "Put the files into folders train and test, or choose another split"
            told.add(
                "error", where, must(where, f"find something for {side}", "split: official and nothing there", fix)
            )
    if sides[None] and sides["test"]:
        first = next(unit.where for unit in units if unit.split is None)
        told.add("warning", where, f"{sides[None]} of {len(units)} are on no side (as {first}); they will train.")
    for what in ("identity", "source"):
        both: dict[str, set[Split]] = defaultdict(set)
        for unit in units:
            both[getattr(unit, what)].add(unit.split or "train")
        for value in sorted(value for value, found in both.items() if len(found) > 1):
            rule = "be on one side alone"
            told.many(
                "error", value, must(f"{what} {value}", rule, "train and test", "Use split: identity"), f"{what} leaks"
            )


def _check_time(where: str, units: Sequence[Unit], config: DatasetConfig, told: Told) -> None:
    if config.kind == "images":
        told.add("error", where, must(where, "be source, identity or official for pictures", "time"))
        return
    needed = MIN_PART_FRAMES if config.kind != "film" else 1
    short = [unit for unit in units if not needed <= config.test_share * unit.num_frames < unit.num_frames - needed]
    if len(short) == len(units):
        fix = "Raise test_share, or choose split: source"
        told.add("error", where, must(where, "leave something to test", "videos too short to be divided", fix))
    elif short:
        text = (
            f"{len(short)} of {len(units)} videos are too short to be divided (as {short[0].where}); they will train."
        )
        told.add("note", where, text)


def _check_drawn(where: str, units: Sequence[Unit], config: DatasetConfig, told: Told) -> None:
    what, needed = ("identity", MIN_IDENTITIES) if config.split == "identity" else ("source", 2)
    groups: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        groups[getattr(unit, what)].add(unit.identity)
    if is_only_picture(config, len(groups)):
        told.add("warning", where, "There is a single picture: it will train, and nothing is left to test.")
    elif len(groups) < needed:
        words = "identities" if what == "identity" else "sources"
        got = f"{len(groups)} {words}, and a split by {what} needs {needed}"
        fix = "Use split: time" if len(groups) < 2 or config.kind == "film" else "Use split: source, or time"
        fix = "Use split: source" if config.kind == "images" else fix
        told.add("error", where, must(where, f"fit the number of {words}", got, fix))
    people = Counter(unit.identity for unit in {unit.source: unit for unit in units}.values())
    shared = [identity for identity, number in people.items() if number > 1]
    if what == "source" and shared:
        fix = "Use split: identity, or time"
        got = (
            f"{len(shared)} with several files (as {shared[0]}), so one may come on both sides and fail the leak check"
        )
        told.add("warning", where, must(where, "keep each identity on one side", got, fix))


def check_counts(units: Sequence[Unit], config: DatasetConfig, spec: DatasetSpec | None, told: Told) -> None:
    """Hold what is there against the published numbers.

    Args:
        units: what clips will come from.
        config: says whether too little is an error.
        spec: of the public data set; None: nothing is published.
        told: takes the findings.
    """
    if spec is None or spec.expected is None:
        return
    kind = spec.expected.unit
    if kind == "clips" and config.cut_rule in ("detect", "scenes"):
        told.add("note", "counts", f"The published number is of {kind}; the cut tells how many there are.")
        return
    here = Counter(str(unit.split) for unit in units) + Counter({"all": len(units)})
    for side, wanted in spec.expected.of.items():
        share = here[side] / wanted
        text = f"{here[side]:,} of the published {wanted:,} {kind} ({side}) are here: {share:.1%}."
        level: Level = "error" if config.require_counts else "warning"
        told.add(level if share < config.yield_floor else "note", "counts", text)
