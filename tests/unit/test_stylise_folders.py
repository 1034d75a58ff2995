"""A folder of photos: all of them accounted for, nothing outside touched, a stopped run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stylise_kit import KitEngine, KitModel, save, texture

from models.errors import EnvironmentProblem, SourceError
from pipelines import stylise_folder as folders
from pipelines.params import ClusterConfig
from pipelines.stylise_folder import REPORT_NAME, FolderReport, Job, stylise_folder
from pipelines.stylise_listing import listing, printable


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save(folder / "a.png", texture(seed=1))
    save(folder / "deep" / "b.jpg", texture(seed=2))
    save(folder / "c.bmp", texture(seed=3))
    return folder


def drawn(photos: Path, **options: Any) -> FolderReport:
    job = Job(model=KitModel(name="kit"), source=str(photos), out=str(photos.parent / "out"))
    return stylise_folder(job, cluster=ClusterConfig(), num_workers=1, **options)


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_picture_gets_a_drawing_of_its_name(photos: Path) -> None:
    report = drawn(photos)
    assert (report.num_pictures, report.num_made, report.num_failed) == (3, 3, 0)
    out = photos.parent / "out"
    assert [name for name in files_in(out) if not name.startswith(".")] == ["a.png", "c.png", "deep/b.jpg", REPORT_NAME]
    with Image.open(out / "a.png") as made:
        expected = KitEngine().stylise(texture(seed=1)[None])[0]
        assert np.abs(np.asarray(made) / 255 - expected).max() < 0.01
    written = json.loads((out / REPORT_NAME).read_text())
    assert (written["num_made"], written["model"], written["failures"]) == (3, "kit", [])


def test_a_broken_photo_costs_itself_alone(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (photos / "empty.jpg").touch()
    report = drawn(photos)
    assert (report.num_made, report.num_failed) == (3, 2)
    assert [name for name, _ in report.failures] == ["broken.png", "empty.jpg"]
    assert all(" must " in reason for _, reason in report.failures)
    assert not (photos.parent / "out" / "broken.png").exists()


def test_run_again_it_goes_on(photos: Path) -> None:
    drawn(photos)
    first = photos.parent / "out" / "a.png"
    first.write_bytes(b"kept")
    (photos.parent / "out" / "c.png").unlink()
    (photos.parent / "out" / ".stylise-killed.part").write_bytes(b"half")
    report = drawn(photos)
    assert (report.num_made, report.num_kept) == (1, 2)
    assert first.read_bytes() == b"kept"
    assert not (photos.parent / "out" / ".stylise-killed.part").exists()
    assert drawn(photos, overwrite=True).num_made == 3
    assert first.read_bytes() != b"kept"


def test_links_that_lead_out_are_not_followed(photos: Path, tmp_path: Path) -> None:
    save(tmp_path / "secret" / "secret.png", texture())
    (photos / "link.png").symlink_to(tmp_path / "secret" / "secret.png")
    (photos / "linked.png").symlink_to(tmp_path / "secret", target_is_directory=True)
    (photos / "lost.png").symlink_to(photos / "nowhere.png")
    (photos / "inside.png").symlink_to(photos / "a.png")
    report = drawn(photos)
    assert dict(report.failures).keys() == {"link.png", "linked.png", "lost.png"}
    assert report.num_made == 4


def test_odd_names_are_names(photos: Path) -> None:
    names = ["-rf.png", "a;b $(c).png", "new\nline.png", os.fsdecode(b"\xff\xfe.png"), "…" * 80 + ".png"]
    for name in names:
        save(photos / name, texture(16, 16))
    report = drawn(photos)
    assert report.num_made == 3 + len(names)
    assert all((photos.parent / "out" / name).is_file() for name in names)
    assert printable("new\nline.png") == "new\\nline.png"
    assert printable(names[3]) == "\\xff\\xfe.png"


def test_names_that_would_meet_are_told_apart(photos: Path) -> None:
    for name in ("a.tif", "A.bmp", "x.gif"):
        save(photos / name, texture())
    entries, _ = listing(photos)
    targets = {entry.name: entry.target for entry in entries}
    assert targets["a.png"] == "a.png"
    assert targets["a.tif"] == "a.tif.png"
    assert targets["A.bmp"] == "A.bmp.png"
    assert len({target.lower() for target in targets.values()}) == len(targets)


def test_what_is_no_picture_is_left_alone_and_counted(photos: Path) -> None:
    (photos / "notes.txt").write_text("no picture")
    (photos / "film.mp4").write_bytes(b"no film")
    (photos / ".hidden.png").write_bytes(b"")
    report = drawn(photos)
    assert (report.num_pictures, report.num_others, report.num_failed) == (3, 2, 0)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"hold a picture; got 1 other files"):
        listing(tmp_path)


def test_a_folder_that_can_not_be_written_ends_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out")

    monkeypatch.setattr(folders, "write_drawing", full)
    with pytest.raises(OSError, match="No space left"):
        drawn(photos)
    job = Job(model=KitModel(name="kit"), source=str(photos), out="out")
    row = folders.Drawer(job)({"name": b"a.png", "target": b"a.png"})
    assert row["fatal"] == EnvironmentProblem.__name__
    assert "have room" in row["problem"]


def test_two_runs_into_one_folder_are_refused(photos: Path) -> None:
    from pipelines.stage import only_writer

    with only_writer(photos.parent / "out" / REPORT_NAME), pytest.raises(EnvironmentProblem, match="have one writer"):
        drawn(photos)
