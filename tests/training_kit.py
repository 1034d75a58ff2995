"""Small shards, networks and jobs for the tests of training; also a program, so that tests can start ranks."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from models.contracts import INDEX_NAME, ShardClip, ShardFile, ShardIndex
from models.motion.config import MotionConfig
from models.motion.networks import DEBUG
from training.backends import local
from training.checkpoint import info_from_json
from training.config import LossConfig, MotionTrainConfig
from training.feed import PairBatch
from training.job import TrainJob, TrainResult
from training.phases import Batch
from training.recipes import motion
from training.runfolder import RunFolder

SIZE_PX = 32
ADVERSARIAL = LossConfig(gan="lsgan", pixel=1.0, perceptual=(1.0, 1.0))


def write_shards(folder: Path, *, num_train: int = 4, num_test: int = 2, num_frames: int = 12) -> Path:
    """Clips of a coloured square that wanders over a gradient; a shard per split."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, clips = [], []
    for number, (split, num) in enumerate((("train", num_train), ("test", num_test))):
        ids = [f"{split}-{i}" for i in range(num)]
        frames = [_frames(1000 * number + i, num_frames) for i in range(num)]
        table = pa.table({"id": pa.array(ids), "frames": pa.array(frames, pa.list_(pa.binary()))})
        path = folder / f"{split}.parquet"
        pq.write_table(table, path, row_group_size=1, compression="none")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(ShardFile(path=path.name, num_clips=num, num_bytes=path.stat().st_size, sha256=digest))
        clips += [
            ShardClip(id=name, split=split, identity=name, num_frames=num_frames, fps=25.0, shard=number, row=row)
            for row, name in enumerate(ids)
        ]
    index = ShardIndex(dataset="toy", size_px=SIZE_PX, split_rule="source", shards=tuple(shards), clips=tuple(clips))
    (folder / INDEX_NAME).write_text(json.dumps(index.to_json()))
    return folder


def _frames(seed: int, num_frames: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    back = np.linspace(0, 120, SIZE_PX)[:, None, None] * rng.uniform(0.3, 1, 3)
    start, speed, colour = rng.uniform(4, 16, 2), rng.uniform(-1, 1, 2), rng.uniform(120, 255, 3)
    coded = []
    for i in range(num_frames):
        frame = np.broadcast_to(back, (SIZE_PX, SIZE_PX, 3)).copy()
        y, x = np.clip(start + speed * i, 0, SIZE_PX - 10).astype(int)
        frame[y : y + 10, x : x + 10] = colour
        coded.append(cv2.imencode(".jpg", frame.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return coded


def train_config(**options: Any) -> MotionTrainConfig:
    """A training small enough for tests; ``options`` laid over it."""
    base: dict[str, Any] = {
        "batch_size": 4,
        "max_steps": 6,
        "num_threads": 1,
        "use_gpu": False,
        "num_repeats": 3,
        "perceptual_scales": (1.0,),
        "losses": LossConfig(perceptual=(), pixel=10.0),
        "ema_decay": 0.9,
        "log_every_steps": 2,
        "checkpoint_every_steps": 2,
        "validate_every_steps": 2,
        "num_validation_pairs": 4,
        "picture_every_steps": 0,
        "feed_threads": 1,
    }
    return MotionTrainConfig(**{**base, **options})


def job(shards: Path, run_folder: Path | str, *, model: dict[str, Any] | None = None, **train: Any) -> TrainJob:
    """A job of the debug model."""
    return TrainJob(
        experiment="toy",
        run_name="toy-0",
        preset="fomm",
        recipe="training.recipes.motion:build",
        build="models.motion.networks:build",
        model=MotionConfig(**{**DEBUG, **(model or {})}),
        train=train_config(**train),
        shards=str(shards),
        run_folder=str(run_folder),
    )


def weights_sha256(result: TrainResult) -> str:
    """Of the last checkpoint's weights.safetensors."""
    return hashlib.sha256((Path(result.checkpoint) / "weights.safetensors").read_bytes()).hexdigest()


def job_to_json(made: TrainJob) -> str:
    """For `main`."""
    return json.dumps(asdict(made))


def job_from_json(text: str) -> TrainJob:
    """The inverse of `job_to_json`."""
    raw = json.loads(text)
    manifest = {"step": 0, "images_seen": 0, "preset": "fomm", "sha256": "", "schema_version": 1}
    info = info_from_json({**manifest, "model": raw.pop("model"), "train": raw.pop("train")}, "job")
    return TrainJob(**raw, model=info.model, train=info.train)


def start_rank(made: TrainJob, rank: int, size: int, port: int, *, dtype: str = "float32") -> subprocess.Popen[str]:
    """Start one process of a training, as torchrun would."""
    env = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return start(made, dtype, env)


def start(made: TrainJob, how: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process that runs `main`."""
    tests = Path(__file__).parent
    paths = {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    strict = [] if how == "ray" else ["-W", "error"]  # Ray warns of its own settings
    return subprocess.Popen(
        [sys.executable, *strict, __file__, how, job_to_json(made)],
        env={**env, **paths},
        cwd=tests.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_ranks(made: TrainJob, size: int, *, dtype: str = "float32") -> str:
    """Train with several processes and wait for them; gives the last checkpoint's sha256."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start_rank(made, rank, size, port, dtype=dtype) for rank in range(size)]
    outcomes = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outcomes, strict=True):
        assert process.returncode == 0, errors[-3000:]
    steps = RunFolder(made.run_folder).steps()
    path = Path(made.run_folder) / f"step-{steps[-1]:08d}" / "weights.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def gated_build(networks: Mapping[str, nn.Module], **options: Any) -> motion.MotionRecipe:
    """The motion recipe, stopped before every step n for which ``$TEST_GATES/closed-n`` exists, until it is removed."""
    recipe = motion.build(networks, **options)
    gates, prepare = Path(os.environ["TEST_GATES"]), recipe.prepare

    def gated(pairs: PairBatch) -> Batch:
        step = int(pairs.items[0]) // recipe.train.batch_size
        gate = gates / f"closed-{step}"
        if gate.exists():
            (gates / f"reached-{step}-{os.getpid()}").touch()
            while gate.exists():
                time.sleep(0.01)
        return prepare(pairs)

    recipe.prepare = gated  # type: ignore[method-assign]
    return recipe


def main() -> None:
    """Train what the command line says: a dtype (this process alone, or a rank) or ``ray``, and a job as JSON."""
    made = job_from_json(sys.argv[2])
    if sys.argv[1] != "ray":
        local.fit(made, dtype=getattr(torch, sys.argv[1]))
        return
    from pipelines.params import ClusterConfig
    from pipelines.session import ray_session
    from training.backends import ray_train

    with ray_session(ClusterConfig(num_cpus=2)):
        ray_train.fit(made)


if __name__ == "__main__":
    main()
