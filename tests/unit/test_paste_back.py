"""Faces put back into their photo: in the same place, with soft edges, and nothing else changed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from pipelines.paste_back import Paster
from preprocessing.align import TurnedSquare, cut_turned


def turned(x: float, y: float, side: float, degrees: float = 0.0) -> TurnedSquare:
    angle = math.radians(degrees)
    return TurnedSquare(x=x, y=y, right_x=side / 2 * math.cos(angle), right_y=side / 2 * math.sin(angle))


def smooth(height: int = 160, width: int = 200) -> np.ndarray:
    noise = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 6)
    made: np.ndarray = (255 * (soft - soft.min()) / (soft.max() - soft.min())).astype(np.uint8)
    return made


def plain(level: int, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


@pytest.mark.parametrize("square", [turned(100, 80, 90), turned(110.3, 75.6, 80, 33), turned(20, 20, 90, -20)])
def test_a_face_put_back_unchanged_is_the_photo(square: TurnedSquare) -> None:
    photo = smooth()
    face = cut_turned(photo, square, size_px=round(square.side))
    made = Paster(photo, [square], max_px=4000).paste([face])
    assert np.abs(made.astype(int) - photo).mean() < 0.5
    assert np.abs(made.astype(int) - photo).max() < 12


def test_the_middle_is_the_face_and_the_rest_the_photo() -> None:
    photo = smooth()
    made = Paster(photo, [turned(100, 80, 60, 20)], max_px=4000).paste([plain(250)])
    np.testing.assert_array_equal(made[70:90, 90:110], 250)
    changed = np.argwhere((made != photo).any(axis=-1))
    assert np.hypot(*(changed - (80, 100)).T).max() < 30 * math.sqrt(2)
    np.testing.assert_array_equal(made[:30], photo[:30])


def test_the_edge_fades() -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    row = Paster(black, [turned(49.5, 49.5, 80)], max_px=4000).paste([plain(200, 80)])[50, :, 0].astype(int)
    assert row[9] == 0
    assert row[50] == 200
    assert (np.diff(row[8:30]) >= 0).all()
    assert np.abs(np.diff(row)).max() < 50  # no line that one sees


def test_upright_directions_are_kept() -> None:
    face = np.zeros((60, 60, 3), np.uint8)
    face[:30, :, 0], face[:, :30, 1] = 255, 255  # red above, green on the left
    made = Paster(np.zeros((100, 100, 3), np.uint8), [turned(50, 50, 60, 90)], max_px=4000).paste([face])
    # the square's right side points down, so its upper side points right
    assert made[50, 65, 0] == 255
    assert made[50, 35, 0] == 0
    assert made[35, 50, 1] == 255
    assert made[65, 50, 1] == 0


def test_of_overlapping_faces_the_nearer_is_seen_whatever_their_order() -> None:
    black = np.zeros((120, 200, 3), np.uint8)
    squares, faces = [turned(80, 60, 80), turned(120, 60, 80)], [plain(100), plain(200)]
    made = Paster(black, squares, max_px=4000).paste(faces)
    swapped = Paster(black, squares[::-1], max_px=4000).paste(faces[::-1])
    np.testing.assert_allclose(made.astype(int), swapped, atol=1)
    assert made[60, 82, 0] == 100  # the centre of one is not covered by the other's edge
    assert made[60, 118, 0] == 200
    assert 100 <= made[60, 100, 0] <= 200  # halfway they blend, and the photo is not seen between them


def test_a_large_photo_is_scaled_down_with_its_faces() -> None:
    photo = smooth(400, 600)
    paster = Paster(photo, [turned(300, 200, 120)], max_px=150)
    assert paster.photo.shape == (100, 150, 3)
    assert abs(paster.squares[0].side - 30) < 0.1
    made = paster.paste([plain(255)])
    assert made[50, 75, 0] == 255
    assert (made != paster.photo).any(axis=-1).sum() < 31**2


def test_a_square_that_leaves_the_photo_is_cut_off() -> None:
    photo = smooth(60, 60)
    made = Paster(photo, [turned(0, 0, 50)], max_px=4000).paste([plain(255)])
    assert made[0, 0, 0] == 255
    np.testing.assert_array_equal(made[40:, 40:], photo[40:, 40:])
