"""The page's section on data as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from models.contracts import Split
from pipelines.params import Params
from pipelines.report_data import Report, Reports, find, number, size, whole
from pipelines.report_images import Picture, embed
from pipelines.sources import licences, shown_source
from pipelines.stage import Paths
from preprocessing.config import DatasetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetView:
    """A data set from its media to its shards."""

    name: str
    kind: str
    source: str
    split_rule: str
    items: int | None
    kept: int | None
    rejects: tuple[tuple[str, int], ...]
    """(reason, how many) over all stages, most frequent first."""
    clips: int | None
    frames: int | None
    identities: int | None
    unused: tuple[tuple[str, int], ...]
    """(reason, how many) of the kept media's frames that are in no clip."""
    splits: tuple[tuple[str, int, int | None], ...]
    """(split, clips, frames)."""
    size_px: int
    bytes: int | None
    contact: Picture | None
    unseen: tuple[str, ...]
    preset: str | None
    licence: str
    cut: str
    durations: str
    """Shortest, median and longest clip in words; empty for stills."""
    source_s: float | None
    """Of all media that were decoded, as played."""
    expected: tuple[tuple[str, int, int], ...]
    """(split, found, expected of the full data set)."""

    @property
    def share(self) -> float | None:
        """Kept items as a share of all."""
        return self.kept / self.items if self.items and self.kept is not None else None


def datasets(params: Params, paths: Paths, reports: Reports) -> list[DatasetView]:
    """Every data set of params.yaml."""
    return [_dataset(name, config, paths, reports) for name, config in params.datasets.items()]


def _dataset(name: str, config: DatasetConfig, paths: Paths, reports: Reports) -> DatasetView:
    fetched, shards = reports.get("download", name), reports.get("shard", name)
    cut = reports.get("cut", name)
    clips_of = find(shards, "clips_of_split") or find(cut, "clips_of_split") or {}
    frames_of = find(shards, "frames_of_split") or find(cut, "frames_of_split") or {}
    items = whole(find(fetched, "items")) or whole(find(cut, "items"))
    kept = find(cut, "kept")
    return DatasetView(
        name=name,
        kind=config.kind,
        source=shown_source(config),
        split_rule=str(find(shards, "split_rule") or config.split),
        items=items,
        kept=whole(find(fetched, "kept") if kept is None else kept),
        rejects=_rejects(*([] if config.cut_rule == "metadata" and cut else [fetched]), cut, shards),
        clips=whole(find(shards, "clips") or find(cut, "clips")),
        frames=whole(find(shards, "frames") or find(cut, "frames")),
        identities=whole(find(cut, "identities")),
        unused=_unused(find(cut, "dropped_frames")),
        splits=tuple((split, size(clips_of[split]), whole(frames_of.get(split))) for split in _in_order(clips_of)),
        size_px=config.size_px,
        bytes=whole(find(shards, "bytes")),
        contact=embed(paths.pictures("cut", name) / "contact.png", alt=f"Contact sheet of {name}"),
        unseen=config.unseen,
        preset=config.preset,
        licence=licences(config, paths.root),
        cut=config.cut_rule,
        durations=_durations(find(cut, "clip_seconds")),
        source_s=number(find(cut, "source_seconds")),
        expected=_expected(find(cut, "expected"), find(cut, "found")),
    )


def _durations(found: Any) -> str:
    if not isinstance(found, Mapping) or not {"min", "median", "max"} <= set(found):
        return ""
    shortest, middle, longest = (number(found[key]) or 0.0 for key in ("min", "median", "max"))
    return f"{shortest:.1f} to {longest:.1f} s, median {middle:.1f} s"


def _expected(wanted: Any, found: Any) -> tuple[tuple[str, int, int], ...]:
    if not isinstance(wanted, Mapping):
        return ()
    counted = found if isinstance(found, Mapping) else {}
    return tuple((str(split), size(counted.get(split)), size(total)) for split, total in wanted.items())


def _rejects(*stages: Report) -> tuple[tuple[str, int], ...]:
    """Rejected items by reason, whether a stage gives counts or a list of items."""
    counts: Counter[str] = Counter()
    for report in stages:
        rejected = report.get("rejected")
        if isinstance(rejected, Mapping):
            counts.update({str(reason): size(count) for reason, count in rejected.items()})
        elif isinstance(rejected, list):
            counts.update(str(find(item, "reason") or "unnamed") for item in rejected)
    return tuple((reason, count) for reason, count in counts.most_common() if count)


def _in_order(splits: Mapping[str, Any]) -> list[str]:
    """The splits' names, those of the project first in its own order."""
    known = [split for split in get_args(Split) if split in splits]
    return [*known, *(split for split in splits if split not in known)]


def _unused(dropped: Any) -> tuple[tuple[str, int], ...]:
    counts = {str(reason): size(count) for reason, count in dropped.items()} if isinstance(dropped, Mapping) else {}
    return tuple(sorted(((reason, count) for reason, count in counts.items() if count), key=lambda entry: -entry[1]))
