"""Photos of every kind become drawings that are upright, whole and as transparent as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from stylise_kit import KitEngine, save, texture

from models.errors import ClipError, ParamsError, SourceError
from pipelines import stylise_photo
from pipelines.stylise_photo import Photo, check_fits, draw, facts_of, read_photo, write_drawing


def test_a_turned_photo_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", texture(20, 30), exif=exif)
    assert read_photo(path).frame.shape == (30, 20, 3)


@pytest.mark.parametrize("mode", ["CMYK", "L", "I;16", "1", "P"])
def test_any_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    gray = texture(20, 30)[..., 0]
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    photo = read_photo(path)
    assert photo.frame.shape == (20, 30, 3)
    assert photo.alpha is None
    if mode != "1":
        assert np.abs(photo.frame.astype(int) - gray[..., None]).max() <= 2


def test_transparency_is_kept_where_the_kind_of_file_has_any(tmp_path: Path) -> None:
    pixels = np.dstack([texture(20, 30), np.full((20, 30), 255, np.uint8)])
    pixels[:, :10, 3] = 40
    photo = read_photo(save(tmp_path / "clear.png", pixels))
    drawing = draw(KitEngine(), photo.frame)
    for name in ("out.png", "out.webp"):
        write_drawing(tmp_path / name, drawing, photo)
        with Image.open(tmp_path / name) as made:
            assert np.array_equal(np.asarray(made.getchannel("A")), pixels[..., 3])
    write_drawing(tmp_path / "out.jpg", drawing, photo)
    with Image.open(tmp_path / "out.jpg") as made:
        assert made.mode == "RGB"


def test_the_colour_profile_stays_and_what_exif_tells_goes(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    photo = read_photo(save(tmp_path / "photo.jpg", texture(), icc_profile=profile, exif=exif))
    write_drawing(tmp_path / "out.jpg", photo.frame, photo)
    with Image.open(tmp_path / "out.jpg") as made:
        assert made.info["icc_profile"] == profile
        assert not made.getexif()


def test_of_several_pictures_the_first_is_taken_and_that_is_said(tmp_path: Path) -> None:
    images = [Image.fromarray(texture(seed=seed)) for seed in (1, 2)]
    images[0].save(tmp_path / "two.webp", save_all=True, append_images=images[1:], lossless=True)
    photo = read_photo(tmp_path / "two.webp")
    assert np.array_equal(photo.frame, texture(seed=1))
    assert "first of the 2" in photo.note


@pytest.mark.parametrize("rows", [24, 56])
def test_a_photo_in_bands_is_the_photo_at_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stylise_photo, "_REACH_PX", 64)
    photo, engine = texture(200, 40), KitEngine()
    whole = draw(engine, photo)
    engine.shapes.clear()
    banded = draw(engine, photo, band_pixels=rows * 40)
    assert max(shape[1] for shape in engine.shapes) <= rows + 128
    assert np.abs(whole.astype(int) - banded).max() <= 1


def test_strength_0_gives_the_photo() -> None:
    photo = texture()
    assert np.array_equal(draw(KitEngine(), photo, strength=0), photo)
    assert not np.array_equal(draw(KitEngine(), photo), photo)


def test_a_photo_that_is_too_large_is_refused_with_the_setting_to_raise(tmp_path: Path) -> None:
    path = save(tmp_path / "large.png", texture(40, 50))
    for read in (facts_of, read_photo):
        with pytest.raises(SourceError, match=r"at most 1,999 pixels.*50x40.*raise --max-pixels"):
            read(path, max_pixels=1999)  # type: ignore[operator]
        assert read(path, max_pixels=2000)  # type: ignore[operator]


def test_pillows_own_bound_follows_max_pixels_and_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path / "large.png", texture(40, 50))
    assert read_photo(path, max_pixels=2000).frame.shape == (40, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nbroken", b"no picture at all"])
def test_a_broken_photo_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"broken\.png must"):
        read_photo(path)


def test_a_kind_that_holds_no_such_size_is_refused_before_drawing(tmp_path: Path) -> None:
    path = save(tmp_path / "long.png", np.zeros((2, 16_384, 3), np.uint8))
    check_fits(tmp_path / "out.png", facts_of(path))
    with pytest.raises(ParamsError, match=r"be a png.*16,383"):
        check_fits(tmp_path / "out.webp", facts_of(path))


def test_a_model_that_gives_no_numbers_is_told(tmp_path: Path) -> None:
    class Broken(KitEngine):
        def stylise(self, pictures: np.ndarray, **options: Any) -> np.ndarray:
            return np.full(pictures.shape, np.nan, np.float32)

    with pytest.raises(ClipError, match="drawing must be finite"):
        draw(Broken(), texture())


def test_a_failed_write_leaves_the_old_drawing_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_drawing(out, texture(), Photo(frame=texture(), profile=object()))  # type: ignore[arg-type]
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]
