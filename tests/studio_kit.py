"""A registry of small models, the studio served from it, a browser, and what the browser's camera sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import motion_kit
import torch

from models.export_face import export_faces
from models.export_style import export_style
from models.families import Family
from models.style.config import StyleConfig
from models.style.face_config import FaceConfig
from models.style.generator import StyleGenerator
from pipelines import registry
from pipelines.face_engines import TorchFaces
from pipelines.register_dualstyle import write_styles
from training.codes import Codes, code_table
from training.recipes import dualstyle

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


def cartoon_registry(folder: Path) -> registry.Store:
    """Likewise, but what draws is a DualStyleGAN of the styles ``calm`` and ``wild``, whose weights change a lot."""
    store = registry.Store(uri=f"sqlite:///{folder}/mlflow.db")
    faces = small_faces()
    encoder, generator = export_faces({"generator": faces.generator, "encoder": faces.encoder}, folder)
    generator = generator.rename(folder / "dualstyle.onnx")
    extras = {"encoder": encoder, "styles": write_styles(faces, folder / "styles.npz")}
    _register(store, folder, "cartoons", "dualstyle", generator, size_px=faces.size_px, extras=extras)
    moving = motion_kit.exported("articulated").path  # of those with fresh weights one that shows what it moves
    _register(store, folder, "faces", "motion", moving, size_px=motion_kit.SIZE)
    return store


def small_faces() -> TorchFaces:
    """A DualStyleGAN of 32 pixels with random weights, whose structure path is as strong as a trained one's."""
    config = FaceConfig(
        size_px=32,
        style_dim=16,
        mapping_layers=2,
        max_channels=8,
        structure_layers=5,
        encoder_px=32,
        encoder_width=4,
        encoder_units=(1, 1, 1, 1),
    )
    torch.manual_seed(0)
    networks = dualstyle.build_networks(config)
    for residual in networks["generator"].residuals:
        for parameter in residual.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    shape = (config.num_styles, config.style_dim)
    codes = {f"{name}-000000": Codes(torch.randn(shape), torch.randn(shape)) for name in ("calm", "wild")}
    return TorchFaces(networks["generator"], networks["encoder"], config, code_table(codes))


def _register(
    store: registry.Store,
    folder: Path,
    name: str,
    family: Family,
    onnx: Path,
    *,
    size_px: int,
    extras: Mapping[str, Path] | None = None,
) -> None:
    checkpoint = folder / f"checkpoint-{name}"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text("{}")
    tags = {"weights.sha256": name, "family": family, "config.model": json.dumps({"size_px": size_px})}
    parcel = registry.Parcel(
        name=name,
        run_id=None,
        onnx=onnx,
        checkpoint=checkpoint,
        card=f"# {name}",
        tags=tags,
        size_px=size_px,
        family=family,
        extras=extras or {},
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
