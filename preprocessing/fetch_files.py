"""Answers from a local file, and from any other store that fsspec knows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from models.errors import EnvironmentProblem, must
from preprocessing.fetch_limits import Lost
from preprocessing.fetch_links import shown
from preprocessing.fetch_part import BLOCK_BYTES, Record, address_of
from preprocessing.video_types import MediaError


class FileAnswer:
    """A file, or its rest, out of an open stream. Close it."""

    content_type = ""

    def __init__(self, stream: IO[bytes], *, record: Record, start: int) -> None:
        self.record, self.start = record, start
        self._stream = stream

    def blocks(self) -> Iterator[bytes]:
        """The bytes.

        Raises:
            Lost: the store gave an error.
        """
        while block := self._read():
            yield block

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _read(self) -> bytes:
        try:
            return self._stream.read(BLOCK_BYTES)
        except Exception as error:  # every store has its own classes
            raise Lost(must(self.record.url, "be readable to its end", type(error).__name__), "network") from None


def local_path(url: str) -> Path | None:
    """The path of a ``file://`` address or of a plain path; null for any other address."""
    if "://" not in url:
        return Path(url)
    if url.partition("://")[0].lower() != "file":
        return None
    return Path(unquote(urlsplit(url).path))


def open_local(path: Path) -> FileAnswer:
    """A regular file of this machine.

    Raises:
        MediaError: it is ``missing``, no regular file (``unsupported``), or ``unreadable``.
    """
    where = shown(str(path))
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block
    except FileNotFoundError:
        raise MediaError(must(where, "exist", "no such file"), "missing") from None
    except (OSError, ValueError) as error:
        raise MediaError(must(where, "be readable", type(error).__name__), "unreadable") from None
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        os.close(file)
        raise MediaError(must(where, "be a file", "something else"), "unsupported")
    record = Record(address=address_of(str(path)), url=where, total=facts.st_size)
    return FileAnswer(os.fdopen(file, "rb"), record=record, start=0)


def open_stored(url: str, *, offset: int, known: Record | None) -> FileAnswer:
    """A file of s3, gs, memory or any other store that fsspec knows.

    Raises:
        EnvironmentProblem: the package that speaks to the store is missing, or its credentials.
        MediaError: there is no such file (``missing``), or no such kind of store (``unsupported``).
        Lost: the store can't be reached.
    """
    where = shown(url)
    system, path = _store(url, where)
    try:
        facts = system.info(path)
        record = _record(facts, url)
        start = offset if known is not None and known.continues(record) and offset <= (record.total or 0) else 0
        stream = system.open(path, "rb")
        if start:
            stream.seek(start)
    except FileNotFoundError:
        raise MediaError(must(where, "exist", "no such file"), "missing") from None
    except (PermissionError, IsADirectoryError) as error:
        raise MediaError(must(where, "be a readable file", type(error).__name__), "forbidden") from None
    except Exception as error:  # every store has its own classes
        if type(error).__name__ in ("NoCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"):
            fix = "Give them as the store's own tools ask for them"
            raise EnvironmentProblem(must(where, "be reachable with credentials", type(error).__name__, fix)) from None
        raise Lost(must(where, "be reachable", type(error).__name__), "network") from None
    return FileAnswer(stream, record=record, start=start)


def _store(url: str, where: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        fix = "Install the package that it names"
        raise EnvironmentProblem(must(where, "have its driver installed", str(error), fix)) from None
    except ValueError:
        scheme = url.partition("://")[0][:30]
        raise MediaError(must(where, "be of a known kind", scheme), "unsupported") from None
    return system, str(path)


def _record(facts: Any, url: str) -> Record:
    """Stores name the same facts differently."""
    size = facts.get("size")
    etag = facts.get("ETag") or facts.get("etag") or facts.get("md5Hash")
    changed = facts.get("LastModified") or facts.get("mtime") or facts.get("updated") or facts.get("created")
    return Record(
        address=address_of(url),
        url=shown(url),
        etag=str(etag) if etag else None,
        last_modified=str(changed) if changed else None,
        total=size if isinstance(size, int) else None,
    )
