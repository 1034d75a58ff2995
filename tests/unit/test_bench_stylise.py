"""The benchmark of drawing compares equals and runs; how fast anything is decides nothing here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def bench(root: Path) -> dict[str, ModuleType]:
    """The benchmark's modules, imported as the scripts import each other."""
    before = list(sys.path)
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return {name: importlib.import_module(name) for name in ("timing", "stylise")}
    finally:
        sys.path[:] = before


@pytest.mark.slow
@pytest.mark.parametrize("network", ["animeganv2", "lwcomicgan"])
def test_every_way_draws_alike(bench: dict[str, ModuleType], network: str) -> None:
    stylise = bench["stylise"]
    options = stylise.parse(["--quick", "--threads", "1"])
    photo = bench["timing"].made_frames(1, 32, seed=1) / 255
    wanted = stylise.drawer(options, f"{network}/eager")(photo)
    assert wanted.std() > 1e-2
    for way, most in (("channels-last", 1e-5), ("onnx", 1e-5), ("onnx-int8", 0.1)):
        made = stylise.drawer(options, f"{network}/{way}")(photo)
        assert float((made - wanted).abs().mean()) < most, way


@pytest.mark.slow
def test_a_quick_run(bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "stylise.json"
    names = ["animeganv2/eager", "tiny/eager"]
    bench["stylise"].main(["--quick", "--threads", "1", "--variants", *names, "--json", str(path)])
    figures = json.loads(path.read_text())["sizes"]["32"]["variants"]
    assert set(figures) == set(names)
    base, tiny = (figures[name] for name in names)
    assert base["ratio_of_minima"] == 1.0
    assert tiny["ratio_of_minima"] == pytest.approx(base["min_s"] / tiny["min_s"])
    assert "32 px" in capsys.readouterr().out


def test_no_gpu_is_said(bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench["stylise"].main(["--device", "cuda"])
    assert "must find a GPU; got none" in capsys.readouterr().err
