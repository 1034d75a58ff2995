"""What exported graphs have in common: several as the branches of one, weights in 16 bits, a file that is whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxscript import ir

SWITCH = "part"
"""Name of the input that says which branch is computed."""
FEW = 1024
"""Values of a tensor that are not worth a conversion; scales and shifts of normalisations are below it."""


def joined(models: Sequence[ir.Model], opset: int) -> ir.Model:
    """One model out of several: their inputs by name, their outputs, and the input `SWITCH`.

    A run computes the model whose position `SWITCH` says; the outputs of the others come empty, of length 0 at once.
    Weights lie in the branches, so a tensor that two models share is written twice.

    Args:
        models: changed, and not to be used afterwards. Inputs of one name must have one shape; outputs differ in name.
        opset: version of ONNX's operator set that all were made with.
    """
    from onnxscript import ir

    switch = ir.val(SWITCH, dtype=ir.DataType.INT64, shape=())
    inputs: dict[str, ir.Value] = {}
    nodes: list[ir.Node] = []
    for place, model in enumerate(models):
        for value in model.graph.inputs:
            assert value.name is not None, "exported inputs have names"
            inputs.setdefault(value.name, ir.val(value.name, dtype=value.dtype, shape=value.shape))
        nodes += _branch(model.graph, place, switch, inputs)
    outputs = [value for node in nodes if node.op_type == "If" for value in node.outputs]
    graph = ir.Graph([*inputs.values(), switch], outputs, nodes=nodes, opset_imports={"": opset}, name="motion")
    return ir.Model(graph, ir_version=min(model.ir_version for model in models), producer_name="inkmotion")


def _branch(graph: ir.Graph, place: int, switch: ir.Value, inputs: dict[str, ir.Value]) -> list[ir.Node]:
    """The nodes that compute a graph if it is its turn."""
    from onnxscript import ir

    outputs = [ir.val(value.name, dtype=value.dtype, shape=value.shape) for value in graph.outputs]
    then = _inside(graph, place, inputs)
    number = ir.node("Constant", [], attributes={"value": ir.tensor(np.array(place, np.int64))})
    number.outputs[0].name = f"number_{place}"
    turn = ir.node("Equal", [switch, number.outputs[0]])
    turn.outputs[0].name = f"turn_{place}"
    otherwise = _empty(graph, place)
    choice = ir.node(
        "If",
        [turn.outputs[0]],
        attributes={"then_branch": then, "else_branch": otherwise},
        outputs=outputs,
    )
    return [number, turn, choice]


def _inside(graph: ir.Graph, place: int, inputs: dict[str, ir.Value]) -> ir.Graph:
    """A graph as a branch: it reads the outer inputs, its names are its own, and it tells nothing of its making."""
    for value in graph.inputs:
        assert value.name is not None, "exported inputs have names"
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, inputs[value.name])
    graph.inputs.clear()
    for value in [*graph.initializers.values()]:
        value.name = f"{place}/{value.name}"
    for node in graph:
        node.metadata_props.clear()
        node.name = f"{place}/{node.name}"
        for value in node.outputs:
            value.metadata_props.clear()
            value.name = f"{place}/{value.name}"
    graph.metadata_props.clear()
    graph.name = f"part_{place}"
    return graph


def _empty(graph: ir.Graph, place: int) -> ir.Graph:
    """A branch that gives the outputs of another one without any length."""
    from onnxscript import ir

    nodes = []
    for value in graph.outputs:
        assert value.shape is not None, "exported outputs have shapes"
        shape = [0, *(side if isinstance(side, int) else 1 for side in list(value.shape)[1:])]
        node = ir.node("Constant", [], attributes={"value": ir.tensor(np.zeros(shape, np.float32))})
        node.outputs[0].name = f"{place}/empty/{value.name}"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(shape)
        nodes.append(node)
    return ir.Graph([], [node.outputs[0] for node in nodes], nodes=nodes, name=f"no_part_{place}")


def halved(model: ir.Model) -> ir.Model:
    """Keep a graph's weights in 16 bits, and widen them where they are read.

    Args:
        model: changed. Tensors of fewer than `FEW` values, and all that is no float32, stay as they are.
    """
    from onnxscript import ir

    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < FEW:
            continue
        narrow = ir.val(f"{name}/half", dtype=ir.DataType.FLOAT16, shape=value.shape)
        narrow.const_value = ir.tensor(tensor.numpy().astype(np.float16), name=narrow.name)
        widen = ir.node("Cast", [narrow], attributes={"to": int(ir.DataType.FLOAT)})
        widen.name, widen.outputs[0].name = f"{name}/widen", f"{name}/wide"
        widen.outputs[0].dtype, widen.outputs[0].shape = ir.DataType.FLOAT, value.shape
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, widen.outputs[0])
        del model.graph.initializers[name]
        model.graph.register_initializer(narrow)
        model.graph.insert_before(model.graph[0], widen)
    return model


def publish(model: ir.Model, path: Path) -> None:
    """Write beside a possible older file, which stays whole until the new one is."""
    from onnxscript import ir

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        ir.save(model, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
