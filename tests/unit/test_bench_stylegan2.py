"""The benchmark of StyleGAN2 compares equals and runs; how fast anything is decides nothing here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def bench(root: Path) -> ModuleType:
    """The benchmark, imported as the scripts import each other."""
    before = list(sys.path)
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return importlib.import_module("stylegan2")
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("network", ["stylegan2", "dualstylegan"])
@pytest.mark.parametrize("batch", ["1", "3"])
def test_every_way_draws_alike(bench: ModuleType, network: str, batch: str) -> None:
    options = bench.parse(["--quick", "--threads", "1", "--batch", batch])
    wanted = bench.drawer(options, f"{network}/reference")()
    assert wanted.std() > 1e-2
    for way, most in (("eager", 1e-5), ("channels-last", 1e-5), ("bf16", 0.03)):
        made = bench.drawer(options, f"{network}/{way}")()
        assert made.shape == wanted.shape
        assert float((made - wanted).abs().mean() / wanted.std()) < most, way


@pytest.mark.slow
@pytest.mark.parametrize("network", ["stylegan2", "dualstylegan"])
def test_the_graph_draws_alike(bench: ModuleType, network: str) -> None:
    options = bench.parse(["--quick", "--threads", "1"])
    wanted = bench.drawer(options, f"{network}/reference")()
    assert torch.allclose(bench.drawer(options, f"{network}/onnx")(), wanted, atol=1e-4)


@pytest.mark.slow
def test_a_quick_run(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "stylegan2.json"
    names = ["stylegan2/reference", "stylegan2/eager"]
    bench.main(["--quick", "--threads", "1", "--variants", *names, "--json", str(path)])
    figures = json.loads(path.read_text())["variants"]
    assert set(figures) == set(names)
    base, ours = (figures[name] for name in names)
    assert base["ratio_of_minima"] == 1.0
    assert ours["ratio_of_minima"] == pytest.approx(base["min_s"] / ours["min_s"])
    assert "32 px, batch 1" in capsys.readouterr().out
