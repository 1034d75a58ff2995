"""Unpack zip and tar archives that nobody vouches for.

Zip: members that are stored or deflated. Tar: plain, gzip, bzip2 or xz. Python 3.11 reads no Zstandard: such an archive
is turned away in words, and so is what only bears the name of an archive.
"""

from __future__ import annotations

import filecmp
import hashlib
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from models.errors import EnvironmentProblem, must
from preprocessing.fetch_archive_tar import untar
from preprocessing.fetch_archive_types import DEFAULT_ARCHIVE_LIMITS, ArchiveLimits, checkpoint, cut_off, shown
from preprocessing.fetch_archive_zip import unzip
from preprocessing.video_types import MediaError

__all__ = ["DEFAULT_ARCHIVE_LIMITS", "ArchiveLimits", "is_archive_name", "unpack"]

Form = Literal["zip", "none", "gz", "bz2", "xz"]
"""A zip, or a tar by its compression."""
_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_FORMS: tuple[tuple[bytes, Form], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_FOREIGN = (
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Unpack it with `tar --zstd -xf`"),
    (b"Rar!", "RAR", "Unpack it with unrar"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "Unpack it with 7z"),
)
_PICKLE = tuple(bytes((0x80, version)) for version in range(2, 6))
_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def is_archive_name(name: str) -> bool:
    """Whether a file's name is that of an archive that `unpack` may read; ``.pth.tar`` is a checkpoint's."""
    return name.lower().endswith(_SUFFIXES) and not name.lower().endswith((".pth.tar", ".pt.tar"))


def unpack(archive: Path, folder: Path, limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS) -> list[Path]:
    """Unpack an archive into a folder.

    Everything is written to a scratch folder beside ``folder`` and renamed, so a kill leaves no half file below it. A
    folder that is not there comes into being as a whole; into one that is there the members go one by one, and a
    killed call is simply repeated. Files get mode 0644 and folders 0755, whatever the archive says. The archive stays.

    Args:
        archive: zip or tar; its content says which, not its suffix.
        folder: where the members go. What is there already stays; a file of a member's name must have its content.
        limits: members, bytes, ratios and names allowed.

    Returns:
        All files of the archive, below ``folder``, sorted.

    Raises:
        MediaError: ``unsafe-archive`` with the member that can't be trusted; ``truncated`` or ``unreadable`` for
            damage; ``unsupported`` for another form; ``not-media`` for a web page; ``empty``; ``missing``.
        EnvironmentProblem: the disk is full, or the folder can't be written.
    """
    form, scratch = _form_of(archive), _scratch(archive, folder.absolute())
    try:
        with _machine_errors(folder), _damage(archive.name, form):
            shutil.rmtree(scratch, ignore_errors=True)  # left by a killed call
            scratch.mkdir(parents=True)
            names = unzip(archive, scratch, limits) if form == "zip" else untar(archive, scratch, limits, form)
            if not names:
                raise MediaError(must(archive.name, "hold files", "none"), "empty")
            _plain_modes(scratch)
            _move(archive.name, scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / name for name in sorted(names)]


def _scratch(archive: Path, folder: Path) -> Path:
    """Always the same for one archive, so that what a killed call left is found."""
    mark = hashlib.sha256(os.fsencode(archive.name)).hexdigest()[:8]
    return folder.parent / f".{folder.name[:40]}.unpacking-{mark}"


def _form_of(archive: Path) -> Form:
    """What the content is.

    Raises:
        MediaError: nothing that can be unpacked, in words.
    """
    head, where = _head(archive), archive.name
    for magic, form in _FORMS:
        if head.startswith(magic):
            return form
    for magic, name, fix in _FOREIGN:
        if head.startswith(magic):
            raise MediaError(must(where, "be a zip or tar archive", f"a {name} archive", fix), "unsupported")
    if head.startswith(_PICKLE):
        raise checkpoint(where)
    if head.lstrip().lower().startswith(_PAGE):
        raise MediaError(must(where, "be a zip or tar archive", "a web page", "Look at it in a browser"), "not-media")
    if len(head) == tarfile.BLOCKSIZE:
        try:
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return "none"
        except tarfile.HeaderError:
            pass
        else:
            return "none"
    raise MediaError(must(where, "be a zip or tar archive", "something else", "Fetch it again"), "unsupported")


def _head(archive: Path) -> bytes:
    try:
        with archive.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except FileNotFoundError:
        raise MediaError(must(str(archive), "exist", "no such file"), "missing") from None
    except OSError as error:
        raise MediaError(must(str(archive), "be a readable file", error.strerror or str(error)), "unreadable") from None
    if not head:
        raise MediaError(must(archive.name, "hold something", "an empty file", "Fetch it again"), "empty")
    return head


@contextmanager
def _machine_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "Free some space, or choose another folder"
        raise EnvironmentProblem(must(str(folder), "be writable", error.strerror or str(error), fix)) from None


@contextmanager
def _damage(where: str, form: Form) -> Iterator[None]:
    """Turn what the readers raise for a damaged archive into one error."""
    try:
        yield
    except EOFError:
        raise cut_off(where) from None
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        if any(word in str(error) for word in ("not a zip file", "truncated", "unexpected end", "empty file")):
            raise cut_off(where) from None
        raise _unreadable(where, error) from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2
            raise _unreadable(where, error) from None
        raise
    except (lzma.LZMAError, zlib.error, struct.error, ValueError, LookupError, RuntimeError, OverflowError) as error:
        raise _unreadable(where, error) from None


def _unreadable(where: str, error: Exception) -> MediaError:
    got = shown(str(error) or type(error).__name__).strip("'\"")
    return MediaError(must(where, "be readable", got, "Fetch it again"), "unreadable")


def _plain_modes(scratch: Path) -> None:
    """Modes that do not depend on the umask."""
    for place, _, files in os.walk(scratch):
        os.chmod(place, 0o755)
        for name in files:
            os.chmod(os.path.join(place, name), 0o644)


def _move(where: str, scratch: Path, folder: Path) -> None:
    if not os.path.lexists(folder):
        os.rename(scratch, folder)
        return
    if not folder.is_dir():
        raise NotADirectoryError(20, "a file of that name is there")
    for old, new in list(_moves(where, scratch, folder)):  # all conflicts come before the first move
        os.rename(old, new)


def _moves(where: str, source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """What to rename so that ``target`` holds ``source`` too; links are not followed."""
    for old in sorted(source.iterdir()):
        new = target / old.name
        if not os.path.lexists(new):
            yield old, new
        elif old.is_dir() and new.is_dir() and not new.is_symlink():
            yield from _moves(where, old, new)
        elif old.is_dir() or not new.is_file() or new.is_symlink() or not filecmp.cmp(old, new, shallow=False):
            got = f"{shown(str(new))}, which is there with other content"
            raise MediaError(
                must(where, "replace nothing", got, "Move that away, or unpack elsewhere"), "unsafe-archive"
            )
