"""What a training needs, put where every node of a cluster can reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import EnvironmentProblem, must


def ship(local: Path, storage: str | None, *, kind: str, name: str, last: str) -> str:
    """Where the nodes find a folder: itself, or its copy below the storage path.

    A copy that is complete is not made again, so ``name`` must change with the content.

    Args:
        local: the folder.
        storage: folder or URL that every node reaches; None: the nodes are this machine.
        kind: folder below the storage path, as ``shards``.
        name: of the copy.
        last: the file that is copied last, and so says that the copy is complete.

    Raises:
        EnvironmentProblem: the storage path can't be written.
    """
    if storage is None:
        return str(local.resolve())
    import fsspec

    target = f"{storage.rstrip('/')}/{kind}/{name}"
    try:
        system, root = fsspec.core.url_to_fs(target, use_listings_cache=False)
        if not system.exists(f"{root}/{last}"):
            files = sorted(path for path in local.rglob("*") if path.is_file() and not path.name.startswith("."))
            for path in sorted(files, key=lambda path: path == local / last):
                _copy(system, path, f"{root}/{path.relative_to(local).as_posix()}")
    except OSError as error:
        fix = "Check cluster.storage_path and its rights"
        raise EnvironmentProblem(must(target, "be writable", str(error), fix)) from error
    return target if "://" in target else str(Path(target).resolve())


def _copy(system: Any, path: Path, target: str) -> None:
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    system.put_file(str(path), target)
