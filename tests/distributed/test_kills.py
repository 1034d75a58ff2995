"""Killed at any moment, a training on Ray ends with the weights of the unbroken training, byte for byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import training_kit as kit

from training.job import TrainJob
from training.runfolder import SUMMARY, WORKERS, RunFolder

pytestmark = pytest.mark.slow

T = TypeVar("T")
SEED = 20
STEPS, CHECKPOINT_EVERY = 24, 4
PATIENCE_S = 180.0
"""After which the test fails; nothing waits for it otherwise."""
WIDE = {
    "detector_expansion": 16,
    "motion_expansion": 16,
    "generator_expansion": 16,
    "detector_max_features": 64,
    "motion_max_features": 64,
    "generator_max_features": 64,
}
"""Large enough for a checkpoint to take some milliseconds to write."""


class Scene:
    """A run folder, gates in the way of its training, and the driver that trains there."""

    def __init__(self, tmp_path: Path, job: TrainJob) -> None:
        self.job, self.run, self.gates = job, Path(job.run_folder), tmp_path / "gates"
        self.gates.mkdir()
        self.driver: subprocess.Popen[str] | None = None
        self.family: list[psutil.Process] = []

    def start(self) -> None:
        self.driver = kit.start(self.job, "ray", {**os.environ, "TEST_GATES": str(self.gates)})

    def close_gate(self, step: int) -> None:
        (self.gates / f"closed-{step}").touch()

    def open_gate(self, step: int) -> None:
        (self.gates / f"closed-{step}").unlink()

    def wait_at_gate(self, step: int, attempt: int) -> list[int]:
        """Wait until all workers stand before ``step``; their process ids by rank."""
        pids = self.workers(attempt)
        self.wait(lambda: all((self.gates / f"reached-{step}-{pid}").exists() for pid in pids) or None)
        return pids

    def workers(self, attempt: int) -> list[int]:
        """Process ids by rank of the attempt's workers, as soon as they have written them down."""

        def look() -> list[int] | None:
            with suppress(OSError, ValueError):
                noted = json.loads((self.run / WORKERS).read_text())
                if noted["attempt"] == attempt:
                    return [worker["pid"] for worker in noted["workers"]]
            return None

        return self.wait(look)

    def wait(self, look: Callable[[], T | None], pause_s: float = 0.01) -> T:
        """Poll until there is something, as long as the driver lives."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := look()) is None:
            assert self.driver is not None
            if self.driver.poll() is not None:
                pytest.fail(f"the driver ended with {self.driver.returncode}: {self.driver.communicate()[1][-3000:]}")
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(pause_s)
        return found

    def stop_while_writing(self, attempt: int) -> int:
        """Hold rank 0 still while a checkpoint is half written; its process id."""
        pid = self.workers(attempt)[0]

        def look() -> bool | None:
            if not self.half_written():
                return None
            os.kill(pid, signal.SIGSTOP)
            if self.half_written():
                return True
            os.kill(pid, signal.SIGCONT)  # it was done already: the next one
            return None

        self.wait(look, pause_s=0.0002)
        return pid

    def half_written(self) -> list[str]:
        return [name for name in os.listdir(self.run) if name.startswith(".step-") and "writing" in name]

    def kill_driver(self) -> None:
        """kill -9; then see that nothing of it goes on."""
        assert self.driver is not None
        family = psutil.Process(self.driver.pid).children(recursive=True)
        self.driver.kill()
        self.driver.communicate()
        psutil.wait_procs(family, timeout=5)
        self.end(family)

    def end(self, family: list[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def finish(self) -> None:
        assert self.driver is not None
        _, errors = self.driver.communicate(timeout=PATIENCE_S)
        assert self.driver.returncode == 0, errors[-3000:]

    def leave(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.kill_driver()


def gated(job: TrainJob) -> TrainJob:
    return dataclasses.replace(job, recipe="training_kit:gated_build")


def final_sha256(run: Path) -> str:
    steps = RunFolder(str(run)).steps()
    assert steps[-1] == STEPS
    return hashlib.sha256((run / f"step-{STEPS:08d}" / "weights.safetensors").read_bytes()).hexdigest()


def options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "max_steps": STEPS,
        "checkpoint_every_steps": CHECKPOINT_EVERY,
        "validate_every_steps": CHECKPOINT_EVERY,
        "log_every_steps": 1,
        "losses": kit.ADVERSARIAL,
        "model": WIDE,
    }


def random_steps() -> tuple[int, int]:
    """A step before the first checkpoint, and one after the third."""
    rng = random.Random(SEED)
    return rng.randrange(1, CHECKPOINT_EVERY), rng.randrange(3 * CHECKPOINT_EVERY + 1, STEPS)


def test_killed_workers_are_replaced(tmp_path: Path) -> None:
    shards = kit.write_shards(tmp_path / "shards")
    unbroken = kit.run_ranks(kit.job(shards, tmp_path / "unbroken", **options(2)), 2)
    scene = Scene(tmp_path, gated(kit.job(shards, tmp_path / "run", **options(2))))
    early, late = random_steps()
    scene.close_gate(early)
    scene.close_gate(late)
    try:
        scene.start()
        pids = scene.wait_at_gate(early, attempt=1)
        assert RunFolder(str(scene.run)).steps() == []  # before the first checkpoint
        os.kill(pids[1], signal.SIGKILL)
        scene.open_gate(early)

        os.kill(scene.stop_while_writing(attempt=2), signal.SIGKILL)
        assert scene.half_written()

        pids = scene.wait_at_gate(late, attempt=3)
        assert not scene.half_written()
        os.kill(pids[0], signal.SIGKILL)
        scene.open_gate(late)
        scene.finish()
    finally:
        scene.leave()
    assert final_sha256(scene.run) == unbroken
    assert json.loads((scene.run / SUMMARY).read_text())["result"]["restarts"] == 3


def test_a_killed_driver_is_started_again(tmp_path: Path) -> None:
    shards = kit.write_shards(tmp_path / "shards")
    unbroken = kit.run_ranks(kit.job(shards, tmp_path / "unbroken", **options(1)), 1)
    scene = Scene(tmp_path, gated(kit.job(shards, tmp_path / "run", **options(1))))
    early, late = random_steps()
    scene.close_gate(early)
    scene.close_gate(late)
    try:
        scene.start()
        scene.wait_at_gate(early, attempt=1)
        assert RunFolder(str(scene.run)).steps() == []
        scene.kill_driver()
        scene.open_gate(early)

        scene.start()
        scene.stop_while_writing(attempt=2)
        scene.kill_driver()
        assert scene.half_written()

        scene.start()
        scene.wait_at_gate(late, attempt=3)
        assert not scene.half_written()
        scene.kill_driver()
        scene.open_gate(late)

        scene.start()
        scene.finish()
    finally:
        scene.leave()
    assert final_sha256(scene.run) == unbroken


def test_a_terminated_driver_saves_first(tmp_path: Path) -> None:
    shards = kit.write_shards(tmp_path / "shards")
    scene = Scene(tmp_path, gated(kit.job(shards, tmp_path / "run", **options(1))))
    early, _ = random_steps()
    scene.close_gate(early)
    try:
        scene.start()
        scene.wait_at_gate(early, attempt=1)
        assert scene.driver is not None
        scene.driver.send_signal(signal.SIGTERM)
        scene.wait(lambda: RunFolder(str(scene.run)).is_asked_to_stop() or None)
        scene.close_gate(STEPS - 1)  # it must not get this far
        scene.open_gate(early)
        scene.finish()
    finally:
        scene.leave()
    summary = json.loads((scene.run / SUMMARY).read_text())
    assert summary["result"]["interrupted"]
    assert not summary["done"]
    last = summary["result"]["steps"]
    assert early <= last < STEPS
    assert RunFolder(str(scene.run)).steps()[-1] == last
