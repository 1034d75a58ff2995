"""What every export to ONNX does: trace in eval mode, quietly, and write a file that is whole or not there."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from onnxscript import ir


def exported(
    module: nn.Module,
    *,
    examples: Sequence[Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Sequence[Any],
    opset: int,
) -> ir.Model:
    """A module, in eval mode from now on, as a graph in memory.

    Args:
        module: what is traced.
        examples: of its arguments, of sizes that a tracer does not take for constants (0 and 1).
        inputs: names for the arguments' tensors.
        outputs: names for the results' tensors.
        dynamic_shapes: for each argument, which of its sizes are free (``torch.export``'s).
        opset: version of ONNX's operator set.
    """
    program = torch.onnx.export(
        module.eval(),
        args=tuple(examples),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(dynamic_shapes),
        opset_version=opset,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None, "the dynamo exporter returns its program"
    return program.model


@contextlib.contextmanager
def evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode inside, and each network's own mode again after."""
    modes = [network.training for network in networks]
    try:
        for network in networks:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
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
