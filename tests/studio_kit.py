"""A registry of small models, the studio served from it, a browser, and what the browser's camera sees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import motion_kit
import torch

from models.export_style import export_style
from models.families import Family
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines import registry

START_TIMEOUT_S = 180.0
MAX_UPLOAD_MB, MAX_SECONDS = 4, 20
_SERVE = """
import sys
from pathlib import Path
from pipelines import studio
from pipelines.stage import Paths
options = studio.StudioOptions(port=0, max_upload_mb=float(sys.argv[2]), max_seconds=float(sys.argv[3]))
studio.serve(Paths(Path(sys.argv[1])), None, options, tell=lambda address: print(address, flush=True))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running studio."""

    address: str
    process: subprocess.Popen[str]
    temporary: Path
    """Where its process puts temporary files."""

    @property
    def visits(self) -> list[Path]:
        """Folders of the open pages."""
        return sorted(self.temporary.glob("inkmotion-studio-*/visit-*"))

    def files(self, pattern: str) -> list[Path]:
        """Files that the studio has, whoever they belong to."""
        return sorted(self.temporary.glob(f"inkmotion-studio-*/**/{pattern}"))


def small_registry(folder: Path) -> registry.Store:
    """A store with a model that draws and one that animates, both with fresh weights and both champions."""
    store = registry.Store(uri=f"sqlite:///{folder}/mlflow.db")
    torch.manual_seed(0)
    config = StyleConfig(width=8, num_blocks=1)
    drawing = folder / "style.onnx"
    export_style(StyleGenerator(config).eval(), config, drawing)
    _register(store, folder, "ink", "style", drawing, size_px=config.size_px)
    _register(store, folder, "faces", "motion", motion_kit.exported("fomm").path, size_px=motion_kit.SIZE)
    return store


def _register(store: registry.Store, folder: Path, name: str, family: Family, onnx: Path, *, size_px: int) -> None:
    checkpoint = folder / f"checkpoint-{name}"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text("{}")
    tags = {"weights.sha256": name, "family": family}
    parcel = registry.Parcel(
        name=name,
        run_id=None,
        onnx=onnx,
        checkpoint=checkpoint,
        card=f"# {name}",
        tags=tags,
        size_px=size_px,
        family=family,
    )
    version = registry.register(parcel, store)
    registry._set_alias(version, registry.CHAMPION, store)


@contextmanager
def serving(root: Path, store: registry.Store, temporary: Path) -> Iterator[Served]:
    """The studio of the project in ``root`` as a process of its own, whose temporary files lie in ``temporary``."""
    temporary.mkdir(parents=True, exist_ok=True)
    given = {"MLFLOW_TRACKING_URI": store.uri, "TMPDIR": str(temporary), "PYTHONPATH": str(root)}
    given["ORT_DISABLE_TELEMETRY"] = "1"  # else ONNX Runtime writes a file of its session, and sends what it counts
    command = [sys.executable, "-c", _SERVE, str(root), str(MAX_UPLOAD_MB), str(MAX_SECONDS)]
    process = subprocess.Popen(
        command, env={**os.environ, **given}, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate(timeout=10)[1]
        yield Served(address=address, process=process, temporary=temporary)
    finally:
        end(process)


def end(process: subprocess.Popen[str], by: signal.Signals = signal.SIGINT) -> int:
    """End the studio politely; its exit code."""
    if process.poll() is None:
        process.send_signal(by)
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode


def browser_path() -> str | None:
    """Of a Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browsing(camera: Path) -> Iterator[Any]:
    """A headless browser whose camera shows a file, without asking whether it may."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={camera}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path(), args=flags)
        yield browser
        browser.close()


def film(source: Path, out: Path, *options: str, before: tuple[str, ...] = ()) -> Path:
    """A file of ffmpeg's making."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *before, "-i", str(source), *options, str(out)]
    subprocess.run(command, check=True)
    return out


def within(seconds: float, question: Any) -> bool:
    """Whether something comes true in so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if question():
            return True
        time.sleep(0.05)
    return False
