"""Networks traced into ONNX graphs, quietly, and left as they were."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from onnxscript import ir


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What is traced into one graph."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    examples: tuple[Any, ...]
    """Inputs of sizes that a tracer does not take for constants, which are 0 and 1."""
    dynamic_shapes: tuple[Any, ...]


def traced(part: Traced, opset: int) -> ir.Model:
    """The graph of a network in eval mode, its weights inside.

    Args:
        part: what to trace.
        opset: version of ONNX's operator set.
    """
    program = torch.onnx.export(
        part.module.eval(),
        args=part.examples,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamic_shapes=part.dynamic_shapes,
        opset_version=opset,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None, "the dynamo exporter returns its program"
    return program.model


@contextlib.contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Eval mode without gradients inside, and each network's own mode again after."""
    modes = [(network, network.training) for network in networks]
    try:
        for network, _ in modes:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for network, mode in modes:
            network.train(mode)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints progress, and warns of what its own libraries do; neither tells a user anything."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
