"""Training without Ray: this process alone, or one of those that torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from models.errors import TrainingError, must
from training.backends.worker import Hands, work
from training.config import TrainConfig
from training.job import TrainJob, TrainResult
from training.progress import Show, show_line
from training.world import World

COLLECTIVE_TIMEOUT_S = 600
"""After which a rank gives up waiting for the others."""


def fit(job: TrainJob, *, show: Show | None = show_line, dtype: torch.dtype = torch.float32) -> TrainResult:
    """Train in this process.

    Under torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` in the environment) it
    is one of several: gloo on CPUs, nccl on GPUs.

    Args:
        job: what to train.
        show: where rank 0 shows progress.
        dtype: of the weights; float64 shows what is mere rounding.

    Raises:
        TrainingError: the number of processes is not the configured one, or the training can't go on.
    """
    with _process_group(job.train) as world:
        return work(job, world, Hands(show=show, dtype=dtype))


@contextmanager
def _process_group(train: TrainConfig) -> Iterator[World]:
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if (train.num_workers or size) != size:
        fix = f"Start it by `torchrun --nproc-per-node={train.num_workers}`, or use the Ray backend"
        raise TrainingError(must("num_workers", f"be the number of processes ({size})", train.num_workers, fix))
    device = choose_device(train, local_rank)
    world = World(rank=rank, size=size, device=device, local_size=local_size)
    if size == 1:
        yield world
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S))
    try:
        yield world
    finally:
        dist.destroy_process_group()


def choose_device(train: TrainConfig, local_rank: int) -> torch.device:
    """This process' GPU, or the CPU.

    Raises:
        TrainingError: a GPU is asked for and there is none for this process.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    use_gpu = available > 0 if train.use_gpu is None else train.use_gpu
    if not use_gpu:
        return torch.device("cpu")
    if local_rank >= available:
        fix = "Use fewer workers, or set use_gpu to false"
        raise TrainingError(must("use_gpu", f"find {local_rank + 1} GPUs", f"{available}", fix))
    return torch.device("cuda", local_rank)
