"""Files of codes: what destylisation found for each style picture, by the picture's name.

A folder holds ``codes-<sha256>.safetensors`` with ``extrinsic`` and ``intrinsic``, float32, (N, S, D) each, and
``manifest.json``, which is written last and names the other one: whoever reads finds the old codes or the new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.errors import CheckpointError, must

CODES_SCHEMA = 1
MANIFEST = "manifest.json"
STILL_SUFFIX = "-000000"
"""Of the id of a still's clip, which says nothing to whoever chooses a style."""
KEYS_SHOWN = 5


class Codes(NamedTuple):
    """The two codes of one style picture, in Z+, (S, D) each."""

    extrinsic: Tensor
    """Of the style picture: what makes it what it is."""
    intrinsic: Tensor
    """Of the face behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTable:
    """Codes of many style pictures."""

    names: tuple[str, ...]
    """Of the pictures, sorted; a style shard's clips are found by their id."""
    extrinsic: Tensor
    """float32, (N, S, D), on the CPU."""
    intrinsic: Tensor
    about: Mapping[str, Any]
    """Where they are from, as the writer says: plain values."""

    def __getitem__(self, name: str) -> Codes:
        """The codes of one picture.

        Raises:
            CheckpointError: there are none of that name.
        """
        self.check_holds([name])
        place = self.names.index(name)
        return Codes(self.extrinsic[place], self.intrinsic[place])

    def check_holds(self, names: Iterable[str]) -> None:
        """See that codes of every picture are there.

        Raises:
            CheckpointError: some are missing, with their names.
        """
        missing = sorted(set(names) - set(self.names))
        if missing:
            more = f" and {len(missing) - KEYS_SHOWN} more" if len(missing) > KEYS_SHOWN else ""
            fix = "Destylise the style pictures again: they have changed since"
            rule = "hold the codes of every style picture"
            raise CheckpointError(must("the codes", rule, f"none of {', '.join(missing[:KEYS_SHOWN])}{more}", fix))

    def check_fits(self, num_styles: int, style_dim: int) -> None:
        """See that the codes are of a generator's size.

        Raises:
            CheckpointError: they are of another's.
        """
        found = tuple(self.extrinsic.shape[1:])
        if found != (num_styles, style_dim):
            fix = "Destylise the style pictures with the networks that are to be trained"
            rule = f"be {num_styles} x {style_dim} numbers for each picture"
            raise CheckpointError(must("the codes", rule, f"{found[0]} x {found[1]}", fix))


def style_names(pictures: Iterable[str]) -> tuple[str, ...]:
    """What the styles of these pictures are called, in the same order.

    Args:
        pictures: names as in a table of codes: ids of clips, or as published.

    Returns:
        The names without `STILL_SUFFIX`, except where another picture has that name already.
    """
    ids = tuple(pictures)
    taken = set(ids)
    short = ((name, name.removesuffix(STILL_SUFFIX)) for name in ids)
    return tuple(name if not called or called in taken else called for name, called in short)


def code_table(codes: Mapping[str, Codes], about: Mapping[str, Any] | None = None) -> CodeTable:
    """Codes by name as a table.

    Args:
        codes: one or more, all of one shape.
        about: plain values that say where they are from.

    Raises:
        CheckpointError: no codes, codes of several shapes, or numbers that are not finite; with a name.
    """
    if not codes:
        raise CheckpointError(must("a file of codes", "hold one or more", "none", "Name a folder of style pictures"))
    names = tuple(sorted(codes))
    shape = codes[names[0]].extrinsic.shape
    for name in names:
        for kind, code in codes[name]._asdict().items():
            if code.ndim != 2 or code.shape != shape:
                rule = f"be of the others' shape {tuple(shape)}"
                raise CheckpointError(must(f"the {kind} codes of {name!r}", rule, f"{tuple(code.shape)}"))
            if not bool(code.isfinite().all()):
                fix = "Destylise it again, with a lower learning rate"
                raise CheckpointError(must(f"the {kind} codes of {name!r}", "be finite", "numbers that are not", fix))
    parts = {kind: [getattr(codes[name], kind) for name in names] for kind in Codes._fields}
    stacked = {kind: torch.stack(list(part)).detach().float().cpu() for kind, part in parts.items()}
    return CodeTable(names=names, about=dict(about or {}), **stacked)


def write_codes(folder: Path, table: CodeTable) -> None:
    """Write codes into a folder, in place of those that are there.

    Args:
        folder: made if it is not there.
        table: the codes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _named_in(folder)
    tensors = {"extrinsic": table.extrinsic.contiguous(), "intrinsic": table.intrinsic.contiguous()}
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    name = f"codes-{digest[:16]}.safetensors"
    _write(folder / name, data)
    manifest = {
        "schema_version": CODES_SCHEMA,
        "names": list(table.names),
        "file": name,
        "sha256": digest,
        "about": dict(table.about),
    }
    _write(folder / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    if before not in (None, name):
        (folder / str(before)).unlink(missing_ok=True)


def read_codes(folder: Path) -> CodeTable:
    """Read codes that `write_codes` has written.

    Raises:
        CheckpointError: there are none, or files are missing, altered or of another schema.
    """
    name, digest, names, about = _manifest(folder)
    tensors = _tensors(folder / name, digest)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    wanted = {"extrinsic", "intrinsic"}
    first = shapes.get("extrinsic", ())
    if set(shapes) != wanted or len(set(shapes.values())) != 1 or len(first) != 3 or first[0] != len(names):
        rule = f"hold extrinsic and intrinsic codes of {len(names)} pictures"
        raise CheckpointError(must(str(folder / name), rule, str(shapes), "Make the codes again"))
    return CodeTable(names=names, about=about, **tensors)


def codes_sha256(folder: Path) -> str:
    """Of the codes in a folder, as its manifest says: for whoever needs to know them again.

    Raises:
        CheckpointError: there are none.
    """
    return _manifest(folder)[1]


def _manifest(folder: Path) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    """As `_checked`, of a folder."""
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "Destylise the style pictures first, or name the folder that holds their codes"
        raise CheckpointError(must(str(path), "be readable", error.strerror or str(error), fix)) from None
    except ValueError as error:
        raise CheckpointError(must(str(path), "be JSON", str(error), "Make the codes again")) from None
    return _checked(raw, str(path))


def _checked(raw: Any, where: str) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    """File, checksum, names and what else a manifest says."""
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if version != CODES_SCHEMA:
        raise CheckpointError(must(where, f"have schema_version {CODES_SCHEMA}", version, "Make the codes again"))
    name, digest, names, about = (raw.get(key) for key in ("file", "sha256", "names", "about"))
    texts = isinstance(name, str) and isinstance(digest, str) and isinstance(about, dict) and isinstance(names, list)
    if not texts or Path(name).name != name or not all(isinstance(entry, str) for entry in names):
        raise CheckpointError(must(where, "name a file beside it, its checksum and the pictures", "something else"))
    if len(set(names)) != len(names):
        raise CheckpointError(must(where, "name every picture once", f"{len(names) - len(set(names))} repeated"))
    return name, digest, tuple(names), about


def _tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(must(str(path), "be readable", error.strerror or str(error))) from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        fix = "The file was altered or cut off; make the codes again"
        raise CheckpointError(must(str(path), f"have the manifest's sha256 {digest[:12]}", found[:12], fix))
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(must(str(path), "be a safetensors file", str(error))) from error
    return tensors


def _named_in(folder: Path) -> str | None:
    """The data file that the present manifest names, if there is one."""
    with contextlib.suppress(CheckpointError):
        return _manifest(folder)[0]
    return None


def _write(path: Path, data: bytes) -> None:
    """Aside, onto the disk, then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
