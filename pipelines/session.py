"""The one place that starts or joins Ray.

A stage takes `ray_session`: it joins the cluster that is named, else starts a Ray of its own for as long as it lasts.
Starting one costs seconds, so a run of many stages starts `head` once and lets each stage join it by the environment.

Ray's dashboard process asks the cloud's metadata addresses which cloud it is in, unless the file
``~/ray_bootstrap_config.yaml`` exists. That process, and no other, is given a home folder of its own which holds that
file, so nothing is asked and the user's home stays as it is.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from models.errors import EnvironmentProblem, must
from pipelines.params import ClusterConfig
from pipelines.processes import end_tree, environment, term_as_exit

logger = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "training", "preprocessing", "pipelines")
SHARED_CHECKOUT = "INKMOTION_HEAD"
"""Set in the environment of stages whose Ray runs on this machine, with this checkout on its path."""
BOOTSTRAP_FILE = "ray_bootstrap_config.yaml"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",  # what fails is raised as well
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will do; else it warns at every start
}
MIN_STORE_BYTES = 80 << 20
"""Ray refuses a smaller object store."""
CONNECT_TIMEOUT_S = 5.0
START_TIMEOUT_S = 90.0


@contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Have Ray for the length of the block.

    A Ray that the process has joined already is used as it is. Otherwise ``cluster.address``, else the environment's
    RAY_ADDRESS, is joined; without either a Ray is started on this machine and ended with the block.

    Raises:
        EnvironmentProblem: nothing answers at the address, or no Ray can be started here.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS") or None
    with environment(QUIET):
        import ray

        if ray.is_initialized():
            yield
            return
        with _local(cluster) if address in (None, "local") else _joined(str(address)):
            yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    _probe(address)
    _heed_token_mode()
    try:
        ray.init(address=address, runtime_env=_travelling_code(), **_hushed())
    except Exception as error:  # Ray raises many kinds, among them bare Exception
        fix = (
            "Correct cluster.address or RAY_ADDRESS; a cluster with tokens wants RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
        )
        raise EnvironmentProblem(must(f"Ray at {address}", "let this program in", _first_line(error), fix)) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local(cluster: ClusterConfig) -> Iterator[None]:
    import ray

    folder = _make_folder()
    try:
        variables = {"PYTHONPATH": _python_path(), **_own_token(folder)}
        store = object_store_bytes()
        with environment(variables), _own_home(folder):
            ours = set(psutil.Process().children())
            try:
                options: dict[str, Any] = {
                    "num_cpus": cluster.num_cpus,
                    "object_store_memory": store,
                    "_temp_dir": str(folder),
                }
                ray.init(address="local", include_dashboard=False, **options, **_hushed())
            except BaseException as error:  # as above, and interrupts
                for process in set(psutil.Process().children()) - ours:  # Ray forgets what it started before it failed
                    end_tree(process, timeout_s=1)
                if not isinstance(error, Exception):
                    raise
                fix = "Free memory, ports or disk, or name a running cluster in cluster.address"
                raise EnvironmentProblem(must("a local Ray", "start", _first_line(error), fix)) from error
            yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def head(num_cpus: int | None = None) -> Iterator[dict[str, str]]:
    """Run one Ray head on this machine for the length of the block.

    The head has a temporary folder, ports and an access token of its own, so several may run side by side. It ends with
    the block, with this process (also when that is killed), and leaves nothing behind.

    Args:
        num_cpus: CPUs that Ray counts; None: all.

    Yields:
        Environment variables with which child processes join it.

    Raises:
        EnvironmentProblem: it does not come up.
    """
    folder = _make_folder()
    shared = {**QUIET, **_own_token(folder), "RAY_TMPDIR": str(folder)}
    if "RAY_AUTH_TOKEN_PATH" in shared:
        shared["RAY_AUTH_MODE"] = "token"  # whoever names an address must say so
    with term_as_exit():
        try:
            with _child(_head_command(num_cpus), folder, {**os.environ, **shared}) as process:
                address = _wait_for_head(process, folder)
                yield {**shared, "RAY_ADDRESS": address, SHARED_CHECKOUT: str(PROJECT)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _head_command(num_cpus: int | None) -> list[str]:
    # Port 0 lets Ray choose; the client's server alone takes no 0.
    chosen: tuple[str, ...] = ("port", "node-manager-port", "object-manager-port", "min-worker-port", "max-worker-port")
    chosen += ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    chosen += ("runtime-env-agent-port",)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--{name}=0" for name in chosen]
    command += [f"--object-store-memory={object_store_bytes()}"]
    command += [f"--ray-client-server-port={_free_port()}"] if importlib.util.find_spec("grpc") else []
    return command + ([f"--num-cpus={num_cpus}"] if num_cpus is not None else [])


@contextmanager
def _child(command: list[str], folder: Path, inherited: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    variables = {key: value for key, value in inherited.items() if key != "RAY_ADDRESS"}
    variables |= {"PYTHONPATH": _python_path(), "RAY_START_HOOK": f"{__name__}.prepare_head"}
    variables |= {"INKMOTION_HEAD_FOLDER": str(folder), "INKMOTION_HEAD_PARENT": str(os.getpid())}
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for us to hear, and to end the head after its users
        )
    root = psutil.Process(process.pid)
    try:
        yield process
    finally:
        end_tree(root)
        process.wait()


def prepare_head(_params: Any, _is_head: bool) -> None:
    """Ray calls this (RAY_START_HOOK) in the head's process before it starts the others."""
    folder = Path(os.environ.pop("INKMOTION_HEAD_FOLDER"))
    os.environ.pop("RAY_START_HOOK")
    parent = int(os.environ.pop("INKMOTION_HEAD_PARENT"))
    with suppress(OSError, AttributeError):  # Linux only; elsewhere a killed parent leaves the head running
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # where the parent was killed; after Ray's own endings
    if os.getppid() != parent:  # it died before we asked to be told
        raise SystemExit(1)
    _dashboard_home(folder)


def _wait_for_head(process: subprocess.Popen[bytes], folder: Path) -> str:
    address_file = folder / "ray" / "ray_current_cluster"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if address_file.exists() and (address := address_file.read_text().strip()):
            return address
        time.sleep(0.05)
    log = (folder / "head.log").read_text(errors="replace").strip().splitlines()
    got = log[-1] if log else "no word from it"
    fix = "Free memory, ports or disk; `inkmotion doctor` shows what this machine has"
    raise EnvironmentProblem(must("the Ray head", f"be ready within {START_TIMEOUT_S:.0f} s", got, fix))


def object_store_bytes() -> int:
    """Size of the object store: 30 % of the free memory, and no more than the shared memory holds.

    Raises:
        EnvironmentProblem: that is less than Ray needs.
    """
    memory = int(psutil.virtual_memory().available * 0.3)
    shared = Path("/dev/shm")
    free = int(shutil.disk_usage(shared).free * 0.9) if shared.is_dir() else memory
    size = min(memory, free)
    if size < MIN_STORE_BYTES:
        where, fix = (
            ("memory", "End other programs") if memory < free else (str(shared), "Give a container --shm-size=1g")
        )
        rule = f"have room for {MIN_STORE_BYTES >> 20} MB of Ray's objects"
        raise EnvironmentProblem(must(where, rule, f"{size >> 20} MB", fix))
    return size


def _probe(address: str) -> None:
    """Ray waits for minutes where nothing listens; ask the port first."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        fix = "Correct cluster.address or RAY_ADDRESS"
        raise EnvironmentProblem(must("Ray's address", "be auto, local, HOST:PORT or ray://HOST:PORT", address, fix))
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        fix = "Start the cluster, correct cluster.address or RAY_ADDRESS, or leave both unset for a local Ray"
        raise EnvironmentProblem(must(f"Ray at {address}", "answer", _first_line(error), fix)) from None


def _travelling_code() -> dict[str, Any] | None:
    """Nodes of a real cluster have no checkout: the packages go with the job. Our own head has them on its path."""
    if os.environ.get(SHARED_CHECKOUT) == str(PROJECT):
        return None
    return {"py_modules": [str(PROJECT / name) for name in PACKAGES]}


def _hushed() -> dict[str, Any]:
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it announces that tokens are in use
    return {"log_to_driver": False, "logging_level": logging.ERROR}


def _make_folder() -> Path:
    # Sockets below it have paths of at most 107 bytes, so the system's own, often longer, temporary folder won't do.
    base = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="ink-", dir=base))
    (folder / "home").mkdir()
    (folder / "home" / BOOTSTRAP_FILE).write_text("{}\n")
    return folder


@functools.cache
def _token() -> str:
    """One for this process' life: Ray reads it once and remembers it."""
    return secrets.token_hex(32)


def _own_token(folder: Path) -> dict[str, str]:
    """Variables that keep others out of our Ray; what the user has chosen stands.

    RAY_AUTH_MODE is left to Ray: it turns tokens on where it finds one, and reads that variable at import only.
    """
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if named or os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return {}
    path = folder / "auth_token"
    path.touch(mode=0o600)
    path.write_text(_token())
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


def _heed_token_mode() -> None:
    """Ray reads RAY_AUTH_MODE when it is imported; where that was before the variable was set, have it read again."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        with suppress(ImportError):
            from ray._raylet import Config  # type: ignore[attr-defined]

            Config.initialize("")


@contextmanager
def _own_home(folder: Path) -> Iterator[None]:
    undo = _dashboard_home(folder)
    try:
        yield
    finally:
        undo()


def _dashboard_home(folder: Path) -> Callable[[], None]:
    """Make Ray's starter of processes give the dashboard the home below ``folder``; returns the undoing."""
    from ray._private import ray_constants, services

    start, kind = services.start_ray_process, ray_constants.PROCESS_TYPE_DASHBOARD
    updates = {"HOME": str(folder / "home")}
    users_token = Path.home() / ".ray" / "auth_token"
    if users_token.exists() and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        updates["RAY_AUTH_TOKEN_PATH"] = str(users_token)

    @functools.wraps(start)
    def start_with_home(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == kind:
            kwargs["env_updates"] = {**(kwargs.get("env_updates") or {}), **updates}
        return start(command, process_type, *args, **kwargs)

    services.start_ray_process = start_with_home

    def undo() -> None:
        services.start_ray_process = start

    return undo


def _python_path() -> str:
    """The project first, for a checkout that is not installed."""
    return os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
