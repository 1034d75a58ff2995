"""The only reader of params.yaml: a dict in, frozen and validated configuration out, all errors at once.

Precedence, weakest first: the published default, the model's or data set's preset, ``profiles.<profile>`` (its
``data``, then its ``datasets.<name>``), the named entry (``datasets.<name>``, ``experiments.<name>``,
``animations.<name>``). A null inherits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from models.catalog import MODELS
from models.errors import ParamsError, Problem, check
from models.motion.config import MotionConfig
from pipelines.layers import Layer, build
from preprocessing.config import DatasetConfig, FetchConfig
from training.config import TrainConfig

T = TypeVar("T")

PARAMS_FILE = Path("params.yaml")
SECTIONS = (
    "profile",
    "profiles",
    "datasets",
    "experiments",
    "animations",
    "evaluation",
    "registration",
    "fetching",
    "tracking",
    "cluster",
)
PROFILE_SECTIONS = ("datasets", "data", "model", "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How models are judged; the same for all experiments, so that tables compare like with like."""

    max_frames: int | None = None
    """Frames of each test clip that are reconstructed; null: all."""
    batch_size: int = 16
    num_strips: int = 4
    """Clips shown as strips of pictures in the report."""
    strip_frames: int = 6

    def __post_init__(self) -> None:
        check(
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
        check((16 <= self.onnx_opset <= 23, "onnx_opset", self.onnx_opset, "lie in 16 to 23"))


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
    relative: bool = True
    """Transfer the driving video's movement since its reference frame; false: its absolute keypoints."""
    adapt_scale: bool = False
    """Relative motion scaled by the ratio of the keypoints' convex hulls."""
    find_best_frame: bool = True
    """Take as reference the driving frame whose pose is nearest the source's; false: the first."""
    crop: bool = True
    """Cut the face out of picture and video before animating."""
    max_frames: int | None = 96

    def __post_init__(self) -> None:
        check((self.max_frames is None or self.max_frames >= 1, "max_frames", self.max_frames, "be 1 or more, or null"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """One training, its network and its data."""

    preset: str
    """A name in the catalogue of models."""
    dataset: str
    """A name in ``datasets``."""
    model: MotionConfig
    train: TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Everything in params.yaml for the chosen profile, resolved."""

    profile: str
    datasets: dict[str, DatasetConfig]
    experiments: dict[str, ExperimentConfig]
    animations: dict[str, AnimationConfig]
    evaluation: EvaluationConfig
    registration: RegistrationConfig
    fetching: FetchConfig
    tracking: TrackingConfig
    cluster: ClusterConfig

    def dataset(self, name: str) -> DatasetConfig:
        """The data set called ``name``."""
        return _named(self.datasets, "datasets", name)

    def with_dataset(self, name: str, changes: Mapping[str, Any]) -> Params:
        """The same with some keys of one data set changed; None leaves a key as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        changed = dataclasses.replace(self.dataset(name), **given)
        return dataclasses.replace(self, datasets={**self.datasets, name: changed})

    def experiment(self, name: str) -> ExperimentConfig:
        """The experiment called ``name``."""
        return _named(self.experiments, "experiments", name)

    def animation(self, name: str) -> AnimationConfig:
        """The animation called ``name``."""
        return _named(self.animations, "animations", name)


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: with every broken rule, each with its key's path and value.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError([Problem(str(path), "no file", "exist; run the command in the project's folder")]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError([Problem(str(path), " ".join(str(error).split()), "be readable YAML")]) from None
    return parse(raw)


def parse(raw: Any) -> Params:
    """Resolve the content of a params file; raises `ParamsError` with all problems."""
    if not isinstance(raw, Mapping):
        raise ParamsError([Problem("params.yaml", type(raw).__name__, "be a mapping")])
    reader = _Reader(raw)
    params = reader.read()
    if reader.problems or params is None:
        once = [problem for place, problem in enumerate(reader.problems) if problem not in reader.problems[:place]]
        raise ParamsError(once)
    return params


class _Reader:
    """Builds the sections of one raw params dict and collects what is wrong with them."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.problems: list[Problem] = []

    def read(self) -> Params | None:
        self._known_keys("", self.raw, SECTIONS)
        profiles = self._mapping("profiles")
        name = self.raw.get("profile")
        if not isinstance(name, str) or name not in profiles:
            self.problems.append(Problem("profile", name, f"be one of {', '.join(map(str, profiles))}"))
            return None
        profile = profiles[name] if isinstance(profiles[name], Mapping) else {}
        self._known_keys(f"profiles.{name}", profile, PROFILE_SECTIONS)
        chosen = self._mapping(f"profiles.{name}.datasets", profile.get("datasets"))
        self._known_keys(f"profiles.{name}.datasets", chosen, tuple(self._mapping("datasets")))
        datasets = self._each("datasets", lambda key: self._dataset(key, f"profiles.{name}", profile))
        experiments = self._each("experiments", lambda key: self._experiment(key, f"profiles.{name}", profile))
        animations = self._each("animations", self._animation)
        tail: dict[str, Any] = {
            "evaluation": self._section(EvaluationConfig, "evaluation"),
            "registration": self._section(RegistrationConfig, "registration"),
            "fetching": self._section(FetchConfig, "fetching"),
            "tracking": self._section(TrackingConfig, "tracking"),
            "cluster": self._section(ClusterConfig, "cluster"),
        }
        if self.problems:
            return None
        return Params(profile=name, datasets=datasets, experiments=experiments, animations=animations, **tail)

    def _dataset(self, name: str, where: str, profile: Mapping[str, Any]) -> DatasetConfig | None:
        return self._build(DatasetConfig, self._dataset_layers(name, where, profile), f"datasets.{name}")

    def _dataset_layers(self, name: str, where: str, profile: Mapping[str, Any]) -> list[Layer]:
        own = dict(self._mapping(f"datasets.{name}"))
        own.pop("watch", None)  # only DVC reads it: what makes the stages run again when it changes
        chosen = self._mapping(f"{where}.datasets", profile.get("datasets"))
        layers: list[Layer] = [
            (f"{where}.data", self._mapping(f"{where}.data", profile.get("data"))),
            (f"{where}.datasets.{name}", self._mapping(f"{where}.datasets.{name}", chosen.get(name))),
            (f"datasets.{name}", own),
        ]
        preset = next((layer["preset"] for _, layer in reversed(layers) if layer.get("preset") is not None), None)
        return [*self._preset_layer(f"datasets.{name}.preset", preset), *layers]

    def _preset_layer(self, key: str, preset: Any) -> list[Layer]:
        if preset is None:
            return []
        from preprocessing.datasets.catalog import DATASETS

        if preset not in DATASETS:
            self.problems.append(Problem(key, preset, f"be one of {', '.join(DATASETS)}"))
            return []
        spec = DATASETS[preset]
        return [(f"data set {preset}", {**spec.settings, "kind": spec.kind})]

    def _experiment(self, name: str, where: str, profile: Mapping[str, Any]) -> ExperimentConfig | None:
        path = f"experiments.{name}"
        own = dict(self._mapping(path))
        preset, dataset, model = own.pop("preset", None), own.pop("dataset", None), own.pop("model", None)
        if preset not in MODELS:
            self.problems.append(Problem(f"{path}.preset", preset, f"be one of {', '.join(MODELS)}"))
        if dataset not in self._mapping("datasets"):
            known = ", ".join(map(str, self._mapping("datasets")))
            self.problems.append(Problem(f"{path}.dataset", dataset, f"be one of {known}"))
        if preset not in MODELS or not isinstance(dataset, str):
            return None
        spec = MODELS[preset]
        sizes = [layer.get("size_px") for _, layer in self._dataset_layers(dataset, where, profile)]
        sized = {"size_px": next((size for size in reversed(sizes) if size is not None), None)}
        network = self._build(
            MotionConfig,
            [
                (f"models.{preset}", spec.model),
                (f"datasets.{dataset}", sized),
                (f"{where}.model", self._mapping(f"{where}.model", profile.get("model"))),
                (f"{path}.model", self._mapping(f"{path}.model", model)),
            ],
            f"{path}.model",
        )
        train = self._build(
            TrainConfig,
            [
                (f"models.{preset}", spec.train),
                (f"{where}.train", self._mapping(f"{where}.train", profile.get("train"))),
                (path, own),
            ],
            path,
        )
        if network is None or train is None:
            return None
        return ExperimentConfig(preset=preset, dataset=dataset, model=network, train=train)

    def _animation(self, name: str) -> AnimationConfig | None:
        path = f"animations.{name}"
        own = self._mapping(path)
        if own.get("experiment") not in self._mapping("experiments"):
            known = ", ".join(map(str, self._mapping("experiments")))
            self.problems.append(Problem(f"{path}.experiment", own.get("experiment"), f"be one of {known}"))
        return self._build(AnimationConfig, [(path, own)], path)

    def _section(self, cls: type[T], path: str) -> T | None:
        return self._build(cls, [(path, self._mapping(path))], path)

    def _each(self, path: str, make: Any) -> dict[str, Any]:
        made = {str(name): make(str(name)) for name in self._mapping(path)}
        for name in made:
            if not _is_plain_name(name):
                self.problems.append(Problem(f"{path}.{name}", name, "be letters, digits, '-' or '_' only"))
        return made

    def _build(self, cls: type[T], layers: list[Layer], where: str) -> T | None:
        return build(cls, layers, where, self.problems)

    def _mapping(self, path: str, value: Any = ...) -> Mapping[str, Any]:
        if value is ...:
            value = self.raw
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            problem = Problem(path, value, "be a mapping")
            if problem not in self.problems:
                self.problems.append(problem)
            return {}
        return value

    def _known_keys(self, path: str, section: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in section:
            if key not in known:
                where = f"{path}.{key}" if path else str(key)
                self.problems.append(Problem(where, section[key], f"not be there; known here: {', '.join(known)}"))


def _is_plain_name(name: str) -> bool:
    return bool(name) and all(letter.isalnum() or letter in "-_" for letter in name) and name[0] != "-"


def _named(entries: dict[str, T], section: str, name: str) -> T:
    if name not in entries:
        raise ParamsError([Problem(section, name, f"hold the name asked for; known: {', '.join(entries)}")])
    return entries[name]
