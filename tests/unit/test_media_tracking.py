"""Boxes, detectors and tubes: a tube begins and ends on the right frame although only every k-th is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.boxes import Box, between, central_square, iou, square, surrounding_square, union
from preprocessing.detect import FaceDetector, MotionDetector, faces, small
from preprocessing.track import MAX_HOLE_FRAMES, Tracker, Tube
from preprocessing.video import read_clip, read_picture

HERE = Box(100.0, 50.0, 200.0, 150.0)


def moved(box: Box, x: float) -> Box:
    return Box(box.left + x, box.top, box.right + x, box.bottom)


class Scripted:
    """Finds what the script says; a frame's number is its only pixel."""

    is_exact = True

    def __init__(self, script: dict[int, list[Box]]) -> None:
        self.script, self.looked = script, []

    def boxes(self, frame: np.ndarray) -> list[Box]:
        self.looked.append(int(frame[0, 0]))
        return self.script.get(int(frame[0, 0]), [])


def track(script: dict[int, list[Box]], num_frames: int, **options: float) -> tuple[list[Tube], list[int]]:
    detector = Scripted(script)
    chosen = {"iou_cut": 0.25, "max_frames": 1024, "detect_every": 8, **options}
    tracker = Tracker(detector, **chosen)  # type: ignore[arg-type]
    for number in range(num_frames):
        tracker.add(np.full((1, 1), number, np.int64))
    return tracker.finish(), detector.looked


def spans(tubes: list[Tube]) -> list[tuple[int, int]]:
    return [(tube.start_frame, tube.end_frame) for tube in tubes]


def test_iou_and_union() -> None:
    assert iou(HERE, HERE) == 1
    assert iou(HERE, moved(HERE, 50)) == pytest.approx(1 / 3)
    assert iou(HERE, moved(HERE, 100)) == iou(HERE, moved(HERE, 500)) == 0
    assert union([HERE, moved(HERE, 30)]) == Box(100, 50, 230, 150)
    assert between(HERE, moved(HERE, 40), 0.25) == moved(HERE, 10)


def test_the_square_grows_and_is_shifted_inside() -> None:
    assert square(HERE, increase=0.1, frame=(640, 360), outside="pad") == Box(90, 40, 210, 160)
    assert square(Box(0, 0, 100, 100), increase=0.1, frame=(640, 360), outside="reject") == Box(0, 0, 120, 120)
    assert square(Box(560, 300, 640, 360), increase=0, frame=(640, 360), outside="reject") == Box(560, 280, 640, 360)


def test_growth_is_given_up_before_anything_is_padded() -> None:
    assert square(Box(10, 0, 350, 360), increase=0.3, frame=(640, 360), outside="reject") == Box(0, 0, 360, 360)


def test_what_does_not_fit_is_padded_or_rejected() -> None:
    wide = Box(20, 100, 520, 200)
    assert square(wide, increase=0, frame=(640, 360), outside="reject") is None
    padded = square(wide, increase=0, frame=(640, 360), outside="pad")
    assert padded == Box(20, -70, 520, 430)
    assert padded.width == padded.height


def test_what_lies_outside_the_frame_does_not_count() -> None:
    assert square(Box(-80, -40, 100, 100), increase=0, frame=(640, 360), outside="reject") == Box(0, 0, 100, 100)


def test_squares_of_whole_frames() -> None:
    assert central_square((640, 360)) == Box(140, 0, 500, 360)
    assert surrounding_square((100, 60)) == Box(0, -20, 100, 80)


def test_a_face_that_stays_is_one_tube_and_seldom_looked_at() -> None:
    tubes, looked = track({number: [HERE] for number in range(101)}, 101)
    assert spans(tubes) == [(0, 101)]
    assert looked == list(range(0, 101, 8)) + [100] * (100 % 8 != 0)


@pytest.mark.parametrize("last", [63, 64, 65, 71, 72])
def test_the_end_is_found_within_the_gap(last: int) -> None:
    tubes, _ = track({number: [HERE] for number in range(last + 1)}, 150)
    assert spans(tubes) == [(0, last + 1)]


@pytest.mark.parametrize("first", [1, 8, 13, 16, 17])
def test_the_beginning_is_found_within_the_gap(first: int) -> None:
    tubes, _ = track({number: [HERE] for number in range(first, 90)}, 90)
    assert spans(tubes) == [(first, 90)]


@pytest.mark.parametrize("hole", range(1, MAX_HOLE_FRAMES + 1))
def test_a_short_hole_is_bridged(hole: int) -> None:
    missing = set(range(41 - hole, 41))
    tubes, _ = track({number: [HERE] for number in range(90) if number not in missing}, 90)
    assert spans(tubes) == [(0, 90)]


def test_a_long_hole_parts_two_tubes() -> None:
    tubes, _ = track({number: [HERE] for number in range(120) if not 37 <= number < 61}, 120)
    assert spans(tubes) == [(0, 37), (61, 120)]


def test_a_tube_is_cut_at_its_longest() -> None:
    tubes, _ = track({number: [HERE] for number in range(100)}, 100, max_frames=30)
    assert spans(tubes) == [(0, 30), (30, 60), (60, 90), (90, 100)]


def test_a_face_that_wanders_off_its_first_place_begins_anew() -> None:
    script = {number: [moved(HERE, 2.0 * number)] for number in range(100)}
    tubes, _ = track(script, 100)
    assert len(tubes) > 1
    assert sum(tube.num_frames for tube in tubes) == 100
    for tube in tubes:
        first = tube.seen[0][1]
        assert all(iou(first, box) >= 0.15 for _, box in tube.seen)
        for number in range(tube.start_frame, tube.end_frame):
            assert iou(tube.box_at(number), script[number][0]) > 0.95


def test_two_faces_are_two_tubes() -> None:
    script = {number: [HERE, moved(HERE, 300 - number / 2)] for number in range(64)}
    tubes, _ = track(script, 64)
    assert spans(tubes) == [(0, 64), (0, 64)]
    assert {tube.seen[0][1].left for tube in tubes} == {100.0, 400.0}


def test_nobody_there() -> None:
    assert track({}, 50)[0] == []


def test_memory_does_not_grow_with_the_video() -> None:
    detector = Scripted({number: [HERE] for number in range(5000)})
    tracker = Tracker(detector, iou_cut=0.25, max_frames=64, detect_every=8)
    for number in range(5000):
        tracker.add(np.full((1, 1), number, np.int64))
    assert len(tracker._window) <= 2 * 8 + MAX_HOLE_FRAMES + 1
    assert len(tracker._found) <= 32


def test_sparse_looks_agree_with_a_look_at_every_frame(samples: Path) -> None:
    frames, _ = read_clip(samples / "faces" / "man-smile.mp4")
    detector = FaceDetector()
    tracker = Tracker(detector, iou_cut=0.25, max_frames=1024, detect_every=8)
    grays = [small(frame)[0] for frame in frames]
    for gray in grays:
        tracker.add(gray)
    (tube,) = tracker.finish()
    overlaps = [iou(tube.box_at(number), detector.boxes(grays[number])[0]) for number in range(0, 72, 3)]
    assert np.mean(overlaps) > 0.9


def test_faces_of_photographs(samples: Path) -> None:
    assert len(faces(read_picture(samples / "portraits" / "five-people.jpg"))) >= 3
    assert len(faces(read_picture(samples / "portraits" / "man-smiling.jpg"))) == 1
    assert faces(np.full((200, 300, 3), 127, np.uint8)) == []


def body(place: int) -> np.ndarray:
    frame = np.full((360, 480), 90, np.uint8)
    frame[100:300, place : place + 60] = np.random.default_rng(5).integers(120, 255, (200, 60))
    return frame


def test_what_moves_is_a_body() -> None:
    detector = MotionDetector()
    assert detector.boxes(body(100)) == []
    for step in range(1, 5):
        (found,) = detector.boxes(body(100 + 6 * step))
    assert iou(found, Box(100, 100, 184, 300)) > 0.8
    assert detector.boxes(body(124)) == [found] or iou(detector.boxes(body(124))[0], found) > 0.9


def test_a_new_scene_begins_anew() -> None:
    detector = MotionDetector()
    for step in range(4):
        detector.boxes(body(100 + 6 * step))
    other = np.random.default_rng(1).integers(0, 255, (360, 480)).astype(np.uint8)
    assert detector.boxes(other) == []
    assert detector.boxes(other) == []
