"""A stylising model's whole way on small pictures: trained, judged, registered, drawn with by others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import style_eval_kit as kit
from PIL import Image

from models.errors import ParamsError, TrackingError
from models.style.networks import debug_config
from pipelines import animate, judging, register, registry, stylise, train
from pipelines.params import Params, load
from pipelines.settings import EvaluationConfig, TrackingConfig
from pipelines.stage import Paths
from pipelines.stylise_models import of_experiment, of_version
from training.style_config import StyleLossConfig, StyleTrainConfig

pytestmark = pytest.mark.slow

LOSSES = StyleLossConfig(adversarial=1.0, texture=0.0, content_level=1, penalty_every_steps=2)
TRAIN = StyleTrainConfig(
    batch_size=2, max_steps=3, num_workers=1, losses=LOSSES, crop=(0.5, 1.0), validate_every_steps=3
)


@pytest.fixture(scope="module")
def project(root: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Paths]:
    folder = tmp_path_factory.mktemp("project")
    paths, known = Paths(folder), load(root / "params.yaml")
    kit.make_shards(paths.shards("photos"), kit.pictures(samples / "photos", 6), num_test=3)
    kit.make_shards(paths.shards("paintings"), kit.pictures(samples / "paintings", 4), num_test=1)
    experiment = dataclasses.replace(known.experiment("ink"), preset="lwcomicgan", model=debug_config(), train=TRAIN)
    uri = f"sqlite:///{folder}/mlflow.db"
    params = dataclasses.replace(
        known,
        experiments={"ink": experiment},
        evaluation=EvaluationConfig(num_workers=1, squares=1),
        tracking=TrackingConfig(uri=uri),
    )
    train.run("ink", params, paths, backend="local")
    judging.run("ink", params, paths)
    register.run("ink", params, paths)
    return params, paths


def test_it_is_judged_beside_the_untouched_photos(project: tuple[Params, Paths]) -> None:
    params, paths = project
    trained = json.loads(paths.report("train", "ink").read_text())
    assert (trained["steps"], trained["style_dataset"]) == (3, "paintings")
    assert {"validation/kid", "validation/photo_kid"} <= set(trained["validation"])
    judged = json.loads(paths.report("evaluate", "ink").read_text())
    assert (judged["num_photos"], judged["num_style_pictures"], judged["size_px"]) == (3, 4, debug_config().size_px)
    assert judged["weights_sha256"] == trained["weights_sha256"]
    assert params.experiment("ink").datasets == ("photos", "paintings")


def test_a_version_carries_its_figures_and_its_variants(project: tuple[Params, Paths], tmp_path: Path) -> None:
    params, paths = project
    version = registry.find("models:/ink@candidate", registry.store_of(params, paths))
    judged = json.loads(paths.report("evaluate", "ink").read_text())
    assert version.tags["family"] == "style"
    assert float(version.tags["metric.value"]) == judged["made"]["kid/effnet-lite0"]["value"]
    assert float(version.tags["variant.fp16.difference"]) < 0.01
    files = registry.resolve(version.uri, registry.store_of(params, paths), target=tmp_path)
    sizes = [registry.onnx_of(files, variant).stat().st_size for variant in ("", "fp16", "int8")]
    assert sizes[1] == int(version.tags["variant.fp16.bytes"]) < sizes[0]
    assert sizes[2] == int(version.tags["variant.int8.bytes"])
    again = register.run("ink", params, paths)
    assert again.version == version.version


def test_it_draws_for_whoever_loads_it(project: tuple[Params, Paths], samples: Path) -> None:
    params, paths = project
    photos = kit.pictures(samples / "photos", 2)
    model = mlflow.pyfunc.load_model(_source(params, paths))
    drawn = model.predict({"photo": photos}, params={"strength": 1.0})
    assert (drawn.shape, drawn.dtype) == (photos.shape, np.float32)
    ours = of_experiment("ink", params, paths).engine().stylise(photos)
    np.testing.assert_allclose(drawn, ours, atol=1e-6)
    half = model.predict({"photo": photos}, params={"strength": 0.5})
    np.testing.assert_allclose(half, (drawn + photos.astype(np.float32) / 255) / 2, atol=1e-6)
    small = of_version("models:/ink/1", params, paths, variant="fp16").engine().stylise(photos)
    assert np.abs(small - drawn).mean() < 0.01


def test_the_stage_and_the_command_use_it(project: tuple[Params, Paths], samples: Path, tmp_path: Path) -> None:
    params, paths = project
    config = dataclasses.replace(params.stylisation("palace"), source=str(samples / "photos" / "usa_navajo.jpg"))
    report = stylise.run("palace", dataclasses.replace(params, stylisations={"palace": config}), paths)
    with Image.open(paths.pictures("stylise", "palace") / "drawing.png") as drawing:
        assert drawing.size == (report.width, report.height)
    with pytest.raises(TrackingError, match="inkmotion stylise --model models:/ink"):
        animate.open_engine(params, paths, model="models:/ink@candidate", checkpoint=None)
    with pytest.raises(ParamsError, match="versions have variants"):
        stylise.open_model(params, paths, model=None, checkpoint=paths.trained("ink"), variant="int8")


def _source(params: Params, paths: Paths) -> str:
    store = registry.store_of(params, paths)
    return str(registry.resolve("models:/ink@candidate", store))
