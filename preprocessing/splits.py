"""Which clips train and which test: by identity, by source, or by time within each source."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from models.contracts import Clip, Split
from models.errors import ClipError, ParamsError, Problem, must
from preprocessing.config import DatasetConfig
from preprocessing.ledger import LedgerRow

logger = logging.getLogger(__name__)

MIN_IDENTITIES = 10
"""A split by identity with fewer says nothing."""
MIN_PART_FRAMES = 8
"""A clip that a split by time leaves with fewer frames is dropped."""

Span = tuple[int, int]
"""First frame, and first frame after the last."""


def identity_of(name: str, pattern: str | None) -> str:
    """Who or what a file shows.

    Args:
        name: the file's name; its stem is searched.
        pattern: regular expression whose group 1 is the identity; without a match, or a pattern, it is the stem.
    """
    stem = Path(name).stem
    found = re.search(pattern, stem) if pattern else None
    return found[1] if found and found[1] else stem


def whose(row: LedgerRow, pattern: str | None) -> str:
    """The identity in a ledger row: by the pattern where one is set, else as the source says, else the item's stem."""
    return row.identity if pattern is None and row.identity else identity_of(row.item, pattern)


def split_by_time(
    spans: Sequence[Span], *, test_share: float, gap_frames: int, min_frames: int = MIN_PART_FRAMES
) -> list[tuple[int, Span, Split]]:
    """Cut one source's spans at a moment: before it is training, after it is the test.

    Args:
        spans: frames that are kept, as spans; they may overlap in time.
        test_share: share of all kept frames that lie after the moment.
        gap_frames: frames dropped before the moment.
        min_frames: shorter parts are dropped. If that leaves no test at all, everything is training.

    Returns:
        (position in ``spans``, part of that span, split), in the order of ``spans``.
    """
    wanted = round(test_share * sum(end - start for start, end in spans))
    moment = _moment(spans, wanted)
    parts: list[tuple[int, Span, Split]] = []
    for place, (start, end) in enumerate(spans):
        parts.append((place, (start, min(end, moment - gap_frames)), "train"))
        parts.append((place, (max(start, moment), end), "test"))
    long_enough = [part for part in parts if part[1][1] - part[1][0] >= max(1, min_frames)]
    if not {"train", "test"} <= {split for _, _, split in long_enough}:
        return [(place, span, "train") for place, span in enumerate(spans)]
    return long_enough


def _moment(spans: Sequence[Span], wanted: int) -> int:
    """The latest frame with at least ``wanted`` kept frames from it on."""
    low, high = min(start for start, _ in spans), max(end for _, end in spans)
    while low < high:
        middle = (low + high + 1) // 2
        after = sum(max(0, end - max(start, middle)) for start, end in spans)
        low, high = (middle, high) if after >= wanted else (low, middle - 1)
    return low


def assign(name: str, clips: Sequence[Clip], config: DatasetConfig) -> list[Clip]:
    """Give each clip its split.

    With ``split: time`` or ``official`` the clips were cut accordingly and keep theirs; otherwise whole identities or
    sources are drawn, in an order that depends on the seed and their own names alone, so that a new one moves few
    others.

    Args:
        name: of the data set, for messages.
        clips: of the whole data set.
        config: rule, share, seed, unseen identities.

    Raises:
        ParamsError: too few identities or sources for the rule. A single picture is no error, but trains.
        ClipError: an identity or source is on both sides.
    """
    if config.kind == "images" and config.split == "time":
        problem = Problem(f"datasets.{name}.split", "time", "be source, identity or official for pictures")
        raise ParamsError([problem])
    if config.split not in ("time", "official"):
        groups = {clip.id: clip.identity if config.split == "identity" else clip.origin_sha256 for clip in clips}
        seen = {groups[clip.id] for clip in clips if clip.identity not in config.unseen}
        if is_only_picture(config, len(seen)):
            logger.warning("data set %s has a single picture: it trains, and nothing is left to test", name)
        else:
            _check_enough(name, config, len(seen))
        tested = _drawn(seen, config.seed, config.test_share)
        clips = [replace(clip, split="test" if groups[clip.id] in tested else "train") for clip in clips]
    done = [replace(clip, split="unseen") if clip.identity in config.unseen else clip for clip in clips]
    check_leaks(name, done, by_time=config.split == "time")
    return done


def is_only_picture(config: DatasetConfig, groups: int) -> bool:
    """Whether a data set of pictures has but one: a style may be a single picture, so that is no error."""
    return config.kind == "images" and config.split == "source" and groups == 1


def check_leaks(name: str, clips: Iterable[Clip], *, by_time: bool) -> None:
    """See that no identity, source file or clip file is in two splits.

    A split by time has each source on both sides by intention: there only unseen identities and equal files count.

    Raises:
        ClipError: names what is on both sides.
    """
    sides: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for clip in clips:
        side = "seen" if by_time and clip.split != "unseen" else clip.split
        sides["identity", clip.identity].setdefault(side, clip.origin)
        sides["source", clip.origin_sha256].setdefault(side, clip.origin)
        sides["file", clip.sha256].setdefault(clip.split, clip.origin)
    for (kind, value), splits in sorted(sides.items()):
        if len(splits) > 1:
            files = " and ".join(splits[side] for side in sorted(splits))
            got = f"{kind} {value} in {' and '.join(sorted(splits))} (as {files})"
            fix = "Use split: identity, or remove the copies"
            raise ClipError(must(f"splits of data set {name}", "share no identity and no file", got, fix))


def _check_enough(name: str, config: DatasetConfig, groups: int) -> None:
    if config.split == "identity" and groups < MIN_IDENTITIES:
        other = "source" if config.kind == "images" else "time"
        rule = f"be {other}, for there are {groups} identities and a split by identity needs {MIN_IDENTITIES}"
        raise ParamsError([Problem(f"datasets.{name}.split", "identity", rule)])
    if config.split == "source" and groups < 2:
        rule = f"be time, for there are {groups} sources and a split by source needs 2"
        raise ParamsError([Problem(f"datasets.{name}.split", "source", rule)])


def _drawn(groups: set[str], seed: int, share: float) -> set[str]:
    """A share of the groups, at least one (a share of 0: none) and not all of them."""
    if share == 0 or len(groups) < 2:
        return set()
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).hexdigest())
    return set(order[: min(max(1, round(share * len(order))), max(1, len(order) - 1))])
