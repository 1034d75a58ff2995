"""What the studio offers: model versions of the registry, sample photos and driving videos."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from models.errors import TrackingError, must
from pipelines import registry
from pipelines.carried import FAMILY_TAG
from pipelines.registry import Store, Version

T = TypeVar("T")
MOTION = "motion"
"""Family of a version without a family tag."""
STYLISTS = ("style", "dualstyle")
"""Families whose versions stylise."""
MODELS_KEPT = 2
"""Opened models of a kind that stay in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model version as a list shows it."""

    uri: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Every version that the studio can work with, each list with the champions first."""

    stylists: tuple[Choice, ...]
    movers: tuple[Choice, ...]


def choices(store: Store) -> Choices:
    """The registry's versions by what they do; of each name the newest first.

    Raises:
        TrackingError: the registry is away, or holds nothing that stylises or nothing that moves pictures.
    """
    versions = [version for name in registry.names(store) for version in registry.versions_of(name, store)]
    ordered = sorted(versions, key=lambda version: (_rank(version), version.name, -version.version))
    by_family = {
        "stylists": tuple(_choice(version) for version in ordered if _family(version) in STYLISTS),
        "movers": tuple(_choice(version) for version in ordered if _family(version) == MOTION),
    }
    for kind, fix in (("stylists", "a style model"), ("movers", "a motion model")):
        if not by_family[kind]:
            rule = f"hold {fix} for the studio"
            raise TrackingError(must("the registry", rule, "none", "Train and register one: inkmotion run"))
    return Choices(**by_family)


def sample_media(folder: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    """Files of these kinds in a folder, by name; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes))


class Kept(Generic[T]):
    """Opened models, each opened once; the one that was used longest ago makes room.

    Args:
        open_one: opens a version by its URI.
        at_most: how many stay open.
    """

    def __init__(self, open_one: Callable[[str], T], *, at_most: int = MODELS_KEPT) -> None:
        self._open_one, self._at_most = open_one, at_most
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, T] = OrderedDict()

    def get(self, uri: str) -> T:
        """The opened model; two who ask at once share it. Raises what the opening raises, and tries anew next time."""
        with self._lock:
            if uri not in self._opened:
                made = self._open_one(uri)
                while len(self._opened) >= self._at_most:
                    self._opened.popitem(last=False)
                self._opened[uri] = made
            self._opened.move_to_end(uri)
            return self._opened[uri]


def _family(version: Version) -> str:
    return version.tags.get(FAMILY_TAG, MOTION)


def _rank(version: Version) -> int:
    return 0 if registry.CHAMPION in version.aliases else 1 if registry.CANDIDATE in version.aliases else 2


def _choice(version: Version) -> Choice:
    aliases = [alias for alias in (registry.CHAMPION, registry.CANDIDATE) if alias in version.aliases]
    note = f" ({aliases[0]})" if aliases else ""
    return Choice(uri=version.uri, label=f"{version.name} {version.version}{note}")
