"""Read a zip that nobody vouches for. `fetch_archive.unpack` is the way in."""

from __future__ import annotations

import io
import re
import shutil
import stat
import zipfile
from pathlib import Path

from models.errors import EnvironmentProblem, must
from preprocessing.fetch_archive_types import (
    BLOCK_BYTES,
    ArchiveLimits,
    Meter,
    Names,
    checkpoint,
    new_file,
    shown,
    unsafe,
)
from preprocessing.video_types import MediaError

_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER_BYTES = 30
_MODE_WORDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class _Guarded(io.FileIO):
    """A file that bounds what zipfile reads at once while it takes in the directory."""

    limits: ArchiveLimits | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limits is None:
            return super().read(size)
        num_bytes = -1 if size is None else size
        most = self.limits.max_members * (46 + 64 + self.limits.max_name_bytes)
        rule = f"hold at most {self.limits.max_members:,} files and folders"
        if num_bytes > most:
            raise unsafe(Path(str(self.name)).name, rule, f"a directory of {num_bytes:,} bytes")
        data = super().read(min(num_bytes, most) if num_bytes >= 0 else most)
        if data.count(_ENTRY) > self.limits.max_members:
            raise unsafe(Path(str(self.name)).name, rule, "more")
        return data


def unzip(archive: Path, scratch: Path, limits: ArchiveLimits) -> list[str]:
    """Unpack a zip into an empty folder; all that its directory tells is checked before anything is written.

    Returns:
        Paths of the files below the folder.

    Raises:
        MediaError: it can't be trusted, holds members that are neither stored nor deflated, or is damaged.
    """
    with _Guarded(archive) as file:
        file.limits = limits
        with zipfile.ZipFile(file) as opened:
            file.limits = None
            entries, meter = opened.infolist(), Meter(archive, limits)
            named = _zip_checked(archive.name, entries, limits, meter)
            _check_room(scratch, sum(entry.file_size for entry in entries))
            for entry, name in named:
                if _zip_is_folder(entry):
                    (scratch / name).mkdir(parents=True, exist_ok=True)
                else:
                    _zip_member(opened, entry, scratch / name, meter, limits)
    return [name for entry, name in named if not _zip_is_folder(entry)]


def _zip_checked(
    where: str, entries: list[zipfile.ZipInfo], limits: ArchiveLimits, meter: Meter
) -> list[tuple[zipfile.ZipInfo, str]]:
    if any(re.fullmatch(r"([^/]+/)?data\.pkl", entry.filename) for entry in entries):
        raise checkpoint(where)
    names, named = Names(where, limits), []
    for entry in entries:
        name = names.add(entry.orig_filename, is_file=not _zip_is_folder(entry))
        _check_zip_member(where, entry, name)
        meter.check_ratio(f"member {shown(name)}", entry.file_size, entry.compress_size, limits.max_member_ratio)
        named.append((entry, name))
    _check_overlap(where, entries)
    meter.check_total(sum(entry.file_size for entry in entries))
    return named


def _zip_is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.orig_filename.endswith("/")


def _check_zip_member(where: str, entry: zipfile.ZipInfo, name: str) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        got = f"member {shown(name)}: {_MODE_WORDS.get(kind, 'something else')}"
        raise unsafe(where, "hold plain files and folders only", got)
    if entry.flag_bits & _ENCRYPTED:
        raise unsafe(where, "hold members that anyone can read", f"member {shown(name)}: encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        got = f"member {shown(name)}: method {entry.compress_type}"
        raise MediaError(must(where, "hold stored or deflated members", got, "Unpack it with 7z first"), "unsupported")


def _check_overlap(where: str, entries: list[zipfile.ZipInfo]) -> None:
    """No two members may share bytes: that is how a small zip unpacks to terabytes at a modest ratio."""
    end, last = 0, ""
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            got = f"members {shown(last)} and {shown(entry.filename)} in one place"
            raise unsafe(where, "hold its members one after the other", got)
        end = entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size
        last = entry.filename


def _zip_member(
    opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, meter: Meter, limits: ArchiveLimits
) -> None:
    done = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as member, new_file(target) as file:
        while block := member.read(BLOCK_BYTES):
            done += len(block)
            meter.add(len(block))
            meter.check_ratio(f"member {shown(entry.filename)}", done, entry.compress_size, limits.max_member_ratio)
            file.write(block)
    if done != entry.file_size:
        got = f"{done:,} of {entry.file_size:,} bytes"
        raise MediaError(must(f"{target.name}, a member", "be whole", got, "Fetch the archive again"), "truncated")


def _check_room(scratch: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(scratch).free
    if num_bytes > free:
        got, fix = f"{free / 1e9:.2f} GB free", "Free some space"
        raise EnvironmentProblem(must(str(scratch.parent), f"have room for {num_bytes / 1e9:.2f} GB", got, fix))
