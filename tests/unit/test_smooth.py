"""Edge-smoothed copies: blurred along the edges, untouched elsewhere, the same every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocessing.boxes import central_square
from preprocessing.crop import crop_frames
from preprocessing.smooth import near_edges, smoothed, write_smooth
from preprocessing.video import read_picture

PAINTINGS = ("greatwave.jpg", "albrechtdurer.jpg", "anime-club.jpg", "hokusaibridge.jpg")


def painting(samples: Path, name: str) -> np.ndarray:
    picture = read_picture(samples / "paintings" / name)
    box = central_square((picture.shape[1], picture.shape[0]))
    return np.asarray(crop_frames(picture[None], box, size_px=256)[0])


def sharpness(picture: np.ndarray, where: np.ndarray) -> float:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    down, across = np.gradient(gray)
    return float(np.hypot(down, across)[where].mean())


def by_the_book(picture: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel."""
    edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 100, 200)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[..., None] / 256
    padded = np.pad(picture.astype(float), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    out = picture.astype(float)
    for y, x in np.ndindex(edges.shape):
        if edges[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].any():
            out[y, x] = (padded[y : y + 5, x : x + 5] * kernel).sum(axis=(0, 1))
    return out


@pytest.mark.parametrize("name", PAINTINGS)
def test_only_edges_change_and_they_grow_soft(samples: Path, name: str) -> None:
    picture = painting(samples, name)
    before = picture.copy()
    copy, near = smoothed(picture), near_edges(picture)
    assert np.array_equal(picture, before)
    assert copy.dtype == np.uint8
    assert 0.1 < near.mean() < 0.9
    assert np.array_equal(copy[~near], picture[~near])
    assert (copy[near] != picture[near]).any(axis=-1).mean() > 0.9
    assert sharpness(copy, near) < 0.7 * sharpness(picture, near)
    assert np.array_equal(copy, smoothed(picture))


def test_it_is_the_definition(samples: Path) -> None:
    picture = np.ascontiguousarray(painting(samples, "greatwave.jpg")[100:164, 60:130])
    assert np.abs(smoothed(picture) - by_the_book(picture)).max() <= 0.51


def test_a_flat_picture_and_a_single_pixel_stay() -> None:
    for shape in ((64, 64, 3), (1, 1, 3)):
        flat = np.full(shape, 90, np.uint8)
        assert np.array_equal(smoothed(flat), flat)


def test_the_copy_in_its_file(tmp_path: Path, samples: Path) -> None:
    picture = painting(samples, "greatwave.jpg")
    for _ in range(2):
        assert write_smooth(picture, tmp_path / "a-000000.png") == "smooth/a-000000.png"
    assert np.array_equal(read_picture(tmp_path / "smooth" / "a-000000.png"), smoothed(picture))
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a-000000.png"]


def test_half_a_copy_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(OSError, match="No space"):
        write_smooth(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png")
    assert not list(tmp_path.rglob("*.*"))
