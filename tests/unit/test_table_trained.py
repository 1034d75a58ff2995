"""Whether a report is of the training that the params files describe: by checksum, by manifest, in steps and epochs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.contracts import INDEX_NAME
from models.errors import CheckpointError
from pipelines import params as reader
from pipelines import train
from pipelines.params import ExperimentConfig, Params
from pipelines.params_papers import read_papers
from pipelines.settings import params_sha256
from pipelines.stage import Paths
from pipelines.table_trained import difference, in_steps
from training import checkpoint
from training.checkpoint import CheckpointInfo

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


@pytest.fixture(scope="module")
def params(root: Path) -> Params:
    return reader.load(root / "params.yaml")


@pytest.fixture
def fomm(params: Params) -> ExperimentConfig:
    return params.experiment("fomm-on-faces-seed0")


def report(of: ExperimentConfig, **values: Any) -> dict[str, Any]:
    """Of a training that was in steps."""
    tags = {"params_sha256": params_sha256(of)}
    return {"steps": of.train.max_steps, "tags": tags, "weights_sha256": "ab", "second_stage": None, **values}


def changed(experiment: ExperimentConfig, **train_keys: Any) -> ExperimentConfig:
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **train_keys))


def with_model(experiment: ExperimentConfig, **keys: Any) -> ExperimentConfig:
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **keys))


def exported(monkeypatch: pytest.MonkeyPatch, of: ExperimentConfig, sha256: str = "ab") -> None:
    info = CheckpointInfo(step=1, images_seen=1, preset=of.preset, model=of.model, train=of.train, sha256=sha256)
    monkeypatch.setattr(checkpoint, "read_info", lambda folder: info)


def test_the_checksum_is_the_train_stages(fomm: ExperimentConfig, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.shards(fomm.dataset).mkdir(parents=True)
    (paths.shards(fomm.dataset) / INDEX_NAME).write_text("{}")
    assert train._tags(fomm, paths, "data")["params_sha256"] == params_sha256(fomm)


def test_the_same_settings_fit(fomm: ExperimentConfig) -> None:
    assert difference(report(fomm), fomm, NOWHERE) is None


def test_other_networks_and_losses_do_not(fomm: ExperimentConfig) -> None:
    losses = dataclasses.replace(fomm.train.losses, gan="hinge")
    for other in (with_model(fomm, output_activation="tanh"), changed(fomm, losses=losses), changed(fomm, seed=9)):
        found = difference(report(other), fomm, NOWHERE)
        assert found == ("params_sha256", params_sha256(fomm), params_sha256(other))
    assert difference({"steps": 1}, fomm, NOWHERE) == ("params_sha256", params_sha256(fomm), None)


def test_the_manifest_names_the_key(fomm: ExperimentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed(fomm, losses=dataclasses.replace(fomm.train.losses, gan="hinge"))
    exported(monkeypatch, other)
    assert difference(report(other), fomm, NOWHERE) == ("train.losses.gan", "none", "hinge")
    tanh = with_model(fomm, output_activation="tanh")
    exported(monkeypatch, tanh)
    assert difference(report(tanh), fomm, NOWHERE) == ("model.output_activation", "sigmoid", "tanh")
    exported(monkeypatch, fomm, sha256="of another training")
    assert difference(report(tanh), fomm, NOWHERE) == ("params_sha256", params_sha256(fomm), params_sha256(tanh))


def test_how_a_training_ran_may_differ(fomm: ExperimentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = changed(fomm, num_threads=7, compile=True, perceptual_weights="/found/here.pth")
    assert difference(report(ran), fomm, NOWHERE) is not None
    exported(monkeypatch, ran)
    assert difference(report(ran), fomm, NOWHERE) is None
    named = changed(fomm, perceptual_weights="/another.pth")
    assert difference(report(ran), named, NOWHERE) == ("train.perceptual_weights", "/another.pth", "/found/here.pth")


@pytest.mark.parametrize("row", ["fomm-on-faces-seed1", "jam-on-cartoons-seed2"])
def test_epochs_are_the_reports_steps(raw: dict[str, Any], root: Path, row: str) -> None:
    wanted = reader.parse({**raw, "profile": "paper"}, read_papers(root)).experiment(row)
    assert wanted.train.max_epochs
    done = in_steps(wanted, 37 * wanted.train.max_epochs, 210)
    assert done is not None
    assert (done.train.max_epochs, done.train.milestone_epochs) == (None, ())
    assert done.train.milestones == tuple(37 * epoch for epoch in wanted.train.milestone_epochs)
    second = {"steps": 210, "seconds": 1.0} if wanted.model.avd else None
    of = report(done, second_stage=second)
    assert difference(of, wanted, NOWHERE) is None
    for other in (with_model(wanted, temperature=0.2), changed(wanted, max_epochs=wanted.train.max_epochs // 2)):
        assert difference(of, other, NOWHERE) is not None


def test_an_early_stop_hides_the_epochs(raw: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = reader.parse({**raw, "profile": "paper"}, read_papers(root)).experiment("fomm-on-faces-seed1")
    done = in_steps(wanted, 3700, None)
    assert done is not None
    of = report(done, steps=1234, stopped_early=True)
    assert difference(of, wanted, NOWHERE) is None
    exported(monkeypatch, done)
    assert difference(of, wanted, NOWHERE) is None
    other = with_model(wanted, temperature=0.2)
    assert difference(of, other, NOWHERE) == ("model.temperature", 0.2, 0.1)


def test_a_broken_manifest_is_none(fomm: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[" * 9999)
    with pytest.raises((CheckpointError, RecursionError)):
        checkpoint.read_info(tmp_path)
    assert difference(report(changed(fomm, seed=9)), fomm, tmp_path) is not None
