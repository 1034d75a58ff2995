"""Batch normalisation on two workers equals batch normalisation on one that sees both batches."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.layers.norms import BatchNorm2d

WORLD = 2
BATCH, CHANNELS, SIZE = 8, 5, 6


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Two batches, the channels' means far from 0, and the weights of a loss that is no mere sum."""
    rng = torch.Generator().manual_seed(7)
    shape = (BATCH, CHANNELS, SIZE, SIZE)
    offset = torch.arange(CHANNELS, dtype=torch.float64)[:, None, None] * 3
    first, second, weights = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(3))
    return (first + offset).to(dtype), (second * 2 - offset).to(dtype), weights.to(dtype)


def _network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), BatchNorm2d(CHANNELS)).to(dtype)
    with torch.no_grad():
        for parameter in network[1].parameters():
            parameter.uniform_(0.5, 1.5)
    return network


def _step(network: nn.Module, bare: nn.Sequential, rows: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two forwards, then one backward of a mean over the rows."""
    first, second, weights = _inputs(dtype)
    first, second, weights = first[rows].clone().requires_grad_(), second[rows], weights[rows]
    out = network(first)
    again = network(second)
    ((out * weights).sin().mean() + (again * out * weights).mean()).backward()
    found = {"out": out.detach(), "again": again.detach(), "input_grad": first.grad}
    found |= {f"grad.{name}": parameter.grad for name, parameter in bare.named_parameters()}
    found |= {f"state.{name}": buffer for name, buffer in bare.named_buffers() if "running" in name}
    return {name: value.clone() for name, value in found.items() if value is not None}


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    share = BATCH // WORLD
    rows = slice(rank * share, (rank + 1) * share)
    found = {}
    for dtype in (torch.float64, torch.float32):
        bare = _network(dtype)
        network = DistributedDataParallel(bare, forward_sync_buffers=False)
        found[str(dtype)] = _step(network, bare, rows, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        bare = _network(torch.float32)
        found["bf16"] = _step(bare, bare, rows, torch.float32)
    bare.eval()
    found["eval"] = {"out": bare(_inputs(torch.float32)[0][rows]).detach()}
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("two-workers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(_worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]


def _alone(dtype: torch.dtype) -> dict[str, Tensor]:
    network = _network(dtype)
    return _step(network, network, slice(None), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_two_workers_equal_one(ranks: list[dict[str, dict[str, Tensor]]], dtype: torch.dtype, tolerance: float) -> None:
    alone = _alone(dtype)
    both = [rank[str(dtype)] for rank in ranks]
    for name in ("out", "again"):
        joined = torch.cat([found[name] for found in both])
        torch.testing.assert_close(joined, alone[name], rtol=tolerance, atol=tolerance)
    # Each worker's loss is a mean over its own rows, so its input's gradient is larger by the number of workers.
    joined = torch.cat([found["input_grad"] for found in both]) / WORLD
    torch.testing.assert_close(joined, alone["input_grad"], rtol=tolerance, atol=tolerance)
    for name in (key for key in alone if key.startswith(("grad.", "state."))):
        for found in both:
            torch.testing.assert_close(found[name], alone[name], rtol=tolerance, atol=tolerance, msg=name)


def test_local_statistics_would_differ(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    network = _network(torch.float64)
    local = _step(network, network, slice(0, BATCH // WORLD), torch.float64)
    assert (local["out"] - ranks[0]["torch.float64"]["out"]).abs().max() > 1e-3


def test_workers_keep_equal_bits(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    first, second = (rank["torch.float32"] for rank in ranks)
    for name in (key for key in first if key.startswith(("grad.", "state."))):
        assert torch.equal(first[name], second[name]), name


def test_mixed_precision_stays_close(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    alone = _alone(torch.float32)
    joined = torch.cat([rank["bf16"]["out"] for rank in ranks])
    assert joined.dtype == torch.bfloat16
    torch.testing.assert_close(joined.float(), alone["out"], rtol=0.05, atol=0.1)
    torch.testing.assert_close(
        ranks[0]["bf16"]["state.1.running_mean"], alone["state.1.running_mean"], rtol=1e-2, atol=1e-2
    )


def test_eval_uses_running_statistics_alone(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    network = _network(torch.float32).eval()
    found = ranks[0]["bf16"]
    network.load_state_dict({key[6:]: value for key, value in found.items() if key.startswith("state.")}, strict=False)
    joined = torch.cat([rank["eval"]["out"] for rank in ranks])
    torch.testing.assert_close(joined, network(_inputs(torch.float32)[0]).detach())
