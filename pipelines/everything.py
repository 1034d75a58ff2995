"""The whole graph in one go: one Ray head for all stages, `dvc repro` as a child, and where to look afterwards."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.errors import EnvironmentProblem, must
from pipelines.params import PARAMS_FILE, ClusterConfig, load
from pipelines.processes import end_tree, term_as_exit
from pipelines.session import head
from pipelines.stage import Paths

logger = logging.getLogger(__name__)

LEAVE_TIMEOUT_S = 60.0
"""How long an interrupted graph may take to end by itself: a training writes its last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run of the graph left behind."""

    exit_code: int
    """Of ``dvc repro``."""
    elapsed_s: float
    up_to_date: bool
    """Nothing had changed, so nothing ran."""
    report: Path | None
    animations: tuple[Path, ...]
    versions: tuple[str, ...]
    """``models:/NAME/VERSION`` of each registered model."""


def run(paths: Paths, *, targets: Sequence[str] = (), dvc_args: Sequence[str] = ()) -> RunOutcome:
    """Reproduce the graph, or some stages of it and what they need.

    The stages' output goes to this process' own. When nothing has changed, no Ray is started. An interrupt is passed on
    to the graph once, and awaited; what then still runs is ended by its id.

    Args:
        paths: of the project.
        targets: stages; all by default.
        dvc_args: further arguments of ``dvc repro``, as ``--force``.

    Raises:
        ParamsError: a wrong params file.
        EnvironmentProblem: no DVC, or no Ray.
    """
    cluster = load(paths.root / PARAMS_FILE).cluster
    if importlib.util.find_spec("dvc") is None:
        raise EnvironmentProblem(must("DVC", "be installed", "no such package", "Install the project's dependencies"))
    started_s = time.monotonic()
    code, idle = 0, not dvc_args and _is_up_to_date(paths, targets)
    if not idle:
        with term_as_exit(), _shared_ray(cluster) as variables:
            code = _dvc(paths, ["repro", *dvc_args, *targets], variables)
    return _outcome(paths, code, time.monotonic() - started_s, idle)


def summary(outcome: RunOutcome) -> list[str]:
    """What to tell the user, a line each."""
    if outcome.exit_code:
        return [f"The graph stopped after {outcome.elapsed_s:.0f} s (exit code {outcome.exit_code}); see above."]
    first = "Everything is up to date" if outcome.up_to_date else "Done"
    lines = [f"{first} in {outcome.elapsed_s:.1f} s."]
    lines += [f"Report:        {outcome.report}"] if outcome.report else []
    lines += [f"Animation:     {path}" for path in outcome.animations]
    lines += [f"Model version: {version}" for version in outcome.versions]
    return lines


def _is_up_to_date(paths: Paths, targets: Sequence[str]) -> bool:
    quiet = ["status", "--quiet", "--with-deps", *(targets or ["dvc.yaml"])]  # papers' graphs are none of ours
    command = [sys.executable, "-m", "dvc", *quiet]
    asked = subprocess.run(command, cwd=paths.root, env=_environment({}), capture_output=True, check=False)
    return asked.returncode == 0  # 1: something changed, or DVC has an error to tell when it is run


@contextmanager
def _shared_ray(cluster: ClusterConfig) -> Iterator[dict[str, str]]:
    if cluster.address or os.environ.get("RAY_ADDRESS"):
        yield {}  # the stages find that cluster themselves
        return
    with head(cluster.num_cpus) as variables:
        yield variables


def _dvc(paths: Paths, arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run DVC in a session of its own, so that an interrupt reaches it once, from here."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = _environment(variables)
    with _heeded_interrupts():
        process = subprocess.Popen(
            command, cwd=paths.root, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
    root = psutil.Process(process.pid)
    try:
        return process.wait()
    except BaseException:
        logger.warning("interrupted; waiting up to %.0f s for the running stage to end", LEAVE_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second interrupt means now
            process.wait(LEAVE_TIMEOUT_S)
        raise
    finally:
        end_tree(root)
        process.wait()


@contextmanager
def _heeded_interrupts() -> Iterator[None]:
    """Let a child hear SIGINT although this process, as a shell's background job, was started deaf to it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """For DVC and the stages: this interpreter first on the path, nobody phoned."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet |= {"ORT_DISABLE_TELEMETRY": "1", "PATH": path}
    return {**os.environ, **quiet, **variables}


def _outcome(paths: Paths, code: int, elapsed_s: float, idle: bool) -> RunOutcome:
    reports = paths.root / "reports"
    page = reports / "index.html"
    return RunOutcome(
        exit_code=code,
        elapsed_s=elapsed_s,
        up_to_date=idle,
        report=page if page.is_file() else None,
        animations=tuple(sorted((reports / "animate").glob("*/*.gif"))),
        versions=tuple(filter(None, map(_version, sorted((reports / "register").glob("*.json"))))),
    )


def _version(report: Path) -> str | None:
    try:
        written = json.loads(report.read_text(encoding="utf-8"))
        return f"models:/{written['name']}/{written['version']}"
    except (ValueError, KeyError, TypeError):
        logger.warning("%s names no model version", report)
        return None
