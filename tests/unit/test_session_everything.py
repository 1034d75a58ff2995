"""Running the whole graph: what is started when, what is passed on, what is told. The graph is a toy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from models.errors import ParamsError
from pipelines import everything
from pipelines.stage import Paths

GRAPH = """
stages:
  first:
    cmd: python -c "import os; open('a.txt', 'w').write(os.environ['RAY_ADDRESS'])"
    outs: [a.txt]
  bad:
    cmd: python -c "raise SystemExit(3)"
"""


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A head that is only counted: begun and ended."""
    counted: list[str] = []

    @contextmanager
    def head(num_cpus: int | None) -> Iterator[dict[str, str]]:
        counted.append(f"begun with {num_cpus}")
        yield {"RAY_ADDRESS": "head:1"}
        counted.append("ended")

    monkeypatch.setattr(everything, "head", head)
    return counted


def test_a_graph_runs_once_with_one_head(project: Path, heads: list[str]) -> None:
    outcome = everything.run(Paths(project), targets=["first"])
    assert outcome.exit_code == 0
    assert not outcome.up_to_date
    assert (project / "a.txt").read_text() == "head:1"
    assert heads == ["begun with None", "ended"]
    again = everything.run(Paths(project), targets=["first"])
    assert (again.exit_code, again.up_to_date) == (0, True)
    assert heads == ["begun with None", "ended"]
    forced = everything.run(Paths(project), targets=["first"], dvc_args=["--force"])
    assert not forced.up_to_date
    assert len(heads) == 4


def test_a_named_cluster_is_joined(project: Path, heads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "theirs:6379")
    assert everything.run(Paths(project), targets=["first"]).exit_code == 0
    assert (project / "a.txt").read_text() == "theirs:6379"
    assert heads == []


def test_a_failing_stage_gives_its_code(project: Path, heads: list[str]) -> None:
    outcome = everything.run(Paths(project), targets=["bad"])
    assert outcome.exit_code != 0
    assert heads == ["begun with None", "ended"]
    assert everything.summary(outcome) == [
        f"The graph stopped after {outcome.elapsed_s:.0f} s (exit code {outcome.exit_code}); see above."
    ]


def test_wrong_params_are_told_before_anything_starts(project: Path, heads: list[str]) -> None:
    (project / "params.yaml").write_text("profile: nowhere\n")
    with pytest.raises(ParamsError):
        everything.run(Paths(project))
    assert heads == []


def test_the_outcome_names_what_was_made(project: Path) -> None:
    reports = project / "reports"
    (reports / "animate" / "rabbit").mkdir(parents=True)
    (reports / "animate" / "rabbit" / "rabbit.gif").write_bytes(b"GIF89a")
    (reports / "register").mkdir()
    (reports / "register" / "faces.json").write_text(json.dumps({"name": "fomm-faces", "version": 3}))
    (reports / "register" / "torn.json").write_text("{")
    (reports / "index.html").write_text("<p>")
    outcome = everything._outcome(Paths(project), 0, 12.34, False)
    assert everything.summary(outcome) == [
        "Done in 12.3 s.",
        f"Report:        {reports / 'index.html'}",
        f"Animation:     {reports / 'animate' / 'rabbit' / 'rabbit.gif'}",
        "Model version: models:/fomm-faces/3",
    ]


@pytest.mark.parametrize(
    ("number", "heard"),
    [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)],
    ids=["interrupt", "term", "term-in-the-background"],
)
def test_an_interrupt_lets_the_stage_end_and_leaves_nobody(
    project: Path, root: Path, number: signal.Signals, heard: signal.Handlers
) -> None:
    """A shell's background jobs, and so these tests in one, start with SIGINT ignored: here it is as ``heard`` says."""
    stage = """
        import os, pathlib, subprocess, sys, time
        stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        pathlib.Path("pids").write_text(f"{os.getpid()} {stray.pid}")
        os.replace("pids", "started")
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pathlib.Path("saved").write_text("checkpoint")
            raise
    """
    (project / "stage.py").write_text(textwrap.dedent(stage))
    (project / "dvc.yaml").write_text("stages:\n  long:\n    cmd: python stage.py\n")
    driver = """
        import contextlib, pathlib, sys
        from pipelines import everything
        from pipelines.stage import Paths
        @contextlib.contextmanager
        def head(num_cpus):
            try:
                yield {}
            finally:
                pathlib.Path("head-ended").touch()
        everything.head = head
        everything.run(Paths(pathlib.Path(".")))
    """
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", textwrap.dedent(driver)]
    before = signal.signal(signal.SIGINT, heard)
    try:
        process = subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (project / "started").exists():
        assert process.poll() is None
        psutil.cpu_percent(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (project / "saved").read_text() == "checkpoint", said
    assert (project / "head-ended").exists()
    for pid in (project / "started").read_text().split():
        assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
