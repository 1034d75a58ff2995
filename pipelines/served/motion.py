"""What a registered motion model carries: this one file travels with its ONNX graph and imports nothing of the project.

It runs wherever mlflow (or mlflow-skinny with pandas), onnxruntime, numpy and Pillow are installed:

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    frames = model.predict({"source": picture[None], "driving": video}, params={"relative": True})

``source`` is uint8 RGB (1, H, W, 3), ``driving`` uint8 RGB (N, H, W, 3), both of any size; ``frames`` is float32
(N, S, S, 3) in [0, 1]. The parameters: ``relative`` (default true) transfers the driving video's movement since its
reference frame, false its absolute keypoints; ``adapt_scale`` scales relative movement by the ratio of the keypoints'
convex hulls; ``find_best_frame`` takes as reference the driving frame whose pose is nearest the source's.

Letters of the shapes: N frames, K keypoints, S the model's frame size in pixels, H and W any height and width. Points
are (x, y) in [-1, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

with warnings.catch_warnings():  # MLflow warns of its own type hints while it is imported
    warnings.simplefilter("ignore")
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

Array = NDArray[Any]
if TYPE_CHECKING:
    ModelInput = Mapping[str, Array]
else:
    ModelInput = np.ndarray  # MLflow knows no hint for a dict of tensors, and warns of every hint that it does not know

_PIXELS_PER_BATCH = 1 << 20
"""Frames are computed in batches of so many pixels, which bounds the memory: 16 frames at 256 px."""
_TINY = 1e-12


class Motion(NamedTuple):
    """Keypoints of N frames, as numpy arrays."""

    value: Array
    """(N, K, 2) in [-1, 1], x first."""
    jacobian: Array
    """(N, K, 2, 2); the identity for a model without Jacobians."""

    def take(self, frame: int) -> Motion:
        """One frame's keypoints, (1, K, ...)."""
        return Motion(self.value[frame : frame + 1], self.jacobian[frame : frame + 1])


class MotionSession:
    """A motion model's ONNX graph, ready to find keypoints and to render."""

    def __init__(self, onnx: str | Path, *, providers: Sequence[str] | None = None) -> None:
        """Open the graph.

        Args:
            onnx: the graph's file.
            providers: ONNX Runtime's, best first; None: CUDA where there is one, else the CPU.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # a sharp soft-max leaves heat maps full of denormal numbers, on which convolutions crawl
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        chosen = list(providers) if providers is not None else _usable_providers()
        self._session = onnxruntime.InferenceSession(str(onnx), options, providers=chosen)
        shapes = {port.name: port.shape for port in self._session.get_inputs()}
        self.size_px = int(shapes["source"][-1])
        """Height and width of the model's frames."""
        self.num_keypoints = int(shapes["motion_value"][1])
        self._batch = max(1, min(64, _PIXELS_PER_BATCH // self.size_px**2))
        self._only = onnxruntime.RunOptions()
        self._only.only_execute_path_to_fetches = True
        side, count = self.size_px, self.num_keypoints
        self._unused = {
            "source": np.zeros((1, 3, side, side), np.float32),
            "driving": np.zeros((1, 3, side, side), np.float32),
            "motion_value": np.zeros((1, count, 2), np.float32),
            "motion_jacobian": np.zeros((1, count, 2, 2), np.float32),
        }

    def keypoints(self, frames: Array) -> Motion:
        """Find the keypoints of frames.

        Args:
            frames: (N, S, S, 3), uint8 or float in [0, 1].
        """
        planes = self._planes(frames)
        parts = [
            self._run(["keypoint_value", "keypoint_jacobian"], driving=planes[start : start + self._batch])
            for start in range(0, len(planes), self._batch)
        ]
        values, jacobians = zip(*parts, strict=True)
        return Motion(np.concatenate(values), np.concatenate(jacobians))

    def render(self, source: Array, motion: Motion) -> Array:
        """Move a picture from its own keypoints to the given ones.

        Args:
            source: (S, S, 3), uint8 or float in [0, 1].
            motion: where the keypoints shall be, of N frames.

        Returns:
            (N, S, S, 3) float32 in [0, 1].
        """
        picture = self._planes(source[None])
        frames = np.empty((len(motion.value), self.size_px, self.size_px, 3), np.float32)
        for start in range(0, len(frames), self._batch):
            stop = min(start + self._batch, len(frames))
            feeds = {
                "motion_value": np.ascontiguousarray(motion.value[start:stop], np.float32),
                "motion_jacobian": np.ascontiguousarray(motion.jacobian[start:stop], np.float32),
            }
            (planes,) = self._run(["prediction"], source=picture, **feeds)
            frames[start:stop] = planes.transpose(0, 2, 3, 1)
        return frames

    def _run(self, outputs: list[str], **feeds: Array) -> list[Array]:
        results: list[Array] = self._session.run(outputs, {**self._unused, **feeds}, self._only)
        return results

    def _planes(self, frames: Array) -> Array:
        """(N, S, S, 3) of any kind as (N, 3, S, S) float32 in [0, 1]."""
        if frames.ndim != 4 or frames.shape[1:] != (self.size_px, self.size_px, 3) or not len(frames):
            rule = f"be (N, {self.size_px}, {self.size_px}, 3) with N of 1 or more"
            raise ValueError(f"frames must {rule}; got {frames.shape}. Resize them with fit_frames.")
        scale = np.float32(255 if frames.dtype == np.uint8 else 1)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / scale


def fit_frames(frames: Array, size_px: int) -> Array:
    """Frames of any size as the model wants them; the aspect ratio is not kept, nothing is cut off.

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        size_px: S.

    Returns:
        (N, S, S, 3) uint8.
    """
    if frames.shape[1:3] == (size_px, size_px):
        return frames
    fitted = np.empty((len(frames), size_px, size_px, 3), np.uint8)
    for place, frame in enumerate(frames):
        picture = Image.fromarray(np.ascontiguousarray(frame))
        fitted[place] = np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))
    return fitted


def transfer(
    source: Motion,
    driving: Motion,
    reference: Motion,
    *,
    relative: bool,
    adapt_scale: bool,
    relative_jacobian: bool = True,
) -> Motion:
    """Where the source's keypoints go when the driving video's movement is laid on them.

    Siarohin et al., First Order Motion Model for Image Animation (2019), section 3.3: the movement since the reference
    frame is added to the source's keypoints, and the change of the local affine maps since then is put before theirs,
    J = J_driving J_reference^-1 J_source. Absolute motion takes the driving keypoints as they are.

    Args:
        source: of the picture; 1 frame, or as many as ``driving``.
        driving: of the video, N frames.
        reference: of the driving frame whose pose counts as the source's; 1 frame, or as many as ``driving``.
        relative: false returns ``driving``.
        adapt_scale: multiply movements by the square root of the ratio of the convex hulls' areas, source to reference,
            each of its first frame.
        relative_jacobian: false keeps the driving frames' own Jacobians.

    Returns:
        N frames.
    """
    if not relative:
        return driving
    scale = movement_scale(source, reference) if adapt_scale else 1.0
    value = source.value + np.float32(scale) * (driving.value - reference.value)
    jacobian = driving.jacobian
    if relative_jacobian:
        jacobian = driving.jacobian @ _inverse(reference.jacobian) @ source.jacobian
    return Motion(value.astype(np.float32), jacobian.astype(np.float32))


def movement_scale(source: Motion, reference: Motion) -> float:
    """Square root of the ratio of two first frames' convex hulls; 1 where a hull has no area."""
    areas = [hull_area(motion.value[0]) for motion in (source, reference)]
    return float(np.sqrt(areas[0] / areas[1])) if min(areas) > _TINY else 1.0


def best_frame(source: Motion, driving: Motion) -> int:
    """Which driving frame's pose is nearest the source's.

    Keypoints are compared after their mean is taken away and they are divided by the square root of their convex hull's
    area, so that place and size do not count.

    Args:
        source: of the picture; the first frame counts.
        driving: of the video, N frames.

    Returns:
        A position in 0 to N - 1.
    """
    goal = _pose(source.value[0])
    distances = [float(np.sum((_pose(points) - goal) ** 2)) for points in driving.value]
    return int(np.argmin(distances))


def hull_area(points: Array) -> float:
    """Area of the convex hull of points (K, 2): Andrew's monotone chain and the shoelace formula."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return 0.0
    hull = np.array(_chain(ordered) + _chain(ordered[::-1]))
    x, y = hull[:, 0], hull[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _chain(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """One side of the hull, without its last point, which begins the other side."""
    side: list[tuple[float, float]] = []
    for point in ordered:
        while len(side) >= 2 and _turn(side[-2], side[-1], point) <= 0:
            side.pop()
        side.append(point)
    return side[:-1]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _pose(points: Array) -> Array:
    centred = np.asarray(points, np.float64) - points.mean(axis=0)
    return np.asarray(centred / np.sqrt(max(hull_area(points), _TINY)))


def _inverse(matrices: Array) -> Array:
    """Inverses of (..., 2, 2) in closed form; a singular one gets a tiny determinant instead of an exception."""
    a, b, c, d = (np.asarray(matrices[..., row, column], np.float64) for row in (0, 1) for column in (0, 1))
    determinant = a * d - b * c
    determinant = np.where(np.abs(determinant) < _TINY, np.copysign(_TINY, determinant), determinant)
    rows = [np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)]
    return np.asarray(np.stack(rows, axis=-2) / determinant[..., None, None])


def _usable_providers() -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


class MotionModel(PythonModel):
    """The model as MLflow loads it; see the top of this file for what goes in and comes out."""

    def load_context(self, context: Any) -> None:
        """Open the graph that lies beside this file among the model's artifacts."""
        self._motion = MotionSession(context.artifacts["motion"])

    def predict(self, context: Any, model_input: ModelInput, params: Mapping[str, Any] | None = None) -> Array:
        """Animate a picture.

        Args:
            context: MLflow's; unused here.
            model_input: ``source`` (1, H, W, 3) and ``driving`` (N, H, W, 3), uint8 RGB of any sizes.
            params: ``relative``, ``adapt_scale``, ``find_best_frame``.

        Returns:
            (N, S, S, 3) float32 in [0, 1].

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        options = {"relative": True, "adapt_scale": False, "find_best_frame": False, **(params or {})}
        picture, video = _pictures(model_input)
        picture, video = (fit_frames(frames, self._motion.size_px) for frames in (picture, video))
        source, driving = self._motion.keypoints(picture), self._motion.keypoints(video)
        reference = driving.take(best_frame(source, driving) if options["find_best_frame"] else 0)
        moved = transfer(
            source, driving, reference, relative=bool(options["relative"]), adapt_scale=bool(options["adapt_scale"])
        )
        return self._motion.render(picture[0], moved)


def _pictures(model_input: Any) -> tuple[Array, Array]:
    """The checked source and driving frames of a prediction's input."""
    if not isinstance(model_input, Mapping) or not {"source", "driving"} <= set(model_input):
        got = sorted(map(str, model_input)) if isinstance(model_input, Mapping) else type(model_input).__name__
        raise ValueError(f"the input must be a dict of numpy arrays named source and driving; got {got}.")
    for name in ("source", "driving"):
        frames = model_input[name]
        kind = f"{getattr(frames, 'dtype', type(frames).__name__)} {getattr(frames, 'shape', '')}".strip()
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            fix = "Convert floats in [0, 1] by (x * 255).round().astype('uint8')."
            raise ValueError(f"{name} must be a numpy array of uint8; got {kind}. {fix}")
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            fix = "Add the frames' axis by x[None] to a single picture, and drop an alpha channel by x[..., :3]."
            raise ValueError(f"{name} must be RGB frames (N, H, W, 3) with at least one pixel; got {kind}. {fix}")
    source, driving = model_input["source"], model_input["driving"]
    if len(source) != 1:
        raise ValueError(f"source must be one picture (1, H, W, 3); got {source.shape}. Call once for each picture.")
    return source, driving


set_model(MotionModel())
