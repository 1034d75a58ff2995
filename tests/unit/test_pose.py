"""Persons and their keypoints: where they are, whichever way up, and what is said when the networks are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import EnvironmentProblem
from preprocessing import pose
from preprocessing.boxes import Box
from preprocessing.pose import FILES, NUM_KEYPOINTS, PoseDetector, weights_folder
from preprocessing.video import read_clip, read_picture

NOSE, SHOULDERS, WRISTS, HIPS, ANKLES = 0, (11, 12), (15, 16), (23, 24), (27, 28)
MIRRORED = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9] + [place for pair in range(11, 33, 2) for place in (pair + 1, pair)]
needs_weights = pytest.mark.skipif(
    not all((weights_folder() / name).is_file() for name in FILES),
    reason="weights/blazepose is not there: run `inkmotion weights fetch blazepose`",
)


@pytest.fixture(scope="module")
def detector() -> PoseDetector:
    return PoseDetector(weights_folder())


@pytest.fixture(scope="module")
def person(samples: Path) -> np.ndarray:
    """A standing person, 1080 x 1920."""
    return read_picture(samples / "bodies" / "balance-side.mp4")


def test_missing_networks_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"pose_detection\.tflite must be there .*`inkmotion weights fetch"):
        PoseDetector(tmp_path)


def test_a_broken_network_is_named(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no network at all")
    with pytest.raises(EnvironmentProblem, match=r"pose_detection\.tflite must be a network; got "):
        PoseDetector(tmp_path)


def test_the_folder_of_the_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INKMOTION_WEIGHTS", raising=False)
    assert weights_folder() == root / "weights"
    monkeypatch.setenv("INKMOTION_WEIGHTS", "/elsewhere")
    assert weights_folder() == Path("/elsewhere")


def test_anchors_are_the_centres_of_three_grids() -> None:
    anchors = pose._anchors()
    assert anchors.shape == (2254, 2)
    assert anchors[[0, 1, 2]].tolist() == [[0.5 / 28] * 2, [0.5 / 28] * 2, [1.5 / 28, 0.5 / 28]]
    assert anchors[28 * 28 * 2].tolist() == [0.5 / 14, 0.5 / 14]
    assert anchors[-1].tolist() == [6.5 / 7, 6.5 / 7]


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (640, 640), (3000, 500), (17, 3)])
def test_windows_cover_the_frame_and_stay_inside(size: tuple[int, int]) -> None:
    for windows in pose._windows(size, 0.1 * size[1]):
        covered = np.zeros(size[::-1], bool)
        for left, top, right, bottom in (map(int, window) for window in windows):
            assert 0 <= left < right <= size[0]
            assert 0 <= top < bottom <= size[1]
            covered[top:bottom, left:right] = True
        assert covered.all()


def test_finer_windows_only_where_smaller_persons_are_wanted() -> None:
    assert len(list(pose._windows((1920, 1080), 0.1 * 1080))) == 2
    assert len(list(pose._windows((1920, 1080), 0.5 * 1080))) == 1


def test_detections_of_one_head_are_averaged() -> None:
    def body(x: float) -> np.ndarray:
        return np.array([[x, 50], [40, 40], [x, 150], [x, 20], [0, 0], [0, 0]], np.float64)

    merged = pose._merged([(0.5, body(104)), (1.0, body(101)), (0.9, body(300))])
    assert [round(float(found[2][0]), 6) for found in merged] == [102.0, 300.0]


@needs_weights
def test_keypoints_are_where_the_person_has_them(detector: PoseDetector, person: np.ndarray) -> None:
    (found, *_) = detector.keypoints(person)
    assert found.keypoints.shape == (NUM_KEYPOINTS, 3)
    assert found.keypoints.dtype == np.float32
    assert 0.9 < found.score <= 1
    places = found.keypoints[:, :2]
    # read off the picture by eye; 1 % of the frame's height is 19 px
    for number, place in {NOSE: (548, 480), 11: (618, 537), 12: (478, 545), 15: (710, 760), 16: (425, 775)}.items():
        assert np.hypot(*(places[number] - place)) < 40, f"keypoint {number} at {places[number]}"
    down = [places[list(pair), 1].mean() for pair in (SHOULDERS, HIPS, ANKLES)]
    assert places[NOSE, 1] < down[0] < down[1] < down[2]
    assert ((found.keypoints[:, 2] >= 0) & (found.keypoints[:, 2] <= 1)).all()


@needs_weights
def test_the_box_holds_the_body_and_the_head(detector: PoseDetector, person: np.ndarray) -> None:
    (found, *_) = detector.keypoints(person)
    left, top, right, bottom = found.box
    places = found.keypoints[:, :2]
    assert (places >= (left, top)).all()
    assert (places <= (right, bottom)).all()
    assert top < 405, "the cap's top, read off the picture"
    assert found.box.height < 0.5 * person.shape[0]
    assert detector.boxes(person)[0] == found.box


@needs_weights
def test_a_mirrored_person_is_found_mirrored(detector: PoseDetector, person: np.ndarray) -> None:
    (found, *_), (mirrored, *_) = detector.keypoints(person), detector.keypoints(np.ascontiguousarray(person[:, ::-1]))
    back = mirrored.keypoints[MIRRORED, :2] * (-1, 1) + (person.shape[1] - 1, 0)
    assert np.median(np.linalg.norm(back - found.keypoints[:, :2], axis=1)) < 0.03 * found.box.height


@needs_weights
def test_a_lying_person_is_found_lying(detector: PoseDetector, person: np.ndarray) -> None:
    (found, *_) = detector.keypoints(person)
    (lying, *_) = detector.keypoints(np.ascontiguousarray(np.rot90(person)))
    turned = np.stack([found.keypoints[:, 1], person.shape[1] - 1 - found.keypoints[:, 0]], axis=1)
    assert np.median(np.linalg.norm(lying.keypoints[:, :2] - turned, axis=1)) < 0.05 * found.box.height


@needs_weights
def test_two_persons_far_away(samples: Path, detector: PoseDetector) -> None:
    frames, _ = read_clip(samples / "bodies" / "walk.mp4", max_frames=77)
    exercising, walking = sorted(detector.boxes(frames[76]))
    assert exercising.bottom < walking.bottom
    for box, place in ((exercising, (635, 270)), (walking, (1260, 740))):
        assert box.left < place[0] < box.right
        assert box.top < place[1] < box.bottom
        assert 0.35 < box.height / frames.shape[1] < 0.55


@needs_weights
def test_nobody_there_or_too_small(detector: PoseDetector, person: np.ndarray) -> None:
    assert detector.keypoints(np.full((270, 480, 3), 127, np.uint8)) == []
    assert detector.keypoints(np.zeros((3, 17, 3), np.uint8)) == []
    assert PoseDetector(weights_folder(), min_share=0.6).keypoints(person) == []


@needs_weights
def test_the_same_frame_gives_the_same_boxes(detector: PoseDetector, person: np.ndarray) -> None:
    assert detector.boxes(person) == PoseDetector(weights_folder()).boxes(person.copy())


def test_boxes_within_boxes_are_one_person() -> None:
    def found(box: Box, score: float) -> pose.Person:
        return pose.Person(keypoints=np.zeros((33, 3), np.float32), box=box, score=score)

    whole, part, other = Box(0, 0, 100, 200), Box(10, 10, 90, 90), Box(300, 0, 350, 200)
    kept = pose._distinct([found(part, 0.99), found(other, 0.8), found(whole, 1.0)])
    assert [person.box for person in kept] == [whole, other]
