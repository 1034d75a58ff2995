"""StyleGAN2's generator as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.export_parts import publish
from models.export_tracing import Traced, evaluating, quiet, traced
from models.style.stylegan2.generator import Generator


def export_generator(generator: Generator, path: Path, *, psi: float = 1.0, opset: int = 20) -> None:
    """Write the generator, with its fixed noise, as a graph of any batch.

    The input ``z`` (batch, D) is of the normal distribution; the output ``picture`` (batch, 3, H, W) is about in
    [0, 1], not clamped. Both are float32.

    Args:
        generator: left in the mode and on the device where it is.
        path: the file to write, atomically.
        psi: how far from the mean style, see `Generator.truncate`; it is fixed in the graph.
        opset: version of ONNX's operator set.
    """
    example = torch.zeros(2, generator.config.style_dim, device=generator.mean_style.device)
    part = Traced(
        module=_Truncated(generator, psi),
        inputs=("z",),
        outputs=("picture",),
        examples=(example,),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    with evaluating([generator]), quiet():
        publish(traced(part, opset), path)


class _Truncated(nn.Module):
    def __init__(self, generator: Generator, psi: float) -> None:
        super().__init__()
        self.generator, self.psi = generator, psi

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, 3, H, W)."""
        picture: Tensor = self.generator(z, self.psi)
        return picture
