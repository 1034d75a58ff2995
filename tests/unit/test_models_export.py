"""The exported graph computes what the networks compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import CheckpointError
from models.export import INPUTS, OUTPUTS, export_motion
from models.motion.config import MotionConfig
from models.motion.keypoints import Keypoints
from models.motion.networks import build, debug_config

Arrays = dict[str, NDArray[np.float32]]


def _networks(config: MotionConfig) -> dict[str, nn.Module]:
    """Fresh networks whose normalisation statistics and Jacobians are not the trivial ones."""
    torch.manual_seed(0)
    nets = build(config)
    detector = nets["keypoint_detector"]
    with torch.no_grad():
        if config.estimate_jacobian:
            detector.jacobian.weight.normal_(0, 0.02)
        for _ in range(3):
            found = detector(torch.rand(4, 3, config.size_px, config.size_px))
            nets["generator"](
                torch.rand(4, 3, config.size_px, config.size_px), source_keypoints=found, driving_keypoints=found
            )
    return nets


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _inputs(config: MotionConfig, *, frames: int, moves: int) -> dict[str, Tensor]:
    size, num_keypoints = config.size_px, config.num_keypoints
    return {
        "source": torch.rand(1, 3, size, size),
        "driving": torch.rand(frames, 3, size, size),
        "motion_value": torch.rand(moves, num_keypoints, 2) - 0.5,
        "motion_jacobian": torch.eye(2) + 0.2 * torch.randn(moves, num_keypoints, 2, 2),
    }


def _by_torch(nets: dict[str, nn.Module], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    detector, generator = nets["keypoint_detector"].eval(), nets["generator"].eval()
    moves = len(inputs["motion_value"])
    with torch.no_grad():
        found, still = detector(inputs["driving"]), detector(inputs["source"])
        identity = torch.eye(2).expand(*found.value.shape[:2], 2, 2)
        made = generator(
            inputs["source"].expand(moves, -1, -1, -1),
            source_keypoints=still.expand(moves),
            driving_keypoints=Keypoints(
                inputs["motion_value"], None if still.jacobian is None else inputs["motion_jacobian"]
            ),
        )
    jacobian = identity if found.jacobian is None else found.jacobian
    return {"keypoint_value": found.value, "keypoint_jacobian": jacobian, "prediction": made.prediction}


@pytest.fixture(scope="module")
def config() -> MotionConfig:
    return debug_config()


@pytest.fixture(scope="module")
def nets(config: MotionConfig) -> dict[str, nn.Module]:
    return _networks(config)


@pytest.fixture(scope="module")
def exported(nets: dict[str, nn.Module], config: MotionConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new" / "motion.onnx"
    nets["generator"].train()
    export_motion(nets, config, path)
    assert nets["generator"].training, "the export must leave the networks' mode alone"
    return path


def test_one_file_and_nothing_beside_it(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["motion.onnx"]
    content = exported.read_bytes()
    assert b".data" not in content
    assert str(Path(__file__).parents[2]).encode() not in content, "paths of this machine"


@pytest.mark.parametrize(("frames", "moves"), [(1, 1), (7, 5), (1, 5), (7, 1)])
def test_the_graph_agrees_with_torch(
    exported: Path, nets: dict[str, nn.Module], config: MotionConfig, frames: int, moves: int
) -> None:
    torch.manual_seed(frames + moves)
    inputs = _inputs(config, frames=frames, moves=moves)
    expected = _by_torch(nets, inputs)
    found = _session(exported).run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})
    for name, array in zip(OUTPUTS, found, strict=True):
        assert array.shape == expected[name].shape, name
        np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5, rtol=0, err_msg=name)


def test_names_and_types(exported: Path, config: MotionConfig) -> None:
    session = _session(exported)
    assert tuple(value.name for value in session.get_inputs()) == INPUTS
    assert tuple(value.name for value in session.get_outputs()) == OUTPUTS
    assert {value.type for value in session.get_inputs()} == {"tensor(float)"}
    assert session.get_inputs()[0].shape == [1, 3, config.size_px, config.size_px]


def _fetch(path: Path, wanted: list[str], inputs: dict[str, Tensor]) -> Arrays:
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return dict(zip(wanted, _session(path).run(wanted, arrays, options), strict=True))


def test_keypoints_alone(exported: Path, nets: dict[str, nn.Module], config: MotionConfig) -> None:
    inputs = _inputs(config, frames=4, moves=1)
    expected = _by_torch(nets, inputs)
    blank = {name: torch.full_like(inputs[name], float("nan")) for name in ("source", "motion_value")}
    found = _fetch(exported, ["keypoint_value", "keypoint_jacobian"], inputs | blank)
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5, rtol=0, err_msg=name)


def test_frames_alone(exported: Path, nets: dict[str, nn.Module], config: MotionConfig) -> None:
    inputs = _inputs(config, frames=1, moves=3)
    expected = _by_torch(nets, inputs)
    found = _fetch(exported, ["prediction"], inputs | {"driving": torch.zeros_like(inputs["driving"])})
    np.testing.assert_allclose(found["prediction"], expected["prediction"].numpy(), atol=1e-5, rtol=0)


def test_without_jacobians_they_are_the_identity_and_ignored(tmp_path: Path) -> None:
    config = debug_config(estimate_jacobian=False, estimate_occlusion=False)
    nets = _networks(config)
    export_motion(nets, config, tmp_path / "motion.onnx")
    inputs = _inputs(config, frames=2, moves=3)
    expected = _by_torch(nets, inputs)
    session = _session(tmp_path / "motion.onnx")
    found = session.run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})
    for name, array in zip(OUTPUTS, found, strict=True):
        assert array.shape == expected[name].shape, name
        np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5, rtol=0, err_msg=name)


def test_other_networks_are_refused(nets: dict[str, nn.Module], config: MotionConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="networks to export must hold a motion generator"):
        export_motion({"generator": nets["generator"]}, config, tmp_path / "motion.onnx")
    assert list(tmp_path.iterdir()) == []
