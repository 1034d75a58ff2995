"""The only reader of params.yaml: a dict in, frozen and validated configuration out, all errors at once.

Precedence, weakest first: the published default, the model's or data set's preset, the published settings of the
experiment's data set, what a paper's variant changes of its base, ``profiles.<profile>`` (its ``data``, then its
``datasets.<name>``), the named entry (``datasets.<name>``, ``experiments.<name>``, ``animations.<name>``). A null
inherits. Of papers/<paper>/params.yaml: see pipelines/params_papers.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from models.catalog import MODELS, PUBLISHED, ModelSpec, PublishedSettings, own_options, presets_of, settings_kind
from models.errors import ParamsError, Problem
from models.families import NETWORKS, Family
from pipelines import params_dualstyle, params_papers
from pipelines.dualstyle_steps import names_of
from pipelines.layers import Layer, build, last, mapping_of, one_length, unknown_keys, without
from pipelines.params_dualstyle import Cartoon
from pipelines.params_papers import Paper, PaperFile
from pipelines.settings import (
    AnimationConfig,
    ClusterConfig,
    DualStyleSystem,
    EvaluationConfig,
    ExperimentConfig,
    MetricName,
    RegistrationConfig,
    StylisationConfig,
    StylisedDataset,
    SystemConfig,
    TrackingConfig,
)
from preprocessing.config import DatasetConfig, FetchConfig
from training.families import TRAININGS

__all__ = [
    "AnimationConfig",
    "ClusterConfig",
    "DualStyleSystem",
    "EvaluationConfig",
    "ExperimentConfig",
    "MetricName",
    "Params",
    "RegistrationConfig",
    "StylisationConfig",
    "StylisedDataset",
    "SystemConfig",
    "TrackingConfig",
    "load",
    "parse",
]

T = TypeVar("T")
PARAMS_FILE = Path("params.yaml")
SECTIONS = (
    "profile",
    "profiles",
    "datasets",
    "experiments",
    "style_experiments",
    "dualstyles",
    "systems",
    "stylised_datasets",
    "animations",
    "stylisations",
    "evaluation",
    "registration",
    "fetching",
    "tracking",
    "cluster",
)
PROFILE_SECTIONS = ("datasets", "data", "published", "model", "train", "style", "face")
OF_AN_EXPERIMENT = ("preset", "dataset", "style_dataset", "published", "model")
"""Its keys that are none of its training's."""


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
    stylisations: dict[str, StylisationConfig] = field(default_factory=dict)
    dualstyles: dict[str, DualStyleSystem] = field(default_factory=dict)
    systems: dict[str, SystemConfig] = field(default_factory=dict)
    stylised_datasets: dict[str, StylisedDataset] = field(default_factory=dict)
    papers: dict[str, Paper] = field(default_factory=dict)
    """Those in papers/. Their data sets and experiments are found by name, and are in no list of the project's own."""

    def dataset(self, name: str) -> DatasetConfig:
        """The data set called ``name``, of the project or of a paper; of stylised clips theirs."""
        if name in self.stylised_datasets:
            name = self.stylised_datasets[name].dataset
        others = {key: found for paper in self.papers.values() for key, found in paper.datasets.items()}
        return others[name] if name in others and name not in self.datasets else _named(self.datasets, "datasets", name)

    def with_dataset(self, name: str, changes: Mapping[str, Any]) -> Params:
        """The same with some keys of one data set changed; None leaves a key as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        changed = dataclasses.replace(self.dataset(name), **given)
        return dataclasses.replace(self, datasets={**self.datasets, name: changed})

    def experiment(self, name: str) -> ExperimentConfig:
        """The experiment called ``name``, of the project or of a paper."""
        others = {key: found for paper in self.papers.values() for key, found in paper.experiments.items()}
        return others[name] if name in others else _named(self.experiments, "experiments", name)

    def paper(self, name: str) -> Paper:
        """The paper whose folder is ``name``."""
        return _named(self.papers, "papers", name)

    def report_folders(self) -> dict[str, str]:
        """Name of a paper's data set or experiment -> where its reports are, below reports/."""
        return dict(entry for paper in self.papers.values() for entry in paper.folders())

    def dualstyle(self, name: str) -> DualStyleSystem:
        """The system called ``name`` that turns faces into cartoons, of the project or of a paper."""
        return _named(self.all_dualstyles, "dualstyles", name)

    @property
    def all_dualstyles(self) -> dict[str, DualStyleSystem]:
        """The project's, and those of its papers."""
        others = {key: found for paper in self.papers.values() for key, found in paper.dualstyles.items()}
        return {**self.dualstyles, **others}

    def system(self, name: str) -> SystemConfig:
        """The system called ``name``, of a model that stylises and one that moves."""
        return _named(self.systems, "systems", name)

    def stylised(self, name: str) -> StylisedDataset:
        """The data set called ``name`` of clips and of their cartoons."""
        return _named(self.stylised_datasets, "stylised_datasets", name)

    def stylisation(self, name: str) -> StylisationConfig:
        """The stylisation called ``name``."""
        return _named(self.stylisations, "stylisations", name)

    def animation(self, name: str) -> AnimationConfig:
        """The animation called ``name``."""
        return _named(self.animations, "animations", name)


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file, and the papers' in the folder beside it.

    Raises:
        ParamsError: with every broken rule, each with its key's path and value.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError([Problem(str(path), "no file", "exist; run the command in the project's folder")]) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, LookupError, AttributeError, OSError) as error:
        raise ParamsError([Problem(str(path), " ".join(str(error).split()), "be readable YAML")]) from None
    return parse(raw, params_papers.read_papers(path.parent))


def parse(raw: Any, papers: Sequence[PaperFile] = ()) -> Params:
    """Resolve the content of a params file and of the papers' files; raises `ParamsError` with all problems."""
    if not isinstance(raw, Mapping):
        raise ParamsError([Problem("params.yaml", type(raw).__name__, "be a mapping")])
    reader = _Reader(raw, papers)
    params = reader.read()
    if reader.problems or params is None:
        once = [problem for place, problem in enumerate(reader.problems) if problem not in reader.problems[:place]]
        raise ParamsError(once)
    return params


class _Reader:
    """Builds the sections of one raw params dict and collects what is wrong with them."""

    def __init__(self, raw: Mapping[str, Any], papers: Sequence[PaperFile] = ()) -> None:
        self.raw = raw
        self.papers = papers
        self.problems: list[Problem] = []
        self.layers: dict[str, list[Layer]] = {}
        """Of every data set that was read."""

    def read(self) -> Params | None:
        self._known_keys("", self.raw, SECTIONS)
        profiles = self._mapping("profiles")
        name = self.raw.get("profile")
        if not isinstance(name, str) or name not in profiles:
            self.problems.append(Problem("profile", name, f"be one of {', '.join(map(str, profiles))}"))
            return None
        profile = self._mapping(f"profiles.{name}", profiles[name])
        self._known_keys(f"profiles.{name}", profile, PROFILE_SECTIONS)
        chosen = self._mapping(f"profiles.{name}.datasets", profile.get("datasets"))
        self._known_keys(f"profiles.{name}.datasets", chosen, tuple(self._mapping("datasets")))
        datasets = self._each("datasets", lambda key: self._dataset(key, f"profiles.{name}", profile))
        stylised = self._each("stylised_datasets", self._stylised)
        experiments = self._experiments(f"profiles.{name}", profile)
        cartoons = self._cartoons(f"profiles.{name}", profile, known=experiments)
        for cartoon in cartoons.values():
            experiments |= cartoon.experiments
        papers = {file.name: self._paper(file, f"profiles.{name}", profile) for file in self.papers}
        self.problems += params_papers.check_papers(
            self.papers, [*datasets], [*experiments]
        ) + params_papers.check_rows(papers)
        animations = self._each("animations", lambda name: self._shown(AnimationConfig, "animations", name))
        stylisations = self._each("stylisations", lambda name: self._shown(StylisationConfig, "stylisations", name))
        systems = self._each("systems", self._composed)
        tail: dict[str, Any] = {
            "evaluation": self._section(EvaluationConfig, "evaluation"),
            "registration": self._section(RegistrationConfig, "registration"),
            "fetching": self._section(FetchConfig, "fetching"),
            "tracking": self._section(TrackingConfig, "tracking"),
            "cluster": self._section(ClusterConfig, "cluster"),
        }
        if self.problems:
            return None
        main: dict[str, Any] = {"datasets": datasets, "experiments": experiments}
        main |= {"animations": animations, "stylisations": stylisations}
        main |= {"dualstyles": {key: cartoon.system for key, cartoon in cartoons.items()}, "systems": systems}
        return Params(profile=name, papers=papers, stylised_datasets=stylised, **main, **tail)

    def _dataset(self, name: str, where: str, profile: Mapping[str, Any]) -> DatasetConfig | None:
        chosen = self._mapping(f"{where}.datasets", profile.get("datasets"))
        layers = [(f"{where}.datasets.{name}", self._mapping(f"{where}.datasets.{name}", chosen.get(name)))]
        return self._laid(name, [*layers, (f"datasets.{name}", self._mapping(f"datasets.{name}"))], where, profile)

    def _laid(self, name: str, layers: list[Layer], where: str, profile: Mapping[str, Any]) -> DatasetConfig | None:
        """A data set out of what describes it, weakest first, over its preset and the profile's ``data``."""
        path, own = layers[-1]
        own = {key: value for key, value in own.items() if key != "watch"}  # which only DVC reads
        layers = [(f"{where}.data", self._mapping(f"{where}.data", profile.get("data"))), *layers[:-1], (path, own)]
        preset = next((layer["preset"] for _, layer in reversed(layers) if layer.get("preset") is not None), None)
        self.layers[name] = [*self._preset_layer(f"{path}.preset", preset), *layers]
        return self._build(DatasetConfig, self.layers[name], path)

    def _preset_layer(self, key: str, preset: Any) -> list[Layer]:
        if preset is None:
            return []
        from preprocessing.datasets.catalog import DATASETS

        if not isinstance(preset, str) or preset not in DATASETS:
            self.problems.append(Problem(key, preset, f"be one of {', '.join(DATASETS)}"))
            return []
        spec = DATASETS[preset]
        return [(f"data set {preset}", {**spec.settings, "kind": spec.kind})]

    def _experiments(self, where: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        """Those of all families: two sections, because the stages of a family are alike, and names of one kind."""
        made: dict[str, Any] = {}
        for section in ("experiments", "style_experiments"):
            each = self._each(section, lambda name, path=section: self._experiment(f"{path}.{name}", where, profile))
            self.problems += [
                Problem(f"{section}.{name}", name, "have a name of its own; experiments has it")
                for name in each
                if name in made
            ]
            made |= each
        return made

    def _cartoons(self, where: str, profile: Mapping[str, Any], *, known: Mapping[str, Any]) -> dict[str, Cartoon]:
        made = self._each(
            "dualstyles",
            lambda name: self._cartoon(
                name, (f"dualstyles.{name}", self._mapping(f"dualstyles.{name}")), where, profile
            ),
        )
        rule = "give its trainings names of their own"
        for name in made:
            taken = [training for training in names_of(name) if training in known]
            self.problems += [Problem(f"dualstyles.{name}", training, rule) for training in taken]
        return made

    def _cartoon(self, name: str, described: Layer, where: str, profile: Mapping[str, Any]) -> Cartoon:
        """The trainings of one DualStyleGAN, and what it is."""
        face = (f"{where}.face", self._mapping(f"{where}.face", profile.get("face")))
        return params_dualstyle.read(name, described, face, self.layers, self.problems)

    def _stylised(self, name: str) -> StylisedDataset | None:
        """A data set that is made of another one's clips, and as large as these."""
        path = f"stylised_datasets.{name}"
        own = self._mapping(path)
        if name in self.layers:
            self.problems.append(Problem(path, name, "have a name of its own; datasets has it"))
        systems = self._mapping("dualstyles")
        if own.get("system") not in systems:
            self.problems.append(Problem(f"{path}.system", own.get("system"), f"be one of {', '.join(systems)}"))
        if self._is_dataset(f"{path}.dataset", own.get("dataset")):
            self.layers[name] = self.layers[own["dataset"]]
        return self._build(StylisedDataset, [(path, own)], path)

    def _composed(self, name: str) -> SystemConfig | None:
        """Two models as one."""
        path = f"systems.{name}"
        own = self._mapping(path)
        for key, section in (("stylist", "dualstyles"), ("mover", "experiments")):
            known = self._mapping(section)
            if own.get(key) not in known:
                self.problems.append(Problem(f"{path}.{key}", own.get(key), f"be one of {', '.join(known)}"))
        return self._build(SystemConfig, [(path, own)], path)

    def _experiment(self, path: str, where: str, profile: Mapping[str, Any]) -> ExperimentConfig | None:
        published = self._mapping(f"{where}.published", profile.get("published"))
        own = self._mapping(path)
        made = self._trained([(path, own)], where, profile, published)
        family: Family = "style" if path.startswith("style_") else "motion"
        if made is not None and MODELS[made.preset].family != family:
            known = ", ".join(presets_of(family))
            self.problems.append(Problem(f"{path}.preset", made.preset, f"be one of {known} in this section"))
            return None
        return made

    def _trained(
        self, layers: list[Layer], where: str, profile: Mapping[str, Any], published: Mapping[str, Any]
    ) -> ExperimentConfig | None:
        """An experiment out of what describes it, weakest first, over its preset, published settings and profile."""
        path = next(path for path, layer in reversed(layers) if "dataset" in layer or len(layers) == 1)
        preset, dataset, chosen = (last(layers, key) for key in ("preset", "dataset", "published"))
        if not isinstance(preset, str) or preset not in MODELS:
            self.problems.append(Problem(f"{path}.preset", preset, f"be one of {', '.join(MODELS)}"))
            preset = ""
        known = self._is_dataset(f"{path}.dataset", dataset)
        if preset not in MODELS or not known:
            return None
        spec, own = MODELS[preset], own_options(preset)
        style = self._style_dataset(f"{path}.style_dataset", last(layers, "style_dataset"), spec)
        at, described = (f"{where}.style", self._mapping(f"{where}.style", profile.get("style")))
        if spec.family == "motion":
            at, described = where, profile
        settings = self._published(f"{path}.published", chosen or published.get(dataset), spec)
        network = self._build(
            NETWORKS[spec.family],
            [
                (f"models.{preset}", spec.model),
                (f"published settings for {preset}", settings.model),
                (f"models.{preset}", own.model),
                (f"datasets.{dataset}", {"size_px": last(self.layers[dataset], "size_px")}),
                (f"{at}.model", self._mapping(f"{at}.model", described.get("model"))),
                *((f"{key}.model", self._mapping(f"{key}.model", layer.get("model"))) for key, layer in layers),
            ],
            f"{path}.model",
        )
        trained: list[Layer] = [
            (f"models.{preset}", spec.train),
            (f"published settings for {preset}", settings.train),
            (f"models.{preset}", own.train),
            (f"{at}.train", self._mapping(f"{at}.train", described.get("train"))),
            *((key, without(layer, *OF_AN_EXPERIMENT)) for key, layer in layers),
        ]
        train = self._build(TRAININGS[spec.family], one_length(trained), path)
        if network is None or train is None:
            return None
        return ExperimentConfig(preset=preset, dataset=dataset, style_dataset=style, model=network, train=train)

    def _is_dataset(self, key: str, name: Any) -> bool:
        known = isinstance(name, str) and name in self.layers
        if not known:
            self.problems.append(Problem(key, name, f"be one of {', '.join(self.layers)}"))
        return known

    def _style_dataset(self, key: str, name: Any, spec: ModelSpec) -> str | None:
        if spec.family == "style":
            return str(name) if self._is_dataset(key, name) else None
        if name is not None:
            self.problems.append(Problem(key, name, "be null: this preset learns from one data set"))
        return None

    def _paper(self, file: PaperFile, where: str, profile: Mapping[str, Any]) -> Paper:
        main = self._mapping(f"{where}.published", profile.get("published"))
        return params_papers.resolve(
            file,
            where.partition(".")[2],
            self.problems,
            dataset=lambda name, layers: self._laid(name, layers, where, profile),
            experiment=lambda layers, published: self._trained(layers, where, profile, {**main, **published}),
            cartoon=lambda name, described: self._cartoon(name, described, where, profile),
        )

    def _published(self, key: str, name: Any, spec: ModelSpec) -> PublishedSettings:
        if name in (None, "none"):
            return PublishedSettings()
        kind = settings_kind(spec)
        known = [known for known, kinds in PUBLISHED.items() if kind in kinds]
        if not isinstance(name, str) or name not in known:
            self.problems.append(Problem(key, name, f"be none or one of {', '.join(known)} for this preset"))
            return PublishedSettings()
        return PUBLISHED[name][kind]

    def _shown(self, cls: type[T], section: str, name: str) -> T | None:
        """What the report shows of an experiment's model."""
        path = f"{section}.{name}"
        own = self._mapping(path)
        asked = own.get("experiment")
        experiments = self._mapping("experiments" if section == "animations" else "style_experiments")
        if not isinstance(asked, str) or asked not in experiments:
            known = ", ".join(experiments)
            self.problems.append(Problem(f"{path}.experiment", asked, f"be one of {known}"))
        return self._build(cls, [(path, own)], path)

    def _section(self, cls: type[T], path: str) -> T | None:
        return self._build(cls, [(path, self._mapping(path))], path)

    def _each(self, path: str, make: Any) -> dict[str, Any]:
        made = {str(name): make(str(name)) for name in self._mapping(path)}
        for name in made:
            if not params_papers.is_plain(name):
                self.problems.append(Problem(f"{path}.{name}", name, "be letters, digits, '-' or '_' only"))
        return made

    def _build(self, cls: type[T], layers: list[Layer], where: str) -> T | None:
        return build(cls, layers, where, self.problems)

    def _mapping(self, path: str, value: Any = ...) -> Mapping[str, Any]:
        if value is ...:
            value = self.raw
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
        return mapping_of(path, value, self.problems)

    def _known_keys(self, path: str, section: Mapping[str, Any], known: tuple[str, ...]) -> None:
        self.problems += unknown_keys(path, section, known)


def _named(entries: dict[str, T], section: str, name: str) -> T:
    if name not in entries:
        raise ParamsError([Problem(section, name, f"hold the name asked for; known: {', '.join(entries)}")])
    return entries[name]
