"""The networks that judge: real faces and persons with known answers; what is absent says why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from models.errors import EnvironmentProblem, SourceError
from pipelines import detectors, lookers, weights
from pipelines.params import EvaluationConfig
from pipelines.score import NOTHING, Network, Rests
from pipelines.stage import Paths
from pipelines.torchvision_here import nms, roi_align
from preprocessing.boxes import Box
from preprocessing.detect import faces
from preprocessing.video import read_frames
from training.metrics.aed import frame_aed
from training.metrics.akd_mkr import FRAME_PX, frame_akd, frame_akd_l2, frame_mkr


def cut(path: Path, *, num_frames: int) -> np.ndarray:
    """The same square round the first frame's face, out of every seventh frame, at 256 px."""
    frames = np.concatenate(list(read_frames(path)))[::7][:num_frames]
    box = faces(frames[0])[0]
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    reach = int(min(box.width, x, y, frames.shape[2] - x, frames.shape[1] - y))
    left, top = int(x) - reach, int(y) - reach
    parts = [frame[top : top + 2 * reach, left : left + 2 * reach] for frame in frames]
    return np.stack([cv2.resize(part, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_AREA) for part in parts])


@pytest.fixture(scope="module")
def woman(samples: Path) -> np.ndarray:
    return cut(samples / "faces" / "woman-expressions.mp4", num_frames=3)


@pytest.fixture(scope="module")
def man(samples: Path) -> np.ndarray:
    return cut(samples / "faces" / "man-smile.mp4", num_frames=3)


@pytest.fixture(scope="module")
def looker(tmp_path_factory: pytest.TempPathFactory) -> lookers.Looker:
    folder, options = tmp_path_factory.mktemp("weights"), EvaluationConfig()
    built = detectors.build("faces", options, folder, detectors.rests("faces", options, folder))
    assert built is not None
    return built


@pytest.fixture(scope="module")
def seen(looker: lookers.Looker, woman: np.ndarray) -> lookers.Seen:
    return looker.look(woman)


def identity(seen: lookers.Seen) -> np.ndarray:
    assert seen.identity is not None
    return seen.identity


def test_a_face_against_itself_differs_by_nothing(
    looker: lookers.Looker, woman: np.ndarray, seen: lookers.Seen
) -> None:
    again = looker.look(woman)
    assert not np.isnan(seen.points).any()
    np.testing.assert_array_equal(frame_akd(again.points, seen.points), 0)
    np.testing.assert_array_equal(frame_mkr(again.points, seen.points), 0)
    np.testing.assert_array_equal(frame_aed(identity(again), identity(seen)), 0)


def test_a_face_shifted_by_3_px_has_an_akd_of_about_one_and_a_half(
    looker: lookers.Looker, woman: np.ndarray, seen: lookers.Seen
) -> None:
    shifted = looker.look(np.roll(woman, 3, axis=2))
    np.testing.assert_allclose(frame_akd(shifted.points, seen.points), 1.5, atol=0.5)  # dlib's points are whole pixels
    np.testing.assert_allclose(frame_akd_l2(shifted.points, seen.points), 3.0, atol=0.5)
    assert frame_aed(identity(shifted), identity(seen)).max() < 0.02
    np.testing.assert_allclose(np.nanmean(shifted.points - seen.points, axis=(0, 1)), (3, 0), atol=0.4)


def test_another_person_is_clearly_further_than_the_same_one_later(
    looker: lookers.Looker, man: np.ndarray, seen: lookers.Seen
) -> None:
    other = frame_aed(identity(looker.look(man)), identity(seen))
    later = frame_aed(np.roll(identity(seen), 1, axis=0), identity(seen))
    assert other.min() > 0.36  # dlib's threshold of 0.6, squared
    assert other.min() > 3 * later.max()


def test_small_frames_are_enlarged_and_their_points_are_in_pixels_at_256(
    looker: lookers.Looker, woman: np.ndarray, seen: lookers.Seen
) -> None:
    small = np.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in woman])
    found = looker.look(small)
    assert frame_akd(found.points, seen.points).max() < 6
    assert lookers.fitted(small).shape == lookers.fitted(np.repeat(small, 8, 1).repeat(8, 2)).shape == woman.shape
    assert lookers.fitted(woman) is woman


def test_where_there_is_no_face_there_is_nothing(looker: lookers.Looker, woman: np.ndarray) -> None:
    found = looker.look(np.stack([np.full_like(woman[0], 128), woman[0]]))
    assert np.isnan(found.points[0]).all()
    assert np.isnan(identity(found)[0]).all()
    assert not np.isnan(found.points[1]).any()


def test_a_person_has_coco_joints(root: Path, samples: Path) -> None:
    options = EvaluationConfig()
    rests = detectors.rests("bodies", options, root / "weights")
    if isinstance(rests.points, str):
        pytest.skip(f"needs BlazePose: {rests.points}")
    built = detectors.build("bodies", options, root / "weights", rests)
    assert built is not None
    frame = next(read_frames(samples / "bodies" / "balance-front.mp4"))[0]
    shift = np.roll(frame, 12 * frame.shape[1] // FRAME_PX, axis=1)
    found = built.look(np.stack([np.asarray(cv2.resize(one, (FRAME_PX, FRAME_PX))) for one in (frame, shift)]))
    assert found.identity is None
    assert found.points.shape == (2, 17, 2)
    assert (~np.isnan(found.points).any(-1)).sum() >= 26
    head, feet = found.points[0, 0], found.points[0, 15:].mean(0)
    assert head[1] < feet[1] - 60
    np.testing.assert_allclose(np.nanmedian(found.points[1] - found.points[0], axis=0), (12, 0), atol=3)


def network(path: Path, size: tuple[int, int] = (24, 16)) -> Path:
    """An ONNX file whose embedding of a picture is its mean colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, *size])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3, 1, 1])
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["picture"], ["embedding"])], "mean", [entry], [out]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_no_metrics_asked_for_need_no_networks(tmp_path: Path) -> None:
    assert detectors.rests("faces", EvaluationConfig(metrics=()), tmp_path) is detectors.NOTHING


def test_a_users_network_of_faces_sees_the_face(tmp_path: Path, woman: np.ndarray) -> None:
    network(tmp_path / "face-identity" / "model.onnx")
    options = EvaluationConfig(face_identity="onnx")
    rests = detectors.rests("faces", options, tmp_path)
    assert isinstance(rests.identity, Network)
    assert rests.identity.name == "onnx-face"
    built = detectors.build("faces", options, tmp_path, rests)
    assert built is not None
    found = identity(built.look(woman[:1]))[0]
    assert found.shape == (3,)
    assert found[0] > found[2]  # skin is more red than blue
    assert 0 < found.min() < found.max() < 1


def test_a_users_network_of_bodies_sees_the_box(tmp_path: Path) -> None:
    embed = lookers.onnx_body_identity(network(tmp_path / "model.onnx"))
    frame = np.zeros((FRAME_PX, FRAME_PX, 3), np.uint8)
    frame[50:150, 100:140] = (255, 0, 0)
    points = np.full((17, 2), 100.0)
    box = Box(100.0, 50.0, 140.0, 150.0)
    red = (np.array([1.0, 0, 0]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(embed(frame, lookers.Subject(points, box)), red, atol=1e-5)
    outside = Box(240.0, -20.0, 300.0, 20.0)  # partly beyond the frame
    assert np.isfinite(embed(frame, lookers.Subject(points, outside))).all()


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(EnvironmentProblem, match=r"model\.onnx must take \(1, 3, H, W\)"):
        lookers.onnx_body_identity(path)


def test_faces_rest_on_dlib_with_its_checksums(tmp_path: Path) -> None:
    rests = detectors.rests("faces", EvaluationConfig(), tmp_path)
    assert isinstance(rests.points, Network)
    assert isinstance(rests.identity, Network)
    assert (rests.points.name, rests.identity.name) == ("dlib68", "dlib-resnet")
    assert [len(sum_) for sum_ in (*rests.points.sha256.values(), *rests.identity.sha256.values())] == [64, 64]
    assert "dlib-bin" in rests.points.what


@pytest.mark.parametrize("kind", ["cartoons", "images", "film"])
def test_no_detector_knows_cartoons(kind: Any, tmp_path: Path) -> None:
    rests = detectors.rests(kind, EvaluationConfig(), tmp_path)
    assert rests.points == rests.identity == f"no detector knows the subjects of {kind}"
    assert detectors.build(kind, EvaluationConfig(), tmp_path, rests) is None


def test_pixels_alone_need_no_network(tmp_path: Path) -> None:
    assert detectors.rests("faces", EvaluationConfig(metrics=("l1",)), tmp_path) is NOTHING
    rests = detectors.rests("faces", EvaluationConfig(metrics=("akd",)), tmp_path)
    assert isinstance(rests.points, Network)
    assert rests.identity == "no metric of identities was asked for"


def test_missing_files_are_named_with_the_command_that_brings_them(tmp_path: Path) -> None:
    rests = detectors.rests("bodies", EvaluationConfig(), tmp_path)
    assert "pose_detection.tflite, which is not there. Run `inkmotion weights fetch blazepose`." in str(rests.points)
    assert "model.onnx, which is not there" in str(rests.identity)
    assert "re-identification network such as OSNet" in str(rests.identity)


def test_packages_and_checksums_are_seen_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = EvaluationConfig(body_backend="keypoint-rcnn", face_backend="face-alignment")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", _only(find, without=("torchvision",)))
    assert "package torchvision, which is not installed" in str(detectors.rests("bodies", options, tmp_path).points)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find("json"))
    path = tmp_path / weights.CATALOGUE["keypoint-rcnn"].files[0].path
    path.parent.mkdir()
    path.write_bytes(b"other weights")
    assert "must have the sha256 fc266e95; got" in str(detectors.rests("bodies", options, tmp_path).points)
    missing = str(detectors.rests("faces", options, tmp_path).points)
    assert "s3fd-619a316812.pth, which is not there. Run `inkmotion weights import face-alignment FILE`" in missing


def _only(find: Callable[..., Any], *, without: tuple[str, ...]) -> Callable[..., Any]:
    return lambda name: None if name in without else find(name)


def test_a_users_file_is_imported_and_others_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INKMOTION_WEIGHTS", raising=False)
    paths, own = Paths(tmp_path / "project"), network(tmp_path / "osnet.onnx")
    placed = weights.import_file("body-identity", own, paths)
    assert placed == paths.weights / "body-identity" / "model.onnx"
    assert placed.read_bytes() == own.read_bytes()
    assert isinstance(detectors.rests("bodies", EvaluationConfig(), paths.weights).identity, Network)
    with pytest.raises(SourceError, match=r"be one of keypointrcnn_resnet50_fpn_coco-fc266e95\.pth; got a file with"):
        weights.import_file("keypoint-rcnn", own, paths)
    with pytest.raises(
        EnvironmentProblem, match=r"Get them from https://download\.pytorch\.org.* import keypoint-rcnn"
    ):
        weights.fetch("keypoint-rcnn", paths)


def test_optional_files_are_listed_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INKMOTION_WEIGHTS", raising=False)
    needed = {row.name for row in weights.listed(Paths(tmp_path))}
    everything = {row.name for row in weights.listed(Paths(tmp_path), optional=True)}
    assert needed == {"blazepose"}
    assert everything - needed == {"face-alignment", "keypoint-rcnn", "inception", "face-identity", "body-identity"}


def test_the_two_metrics_in_one_rest_on_both_networks() -> None:
    one, other = Network(name="a", what="x", sha256={"p": "1"}), Network(name="b", what="y", sha256={"q": "2"})
    [both] = [network for metric, network in Rests(points=one, identity=other) if metric.name == "eid"]
    assert both == Network(name="a+b", what="x; y", sha256={"p": "1", "q": "2"})
    [why] = [network for metric, network in Rests(points=one, identity="none") if metric.name == "eid"]
    assert why == "none"


def test_overlapping_boxes_leave_the_best() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [20, 20, 30, 40]])
    kept = nms(boxes, torch.tensor([0.5, 0.9, 0.1, 0.05]), 0.5)
    assert kept.tolist() == [1, 2, 3]  # the last two share exactly half
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1, 0.05]), 0.49).tolist() == [1, 2]
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_boxes_are_sampled_where_they_lie() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    ramps = torch.stack([torch.stack([x, y]), torch.stack([-x, y * 0 + 7])])
    boxes = torch.tensor([[0, 4.0, 6.0, 12.0, 14.0], [1, 8.0, 8.0, 24.0, 12.0]])
    made = roi_align(ramps, boxes, 0.5, 2, 4, 2, False)
    assert made.shape == (2, 2, 2, 4)
    torch.testing.assert_close(made[0, 0, 0], torch.tensor([2.5, 3.5, 4.5, 5.5]))  # middles of 4 parts of 2 to 6
    torch.testing.assert_close(made[0, 1, :, 0], torch.tensor([4.0, 6.0]))
    torch.testing.assert_close(made[1, 0, 0], torch.tensor([-5.0, -7.0, -9.0, -11.0]))
    torch.testing.assert_close(made[1, 1], torch.full((2, 4), 7.0))
    shifted = roi_align(ramps, boxes[:1], 0.5, 2, 4, 2, True)
    torch.testing.assert_close(shifted[0, 0, 0], made[0, 0, 0] - 0.5)
    assert roi_align(ramps, boxes[:0], 0.5, 2, 4, 2, False).shape == (0, 2, 2, 4)
    far = torch.tensor([[0, 100.0, 100.0, 140.0, 140.0]])
    assert roi_align(ramps, far, 1.0, 2, 2, 2, False).abs().sum() == 0
    with pytest.raises(NotImplementedError, match="compiled operators"):
        roi_align(ramps, boxes, 0.5, 2, 4, 0, False)
