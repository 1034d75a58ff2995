"""The project's animation in ONNX Runtime, in 32 bits and with a renderer in 8, for benchmarks/animate.py."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.motion.generator import EncodedSource, Generator
from models.motion.geometry import inverse_2x2, product_2x2
from models.motion.keypoints import Keypoints

PARTS = ("keypoint_", "encoded_", "prediction")
"""Parts of the project's graph, by the names of their outputs."""


class Graph:
    """The project's ONNX file in ONNX Runtime, as `pipelines.served.motion.MotionSession` uses it."""

    def __init__(self, path: Path, threads: int) -> None:
        self.session = _session(path, threads)
        self.outputs = [port.name for port in self.session.get_outputs()]
        sizes = {port.name: [n if isinstance(n, int) else 1 for n in port.shape] for port in self.session.get_inputs()}
        self.unused = {name: np.zeros(size, np.float32) for name, size in sizes.items() if name != "part"}

    def run(self, head: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the part whose names begin with ``head``, under the rest of their names."""
        names = [name for name in self.outputs if name.startswith(head)]
        part = np.array(PARTS.index(head), np.int64)
        arrays = self.session.run(names, {**self.unused, **feeds, "part": part})
        return {name.removeprefix(head): array for name, array in zip(names, arrays, strict=True)}

    def keypoints(self, frames: Tensor) -> Keypoints:
        """Of frames (N, 3, S, S)."""
        found = self.run("keypoint_", driving=frames.numpy())
        parts = (torch.from_numpy(found[name]) if name in found else None for name in Keypoints._fields)
        return Keypoints(*parts)  # type: ignore[arg-type]

    def still(self, source: Tensor) -> tuple[Keypoints, dict[str, np.ndarray]]:
        """A source's keypoints, and the feeds of all that depends on it alone."""
        start, encoded = self.keypoints(source), self.run("encoded_", source=source.numpy())
        feeds = {"source": source.numpy(), **{f"source_{name}": array for name, array in encoded.items()}}
        return start, feeds | named("source_", start)

    def render(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Frames (N, 3, S, S)."""
        return self.run("prediction", **feeds)[""]

    def animate(self, source: Tensor, driving: Tensor, batch: int) -> Tensor:
        """See `Frames`."""
        made, (start, given), first = [], self.still(source), self.keypoints(driving[:1])
        for frames in torch.split(driving, batch):
            goal = moved(start, self.keypoints(frames), first)
            made.append(torch.from_numpy(self.render({**given, **named("motion_", goal)})))
        return torch.cat(made)


class EightBitGraph(Graph):
    """`Graph` whose renderer is another graph, quantised."""

    def __init__(self, path: Path, renderer: Path, threads: int) -> None:
        super().__init__(path, threads)
        self.renderer = _session(renderer, threads)
        self.taken = [port.name for port in self.renderer.get_inputs()]

    def render(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        made: np.ndarray = self.renderer.run(None, {name: feeds[name] for name in self.taken})[0]
        return made


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def named(head: str, keypoints: Keypoints) -> dict[str, np.ndarray]:
    """Keypoints as the feeds of a graph."""
    return {f"{head}{name}": part.numpy() for name, part in keypoints._asdict().items() if part is not None}


class Renderer(nn.Module):
    """What is quantised: from an encoded source and keypoints to frames."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, source: Tensor, encoded: Sequence[Tensor], still: Sequence[Tensor], goal: Sequence[Tensor]
    ) -> Tensor:
        made: Tensor = self.generator.decode(
            EncodedSource(source, encoded[0], tuple(encoded[1:])).expand(len(goal[0])),
            source_keypoints=Keypoints(*still).expand(len(goal[0])),
            driving_keypoints=Keypoints(*goal),
        ).prediction
        return made


def quantise(generator: nn.Module, graph: Graph, frames: Tensor, path: Path, *, batch: int) -> None:
    """Write a renderer in 8 bits: symmetric weights, a scale a channel.

    Args:
        generator: whose renderer.
        graph: the same networks in 32 bits.
        frames: whose maps give the ranges, in [0, 1], (N, 3, S, S).
        path: the file to write.
        batch: frames that the renderer makes at once.
    """
    from onnxruntime import quantization

    feeds = []
    for i in range(len(frames)):
        start, given = graph.still(frames[i : i + 1])
        goal = moved(start, graph.keypoints(frames.roll(-i, 0)[:batch]), start)
        feeds.append({**given, **named("motion_", goal)})

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, names: Sequence[str]) -> None:
            self.waiting: Iterator[dict[str, np.ndarray]] = ({name: each[name] for name in names} for each in feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.waiting, None)

    kinds = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder:
        raw, ready = Path(folder) / "raw.onnx", Path(folder) / "ready.onnx"
        names = export_renderer(generator, feeds[0], raw)
        quantization.quant_pre_process(str(raw), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready), str(path), Reader(names), op_types_to_quantize=["Conv"], per_channel=True, **kinds
        )


def export_renderer(generator: nn.Module, feeds: Mapping[str, np.ndarray], path: Path) -> list[str]:
    """Write a graph of the renderer for the sizes of ``feeds``; the names that it takes."""
    assert isinstance(generator, Generator), "the motion family's"
    known = [f"{head}{name}" for head in ("source_", "motion_") for name in Keypoints._fields]
    still, goal = ([name for name in known if name in feeds and name.startswith(h)] for h in ("source_", "motion_"))
    encoded = sorted(
        (name for name in feeds if name not in (*known, "source")), key=lambda name: name != "source_small"
    )
    names = ["source", *encoded, *still, *goal]
    groups = ([torch.from_numpy(feeds[name].copy()) for name in group] for group in (encoded, still, goal))
    given = (torch.from_numpy(feeds["source"].copy()), *groups)
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Renderer(generator).eval(),
            given,
            str(path),
            input_names=names,
            opset_version=20,
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    return names


def moved(source: Keypoints, driving: Keypoints, reference: Keypoints) -> Keypoints:
    """The driving keypoints' movement since the reference frame, laid on the source's (relative mode, no scaling)."""
    value = source.value + driving.value - reference.value
    if source.jacobian is None or driving.jacobian is None or reference.jacobian is None:
        return Keypoints(value, None)
    turn = product_2x2(product_2x2(driving.jacobian, inverse_2x2(reference.jacobian)), source.jacobian)
    return Keypoints(value, turn, driving.covariance)
