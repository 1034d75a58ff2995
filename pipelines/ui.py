"""MLflow's page on the project's store, as a child process on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from models.errors import EnvironmentProblem, must
from pipelines.params import Params
from pipelines.processes import term_as_exit
from pipelines.registry import default_uri
from pipelines.stage import Paths
from training.tracking.database import check_database, database_path

HOST = "127.0.0.1"
LEAVE_TIMEOUT_S = 10.0


def address(params: Params, paths: Paths, *, port: int) -> str:
    """Where the page is, or will be."""
    uri = default_uri(params, paths)
    return uri if uri.startswith(("http://", "https://")) else f"http://{HOST}:{port}"


def serve(params: Params, paths: Paths, *, port: int) -> int:
    """Run the page until it is interrupted; its exit code. A store that is a server has its page already.

    Raises:
        EnvironmentProblem: the port is taken.
        TrackingError: the store is no MLflow database.
    """
    uri = default_uri(params, paths)
    if uri.startswith(("http://", "https://")):
        return 0
    _check_free(port)
    path = database_path(uri)
    if path is not None:
        check_database(path, timeout_s=params.tracking.timeout_s)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", HOST, "--port", str(port), "--no-serve-artifacts"]
    with term_as_exit():
        child = subprocess.Popen(command, env=_environment(), start_new_session=True)
        try:
            return child.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(child)


def _environment() -> Mapping[str, str]:
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            fix = "Choose another with --port"
            raise EnvironmentProblem(must(f"port {port}", "be free", str(error.strerror), fix)) from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """The server and its worker, which share a process group of their own."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
