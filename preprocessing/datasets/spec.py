"""What is known of a public data set, in one form; each has a file of its own in this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.contracts import Kind, Split
from preprocessing.config import DatasetConfig
from preprocessing.video_types import MediaError

Unit = Literal["clips", "videos", "images"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One medium that a source offers: in a folder, at an address, or out of reach."""

    name: str
    """Safe and unique in the data set: letters, digits, ``.``, ``_`` and ``-``; its stem is unique too."""
    origin: str
    """Its path below the source, as the user named it, or its own address; the same whichever mirror serves it."""
    path: Path | None = None
    urls: tuple[str, ...] = ()
    """Where it can be fetched, tried in order."""
    video_id: str | None = None
    """Of a video that is fetched through `DatasetConfig.video_url`."""
    num_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    identity: str | None = None
    """Who is seen, where the source says so."""
    split: Split | None = None
    """On which side the source's official lists have it."""
    problem: MediaError | None = None
    """Why it can't be taken, where its name or place alone tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Everything that a source offers, in an order that is always the same."""

    items: tuple[Item, ...]
    metadata: Path | None = None
    """The CSV that says what to cut."""
    boxes: Path | None = None
    """The CSV of boxes given by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Under which terms a data set may be used."""

    name: str
    url: str
    allows: str
    """One sentence: what one may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A gate that a person must pass."""

    url: str
    what: str
    """What to ask for there, and what one gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file at an address that must be had before the items are known: a list, a CSV, an archive of everything."""

    name: str
    """The file's name below the source folder; an archive is unpacked there and removed."""
    urls: tuple[str, ...]
    """http(s), or a public link of Google Drive or Yandex Disk; tried in order."""
    is_archive: bool = False
    num_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    status: str = ""
    """What is known of the address, with the year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of items that somebody has published, or that the public lists hold."""

    of: Mapping[str, int]
    """Split (``train``, ``test``) or ``all`` -> number."""
    unit: Unit
    who: str
    """The paper or list that says so."""
    is_expected: bool = False
    """Whether the full data set is held against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """One public data set."""

    name: str
    """As in `inkmotion datasets list`: lower-case letters, digits, ``-``."""
    title: str
    kind: Kind
    papers: tuple[str, ...]
    """Which of the papers use it (``dcf``, ``jam``, ``cbam-mso``, ``lwcomicgan``, ``dualstyle``), and for what."""
    homepage: str
    licence: Licence
    terms: str
    """What one accepts by fetching it: shown before the first byte."""
    remotes: tuple[Remote, ...] = ()
    """Fetched into the source folder first; empty where everything is by form or the user's own."""
    video_url: str | None = None
    """Where a video's id leads, with ``{id}``."""
    form: Form | None = None
    layout: str
    """How a local copy lies, as a tree in plain text."""
    how_to_get: str
    """Paragraphs for the documentation: what works today, what is dead, what to do."""
    listing: Callable[[Path, DatasetConfig], Listing]
    """Reads a source folder in that layout; items that are not there have their address instead."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of `DatasetConfig` (cut, split, sizes, yield floor)."""
    counts: tuple[Count, ...] = ()
    num_gb: float | None = None
    """Of raw media, in 10^9 bytes."""
    notes: Sequence[str] = ()
    """What a user should know of how it is cut and split."""

    @property
    def expected(self) -> Count | None:
        """The numbers that the full data set is held against."""
        return next((count for count in self.counts if count.is_expected), None)
