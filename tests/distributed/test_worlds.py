"""One worker and several train alike: the same samples, the same losses, resumed bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import training_kit as kit

from training.feed import Feed, FeedOptions, ShardReader
from training.tracking.jsonl import read_metrics

STEPS = 5
BATCH = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.write_shards(tmp_path_factory.mktemp("worlds") / "shards")


def recorded(run: Path, *kinds: str) -> list[dict[str, float]]:
    """Metrics of every step, those whose names begin so."""
    return [{k: v for k, v in values.items() if k.startswith(kinds)} for _, values in read_metrics(run)]


def largest_difference(left: dict[str, float], right: dict[str, float]) -> float:
    assert left.keys() == right.keys()
    assert len(left) >= 7  # every term of both phases
    return max(abs(left[name] - right[name]) / abs(left[name]) for name in left)


def items(shards: Path, step: int, size: int) -> list[int]:
    found: list[np.ndarray] = []
    for rank in range(size):
        with Feed(ShardReader(shards), FeedOptions(batch_size=BATCH, rank=rank, world_size=size, threads=1)) as feed:
            found.append(next(feed.batches(step)).items)
    return sorted(np.concatenate(found).tolist())


def test_two_ranks_see_the_samples_of_one(shards: Path) -> None:
    for step in (0, 3):
        assert items(shards, step, 2) == items(shards, step, 1) == list(range(step * BATCH, (step + 1) * BATCH))


@pytest.mark.parametrize(("dtype", "steps", "tolerance"), [("float32", 1, 1e-5), ("float64", STEPS, 1e-6)])
def test_one_worker_and_two_have_equal_losses(
    shards: Path, tmp_path: Path, dtype: str, steps: int, tolerance: float
) -> None:
    runs = []
    for size in (1, 2):
        folder = tmp_path / f"{size}"
        job = kit.job(shards, folder, losses=kit.ADVERSARIAL, batch_size=BATCH, max_steps=steps)
        kit.run_ranks(job, size, dtype=dtype)
        runs.append(recorded(folder, "loss/"))
    assert len(runs[0]) == len(runs[1]) == steps
    assert max(largest_difference(one, two) for one, two in zip(*runs, strict=True)) <= tolerance


@pytest.mark.slow
def test_three_ranks_resume_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    """Three is where the order of a sum matters, and a fresh process lays its gradients out in other buckets."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"losses": kit.ADVERSARIAL, "batch_size": 6, "deterministic": True}
    unbroken = kit.run_ranks(kit.job(shards, whole, max_steps=8, **options), 3)
    stopped = kit.run_ranks(kit.job(shards, parts, max_steps=4, **options), 3)
    assert stopped != unbroken
    assert kit.run_ranks(kit.job(shards, parts, max_steps=8, **options), 3) == unbroken
    assert recorded(parts, "loss/", "validation/") == recorded(whole, "loss/", "validation/")
