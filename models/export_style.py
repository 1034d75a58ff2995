"""A trained stylising generator as one ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from models.errors import CheckpointError, must
from models.export_parts import halved, publish
from models.export_sheet import Sheet
from models.export_statistics import Switch, activated, normalised, switch
from models.layers.sample_norms import sample_norms
from models.style.blocks import Conv, Down, Inverted, Residual, Separable, Up
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator

if TYPE_CHECKING:
    from onnxscript import ir

_IR_VERSION = 10
"""Of ONNX's file format; ONNX Runtime reads it from 1.18 on."""


def export_style(
    generator: nn.Module,
    config: StyleConfig,
    path: Path,
    *,
    opset: int = 20,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> None:
    """Write a generator as one graph, in one file, for pictures of any size and for the tiles of large ones.

    ============== ============ =====================================================================================
    input          shape        what it is
    ============== ============ =====================================================================================
    ``photo``      (B, 3, H, W) float32 in [0, 1]; H and W are multiples of 4, 8 or more
    ``given``      (B, 2, K)    float32: means and variances of all normalised channels; read by part 2 alone
    ``part``       ()           int64: 0, each picture is normalised by its own statistics; 1, the batch is patches of
                                one picture, which are normalised by their statistics together; 2, by those ``given``
    ============== ============ =====================================================================================

    ============== ============ =====================================================================================
    output         shape        what it is
    ============== ============ =====================================================================================
    ``drawing``    (B, 3, H, W) float32 in [0, 1]
    ``statistics`` (B, 2, K)    by what each was normalised, which ``given`` takes
    ============== ============ =====================================================================================

    Every normalisation chooses among three branches by ``part``; all else, and every weight, is there once. Block by
    block the graph is written down rather than traced: a tracer takes most of a minute over the free sizes.

    Args:
        generator: left in the mode and on the device where it is.
        config: the generator's configuration.
        path: the file to write, atomically.
        opset: version of ONNX's operator set, 20 or later.
        precision: ``fp16`` stores the weights in 16 bits, half the size; they are computed with in 32 nevertheless.

    Raises:
        CheckpointError: the network is of another family.
    """
    if not isinstance(generator, StyleGenerator):
        rule = f"be a generator of the style family (layout {config.layout})"
        raise CheckpointError(must("the network to export", rule, type(generator).__name__))
    from onnxscript import ir

    sheet = Sheet("style")
    norms = sum(norm.weight.numel() for norm in sample_norms(generator))
    photo = ir.val("photo", dtype=ir.DataType.FLOAT, shape=ir.Shape(["pictures", 3, "height", "width"]))
    given = ir.val("given", dtype=ir.DataType.FLOAT, shape=ir.Shape(["pictures", 2, norms]))
    part = ir.val("part", dtype=ir.DataType.INT64, shape=ir.Shape([]))
    by = switch(sheet, photo, given, part)
    one, two = sheet.number(1.0), sheet.number(2.0)
    x = sheet.op("Sub", sheet.op("Mul", photo, two), one)
    for name, block in generator.blocks.named_children():
        x = _written(_Place(sheet, by), f"blocks.{name}", block, x)
    drawing = sheet.op("Div", sheet.op("Add", sheet.op("Tanh", x), one), two)
    statistics = sheet.op("Concat", *by.used, axis=2)
    for value, port in ((drawing, photo), (statistics, given)):
        value.dtype, value.shape = ir.DataType.FLOAT, port.shape
    drawing.name, statistics.name = "drawing", "statistics"
    graph = ir.Graph(
        [photo, given, part],
        [drawing, statistics],
        nodes=sheet.nodes,
        initializers=sheet.weights,
        opset_imports={"": opset},
        name="style",
    )
    model = ir.Model(graph, ir_version=_IR_VERSION, producer_name="inkmotion")
    publish(halved(model) if precision == "fp16" else model, path)


class _Place(NamedTuple):
    """Where blocks are written."""

    sheet: Sheet
    by: Switch


def _written(at: _Place, name: str, block: nn.Module, x: ir.Value) -> ir.Value:
    """A block of `models.style.blocks` as nodes that compute what its ``forward`` does."""
    for kind, write in _WRITERS.items():
        if isinstance(block, kind):
            return write(at, name, block, x)
    raise CheckpointError(must(name, "be a block that can be exported", type(block).__name__))


def _convolution(at: _Place, name: str, conv: nn.Conv2d, x: ir.Value) -> ir.Value:
    reach = conv.kernel_size[0] // 2
    if reach:
        x = at.sheet.op("Pad", x, at.sheet.ints(0, 0, reach, reach, 0, 0, reach, reach), mode="reflect")
    weights = [at.sheet.weight(f"{name}.{key}", value) for key, value in conv.named_parameters()]
    shape = {"kernel_shape": list(conv.kernel_size), "strides": list(conv.stride), "group": conv.groups}
    return at.sheet.op("Conv", x, *weights, **shape)


def _conv(at: _Place, name: str, block: Conv, x: ir.Value) -> ir.Value:
    x = _convolution(at, f"{name}.conv", block.conv, x)
    if block.norm is None:
        return activated(at.sheet, x, block.activation)
    return normalised(at.sheet, f"{name}.norm", block.norm, x, at.by, block.activation)


def _separable(at: _Place, name: str, block: Separable, x: ir.Value) -> ir.Value:
    x = _convolution(at, f"{name}.depthwise", block.depthwise, x)
    return _conv(at, f"{name}.pointwise", block.pointwise, x)


def _down(at: _Place, name: str, block: Down, x: ir.Value) -> ir.Value:
    strided = _separable(at, f"{name}.strided", block.strided, x)
    if block.reduced is None:
        return strided
    small = at.sheet.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return at.sheet.op("Add", strided, _separable(at, f"{name}.reduced", block.reduced, small))


def _up(at: _Place, name: str, block: Up, x: ir.Value) -> ir.Value:
    """ONNX Runtime resizes quickly right behind a convolution, in whose order of values; this one changes nothing."""
    from onnxscript import ir

    channels = _channels(block)
    same = at.sheet.weight(f"{name}.same", torch.ones(channels, 1, 1, 1))
    x = at.sheet.op("Conv", x, same, kernel_shape=[1, 1], group=channels)
    scales = at.sheet.op("Constant", value=ir.tensor(np.array([1, 1, 2, 2], np.float32)))
    x = at.sheet.op("Resize", x, None, scales, mode="linear", coordinate_transformation_mode="half_pixel")
    return _written(at, f"{name}.block", block.block, x)


def _channels(block: nn.Module) -> int:
    """How many a block takes."""
    return next(module.in_channels for module in block.modules() if isinstance(module, nn.Conv2d))


def _inverted(at: _Place, name: str, block: Inverted, x: ir.Value) -> ir.Value:
    made = x
    for key in ("expand", "depthwise", "project"):
        made = _conv(at, f"{name}.{key}", getattr(block, key), made)
    return at.sheet.op("Add", x, made) if block.residual else made


def _residual(at: _Place, name: str, block: Residual, x: ir.Value) -> ir.Value:
    made = x
    for key in ("first", "second"):
        made = _conv(at, f"{name}.{key}", getattr(block, key), made)
    return at.sheet.op("Add", x, made)


_WRITERS: dict[type[nn.Module], Callable[[_Place, str, Any, ir.Value], ir.Value]] = {
    nn.Conv2d: _convolution,
    Conv: _conv,
    Separable: _separable,
    Down: _down,
    Up: _up,
    Inverted: _inverted,
    Residual: _residual,
}
