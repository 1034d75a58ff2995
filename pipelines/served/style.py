"""What a registered style model carries: this one file travels with its ONNX graph and imports nothing of the project.

It runs wherever mlflow (or mlflow-skinny with pandas), onnxruntime and numpy are installed:

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    drawings = model.predict({"photo": pictures}, params={"strength": 0.8})

``photo`` is uint8 RGB (N, H, W, 3) of any height and width; ``drawings`` is float32 (N, H, W, 3) in [0, 1]. The
parameters:

    strength  1.0 (default): the drawing; 0.0: the photo; between: a mixture
    tile_px   height and width of the tiles in which large pictures are computed; 0 (default): chosen by the model

Letters of the shapes: N pictures, H and W their height and width, B tiles or patches, h and w theirs, K the normalised
channels of all layers.
"""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

DEFAULTS = {"strength": 1.0, "tile_px": 0}
PARTS = ("stylise", "measure", "given")
"""Of the graph, in the order of its switch."""
PIXELS_AT_ONCE = 3 << 19
"""The most pixels that are computed together, which bounds the memory; larger pictures go in tiles."""
TILE_PX = 1024
PATCH_PX = 64
"""Height and width of the patches by which a large picture's statistics are measured."""
LEAST_TILE_PX = 192
MULTIPLE = 4
"""Heights and widths that the networks take."""
_LEAST_PX = 8


class Stylist(ABC):
    """Turns photos of any size into drawings; how the network is run is its subclasses' matter.

    Normalisations see the whole picture. So a picture that is computed in tiles is measured first, by patches spread
    evenly over it that the network sees as one batch, and its tiles are all normalised by those statistics.
    """

    @abstractmethod
    def run(self, batch: Array, statistics: Array | None = None) -> Array:
        """Draw pictures (B, 3, h, w) float32 in [0, 1], h and w multiples of 4; by given statistics (1 or B, 2, K)."""

    @abstractmethod
    def run_measure(self, batch: Array) -> Array:
        """Statistics (1, 2, K) of one picture out of its patches (B, 3, h, w), float32 in [0, 1]."""

    def stylise(
        self, pictures: Array, *, strength: float = 1.0, tile_px: int | None = None, given: Array | None = None
    ) -> Array:
        """Draw photos.

        Args:
            pictures: uint8 RGB (N, H, W, 3), any height and width.
            strength: 0 gives the photo itself, 1 the drawing, between a mixture.
            tile_px: height and width of the tiles, 192 or more; None: tiles of 1,024 px for pictures of more than 1.5
                million pixels, and none for others.
            given: statistics to normalise by, of `measure`: (1, 2, K) for all pictures or (N, 2, K); None: each
                picture's own.

        Returns:
            float32 (N, H, W, 3) in [0, 1].

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        checked(pictures, strength, tile_px)
        if strength == 0:
            return _floats(pictures)
        if tile_px is None and _area(pictures) <= PIXELS_AT_ONCE:
            made = self._whole(pictures, given)
        else:
            made = np.empty(pictures.shape, np.float32)
            for place, picture in enumerate(pictures):
                self._tiled(picture, made[place], tile_px or TILE_PX, _part(given, place, 1))
        if strength < 1:
            for photo, drawing in zip(pictures, made, strict=True):
                drawing *= np.float32(strength)
                drawing += np.float32((1 - strength) / 255) * photo
        return made

    def measure(self, picture: Array) -> Array:
        """By what a picture is normalised, for `stylise` of other pictures: the next frames of a video, for instance.

        Args:
            picture: uint8 RGB (H, W, 3). More than 1.5 million pixels are measured by evenly spread patches.

        Returns:
            float32 (1, 2, K), means and variances.
        """
        checked(picture[None] if picture.ndim == 3 else picture)
        return self.run_measure(np.concatenate([planes(patch[None]) for patch in patches(picture)]))

    def _whole(self, pictures: Array, given: Array | None) -> Array:
        height, width = pictures.shape[1:3]
        made = np.empty(pictures.shape, np.float32)
        count = max(1, PIXELS_AT_ONCE // 2 // _area(pictures))
        for start in range(0, len(pictures), count):
            drawn = self.run(planes(pictures[start : start + count]), _part(given, start, count))
            made[start : start + count] = drawn[..., :height, :width].transpose(0, 2, 3, 1)
        return made

    def _tiled(self, picture: Array, made: Array, tile_px: int, given: Array | None) -> None:
        """Draw a picture (H, W, 3) into ``made``, tile by tile."""
        rows, columns = (spans(side, tile_px) for side in picture.shape[:2])
        alone = len(rows) == len(columns) == 1
        statistics = self.measure(picture) if given is None and not alone else given
        made[...] = 0
        for row in rows:
            for column in columns:
                tile = picture[row.start : row.stop, column.start : column.stop]
                drawn = self.run(planes(tile[None]), statistics)[0, :, : tile.shape[0], : tile.shape[1]]
                weighted = drawn.transpose(1, 2, 0) * (row.weights[:, None, None] * column.weights[None, :, None])
                made[row.start : row.stop, column.start : column.stop] += weighted
        np.clip(made, 0, 1, out=made)


class Span(NamedTuple):
    """A tile's reach along one axis, and what it counts for in each row or column, float32 (stop - start,)."""

    start: int
    stop: int
    weights: Array


def spans(size: int, tile_px: int) -> list[Span]:
    """Tiles along one axis that overlap and whose weights add up to 1 everywhere.

    Neighbours share at least a quarter of a tile, or 128 px if that is less. One fades into the other in the middle
    half of what they share, so that pixels near a tile's own border, which miss their surroundings, count nothing.

    Args:
        size: of the picture.
        tile_px: of a tile, the most.
    """
    tile = tile_px // MULTIPLE * MULTIPLE
    overlap = min(128, tile // 4)
    count = 1 if size <= tile else math.ceil((size - overlap) / (tile - overlap - MULTIPLE))
    last = -(-max(0, size - tile) // MULTIPLE) * MULTIPLE
    starts = [last * place // max(1, count - 1) // MULTIPLE * MULTIPLE for place in range(count)]
    stops = [min(start + tile, size) for start in starts]
    weights = [np.ones(stop - start) for start, stop in zip(starts, stops, strict=True)]
    for place in range(1, count):
        shared = stops[place - 1] - starts[place]
        fade = np.clip((np.arange(shared) + 0.5 - shared / 4) / (shared / 2), 0, 1)
        rising = fade * fade * (3 - 2 * fade)
        weights[place][:shared] *= rising
        weights[place - 1][-shared:] *= 1 - rising
    total = np.zeros(size)
    for start, stop, weight in zip(starts, stops, weights, strict=True):
        total[start:stop] += weight
    shares = (weight / total[start:stop] for start, stop, weight in zip(starts, stops, weights, strict=True))
    return [Span(start, stop, w.astype(np.float32)) for start, stop, w in zip(starts, stops, shares, strict=True)]


def patches(picture: Array) -> Iterator[Array]:
    """Parts of a picture (H, W, 3) that stand for all of it: itself, or one of each cell of an even grid."""
    height, width = picture.shape[:2]
    if height * width <= PIXELS_AT_ONCE:
        yield picture
        return
    tall, wide = min(PATCH_PX, height), min(PATCH_PX, width)
    most = PIXELS_AT_ONCE // (tall * wide)
    rows = max(1, min(round(math.sqrt(most * height * wide / (width * tall))), math.ceil(height / tall), most))
    columns = max(1, min(most // rows, math.ceil(width / wide)))
    for row in range(rows):
        for column in range(columns):
            top = _centred(row, rows, height, tall)
            left = _centred(column, columns, width, wide)
            yield picture[top : top + tall, left : left + wide]


def _centred(cell: int, cells: int, size: int, patch: int) -> int:
    """Where a patch in the middle of a cell begins."""
    return min(max(0, round((cell + 0.5) * size / cells - patch / 2)), size - patch)


def _part(given: Array | None, start: int, count: int) -> Array | None:
    """The statistics of some pictures, where each has its own."""
    return given if given is None or len(given) == 1 else given[start : start + count]


def _area(pictures: Array) -> int:
    return int(pictures.shape[1] * pictures.shape[2])


def _floats(pictures: Array) -> Array:
    made = pictures.astype(np.float32)
    made /= np.float32(255)
    return made


def planes(pictures: Array) -> Array:
    """(N, H, W, 3) uint8 as (N, 3, h, w) float32 in [0, 1], continued right and below to multiples of 4, 8 or more."""
    height, width = pictures.shape[1:3]
    down, right = (max(-size % MULTIPLE, _LEAST_PX - size) for size in (height, width))
    if down or right:
        pictures = np.pad(pictures, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    return _floats(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def checked(pictures: Any, strength: float = 1.0, tile_px: int | None = None) -> None:
    """Refuse what can't be drawn.

    Raises:
        ValueError: no uint8 RGB pictures of one size, a strength outside of [0, 1], or tiles that are too small.
    """
    if isinstance(pictures, list | tuple):
        got = sorted({tuple(getattr(picture, "shape", ())) for picture in pictures})
        fix = "Stack pictures of one size by numpy.stack; stylise others in another call."
        raise ValueError(f"photo must be one array of pictures of one size; got a list of shapes {got}. {fix}")
    kind = f"{getattr(pictures, 'dtype', type(pictures).__name__)} {getattr(pictures, 'shape', '')}".strip()
    if not isinstance(pictures, np.ndarray) or pictures.dtype != np.uint8:
        fix = "Convert floats in [0, 1] by (x * 255).round().astype('uint8'); stylise other sizes in another call."
        raise ValueError(f"photo must be a numpy array of uint8; got {kind}. {fix}")
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape:
        fix = "Add the pictures' axis by x[None] to a single one, and drop an alpha channel by x[..., :3]."
        raise ValueError(f"photo must be RGB pictures (N, H, W, 3) with at least one pixel; got {kind}. {fix}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 (the photo) to 1 (the drawing); got {strength}.")
    if tile_px is not None and tile_px < LEAST_TILE_PX:
        fix = "Leave it out, and the model chooses."
        raise ValueError(f"tile_px must be {LEAST_TILE_PX} or more; got {tile_px}. {fix}")


class StyleSession(Stylist):
    """A style model's ONNX graph, ready to draw."""

    def __init__(self, onnx: str | Path, *, providers: Sequence[str] | None = None) -> None:
        """Open the graph.

        Args:
            onnx: the graph's file.
            providers: ONNX Runtime's, best first; None: CUDA where there is one, else the CPU.

        Raises:
            ValueError: the graph is of another kind.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # sizes change from call to call
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        chosen = list(providers) if providers is not None else _usable_providers()
        self._session = onnxruntime.InferenceSession(str(onnx), options, providers=chosen)
        shapes = {port.name: port.shape for port in self._session.get_inputs()}
        if set(shapes) != {"photo", "given", "part"}:
            fix = "Register the model again."
            raise ValueError(f"{onnx} must have inputs photo, given and part; got {list(shapes)}. {fix}")
        self.num_statistics = int(shapes["given"][-1])
        """K."""

    def run(self, batch: Array, statistics: Array | None = None) -> Array:
        """See `Stylist.run`."""
        part = "stylise" if statistics is None else "given"
        return self._compute(part, "drawing", batch, statistics)

    def run_measure(self, batch: Array) -> Array:
        """See `Stylist.run_measure`."""
        return self._compute("measure", "statistics", batch, None)[:1]

    def _compute(self, part: str, wanted: str, batch: Array, statistics: Array | None) -> Array:
        shape = (len(batch), 2, self.num_statistics)
        given = np.zeros(shape, np.float32) if statistics is None else np.asarray(statistics, np.float32)
        if given.ndim != 3 or given.shape[1:] != shape[1:] or len(given) not in (1, len(batch)):
            rule = f"be those of this model, (1, 2, {self.num_statistics})"
            raise ValueError(f"given statistics must {rule}; got {given.shape}. Measure them with the same model.")
        feeds = {
            "photo": batch,
            "given": np.ascontiguousarray(np.broadcast_to(given, shape)),
            "part": np.array(PARTS.index(part), np.int64),
        }
        found: Array = self._session.run([wanted], feeds)[0]
        return found


def _usable_providers() -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


class StyleModel(PythonModel):
    """The model as MLflow loads it; see the top of this file for what goes in and comes out."""

    def load_context(self, context: Any) -> None:
        """Open the graph that lies beside this file among the model's artifacts."""
        self._style = StyleSession(context.artifacts["style"])

    def predict(self, context: Any, model_input: ModelInput, params: Mapping[str, Any] | None = None) -> Array:
        """Draw photos.

        Args:
            context: MLflow's; unused here.
            model_input: ``photo``, uint8 RGB (N, H, W, 3).
            params: ``strength``, ``tile_px``.

        Returns:
            float32 (N, H, W, 3) in [0, 1].

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        options = {**DEFAULTS, **(params or {})}
        if not isinstance(model_input, Mapping) or "photo" not in model_input:
            got = sorted(map(str, model_input)) if isinstance(model_input, Mapping) else type(model_input).__name__
            raise ValueError(f"the input must be a dict with a numpy array named photo; got {got}.")
        tile_px = int(options["tile_px"]) or None
        return self._style.stylise(model_input["photo"], strength=float(options["strength"]), tile_px=tile_px)


set_model(StyleModel())
