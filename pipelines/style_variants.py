"""Smaller files of a style model's graph, and what they cost in the picture."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.export_parts import halved, publish
from pipelines.served.style import PARTS, Array, StyleSession, checked, planes

CALIBRATION_PX = 512
"""Pictures that are larger are cut to their middle, because the calibration keeps every layer's maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A file with the same inputs and outputs as the graph in 32 bits."""

    name: str
    """``fp32``, ``fp16`` (weights in 16 bits) or ``int8`` (convolutions in 8 bits, weights and maps)."""
    path: Path
    num_bytes: int
    mean_difference: float
    """Mean absolute difference to the drawings in 32 bits, in [0, 1]."""
    largest_difference: float


def variants(onnx: Path, folder: Path, calibration: Array) -> list[Variant]:
    """Write a graph's 16-bit and 8-bit files.

    Args:
        onnx: of `models.export_style.export_style`, in 32 bits.
        folder: where ``<stem>-fp16.onnx`` and ``<stem>-int8.onnx`` are written.
        calibration: pictures whose maps give the ranges of the 8 bits and by which files are compared, uint8
            (N, H, W, 3).

    Returns:
        fp32 (the graph itself), fp16, int8.

    Raises:
        ValueError: the calibration pictures are something else.
    """
    checked(calibration)
    pictures = _middle(calibration)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"fp32": onnx, **{name: folder / f"{onnx.stem}-{name}.onnx" for name in ("fp16", "int8")}}
    write_fp16(onnx, files["fp16"])
    write_int8(onnx, files["int8"], pictures)
    wanted = StyleSession(onnx, providers=_CPU).stylise(pictures)
    return [_judged(name, path, pictures, wanted) for name, path in files.items()]


def write_fp16(onnx: Path, path: Path) -> None:
    """Store a graph's weights in 16 bits, atomically; ONNX Runtime widens them once, when it opens the file."""
    from onnxscript import ir

    publish(halved(ir.load(onnx)), path)


def write_int8(onnx: Path, path: Path, pictures: Array) -> None:
    """Let a graph compute its convolutions in 8 bits: symmetric weights, a scale for each of their channels.

    The first, the last and those of each channel by itself stay in 32: they are little work and lose most.

    Args:
        onnx: in 32 bits.
        path: written atomically.
        pictures: whose maps give the ranges, uint8 (N, H, W, 3).
    """
    from onnxruntime import quantization

    kinds = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _elsewhere(), _quiet():
            quantization.quantize_static(
                str(onnx.resolve()),
                str(unfinished.resolve()),
                _Feeds(pictures, StyleSession(onnx, providers=_CPU).num_statistics),
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=_delicate(onnx),
                per_channel=True,
                **kinds,
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


_CPU = ["CPUExecutionProvider"]


class _Feeds:
    """Calibration pictures one at a time, as ONNX Runtime's calibrator asks for them."""

    def __init__(self, pictures: Array, num_statistics: int) -> None:
        given, part = np.zeros((1, 2, num_statistics), np.float32), np.array(PARTS.index("stylise"), np.int64)
        feeds = ({"photo": planes(picture[None]), "given": given, "part": part} for picture in pictures)
        self._waiting: Iterator[dict[str, Any]] = feeds

    def get_next(self) -> dict[str, Any] | None:
        """The next picture's inputs, or None after the last."""
        return next(self._waiting, None)

    def __len__(self) -> int:
        raise TypeError("a stream")


def _delicate(onnx: Path) -> list[str]:
    """Names of the convolutions that stay as they are."""
    from onnxscript import ir

    convolutions = [node for node in ir.load(onnx).graph if node.op_type == "Conv"]
    apart = [node for node in convolutions if node.attributes["group"].as_int() > 1]
    return [str(node.name) for node in (convolutions[0], *apart, convolutions[-1])]


def _judged(name: str, path: Path, pictures: Array, wanted: Array) -> Variant:
    apart = np.abs(StyleSession(path, providers=_CPU).stylise(pictures) - wanted)
    return Variant(
        name=name,
        path=path,
        num_bytes=path.stat().st_size,
        mean_difference=float(apart.mean()),
        largest_difference=float(apart.max()),
    )


def _middle(pictures: Array) -> Array:
    """At most `CALIBRATION_PX` of height and width."""
    height, width = pictures.shape[1:3]
    top, left = (max(0, (side - CALIBRATION_PX) // 2) for side in (height, width))
    return np.ascontiguousarray(pictures[:, top : top + CALIBRATION_PX, left : left + CALIBRATION_PX])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises to simplify the graph first, which has nothing to simplify."""
    root, before = logging.getLogger(), logging.getLogger().level
    try:
        root.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """A scratch folder as the current one: the quantiser leaves files there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="inkmotion-int8-") as folder:
        try:
            os.chdir(folder)
            yield
        finally:
            os.chdir(before)
