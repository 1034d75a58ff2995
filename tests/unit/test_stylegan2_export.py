"""StyleGAN2's graph draws in ONNX Runtime what the network draws, for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from models.style.stylegan2.build import debug_config
from models.style.stylegan2.export import export_generator
from models.style.stylegan2.generator import Generator


@pytest.mark.slow
def test_onnx_runtime_draws_what_torch_draws(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(debug_config())
    for name, parameter in generator.named_parameters():
        if name.endswith("noise.weight"):
            nn.init.constant_(parameter, 0.3)
    generator.set_mean_style(100, torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "generator.onnx"
    export_generator(generator, path, psi=0.7)
    assert generator.training
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        z = torch.randn(batch, 16)
        made = session.run(["picture"], {"z": z.numpy()})[0]
        with torch.no_grad():
            expected = generator(z, psi=0.7).numpy()
        assert np.abs(made - expected).max() < 1e-4
    assert [child.name for child in path.parent.iterdir()] == ["generator.onnx"]
