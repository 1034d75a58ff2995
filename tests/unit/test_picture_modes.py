"""Folders of pictures as people have them, through download and cut: every form, and what becomes of bad ones."""

from __future__ import annotations

import logging
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.contracts import Clip
from models.errors import ClipError, ParamsError, SourceError
from pipelines import download
from pipelines.cut_work import work_of
from pipelines.params import Params, parse
from pipelines.stage import Paths
from preprocessing.ledger import LedgerRow, read_ledger
from preprocessing.preflight import check_folder
from preprocessing.splits import assign, check_leaks
from preprocessing.video import read_picture

RED, BLUE, SIZE_PX = (210, 40, 30), (20, 60, 200), 32


def params(source: Path, **changes: object) -> Params:
    small = {"makes": "stills", "cut": "whole", "size_px": SIZE_PX, "min_side_px": 16, "yield_floor": 0.0}
    dataset = {"kind": "images", "source": str(source), **small, **changes}
    return parse({"profile": "p", "profiles": {"p": {}}, "datasets": {"d": dataset}})


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def taken_in(source: Path, project: Path, **changes: object) -> dict[str, LedgerRow]:
    """The download's ledger by origin."""
    chosen, paths = params(source, **changes), Paths(project)
    download.run("d", chosen, paths)
    return {row.origin: row for row in read_ledger(paths.raw("d"))}


def cut(source: Path, project: Path, **changes: object) -> tuple[dict[str, LedgerRow], dict[str, np.ndarray]]:
    """What both stages' ledgers say in the end, and the stills, by origin."""
    rows, config, raw = (
        taken_in(source, project, **changes),
        params(source, **changes).dataset("d"),
        project / "data/raw/d",
    )
    work, stills = work_of(config, list(rows.values()), raw), {}
    (project / "stills").mkdir()
    for origin, row in rows.items():
        if row.state == "kept":
            result = work.task(row, raw / row.item, config, project / "stills")
            rows[origin] = result.row
            for clip in result.clips:
                stills[origin] = read_picture(project / "stills" / clip.path)
    return rows, stills


def size_in_header(path: Path, width: int, height: int) -> None:
    """Let a JPEG say that it is larger than it is."""
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good pictures of every form, and of bad ones."""
    folder = tmp_path_factory.mktemp("mixed")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    halves().convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    halves().rotate(90, expand=True).save(folder / "turned.jpg", quality=95, exif=exif)
    cv2.imwrite(str(folder / "deep.png"), np.asarray(halves())[..., ::-1].astype(np.uint16) * 257)
    gray = np.asarray(halves().convert("L")).astype(np.uint16) * 257
    Image.fromarray(gray).save(folder / "deep-gray.png")
    clear = halves().convert("RGBA")
    clear.putalpha(Image.fromarray((np.arange(60)[None].repeat(40, 0) < 30).astype(np.uint8) * 255))
    clear.save(folder / "clear.png")
    for suffix, options in ((".gif", {}), (".webp", {"lossless": True}), (".png", {})):
        later = [Image.new("RGB", (60, 40), (0, 200 - 60 * i, 0)) for i in range(2)]
        halves().save(
            folder / f"moving-{suffix[1:]}{suffix}", save_all=True, append_images=later, duration=90, **options
        )
    halves(600, 400).save(folder / "good.jpg", quality=95)
    content = (folder / "good.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "page.jpg").write_bytes(b"<!doctype html><html>Not found</html>")
    (folder / "none.png").touch()
    (folder / "notes.txt").write_text("mine")
    for name, size in (("wide.jpg", (30_000, 2_000)), ("poster.jpg", (30_000, 20_000))):
        halves().save(folder / name)
        size_in_header(folder / name, *size)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100))))
    coded = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(coded))
    return folder


@pytest.fixture(scope="module")
def outcome(
    mixed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, LedgerRow], dict[str, np.ndarray]]:
    return cut(mixed, tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("name", ["cmyk.jpg", "turned.jpg", "deep.png", "good.jpg", "moving-gif.gif", "moving-png.png"])
def test_every_form_becomes_the_picture_that_a_viewer_shows(
    outcome: tuple[dict[str, LedgerRow], dict[str, np.ndarray]], name: str
) -> None:
    still = outcome[1][name].astype(int)
    assert still.shape == (SIZE_PX, SIZE_PX, 3)
    assert np.abs(still[16, 4] - RED).max() <= 12
    assert np.abs(still[16, -4] - BLUE).max() <= 12


def test_transparency_is_white_and_deep_gray_is_gray(
    outcome: tuple[dict[str, LedgerRow], dict[str, np.ndarray]],
) -> None:
    assert (outcome[1]["clear.png"][16, -4] == 255).all()
    assert tuple(outcome[1]["clear.png"][16, 4]) == RED
    wanted = np.asarray(halves().convert("L")).astype(int)[20, [10, 50]]
    assert np.abs(outcome[1]["deep-gray.png"][16, [4, -4], 0] - wanted).max() <= 2


def test_of_what_moves_the_first_frame_counts_and_the_ledger_says_so(
    outcome: tuple[dict[str, LedgerRow], dict[str, np.ndarray]],
) -> None:
    rows = outcome[0]
    for name in ("moving-gif.gif", "moving-webp.webp", "moving-png.png"):
        assert (rows[name].state, rows[name].detail) == ("kept", "the first of its 3 frames"), name
    assert rows["good.jpg"].detail == ""


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("cut.jpg", "truncated", "must be decodable"),
        ("page.jpg", "unreadable", "must be a readable"),
        ("none.png", "empty", "must hold something"),
        ("notes.txt", "unsupported", "must be a video, GIF or picture; got .txt"),
        ("wide.jpg", "too-large", "got 30000x2000. Scale it down, or raise max_source_pixels."),
        ("poster.jpg", "too-large", "Scale it down."),
        ("bomb.png", "too-large", "Scale it down."),
    ],
)
def test_a_bad_picture_is_turned_away_alone_with_its_reason(
    outcome: tuple[dict[str, LedgerRow], dict[str, np.ndarray]], name: str, reason: str, words: str
) -> None:
    rows, stills = outcome
    assert (rows[name].state, rows[name].reason) == ("rejected", reason), rows[name].detail
    assert words in rows[name].detail
    assert name not in stills
    assert sum(row.state == "kept" for row in rows.values()) == len(stills) == 9


def test_only_some_files_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "anime-x").mkdir(parents=True)
    for number, name in enumerate(["anime-a.png", "anime-b.jpg", "Anime-c.png", "wave.png", "anime-x/wave.png"]):
        Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(folder / name)
    (folder / "anime-notes.txt").write_text("mine")
    rows = taken_in(folder, tmp_path / "some", only="anime-*.[pj][np]g")
    assert sorted(rows) == ["anime-a.png", "anime-b.jpg"]
    assert sorted(taken_in(folder, tmp_path / "first", only="*.png", max_items=2)) == ["Anime-c.png", "anime-a.png"]
    assert len(taken_in(folder, tmp_path / "all")) == 6
    found = check_folder("d", folder, params(folder, only="anime-*").dataset("d"), None)
    assert (found.num_items, found.num_usable) == (3, 2)


def test_a_pattern_that_matches_nothing_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    halves().save(folder / "a.png")
    with pytest.raises(SourceError, match=r"datasets.d.only must match a file's name; got 'b\*', and none of 1 files"):
        taken_in(folder, tmp_path / "project", only="b*")
    found = check_folder("d", folder, params(folder, only="b*").dataset("d"), None)
    assert any("none of 1 does" in finding.message for finding in found.findings if finding.level == "error")


@pytest.mark.parametrize("pattern", ["", "../*", "a/b", "a\\b", "a\nb", "a" * 300])
def test_a_pattern_is_of_a_name_alone(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ParamsError, match="datasets.d.only must be a file name's pattern"):
        params(tmp_path, only=pattern).dataset("d")


def test_a_hostile_pattern_takes_no_time(tmp_path: Path) -> None:
    halves().save(tmp_path / f"{'a' * 100}.png")
    with pytest.raises(SourceError, match="must match a file's name"):
        taken_in(tmp_path, tmp_path / "project", only="*a" * 60 + "b")


@pytest.mark.parametrize("content", [[], ["README.md", ".hidden.png"]])
def test_a_folder_without_pictures_is_one_clear_line(tmp_path: Path, content: list[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in content:
        (folder / name).touch()
    with pytest.raises(SourceError, match=r"^datasets.d.source must hold media; got .* \(empty\). Put the media there"):
        taken_in(folder, tmp_path / "project")


def test_a_folder_of_bad_pictures_alone_is_told_with_counts(tmp_path: Path, mixed: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("page.jpg", "none.png"):
        shutil.copy(mixed / name, folder)
    with pytest.raises(SourceError, match="must yield at least one item; got 0 of 2: 1 empty, 1 unreadable"):
        taken_in(folder, tmp_path / "project")


def stills(num: int, **changes: object) -> list[Clip]:
    """Rows of a manifest of as many stills."""
    row = {
        "fps": 1.0,
        "size_px": 32,
        "box": (0.0, 0.0, 1.0, 1.0),
        "start_frame": 0,
        "decoder": "pillow",
        "split": "train",
    }
    return [
        Clip(
            id=f"p{i}",
            path=f"p{i}.png",
            identity=f"p{i}",
            num_frames=1,
            sha256=f"{i:064x}",
            origin=f"p{i}",
            origin_sha256=f"{i + 99:064x}",
            **row,  # type: ignore[arg-type]
        )
        for i in range(num)
    ]


def test_a_single_picture_trains_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halves().save(tmp_path / "a.png")
    config = params(tmp_path).dataset("d")
    with caplog.at_level(logging.WARNING):
        (still,) = assign("d", stills(1), config)
    assert still.split == "train"
    assert "data set d has a single picture: it trains, and nothing is left to test" in caplog.text
    found = check_folder("d", tmp_path, config, None)
    assert found.is_good
    assert any("a single picture" in finding.message for finding in found.findings if finding.level == "warning")


@pytest.mark.parametrize(
    ("num", "share", "tested"), [(4, 0.1, 1), (4, 0.0, 0), (19, 0.1, 2), (2, 0.9, 1), (25, 0.25, 6)]
)
def test_few_pictures_are_shared_out(tmp_path: Path, num: int, share: float, tested: int) -> None:
    done = assign("d", stills(num), params(tmp_path, test_share=share).dataset("d"))
    assert sum(clip.split == "test" for clip in done) == tested


def test_what_pictures_can_not_be_split_by(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="must be source, identity or official for pictures; got 'time'"):
        assign("d", stills(4), params(tmp_path, split="time").dataset("d"))
    with pytest.raises(ParamsError, match="must be source, for there are 4 identities"):
        assign("d", stills(4), params(tmp_path, split="identity").dataset("d"))
    with pytest.raises(ParamsError, match=r"test_share must lie in \[0, 1\)"):
        params(tmp_path, test_share=1.0).dataset("d")
    with pytest.raises(ParamsError, match=r"test_share must lie in \(0, 1\)"):
        params(tmp_path, kind="cartoons", makes="clips", test_share=0.0).dataset("d")


def test_one_picture_in_two_files_is_told_with_their_names() -> None:
    (first,) = stills(1)
    again = replace(first, id="copy", identity="copy", origin="copy.jpg", origin_sha256="c" * 64, split="test")
    with pytest.raises(ClipError, match=r"got file 0+ in test and train \(as copy.jpg and p0\). Use split: identity"):
        check_leaks("d", [first, again], by_time=False)
