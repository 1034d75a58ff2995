"""What a killed stage has done stands, as long as its key and its files do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.journal import Work, key_of, resumed, unfinished


def put(work: Work, item: str, text: str, key: str = "k") -> None:
    (work.folder / item).write_text(text)
    work.add(item, key, {"said": text}, [item])


def stopped(target: Path, **texts: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_after(target, texts)


def stop_after(target: Path, texts: dict[str, str]) -> None:
    with resumed(target) as work:
        for item, text in texts.items():
            put(work, item, text)
        raise KeyboardInterrupt


def test_a_stopped_run_goes_on_and_the_output_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "out"
    stopped(target, a="one")
    assert not target.exists()
    assert unfinished(target) is not None
    with resumed(target) as work:
        assert work.result("a", "k") == {"said": "one"}
        assert work.result("a", "other settings") is None
        assert work.result("b", "k") is None
        put(work, "b", "two")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a": "one", "b": "two"}
    assert unfinished(target) is None


def test_a_finished_output_is_used_again_and_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with resumed(target) as work:
        put(work, "a", "one")
    with resumed(target) as work:
        assert not (work.folder / "a").exists()
        assert work.result("a", "k") == {"said": "one"}
        assert (work.folder / "a").read_text() == "one"
    stopped(target, b="two")
    assert {path.name for path in target.iterdir()} == {"a"}


def test_a_file_that_is_gone_or_cut_short_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "out"
    stopped(target, a="one", b="two")
    (tmp_path / ".out.making" / "a").unlink()
    (tmp_path / ".out.making" / "b").write_text("t")
    with resumed(target) as work:
        assert work.result("a", "k") is None
        assert work.result("b", "k") is None


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_by_a_kill_is_forgotten_and_does_not_spoil_the_next(tmp_path: Path, cut: int) -> None:
    target = tmp_path / "out"
    stopped(target, a="one", b="two")
    journal = tmp_path / ".out.journal.jsonl"
    os.truncate(journal, journal.stat().st_size - cut)
    work = Work(target)
    assert work.result("a", "k") == {"said": "one"}
    assert work.result("b", "k") is None
    put(work, "b", "again")
    work.close()
    with resumed(target) as work:
        assert work.result("b", "k") == {"said": "again"}


def test_what_belongs_to_no_item_is_swept_away(tmp_path: Path) -> None:
    target = tmp_path / "out"
    stopped(target, a="one", old="gone")
    making = tmp_path / ".out.making"
    (making / "half.part").write_text("x")
    (making / ".attempt-1").mkdir()
    (making / ".attempt-1" / "late").write_text("x")
    with resumed(target) as work:
        work.sweep(["a"])
        assert {path.name for path in work.folder.iterdir()} == {"a"}
        assert work.result("old", "k") is None
    assert "old" not in (tmp_path / ".out.journal.jsonl").read_text()


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with resumed(target) as work:
        put(work, "a", "one")
    stopped(target, b="two")
    os.replace(target, tmp_path / ".out.making-old")  # where the kill hit
    with resumed(target) as work:
        assert work.result("b", "k") == {"said": "two"}
    assert (target / "b").read_text() == "two"
    assert not (tmp_path / ".out.making-old").exists()


def test_keys_say_everything() -> None:
    assert key_of(1, "a") == key_of(1, "a")
    assert len({key_of(1, "a"), key_of("1", "a"), key_of(1, "a", None)}) == 3
