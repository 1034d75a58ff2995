"""Whether a candidate should become champion: figures of the same metric on the same data, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Judged(Protocol):
    """What promotion looks at in a model version."""

    @property
    def name(self) -> str:
        """Of the registered model."""

    @property
    def version(self) -> int:
        """Its number."""

    @property
    def tags(self) -> Mapping[str, str]:
        """``metric.name``, ``metric.data``, ``metric.value`` and ``metric.better`` (``lower`` or ``higher``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the champion followed the candidate, and why."""

    name: str
    promoted: bool
    champion: int | None
    """The champion's version afterwards."""
    sentence: str


def judge(candidate: Judged, champion: Judged | None) -> tuple[bool, str]:
    """Whether a candidate should become champion, and the sentence that says why (not)."""
    new = f"version {candidate.version} of {candidate.name}"
    if champion is None:
        return True, f"{new} is champion now: there was none."
    if champion.version == candidate.version:
        return False, f"{new} is champion already."
    for key, word in (("metric.name", "metric"), ("metric.data", "data")):
        if candidate.tags.get(key) is None or candidate.tags.get(key) != champion.tags.get(key):
            got = f"{candidate.tags.get(key)} against {champion.tags.get(key)}"
            return False, f"{new} stays candidate: champion and candidate were not judged by the same {word} ({got})."
    name, better = candidate.tags["metric.name"], candidate.tags.get("metric.better", "lower")
    mine, theirs = float(candidate.tags["metric.value"]), float(champion.tags["metric.value"])
    figures = f"{name} {mine:.5f} against {theirs:.5f} of version {champion.version}, {better} is better"
    if (mine < theirs) if better == "lower" else (mine > theirs):
        return True, f"{new} is champion now: {figures}."
    return False, f"{new} stays candidate: {figures}."
