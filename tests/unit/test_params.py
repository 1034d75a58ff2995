"""params.yaml: read, merged, refused with every error at once."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import errors
from models.motion.config import MotionConfig
from models.style.config import StyleConfig
from models.style.face_config import FaceConfig
from pipelines import params
from pipelines.dualstyle_steps import STEPS
from preprocessing.config import DatasetConfig, FetchConfig
from preprocessing.datasets.catalog import dataset_spec
from training.config import LossConfig, MotionTrainConfig, TransformConfig
from training.face_config import FaceTrainConfig
from training.style_config import StyleLossConfig, StyleTrainConfig


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def test_the_projects_own_file_is_valid_in_both_profiles(raw: dict[str, Any]) -> None:
    sample = params.parse(raw)
    paper = params.parse({**raw, "profile": "paper"})
    assert sample.experiment("fomm-faces").model.size_px == 64
    assert paper.experiment("fomm-faces").model == MotionConfig()
    spec = dataset_spec("voxceleb1")
    assert paper.dataset("faces") == DatasetConfig(
        kind="faces", preset="voxceleb1", **{**spec.settings, "num_stills": 718}
    )
    assert sample.dataset("faces").unseen == ("man",)


def test_precedence_preset_profile_experiment(raw: dict[str, Any]) -> None:
    raw["profiles"]["sample"]["train"]["seed"] = None
    assert params.parse(raw).experiment("fomm-faces").train.seed == MotionTrainConfig().seed
    raw["profiles"]["sample"]["train"]["seed"] = 5
    raw["experiments"]["fomm-faces"]["seed"] = None
    assert params.parse(raw).experiment("fomm-faces").train.seed == 5
    raw["experiments"]["fomm-faces"]["seed"] = 7
    raw["experiments"]["fomm-faces"]["losses"]["pixel"] = 3
    train = params.parse(raw).experiment("fomm-faces").train
    assert (train.seed, train.losses.pixel) == (7, 3)
    assert train.losses.equivariance_value == LossConfig().equivariance_value


def test_the_stronger_of_steps_and_epochs_counts(raw: dict[str, Any]) -> None:
    raw["experiments"]["fomm-faces"]["published"] = "vox"
    profile = raw["profiles"]["sample"]["train"]
    train = params.parse(raw).experiment("fomm-faces").train
    assert (train.max_steps, train.max_epochs, train.milestone_epochs) == (profile["max_steps"], None, ())
    profile["max_steps"] = None
    train = params.parse(raw).experiment("fomm-faces").train
    assert (train.max_epochs, train.milestone_epochs) == (100, (60, 90))
    raw["experiments"]["fomm-faces"] |= {"max_steps": 500, "milestones": [300]}
    train = params.parse(raw).experiment("fomm-faces").train
    assert (train.max_steps, train.milestones, train.max_epochs, train.milestone_epochs) == (500, (300,), None, ())
    profile["max_steps"] = 120
    raw["experiments"]["fomm-faces"] |= {"max_steps": None, "milestones": None, "max_epochs": 2}
    train = params.parse(raw).experiment("fomm-faces").train
    assert (train.max_epochs, train.milestone_epochs) == (2, (60, 90))
    profile["avd"]["max_steps"] = None
    raw["experiments"]["articulated-faces"]["published"] = "vox"
    assert params.parse(raw).experiment("articulated-faces").train.avd.max_epochs == 30
    raw["experiments"]["articulated-faces"]["avd"] = {"max_steps": 7}
    avd = params.parse(raw).experiment("articulated-faces").train.avd
    assert (avd.max_steps, avd.max_epochs) == (7, None)


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (("experiments", "fomm-faces", "preset"), ["fomm"], "experiments.fomm-faces.preset"),
        (("experiments", "fomm-faces", "published"), ["vox"], "experiments.fomm-faces.published"),
        (("datasets", "faces", "preset"), ["voxceleb1"], "datasets.faces.preset"),
        (("animations", "rabbit", "experiment"), ["fomm-faces"], "animations.rabbit.experiment"),
        (("datasets", 2024), {"kind": "faces"}, "datasets.2024"),
        (("profiles", "sample"), 5, "profiles.sample"),
    ],
)
def test_values_of_a_senseless_kind_are_named(
    raw: dict[str, Any], where: tuple[Any, ...], value: Any, named: str
) -> None:
    section = raw
    for key in where[:-1]:
        section = section[key]
    section[where[-1]] = value
    with pytest.raises(errors.ParamsError) as caught:
        params.parse(raw)
    assert named in {problem.key for problem in caught.value.problems}


@pytest.mark.parametrize("content", [None, "[" * 5000])
def test_what_is_no_params_file_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(errors.ParamsError, match=r"params\.yaml must be readable YAML"):
        params.load(path)


def test_every_error_is_reported_at_once_with_path_value_and_rule(raw: dict[str, Any]) -> None:
    raw["profiles"]["sample"]["train"]["batch_size"] = "many"
    raw["profiles"]["sample"]["train"]["max_steps"] = 0
    raw["experiments"]["fomm-faces"]["bogus"] = 1
    raw["experiments"]["articulated-faces"]["preset"] = "fom"
    raw["datasets"]["faces"]["split"] = "luck"
    raw["animations"]["rabbit"]["experiment"] = "nobody"
    raw["surprise"] = {}
    with pytest.raises(errors.ParamsError) as caught:
        params.parse(raw)
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {
        "profiles.sample.train.batch_size",
        "profiles.sample.train.max_steps",
        "experiments.fomm-faces.bogus",
        "experiments.articulated-faces.preset",
        "datasets.faces.split",
        "animations.rabbit.experiment",
        "surprise",
    }
    text = str(caught.value)
    assert "profiles.sample.train.batch_size must be a whole number; got 'many'." in text
    assert "datasets.faces.split must be one of official, identity, source, time; got 'luck'." in text


def test_every_key_that_can_be_set_stands_in_the_file(raw: dict[str, Any]) -> None:
    def names(cls: Any) -> set[str]:
        return {entry.name for entry in dataclasses.fields(cls)}

    train, model = names(MotionTrainConfig), names(MotionConfig) - {"size_px"}
    for name, experiment in raw["experiments"].items():
        assert set(experiment) == train | {"preset", "dataset", "published", "model"}, name
        assert set(experiment["model"]) == model, name
        assert set(experiment["losses"]) == names(LossConfig), name
        assert set(experiment["transform"]) == names(TransformConfig), name
    style_train, style_model = names(StyleTrainConfig), names(StyleConfig)
    for name, experiment in raw["style_experiments"].items():
        assert set(experiment) == style_train | {"preset", "dataset", "style_dataset", "published", "model"}, name
        assert set(experiment["model"]) == style_model, name
        assert set(experiment["losses"]) == names(StyleLossConfig), name
    for name, profile in raw["profiles"].items():
        assert set(profile["style"]["train"]) == style_train, name
        assert set(profile["style"]["model"]) == style_model, name
        assert set(profile["face"]["train"]) == names(FaceTrainConfig), name
        assert set(profile["face"]["model"]) == names(FaceConfig), name
        assert set(profile["face"]) == {"model", "train", "destylise", "refine", *STEPS}, name
        assert set(profile["train"]) == train, name
        assert set(profile["model"]) == model, name
        assert set(profile["datasets"]) == set(raw["datasets"]), name
        assert set(profile["data"]) < names(DatasetConfig), name
    for name, dataset in raw["datasets"].items():
        assert set(dataset) == names(DatasetConfig) | {"watch"}, name
    for name, stylised in raw["stylised_datasets"].items():
        assert set(stylised) == names(params.StylisedDataset), name
    for name, animation in raw["animations"].items():
        assert set(animation) == names(params.AnimationConfig), name
    for name, stylisation in raw["stylisations"].items():
        assert set(stylisation) == names(params.StylisationConfig), name
    sections = {
        "evaluation": params.EvaluationConfig,
        "registration": params.RegistrationConfig,
        "fetching": FetchConfig,
        "tracking": params.TrackingConfig,
        "cluster": params.ClusterConfig,
    }
    for section, cls in sections.items():
        assert set(raw[section]) == names(cls), section


def test_a_data_set_is_set_in_four_places_the_last_of_which_counts(raw: dict[str, Any]) -> None:
    raw["profile"] = "paper"
    assert params.parse(raw).dataset("faces").cut_rule == "metadata"
    raw["profiles"]["paper"]["data"]["min_frames"] = 3
    assert params.parse(raw).dataset("faces").min_frames == 3
    raw["profiles"]["paper"]["datasets"]["faces"]["min_frames"] = 4
    assert params.parse(raw).dataset("faces").min_frames == 4
    raw["datasets"]["faces"]["min_frames"] = 5
    assert params.parse(raw).dataset("faces").min_frames == 5


def test_wrong_names_of_data_sets_are_told(raw: dict[str, Any]) -> None:
    raw["profiles"]["sample"]["datasets"]["nobody"] = {"source": "x"}
    raw["datasets"]["faces"]["preset"] = "voxceleb"
    raw["datasets"]["film"]["cut"] = "detect"
    with pytest.raises(errors.ParamsError) as caught:
        params.parse(raw)
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"profiles.sample.datasets.nobody", "datasets.faces.preset", "datasets.film.cut"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2", "must be readable YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("profile: dream\nprofiles: {sample: {}}\n", "profile must be one of sample; got 'dream'"),
        ("profile: !!python/object/apply:os.system ['true']\n", "must be readable YAML"),
    ],
)
def test_a_broken_file_gets_a_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(errors.ParamsError, match=says):
        params.load(path)


def test_a_missing_file_and_unknown_names_get_a_line(tmp_path: Path, raw: dict[str, Any]) -> None:
    with pytest.raises(errors.ParamsError, match="must exist"):
        params.load(tmp_path / "params.yaml")
    with pytest.raises(errors.ParamsError, match="known: fomm-faces"):
        params.parse(raw).experiment("fomm-face")


def test_numbers_as_yaml_reads_them(raw: dict[str, Any]) -> None:
    changed = copy.deepcopy(raw)
    changed["experiments"]["fomm-faces"]["lr_generator"] = "2e-4"
    assert params.parse(changed).experiment("fomm-faces").train.lr_generator == 2e-4
    changed["experiments"]["fomm-faces"]["flip_time"] = 1
    with pytest.raises(errors.ParamsError, match="flip_time must be true or false; got 1"):
        params.parse(changed)


def all_errors() -> list[type[errors.InkmotionError]]:
    return [errors.InkmotionError, *errors.InkmotionError.__subclasses__()]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_errors_cross_processes(cls: type[errors.InkmotionError]) -> None:
    problem = errors.Problem("a.b", 3, "be 4")
    error = cls([problem]) if cls is errors.ParamsError else cls(errors.must("x", "be y", 3, "Do z"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    if cls is not errors.ParamsError:
        assert str(error) == "x must be y; got 3. Do z."
