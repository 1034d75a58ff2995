"""What all archives share: their limits, the check of names, the count of bytes, their errors."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from models.errors import must
from preprocessing.video_types import MediaError

BLOCK_BYTES = 1 << 20
_MAX_PART_BYTES = 255
_DRIVE = re.compile(r"^[A-Za-z]:")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of writing, and so show one name for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of one archive."""

    max_members: int = 99_999
    """Files and folders, those counted that only a path names."""
    max_bytes: int = 400 * 10**9
    """Of everything, unpacked."""
    max_ratio: float = 100.0
    """Unpacked size over the archive's size."""
    max_member_ratio: float = 200.0
    """The same of one member of a zip; a tar is compressed as a whole."""
    free_bytes: int = 16 << 20
    """Unpacked bytes to which no ratio applies: small texts shrink a lot."""
    max_name_bytes: int = 1024
    """Of a member's whole path. Each part of it holds at most 255, as file systems have it."""
    max_depth: int = 32
    """Parts of a path."""
    max_header_bytes: int = 64 << 10
    """Of one tar member's headers, which are read into memory."""


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


def unsafe(where: str, rule: str, got: str) -> MediaError:
    """The error of an archive that can't be trusted."""
    return MediaError(must(where, rule, got, "Get it from a source that you trust"), "unsafe-archive")


def shown(name: str) -> str:
    """A name from outside, harmless in a message and of bounded length."""
    return ascii(name[:120]) + ("..." if len(name) > 120 else "")


class Names:
    """The members seen so far: their number, and every name that a file system without case would mix up."""

    def __init__(self, where: str, limits: ArchiveLimits) -> None:
        self._where, self._limits = where, limits
        self._seen: dict[str, tuple[str, bool]] = {}
        self._num_entries = 0

    def add(self, raw: str, *, is_file: bool) -> str:
        """Check one member's name.

        Args:
            raw: as the archive has it, not cut at a NUL.
            is_file: false for a folder.

        Returns:
            Its path below the folder; empty for the archive's own root.

        Raises:
            MediaError: ``unsafe-archive``, with the member's name.
        """
        self._num_entries += 1
        self._check_number()
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        problem = self._problem(raw, parts) or ("it has no name" if is_file and not parts else None)
        if problem:
            raise unsafe(self._where, "hold harmless names only", f"member {shown(raw)}: {problem}")
        for end in range(1, len(parts) + 1):
            self._note("/".join(parts[:end]), raw, is_file=is_file and end == len(parts))
        return "/".join(parts)

    def _check_number(self) -> None:
        if max(self._num_entries, len(self._seen)) > self._limits.max_members:
            raise unsafe(self._where, f"hold at most {self._limits.max_members:,} files and folders", "more")

    def _note(self, path: str, raw: str, *, is_file: bool) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        before = self._seen.get(key)
        if before is None:
            self._seen[key] = (path, is_file)
            self._check_number()
        elif is_file or before != (path, False):
            got = f"member {shown(raw)} " + ("twice" if before[0] == path else f"beside {shown(before[0])}")
            raise unsafe(self._where, "hold each name once, whatever its case", got)

    def _problem(self, raw: str, parts: list[str]) -> str | None:
        """What is wrong with a name, in words."""
        long = max((len(part.encode("utf-8", "surrogateescape")) for part in parts), default=0) > _MAX_PART_BYTES
        whole = len(raw.encode("utf-8", "surrogateescape")) > self._limits.max_name_bytes
        rules = (
            (raw.startswith("/"), "an absolute path"),
            (".." in parts, "a path that leads out of the folder"),
            ("\\" in raw, "a backslash"),
            (bool(_DRIVE.match(raw)), "a drive letter"),
            (any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in raw), "a control character"),
            (not _TURNING.isdisjoint(raw), "a character that turns the direction of writing"),
            (long or whole, "too long"),
            (len(parts) > self._limits.max_depth, f"deeper than {self._limits.max_depth} folders"),
        )
        return next((words for broken, words in rules if broken), None)


class Meter:
    """Counts what comes out of an archive."""

    def __init__(self, archive: Path, limits: ArchiveLimits) -> None:
        self._where, self._limits, self._archive_bytes = archive.name, limits, archive.stat().st_size
        self._total = 0

    def add(self, num_bytes: int) -> None:
        """Count; raises `MediaError` where it becomes too much."""
        self._total += num_bytes
        self.check_total(self._total)

    def check_total(self, total: int) -> None:
        """See that so many bytes are not too many for this archive."""
        if total > self._limits.max_bytes:
            raise unsafe(self._where, f"unpack to at most {self._limits.max_bytes / 1e9:g} GB", "more")
        self.check_ratio("it", total, self._archive_bytes, self._limits.max_ratio)

    def check_ratio(self, what: str, unpacked: int, packed: int, limit: float) -> None:
        """See that something does not grow beyond belief."""
        if unpacked > self._limits.free_bytes and unpacked > limit * packed:
            rule = f"grow at most {limit:g} times when it is unpacked"
            raise unsafe(self._where, rule, f"{what}: {unpacked:,} bytes or more out of {packed:,}")


def cut_off(where: str) -> MediaError:
    """The error of an archive that is cut short."""
    return MediaError(must(where, "be whole", "an archive that ends early", "Fetch it again"), "truncated")


def checkpoint(where: str) -> MediaError:
    """The error of a PyTorch checkpoint that is taken for an archive."""
    fix = "Such files of weights carry .tar in their names for no reason; it is not for unpacking"
    return MediaError(must(where, "be a zip or tar archive", "a PyTorch checkpoint", fix), "unsupported")


def new_file(target: Path) -> BinaryIO:
    """Open a file that is not there yet; its mode is 0666 less the umask until `fetch_archive` sets it."""
    return target.open("xb")
