"""A generator of a checkpoint as an engine, and a graph's smaller files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import CheckpointError
from models.export_style import export_style
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines import style_engines
from pipelines.served.style import StyleSession
from pipelines.style_engines import TorchStyle, from_checkpoint
from pipelines.style_variants import variants

CONFIG = StyleConfig(width=8, num_blocks=1)


@pytest.fixture
def network() -> StyleGenerator:
    torch.manual_seed(0)
    return StyleGenerator(CONFIG)


def photos(count: int, size: int) -> np.ndarray:
    grid = np.random.default_rng(0).integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    return grid.repeat(8, 1).repeat(8, 2)


def test_the_memory_layout_changes_nothing(network: StyleGenerator) -> None:
    pictures = photos(2, 64)
    wanted = TorchStyle(network, device="cpu", channels_last=False).stylise(pictures)
    made = TorchStyle(network, device="cpu", channels_last=True).stylise(pictures)
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    rough = TorchStyle(network, device="cpu", precision="bf16").stylise(pictures)
    assert 0 < np.abs(rough - wanted).mean() < 0.05


def test_another_network_is_refused() -> None:
    with pytest.raises(CheckpointError, match="must be a generator of the style family; got Conv2d"):
        TorchStyle(nn.Conv2d(3, 3, 1))


def test_an_engine_comes_out_of_a_checkpoint(
    network: StyleGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = SimpleNamespace(step=7)
    monkeypatch.setattr(style_engines, "load_networks", lambda folder: ({"generator": network}, info))
    engine, found = from_checkpoint(tmp_path, device="cpu")
    assert found is info
    assert engine.stylise(photos(1, 16)).shape == (1, 16, 16, 3)
    monkeypatch.setattr(style_engines, "load_networks", lambda folder: ({"critic": nn.ReLU()}, info))
    with pytest.raises(CheckpointError, match=r"must hold a generator of the style family; got critic \(ReLU\)"):
        from_checkpoint(tmp_path, device="cpu")


@pytest.mark.slow
def test_smaller_files_draw_nearly_the_same(network: StyleGenerator, tmp_path: Path) -> None:
    plain, pictures = tmp_path / "style.onnx", photos(2, 64)
    export_style(network, CONFIG, plain)
    whole, half, eight = variants(plain, tmp_path / "small", pictures)
    assert [one.name for one in (whole, half, eight)] == ["fp32", "fp16", "int8"]
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["style-fp16.onnx", "style-int8.onnx"]
    assert whole.mean_difference == 0 < half.mean_difference < eight.mean_difference < 0.1
    assert half.num_bytes == half.path.stat().st_size < whole.num_bytes
    measured = StyleSession(plain).measure(pictures[0])
    for one in (half, eight):
        session = StyleSession(one.path)
        np.testing.assert_allclose(session.measure(pictures[0]).shape, measured.shape)
        assert session.stylise(pictures[:1], given=measured).shape == (1, 64, 64, 3)
