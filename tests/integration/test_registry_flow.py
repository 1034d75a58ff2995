"""Versions of a real small model in an sqlite store: registered once, promoted by figures, traced, resolved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.errors import TrackingError
from models.export import export_motion
from models.motion.networks import build, debug_config
from pipelines import registry
from pipelines.engines import TorchSession
from pipelines.served.motion import MotionSession
from pipelines.stage import Paths


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    return {name: network.eval() for name, network in build(debug_config()).items()}


@pytest.fixture(scope="module")
def onnx(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "motion.onnx"
    export_motion(networks, debug_config(), path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> registry.Store:
    return registry.Store(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


def parcel(
    onnx: Path, folder: Path, *, sha256: str, l1: float, data: str = "data, time split, test"
) -> registry.Parcel:
    checkpoint = folder / sha256
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "manifest.json").write_text("{}")
    tags = {
        "weights.sha256": sha256,
        "metric.name": "l1",
        "metric.better": "lower",
        "metric.value": repr(l1),
        "metric.data": data,
    }
    return registry.Parcel(
        name="debug", run_id=None, onnx=onnx, checkpoint=checkpoint, card="# debug", tags=tags, size_px=32
    )


def test_the_life_of_versions(store: registry.Store, onnx: Path, networks: dict[str, Any], tmp_path: Path) -> None:
    first = registry.register(parcel(onnx, tmp_path, sha256="a", l1=0.10), store)
    assert (first.version, first.aliases) == (1, ("candidate",))
    assert registry.judge(first, None)[0]
    again = registry.register(parcel(onnx, tmp_path, sha256="a", l1=0.10), store)
    assert again.version == 1
    client = MlflowClient(tracking_uri=store.uri)
    assert client.get_run(str(first.run_id)).info.status == "FINISHED"

    folder = registry.resolve("models:/debug@candidate", store, target=tmp_path / "got")
    assert len(list(folder.rglob("*.onnx"))) == 1
    assert not list(folder.rglob("*.data"))
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    torch_engine = TorchSession(networks["generator"], networks["keypoint_detector"], size_px=32, device="cpu")
    session = MotionSession(registry.onnx_of(folder))
    wanted = torch_engine.render(frames[0], torch_engine.keypoints(frames))
    np.testing.assert_allclose(session.render(frames[0], session.keypoints(frames)), wanted, atol=1e-3)
    assert (registry.checkpoint_of("models:/debug/1", store) / "manifest.json").read_text() == "{}"

    second = registry.register(parcel(onnx, tmp_path, sha256="b", l1=0.09), store)
    assert second.version == 2
    promoted, why = registry.judge(second, first)
    assert promoted
    assert "0.09000 against 0.10000" in why

    same = parcel(onnx, tmp_path, sha256="b", l1=0.09)
    other = dataclasses.replace(same, tags={**same.tags, registry.SERVED_TAG: registry.served_as(21)})
    assert registry.served_as(20) == registry.served_as(20) != registry.served_as(21)
    assert registry.register(other, store).version == 3, "the same weights, served otherwise, are another version"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric.value": "0.2"}, "lower is better"),
        ({"metric.value": "0.1"}, "stays candidate"),
        ({"metric.value": "0.01", "metric.data": "other"}, "not judged by the same data"),
        ({"metric.value": "0.01", "metric.name": "akd"}, "not judged by the same metric"),
    ],
)
def test_a_candidate_that_is_not_better_stays(change: dict[str, str], says: str) -> None:
    tags = {"metric.name": "l1", "metric.value": "0.1", "metric.data": "d", "metric.better": "lower"}
    champion = registry.Version(name="m", version=1, run_id=None, tags=tags, aliases=("champion",), description="")
    candidate = dataclasses.replace(champion, version=2, tags={**tags, **change}, aliases=("candidate",))
    promoted, why = registry.judge(candidate, champion)
    assert not promoted
    assert says in why


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/nobody@champion", "Known:"),
        ("models:/debug/99", "Known versions: 1"),
        ("models:/debug@king", "Known versions: 1"),
        ("runs:/1/model", "models:/ URI"),
        ("models:/a'b@c", "Known:"),
    ],
)
def test_an_unknown_version_gets_a_line(store: registry.Store, onnx: Path, tmp_path: Path, uri: str, says: str) -> None:
    registry.register(parcel(onnx, tmp_path, sha256="a", l1=0.10), store)
    with pytest.raises(TrackingError, match=says):
        registry.find(uri, store)


def test_speaking_to_one_store_leaves_the_default_alone(
    store: registry.Store, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry.register(parcel(onnx, tmp_path, sha256="a", l1=0.10), store)
    registry.resolve("models:/debug/1", store)
    assert registry.default_uri(None, Paths(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    registry.resolve("models:/debug/1", store)
    assert registry.default_uri(None, Paths(tmp_path)) == "http://mlflow:5000"
