"""Published settings stand for what the public configurations say, and lie between preset and profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalog import MODELS, PUBLISHED, presets_of
from models.errors import ParamsError
from models.motion.config import MotionConfig
from pipelines import params
from pipelines.params import ExperimentConfig

FOMM: dict[str, tuple[Any, ...]] = {
    # epochs, repeats, milestones, batch, gan, norm, sees keypoints, by identity, learning rate of the detector
    "vox": (100, 75, (60, 90), 40, "none", "multi", False, True, 2e-4),
    "vox-adv": (150, 75, (), 36, "lsgan", "instance", True, True, 2e-4),
    "taichi": (100, 150, (60, 90), 30, "none", "instance", False, True, 2e-4),
    "taichi-adv": (150, 150, (), 27, "lsgan", "instance", True, True, 0.0),
    "mgif": (100, 25, (60, 90), 36, "lsgan", "multi", False, False, 2e-4),
    "fashion": (100, 50, (60, 90), 27, "lsgan", "instance", False, False, 2e-4),
}
ARTICULATED = {"vox": (75, 2000, 3, "affine"), "taichi": (150, 150, 0, "affine"), "mgif": (50, 50, 0, "none")}
"""Repeats, repeats of the second stage, padding of the heat maps, background."""


@pytest.fixture
def raw(root: Path) -> Any:
    given = yaml.safe_load((root / "params.yaml").read_text())
    given["profile"] = "paper"
    return given


def experiment(raw: Any, **keys: Any) -> ExperimentConfig:
    raw["experiments"]["one"] = keys
    return params.parse(raw).experiment("one")


@pytest.mark.parametrize("name", FOMM)
def test_first_order(raw: Any, name: str) -> None:
    made = experiment(raw, preset="fomm", dataset="faces", published=name)
    train, model = made.train, made.model
    found = (train.max_epochs, train.num_repeats, train.milestone_epochs, train.batch_size, train.losses.gan)
    found += (model.discriminator_norm, model.discriminator_keypoints, train.id_sampling, train.lr_keypoint_detector)
    assert found == FOMM[name]
    assert (train.lr_generator, train.adam_betas, train.gamma) == (2e-4, (0.5, 0.999), 0.1)
    assert model.single_jacobian_map == (name == "mgif")
    assert train.losses.perceptual == (10.0,) * 5
    assert train.perceptual_scales == (1.0, 0.5, 0.25, 0.125)


def test_augmentation(raw: Any) -> None:
    vox = experiment(raw, preset="fomm", dataset="faces", published="vox").train.augment
    assert (vox.brightness, vox.contrast, vox.saturation, vox.hue, vox.resize) == (0.1, 0.1, 0.1, 0.1, (1.0, 1.0))
    mgif = experiment(raw, preset="articulated", dataset="faces", published="mgif").train.augment
    assert (mgif.brightness, mgif.hue, mgif.resize) == (0.0, 0.5, (0.9, 1.1))


@pytest.mark.parametrize("name", ARTICULATED)
def test_articulated(raw: Any, name: str) -> None:
    made = experiment(raw, preset="articulated", dataset="faces", published=name)
    train, model = made.train, made.model
    found = (train.num_repeats, train.avd.num_repeats, model.heat_map_padding, model.background)
    assert found == ARTICULATED[name]
    assert (train.max_epochs, train.milestone_epochs, train.batch_size, train.losses.gan) == (100, (60, 90), 14, "none")
    avd = train.avd
    assert (avd.max_epochs, avd.batch_size, avd.learning_rate) == (30, 256, 1e-3)
    assert avd.milestone_epochs == (() if name == "mgif" else (20, 25))


def test_the_profile_chooses_by_data_set_and_the_experiment_overrules(raw: Any) -> None:
    assert experiment(raw, preset="fomm", dataset="cartoons").train.num_repeats == 25
    assert experiment(raw, preset="fomm", dataset="cartoons", published="none").train.max_epochs is None
    made = experiment(raw, preset="fomm", dataset="cartoons", batch_size=8, model={"num_keypoints": 5})
    assert (made.train.batch_size, made.train.max_epochs, made.model.num_keypoints) == (8, 100, 5)


def test_settings_of_another_kind_of_motion_are_refused(raw: Any) -> None:
    with pytest.raises(ParamsError, match=r"experiments.one.published must be none or one of vox, taichi, mgif"):
        experiment(raw, preset="articulated", dataset="faces", published="fashion")


@pytest.mark.parametrize("name", ["mgif", "fashion"])
def test_a_variant_keeps_what_its_paper_changes(raw: Any, name: str) -> None:
    made = experiment(raw, preset="dcf", dataset="faces", published=name)
    assert (made.model.discriminator_norm, made.train.losses.gan) == ("multi", "hinge")
    assert made.train.num_repeats == FOMM[name][1]
    assert made.model.single_jacobian_map == (name == "mgif")


def test_a_variant_takes_its_bases_published_settings(raw: Any) -> None:
    made = experiment(raw, preset="jam", dataset="faces", published="mgif")
    assert (made.model.background, made.model.heat_map_padding) == ("none", 0)
    assert made.model.generator_dilations == (1, 2, 4, 1, 2, 4)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("preset", presets_of("motion"))
def test_every_preset_takes_the_settings_of_its_kind(name: str, preset: str) -> None:
    spec = MODELS[preset]
    settings = PUBLISHED[name].get(spec.model.get("motion", "first-order"))
    if settings is not None:
        MotionConfig(**{**spec.model, **settings.model})
