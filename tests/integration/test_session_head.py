"""A Ray head that several processes share, and that leaves nothing behind however its owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from pipelines.params import ClusterConfig
from pipelines.session import head, ray_session

pytestmark = pytest.mark.slow

STAGE = """
    import json, os, sys
    from pipelines.params import ClusterConfig
    from pipelines.session import ray_session
    with ray_session(ClusterConfig()):
        import ray

        @ray.remote
        def where():
            import models.errors
            return {"package": models.errors.__file__, "home": os.path.expanduser("~")}

        found = ray.get(where.remote())
        print(json.dumps({**found, "cpus": ray.cluster_resources()["CPU"]}))
"""


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def python(code: str, variables: dict[str, str], folder: Path, root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=folder, text=True, **pipes)


def run_stage(variables: dict[str, str], folder: Path, root: Path) -> dict[str, object]:
    out, error = python(STAGE, variables, folder, root).communicate(timeout=120)
    assert error == ""
    found: dict[str, object] = json.loads(out)
    return found


def of_folder(folder: str) -> list[int]:
    """Processes whose environment or command names a head's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if folder in " ".join(process.cmdline()) or process.environ().get("RAY_TMPDIR") == folder:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def until_gone(folder: str, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while of_folder(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not of_folder(folder)


def test_stages_join_one_head_beside_another(tmp_path: Path, root: Path) -> None:
    with head(3) as one, head(1) as other:
        assert one["RAY_ADDRESS"] != other["RAY_ADDRESS"]
        for variables, cpus in ((one, 3), (other, 1), (one, 3)):
            found = run_stage(variables, tmp_path, root)
            assert found["cpus"] == cpus
            assert found["package"] == str(root / "models" / "errors.py")
            assert found["home"] == str(Path.home())
        assert of_folder(one["RAY_TMPDIR"])
    for variables in (one, other):
        assert of_folder(variables["RAY_TMPDIR"]) == []
        assert not Path(variables["RAY_TMPDIR"]).exists()


OWNER = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started deaf to it
    from pipelines.session import head
    with head(1) as variables:
        print(variables["RAY_TMPDIR"], flush=True)
        time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_head_ends_with_its_owner(number: signal.Signals, tmp_path: Path, root: Path) -> None:
    owner = python(OWNER, {}, tmp_path, root)
    assert owner.stdout is not None
    folder = owner.stdout.readline().strip()
    assert of_folder(folder)
    owner.send_signal(number)
    owner.communicate(timeout=60)
    assert until_gone(folder)
    assert not Path(folder).exists()


class _Refuse(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_PUT = do_POST = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every plain HTTP request of a child to somewhere else arrives here."""
    _Refuse.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("no_grpc_proxy", "*")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield _Refuse.asked
    server.shutdown()
    server.server_close()


PLAIN = """
    import time, ray
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir="{folder}")
    time.sleep(5)
    ray.shutdown()
"""
OURS = """
    import time
    from pipelines.params import ClusterConfig
    from pipelines.session import ray_session
    with ray_session(ClusterConfig(num_cpus=1)):
        time.sleep(5)
"""


def test_nobody_is_asked_which_cloud_this_is(proxy: list[str], tmp_path: Path, root: Path) -> None:
    token = {"RAY_AUTH_TOKEN": "of this test, so that none is written into the home folder"}
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        python(PLAIN.format(folder=folder), token, tmp_path, root).communicate(timeout=120)
    assert any("169.254.169.254" in address for address in proxy), "the control must see Ray ask"
    proxy.clear()
    _, error = python(OURS, {}, tmp_path, root).communicate(timeout=120)
    assert error == ""
    with head(1):
        time.sleep(5)
    assert proxy == []


def test_a_session_in_a_process_that_had_ray_already(tmp_path: Path) -> None:
    import ray

    for _ in range(2):
        with ray_session(ClusterConfig(num_cpus=1)):
            assert ray.get(ray.remote(lambda: 7).remote()) == 7
            with ray_session(ClusterConfig(address="nowhere:1")):
                assert ray.is_initialized()
        assert not ray.is_initialized()
    with head(2) as variables, pytest.MonkeyPatch.context() as patch:
        for key, value in variables.items():
            patch.setenv(key, value)
        with ray_session(ClusterConfig()):
            assert ray.cluster_resources()["CPU"] == 2
    assert not (Path.home() / ".ray" / "auth_token").exists() or "RAY_AUTH_TOKEN" in os.environ
