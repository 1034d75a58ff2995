"""Two registered models as one: a photo and a driving video in, frames out, by MLflow alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlflow
import numpy as np
import pytest
import studio_kit as kit

from models.errors import TrackingError
from pipelines import params as project
from pipelines import register_system
from pipelines.params import Params
from pipelines.settings import SystemConfig
from pipelines.stage import Paths

pytestmark = pytest.mark.slow
FACE = np.linspace(0, 255, 32 * 32 * 3).reshape(1, 32, 32, 3).astype(np.uint8)


def of(root: Path, store_uri: str, *, stylist: str = "cartoons") -> Params:
    known = project.load(root / "params.yaml")
    tracking = dataclasses.replace(known.tracking, uri=store_uri)
    systems = {"both": SystemConfig(stylist=stylist, mover="faces")}
    return dataclasses.replace(known, tracking=tracking, systems=systems)


def test_a_system_stylises_and_moves_in_one_call(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, paths = kit.cartoon_registry(tmp_path), Paths(tmp_path)
    params = of(root, store.uri)
    report = register_system.run("both", params, paths)
    assert (report.stylist, report.mover) == ("models:/cartoons/1", "models:/faces/1")
    assert register_system.run("both", params, paths).version == report.version  # the same two are the same system

    mlflow.set_tracking_uri(store.uri)
    model = mlflow.pyfunc.load_model(report.uri)
    driving = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    given = {"photo": FACE, "driving": driving}
    calm, wild = (model.predict(given, params={"style": style}) for style in ("calm", "wild"))
    assert calm.dtype == np.float32
    assert calm.shape[0] == 3
    assert calm.shape[3] == 3
    assert 0 <= calm.min() <= calm.max() <= 1
    assert np.abs(calm - wild).mean() > 2 / 255

    with pytest.raises(Exception, match="missing inputs"):
        model.predict({"photo": FACE})
    with pytest.raises(Exception, match="photo must be one picture"):
        model.predict({"photo": np.repeat(FACE, 2, axis=0), "driving": driving})
    with pytest.raises(Exception, match="calm"):
        model.predict(given, params={"style": "nobody's"})


def test_a_system_without_a_champion_is_not_registered(root: Path, tmp_path: Path) -> None:
    store = kit.cartoon_registry(tmp_path)
    with pytest.raises(TrackingError):
        register_system.run("both", of(root, store.uri, stylist="nobody"), Paths(tmp_path))
    assert not Paths(tmp_path).report("register", "both").exists()
