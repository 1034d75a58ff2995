"""What a registered system carries that stylises a face and moves it: this file, and those of its two models.

It runs wherever mlflow (or mlflow-skinny with pandas), onnxruntime, numpy and pillow are installed:

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    frames = model.predict({"photo": face, "driving": video}, params={"style": "micah-3"})

``photo`` is uint8 RGB (1, H, H, 3): a square picture of one face, aligned as FFHQ's are. ``driving`` is uint8 RGB (N,
h, w, 3): a video of a face, cut about as wide. ``frames`` is float32 (N, P, P, 3) in [0, 1]. The parameters are those
of both models (``style``, ``structure``, ``colour``, ``output``, ``psi``; ``mode``, ``adapt_scale``,
``find_best_frame``, ``smoothing``).

Letters of the shapes: N frames, H, h and w heights and widths, P the motion model's.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():  # MLflow warns of its own type hints while it is imported
    warnings.simplefilter("ignore")
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

Array = NDArray[Any]
if TYPE_CHECKING:
    ModelInput = Mapping[str, Array]
else:
    ModelInput = np.ndarray  # MLflow knows no hint for a dict of tensors, and warns of every hint that it does not know

OF_STYLE = ("style", "structure", "colour", "output", "psi")
OF_MOTION = ("mode", "relative", "adapt_scale", "find_best_frame", "smoothing")


class Parts:
    """The two models of a system, from the files that a version of it carries."""

    def __init__(self, files: Mapping[str, str]) -> None:
        context = SimpleNamespace(artifacts=files)
        self._style: Any = _code(files["style_code"], "style").DualStyleModel()
        self._motion: Any = _code(files["motion_code"], "motion").MotionModel()
        self._style.load_context(context)
        self._motion.load_context(context)

    def frames(self, face: Array, driving: Array, options: Mapping[str, Any]) -> Array:
        """A face, uint8 (1, H, H, 3), in a style, moved by a video: float32 (N, P, P, 3) in [0, 1]."""
        of_style, of_motion = ({key: options[key] for key in keys if key in options} for keys in (OF_STYLE, OF_MOTION))
        made = self._style.predict(None, {"photo": face}, of_style)
        cartoon = np.rint(made * 255).astype(np.uint8)
        moved: Array = self._motion.predict(None, {"source": cartoon, "driving": driving}, of_motion)
        return moved


class SystemModel(PythonModel):
    """The system as MLflow loads it; see the top of this file for what goes in and comes out."""

    def load_context(self, context: Any) -> None:
        """Open both models among the version's artifacts."""
        self._parts = Parts(context.artifacts)

    def predict(self, context: Any, model_input: ModelInput, params: Mapping[str, Any] | None = None) -> Array:
        """Stylise a face and move it.

        Args:
            context: MLflow's; unused here.
            model_input: ``photo`` and ``driving``.
            params: see the top of this file.

        Returns:
            float32 (N, P, P, 3) in [0, 1].

        Raises:
            ValueError: the input is something else; the message says what and how to mend it.
        """
        wanted = ("photo", "driving")
        if not isinstance(model_input, Mapping) or not all(name in model_input for name in wanted):
            got = sorted(map(str, model_input)) if isinstance(model_input, Mapping) else type(model_input).__name__
            raise ValueError(f"the input must be a dict with numpy arrays named photo and driving; got {got}.")
        photo = np.asarray(model_input["photo"])
        if len(photo) != 1:
            raise ValueError(f"photo must be one picture, (1, H, H, 3); got {photo.shape}.")
        return self._parts.frames(photo, np.asarray(model_input["driving"]), params or {})


def _code(path: str, name: str) -> ModuleType:
    """A file of the version's own as a module under a name that is nobody else's."""
    spec = importlib.util.spec_from_file_location(f"_inkmotion_{name}_{abs(hash(Path(path).resolve()))}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} must be a Python file; got something else. Register the system again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


set_model(SystemModel())
