"""The run folder, on a disk and behind a URL: complete checkpoints only, and no more of them than wanted."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from models.errors import CheckpointError, EnvironmentProblem
from training.checkpoint import MANIFEST, WEIGHTS
from training.runfolder import RunFolder, fetch_folder, is_url


@pytest.fixture(params=["disk", "url"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "disk":
        yield str(tmp_path / "run")
        return
    yield "memory://bucket/run"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def folder(location: str) -> Iterator[RunFolder]:
    made = RunFolder(location)
    made.open_for_writing()
    yield made
    made.close()


def fill(target: Path) -> None:
    (target / WEIGHTS).write_bytes(b"weights of " + target.name.encode())
    (target / MANIFEST).write_text("{}")


def test_a_checkpoint_is_listed_when_it_is_complete(folder: RunFolder) -> None:
    assert folder.steps() == []
    for step in (40, 8):
        folder.save(step, fill)
    assert folder.steps() == [8, 40]
    found = folder.checkpoint(8)
    assert {path.name for path in found.iterdir()} == {WEIGHTS, MANIFEST}
    assert folder.place(8) == f"{folder.location}/step-00000008"
    with pytest.raises(CheckpointError, match=r"hold a checkpoint of step 9; got none. There are \[8, 40\]"):
        folder.checkpoint(9)


def test_a_repeated_step_replaces_its_checkpoint(folder: RunFolder) -> None:
    folder.save(1, fill)
    folder.save(1, lambda target: [fill(target), (target / WEIGHTS).write_bytes(b"other")])
    assert folder.steps() == [1]
    assert (folder.checkpoint(1) / WEIGHTS).read_bytes() == b"other"


def test_a_failed_write_leaves_nothing(folder: RunFolder) -> None:
    def full(target: Path) -> None:
        (target / WEIGHTS).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.save(1, fill)
    with pytest.raises(EnvironmentProblem, match="must be writable; got No space left on device. Free some space"):
        folder.save(2, full)
    assert folder.steps() == [1]
    assert not [path for path in folder.local.iterdir() if "writing" in path.name]


def test_what_was_half_written_is_never_read_and_goes_away(location: str, folder: RunFolder) -> None:
    folder.save(1, fill)
    system, root = fsspec.core.url_to_fs(location)
    system.makedirs(f"{root}/step-00000002")
    system.pipe_file(f"{root}/step-00000002/{WEIGHTS}", b"half")  # uploaded, but no manifest yet
    if not is_url(location):
        (folder.local / ".step-00000003.writing-77").mkdir()
        (folder.local / ".step-00000001.deleting-77").mkdir()
    assert folder.steps() == [1]
    again = RunFolder(location)
    again.open_for_writing()
    assert again.steps() == [1]
    again.close()
    names = {path.rstrip("/").rpartition("/")[2] for path in system.ls(root, detail=False)}
    assert not [name for name in names if name.startswith(".step")]
    if is_url(location):
        assert "step-00000002" not in names


def test_only_the_last_and_the_wanted_are_kept(folder: RunFolder) -> None:
    for step in (10, 20, 30, 40):
        folder.save(step, fill)
    folder.prune(keep_last=2, keep=(10, 99))
    assert folder.steps() == [10, 30, 40]
    folder.prune(keep_last=1)
    assert folder.steps() == [40]


def test_small_files_and_records(location: str, folder: RunFolder) -> None:
    assert folder.read_json("summary.json") is None
    folder.write_json("summary.json", {"done": True})
    (folder.local / "records.jsonl").write_text("one\n")
    folder.save(1, fill)  # what was recorded goes with the checkpoint
    other = RunFolder(location)
    other.open_for_writing()
    assert other.read_json("summary.json") == {"done": True}
    assert (other.local / "records.jsonl").read_text() == "one\n"
    (other.local / "summary.json").write_text("{")
    if not is_url(location):
        assert other.read_json("summary.json") is None
    other.close()


def test_a_wish_to_stop_is_seen_and_forgotten(location: str, folder: RunFolder) -> None:
    other = RunFolder(location)
    assert not folder.is_asked_to_stop()
    other.ask_to_stop()
    assert folder.is_asked_to_stop()
    folder.withdraw_stop()
    again = RunFolder(location)
    assert not again.is_asked_to_stop()
    for made in (other, again):
        made.close()


def test_fetch_folder(location: str, folder: RunFolder) -> None:
    folder.save(5, fill)
    with fetch_folder(folder.place(5)) as found:
        assert (found / WEIGHTS).read_bytes().startswith(b"weights of")
        assert (found / MANIFEST).is_file()
    if is_url(location):
        with pytest.raises(CheckpointError, match="must be readable"), fetch_folder("memory://bucket/nowhere"):
            pass


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"file/run must be writable; got Not a directory"):
        RunFolder(str(tmp_path / "file" / "run")).open_for_writing()


def test_file_urls_are_paths(tmp_path: Path) -> None:
    assert not is_url("file:///tmp/run")
    assert is_url("s3://bucket/run")
    assert RunFolder(f"file://{tmp_path}/run/").local == tmp_path / "run"
