"""Each page has its own folder and history; whatever ends it, nothing is left."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.errors import EnvironmentProblem
from pipelines import studio_visits
from pipelines.studio_visits import ALIVE, HISTORY, PREFIX, Made, Turns, Visit, VisitEnded, Visits, Work, studio_folder
from pipelines.stylise_animate_types import Stopped


def make(visit: Visit, label: str) -> Made:
    with visit.working() as work:
        folder = work.folder
        files = {kind: folder / f"result.{kind}" for kind in ("gif", "mp4", "png")}
        for path in files.values():
            path.touch()
        made = Made(folder=folder, gif=files["gif"], mp4=files["mp4"], still=files["png"], label=label)
        visit.keep(made)
    return made


def test_two_pages_share_nothing(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    one, two = visits.of("one"), visits.of("two")
    make(one, "a")
    assert one.folder != two.folder
    assert not two.past
    assert visits.of("one") is one


def test_the_history_is_newest_first_and_bounded(tmp_path: Path) -> None:
    visit = Visits(tmp_path).of("one")
    made = [make(visit, str(number)) for number in range(HISTORY + 2)]
    assert [each.label for each in visit.past] == [str(number) for number in range(HISTORY + 1, 1, -1)]
    assert [each.folder.exists() for each in made] == [False] * 2 + [True] * HISTORY


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    visit = Visits(tmp_path).of("one")

    def work() -> None:
        with visit.working() as work:
            (work.folder / "half.gif").touch()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert list(visit.folder.iterdir()) == []


def test_a_closed_page_goes_at_once_when_idle(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    make(visits.of("one"), "a")
    visits.end("one")
    visits.end("unknown")
    assert list(tmp_path.iterdir()) == []


def test_a_page_closed_in_mid_work_goes_when_the_work_has_stopped(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    visit = visits.of("one")
    with visit.working() as work:
        visits.end("one")
        assert visit.ended.is_set()
        assert work.is_over()
        assert work.folder.exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VisitEnded), visit.working():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_page_opened_anew_starts_anew(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    make(visits.of("one"), "a")
    visits.end("one")
    assert not visits.of("one").past
    assert not visits.of("one").ended.is_set()


def test_the_studio_closes_all_and_leaves_no_folder() -> None:
    roots: list[Path] = []

    def serve() -> None:
        with studio_folder() as root:
            roots.append(root)
            visits = Visits(root)
            running = visits.of("two")
            make(visits.of("one"), "a")
            visits.end_all()
            assert running.ended.is_set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert not roots[0].exists()


def test_a_stop_is_not_meant_for_what_comes_later(tmp_path: Path) -> None:
    visit = Visits(tmp_path).of("one")
    with visit.working() as first:
        visit.halt()
        with visit.working() as second:
            assert (first.is_over(), second.is_over()) == (True, False)
        assert first.is_over()


def quiet(before: int) -> None:
    """Nobody looks at who waits."""


def test_works_take_turns_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    turns, done, at_once = Turns(), list[int](), list[int]()
    come = [threading.Event() for _ in range(4)]

    def work(number: int) -> None:
        with turns.mine(Work(folder=tmp_path), waits=lambda before: come[number].set()):
            at_once.append(number)
            assert all(each.wait(10) for each in come[1:])
            assert len(at_once) == 1
            done.append(number)
            at_once.pop()

    with ThreadPoolExecutor(4) as several:
        asked = []
        for number in range(4):
            asked.append(several.submit(work, number))
            if number:
                assert come[number].wait(10)
            while not asked[0].done() and not at_once:
                come[0].wait(0.01)
    for each in asked:
        each.result()
    assert done == [0, 1, 2, 3]


def test_what_waits_can_be_stopped_and_the_next_goes_on(tmp_path: Path) -> None:
    turns, first, second = Turns(), Work(folder=tmp_path), Work(folder=tmp_path)
    with turns.mine(first, waits=quiet):
        with pytest.raises(Stopped), turns.mine(second, waits=lambda before: second.stop.set()):
            pytest.fail("it was not its turn")
        assert not first.is_over()
    with turns.mine(Work(folder=tmp_path), waits=lambda before: pytest.fail("nobody is before it")):
        pass


def test_the_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_visits, "WAITING", 0)
    turns = Turns()
    with (
        turns.mine(Work(folder=tmp_path), waits=quiet),
        pytest.raises(EnvironmentProblem, match="have a place among the 0 that wait; got none"),
        turns.mine(Work(folder=tmp_path), waits=quiet),
    ):
        pass
    with turns.mine(Work(folder=tmp_path), waits=quiet):
        pass


def test_what_a_killed_studio_has_left_goes_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, foreign, other = tmp_path / f"{PREFIX}left", tmp_path / f"{PREFIX}notes", tmp_path / "elsewhere"
    for folder in (left / "visit-1", foreign, other):
        folder.mkdir(parents=True)
    for folder in (left, other):
        (folder / ALIVE).touch()  # a process that has died holds no lock
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    with studio_folder() as running:
        assert not left.exists()
        (running / "visit-2").mkdir()
        with studio_folder() as second:
            assert (running / "visit-2").is_dir()
            assert second != running
        assert running.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", f"{PREFIX}link", f"{PREFIX}notes"]
    assert (other / ALIVE).is_file()
