"""What a session says when there is no Ray to be had; no Ray is started here."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from models.errors import EnvironmentProblem
from pipelines import session
from pipelines.params import ClusterConfig

Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "available")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens(closed_port: int, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{closed_port}"
    with (
        pytest.raises(EnvironmentProblem, match=rf"Ray at {address} must answer; got .*refused.*RAY_ADDRESS"),
        session.ray_session(ClusterConfig(address=address)),
    ):
        raise AssertionError("no session")


def test_the_environment_names_the_cluster(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    with pytest.raises(EnvironmentProblem, match=str(closed_port)), session.ray_session(ClusterConfig()):
        raise AssertionError("no session")


@pytest.mark.parametrize("address", ["somewhere", "host:", ":", "host:port", "ray://host"])
def test_what_is_no_address(address: str) -> None:
    with (
        pytest.raises(EnvironmentProblem, match=r"Ray's address must be auto, local, HOST:PORT or ray://HOST:PORT"),
        session.ray_session(ClusterConfig(address=address)),
    ):
        raise AssertionError("no session")


@pytest.mark.parametrize(("memory", "shared", "told"), [(50, 9000, "memory"), (9000, 64, "/dev/shm")])
def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, memory: int, shared: int, told: str) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(memory << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, shared << 20))
    with pytest.raises(EnvironmentProblem, match=rf"{told} must have room for 80 MB of Ray's objects; got \d+ MB"):
        session.object_store_bytes()


def test_the_object_store_fits_the_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(8000 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1000 << 20))
    assert session.object_store_bytes() == 900 << 20


def test_a_head_that_fails_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    folder.mkdir()
    monkeypatch.setattr(session, "_make_folder", lambda: folder)
    monkeypatch.setattr(session, "_head_command", lambda _: ["/bin/sh", "-c", "echo no port is free >&2; exit 3"])
    with pytest.raises(EnvironmentProblem, match="the Ray head must be ready .*; got no port is free"), session.head(1):
        raise AssertionError("no head")
    assert not folder.exists()


def test_the_code_travels_only_where_there_is_no_checkout(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.delenv(session.SHARED_CHECKOUT, raising=False)
    travelling = session._travelling_code()
    assert travelling is not None
    assert [Path(path).parent for path in travelling["py_modules"]] == [root] * 4
    assert all(Path(path, "__init__.py").is_file() for path in travelling["py_modules"])
    monkeypatch.setenv(session.SHARED_CHECKOUT, str(root))
    assert session._travelling_code() is None


def test_a_chosen_token_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    made = Path(session._own_token(tmp_path)["RAY_AUTH_TOKEN_PATH"])
    assert len(made.read_text()) == 64
    assert made.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert session._own_token(tmp_path) == {}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    assert session._own_token(tmp_path) == {}
