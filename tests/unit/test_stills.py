"""One picture to one square still: every form of picture, and what is turned away with its reason."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.errors import EnvironmentProblem
from preprocessing import stills
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.ledger import LedgerRow
from preprocessing.smooth import near_edges, smoothed
from preprocessing.stills import image_item
from preprocessing.video import read_picture, write_video

RED, BLUE = (210, 40, 30), (20, 60, 200)


def config(**changes: object) -> DatasetConfig:
    small = {"kind": "images", "makes": "stills", "size_px": 32, "min_side_px": 16, "source": "x"}
    return DatasetConfig(**{**small, **changes})  # type: ignore[arg-type]


def row_of(path: Path, **changes: object) -> LedgerRow:
    return LedgerRow(**{"item": path.name, "origin": f"in/{path.name}", "state": "kept", "sha256": "0" * 64, **changes})  # type: ignore[arg-type]


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def cut(source: Path, folder: Path, **changes: object) -> np.ndarray:
    """The still of a picture that must be kept."""
    folder.mkdir(exist_ok=True)
    result = image_item(row_of(source), source, config(**changes), folder)
    assert result.row.state == "kept", result.row.detail
    return read_picture(folder / result.clips[0].path)


def test_the_largest_square_in_the_middle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    row = row_of(tmp_path / "a.png", identity="hokusai", split="test", detail="old")
    result = image_item(row, tmp_path / "a.png", config(size_px=40), tmp_path / "out")
    (clip,) = result.clips
    assert (clip.id, clip.path, clip.box) == ("a-000000", "a-000000.png", (15, 0, 55, 40))
    assert (clip.num_frames, clip.fps, clip.split, clip.identity, clip.decoder) == (1, 1, "test", "hokusai", "pillow")
    assert (clip.origin, clip.origin_sha256, clip.smooth) == ("in/a.png", "0" * 64, None)
    assert (result.num_frames, result.row.num_clips, result.row.detail) == (1, 1, "")
    still = read_picture(tmp_path / "out" / clip.path)
    assert np.array_equal(still, pixels[:, 15:55])
    assert clip.sha256 == sha256_of(tmp_path / "out" / clip.path)
    again = image_item(row, tmp_path / "a.png", config(size_px=40), tmp_path / "out")
    assert again == result


@pytest.mark.parametrize(("width", "size_px"), [(300, 32), (20, 64)])
def test_resizing_keeps_means_and_makes_no_moire(tmp_path: Path, width: int, size_px: int) -> None:
    board = (np.indices((width, width)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    still = cut(tmp_path / "a.png", tmp_path / "out", size_px=size_px)
    assert still.shape == (size_px, size_px, 3)
    assert abs(still.mean() - 127.5) < 3
    if width > size_px:
        assert still.std() < 16


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA", "1", "CMYK", "LAB", "I;16", "F"])
def test_every_mode_of_pixels(tmp_path: Path, mode: str) -> None:
    plain = halves().convert("L") if mode in ("L", "LA", "1", "I;16", "F") else halves()
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
    elif mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(plain, *spaces, outputMode="LAB")
    elif mode == "P":
        picture = plain.quantize(16)
    else:
        picture = plain.convert(mode)
    source = tmp_path / ("a.tif" if mode in ("CMYK", "LAB", "F") else "a.png")
    picture.save(source)
    still = cut(source, tmp_path / "out")
    want = np.asarray(plain.convert("RGB")).astype(int)[20, [11, 49]]
    near = still[14:18, [0, 1, 30, 31]].astype(float).mean(axis=0)  # one bit is dithered
    assert np.abs(near[1:3] - want).max() <= (40 if mode == "1" else 3)


def test_transparency_is_white(tmp_path: Path) -> None:
    picture = halves().convert("RGBA")
    picture.putalpha(Image.fromarray((np.arange(60)[None].repeat(40, 0) < 30).astype(np.uint8) * 255))
    picture.save(tmp_path / "a.png")
    indexed = Image.new("P", (40, 40), 1)
    indexed.putpalette([*RED, *BLUE])
    indexed.info["transparency"] = 1
    indexed.save(tmp_path / "b.png", transparency=1)
    still = cut(tmp_path / "a.png", tmp_path / "out")
    assert tuple(still[16, 1]) == RED
    assert (still[:, 20:] == 255).all()
    assert (cut(tmp_path / "b.png", tmp_path / "out") == 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_turn_is_undone(tmp_path: Path, turn: int) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32], upright[:24, 32:], upright[24:, :32] = RED, BLUE, (250, 250, 250)
    there = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(there(upright))).save(tmp_path / "a.jpg", quality=100, exif=exif)
    still = cut(tmp_path / "a.jpg", tmp_path / "out").astype(int)
    for place, colour in (((4, 4), RED), ((4, 28), BLUE), ((28, 4), (250, 250, 250)), ((28, 28), (0, 0, 0))):
        assert np.abs(still[place] - colour).max() < 12


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_the_first_frame_of_what_moves(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (40, 40), RED), Image.new("RGB", (40, 40), BLUE)
    source = tmp_path / f"a{suffix}"
    first.save(
        source, save_all=True, append_images=[second], duration=100, **({"lossless": True} if suffix == ".webp" else {})
    )
    assert np.abs(cut(source, tmp_path / "out").astype(int) - RED).max() <= 1


def test_a_video_is_no_picture(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((8, 64, 64, 3), np.uint8), fps=25)
    result = image_item(row_of(tmp_path / "a.mp4"), tmp_path / "a.mp4", config(), tmp_path)
    assert (result.row.state, result.row.reason) == ("rejected", "unsupported")
    assert result.row.detail == "a.mp4 must be a picture; got a video of 8 frames. Use kind: film for its stills."


def test_a_small_picture_is_rejected_by_its_square(tmp_path: Path) -> None:
    halves(90, 40).save(tmp_path / "a.png")
    assert image_item(row_of(tmp_path / "a.png"), tmp_path / "a.png", config(min_side_px=40), tmp_path).clips
    (tmp_path / "a-000000.png").unlink()
    result = image_item(row_of(tmp_path / "a.png"), tmp_path / "a.png", config(min_side_px=41), tmp_path)
    assert result.row.reason == "too-small"
    assert "must hold a square of 41 px; got 40 px" in result.row.detail
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def bomb_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def hostile(folder: Path) -> dict[str, str]:
    """Bad pictures, and why each is turned away."""
    halves(400, 300).save(folder / "good.jpg", quality=95)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)).save(folder / "good.png")
    Image.new("RGB", (64, 64), RED).save(folder / "good.webp", lossless=True)
    for name in ("good.jpg", "good.png", "good.webp"):
        content = (folder / name).read_bytes()
        (folder / f"cut-{name}").write_bytes(content[: len(content) * 2 // 3])
        (folder / f"head-{name}").write_bytes(content[:20])
        (folder / name).unlink()
    (folder / "wide.png").write_bytes(bomb_png(2_000_000_000, 2))
    (folder / "bomb.png").write_bytes(bomb_png(60_000, 60_000))
    (folder / "short.png").write_bytes(bomb_png(200, 200))
    (folder / "zero.png").touch()
    (folder / "page.jpg").write_bytes(b"<!doctype html><html>Not found</html>" * 50)
    (folder / "null.png").write_bytes(bytes(5000))
    (folder / "line.png").write_bytes(b"")
    Image.new("RGB", (5000, 1)).save(folder / "line.png")
    too_large = {"wide.png": "too-large", "bomb.png": "too-large", "zero.png": "empty", "line.png": "too-small"}
    return {**dict.fromkeys((path.name for path in folder.iterdir()), ""), **too_large}


def test_hostile_pictures_are_rejected_and_leave_nothing(tmp_path: Path) -> None:
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    out.mkdir()
    reasons = {}
    for name, reason in hostile(inside).items():
        result = image_item(row_of(inside / name), inside / name, config(smooth=True), out)
        reasons[name] = (result.row.reason, reason)
        assert (result.row.state, result.clips) == ("rejected", ())
        assert result.row.detail.count(" must ") == 1, result.row.detail
        assert not list(out.rglob("*.*")), name
    assert len(reasons) == 13
    wrong = {name: pair for name, pair in reasons.items() if pair[1] not in ("", pair[0]) or pair[0] == "failed"}
    assert not wrong


def test_a_missing_picture(tmp_path: Path) -> None:
    assert image_item(row_of(tmp_path / "a.png"), tmp_path / "a.png", config(), tmp_path).row.reason == "missing"


def test_a_smooth_copy_lies_beside_its_still(tmp_path: Path) -> None:
    Image.fromarray((np.indices((64, 64))[1] // 16 % 2 * 255).astype(np.uint8)).save(tmp_path / "a.png")
    result = image_item(row_of(tmp_path / "a.png"), tmp_path / "a.png", config(smooth=True), tmp_path)
    (clip,) = result.clips
    assert clip.smooth == "smooth/a-000000.png"
    still, copy = read_picture(tmp_path / clip.path), read_picture(tmp_path / clip.smooth)
    assert np.array_equal(copy, smoothed(still))
    assert near_edges(still).any()
    assert not np.array_equal(copy, still)


@pytest.mark.parametrize(("code", "is_machine"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_machine: bool
) -> None:
    def fails(frame: np.ndarray, path: Path) -> str:
        raise OSError(code, "it failed")

    monkeypatch.setattr(stills, "write_smooth", fails)
    halves().save(tmp_path / "a.png")
    arguments = row_of(tmp_path / "a.png"), tmp_path / "a.png", config(smooth=True), tmp_path
    if is_machine:
        with pytest.raises(EnvironmentProblem, match="it failed"):
            image_item(*arguments)
    else:
        assert image_item(*arguments).row.reason == "failed"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.png"]
