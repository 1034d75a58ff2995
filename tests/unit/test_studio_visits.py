"""Each page has its own folder and history; whatever ends it, nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.studio_visits import HISTORY, Made, Visit, VisitEnded, Visits, studio_folder


def make(visit: Visit, label: str) -> Made:
    with visit.working() as folder:
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
        with visit.working() as folder:
            (folder / "half.gif").touch()
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
    with visit.working() as folder:
        visits.end("one")
        assert visit.ended.is_set()
        assert folder.exists()
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
