"""Reads a file that someone else has published: plain tensors only, bounded, and with a reason when it can't be."""

from __future__ import annotations

import hashlib
import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import CheckpointError, must

MAX_BYTES = 4 * 2**30
"""Of a file, and of what it unpacks to; published checkpoints with their optimisers take 0.2 to 0.8 GB."""
NAME_LENGTH = 160
_HEAD_BYTES = 1024
_AGAIN = "Get the file again from where it was published"
_CODE = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)")
_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
"""Of files that torch.save has written, since version 1.6 and before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """What a published file holds."""

    name: str
    """The file's name, without its folder."""
    content: Mapping[str, Any]
    sha256: str
    num_bytes: int


def read(path: Path) -> PublishedFile:
    """Read a published checkpoint (a dict, written by ``torch.save``), without running anything that is in it.

    Args:
        path: ``.pth.tar`` or ``.pth``. The former is no tar archive in spite of its name.

    Raises:
        CheckpointError: the file is missing, empty, too big, cut off, no checkpoint, or holds more than plain values
            and tensors; the message says which.
    """
    num_bytes = _size(path)
    with path.open("rb") as file:
        _check_head(path, file.read(_HEAD_BYTES), num_bytes)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return PublishedFile(name=shown(path.name), content=_content(path), sha256=sha256, num_bytes=num_bytes)


def shown(name: object) -> str:
    """A name out of a file, fit to print: no control characters, cut to a line's length."""
    text = name if isinstance(name, str) else reprlib.repr(name)
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: NAME_LENGTH + 1])
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 3]}..."


def sound_tensor(value: object) -> str | None:
    """Why a value is no tensor to take over, or None: dense, real, finite, and no larger than its memory."""
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} and no tensor"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
        return "no dense tensor of real numbers"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"of shape {tuple(value.shape)} but holds fewer numbers"
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return "not finite"
    return None


def _size(path: Path) -> int:
    if path.is_dir():
        inside = "An unpacked checkpoint can't be read" if any(path.rglob("data.pkl")) else "Name the file in it"
        fix = f"{inside}: .pth.tar is no archive to unpack, give the file as it was downloaded"
        raise CheckpointError(must(str(path), "be a file", "a folder", fix))
    if not path.is_file():
        raise CheckpointError(must(str(path), "be a file", "no such file", "Check the name"))
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise CheckpointError(must(str(path), "hold a checkpoint", "an empty file", _AGAIN))
    if num_bytes > MAX_BYTES:
        rule = f"be at most {MAX_BYTES / 2**30:.0f} GiB"
        raise CheckpointError(
            must(str(path), rule, f"{num_bytes / 2**30:.1f} GiB", "No published checkpoint is larger")
        )
    return num_bytes


def _check_head(path: Path, head: bytes, num_bytes: int) -> None:
    """Refuse what its first bytes show to be something else."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = None
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")):
        page = "The server answered with a page (a quota, a confirmation, a login)"
        found = "a web page", f"{page}; open the link in a browser and give the file that comes"
    elif text.startswith(b"version https://git-lfs"):
        found = "a pointer of Git LFS", "Run git lfs pull in the checkout, and give the file that comes"
    elif head[257:262] == b"ustar" or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        inside = "A published .pth.tar is no archive in spite of its name"
        found = "an archive", f"{inside}; unpack this one, and give the file inside"
    elif head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < num_bytes:
        found = "a safetensors file", "Give the file as it was published, which holds a dict of networks"
    if found is not None:
        raise CheckpointError(must(str(path), "be a checkpoint written by torch.save", *found))
    if head.startswith(_BEGINNINGS[0]):
        _check_zip(path, num_bytes)


def _check_zip(path: Path, num_bytes: int) -> None:
    """Look into the archive that torch.save has written since version 1.6, before anything of it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        got = f"a file that is cut off ({num_bytes} bytes, without the archive's end)"
        raise CheckpointError(must(str(path), "be whole", got, _AGAIN)) from None
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "data.pkl" not in names:
        fix = "Unpack it, and give the checkpoint inside"
        raise CheckpointError(must(str(path), "be a checkpoint written by torch.save", "another zip archive", fix))
    if "constants.pkl" in names:
        fix = "Give the checkpoint that the training wrote"
        raise CheckpointError(must(str(path), "be a checkpoint written by torch.save", "a TorchScript program", fix))
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > min(MAX_BYTES, 4 * num_bytes + 2**20):  # torch.save does not compress
        got = f"{num_bytes} bytes that unpack to {unpacked}"
        raise CheckpointError(must(str(path), "be a checkpoint written by torch.save", got, _AGAIN))


def _content(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, pickle's own among them
        raise CheckpointError(_reason(path, error)) from error
    if not isinstance(content, Mapping):
        fix = "Published checkpoints are dicts of networks"
        raise CheckpointError(must(str(path), "hold a dict", type(content).__name__, fix))
    return content


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    code = _CODE.search(text)
    if code is not None:
        fix = "Pickled code is never run; ask for the state dicts alone"
        return must(str(path), "hold plain values and tensors only", f"pickled code, {shown(code[1])}", fix)
    with path.open("rb") as file:
        is_ours = file.read(_HEAD_BYTES).startswith(_BEGINNINGS)
    if is_ours:
        got = f"a file that is cut off or damaged ({path.stat().st_size} bytes)"
        return must(str(path), "be whole", got, _AGAIN)
    return must(str(path), "be a checkpoint written by torch.save", f"something else ({type(error).__name__})", _AGAIN)
