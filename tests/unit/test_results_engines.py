"""The torch engine: the same as the networks called by hand, in any batches, with and without Jacobians."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import CheckpointError, EnvironmentProblem, ParamsError, ShapeError
from models.motion.networks import build, debug_config
from pipelines import animate, registry
from pipelines.engines import TorchSession, from_checkpoint, from_version
from pipelines.registry import Store, Version
from pipelines.served.motion import Motion
from pipelines.stage import Paths
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.config import TrainConfig

SIZE = 32


def session(**changes: Any) -> tuple[TorchSession, dict[str, Any]]:
    torch.manual_seed(0)
    networks: dict[str, Any] = build(debug_config(**changes))
    generator, detector = networks["generator"], networks["keypoint_detector"]
    return TorchSession(generator, detector, size_px=SIZE, device="cpu", batch_size=3), networks


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("jacobian", [True, False])
def test_reconstruction_equals_the_networks_called_by_hand(jacobian: bool) -> None:
    engine, networks = session(estimate_jacobian=jacobian)
    video = frames(7)
    made = engine.render(video[0], engine.keypoints(video))
    planes = torch.from_numpy(video.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        source, driving = (
            networks["keypoint_detector"](planes[:1].repeat(7, 1, 1, 1)),
            networks["keypoint_detector"](planes),
        )
        wanted = networks["generator"](
            planes[:1].repeat(7, 1, 1, 1), source_keypoints=source, driving_keypoints=driving
        )
    np.testing.assert_allclose(made, wanted.prediction.permute(0, 2, 3, 1).numpy(), atol=2e-6)
    assert made.dtype == np.float32


def test_without_jacobians_the_identity_is_given() -> None:
    engine, _ = session(estimate_jacobian=False)
    motion = engine.keypoints(frames(4))
    assert motion.value.shape == (4, 3, 2)
    np.testing.assert_array_equal(motion.jacobian, np.broadcast_to(np.eye(2), (4, 3, 2, 2)))


def test_bytes_and_floats_are_the_same_frames() -> None:
    engine, _ = session()
    video = frames(2)
    np.testing.assert_array_equal(engine.keypoints(video).value, engine.keypoints(video.astype(np.float32) / 255).value)


def test_frames_of_another_size_are_refused() -> None:
    engine, _ = session()
    with pytest.raises(ShapeError, match=r"frames must be \(N, 32, 32, 3\); got \(2, 16, 16, 3\)"):
        engine.keypoints(np.zeros((2, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(ShapeError):
        engine.render(np.zeros((16, 16, 3), dtype=np.uint8), Motion(np.zeros((1, 3, 2)), np.zeros((1, 3, 2, 2))))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="device must be one that this machine has; got cuda"):
        TorchSession(*(session()[1][name] for name in ("generator", "keypoint_detector")), size_px=SIZE, device="cuda")


def test_a_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    engine, networks = session()
    average = {
        f"{name}.{key}": value * 0.5 for name, net in networks.items() for key, value in net.state_dict().items()
    }
    info = CheckpointInfo(step=3, images_seen=24, preset="fomm", model=debug_config(), train=TrainConfig(), sha256="")
    write_checkpoint(tmp_path, info, tensors_of(networks, average), None)
    loaded, read = from_checkpoint(tmp_path, device="cpu")
    assert (read.step, loaded.size_px) == (3, SIZE)
    weight = loaded.generator.final.weight
    torch.testing.assert_close(weight, engine.generator.final.weight * 0.5)
    with pytest.raises(CheckpointError):
        from_checkpoint(tmp_path / "missing")


def version(number: int, *aliases: str) -> Version:
    return Version(name="m", version=number, run_id=None, tags={}, aliases=aliases, description="")


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([version(1, "champion"), version(2, "candidate")], "models:/m@champion"),
        ([version(1, "candidate")], "models:/m@candidate"),
    ],
)
def test_the_champion_is_taken_and_the_candidate_while_there_is_none(
    versions: list[Version], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "versions_of", lambda *_: versions)
    monkeypatch.setattr(animate, "from_version", lambda uri, store: (uri, None))
    assert animate.registered("m", None, Paths())[0] == wanted  # type: ignore[arg-type]


def test_a_version_whose_graph_is_broken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "motion.onnx").write_bytes(b"no graph")
    monkeypatch.setattr(registry, "find", lambda *_: version(7))
    monkeypatch.setattr(registry, "resolve", lambda *_, **__: tmp_path)
    with pytest.raises(CheckpointError, match="models:/m/7 must hold a graph that ONNX Runtime can open"):
        from_version("models:/m@champion", Store(uri="sqlite:///x"))


@pytest.mark.parametrize(("model", "checkpoint", "got"), [(None, None, "neither"), ("models:/m", Path("x"), "both")])
def test_either_a_model_or_a_checkpoint_is_named(model: str | None, checkpoint: Path | None, got: str) -> None:
    with pytest.raises(ParamsError, match=f"one of the two .*got '{got}'"):
        animate.open_engine(None, Paths(), model=model, checkpoint=checkpoint)
