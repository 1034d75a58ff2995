"""The part of a file that has come so far: beside its target, safe from kills, continued only where that is right.

``.<name>.part`` holds the bytes and ``.<name>.part.json`` says where they are from. The final name appears by one
rename, after sizes and checksums agree and the bytes are on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from models.errors import EnvironmentProblem, must

BLOCK_BYTES = 1 << 18
HEAD_BYTES = 1024
SYNC_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where the bytes of a part are from."""

    address: str
    """sha256 of the address: the address itself may hold secrets."""
    url: str = ""
    """The address for people, without credentials and query."""
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    """Bytes of the whole file, as the server said."""
    is_encoded: bool = False
    """Decoded on the way: no byte of it has the server's number."""
    boot: str = ""
    """Of the machine that wrote the bytes. After another start of it, only `synced` bytes are surely there."""
    synced: int = 0

    @property
    def validator(self) -> str | None:
        """What tells this version of the file from any other: a strong ETag, else the date of its change."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def continues(self, other: Record) -> bool:
        """Whether bytes of `other` may follow bytes of this: same length, and same validator where both have one."""
        if None not in (self.total, other.total) and self.total != other.total:
            return False
        if self.address != other.address:
            return True  # two hosts' validators say nothing to each other; the checksum has the last word
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return all(old == new for old, new in pairs if old and new)


class Answer(Protocol):
    """What a server (or a folder) gives for one address: the file, or its rest."""

    record: Record
    start: int
    """Number of the first byte; 0 unless a rest was asked for and given."""
    content_type: str

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks of `BLOCK_BYTES` at most, none of them empty.

        Raises:
            Lost: the connection broke, fell silent or became too slow.
        """

    def close(self) -> None:
        """Give back what the answer holds."""


def address_of(url: str) -> str:
    """A fingerprint of an address."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


def part_of(target: Path) -> Path:
    """Where a target's bytes are kept until they are complete; its record is ``<this>.json``."""
    return target.with_name(f".{target.name}.part")


def _record_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def discard_part(target: Path) -> None:
    """Forget what has come of a target that will not be fetched again."""
    part = part_of(target)
    _record_of(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


@dataclass(slots=True)
class Part:
    """The bytes of one target that are there. Made by `opened`; used by one thread."""

    path: Path
    file: int
    """Descriptor."""
    record: Record | None = None
    size: int = 0
    high: int = 0
    """The largest size that there ever was."""
    head: bytes = b""
    """The first `HEAD_BYTES`."""
    synced: int = 0
    """How many are surely on the disk, whatever happens to the machine."""
    is_finished: bool = False
    _sha256: Any = field(default_factory=hashlib.sha256)
    _md5: Any = None

    @property
    def sha256(self) -> str:
        """Of all bytes that are there."""
        return str(self._sha256.hexdigest())

    @property
    def md5(self) -> str:
        """Of all bytes that are there; empty where the part was not opened with it."""
        return str(self._md5.hexdigest()) if self._md5 else ""

    def may_continue(self, url: str, *, is_checked: bool) -> bool:
        """Whether the rest may be fetched from an address.

        Either a checksum is known and has the last word, or the bytes are from this very address and a validator can
        tell that the file there is still the same. A known size alone proves nothing: two versions may share it.
        """
        record = self.record
        if not self.size or record is None or record.is_encoded or self.size > (record.total or self.size):
            return False
        return is_checked or (record.address == address_of(url) and record.validator is not None)

    def restart(self, record: Record | None) -> None:
        """Throw the bytes away. A kill at any point leaves a part that is empty or has its own record."""
        with _disk(self.path):
            os.ftruncate(self.file, 0)
            os.lseek(self.file, 0, os.SEEK_SET)
            self._write_record(record, is_durable=self.record is not None)
        self.size, self.head, self.synced = 0, b"", 0
        self._sha256, self._md5 = hashlib.sha256(), self._md5 and _md5()

    def note(self, record: Record) -> None:
        """Remember from where the next bytes are."""
        with _disk(self.path):
            self._write_record(record)

    def append(self, block: bytes) -> None:
        """Write a block behind what is there."""
        with _disk(self.path):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self.file, rest) :]
        self._count(block)
        if self.size - self.synced >= SYNC_BYTES:
            self._sync()

    def finish(self, target: Path) -> None:
        """Put the bytes on the disk and give them their final name.

        The record goes first: killed here, at worst one file is fetched again, and nothing is ever left over.
        """
        with _disk(target):
            os.fsync(self.file)
            _record_of(self.path).unlink(missing_ok=True)
            os.replace(self.path, target)
            self.is_finished = True
            _sync_folder(target.parent)

    def check_space(self, num_bytes: int) -> None:
        """Raise `EnvironmentProblem` when the disk can't take so many more bytes."""
        with _disk(self.path):
            free = shutil.disk_usage(self.path.parent).free
        if num_bytes > free:
            rule = f"have {num_bytes / 1e9:.2f} GB free for {self.path.name}"
            raise EnvironmentProblem(
                must(f"The disk of {self.path.parent}", rule, f"{free / 1e9:.2f} GB", "Make room and start again")
            )

    def load(self) -> None:
        """Read what an earlier run left: the record, and once all bytes, for the checksums."""
        self.record = _read_record(_record_of(self.path))
        with _disk(self.path):
            if self.record is None:
                os.ftruncate(self.file, 0)
                return
            if self.record.boot != _boot() and os.fstat(self.file).st_size > self.record.synced:
                os.ftruncate(self.file, self.record.synced)
            while block := os.read(self.file, 1 << 20):
                self._count(block)
        self.synced = min(self.size, self.record.synced)

    def _count(self, block: bytes) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += block[: HEAD_BYTES - len(self.head)]
        self.size += len(block)
        self.high = max(self.high, self.size)
        self._sha256.update(block)
        if self._md5 is not None:
            self._md5.update(block)

    def _sync(self) -> None:
        with _disk(self.path):
            os.fsync(self.file)
            self.synced = self.size
            self._write_record(self.record, is_durable=True)

    def _write_record(self, record: Record | None, *, is_durable: bool = False) -> None:
        path = _record_of(self.path)
        if record is None:
            path.unlink(missing_ok=True)
        else:
            record = replace(record, boot=_boot(), synced=self.synced)
            with path.open("w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)))
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
        self.record = record


@contextmanager
def opened(target: Path, *, has_md5: bool = False) -> Iterator[Part]:
    """A target's part, with what an earlier run left of it. However the block ends, the bytes stay.

    Args:
        target: the final name.
        has_md5: whether the md5 is reckoned too, beside the sha256.

    Raises:
        EnvironmentProblem: the folder can't be written, the disk is full, or another process fetches the same file.
    """
    path = part_of(target)
    with _disk(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    part = Part(path, file, _md5=_md5() if has_md5 else None)
    try:
        part.load()
        yield part
    finally:
        if not part.is_finished and os.fstat(file).st_size == 0:
            discard_part(target)
        os.close(file)


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _locked(path: Path) -> int:
    """Open and lock a part, for as long as it is open."""
    for _ in range(10):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _lock(file)
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return file  # and not a file that another process has just finished and renamed
        except BlockingIOError:
            os.close(file)
            break
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    fix = "Wait for the other transfer, or stop it"
    raise EnvironmentProblem(must(str(path), "be written by one process at a time", "a second one", fix))


def _lock(file: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError from None  # other errors: a file system without locks


def _read_record(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (record.address, record.etag or "", record.last_modified or "", record.boot)
    numbers = (record.total or 0, record.synced)
    is_whole = all(isinstance(text, str) for text in texts) and all(isinstance(n, int) and n >= 0 for n in numbers)
    return record if is_whole else None


def _sync_folder(folder: Path) -> None:
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(file)
    except OSError:
        pass
    finally:
        os.close(file)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say which path it was that could not be written."""
    try:
        yield
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise EnvironmentProblem(must(str(path), "be writable", got, "Make room, or change its permissions")) from None
