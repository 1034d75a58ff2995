"""Read a tar that nobody vouches for, plain or compressed. `fetch_archive.unpack` is the way in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import must
from preprocessing.fetch_archive_types import BLOCK_BYTES, ArchiveLimits, Meter, Names, cut_off, new_file, shown, unsafe
from preprocessing.video_types import MediaError

_XZ_MEMORY_BYTES = 256 << 20
"""Four times what xz -9 needs; a header may ask for 4 GiB."""
_TAIL_BYTES = 16 << 20
"""Padding after a tar's end that is read to see the compression's checksum."""
_LONG_NUMBER = re.compile(rb"\d{32}")
_TAR_WORDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class _TarStream:
    """A tar's bytes, decompressed and counted; forwards only.

    tarfile reads headers through `read`, out of a purse that is filled anew for each member: the extended headers of
    one may be as long as they like and would be read into memory whole.
    """

    def __init__(self, where: str, blocks: Generator[bytes, None, None], meter: Meter, limits: ArchiveLimits) -> None:
        self._where, self._blocks, self._meter = where, blocks, meter
        self._max_header_bytes = limits.max_header_bytes
        self._block, self._place, self._purse = io.BytesIO(), 0, 0
        self.last_header = b""

    def refill(self) -> None:
        """Allow the headers of one more member."""
        self._purse = self._max_header_bytes

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        if place < self._place:
            raise unsafe(self._where, "have headers that lead forwards", f"a step back by {self._place - place:,}")
        self._headers(place - self._place)
        return self._place

    def read(self, size: int) -> bytes:
        data = self._headers(size)
        if _LONG_NUMBER.search(data):  # tarfile's patterns take quadratic time for those
            raise unsafe(self._where, "have plausible headers", "a number of 32 digits or more")
        if size == tarfile.BLOCKSIZE:
            self.last_header = data
        return data

    def _headers(self, size: int) -> bytes:
        if not 0 <= size <= self._purse:
            rule = f"have at most {self._max_header_bytes:,} bytes of headers to a member"
            raise unsafe(self._where, rule, "more")
        self._purse -= size
        parts, wanted = [], size
        while wanted and (part := self.take(wanted)):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def take(self, most: int) -> bytes:
        """The next bytes of content, up to ``most``; empty at the end."""
        data = self._block.read(most)
        if not data and most:
            block = next(self._blocks, b"")
            self._meter.add(len(block))
            self._block = io.BytesIO(block)
            data = self._block.read(most)
        self._place += len(data)
        return data


def untar(archive: Path, scratch: Path, limits: ArchiveLimits, compression: str) -> list[str]:
    """Unpack a tar into an empty folder; each member is checked before it is written.

    Args:
        archive: the file.
        scratch: an empty folder.
        limits: members, bytes and names allowed.
        compression: ``none``, ``gz``, ``bz2`` or ``xz``.

    Returns:
        Paths of the files below the folder.

    Raises:
        MediaError: it can't be trusted or is damaged. What was written until then is the caller's to remove.
    """
    where, files, names = archive.name, [], Names(archive.name, limits)
    with archive.open("rb") as raw, closing(_blocks(raw, compression, where)) as blocks:
        stream = _TarStream(where, blocks, Meter(archive, limits), limits)
        for member in _tar_members(stream, where, compression):
            name = names.add(member.name, is_file=not member.isdir())
            _check_tar_member(where, member, name, limits)
            if member.isdir():
                (scratch / name).mkdir(parents=True, exist_ok=True)
            else:
                _tar_member(stream, member.size, scratch / name, where)
                files.append(name)
        _check_tar_end(stream, where)
    return files


def _tar_members(stream: _TarStream, where: str, compression: str) -> Generator[tarfile.TarInfo, None, None]:
    stream.refill()
    try:
        tar = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    except tarfile.ReadError as error:
        if compression == "none" or len(stream.last_header) < tarfile.BLOCKSIZE:
            raise
        raise MediaError(must(where, "hold a tar inside its compression", str(error)), "unsupported") from None
    while True:
        stream.refill()
        member = tar.next()
        if member is None:
            return
        yield member


def _check_tar_member(where: str, member: tarfile.TarInfo, name: str, limits: ArchiveLimits) -> None:
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.issparse():
        got = f"member {shown(name)}: {_TAR_WORDS.get(member.type, 'a file of an unknown type')}"
        raise unsafe(where, "hold plain files and folders only", got)
    if not 0 <= member.size <= limits.max_bytes:
        got = f"member {shown(name)}: {member.size:,} bytes"
        raise unsafe(where, f"unpack to at most {limits.max_bytes / 1e9:g} GB", got)


def _tar_member(stream: _TarStream, size: int, target: Path, where: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_file(target) as file:
        while size:
            block = stream.take(min(size, BLOCK_BYTES))
            if not block:
                raise cut_off(where)
            file.write(block)
            size -= len(block)


def _check_tar_end(stream: _TarStream, where: str) -> None:
    """See that the end is the mark of the end, and read what follows, for the checksum of the compression."""
    if len(stream.last_header) < tarfile.BLOCKSIZE:
        raise cut_off(where)
    if stream.last_header.strip(b"\0"):
        raise MediaError(must(where, "be readable", "a damaged header", "Fetch it again"), "unreadable")
    read = 0
    while block := stream.take(BLOCK_BYTES):
        read += len(block)
        if read > _TAIL_BYTES:
            raise unsafe(where, "hold nothing after its end", f"{read:,} bytes or more")


def _blocks(raw: BinaryIO, compression: str, where: str) -> Generator[bytes, None, None]:
    """What a compressed file holds, a block at a time."""
    if compression == "xz":
        yield from _xz_blocks(raw, where)
        return
    opened: Any = raw
    if compression == "gz":
        opened = gzip.GzipFile(fileobj=raw)
    elif compression == "bz2":
        opened = bz2.BZ2File(raw)
    while block := opened.read(BLOCK_BYTES):
        yield block


def _xz_blocks(raw: BinaryIO, where: str) -> Generator[bytes, None, None]:
    """The content of an .xz file; `lzma.open` has no bound on the memory that a header asks for."""
    decoder, packed = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), b""
    while True:
        if decoder.eof:
            packed = (decoder.unused_data or raw.read(BLOCK_BYTES)).lstrip(b"\0")  # padding between streams
            if not packed:
                return
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        elif decoder.needs_input:
            packed = raw.read(BLOCK_BYTES)
            if not packed:
                raise cut_off(where)
        try:
            block = decoder.decompress(packed, BLOCK_BYTES)
        except lzma.LZMAError as error:
            if "Memory usage limit" in str(error):
                raise unsafe(where, f"need at most {_XZ_MEMORY_BYTES >> 20} MiB to unpack", "more") from None
            raise
        packed = b""
        if block:
            yield block
