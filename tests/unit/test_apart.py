"""Tasks in processes apart: all are done, and who dies takes no others along."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from pipelines.apart import each_apart


def work(row: dict[str, int], *, folder: str) -> dict[str, int]:
    """Die, fail or answer, as the row says."""
    number = row["number"]
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    if number == row.get("dies"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == row.get("fails"):
        raise ValueError("a fault of the task")
    return {"number": number, "pid": os.getpid(), "threads": int(os.environ["OMP_NUM_THREADS"])}


def test_every_row_is_done_in_other_processes(tmp_path: Path) -> None:
    task = functools.partial(work, folder=str(tmp_path))
    made = list(each_apart([{"number": number} for number in range(5)], task, num_workers=2))
    assert sorted(row["number"] for row in made) == list(range(5))
    assert os.getpid() not in {row["pid"] for row in made}
    assert len({row["pid"] for row in made}) <= 2
    assert {row["threads"] for row in made} == {1}


def test_who_dies_is_tried_again_alone_and_left_out(tmp_path: Path) -> None:
    rows = [{"number": number, "dies": 1} for number in range(4)]
    made = list(each_apart(rows, functools.partial(work, folder=str(tmp_path)), num_workers=2))
    assert sorted(row["number"] for row in made) == [0, 2, 3]
    assert len(list(tmp_path.glob("1-*"))) == 2


def test_a_fault_of_the_task_is_told_and_leaves_no_process(tmp_path: Path) -> None:
    rows = [{"number": number, "fails": 0} for number in range(2)]
    with pytest.raises(ValueError, match="a fault of the task"):
        list(each_apart(rows, functools.partial(work, folder=str(tmp_path)), num_workers=1))
    pids = [int(path.name.split("-")[1]) for path in tmp_path.iterdir()]
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_nothing_to_do_starts_nothing() -> None:
    assert list(each_apart([], work, num_workers=2)) == []
