"""The self-contained model file: motion transfer against published maths, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import motion_kit
import numpy as np
import pytest
import torch
from motion_kit import SIZE, pictures, planes

from models.motion.keypoints import Keypoints
from pipelines.served import example
from pipelines.served.motion import (
    DEFAULTS,
    Motion,
    MotionModel,
    MotionSession,
    best_frame,
    fit_frames,
    hull_area,
    joined,
    movement_scale,
    smooth,
    smoothed,
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


def _walk(num_frames: int, *, regions: bool = False) -> Motion:
    """Keypoints that tremble."""
    rng = np.random.default_rng(5)
    value = (np.cumsum(rng.normal(0, 0.05, (num_frames, 4, 2)), axis=0)).astype(np.float32)
    if not regions:
        return Motion(value, (np.eye(2) + rng.normal(0, 0.1, (num_frames, 4, 2, 2))).astype(np.float32))
    root = 0.2 * np.eye(2) + rng.normal(0, 0.05, (num_frames, 4, 2, 2))
    covariance = (root @ root.swapaxes(-1, -2)).astype(np.float32)
    turned, variances, _ = np.linalg.svd(covariance)
    return Motion(value, turned * np.sqrt(variances)[..., None, :], covariance)


def _roughness(array: np.ndarray) -> float:
    return float(np.abs(np.diff(array, n=2, axis=0)).mean())


@pytest.mark.parametrize("regions", [False, True])
def test_smoothing_calms_and_delays_nothing(regions: bool) -> None:
    rough = _walk(60, regions=regions)
    calm = smooth(rough, 2.0)
    assert _roughness(calm.value) < 0.3 * _roughness(rough.value)
    forth, back = smooth(rough.part(0), 2.0), smooth(Motion(*(None if a is None else a[::-1] for a in rough)), 2.0)
    np.testing.assert_allclose(forth.value, back.value[::-1], atol=1e-6)
    assert smooth(rough, 0.0) is rough
    if not regions:
        assert _roughness(calm.jacobian) < 0.3 * _roughness(rough.jacobian)
        return
    assert calm.covariance is not None
    assert _roughness(calm.covariance) < 0.3 * _roughness(rough.covariance)  # type: ignore[arg-type]
    np.testing.assert_allclose(calm.jacobian @ calm.jacobian.swapaxes(-1, -2), calm.covariance, atol=1e-6)


def test_smoothing_keeps_what_stands_still_and_what_moves_evenly() -> None:
    still = _walk(1, regions=True)
    held = joined([still] * 9)
    np.testing.assert_allclose(smooth(held, 3.0).value, held.value, atol=1e-6)
    np.testing.assert_allclose(smooth(held, 3.0).jacobian, held.jacobian, atol=1e-5)
    even = Motion(
        np.arange(41, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32), np.zeros((41, 2, 2, 2))
    )
    np.testing.assert_allclose(smooth(even, 2.0).value[6:-6], even.value[6:-6], atol=1e-5)


def test_axes_that_change_their_order_are_not_averaged_away() -> None:
    """Two nearly round regions, the long axis now this one, now that: a mean of the matrices would have no area."""
    wide, tall = np.diag([0.0101, 0.01]), np.diag([0.01, 0.0101])
    covariance = np.stack([wide, tall] * 8)[:, None].astype(np.float32)
    turned, variances, _ = np.linalg.svd(covariance)
    axes = turned * np.sqrt(variances)[..., None, :]
    calm = smooth(Motion(np.zeros((16, 1, 2), np.float32), axes, covariance), 2.0)
    np.testing.assert_allclose(np.abs(np.linalg.det(calm.jacobian)), 0.01, rtol=0.05)


@pytest.mark.parametrize("sizes", [(1,) * 25, (16, 9), (25,), (3, 1, 20, 1)])
@pytest.mark.parametrize("width", [0.0, 0.4, 2.0, 30.0])
def test_smoothing_as_frames_come_equals_smoothing_of_all(sizes: tuple[int, ...], width: float) -> None:
    whole = _walk(25, regions=True)
    starts = np.cumsum((0, *sizes))
    parts = (whole.part(start, stop) for start, stop in zip(starts[:-1], starts[1:], strict=True))
    found, wanted = joined(list(smoothed(parts, width))), smooth(whole, width)
    for name in ("value", "jacobian", "covariance"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-6, err_msg=name)


def test_smoothing_as_frames_come_holds_few_back() -> None:
    given = 0

    def coming() -> Iterator[Motion]:
        nonlocal given
        for place in range(200):
            given += 1
            yield whole.part(place, place + 1)

    whole, got = _walk(200), 0
    for part in smoothed(coming(), 2.0):
        got += len(part.value)
        assert given - got <= 6
    assert got == 200


@pytest.mark.parametrize("width", [-1.0, float("inf"), float("nan")])
def test_a_senseless_width_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="smoothing must be 0 or more frames"):
        smooth(_walk(3), width)


def test_regions_always_scale_and_keep_the_driving_covariance() -> None:
    source, driving = _walk(1, regions=True), _walk(5, regions=True)
    source = source._replace(value=source.value * 3)
    free, scaled = (transfer(source, driving, driving.take(0), relative=True, adapt_scale=on) for on in (False, True))
    for name in ("value", "jacobian", "covariance"):
        np.testing.assert_array_equal(getattr(free, name), getattr(scaled, name))
    np.testing.assert_array_equal(free.covariance, driving.covariance)
    assert movement_scale(source, driving.take(0)) == pytest.approx(3, rel=1e-3)


def session_of(preset: str) -> MotionSession:
    return MotionSession(motion_kit.exported(preset).path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("preset", ["fomm", "articulated"])
def test_session_equals_torch(preset: str) -> None:
    kit, session, frames = motion_kit.exported(preset), session_of(preset), pictures(7)
    session._batch = 3  # several batches and a remainder
    found = session.keypoints(frames)
    with torch.inference_mode():
        expected: Keypoints = kit.networks["keypoint_detector"](planes(frames))
        first = planes(frames[:1]).expand(7, -1, -1, -1)
        source = kit.networks["keypoint_detector"](first)
        rendered = kit.networks["generator"](first, source_keypoints=source, driving_keypoints=expected)
    for name, part in expected._asdict().items():
        got = getattr(found, name)
        assert (got is None) == (part is None)
        if part is not None:
            np.testing.assert_allclose(got, part.numpy(), atol=1e-4, err_msg=name)
    frames_out = session.render(frames[0], found)
    assert frames_out.shape == (7, SIZE, SIZE, 3)
    assert frames_out.dtype == np.float32
    np.testing.assert_allclose(frames_out, rendered.prediction.permute(0, 2, 3, 1).numpy(), atol=1e-3)
    np.testing.assert_allclose(session.keypoints(frames / np.float32(255)).value, found.value, atol=1e-6)
    with pytest.raises(ValueError, match="fit_frames"):
        session.keypoints(np.zeros((1, 8, 8, 3), np.uint8))


def test_avd_equals_torch_and_is_refused_where_there_is_none() -> None:
    kit, session, frames = motion_kit.exported("articulated"), session_of("articulated"), pictures(5)
    pose = session.keypoints(frames)
    found = session.disentangle(frames[4], pose)
    with torch.inference_mode():
        detector = kit.networks["keypoint_detector"]
        wanted = kit.networks["avd"](detector(planes(frames[4:])).expand(5), detector(planes(frames)))
    for name, part in wanted._asdict().items():
        np.testing.assert_allclose(getattr(found, name), part.numpy(), atol=1e-4, err_msg=name)
    assert session.has_avd
    plain = session_of("fomm")
    assert not plain.has_avd
    with pytest.raises(ValueError, match="mode avd must be used with a model that has an AVD network"):
        list(plain.animate(frames[0], frames, mode="avd"))
    with pytest.raises(ValueError, match="mode must be one of relative, absolute, avd; got sideways"):
        list(plain.animate(frames[0], frames, mode="sideways"))


def test_a_source_is_encoded_once_and_a_changed_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session, frames = session_of("fomm"), pictures(9)
    asked: list[str] = []
    run = session._run
    monkeypatch.setattr(session, "_run", lambda head, **feeds: asked.append(head) or run(head, **feeds))
    motion = session.keypoints(frames)
    source = frames[0].copy()
    first = [session.render(source, motion.part(start, start + 2)) for start in (0, 2, 4)]
    assert asked.count("encoded") == 1
    source[:] = frames[1]
    assert np.abs(session.render(source, motion.part(0, 2)) - first[0]).max() > 1e-4
    assert asked.count("encoded") == 2
    for frame in frames:
        session.render(frame, motion.part(0, 1))
    assert len(session._encoded) == 4


def test_a_video_as_an_iterator_equals_a_video_at_once() -> None:
    session, frames = session_of("articulated"), pictures(11)
    session._batch, taken = 3, 0
    source, driving = frames[:1], frames[1:]

    def coming() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in driving:
            taken += 1
            yield frame

    made = MotionModel()
    made._motion = session
    for mode, smoothing in (("relative", 0.0), ("relative", 0.5), ("avd", 0.0)):
        wanted = made.predict(None, {"source": source, "driving": driving}, {"mode": mode, "smoothing": smoothing})
        got, taken = [], 0
        for frame in session.animate(source[0], coming(), mode=mode, smoothing=smoothing):
            got.append(frame)
            assert taken - len(got) <= 2 * session._batch + 2
        np.testing.assert_allclose(np.stack(got), wanted, atol=1e-5)


def test_an_older_graph_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    port = onnx.helper.make_tensor_value_info("source", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["source"], ["prediction"])], "g", [port], [out])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9),
        tmp_path / "old.onnx",
    )
    with pytest.raises(ValueError, match="must have an input called part"):
        MotionSession(tmp_path / "old.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model() -> MotionModel:
    made = MotionModel()
    made.load_context(SimpleNamespace(artifacts={"motion": str(motion_kit.exported("fomm").path)}))
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
    np.testing.assert_array_equal(absolute, model.predict(None, given, {"mode": "absolute"}))
    for change in ({"adapt_scale": True}, {"smoothing": 2.0}):
        assert not np.array_equal(model.predict(None, given, change), plain)
    with pytest.raises(ValueError, match="has an AVD network"):
        model.predict(None, given, {"mode": "avd"})


def test_several_sources_give_a_video_each(model: MotionModel) -> None:
    frames = pictures(6)
    many = model.predict(None, {"source": frames[:2], "driving": frames[2:]}, {"find_best_frame": True})
    assert many.shape == (2, 4, SIZE, SIZE, 3)
    for place in range(2):
        given = {"source": frames[place : place + 1], "driving": frames[2:]}
        np.testing.assert_array_equal(many[place], model.predict(None, given, {"find_best_frame": True}))


def test_the_signature_knows_every_parameter() -> None:
    known = {spec.name: spec.default for spec in example.motion_signature().params.params}
    assert known == DEFAULTS


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 2], "dict of numpy arrays"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8)}, "named source and driving"),
        ({"source": np.zeros((1, 4, 4, 3)), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "float64"),
        ({"source": np.zeros((4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, r"x\[None\]"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 4), np.uint8)}, "alpha"),
        ({"source": np.zeros((1, 4, 4, 3), np.uint8), "driving": np.zeros((0, 4, 4, 3), np.uint8)}, "at least one"),
        ({"source": np.zeros((0, 4, 4, 3), np.uint8), "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "at least one"),
        ({"source": "picture.png", "driving": np.zeros((1, 4, 4, 3), np.uint8)}, "got str"),
    ],
)
def test_wrong_input_is_refused_in_words(model: MotionModel, given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model.predict(None, given)
