"""Killed in destylisation and in fine-tuning, DualStyleGAN's commands go on to the unbroken run's result to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dualstyle_kit import SMALL, exported
from style_eval_kit import make_shards, pictures

from models.style.face_networks import build_encoder
from training.checkpoint import file_sha256
from training.codes import Codes, code_table, codes_sha256, read_codes, write_codes
from training.recipes import dualstyle, face_gan
from training.runfolder import RunFolder

pytestmark = pytest.mark.slow

NAME, PICTURES = "small", 6
STEPS, CHECKPOINT_EVERY = 8, 2
PATIENCE_S = 400.0
MODEL = {key: value for key in SMALL.__slots__ if not isinstance(value := getattr(SMALL, key), tuple)}
SETTINGS: dict[str, Any] = {
    "profile": "small",
    "profiles": {"small": {"datasets": {name: {"kind": "faces", "source": name} for name in ("faces", "styles")}}},
    "datasets": {name: {"kind": "faces", "size_px": SMALL.size_px} for name in ("faces", "styles")},
    "dualstyles": {
        NAME: {
            "dataset": "faces",
            "style_dataset": "styles",
            "model": {**MODEL, "encoder_units": list(SMALL.encoder_units)},
            "destylise": {"steps": 20},
            "target": {
                "batch_size": 2,
                "max_steps": STEPS,
                "num_workers": 1,
                "num_threads": 1,
                "use_gpu": False,
                "checkpoint_every_steps": CHECKPOINT_EVERY,
                "validate_every_steps": STEPS // 2,
                "keep_last": STEPS,
                "num_validation_pictures": 2,
            },
        }
    },
}


class Project:
    """A folder with settings, shards and networks, and the command line in it."""

    def __init__(self, root: Path, folder: Path, samples: Path) -> None:
        self.cli, self.folder, self.data = root / "cli.py", folder, folder / "data"
        for name in ("faces", "styles"):
            frames = pictures(samples / "photos", PICTURES, SMALL.size_px)
            make_shards(self.data / "shards" / name, frames, num_test=2)
        (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))

    def has(self, step: str, preset: str, networks: dict[str, Any]) -> None:
        """Put networks where those of a step would be."""
        exported(self.data / "trained" / f"{NAME}-{step}", preset, networks)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(self.cli), *words], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def finish(self, *words: str) -> None:
        process = self.start(*words)
        try:
            assert process.wait(PATIENCE_S) == 0, self.log()
        finally:
            process.kill()

    def kill_when(self, look: Callable[[], bool], *words: str) -> None:
        """Start a command, and kill -9 it as soon as ``look`` sees what it waits for."""
        process, deadline = self.start(*words), time.monotonic() + PATIENCE_S
        try:
            while not look():
                assert process.poll() is None, f"ended with {process.returncode} before it was killed: {self.log()}"
                assert time.monotonic() < deadline, "waited in vain"
                time.sleep(0.002)
        finally:
            process.kill()
        assert process.wait(30) == -signal.SIGKILL, self.log()

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()[-3000:]


def test_destylisation_goes_on_to_the_same_codes(root: Path, tmp_path: Path, samples: Path) -> None:
    calm, killed = (Project(root, tmp_path / name, samples) for name in ("calm", "killed"))
    for project in (calm, killed):
        torch.manual_seed(0)
        project.has("gan", "stylegan2", face_gan.build_networks(SMALL))
        project.has("tuned", "stylegan2", face_gan.build_networks(SMALL))
        project.has("encoder", "psp", build_encoder(SMALL))
    calm.finish("destylise", NAME)

    journal, target = (killed.data / "codes" / name for name in (f".{NAME}.journal.jsonl", NAME))

    def num_done() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    for wanted in (1, 3):
        killed.kill_when(lambda wanted=wanted: num_done() >= wanted, "destylise", NAME)  # type: ignore[misc]
        assert wanted <= num_done() < PICTURES
        assert not target.exists()
    done = num_done()
    killed.finish("destylise", NAME)
    assert json.loads((killed.folder / "reports" / "destylise" / f"{NAME}.json").read_text())["done_before"] == done
    assert codes_sha256(target) == codes_sha256(calm.data / "codes" / NAME)
    assert len(read_codes(target).names) == PICTURES


def test_fine_tuning_goes_on_to_the_same_weights(root: Path, tmp_path: Path, samples: Path) -> None:
    calm, killed = (Project(root, tmp_path / name, samples) for name in ("calm", "killed"))
    for project in (calm, killed):
        torch.manual_seed(0)
        project.has("source", "dualstylegan", dualstyle.build_networks(SMALL))
        shape = (SMALL.num_styles, SMALL.style_dim)
        codes = {f"still-{number}": Codes(torch.randn(shape), torch.randn(shape)) for number in range(PICTURES)}
        write_codes(project.data / "codes" / NAME, code_table(codes))
    command = ("train", f"{NAME}-target", "--backend", "local")
    calm.finish(*command)

    for wanted in (CHECKPOINT_EVERY, STEPS // 2):
        killed.kill_when(lambda wanted=wanted: last_step(killed) >= wanted, *command)  # type: ignore[misc]
        assert wanted <= last_step(killed) < STEPS
    left = manifest(killed, last_step(killed))
    written = left.stat().st_mtime_ns
    killed.finish(*command)
    assert left.stat().st_mtime_ns == written, "it went on from there"
    assert last_step(killed) == last_step(calm) == STEPS
    for made in sorted(manifest(calm, STEPS).parent.glob("*.safetensors")):  # weights, and all that trains them
        assert file_sha256(made) == file_sha256(manifest(killed, STEPS).with_name(made.name)), made.name
    weights = Path("trained") / f"{NAME}-target" / "weights.safetensors"
    assert file_sha256(killed.data / weights) == file_sha256(calm.data / weights)
    assert file_sha256(calm.data / weights) != file_sha256(calm.data / "trained" / f"{NAME}-source" / weights.name)


def run_of(project: Project) -> Path | None:
    """The training's folder."""
    return next((path for path in (project.folder / "runs").glob(f"{NAME}-target-*") if path.is_dir()), None)


def last_step(project: Project) -> int:
    """Of the newest checkpoint; 0: there is none."""
    run = run_of(project)
    return max(RunFolder(str(run)).steps(), default=0) if run else 0


def manifest(project: Project, step: int) -> Path:
    """Of the checkpoint of a step."""
    run = run_of(project)
    assert run is not None
    return run / f"step-{step:08d}" / "manifest.json"
