"""What makes cartoons of faces: a model version (ONNX) or a checkpoint with its codes (torch), one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models.errors import CheckpointError, must
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from pipelines.served.dualstyle import DEFAULTS, resized
from training.checkpoint import CheckpointInfo, load_networks
from training.codes import Codes, CodeTable, read_codes, style_names

AT_ONCE = 8


class FaceEngine(Protocol):
    """Makes cartoons of aligned faces."""

    styles: tuple[str, ...]
    size_px: int

    def thumbnail(self, style: str) -> np.ndarray:
        """A picture that shows a style, uint8 (P, P, 3)."""

    def stylise(self, faces: np.ndarray, style: str, **options: Any) -> np.ndarray:
        """Faces, uint8 (N, H, H, 3), in a style: float32 (N, P, P, 3) in [0, 1].

        Options: ``structure``, ``colour``, ``output``, ``psi``, as `pipelines.served.dualstyle` has them.
        """


class TorchFaces:
    """Networks in torch, and the styles' codes."""

    def __init__(self, generator: DualStyleGenerator, encoder: torch.nn.Module, config: FaceConfig, codes: CodeTable):
        codes.check_fits(config.num_styles, config.style_dim)
        self.generator, self.encoder, self.config, self.codes = generator.eval(), encoder.eval(), config, codes
        self.styles, self.size_px = style_names(codes.names), config.size_px
        self._pictures = dict(zip(self.styles, codes.names, strict=True))

    def thumbnail(self, style: str) -> np.ndarray:
        """What the generator makes of the style's own two codes, uint8 (P, P, 3)."""
        own = self._codes_of(style)
        made = self._made(own.intrinsic[None], own.extrinsic, torch.ones(self.config.num_styles), psi=1.0)
        shown: np.ndarray = np.rint(made[0] * 255).astype(np.uint8)
        return shown

    def stylise(self, faces: np.ndarray, style: str, **options: Any) -> np.ndarray:
        """See `FaceEngine.stylise`."""
        asked = {**DEFAULTS, **options}
        first, dim = self.config.structure_layers, self.config.num_styles
        weights = torch.full((dim,), float(asked["colour"]))
        weights[:first] = float(asked["structure"])
        made = []
        for start in range(0, len(faces), AT_ONCE):
            codes = self._encode(faces[start : start + AT_ONCE])
            extrinsic = self._codes_of(style).extrinsic.expand_as(codes).clone()
            if asked["output"] == "reconstruction":
                weights = torch.zeros_like(weights)
            elif asked["output"] == "structure-off":
                weights[first:] = 0
            elif asked["output"] == "structure":
                extrinsic[:, first:] = codes[:, first:]
            made.append(self._made(codes, extrinsic, weights, psi=float(asked["psi"])))
        return np.concatenate(made)

    def _codes_of(self, style: str) -> Codes:
        """Of a style, by its name or its picture's; of '' the first's."""
        chosen = style or self.styles[0]
        return self.codes[self._pictures.get(chosen, chosen)]

    @torch.inference_mode()
    def _encode(self, faces: np.ndarray) -> torch.Tensor:
        seen = resized(faces, self.config.encoder_px).astype(np.float32).transpose(0, 3, 1, 2) / 255
        codes: torch.Tensor = self.encoder(torch.from_numpy(np.ascontiguousarray(seen)))
        return codes

    @torch.inference_mode()
    def _made(self, codes: torch.Tensor, extrinsic: torch.Tensor, weights: torch.Tensor, *, psi: float) -> np.ndarray:
        made: torch.Tensor = self.generator(codes, extrinsic.expand_as(codes), weights, psi=psi)
        return made.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def from_checkpoint(folder: Path, codes: Path) -> tuple[TorchFaces, CheckpointInfo]:
    """Open an exported DualStyleGAN and the codes of its styles, on the CPU.

    Raises:
        CheckpointError: not one of these, or the codes are not its own.
    """
    networks, info = load_networks(folder)
    generator = networks.get("generator")
    if not isinstance(generator, DualStyleGenerator) or not isinstance(info.model, FaceConfig):
        raise CheckpointError(must(str(folder), "hold a DualStyleGAN", info.preset, "Name the training of its target"))
    torch.set_flush_denormal(True)
    return TorchFaces(generator, networks["encoder"], info.model, read_codes(codes)), info
