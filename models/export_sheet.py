"""ONNX nodes written down one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from onnxscript import ir


class Sheet:
    """Nodes in the order in which they are computed, with names of their own; for a graph or a branch of one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        """The result of an operator of ONNX."""
        from onnxscript import ir

        node = ir.node(kind, list(inputs), attributes=attributes)  # type: ignore[arg-type]
        node.name = f"{self.name}/{len(self.nodes)}"
        node.outputs[0].name = f"{node.name}/{kind}"
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, name: str, value: Tensor) -> ir.Value:
        """A parameter, which belongs to the graph."""
        from onnxscript import ir

        tensor = ir.tensor(value.detach().float().cpu().contiguous().numpy(), name=name)
        made = ir.val(name, dtype=tensor.dtype, shape=ir.Shape(value.shape))
        made.const_value = tensor
        self.weights.append(made)
        return made

    def ints(self, *values: int) -> ir.Value:
        """Constants, int64, (n,)."""
        from onnxscript import ir

        return self.op("Constant", value=ir.tensor(np.array(values, np.int64)))

    def number(self, value: float) -> ir.Value:
        """A constant, float32, ()."""
        from onnxscript import ir

        return self.op("Constant", value=ir.tensor(np.array(value, np.float32)))

    def mean(self, x: ir.Value, *axes: int) -> ir.Value:
        """Over axes, which stay with length 1."""
        return self.op("ReduceMean", x, self.ints(*axes), keepdims=1)

    def choice(self, condition: ir.Value, then: Sheet, otherwise: Sheet) -> ir.Value:
        """What the last node of one of two branches gives; the other is not computed."""
        return self.op("If", condition, then_branch=then.branch(), else_branch=otherwise.branch())

    def branch(self) -> ir.Graph:
        """The sheet as a branch; it may read whatever was computed before."""
        from onnxscript import ir

        result = self.nodes[-1].outputs[0]
        result.dtype = ir.DataType.FLOAT
        return ir.Graph([], [result], nodes=self.nodes, name=self.name)
