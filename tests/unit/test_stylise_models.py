"""What makes drawings: a version or a checkpoint, of the style family, the same drawing from both."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stylise_kit import texture

from models.errors import CheckpointError, EnvironmentProblem, ParamsError
from models.export_style import export_style
from models.motion import networks as motion
from models.style import networks as style
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines import registry, stylise_models
from pipelines.stage import Paths
from pipelines.stylise_models import ModelSource, of_checkpoint, of_experiment, of_version, open_model
from pipelines.stylise_photo import draw
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.config import MotionTrainConfig
from training.style_config import StyleTrainConfig

CONFIG = StyleConfig(width=8, num_blocks=1, size_px=32, critic_width=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    info = CheckpointInfo(step=1, images_seen=1, preset="lwcomicgan", model=CONFIG, train=StyleTrainConfig(), sha256="")
    write_checkpoint(folder, info, tensors_of(style.build(CONFIG)), None)
    return folder


@pytest.fixture(scope="module")
def graph(trained: Path) -> bytes:
    from training.checkpoint import load_networks

    generator = load_networks(trained)[0]["generator"]
    assert isinstance(generator, StyleGenerator)
    export_style(generator, CONFIG, trained / "style.onnx")
    return (trained / "style.onnx").read_bytes()


def test_a_version_and_its_checkpoint_draw_the_same(trained: Path, graph: bytes) -> None:
    photo = texture(45, 50)
    sources = of_checkpoint(trained, device="cpu"), ModelSource(name="models:/ink/1", graph=graph, device="cpu")
    one, other = (draw(pickle.loads(pickle.dumps(source)).engine(), photo) for source in sources)
    assert np.abs(one.astype(int) - other).max() <= 1
    assert one.std() > 1


@pytest.mark.parametrize("kind", ["graph", "checkpoint"])
def test_bands_of_a_large_photo_leave_no_seam(trained: Path, graph: bytes, kind: str) -> None:
    source = of_checkpoint(trained) if kind == "checkpoint" else ModelSource(name="x", graph=graph)
    engine, photo = source.engine(), texture(400, 64)
    whole, banded = draw(engine, photo), draw(engine, photo, band_pixels=128 * 64)
    assert np.abs(whole.astype(int) - banded).max() <= 1


def test_statistics_can_be_mixed(trained: Path) -> None:
    from pipelines.stylise_temporal import mixed

    engine, photos = of_checkpoint(trained).engine(), (texture(seed=1), texture(seed=2))
    first, second = map(engine.measure, photos)
    made = engine.stylise(photos[0][None], given=mixed(first, second, 0.0))
    assert np.abs(made - engine.stylise(photos[0][None])).max() < 1e-4
    assert np.abs(made - engine.stylise(photos[0][None], given=mixed(first, second, 0.5))).max() > 1e-4


def test_a_checkpoint_that_moves_pictures_is_refused(tmp_path: Path) -> None:
    config = motion.debug_config()
    info = CheckpointInfo(step=1, images_seen=1, preset="fomm", model=config, train=MotionTrainConfig(), sha256="")
    write_checkpoint(tmp_path, info, tensors_of(motion.build(config)), None)
    with pytest.raises(ParamsError, match=r"make drawings of photos.*inkmotion animate"):
        of_checkpoint(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        of_checkpoint(tmp_path)


def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **tags: str) -> None:
    version = SimpleNamespace(uri="models:/ink/3", tags=tags, aliases=("candidate",))
    (tmp_path / "style.onnx").write_bytes(b"graph")
    monkeypatch.setattr(registry, "find", lambda *_: version)
    monkeypatch.setattr(registry, "versions_of", lambda *_: [version])
    monkeypatch.setattr(registry, "resolve", lambda *_, **__: tmp_path)


def test_a_version_travels_with_its_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, tmp_path, family="style")
    found = of_version("models:/ink@candidate", None, Paths(), device="cpu")
    assert (found.name, found.graph, found.device) == ("models:/ink/3", b"graph", "cpu")
    with pytest.raises(CheckpointError, match="models:/ink/3 must hold a graph"):
        found.engine()


def test_the_candidate_serves_until_there_is_a_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    register(monkeypatch, tmp_path, family="style")
    monkeypatch.setattr(stylise_models, "of_version", lambda uri, *_: asked.append(uri))
    of_experiment("ink", None, Paths())  # type: ignore[arg-type]
    champion = SimpleNamespace(aliases=("champion",))
    monkeypatch.setattr(registry, "versions_of", lambda *_: [champion])
    of_experiment("ink", None, Paths())  # type: ignore[arg-type]
    assert asked == ["models:/ink@candidate", "models:/ink@champion"]


@pytest.mark.parametrize("tags", [{}, {"family": "motion"}])
def test_a_version_that_moves_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    register(monkeypatch, tmp_path, **tags)
    with pytest.raises(ParamsError, match=r"make drawings of photos.*inkmotion animate"):
        of_version("models:/ink/3", None, Paths())


def test_one_model_is_named(tmp_path: Path) -> None:
    for both in ({"model": None, "checkpoint": None}, {"model": "models:/ink", "checkpoint": tmp_path}):
        with pytest.raises(ParamsError, match="one of the two"):
            open_model(None, Paths(), **both)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_told(trained: Path, graph: bytes) -> None:
    for source in (of_checkpoint(trained, device="cuda"), ModelSource(name="x", graph=graph, device="cuda")):
        with pytest.raises(EnvironmentProblem, match="device must be one that"):
            source.engine()
