"""Whether the camera holds still: what moves before it does not count, what it does itself is measured in pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from preprocessing.boxes import Box
from preprocessing.camera import HEIGHT_PX, CameraWatch


def scene(seed: int = 0, height: int = 500, width: int = 900) -> np.ndarray:
    """A textured picture, larger than a frame."""
    coarse = np.random.default_rng(seed).integers(40, 216, (height // 10, width // 10, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def frame(picture: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """A frame of 640 x 360 that begins at (40 + x, 40 + y)."""
    onto = np.array([[1, 0, 40 + x], [0, 1, 40 + y]], np.float64)
    return np.asarray(cv2.warpAffine(picture, onto, (640, 360), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))


def watch() -> CameraWatch:
    return CameraWatch(max_flow_px=1.0, max_jump=1.5)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0.5, 0), (3, 0), (0, -7.5), (12, 9)])
def test_a_pan_is_measured(x: float, y: float) -> None:
    camera, picture = watch(), scene()
    assert camera.look(frame(picture), []) is None
    reason = camera.look(frame(picture, x, y), [])
    assert camera.flow_px == pytest.approx(np.hypot(x, y), abs=0.1)
    assert reason == ("camera-motion" if np.hypot(x, y) > 1 else None)


def test_pixels_are_those_of_a_frame_of_fixed_height() -> None:
    camera, picture = watch(), scene()
    for x in (0, 3):
        camera.look(np.asarray(cv2.resize(frame(picture, x), (1280, 720))), [])
    assert camera.flow_px == pytest.approx(3, abs=0.15)
    assert HEIGHT_PX == 360


def test_a_zoom_counts_as_motion() -> None:
    camera, picture = watch(), scene()
    camera.look(frame(picture), [])
    larger = cv2.resize(frame(picture)[9:351, 16:624], (640, 360), interpolation=cv2.INTER_LINEAR)
    assert camera.look(np.asarray(larger), []) == "camera-motion"


def test_who_moves_before_a_still_camera_does_not_count() -> None:
    camera, picture, body = watch(), scene(), scene(5)[:300, :340]
    for step in range(6):  # more than half of the picture
        shown = frame(picture)
        left = 40 + 30 * step
        shown[30:330, left : left + 340] = body
        assert camera.look(shown, [Box(left, 30, left + 340, 330)]) is None
        assert camera.flow_px < 0.2


def test_without_the_subjects_box_the_same_would_count() -> None:
    camera, picture, body = watch(), scene(), scene(5)[:300, :520]
    for left in (40, 70):
        shown = frame(picture)
        shown[30:330, left : left + 520] = body
        reason = camera.look(shown, [])
    assert reason == "camera-motion"


def test_another_scene_is_a_break() -> None:
    camera = watch()
    assert camera.look(frame(scene(0)), []) is None
    assert camera.look(frame(scene(1)), []) == "camera-motion"
    assert camera.look(frame(scene(1)), []) is None


def test_a_jump_of_the_light() -> None:
    camera, picture = watch(), scene()
    camera.look(frame(picture), [])
    assert camera.look((frame(picture) * 0.75).astype(np.uint8), []) is None
    assert camera.jump == pytest.approx(4 / 3, abs=0.02)
    assert camera.look((frame(picture) * 0.4).astype(np.uint8), []) == "intensity-jump"
    assert camera.jump == pytest.approx(0.75 / 0.4, abs=0.05)


def test_black_and_plain_pictures_say_nothing() -> None:
    camera = watch()
    for value in (0, 0, 1, 1):
        assert camera.look(np.full((90, 160, 3), value, np.uint8), []) is None
    plain = watch()
    plain.look(np.full((90, 160, 3), 200, np.uint8), [])
    assert plain.look(np.full((90, 160, 3), 210, np.uint8), [Box(0, 0, 160, 90)]) is None
    assert plain.flow_px == 0
