"""What moves pictures: one interface, whether the networks are a model version (ONNX) or a checkpoint (torch)."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from models.errors import CheckpointError, EnvironmentProblem, ShapeError, must
from models.motion.generator import Generator
from models.motion.keypoints import KeypointDetector, Keypoints
from pipelines import registry
from pipelines.registry import Store
from pipelines.served.motion import Motion, MotionSession
from training.checkpoint import CheckpointInfo, load_networks

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]


class Engine(Protocol):
    """Finds keypoints and renders frames; `pipelines.served.motion.MotionSession` is one, `TorchSession` another."""

    @property
    def size_px(self) -> int:
        """Height and width of the frames that it takes and makes."""

    def keypoints(self, frames: np.ndarray) -> Motion:
        """Keypoints of frames, uint8 or float in [0, 1], (N, S, S, 3)."""

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        """Move ``source`` (S, S, 3) to absolute keypoints; float32 in [0, 1], (N, S, S, 3)."""


class TorchSession:
    """The motion networks of a checkpoint, on the CPU or a GPU, without gradients and in batches."""

    def __init__(
        self,
        generator: Generator,
        detector: KeypointDetector,
        *,
        size_px: int,
        device: Device = "auto",
        batch_size: int = 16,
    ) -> None:
        """Take networks over, in eval mode.

        Args:
            generator: moves an encoded source.
            detector: finds keypoints.
            size_px: height and width of a frame.
            device: ``auto`` takes a GPU when there is one.
            batch_size: frames computed at once; bounds the memory.

        Raises:
            EnvironmentProblem: ``cuda`` is asked for where there is none.
        """
        _flush_denormals()
        self.size_px = size_px
        self.batch_size = batch_size
        self.device = pick_device(device)
        self.generator = generator.eval().to(self.device)
        self.detector = detector.eval().to(self.device)

    @torch.inference_mode()
    def keypoints(self, frames: np.ndarray) -> Motion:
        """Find the keypoints of frames.

        Args:
            frames: uint8, or float in [0, 1], (N, S, S, 3).

        Returns:
            Positions (N, K, 2) in [-1, 1] and Jacobians (N, K, 2, 2); the identity where the networks estimate none.
        """
        parts = [
            self._detect(frames[start : start + self.batch_size]) for start in range(0, len(frames), self.batch_size)
        ]
        return Motion(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @torch.inference_mode()
    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        """Move a source to absolute keypoints.

        Args:
            source: uint8, or float in [0, 1], (S, S, 3).
            motion: where the keypoints shall be, (N, K, ...).

        Returns:
            float32 in [0, 1], (N, S, S, 3).
        """
        frame = self._tensor(source[None])
        encoded, start = self.generator.encode(frame), self.detector(frame)
        frames = np.empty((len(motion.value), self.size_px, self.size_px, 3), dtype=np.float32)
        for first in range(0, len(frames), self.batch_size):
            chosen = slice(first, first + self.batch_size)
            value = torch.as_tensor(motion.value[chosen], dtype=torch.float32, device=self.device)
            jacobian = torch.as_tensor(motion.jacobian[chosen], dtype=torch.float32, device=self.device)
            made = self.generator.decode(
                encoded.expand(len(value)),
                source_keypoints=_expand(start, len(value)),
                driving_keypoints=Keypoints(value, None if start.jacobian is None else jacobian),
            )
            frames[chosen] = made.prediction.permute(0, 2, 3, 1).float().cpu().numpy()
        return frames

    def _detect(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self.detector(self._tensor(frames))
        value = found.value.float().cpu().numpy()
        if found.jacobian is None:
            return value, np.broadcast_to(np.eye(2, dtype=np.float32), (*value.shape[:2], 2, 2))
        return value, found.jacobian.float().cpu().numpy()

    def _tensor(self, frames: np.ndarray) -> torch.Tensor:
        if frames.ndim != 4 or frames.shape[1:] != (self.size_px, self.size_px, 3):
            fix = "Resize them first"
            raise ShapeError(must("frames", f"be (N, {self.size_px}, {self.size_px}, 3)", frames.shape, fix))
        scaled = np.asarray(frames, dtype=np.float32) / 255 if frames.dtype == np.uint8 else frames.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))).to(self.device)


def _flush_denormals() -> None:
    """Sharp heat maps are full of denormals, on which CPU convolutions crawl.

    Threads take the setting over from the one that starts them, so this comes before torch starts any.
    """
    torch.set_flush_denormal(True)


def _expand(points: Keypoints, batch: int) -> Keypoints:
    jacobian = None if points.jacobian is None else points.jacobian.expand(batch, -1, -1, -1)
    return Keypoints(points.value.expand(batch, -1, -1), jacobian)


def pick_device(device: Device) -> torch.device:
    """The device meant by a name.

    Raises:
        EnvironmentProblem: ``cuda`` is asked for where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(must("device", "be one that this machine has", device, "Use cpu or auto"))
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def from_checkpoint(
    folder: Path, *, device: Device = "auto", batch_size: int = 16
) -> tuple[TorchSession, CheckpointInfo]:
    """An engine out of a checkpoint's or an exported model's folder; the averaged (EMA) weights where there are any.

    Raises:
        CheckpointError: the folder holds no whole checkpoint, or one of another kind of networks.
        EnvironmentProblem: ``cuda`` is asked for where there is none.
    """
    before_s = time.perf_counter()
    _flush_denormals()
    networks, info = load_networks(folder)
    generator, detector = _motion_networks(networks, folder)
    session = TorchSession(generator, detector, size_px=info.model.size_px, device=device, batch_size=batch_size)
    logger.info(
        "loaded %s (step %d) on %s in %.1f s", folder, info.step, session.device, time.perf_counter() - before_s
    )
    return session, info


def from_version(uri: str, store: Store, *, device: Device = "auto") -> tuple[str, MotionSession]:
    """An engine out of a registered model version, and the version's own URI (an alias may move, a version does not).

    Raises:
        TrackingError: no such version, one that is not of this project, or the registry is away.
        CheckpointError: its graph can't be opened.
        EnvironmentProblem: ``cuda`` is asked for where ONNX Runtime has none.
    """
    providers = _providers(device)
    version = registry.find(uri, store)
    with tempfile.TemporaryDirectory(prefix="inkmotion-version-") as scratch:
        graph = registry.onnx_of(registry.resolve(version.uri, store, target=Path(scratch)))
        try:
            session = MotionSession(graph, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            got = " ".join(str(error).split())[:200]
            raise CheckpointError(must(version.uri, "hold a graph that ONNX Runtime can open", got)) from error
    return version.uri, session


def _providers(device: Device) -> list[str] | None:
    """ONNX Runtime's providers; None leaves the choice to the session."""
    import onnxruntime

    if device == "auto":
        return None
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        fix = "Use cpu or auto, or install onnxruntime-gpu"
        raise EnvironmentProblem(must("device", "be one that ONNX Runtime has here", device, fix))
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]


def _motion_networks(networks: dict[str, nn.Module], folder: Path) -> tuple[Generator, KeypointDetector]:
    generator, detector = networks.get("generator"), networks.get("keypoint_detector")
    if not isinstance(generator, Generator) or not isinstance(detector, KeypointDetector):
        got = ", ".join(f"{name} ({type(network).__name__})" for name, network in networks.items()) or "nothing"
        raise CheckpointError(must(str(folder), "hold a generator and a keypoint detector of the motion family", got))
    return generator, detector
