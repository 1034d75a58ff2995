"""Ending what was started, and nothing else; the environment lent and given back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.processes import end_tree, environment, term_as_exit

SLEEP = "import time; time.sleep(60)"


def start(code: str, **options: bool) -> subprocess.Popen[str]:
    """A child that prints a line when it is ready."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""


def test_a_child_ends_with_its_children() -> None:
    bystander = start(SLEEP)
    process = start(FAMILY + SLEEP)
    grandchild = int(first_line(process))
    end_tree(psutil.Process(process.pid), timeout_s=5)
    finish(process)
    assert gone(grandchild)
    assert bystander.poll() is None
    bystander.kill()
    finish(bystander)


def test_those_whose_parent_has_gone_are_found_by_their_session() -> None:
    process = start(FAMILY, start_new_session=True)
    root = psutil.Process(process.pid)
    orphan = int(first_line(process))
    finish(process)
    assert not gone(orphan)
    end_tree(root, timeout_s=5)
    assert gone(orphan)


def test_who_does_not_listen_is_ended_by_force() -> None:
    process = start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True);" + SLEEP)
    assert first_line(process) == "ready"
    end_tree(psutil.Process(process.pid), timeout_s=0.2)
    finish(process)
    assert process.returncode == -signal.SIGKILL


def test_ending_what_has_ended_is_fine() -> None:
    process = start("print('x')")
    root = psutil.Process(process.pid)
    finish(process)
    end_tree(root, timeout_s=1)
    assert not root.is_running()


def test_an_environment_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INK_KEPT", "before")
    monkeypatch.delenv("INK_NEW", raising=False)
    with contextlib.suppress(RuntimeError), environment({"INK_KEPT": "during", "INK_NEW": "1"}):
        assert (os.environ["INK_KEPT"], os.environ["INK_NEW"]) == ("during", "1")
        raise RuntimeError
    assert os.environ["INK_KEPT"] == "before"
    assert "INK_NEW" not in os.environ


def test_a_termination_unwinds_the_stack(root: Path) -> None:
    code = """
import time
from pipelines.processes import term_as_exit
with term_as_exit():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    assert first_line(process) == "ready"
    process.terminate()
    assert first_line(process) == "cleaned"
    finish(process)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_handler_of_somebody_else_stays() -> None:
    def theirs(*_: object) -> None:
        raise AssertionError("not called")

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with term_as_exit():
            assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
