"""Trained networks as one ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.export_parts import joined, publish
from models.export_tracing import Traced, evaluating, quiet, traced
from models.motion.avd import AvdNetwork
from models.motion.config import MotionConfig
from models.motion.generator import EncodedSource, Generator
from models.motion.keypoints import Detector, Keypoints

Tensors = tuple[Tensor, ...]


def export_motion(networks: Mapping[str, nn.Module], config: MotionConfig, path: Path, *, opset: int = 20) -> None:
    """Write detector, generator and AVD network as the parts of one graph, in one file.

    The input ``part``, an int64 scalar, says which part is computed; the others cost nothing, and give empty outputs.
    All other ports are float32; images are in [0, 1]. S is the frame's size, K the number of keypoints.

    ==========  ==========================================  =========================================================
    part        inputs                                      outputs
    ==========  ==========================================  =========================================================
    0 detect    ``driving`` (frames, 3, S, S)               ``keypoint_value`` (frames, K, 2), ``keypoint_jacobian``
                                                            (frames, K, 2, 2)
    1 encode    ``source`` (1, 3, S, S)                     ``encoded_*``: what the generator computes from it alone
    2 render    ``source``, ``source_*``,                   ``prediction`` (moves, 3, S, S): the source moved from
                ``motion_value`` (moves, K, 2),             its own keypoints to the given ones
                ``motion_jacobian`` (moves, K, 2, 2)
    3 avd       ``source_*``, ``motion_*``                  ``avd_value``, ``avd_jacobian``, ``avd_covariance``: the
                                                            source's shape in the given pose
    ==========  ==========================================  =========================================================

    Regions have ``keypoint_covariance`` and ``motion_covariance`` (., K, 2, 2) besides; their Jacobians are their axes.
    The inputs ``source_NAME`` take what part 0 finds in the source (``keypoint_NAME``) and what part 1 makes of it
    (``encoded_NAME``), so that a source is encoded once, however many calls its frames are spread over. Every input is
    to be fed; those of other parts by anything of their shape. Without Jacobians in the configuration, theirs are the
    identity, and ``motion_jacobian`` and ``source_jacobian`` are ignored.

    Parts are branches, because ONNX Runtime computes every output of a graph, asked for or not.

    Args:
        networks: ``generator``, ``keypoint_detector`` and, if it shall go along, ``avd``; left in the mode and on the
            device where they are. Others are left out.
        config: the networks' configuration.
        path: the file to write, atomically.
        opset: version of ONNX's operator set, 20 or later.

    Raises:
        CheckpointError: a network is missing or of another family.
    """
    detector, generator, avd = _checked(networks)
    given = [network for network in (detector, generator, avd) if network is not None]
    with evaluating(given), quiet():
        graphs = [traced(part, opset) for part in _parts(detector, generator, avd, config)]
        publish(joined(graphs, opset), path)


def _checked(networks: Mapping[str, nn.Module]) -> tuple[Detector, Generator, AvdNetwork | None]:
    detector, generator, avd = (networks.get(name) for name in ("keypoint_detector", "generator", "avd"))
    is_whole = isinstance(detector, Detector) and isinstance(generator, Generator)
    if not is_whole or not (avd is None or isinstance(avd, AvdNetwork)):
        got = {name: type(network).__name__ for name, network in networks.items()}
        raise CheckpointError(must("the networks to export", "hold a motion generator and keypoint detector", got))
    return detector, generator, avd  # type: ignore[return-value]


class _Detect(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, driving: Tensor) -> Tensors:
        """Keypoints with Jacobians, which are the identity where the networks estimate none."""
        found: Keypoints = self.detector(driving)
        frames, num_keypoints, _ = found.value.shape
        if found.jacobian is None:
            found = found._replace(jacobian=torch.eye(2, device=driving.device).repeat(frames, num_keypoints, 1, 1))
        return _present(found)


class _Encode(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, source: Tensor) -> Tensors:
        """The small frame and the features."""
        encoded = self.generator.encode(source)
        return (encoded.small, *encoded.features)


class _Render(nn.Module):
    def __init__(self, generator: Generator, *, is_turned: bool) -> None:
        super().__init__()
        self.generator = generator
        self.is_turned = is_turned

    def forward(self, source: Tensor, encoded: Tensors, still: Tensors, motion: Tensors) -> Tensor:
        """The prediction."""
        moves = motion[0].shape[0]
        prediction: Tensor = self.generator.decode(
            EncodedSource(source, encoded[0], encoded[1:]).expand(moves),
            source_keypoints=self._keypoints(still).expand(moves),
            driving_keypoints=self._keypoints(motion),
        ).prediction
        return prediction

    def _keypoints(self, parts: Tensors) -> Keypoints:
        return Keypoints(*parts) if self.is_turned else Keypoints(parts[0], None)


class _Disentangle(nn.Module):
    def __init__(self, avd: AvdNetwork) -> None:
        super().__init__()
        self.avd = avd

    def forward(self, still: Tensors, motion: Tensors) -> Tensors:
        """Regions of the source's shape in the given pose."""
        return _present(self.avd(Keypoints(*still).expand(motion[0].shape[0]), Keypoints(*motion)))


def _present(keypoints: Keypoints) -> Tensors:
    return tuple(part for part in keypoints if part is not None)


def _parts(detector: Detector, generator: Generator, avd: AvdNetwork | None, config: MotionConfig) -> Iterator[Traced]:
    device, size = next(generator.parameters()).device, config.size_px
    frames, moves = torch.export.Dim("frames", min=1), torch.export.Dim("moves", min=1)
    driving = torch.rand(2, 3, size, size, device=device)
    source, detect, encode = driving[:1], _Detect(detector), _Encode(generator)
    motion, encoded = detect(driving), encode(source)
    still = tuple(part[:1] for part in motion)
    parts = Keypoints._fields[: len(motion)]
    kept = ("small", *(f"features_{i}" for i in range(len(encoded) - 1)))
    from_source = tuple(f"source_{name}" for name in parts)
    moved = tuple(f"motion_{name}" for name in parts)
    fixed: dict[int, Any] = {}
    still_shapes, motion_shapes = (fixed,) * len(still), ({0: moves},) * len(motion)
    yield Traced(
        module=detect,
        inputs=("driving",),
        outputs=tuple(f"keypoint_{name}" for name in parts),
        examples=(driving,),
        dynamic_shapes=({0: frames},),
    )
    yield Traced(
        module=encode,
        inputs=("source",),
        outputs=tuple(f"encoded_{name}" for name in kept),
        examples=(source,),
        dynamic_shapes=(fixed,),
    )
    yield Traced(
        module=_Render(generator, is_turned=config.estimate_jacobian),
        inputs=("source", *(f"source_{name}" for name in kept), *from_source, *moved),
        outputs=("prediction",),
        examples=(source, encoded, still, motion),
        dynamic_shapes=(fixed, (fixed,) * len(encoded), still_shapes, motion_shapes),
    )
    if avd is not None:
        yield Traced(
            module=_Disentangle(avd),
            inputs=(*from_source, *moved),
            outputs=tuple(f"avd_{name}" for name in parts),
            examples=(still, motion),
            dynamic_shapes=(still_shapes, motion_shapes),
        )
