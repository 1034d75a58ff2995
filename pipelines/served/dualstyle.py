"""What a registered DualStyleGAN carries: this one file travels with its graphs and imports nothing of the project.

It runs wherever mlflow (or mlflow-skinny with pandas), onnxruntime and numpy are installed:

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    cartoons = model.predict({"photo": faces}, params={"style": "micah-3", "structure": 0.75, "colour": 1.0})

``photo`` is uint8 RGB (N, H, W, 3): square pictures of one face each, aligned as FFHQ's are. ``cartoons`` is float32
(N, P, P, 3) in [0, 1]. The parameters:

    style      a name; '' (default): the first. An unknown one is refused with those that there are
    structure  0 to 1: how much of the style's structure is taken; 0.75 by default
    colour     0 to 1: how much of its colours; 1.0 by default
    output     style (default); reconstruction: the face as the model sees it; structure: the style's structure in the
               face's own colours, by the face's colour codes; structure-off: likewise, with the colour layers off
    psi        0 to 1: below 1, faces are drawn towards the mean face; 1.0 by default

Letters of the shapes: N pictures, H and W their height and width, P the model's, E the encoder's, S style codes of D
numbers each, M styles.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

OUTPUTS = ("reconstruction", "style", "structure", "structure-off")
DEFAULTS = {"style": "", "structure": 0.75, "colour": 1.0, "output": "style", "psi": 1.0}
_TOLD = 12
AT_ONCE = 8
"""Faces that go through the graphs together, which bounds the memory."""


class FaceSession:
    """Encoder and generator, and the codes of the styles.

    Args:
        generator: the generator's ONNX file.
        encoder: the encoder's.
        styles: an ``.npz`` with ``names`` (M,), ``extrinsic`` float32 (M, S, D), ``thumbnails`` uint8 (M, P, P, 3) and
            ``structure_layers`` (): how many of the S codes change structure.
        providers: of ONNX Runtime; None: a GPU where there is one.
    """

    def __init__(
        self, generator: Path | str, encoder: Path | str, styles: Path | str, *, providers: Sequence[str] | None = None
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        chosen = list(providers or _usable_providers())
        self._generator = onnxruntime.InferenceSession(str(generator), options, providers=chosen)
        self._encoder = onnxruntime.InferenceSession(str(encoder), options, providers=chosen)
        with np.load(styles, allow_pickle=False) as found:
            self.styles: tuple[str, ...] = tuple(map(str, found["names"]))
            self.thumbnails: Array = found["thumbnails"]
            self._extrinsic: Array = found["extrinsic"].astype(np.float32)
            self.structure_layers = int(found["structure_layers"])
        self.size_px = int(self.thumbnails.shape[1])
        self._face_px = int(self._encoder.get_inputs()[0].shape[-1])

    def encode(self, faces: Array) -> Array:
        """The codes of faces, uint8 (N, H, W, 3): float32 (N, S, D)."""
        seen = resized(np.asarray(faces), self._face_px).astype(np.float32).transpose(0, 3, 1, 2) / 255
        parts = [seen[start : start + AT_ONCE] for start in range(0, len(seen), AT_ONCE)]
        codes = [self._encoder.run(None, {"face": np.ascontiguousarray(part)})[0] for part in parts]
        return np.concatenate(codes)

    def make(
        self,
        codes: Array,
        style: str,
        *,
        structure: float = 0.75,
        colour: float = 1.0,
        output: str = "style",
        psi: float = 1.0,
    ) -> Array:
        """Pictures of faces in a style; see the top of this file.

        Args:
            codes: of `encode`, (N, S, D).
            style: a name, or '' for the first.
            structure: 0 to 1.
            colour: 0 to 1.
            output: one of `OUTPUTS`.
            psi: 0 to 1.

        Returns:
            float32 (N, P, P, 3) in [0, 1].

        Raises:
            ValueError: no such style or output, or a number outside its range.
        """
        self._check(style, structure, colour, output, psi)
        place = self.styles.index(style) if style else 0
        extrinsic = np.broadcast_to(self._extrinsic[place], codes.shape).copy()
        weights = np.full(codes.shape[:2], colour, np.float32)
        weights[:, : self.structure_layers] = structure
        if output == "reconstruction":
            weights[:] = 0
        elif output == "structure-off":
            weights[:, self.structure_layers :] = 0
        elif output == "structure":
            extrinsic[:, self.structure_layers :] = codes[:, self.structure_layers :]
        made = []
        for start in range(0, len(codes), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            feeds = {"intrinsic": codes[part], "extrinsic": extrinsic[part], "weights": weights[part]}
            made.append(self._generator.run(None, {**feeds, "psi": np.array(psi, np.float32)})[0])
        pictures: Array = np.concatenate(made).transpose(0, 2, 3, 1)
        return np.clip(pictures, 0.0, 1.0)

    def stylise(self, faces: Array, style: str = "", **options: Any) -> Array:
        """`encode`, then `make`."""
        return self.make(self.encode(faces), style, **options)

    def _check(self, style: str, structure: float, colour: float, output: str, psi: float) -> None:
        if style and style not in self.styles:
            more = f" and {len(self.styles) - _TOLD} more" if len(self.styles) > _TOLD else ""
            raise ValueError(f"style must be one of {', '.join(self.styles[:_TOLD])}{more}; got {style!r}.")
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)}; got {output!r}.")
        for name, value in (("structure", structure), ("colour", colour), ("psi", psi)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in 0 to 1; got {value}.")


def resized(pictures: Array, size_px: int) -> Array:
    """Square pictures of another size: means of areas where they shrink, straight lines between pixels where they grow.

    Args:
        pictures: (N, H, W, 3) with H = W.
        size_px: the new height and width.

    Returns:
        uint8 or float as given, (N, size_px, size_px, 3).

    Raises:
        ValueError: the pictures are not square, or no pictures.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.shape[1] != pictures.shape[2] or not len(pictures):
        raise ValueError(
            f"faces must be square pictures, uint8 (N, H, H, 3), one or more; got {pictures.shape}. Cut the face out "
            "and align it first."
        )
    if pictures.shape[1] == size_px:
        return pictures
    matrix = _resampling(pictures.shape[1], size_px)
    rows = np.einsum("oh,nhwc->nowc", matrix, pictures.astype(np.float32))
    both = np.einsum("pw,nowc->nopc", matrix, rows)
    whole: Array = np.rint(both).clip(0, 255) if pictures.dtype == np.uint8 else both
    return whole.astype(pictures.dtype)


def _resampling(before: int, after: int) -> Array:
    """Weights of the old pixels in the new ones, (after, before)."""
    scale = before / after
    if scale <= 1:
        centres = np.clip((np.arange(after) + 0.5) * scale - 0.5, 0, before - 1)
        weights = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(before)[None, :]))
    else:
        low, high = np.arange(after)[:, None] * scale, (np.arange(after)[:, None] + 1) * scale
        pixel = np.arange(before)[None, :]
        weights = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    shares: Array = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def _usable_providers() -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


class DualStyleModel(PythonModel):
    """The model as MLflow loads it; see the top of this file for what goes in and comes out."""

    def load_context(self, context: Any) -> None:
        """Open the graphs and the styles that lie beside this file among the model's artifacts."""
        files = context.artifacts
        self._faces = FaceSession(files["dualstyle"], files["encoder"], files["styles"])

    def predict(self, context: Any, model_input: ModelInput, params: Mapping[str, Any] | None = None) -> Array:
        """Make cartoons of faces.

        Args:
            context: MLflow's; unused here.
            model_input: ``photo``, uint8 RGB (N, H, H, 3).
            params: see the top of this file.

        Returns:
            float32 (N, P, P, 3) in [0, 1].

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        options = {**DEFAULTS, **(params or {})}
        if not isinstance(model_input, Mapping) or "photo" not in model_input:
            got = sorted(map(str, model_input)) if isinstance(model_input, Mapping) else type(model_input).__name__
            raise ValueError(f"the input must be a dict with a numpy array named photo; got {got}.")
        numbers = {key: float(options[key]) for key in ("structure", "colour", "psi")}
        codes = self._faces.encode(model_input["photo"])
        return self._faces.make(codes, str(options["style"]), output=str(options["output"]), **numbers)


set_model(DualStyleModel())
