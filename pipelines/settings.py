"""What the sections of params.yaml say: frozen, validated, with meaning and unit under each field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from models.errors import check
from models.families import NetworkConfig
from training.config import TrainConfig
from training.destylise_config import DestyliseConfig, RefineConfig

MetricName = Literal["l1", "akd", "akd-l2", "mkr", "aed", "aed-l2", "eid"]
"""Keys of `training.metrics.catalog.METRICS`, which would bring torch along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How models are judged; the same for all experiments, so that tables compare like with like."""

    max_frames: int | None = None
    """Frames of each test clip that are reconstructed; null: all."""
    batch_size: int = 16
    num_strips: int = 4
    """Clips shown as strips of pictures in the report."""
    strip_frames: int = 6
    num_workers: int | None = None
    """Processes that share the clips, by Ray Data; 1: this one alone; null: as many as pay. The figures are equal."""
    num_threads: int = 1
    """Of torch in each of them, on the CPU. Other numbers may change the last bits of the figures."""
    metrics: tuple[MetricName, ...] | None = None
    """Which to measure beside L1; null: all that there are networks for."""
    detect_every: int | None = None
    """Detectors look at every so many-th frame of a clip; null: at all, at every 4th of frames below 128 px."""
    squares: int | None = None
    """Along each side of a photo and of a style picture, each judged by itself; null: 1, and 2 of fewer than 100 test
    photos."""
    face_backend: Literal["dlib", "face-alignment"] = "dlib"
    """Whose 68 points AKD compares."""
    face_identity: Literal["dlib", "onnx"] = "dlib"
    """Whose embeddings AED compares; ``onnx``: a network of yours, imported as face-identity."""
    body_backend: Literal["blazepose", "keypoint-rcnn"] = "blazepose"
    """Whose joints AKD and MKR compare."""

    def __post_init__(self) -> None:
        workers, every = self.num_workers, self.detect_every
        check(
            (workers is None or workers >= 1, "num_workers", workers, "be 1 or more, or null"),
            (self.num_threads >= 1, "num_threads", self.num_threads, "be 1 or more"),
            (self.squares is None or self.squares >= 1, "squares", self.squares, "be 1 or more, or null"),
            (every is None or every >= 1, "detect_every", every, "be 1 or more, or null"),
            (self.max_frames is None or self.max_frames >= 2, "max_frames", self.max_frames, "be 2 or more, or null"),
            (self.batch_size >= 1, "batch_size", self.batch_size, "be 1 or more"),
            (self.num_strips >= 0, "num_strips", self.num_strips, "be 0 or more"),
            (self.strip_frames >= 2, "strip_frames", self.strip_frames, "be 2 or more"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationConfig:
    """What the register stage does."""

    promote: bool = True
    """Let the champion alias follow when the new version is better on the same data."""
    onnx_opset: int = 20

    def __post_init__(self) -> None:
        check((20 <= self.onnx_opset <= 23, "onnx_opset", self.onnx_opset, "lie in 20 to 23"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Where runs, metrics and models are recorded."""

    uri: str | None = None
    """null: the environment's MLFLOW_TRACKING_URI, else sqlite beside the project."""
    timeout_s: float = 5.0
    """After which a silent server counts as away; what could not be sent waits in the outbox."""

    def __post_init__(self) -> None:
        check((self.timeout_s > 0, "timeout_s", self.timeout_s, "be above 0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where Ray runs and where a training keeps what it writes."""

    address: str | None = None
    """``auto``, ``HOST:PORT`` or ``ray://``; null: the environment's RAY_ADDRESS, else a local Ray for the stage."""
    num_cpus: int | None = None
    """Of a local Ray; null: all."""
    storage_path: str | None = None
    """Folder or URL (``s3://...``) that every node reaches, for checkpoints; null: runs/ in the project."""

    def __post_init__(self) -> None:
        check((self.num_cpus is None or self.num_cpus >= 1, "num_cpus", self.num_cpus, "be 1 or more, or null"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimationConfig:
    """One animation of the report: a picture moved by a video."""

    experiment: str
    """Whose registered model is used."""
    source: str
    """A picture, or a video whose first frame is taken."""
    driving: str
    """A video."""
    mode: Literal["relative", "absolute", "avd"] = "relative"
    """``relative``: the driving video's movement since its reference frame; ``absolute``: its keypoints as they are;
    ``avd``: the source's shape in the driving pose, of models with an AVD network."""
    adapt_scale: bool = False
    """Relative motion scaled by the ratio of the keypoints' convex hulls; regions always are."""
    find_best_frame: bool = True
    """Take as reference the driving frame whose pose is nearest the source's; false: the first."""
    smoothing: float = 0.0
    """Standard deviation, in frames, of a Gaussian over the driving keypoints in time; 0: none."""
    crop: bool = True
    """Cut the face out of picture and video before animating."""
    max_frames: int | None = 96

    def __post_init__(self) -> None:
        check(
            (self.max_frames is None or self.max_frames >= 1, "max_frames", self.max_frames, "be 1 or more, or null"),
            (0 <= self.smoothing <= 100, "smoothing", self.smoothing, "lie in 0 to 100 frames"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StylisationConfig:
    """One drawing of the report: a photo, a folder of photos, or a video."""

    experiment: str
    """Whose registered model is used."""
    source: str
    """A picture, a folder of pictures, or a video."""
    strength: float = 1.0
    """How much of the drawing is shown: 0 the photo, 1 the drawing, between them a blend."""
    temporal: bool = False
    """Keep a video steady: statistics and colours follow the movement instead of each frame alone."""
    max_frames: int | None = 96
    """Of a video; null: all."""

    def __post_init__(self) -> None:
        check(
            (self.max_frames is None or self.max_frames >= 1, "max_frames", self.max_frames, "be 1 or more, or null"),
            (0 <= self.strength <= 1, "strength", self.strength, "lie in 0 to 1"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DualStyleSystem:
    """What turns faces into cartoons of one style set; its trainings are experiments (`pipelines.dualstyle_steps`)."""

    dataset: str
    """A name in ``datasets``: faces, the generator's own domain."""
    style_dataset: str
    """A name in ``datasets``: the style pictures."""
    destylise: DestyliseConfig
    refine: RefineConfig = field(default_factory=RefineConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class StylisedDataset:
    """Motion clips, and copies of some of them as a system's cartoons: what a model of both is trained on."""

    dataset: str
    """A name in ``datasets``: clips of faces."""
    system: str
    """A name in ``dualstyles``, which is trained."""
    share: float = 0.5
    """Of the clips of each split that get a stylised copy; above 0 at least one of a split does."""
    styles: int | None = None
    """Of the system's styles, evenly over their names; null: all. A clip has one."""
    structure: float = 0.75
    """How much of the style's structure is taken, 0 to 1."""
    colour: float = 1.0
    """How much of its colours, 0 to 1."""
    smoothing: float = 0.5
    """How much the faces' codes of neighbouring frames are mixed: a frame counts ``smoothing`` times as much as the one
    nearer by; 0: not at all, 1: all frames show the clip's mean face."""
    seed: int = 0
    """Of the draw of clips and of their styles."""

    def __post_init__(self) -> None:
        between = ("share", "structure", "colour", "smoothing")
        check(
            *((0 <= getattr(self, key) <= 1, key, getattr(self, key), "lie in 0 to 1") for key in between),
            (self.styles is None or self.styles >= 1, "styles", self.styles, "be 1 or more, or null"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemConfig:
    """Two registered models as one: a face is stylised, then moved."""

    stylist: str
    """A name in ``dualstyles``."""
    mover: str
    """A name in ``experiments``, of the motion family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """One training, its network and its data."""

    preset: str
    """A name in the catalogue of models."""
    dataset: str
    """A name in ``datasets``; in the style family it holds the photos."""
    model: NetworkConfig
    train: TrainConfig
    style_dataset: str | None = None
    """A name in ``datasets``: the style pictures. Of the families that draw."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """DualStyleGAN's: what it takes in -> the experiment that trained it; ``codes`` -> the system whose style pictures
    were destylised."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """All that it is trained on."""
        return (self.dataset,) if self.style_dataset is None else (self.dataset, self.style_dataset)


def params_sha256(experiment: ExperimentConfig) -> str:
    """Of all settings of a training in steps: the tag ``params_sha256`` of its run, by which a table knows it again."""
    facts = json.dumps([asdict(experiment.model), asdict(experiment.train)], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()
