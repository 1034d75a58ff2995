"""A trained DualStyleGAN as two ONNX files: the encoder of faces, and the generator of faces in a manner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.export_parts import publish
from models.export_tracing import Traced, evaluating, quiet, traced
from models.style.dualstylegan import DualStyleGenerator
from models.style.psp import Encoder

ENCODER, GENERATOR = "encoder.onnx", "generator.onnx"
MAX_BYTES = 2**31
"""Of one ONNX file with its weights inside: a protocol buffer is no longer."""
_ROOM = 2**24
"""Kept for what is not weights."""


def export_faces(networks: Mapping[str, nn.Module], folder: Path, *, opset: int = 20) -> tuple[Path, Path]:
    """Write ``encoder.onnx`` and ``generator.onnx``, each whole, without external data, for batches of any size.

    They are two files because they are used apart: a face is encoded once and its codes kept, a manner's codes are
    found in training. Everything is float32; S is the number of style codes, D their length, E the encoder's picture
    size, P the generator's. A face that is larger than E is to be shrunk to it by means of areas.

    ============== ============ =====================================================================================
    encoder.onnx   shape        what it is
    ============== ============ =====================================================================================
    ``face``       (B, 3, E, E) input, in [0, 1]
    ``codes``      (B, S, D)    output, in the encoder's space (Z+ for DualStyleGAN's)
    ============== ============ =====================================================================================

    ============== ============ =====================================================================================
    generator.onnx shape        what it is
    ============== ============ =====================================================================================
    ``intrinsic``  (B, S, D)    input: codes of the faces, in Z+
    ``extrinsic``  (B, S, D)    input: codes of the manners, in Z+
    ``weights``    (B, S)       input: of the extrinsic path, a layer
    ``psi``        ()           input: pulls the intrinsic styles towards their mean; 1 leaves them
    ``picture``    (B, 3, P, P) output, about in [0, 1], not clamped
    ============== ============ =====================================================================================

    The noise is the network's fixed one, so that the same inputs give the same picture.

    Args:
        networks: ``encoder`` and ``generator``; others are left out. Left in the mode and on the device where they are.
        folder: made if it is not there; older files in it are replaced one after the other, each when it is written.
        opset: version of ONNX's operator set, 20 or later.

    Returns:
        The two files.

    Raises:
        CheckpointError: a network is missing, of another family, or too large for one file.
    """
    encoder, generator = _checked(networks)
    export_encoder(encoder, folder / ENCODER, opset=opset)
    export_generator(generator, folder / GENERATOR, opset=opset)
    return folder / ENCODER, folder / GENERATOR


def export_encoder(encoder: Encoder, path: Path, *, opset: int = 20) -> None:
    """Write the encoder as one file, atomically; see `export_faces`."""
    with evaluating([encoder]), quiet():
        publish(traced(_encoding(encoder), opset), path)


def export_generator(generator: DualStyleGenerator, path: Path, *, opset: int = 20) -> None:
    """Write the generator as one file, atomically; see `export_faces`."""
    with evaluating([generator]), quiet():
        publish(traced(_generating(generator), opset), path)


def _checked(networks: Mapping[str, nn.Module]) -> tuple[Encoder, DualStyleGenerator]:
    encoder, generator = networks.get("encoder"), networks.get("generator")
    if not isinstance(encoder, Encoder) or not isinstance(generator, DualStyleGenerator):
        got = {name: type(network).__name__ for name, network in networks.items()}
        raise CheckpointError(must("the networks to export", "hold a face encoder and DualStyleGAN's generator", got))
    for name, network in (("encoder", encoder), ("generator", generator)):
        num_bytes = 4 * sum(value.numel() for value in network.state_dict().values())
        if num_bytes > MAX_BYTES - _ROOM:
            rule = f"have less than {MAX_BYTES / 2**30:.0f} GiB of weights to fit into one ONNX file"
            raise CheckpointError(must(f"the {name}", rule, f"{num_bytes / 2**30:.2f} GiB", "Train a narrower one"))
    return encoder, generator


class _Generate(nn.Module):
    """DualStyleGAN with truncation as a number that is fed."""

    def __init__(self, network: DualStyleGenerator) -> None:
        super().__init__()
        self.network = network

    def forward(self, intrinsic: Tensor, extrinsic: Tensor, weights: Tensor, psi: Tensor) -> Tensor:
        """The picture."""
        generator = self.network.generator
        mean = generator.mean_style
        inner = mean + psi * (generator.mapping(intrinsic) - mean)
        outer = generator.mapping(extrinsic)
        return self.network.fused(inner, outer, weights, noise=None, active=weights.shape[1])


def _encoding(encoder: Encoder) -> Traced:
    size = encoder.size_px
    return Traced(
        module=encoder,
        inputs=("face",),
        outputs=("codes",),
        examples=(torch.rand(2, 3, size, size, device=encoder.mean_code.device),),
        dynamic_shapes=({0: torch.export.Dim("faces", min=1)},),
    )


def _generating(network: DualStyleGenerator) -> Traced:
    num, dim = network.config.num_styles, network.config.style_dim
    codes = torch.randn(2, num, dim, device=network.generator.mean_style.device)
    pictures = {0: torch.export.Dim("pictures", min=1)}
    return Traced(
        module=_Generate(network),
        inputs=("intrinsic", "extrinsic", "weights", "psi"),
        outputs=("picture",),
        examples=(codes, codes.clone(), codes[:, :, 0].clone(), codes.new_tensor(0.5)),
        dynamic_shapes=(pictures, pictures, pictures, {}),
    )
