"""What a registered motion model carries: this one file travels with its ONNX graph and imports nothing of the project.

It runs wherever mlflow (or mlflow-skinny with pandas), onnxruntime, numpy and Pillow are installed:

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    frames = model.predict({"source": picture[None], "driving": video}, params={"mode": "relative"})

``source`` is uint8 RGB (1, H, W, 3), ``driving`` uint8 RGB (N, H, W, 3), both of any size; ``frames`` is float32
(N, S, S, 3) in [0, 1]. M pictures in ``source``, 2 or more, give (M, N, S, S, 3). The parameters:

    mode             "relative" (default): the driving video's movement since its reference frame; "absolute": its
                     keypoints as they are; "avd": the source's shape in the driving pose, of models with an AVD network
    relative         false means mode "absolute"
    adapt_scale      scale relative movement by the ratio of the keypoints' convex hulls; regions always do
    find_best_frame  reference: the driving frame whose pose is nearest the source's; else the first
    smoothing        width of `smooth` in frames; 0 (default): none

A long video goes through `MotionSession.animate`, an iterator, in constant memory.

Letters of the shapes: N frames, M sources, K keypoints or regions, S the model's frame size in pixels, H and W any
height and width. Points are (x, y) in [-1, 1].
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports to its maker from its import on
with warnings.catch_warnings():  # MLflow warns of its own type hints while it is imported
    warnings.simplefilter("ignore")
    import onnxruntime
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

Array = NDArray[Any]
if TYPE_CHECKING:
    ModelInput = Mapping[str, Array]
else:
    ModelInput = np.ndarray  # MLflow knows no hint for a dict of tensors, and warns of every hint that it does not know

DEFAULTS = {"mode": "relative", "relative": True, "adapt_scale": False, "find_best_frame": False, "smoothing": 0.0}
MODES = ("relative", "absolute", "avd")
_PARTS = ("keypoint", "encoded", "prediction", "avd")
"""Of the graph, in the order of its switch; each is the head of its outputs' names."""
_PIXELS_PER_BATCH = 1 << 20
"""Frames are computed in batches of so many pixels, which bounds the memory: 16 frames at 256 px."""
_SOURCES_KEPT = 4
"""Encodings that a session remembers."""
_TINY = 1e-12


class Motion(NamedTuple):
    """Keypoints or regions of N frames, as numpy arrays."""

    value: Array
    """(N, K, 2) in [-1, 1], x first."""
    jacobian: Array
    """(N, K, 2, 2): of a region its axes; the identity for a model without Jacobians."""
    covariance: Array | None = None
    """(N, K, 2, 2), in squared image units; None for keypoints."""

    def take(self, frame: int) -> Motion:
        """One frame's keypoints, (1, K, ...)."""
        return self.part(frame, frame + 1)

    def part(self, start: int, stop: int | None = None) -> Motion:
        """The frames from ``start`` to before ``stop``."""
        return Motion(*(None if array is None else array[start:stop] for array in self))  # type: ignore[arg-type]


def joined(parts: Sequence[Motion]) -> Motion:
    """The frames of one or more parts, one after another."""
    arrays = (None if of[0] is None else np.concatenate(of) for of in zip(*parts, strict=True))
    return Motion(*arrays)  # type: ignore[arg-type]


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
        self._outputs = [port.name for port in self._session.get_outputs()]
        if "part" not in shapes:
            raise ValueError(f"{onnx} must have an input called part; got {list(shapes)}. Register the model again.")
        self.size_px = int(shapes["source"][-1])
        """Height and width of the model's frames."""
        self.num_keypoints = int(shapes["motion_value"][1])
        self.has_avd = "avd_value" in self._outputs
        """Whether `disentangle` works."""
        self._batch = max(1, min(64, _PIXELS_PER_BATCH // self.size_px**2))
        sizes = {name: [side if isinstance(side, int) else 1 for side in shape] for name, shape in shapes.items()}
        self._unused = {name: np.zeros(size, np.float32) for name, size in sizes.items() if name != "part"}
        self._encoded: dict[bytes, dict[str, Array]] = {}

    def keypoints(self, frames: Array) -> Motion:
        """Find the keypoints of frames.

        Args:
            frames: (N, S, S, 3), uint8 or float in [0, 1].
        """
        planes = self._planes(frames)
        starts = range(0, len(planes), self._batch)
        return joined([Motion(*self._run("keypoint", driving=planes[at : at + self._batch]).values()) for at in starts])

    def disentangle(self, source: Array, pose: Motion) -> Motion:
        """Regions of the source's shape in the given pose (AVD; Siarohin et al., CVPR 2021, section 3.5).

        Args:
            source: (S, S, 3), uint8 or float in [0, 1].
            pose: of N driving frames.

        Raises:
            ValueError: the model has no AVD network.
        """
        if not self.has_avd:
            raise ValueError(
                "mode avd must be used with a model that has an AVD network; this one has none. Use relative."
            )
        encoded = self._encode(self._planes(source[None]))
        return Motion(*self._run("avd", **encoded, **_feeds(pose)).values())

    def render(self, source: Array, motion: Motion) -> Array:
        """Move a picture from its own keypoints to the given ones; its encoding is remembered from call to call.

        Args:
            source: (S, S, 3), uint8 or float in [0, 1].
            motion: where the keypoints shall be, of N frames.

        Returns:
            (N, S, S, 3) float32 in [0, 1].
        """
        picture = self._planes(source[None])
        given = {"source": picture, **self._encode(picture)}
        frames = np.empty((len(motion.value), self.size_px, self.size_px, 3), np.float32)
        for start in range(0, len(frames), self._batch):
            feeds = _feeds(motion.part(start, start + self._batch))
            planes = self._run("prediction", **given, **feeds)["prediction"]
            frames[start : start + self._batch] = planes.transpose(0, 2, 3, 1)
        return frames

    def animate(
        self,
        source: Array,
        driving: Iterable[Array],
        *,
        mode: str = "relative",
        adapt_scale: bool = False,
        smoothing: float = 0.0,
        reference: Motion | None = None,
    ) -> Iterator[Array]:
        """Move a picture with a video of any length, in constant memory.

        Args:
            source: (H, W, 3) uint8.
            driving: frames (H, W, 3) uint8, as they are decoded. Taken a batch ahead, and 3 ``smoothing`` frames.
            mode: one of `MODES`.
            adapt_scale: see `transfer`.
            smoothing: see `smooth`.
            reference: of the driving frame whose pose counts as the source's (see `best_frame`); None: the first.

        Yields:
            (S, S, 3) float32 in [0, 1], one for each driving frame.
        """
        picture = fit_frames(source[None], self.size_px)
        start = self.keypoints(picture)
        found = (self.keypoints(batch) for batch in _batches(driving, self.size_px, self._batch))
        for part in smoothed(found, smoothing):
            reference = part.take(0) if reference is None else reference
            goal = self.goal(picture[0], start, part, reference, mode=mode, adapt_scale=adapt_scale)
            for at in range(0, len(goal.value), self._batch):
                yield from self.render(picture[0], goal.part(at, at + self._batch))

    def goal(
        self, picture: Array, source: Motion, driving: Motion, reference: Motion, *, mode: str, adapt_scale: bool
    ) -> Motion:
        """Where the keypoints ``source`` of a picture (S, S, 3) go: by `transfer`, or by `disentangle` in mode ``avd``.

        Raises:
            ValueError: another mode than `MODES`, or the model has no AVD network.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode}.")
        if mode == "avd":
            return self.disentangle(picture, driving)
        return transfer(source, driving, reference, relative=mode == "relative", adapt_scale=adapt_scale)

    def _encode(self, picture: Array) -> dict[str, Array]:
        """What the graph keeps of a source (1, 3, S, S), under the names of the inputs that take it."""
        key = hashlib.blake2b(picture.tobytes()).digest()
        if key not in self._encoded:
            found = {**self._run("keypoint", driving=picture), **self._run("encoded", source=picture)}
            self._encoded[key] = {f"source_{name.partition('_')[2]}": array for name, array in found.items()}
            while len(self._encoded) > _SOURCES_KEPT:
                del self._encoded[next(iter(self._encoded))]
        return self._encoded[key]

    def _run(self, part: str, **feeds: Array) -> dict[str, Array]:
        """The outputs of a part of the graph, those whose names begin with its own; no other part is computed."""
        names = [name for name in self._outputs if name.startswith(part)]
        chosen = np.array(_PARTS.index(part), np.int64)
        arrays = self._session.run(names, {**self._unused, **feeds, "part": chosen})
        return dict(zip(names, arrays, strict=True))

    def _planes(self, frames: Array) -> Array:
        """(N, S, S, 3) of any kind as (N, 3, S, S) float32 in [0, 1]."""
        if frames.ndim != 4 or frames.shape[1:] != (self.size_px, self.size_px, 3) or not len(frames):
            rule = f"be (N, {self.size_px}, {self.size_px}, 3) with N of 1 or more"
            raise ValueError(f"frames must {rule}; got {frames.shape}. Resize them with fit_frames.")
        scale = np.float32(255 if frames.dtype == np.uint8 else 1)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / scale


def _feeds(motion: Motion) -> dict[str, Array]:
    named = zip(Motion._fields, motion, strict=True)
    return {f"motion_{name}": np.ascontiguousarray(array, np.float32) for name, array in named if array is not None}


def _batches(frames: Iterable[Array], size_px: int, count: int) -> Iterator[Array]:
    waiting: list[Array] = []
    for frame in frames:
        waiting += list(fit_frames(frame[None], size_px))
        if len(waiting) == count:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


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
    J = J_driving J_reference^-1 J_source. Absolute motion takes the driving keypoints as they are. Regions (Siarohin et
    al., CVPR 2021) likewise by their axes; their movement is always scaled, and covariances stay the driving ones.

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
    scale = movement_scale(source, reference) if adapt_scale or driving.covariance is not None else 1.0
    value = source.value + np.float32(scale) * (driving.value - reference.value)
    jacobian = driving.jacobian
    if relative_jacobian:
        jacobian = driving.jacobian @ _inverse(reference.jacobian) @ source.jacobian
    return Motion(value.astype(np.float32), jacobian.astype(np.float32), driving.covariance)


def smooth(motion: Motion, width: float) -> Motion:
    """Keypoints without their trembling: a Gaussian over time, which delays nothing.

    Positions and Jacobians are averaged over frames with the weights exp(-t^2 / (2 width^2)), up to 3 widths away and,
    near the ends, over the frames that there are. Of regions, centres and covariances are averaged, and the axes taken
    from the averaged covariance: those of neighbouring frames may differ by a sign or a quarter turn.

    Args:
        motion: of N frames, one after another.
        width: standard deviation in frames; 0 changes nothing.

    Raises:
        ValueError: the width is negative, or no number.
    """
    if not 0 <= width < math.inf:
        raise ValueError(f"smoothing must be 0 or more frames; got {width}.")
    if width == 0:
        return motion
    value = _averaged(motion.value, width)
    if motion.covariance is None:
        return Motion(value, _averaged(motion.jacobian, width))
    covariance = _averaged(motion.covariance, width)
    turned, variances, _ = np.linalg.svd(covariance)
    return Motion(value, turned * np.sqrt(variances)[..., None, :], covariance)


def smoothed(parts: Iterable[Motion], width: float) -> Iterator[Motion]:
    """The same as `smooth` of all parts together, as they come; 3 widths of frames are held back."""
    reach, held, done = math.ceil(3 * width), None, 0
    for part in parts:
        held = part if held is None else joined([held, part])
        ready = len(held.value) - reach
        if ready > done:
            yield smooth(held, width).part(done, ready)
            held, done = held.part(max(0, ready - reach)), min(ready, reach)
    if held is not None and done < len(held.value):
        yield smooth(held, width).part(done)


def _averaged(array: Array, width: float) -> Array:
    num, reach = len(array), math.ceil(3 * width)
    total, weights = np.zeros(array.shape, np.float64), np.zeros(num)
    for offset in range(max(-reach, 1 - num), min(reach, num - 1) + 1):
        near, far = (slice(max(0, shift), num + min(0, shift)) for shift in (-offset, offset))
        weight = math.exp(-0.5 * (offset / width) ** 2)
        total[near] += weight * array[far]
        weights[near] += weight
    return (total / weights.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)


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
        """Animate one or more pictures.

        Args:
            context: MLflow's; unused here.
            model_input: ``source`` (M, H, W, 3) and ``driving`` (N, H, W, 3), uint8 RGB of any sizes.
            params: ``mode``, ``relative``, ``adapt_scale``, ``find_best_frame``, ``smoothing``.

        Returns:
            float32 in [0, 1]: (N, S, S, 3) for one picture, (M, N, S, S, 3) for more.

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        options = {**DEFAULTS, **(params or {})}
        pictures, video = (fit_frames(frames, self._motion.size_px) for frames in _checked(model_input))
        driving = smooth(self._motion.keypoints(video), float(options["smoothing"]))
        results = [self._move(picture, driving, options) for picture in pictures]
        return results[0] if len(results) == 1 else np.stack(results)

    def _move(self, picture: Array, driving: Motion, options: Mapping[str, Any]) -> Array:
        mode = "absolute" if options["mode"] == "relative" and not options["relative"] else options["mode"]
        source = self._motion.keypoints(picture[None])
        reference = driving.take(best_frame(source, driving) if options["find_best_frame"] else 0)
        scaled = bool(options["adapt_scale"])
        goal = self._motion.goal(picture, source, driving, reference, mode=mode, adapt_scale=scaled)
        return self._motion.render(picture, goal)


def _checked(model_input: Any) -> tuple[Array, Array]:
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
    return model_input["source"], model_input["driving"]


set_model(MotionModel())
