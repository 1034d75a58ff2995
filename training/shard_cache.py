"""Shards that lie behind a URL, copied once to this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from models.contracts import INDEX_NAME
from models.errors import ClipError, must

CACHE_VARIABLE = "INKMOTION_CACHE"


def cache_folder() -> Path:
    """Where copies are kept: ``$INKMOTION_CACHE``, else ``inkmotion`` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkmotion"


def local_copy(location: Path | str) -> Path:
    """The local folder of shards: itself, or a copy of the folder behind a URL.

    A copy is named by the index's checksum, so another version of the data gets another folder. A file is copied beside
    and renamed, so several processes may copy at once and a killed copy is made again.

    Args:
        location: a path, or a URL that fsspec knows (``s3://bucket/shards/faces``); ``file://`` is not copied.

    Raises:
        ClipError: the URL can't be read, or its index names a file outside the folder.
    """
    text = str(location)
    if "://" not in text:
        return Path(location)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    try:
        return _fetch(text.rstrip("/"))
    except ClipError:
        raise
    except Exception as error:  # every file system has errors of its own
        got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ClipError(
            must(text, "be a readable folder of shards", got, "Check the address and its rights")
        ) from error


def _fetch(url: str) -> Path:
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    raw = system.cat_file(f"{root}/{INDEX_NAME}")
    folder = cache_folder() / "shards" / hashlib.sha256(raw).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for shard in json.loads(raw)["shards"]:
        name = PurePosixPath(shard["path"])
        if name.is_absolute() or ".." in name.parts:
            raise ClipError(must(f"{url}/{INDEX_NAME}", "name files below its folder", str(name)))
        target = folder / name
        if not target.exists() or target.stat().st_size != shard["num_bytes"]:
            _copy(system, f"{root}/{name}", target)
    if not (folder / INDEX_NAME).exists():
        _write(folder / INDEX_NAME, raw)
    return folder


def _copy(system: Any, remote: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, system.open(remote, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        os.replace(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _write(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(name, target)
