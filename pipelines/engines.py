"""What moves pictures: one interface, whether the networks are a model version (ONNX) or a checkpoint (torch)."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from models.errors import CheckpointError, EnvironmentProblem, ParamsError, Problem, ShapeError, TrackingError, must
from models.fold import folded
from models.motion.avd import AvdNetwork
from models.motion.background import BackgroundPredictor
from models.motion.generator import EncodedSource, Generator
from models.motion.keypoints import Detector, Keypoints
from pipelines import registry
from pipelines.carried import family_of
from pipelines.registry import Store
from pipelines.served.motion import Motion, MotionSession, joined
from pipelines.train_stages import is_avd_trained
from training.checkpoint import CheckpointInfo, load_networks

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
SOURCES_KEPT = 4
"""Encodings that a session remembers."""


class Engine(Protocol):
    """Finds keypoints and renders frames; `pipelines.served.motion.MotionSession` is one, `TorchSession` another."""

    @property
    def size_px(self) -> int:
        """Height and width of the frames that it takes and makes."""

    @property
    def has_avd(self) -> bool:
        """Whether it can `disentangle`."""

    def keypoints(self, frames: np.ndarray) -> Motion:
        """Keypoints of frames, uint8 or float in [0, 1], (N, S, S, 3)."""

    def disentangle(self, source: np.ndarray, pose: Motion) -> Motion:
        """Regions of the shape of ``source`` (S, S, 3) in the given pose."""

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        """Move ``source`` (S, S, 3) to absolute keypoints; float32 in [0, 1], (N, S, S, 3)."""


class TorchSession:
    """The motion networks of a checkpoint, on the CPU or a GPU, without gradients and in batches."""

    def __init__(
        self,
        generator: Generator,
        detector: Detector,
        *,
        size_px: int,
        avd: AvdNetwork | None = None,
        device: Device = "auto",
        batch_size: int = 16,
        precision: Precision = "fp32",
        fold: bool = False,
    ) -> None:
        """Take networks over, in eval mode.

        Args:
            generator: moves an encoded source.
            detector: finds keypoints or regions.
            size_px: height and width of a frame.
            avd: parts identity and pose; None where there is none.
            device: ``auto`` takes a GPU when there is one.
            batch_size: frames computed at once; bounds the memory.
            precision: ``bf16`` computes convolutions in bfloat16.
            fold: on a CPU, put batch normalisation into the convolutions and keep the channels of a pixel together:
                faster, and the same but for rounding. Networks that are to be exported stay as they are.

        Raises:
            EnvironmentProblem: ``cuda`` is asked for where there is none.
        """
        _flush_denormals()
        self.size_px = size_px
        self.batch_size = batch_size
        self.precision = precision
        self.device = pick_device(device)
        self.folded = fold and self.device.type == "cpu"
        self.generator = folded(generator) if self.folded else generator.eval().to(self.device)
        self.detector = folded(detector) if self.folded else detector.eval().to(self.device)
        self.avd = None if avd is None else avd.eval().to(self.device)
        self.background: BackgroundPredictor | None = None
        """Of the camera's motion; `reconstruct` uses it, animation never does."""
        self._encoded: dict[bytes, tuple[EncodedSource, Keypoints]] = {}

    @property
    def has_avd(self) -> bool:
        """Whether `disentangle` works."""
        return self.avd is not None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What it computes with, by the names of `models.motion.networks.build`."""
        named = {
            "generator": self.generator,
            "keypoint_detector": self.detector,
            "background_predictor": self.background,
            "avd": self.avd,
        }
        return {name: network for name, network in named.items() if network is not None}

    @torch.inference_mode()
    def keypoints(self, frames: np.ndarray) -> Motion:
        """Find the keypoints of frames.

        Args:
            frames: uint8, or float in [0, 1], (N, S, S, 3).

        Returns:
            Positions (N, K, 2) in [-1, 1] and Jacobians (N, K, 2, 2), the identity where the networks estimate none; of
            regions their axes and covariances (N, K, 2, 2).
        """
        starts = range(0, len(frames), self.batch_size)
        with self._computing():
            return joined([_arrays(self.detector(self._tensor(frames[at : at + self.batch_size]))) for at in starts])

    @torch.inference_mode()
    def disentangle(self, source: np.ndarray, pose: Motion) -> Motion:
        """Regions of the source's shape in the given pose.

        Args:
            source: uint8, or float in [0, 1], (S, S, 3).
            pose: of N driving frames.

        Raises:
            ParamsError: there is no AVD network.
        """
        if self.avd is None:
            raise no_avd()
        still = self._encode(source)[1]
        return _arrays(self.avd(still.expand(len(pose.value)), self._keypoints(pose)))

    @torch.inference_mode()
    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        """Move a source to absolute keypoints; its encoding is remembered from call to call.

        Args:
            source: uint8, or float in [0, 1], (S, S, 3).
            motion: where the keypoints shall be, (N, K, ...).

        Returns:
            float32 in [0, 1], (N, S, S, 3).
        """
        encoded, start = self._encode(source)
        frames = np.empty((len(motion.value), self.size_px, self.size_px, 3), dtype=np.float32)
        for first in range(0, len(frames), self.batch_size):
            driving = self._keypoints(motion.part(first, first + self.batch_size))
            count = len(driving.value)
            if start.jacobian is None:
                driving = driving._replace(jacobian=None)
            with self._computing():
                made = self.generator.decode(
                    encoded.expand(count), source_keypoints=start.expand(count), driving_keypoints=driving
                )
            frames[first : first + count] = made.prediction.permute(0, 2, 3, 1).float().cpu().numpy()
        return frames

    @torch.inference_mode()
    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Rebuild frames of the source's own video: absolute keypoints, and the camera's motion where it is known.

        Args:
            source: uint8, or float in [0, 1], (S, S, 3).
            frames: likewise, (N, S, S, 3).

        Returns:
            float32 in [0, 1], (N, S, S, 3).
        """
        encoded, start = self._encode(source)
        rebuilt = np.empty((len(frames), self.size_px, self.size_px, 3), dtype=np.float32)
        for first in range(0, len(frames), self.batch_size):
            driving = self._tensor(frames[first : first + self.batch_size])
            count = len(driving)
            whole, camera = encoded.expand(count), self.background
            with self._computing():
                made = self.generator.decode(
                    whole,
                    source_keypoints=start.expand(count),
                    driving_keypoints=self.detector(driving),
                    background=None if camera is None else camera(whole.frame, driving),
                )
            rebuilt[first : first + count] = made.prediction.permute(0, 2, 3, 1).float().cpu().numpy()
        return rebuilt

    def _encode(self, source: np.ndarray) -> tuple[EncodedSource, Keypoints]:
        """All that depends on a source (S, S, 3) alone; the last few are remembered."""
        key = hashlib.blake2b(source.tobytes(), person=source.dtype.str.encode()).digest()
        if key not in self._encoded:
            frame = self._tensor(source[None])
            with self._computing():
                self._encoded[key] = self.generator.encode(frame), self.detector(frame)
            while len(self._encoded) > SOURCES_KEPT:
                del self._encoded[next(iter(self._encoded))]
        return self._encoded[key]

    def _computing(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _keypoints(self, motion: Motion) -> Keypoints:
        parts = (None if array is None else self._float(array) for array in motion)
        return Keypoints(*parts)  # type: ignore[arg-type]

    def _float(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)

    def _tensor(self, frames: np.ndarray) -> torch.Tensor:
        if frames.ndim != 4 or frames.shape[1:] != (self.size_px, self.size_px, 3):
            fix = "Resize them first"
            raise ShapeError(must("frames", f"be (N, {self.size_px}, {self.size_px}, 3)", frames.shape, fix))
        scaled = np.asarray(frames, dtype=np.float32) / 255 if frames.dtype == np.uint8 else frames.astype(np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(scaled)).permute(0, 3, 1, 2)  # channels last as it comes
        return (tensor if self.folded else tensor.contiguous()).to(self.device)


def _arrays(found: Keypoints) -> Motion:
    value, jacobian, covariance = (None if part is None else part.float().cpu().numpy() for part in found)
    assert value is not None, "keypoints have positions"
    if jacobian is None:
        jacobian = np.broadcast_to(np.eye(2, dtype=np.float32), (*value.shape[:2], 2, 2))
    return Motion(value, jacobian, covariance)


def no_avd() -> ParamsError:
    """The error of mode ``avd`` with a model that can't do it."""
    return ParamsError([Problem("mode", "avd", "be relative or absolute with this model, which has no AVD network")])


def _flush_denormals() -> None:
    """Sharp heat maps are full of denormals, on which CPU convolutions crawl.

    Threads take the setting over from the one that starts them, so this comes before torch starts any.
    """
    torch.set_flush_denormal(True)


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
    folder: Path,
    *,
    device: Device = "auto",
    batch_size: int = 16,
    precision: Precision = "fp32",
    fold: bool = False,
) -> tuple[TorchSession, CheckpointInfo]:
    """An engine out of a checkpoint's or an exported model's folder; the averaged (EMA) weights where there are any.

    The options are `TorchSession`'s.

    Raises:
        CheckpointError: the folder holds no whole checkpoint, or one of another kind of networks.
        EnvironmentProblem: ``cuda`` is asked for where there is none.
    """
    before_s = time.perf_counter()
    _flush_denormals()
    networks, info = load_networks(folder)
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "precision": precision, "fold": fold}
    session = _session(networks, folder, avd_trained=is_avd_trained(info), size_px=info.model.size_px, **options)
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
    providers = providers_of(device)
    version = registry.find(uri, store)
    if family_of(version.tags) != "motion":
        got, fix = "a stylising one", f"Use it so: inkmotion stylise --model {uri}"
        raise TrackingError(must(version.uri, "be a motion model to animate with", got, fix))
    with tempfile.TemporaryDirectory(prefix="inkmotion-version-") as scratch:
        graph = registry.onnx_of(registry.resolve(version.uri, store, target=Path(scratch)))
        try:
            session = MotionSession(graph, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            got = " ".join(str(error).split())[:200]
            raise CheckpointError(must(version.uri, "hold a graph that ONNX Runtime can open", got)) from error
    return version.uri, session


def providers_of(device: Device) -> list[str] | None:
    """ONNX Runtime's providers; None leaves the choice to the session."""
    import onnxruntime

    if device == "auto":
        return None
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        fix = "Use cpu or auto, or install onnxruntime-gpu"
        raise EnvironmentProblem(must("device", "be one that ONNX Runtime has here", device, fix))
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]


def _session(networks: dict[str, nn.Module], folder: Path, *, avd_trained: bool, **options: Any) -> TorchSession:
    generator, detector = networks.get("generator"), networks.get("keypoint_detector")
    if not isinstance(generator, Generator) or not isinstance(detector, Detector):
        got = ", ".join(f"{name} ({type(network).__name__})" for name, network in networks.items()) or "nothing"
        raise CheckpointError(must(str(folder), "hold a generator and a keypoint detector of the motion family", got))
    avd, background = networks.get("avd") if avd_trained else None, networks.get("background_predictor")
    session = TorchSession(generator, detector, avd=avd if isinstance(avd, AvdNetwork) else None, **options)
    if isinstance(background, BackgroundPredictor):
        session.background = background.eval().to(session.device)
    return session
