"""What the studio says when it can't be served; nothing is left then."""

from __future__ import annotations

import importlib.util
import socket
import tempfile
from pathlib import Path

import pytest

from models.errors import EnvironmentProblem, TrackingError
from pipelines import studio
from pipelines.stage import Paths
from pipelines.studio_visits import PREFIX

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio: the extra studio")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def serve(folder: Path, **options: object) -> None:
    studio.serve(Paths(folder), None, studio.StudioOptions(**options), tell=pytest.fail)  # type: ignore[arg-type]


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((studio.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=rf"127\.0\.0\.1:{port} must be free; got .*--port"):
            serve(tmp_path, port=port)


def test_an_address_of_another_machine_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EnvironmentProblem, match=r"192\.0\.2\.1:0 must be free"):
        serve(tmp_path, host="192.0.2.1", port=0)
    assert "no password" in caplog.text


def test_without_gradio_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"find gradio; got none\. Install it: .*inkmotion\[studio\]"):
        serve(tmp_path)


def test_an_empty_registry_is_said_and_nothing_is_left(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio.registry, "names", lambda store: [])
    with pytest.raises(TrackingError, match="the registry must hold a style model for the studio"):
        serve(tmp_path, port=0)
    assert list(temporary.glob(f"{PREFIX}*")) == []
