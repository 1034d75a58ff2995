"""The self-contained model file: motion transfer against published maths, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.export import export_motion
from models.motion.networks import build, debug_config
from pipelines.served.motion import (
    Motion,
    MotionModel,
    MotionSession,
    best_frame,
    fit_frames,
    hull_area,
    movement_scale,
    transfer,
)


@pytest.fixture(scope="module")
def recorded(root: Path) -> Any:
    return np.load(root / "tests" / "golden" / "fomm-tiny" / "eval.npz")


def motion(recorded: Any, name: str) -> Motion:
    return Motion(recorded[f"{name}.value"], recorded[f"{name}.jacobian"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rel", {"relative": True, "adapt_scale": False}),
        ("rel_scale", {"relative": True, "adapt_scale": True}),
        ("rel_nojac", {"relative": True, "adapt_scale": False, "relative_jacobian": False}),
        ("abs", {"relative": False, "adapt_scale": False}),
    ],
)
def test_transfer_equals_the_published_models(recorded: Any, name: str, options: dict[str, bool]) -> None:
    source, driving, initial = (motion(recorded, f"kp_{which}") for which in ("source", "driving", "initial"))
    moved = transfer(source, driving, initial, **options)
    expected = motion(recorded, f"normalize_kp.{name}")
    np.testing.assert_allclose(moved.value, expected.value, atol=1e-5)
    np.testing.assert_allclose(moved.jacobian, expected.jacobian, atol=1e-5)


def test_the_scale_is_exercised(recorded: Any) -> None:
    scale = movement_scale(motion(recorded, "kp_source"), motion(recorded, "kp_initial"))
    assert abs(scale - 1) > 0.01


def test_one_source_and_one_reference_serve_many_driving_frames() -> None:
    rng = np.random.default_rng(0)
    driving = Motion(rng.random((7, 4, 2), np.float32), rng.random((7, 4, 2, 2), np.float32) + 2 * np.eye(2))
    source = Motion(rng.random((1, 4, 2), np.float32), rng.random((1, 4, 2, 2), np.float32) + 2 * np.eye(2))
    moved = transfer(source, driving, driving.take(3), relative=True, adapt_scale=True)
    assert moved.value.shape == (7, 4, 2)
    assert moved.jacobian.dtype == np.float32
    np.testing.assert_allclose(moved.value[3], source.value[0], atol=1e-6)
    np.testing.assert_allclose(moved.jacobian[3], source.jacobian[0], atol=1e-5)


def test_a_singular_jacobian_gives_finite_numbers() -> None:
    still = Motion(np.zeros((1, 3, 2), np.float32), np.zeros((1, 3, 2, 2), np.float32))
    moved = transfer(still, still, still, relative=True, adapt_scale=True)
    assert np.isfinite(moved.jacobian).all()
    assert np.isfinite(moved.value).all()


def test_hull_area() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1], [1, 0], [0, 0]])
    assert hull_area(square) == pytest.approx(4)
    assert hull_area(np.array([[0, 0], [1, 1], [2, 2]])) == 0
    assert hull_area(np.array([[0, 0], [1, 1]])) == 0
    rng = np.random.default_rng(1)
    angles = np.sort(rng.random(40)) * 2 * np.pi
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shoelace = 0.5 * np.sum(circle[:, 0] * np.roll(circle[:, 1], -1) - circle[:, 1] * np.roll(circle[:, 0], -1))
    inner = rng.random((60, 2)) * 0.2
    assert hull_area(rng.permutation(np.concatenate([circle, inner]))) == pytest.approx(shoelace)


def test_best_frame_sees_the_pose_and_neither_place_nor_size() -> None:
    rng = np.random.default_rng(2)
    poses = rng.random((6, 5, 2))
    driving = Motion(poses, np.broadcast_to(np.eye(2), (6, 5, 2, 2)))
    source = Motion(poses[4:5] * 0.3 + 0.6, driving.jacobian[:1])
    assert best_frame(source, driving) == 4


def test_fit_frames_resizes_any_shape_to_squares() -> None:
    frames = np.zeros((2, 10, 30, 3), np.uint8)
    frames[:, :, 15:] = 200
    fitted = fit_frames(frames, 8)
    assert fitted.shape == (2, 8, 8, 3)
    assert fitted.dtype == np.uint8
    assert (fitted[:, :, :3] == 0).all()
    assert (fitted[:, :, 5:] == 200).all()
    assert fit_frames(fitted, 8) is fitted


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    torch.manual_seed(0)
    config = debug_config()
    networks = build(config)
    path = tmp_path_factory.mktemp("onnx") / "motion.onnx"
    export_motion(networks, config, path)
    for network in networks.values():
        network.eval()
    return path, networks


def test_session_equals_torch(exported: tuple[Path, dict[str, torch.nn.Module]]) -> None:
    path, networks = exported
    session = MotionSession(path, providers=["CPUExecutionProvider"])
    session._batch = 3  # several batches and a remainder
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (7, 32, 32, 3), np.uint8)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    found = session.keypoints(frames)
    with torch.no_grad():
        expected = networks["keypoint_detector"](planes)
        source = networks["keypoint_detector"](planes[:1].expand(7, -1, -1, -1))
        rendered = networks["generator"](
            planes[:1].expand(7, -1, -1, -1), source_keypoints=source, driving_keypoints=expected
        )
    np.testing.assert_allclose(found.value, expected.value.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.jacobian, expected.jacobian.numpy(), atol=1e-3)
    frames_out = session.render(frames[0], found)
    assert frames_out.shape == (7, 32, 32, 3)
    assert frames_out.dtype == np.float32
    np.testing.assert_allclose(frames_out, rendered.prediction.permute(0, 2, 3, 1).numpy(), atol=1e-3)
    np.testing.assert_allclose(session.keypoints(frames / np.float32(255)).value, found.value, atol=1e-6)
    with pytest.raises(ValueError, match="fit_frames"):
        session.keypoints(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def model(exported: tuple[Path, dict[str, torch.nn.Module]]) -> MotionModel:
    made = MotionModel()
    made.load_context(SimpleNamespace(artifacts={"motion": str(exported[0])}))
    return made


def test_predict_takes_any_size_and_its_options_matter(model: MotionModel) -> None:
    rng = np.random.default_rng(4)
    given = {
        "source": rng.integers(0, 256, (1, 40, 24, 3), np.uint8),
        "driving": rng.integers(0, 256, (5, 18, 50, 3), np.uint8),
    }
    plain = model.predict(None, given)
    assert plain.shape == (5, 32, 32, 3)
    assert plain.dtype == np.float32
    assert 0 <= plain.min() <= plain.max() <= 1
    np.testing.assert_array_equal(plain, model.predict(None, given, {"relative": True}))
    absolute = model.predict(None, given, {"relative": False})
    assert np.abs(absolute - plain).max() > 1e-4
    assert not np.array_equal(model.predict(None, given, {"adapt_scale": True}), plain)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 2], "dict of numpy arrays"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8)}, "named source and driving"),
        ({"source": np.zeros((1, 4, 4, 3)), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "float64"),
        ({"source": np.zeros((4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, r"x\[None\]"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 4), np.uint8)}, "alpha"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8), "driving": np.zeros((0, 4, 4, 3), np.uint8)}, "at least one"),
        ({"source": np.zeros((2, 4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "one picture"),
        ({"source": "picture.png", "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "got str"),
    ],
)
def test_wrong_input_is_refused_in_words(model: MotionModel, given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model.predict(None, given)
