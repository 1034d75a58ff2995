"""Boxes, detectors and tubes: a tube begins and ends on the right frame although only every k-th is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing import track as tracking
from preprocessing.boxes import Box, between, central_square, iou, square, surrounding_square, union
from preprocessing.camera import BreakReason, CameraWatch
from preprocessing.config import DatasetConfig
from preprocessing.crop import cut_item
from preprocessing.detect import FaceDetector, MotionDetector, detector_for, faces
from preprocessing.ledger import LedgerRow
from preprocessing.track import MAX_HOLE_FRAMES, Break, Fates, Tracker, Tube, follow, tracker_for
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
    assert len(tracker._window) <= 8 + MAX_HOLE_FRAMES + 1
    assert len(tracker._found) <= 32
    assert len(tracker._open) == 1
    assert max(len(tube.seen) for tube in tracker.finish()) <= 64 / 8 + 2


def test_large_frames_wait_scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright:
        is_exact = True

        def boxes(self, frame: np.ndarray) -> list[Box]:
            rows, columns = np.nonzero(frame[..., 0] > 128)
            return [Box(columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0)]

    frame = np.zeros((1440, 1920, 3), np.uint8)
    frame[400:800, 600:1000] = 255
    found = []
    for bound in (tracking.WINDOW_BYTES, 10 * frame.nbytes):
        monkeypatch.setattr(tracking, "WINDOW_BYTES", bound)
        tracker = Tracker(Bright(), iou_cut=0.25, max_frames=64, detect_every=8)
        for _ in range(20):
            tracker.add(frame)
        assert sum(waiting.nbytes for _, waiting, _ in tracker._window) <= bound
        found.append(tracker.finish()[0].box())
    assert found == [Box(600, 400, 1000, 800)] * 2


class Counted(FaceDetector):
    """Counts its looks."""

    def __init__(self) -> None:
        self.num_looks = 0

    def boxes(self, frame: np.ndarray) -> list[Box]:
        self.num_looks += 1
        return super().boxes(frame)


def face_config(**changes: object) -> DatasetConfig:
    return DatasetConfig(**{"kind": "faces", "source": "x", **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def woman(samples: Path) -> np.ndarray:
    return read_clip(samples / "faces" / "woman-expressions.mp4")[0]


@pytest.fixture(scope="module")
def womans_boxes(woman: np.ndarray) -> list[Box]:
    """By a look at every frame."""
    (tube,) = follow(woman, face_config(detect_every=1))
    assert [number for number, _ in tube.seen] == list(range(472))
    return [box for _, box in tube.seen]


def test_sparse_looks_agree_with_a_look_at_every_frame(woman: np.ndarray, womans_boxes: list[Box]) -> None:
    detector = Counted()
    (tube,) = follow(woman, face_config(detect_every=8), detector=detector)
    assert spans([tube]) == [(0, 472)]
    assert np.mean([iou(tube.box_at(number), box) for number, box in enumerate(womans_boxes)]) >= 0.9
    assert detector.num_looks <= 472 / 5


def test_the_same_of_a_short_video(samples: Path) -> None:
    frames, _ = read_clip(samples / "faces" / "man-smile.mp4")
    detector, every = Counted(), follow(frames, face_config(detect_every=1))[0]
    (tube,) = follow(frames, face_config(detect_every=8), detector=detector)
    assert np.mean([iou(tube.box_at(number), box) for number, box in every.seen]) >= 0.9
    assert detector.num_looks <= len(frames) / 5


@pytest.mark.parametrize("detect_every", [8, 16])
def test_what_is_held_holds_the_boxes_of_all_frames(
    woman: np.ndarray, womans_boxes: list[Box], detect_every: int
) -> None:
    (tube,) = follow(woman, face_config(detect_every=detect_every))
    held = tube.held(detect_every)
    for box in womans_boxes:
        assert held.left <= box.left
        assert held.top <= box.top
        assert held.right >= box.right
        assert held.bottom >= box.bottom


def test_the_crop_holds_the_face_in_all_frames(samples: Path, womans_boxes: list[Box], tmp_path: Path) -> None:
    source, frame = samples / "faces" / "woman-expressions.mp4", (640, 360)
    row = LedgerRow(item=source.name, origin=source.name, state="kept")
    result = cut_item(row, source, face_config(size_px=16, encoder_preset="ultrafast"), tmp_path)
    (clip,) = result.clips
    square = Box(*clip.box)
    assert square.width == square.height
    assert clip.num_frames + sum(result.dropped.values()) == len(womans_boxes)
    for box in womans_boxes[clip.start_frame : clip.start_frame + clip.num_frames]:
        assert union([square, box.within(frame)]) == square


def test_frames_and_batches_are_followed_alike(woman: np.ndarray) -> None:
    batches = [woman[:32], woman[32:64], woman[64:70]]
    assert [tube.seen for tube in follow(batches, face_config())] == [
        tube.seen for tube in follow(iter(woman[:70]), face_config())
    ]


def test_room_for_what_happened_between_looks() -> None:
    tube = Tube(seen=[(0, HERE), (8, HERE)])
    assert tube.held(1) == tube.box() == HERE
    assert tube.held(8) == tube.held(16) == Box(90, 40, 210, 160)


class Scene(CameraWatch):
    """A camera that moves when the script says so."""

    def __init__(self, script: dict[int, BreakReason]) -> None:
        self.script = script

    def look(self, frame: np.ndarray, subjects: object) -> BreakReason | None:
        return self.script.get(int(frame[0, 0]))


def test_tubes_end_where_the_camera_moves() -> None:
    watch = Scene({24: "camera-motion", 32: "camera-motion", 56: "intensity-jump"})
    tracker = Tracker(
        Scripted({number: [HERE] for number in range(80)}), iou_cut=0.25, max_frames=1024, detect_every=8, watch=watch
    )
    for number in range(80):
        tracker.add(np.full((1, 1), number, np.int64))
    assert spans(tracker.finish()) == [(0, 17), (24, 25), (32, 49), (56, 80)]
    assert tracker.breaks == [
        Break(17, 24, "camera-motion"),
        Break(25, 32, "camera-motion"),
        Break(49, 56, "intensity-jump"),
    ]


def test_who_comes_after_a_break_is_not_looked_for_before_it() -> None:
    tracker = Tracker(
        Scripted({number: [HERE] for number in range(18, 40)}),
        iou_cut=0.25,
        max_frames=1024,
        detect_every=8,
        watch=Scene({24: "camera-motion"}),
    )
    for number in range(40):
        tracker.add(np.full((1, 1), number, np.int64))
    assert spans(tracker.finish()) == [(24, 40)]


def test_each_frame_has_one_fate() -> None:
    fates = Fates()
    fates.mark((10, 40), "too-short")
    fates.mark((35, 50), "gap")
    assert fates.counts(60, [(40, 45), (44, 48)]) == {"no-subject": 20, "too-short": 25, "gap": 7}
    assert Fates().counts(5, []) == {"no-subject": 5}
    assert Fates().counts(5, [(0, 5)]) == {}


def test_groups_of_spans_that_overlap_little() -> None:
    spans = [(0, 10), (5, 15), (5, 8), (10, 20), (12, 13)]
    assert tracking.few_at_once(spans, 2) == [[0, 2, 3, 4], [1]]
    assert tracking.few_at_once(spans, 16) == [[0, 2, 1, 3, 4]]
    assert tracking.few_at_once([], 2) == []


def test_who_is_asked() -> None:
    assert isinstance(detector_for(face_config()), FaceDetector)
    moving = face_config(kind="bodies", body_detector="motion")
    assert isinstance(detector_for(moving), MotionDetector)
    assert tracker_for(moving)._watch is None
    watched = tracker_for(face_config(kind="bodies"), detector=FaceDetector())
    assert isinstance(watched._watch, CameraWatch)


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
