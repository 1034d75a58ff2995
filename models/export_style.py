"""A trained stylising generator as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.export_parts import halved
from models.export_statistics import KINDS, branched
from models.export_tools import evaluating, exported, publish, quiet
from models.layers.sample_norms import Statistics, sample_norms
from models.style.config import StyleConfig
from models.style.generator import MULTIPLE, StyleGenerator


def export_style(
    generator: nn.Module,
    config: StyleConfig,
    path: Path,
    *,
    opset: int = 20,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> None:
    """Write a generator as one graph, in one file, for pictures of any size and for the tiles of large ones.

    ============== ============ =====================================================================================
    input          shape        what it is
    ============== ============ =====================================================================================
    ``photo``      (B, 3, H, W) float32 in [0, 1]; H and W are multiples of 4, 8 or more
    ``given``      (B, 2, K)    float32: means and variances of all normalised channels; read by part 2 alone
    ``part``       ()           int64: 0, each picture is normalised by its own statistics; 1, the batch is patches of
                                one picture, which are normalised by their statistics together; 2, by those ``given``
    ============== ============ =====================================================================================

    ============== ============ =====================================================================================
    output         shape        what it is
    ============== ============ =====================================================================================
    ``drawing``    (B, 3, H, W) float32 in [0, 1]
    ``statistics`` (B, 2, K)    by what each was normalised, which ``given`` takes
    ============== ============ =====================================================================================

    Every normalisation chooses among three branches by ``part``; all else, and every weight, is there once.

    Args:
        generator: left in the mode and on the device where it is.
        config: the generator's configuration.
        path: the file to write, atomically.
        opset: version of ONNX's operator set, 20 or later.
        precision: ``fp16`` stores the weights in 16 bits, half the size; they are computed with in 32 nevertheless.

    Raises:
        CheckpointError: the network is of another family.
    """
    if not isinstance(generator, StyleGenerator):
        rule = f"be a generator of the style family (layout {config.layout})"
        raise CheckpointError(must("the network to export", rule, type(generator).__name__))
    norms = sample_norms(generator)
    with evaluating([generator]), quiet():
        photo = torch.rand(2, 3, 32, 48, device=next(generator.parameters()).device)  # no size that a tracer takes for 0 or 1
        given = tuple(torch.ones(2, 2, norm.weight.numel(), device=photo.device) for norm in norms)
        batch = torch.export.Dim("pictures", min=1)
        rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        model = exported(
            _Normalised(generator),
            examples=(photo, given),
            inputs=("photo", *(f"given_{place}" for place in range(len(norms)))),
            outputs=("drawing", *(f"seen_{place}" for place in range(len(norms)))),
            dynamic_shapes=({0: batch, 2: MULTIPLE * rows, 3: MULTIPLE * columns}, ({0: batch},) * len(norms)),
            opset=opset,
        )
        branched(model, [KINDS[type(norm)] for norm in norms], [norm.weight.numel() for norm in norms], norms[0].eps)
        publish(halved(model) if precision == "fp16" else model, path)


class _Normalised(nn.Module):
    """A generator whose normalisations take statistics and show what they would measure them of."""

    def __init__(self, generator: StyleGenerator) -> None:
        super().__init__()
        self.blocks = generator.blocks

    def forward(self, photo: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The drawing, then the input (B, C, h, w) of each normalisation."""
        norms, seen = sample_norms(self.blocks), {}
        handles = []
        for norm, statistics in zip(norms, given, strict=True):
            mean, var = statistics[..., None, None].unbind(1)
            norm.given = Statistics(mean, var)

            def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                seen[norm] = inputs[0]

            handles.append(norm.register_forward_pre_hook(note))
        try:
            drawing = torch.tanh(self.blocks(photo * 2 - 1))
        finally:
            for handle in handles:
                handle.remove()
            for norm in norms:
                norm.given = None
        return (drawing + 1) / 2, *(seen[norm] for norm in norms)
