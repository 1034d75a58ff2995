"""ONNX graphs whose normalisations choose, while they run, what they normalise by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.layers.sample_norms import LIN, InstanceNorm, LayerNorm, SampleNorm

if TYPE_CHECKING:
    from onnxscript import ir

Kind = Literal["instance", "layer", "lin"]
KINDS: dict[type[SampleNorm], Kind] = {InstanceNorm: "instance", LayerNorm: "layer", LIN: "lin"}
PARTS = ("stylise", "measure", "given")
"""What the input ``part`` chooses, by its position here."""


def branched(model: ir.Model, kinds: Sequence[Kind], channels: Sequence[int], eps: float) -> None:
    """Turn each normalisation's input ``given_I`` into a choice by ``part``.

    Its three branches are: the statistics of each sample of ``seen_I``, those of all of its samples together, and
    a slice of the new input ``given`` (B, 2, K). What was chosen comes out as ``statistics`` (B, 2, K).

    Args:
        model: changed; has inputs ``given_I`` (B, 2, C) and outputs ``seen_I`` (B, C, h, w) for each normalisation I.
        kinds: of each normalisation.
        channels: C of each.
        eps: what normalisations add to variances.
    """
    from onnxscript import ir

    graph = model.graph
    _bare(graph)
    ports = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    photo = ports["photo"]
    assert photo.shape is not None, "exported inputs have shapes"
    picture = ir.Shape([photo.shape[0], 2, sum(channels)])
    given = ir.val("given", dtype=ir.DataType.FLOAT, shape=picture)
    part = ir.val("part", dtype=ir.DataType.INT64, shape=ir.Shape([]))
    head = _Sheet("part")
    is_given = head.op("Equal", part, head.ints(PARTS.index("given"), scalar=True))
    is_pooled = head.op("Equal", part, head.ints(PARTS.index("measure"), scalar=True))
    graph.insert_before(graph[0], head.nodes)
    chosen, start = [], 0
    for place, (kind, count) in enumerate(zip(kinds, channels, strict=True)):
        seen, wanted = ports[f"seen_{place}"], ports[f"given_{place}"]
        sheet, reach = _Sheet(f"norm_{place}"), (start, start + count)
        own, together = (_measure(f"norm_{place}/{name}", kind, seen, eps, pooled=name == "pooled") for name in _WAYS)
        measured = _Sheet(f"norm_{place}/measured")
        measured.choice(is_pooled, together, own)
        value = sheet.choice(is_given, _slice(f"norm_{place}/given", given, reach), measured)
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape([photo.shape[0], 2, count])
        producer = seen.producer()
        assert producer is not None, "a layer's input is computed"
        graph.insert_after(producer, sheet.nodes)
        for use in list(wanted.uses()):
            use.node.replace_input_with(use.idx, value)
        chosen.append(value)
        start += count
    tail = _Sheet("statistics")
    packed = tail.op("Concat", *chosen, axis=2)
    packed.name, packed.dtype, packed.shape = "statistics", ir.DataType.FLOAT, picture
    graph.extend(tail.nodes)
    graph.inputs[:] = [photo, given, part]
    graph.outputs[:] = [ports["drawing"], packed]


_WAYS = ("own", "pooled")


class _Sheet:
    """Nodes as they are written down, in order, with names of their own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[ir.Node] = []

    @property
    def last(self) -> ir.Value:
        return self.nodes[-1].outputs[0]

    def op(self, kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        from onnxscript import ir

        node = ir.node(kind, list(inputs), attributes=attributes)  # type: ignore[arg-type]
        node.name = f"{self.name}/{len(self.nodes)}"
        node.outputs[0].name = f"{node.name}/{kind}"
        self.nodes.append(node)
        return node.outputs[0]

    def ints(self, *values: int, scalar: bool = False) -> ir.Value:
        from onnxscript import ir

        return self.op("Constant", value=ir.tensor(np.array(values[0] if scalar else values, np.int64)))

    def number(self, value: float) -> ir.Value:
        from onnxscript import ir

        return self.op("Constant", value=ir.tensor(np.array(value, np.float32)))

    def mean(self, x: ir.Value, *axes: int) -> ir.Value:
        return self.op("ReduceMean", x, self.ints(*axes), keepdims=1)

    def choice(self, condition: ir.Value, then: _Sheet, otherwise: _Sheet) -> ir.Value:
        return self.op("If", condition, then_branch=then.graph(), else_branch=otherwise.graph())

    def graph(self) -> ir.Graph:
        """As a branch, whose result is the last node's."""
        from onnxscript import ir

        if self.last.dtype is None:
            self.last.dtype = ir.DataType.FLOAT
        return ir.Graph([], [self.last], nodes=self.nodes, name=self.name)


def _slice(name: str, given: ir.Value, reach: tuple[int, int]) -> _Sheet:
    sheet = _Sheet(name)
    sheet.op("Slice", given, sheet.ints(reach[0]), sheet.ints(reach[1]), sheet.ints(2))
    return sheet


def _measure(name: str, kind: Kind, x: ir.Value, eps: float, *, pooled: bool) -> _Sheet:
    """Mean and variance of samples (B, C, h, w) as (B, 2, C)."""
    sheet, axes = _Sheet(name), ((0, 2, 3) if pooled else (2, 3))
    mean = sheet.mean(x, *axes)
    apart = sheet.op("Sub", x, mean)
    var = sheet.mean(sheet.op("Mul", apart, apart), *axes)
    if kind != "instance":
        all_mean = sheet.mean(mean, 1)
        between = sheet.op("Sub", mean, all_mean)
        all_var = sheet.op("Add", sheet.mean(var, 1), sheet.mean(sheet.op("Mul", between, between), 1))
        shape = sheet.op("Shape", mean)
        mean_l, var_l = (sheet.op("Expand", value, shape) for value in (all_mean, all_var))
    if kind == "layer":
        mean, var = mean_l, var_l
    if kind == "lin":
        is_instance = _is_instance(sheet, x, apart, (mean, var), (all_mean, all_var), axes, eps)
        mean, var = (sheet.op("Where", is_instance, a, b) for a, b in ((mean, mean_l), (var, var_l)))
    rows = [sheet.op("Transpose", sheet.op("Squeeze", part, sheet.ints(3)), perm=[0, 2, 1]) for part in (mean, var)]
    packed = sheet.op("Concat", *rows, axis=1)
    if pooled:
        batch = sheet.op("Shape", x, start=0, end=1)
        sheet.op("Expand", packed, sheet.op("Concat", batch, sheet.ints(1, 1), axis=0))
    return sheet


def _is_instance(
    sheet: _Sheet,
    x: ir.Value,
    apart: ir.Value,
    channels: tuple[ir.Value, ir.Value],
    whole: tuple[ir.Value, ir.Value],
    axes: tuple[int, ...],
    eps: float,
) -> ir.Value:
    """`LIN.choice`, (B, 1, 1, 1); the layer's score is computed where its upper bound does not decide."""
    from onnxscript import ir

    scaled = sheet.op("Div", sheet.mean(sheet.op("Abs", apart), *axes), _more(sheet, channels[1], eps))
    instance = sheet.mean(scaled, 1)
    divisor = _more(sheet, whole[1], eps)
    most = sheet.op("Div", sheet.op("Sqrt", whole[1]), divisor)
    least = sheet.op("ReduceMin", sheet.op("Sub", instance, most), keepdims=0)
    is_sure = sheet.op("Greater", least, sheet.number(0.0))
    bound, full = _Sheet(f"{sheet.name}/bound"), _Sheet(f"{sheet.name}/full")
    bound.op("Identity", most)
    distance = full.op("Abs", full.op("Sub", x, whole[0]))
    full.op("Div", full.mean(distance, 1, *axes), divisor)
    layer = sheet.choice(is_sure, bound, full)
    layer.dtype = ir.DataType.FLOAT
    return sheet.op("Greater", instance, layer)


def _more(sheet: _Sheet, value: ir.Value, eps: float) -> ir.Value:
    return sheet.op("Add", value, sheet.number(eps))


def _bare(graph: ir.Graph) -> None:
    """Without what the exporter tells of its making: paths of this machine, and more bytes than small weights have."""
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
