"""The clip manifest: one JSON line per clip, beside the clips."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from models.contracts import MANIFEST_NAME, Clip
from models.errors import ClipError, must

_BLOCK_BYTES = 1 << 20


def write_manifest(folder: Path, rows: Sequence[Clip]) -> None:
    """Write the manifest of a folder of clips, ordered by id, atomically.

    Raises:
        ClipError: two clips have one id.
    """
    ordered = sorted(rows, key=lambda clip: clip.id)
    for one, other in zip(ordered, ordered[1:], strict=False):
        if one.id == other.id:
            raise ClipError(must(f"clips of {folder}", "have ids of their own", one.id))
    write_lines(folder / MANIFEST_NAME, (clip.to_row() for clip in ordered))


def read_manifest(folder: Path) -> list[Clip]:
    """The clips of a folder, in the manifest's order.

    Raises:
        ClipError: no manifest there, or a line that is no clip, or a path that leaves the folder.
    """
    path = folder / MANIFEST_NAME
    clips = []
    for number, row in enumerate(read_lines(path), start=1):
        try:
            clip = Clip.from_row(row)
        except (TypeError, KeyError, ValueError) as error:
            raise ClipError(must(f"{path}:{number}", "be a clip", str(error), "Cut the data set again")) from None
        for name in (clip.path, clip.smooth or ""):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ClipError(must(f"{path}:{number}", "name a file inside its folder", name))
        clips.append(clip)
    return clips


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines.

    Raises:
        ClipError: no such file, or a line that is no JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "Run the stage that writes it first"
        raise ClipError(must(str(path), "exist", "no such file", fix)) from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ClipError(must(f"{path}:{number}", "be a JSON object", line[:80]))
        rows.append(row)
    return rows


def sha256_of(path: Path) -> str:
    """Checksum of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
