"""What only a GPU can show: the same training there, in fp32 near the CPU's figures, and in bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_kit import job, write_shards

from training.backends import local
from training.tracking.jsonl import read_metrics

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs 1 GPU; this machine has none")


def losses(folder: Path, shards: Path, **options: object) -> list[float]:
    result = local.fit(job(shards, folder, max_steps=4, **options))
    assert result.steps == 4
    return [sum(v for k, v in values.items() if k.startswith("loss/")) for _, values in read_metrics(folder)]


def test_first_losses_equal_the_cpus(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    on_cpu = losses(tmp_path / "cpu", shards)
    on_gpu = losses(tmp_path / "gpu", shards, use_gpu=True)
    assert on_gpu[0] == pytest.approx(on_cpu[0], rel=1e-3)


def test_bf16_stays_near_fp32(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    fp32 = losses(tmp_path / "fp32", shards, use_gpu=True)
    bf16 = losses(tmp_path / "bf16", shards, use_gpu=True, precision="bf16")
    assert bf16[0] == pytest.approx(fp32[0], rel=0.1)
