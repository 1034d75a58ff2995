"""Trained networks as one ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.motion.config import MotionConfig
from models.motion.generator import Generator
from models.motion.keypoints import KeypointDetector, Keypoints

INPUTS = ("source", "driving", "motion_value", "motion_jacobian")
OUTPUTS = ("keypoint_value", "keypoint_jacobian", "prediction")


def export_motion(networks: Mapping[str, nn.Module], config: MotionConfig, path: Path, *, opset: int = 20) -> None:
    """Write detector and generator as one graph, in one file.

    Inputs, float32: ``source`` (1, 3, S, S) and ``driving`` (frames, 3, S, S), both in [0, 1]; ``motion_value``
    (moves, K, 2); ``motion_jacobian`` (moves, K, 2, 2). Outputs: ``keypoint_value`` (frames, K, 2) and
    ``keypoint_jacobian`` (frames, K, 2, 2) of ``driving``; ``prediction`` (moves, 3, S, S) in [0, 1], the source moved
    from its own keypoints to the given ones. The source is encoded once, however many moves there are.

    The two halves share no input: a consumer that asks for one half's outputs with the run option
    ``only_execute_path_to_fetches`` pays for that half alone, and may feed anything of size 1 to the other's inputs.
    Without Jacobians in the configuration, theirs are the identity, and ``motion_jacobian`` is ignored.

    Args:
        networks: ``generator`` and ``keypoint_detector``; left in the mode and on the device where they are.
        config: the networks' configuration.
        path: the file to write, atomically.
        opset: version of ONNX's operator set, 20 or later.

    Raises:
        CheckpointError: a network is missing or of another family.
    """
    detector, generator = networks.get("keypoint_detector"), networks.get("generator")
    if not (isinstance(detector, KeypointDetector) and isinstance(generator, Generator)):
        got = {name: type(network).__name__ for name, network in networks.items()}
        raise CheckpointError(must("the networks to export", "hold a motion generator and keypoint detector", got))
    graph = _MotionGraph(detector, generator)
    device = next(generator.parameters()).device
    with _evaluating(detector, generator), _quiet():
        program = torch.onnx.export(
            graph,
            kwargs=_examples(config, device),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=_dynamic_shapes(),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None, "the dynamo exporter returns its program"
        _forget_origins(program)
        _publish(program, path)


class _MotionGraph(nn.Module):
    """What the exported graph computes."""

    def __init__(self, detector: KeypointDetector, generator: Generator) -> None:
        super().__init__()
        self.detector = detector
        self.generator = generator

    def forward(
        self, source: Tensor, driving: Tensor, motion_value: Tensor, motion_jacobian: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and outputs are described in `export_motion`."""
        found: Keypoints = self.detector(driving)
        still: Keypoints = self.detector(source)
        moves = motion_value.shape[0]
        turned = still.jacobian is not None
        generated = self.generator.decode(
            self.generator.encode(source).expand(moves),
            source_keypoints=still.expand(moves),
            driving_keypoints=Keypoints(motion_value, motion_jacobian if turned else None),
        )
        return found.value, _or_identity(found), generated.prediction


def _or_identity(keypoints: Keypoints) -> Tensor:
    if keypoints.jacobian is not None:
        return keypoints.jacobian
    frames, num_keypoints, _ = keypoints.value.shape
    return torch.eye(2, device=keypoints.value.device).expand(frames, num_keypoints, 2, 2).clone()


def _examples(config: MotionConfig, device: torch.device) -> dict[str, Tensor]:
    """Inputs of sizes that differ from each other and from 1, which the tracer would take for constants."""
    size, num_keypoints = config.size_px, config.num_keypoints
    return {
        "source": torch.rand(1, 3, size, size, device=device),
        "driving": torch.rand(3, 3, size, size, device=device),
        "motion_value": torch.rand(2, num_keypoints, 2, device=device),
        "motion_jacobian": torch.eye(2, device=device).repeat(2, num_keypoints, 1, 1),
    }


def _dynamic_shapes() -> dict[str, dict[int, torch.export.Dim]]:
    frames, moves = torch.export.Dim("frames", min=1), torch.export.Dim("moves", min=1)
    return {"source": {}, "driving": {0: frames}, "motion_value": {0: moves}, "motion_jacobian": {0: moves}}


@contextlib.contextmanager
def _evaluating(*networks: nn.Module) -> Iterator[None]:
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
def _quiet() -> Iterator[None]:
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


def _forget_origins(program: torch.onnx.ONNXProgram) -> None:
    """Take out what the exporter notes about each node: stack traces, with this machine's paths in them."""
    for graph in program.model.graphs():
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()


def _publish(program: torch.onnx.ONNXProgram, path: Path) -> None:
    """Write beside a possible older file, which stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        program.save(str(unfinished), external_data=False)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
