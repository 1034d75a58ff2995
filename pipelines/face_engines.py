"""What makes cartoons of faces: a model version (ONNX) or a checkpoint with its codes (torch), one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models.errors import CheckpointError, must
from models.style.dualstylegan import DualStyleGenerator, default_weights
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
    """Networks in torch, which stay where they are, and the styles' codes."""

    def __init__(self, generator: DualStyleGenerator, encoder: torch.nn.Module, config: FaceConfig, codes: CodeTable):
        codes.check_fits(config.num_styles, config.style_dim)
        self.generator, self.encoder, self.config, self.codes = generator.eval(), encoder.eval(), config, codes
        self.styles, self.size_px = style_names(codes.names), config.size_px
        self._pictures = dict(zip(self.styles, codes.names, strict=True))
        self.device = next(generator.parameters()).device

    def thumbnail(self, style: str) -> np.ndarray:
        """What the generator makes of the style's own two codes, uint8 (P, P, 3)."""
        own = self._codes_of(style)
        made = self._made(own.intrinsic[None], own.extrinsic, torch.ones(self.config.num_styles), psi=1.0)
        shown: np.ndarray = np.rint(made[0] * 255).astype(np.uint8)
        return shown

    def stylise(self, faces: np.ndarray, style: str, **options: Any) -> np.ndarray:
        """See `FaceEngine.stylise`."""
        parts = (faces[start : start + AT_ONCE] for start in range(0, len(faces), AT_ONCE))
        return np.concatenate([self.make(self.encode(part), style, **options) for part in parts])

    def encode(self, faces: np.ndarray) -> torch.Tensor:
        """Intrinsic codes of faces, uint8 (N, H, H, 3): float32 (N, S, D), in Z+, on the CPU."""
        parts = [self._encoded(faces[start : start + AT_ONCE]) for start in range(0, len(faces), AT_ONCE)]
        return torch.cat(parts)

    def make(self, codes: torch.Tensor, style: str, **options: Any) -> np.ndarray:
        """Pictures of faces in a style, with the same noise in all of them.

        Args:
            codes: as `encode` gives them, (N, S, D).
            style: a name; '': the first.
            options: as `FaceEngine.stylise` has them.

        Returns:
            float32 (N, P, P, 3) in [0, 1].

        Raises:
            CheckpointError: there is no such style.
        """
        asked = {**DEFAULTS, **options}
        first = self.config.structure_layers
        weights = default_weights(self.config, float(asked["structure"]), float(asked["colour"]))
        extrinsic = self._codes_of(style).extrinsic.expand_as(codes).clone()
        if asked["output"] == "reconstruction":
            weights = torch.zeros_like(weights)
        elif asked["output"] == "structure-off":
            weights[first:] = 0
        elif asked["output"] == "structure":
            extrinsic[:, first:] = codes[:, first:]
        psi, made = float(asked["psi"]), []
        for start in range(0, len(codes), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            made.append(self._made(codes[part], extrinsic[part], weights, psi=psi))
        return np.concatenate(made)

    def _codes_of(self, style: str) -> Codes:
        """Of a style, by its name or its picture's; of '' the first's."""
        chosen = style or self.styles[0]
        return self.codes[self._pictures.get(chosen, chosen)]

    @torch.inference_mode()
    def _encoded(self, faces: np.ndarray) -> torch.Tensor:
        seen = resized(faces, self.config.encoder_px).astype(np.float32).transpose(0, 3, 1, 2) / 255
        codes: torch.Tensor = self.encoder(torch.from_numpy(np.ascontiguousarray(seen)).to(self.device))
        return codes.cpu()

    @torch.inference_mode()
    def _made(self, codes: torch.Tensor, extrinsic: torch.Tensor, weights: torch.Tensor, *, psi: float) -> np.ndarray:
        inner, outer = codes.to(self.device), extrinsic.to(self.device).expand_as(codes)
        made: torch.Tensor = self.generator(inner, outer, weights.to(self.device), psi=psi)
        return made.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def from_checkpoint(folder: Path, codes: Path, *, device: str = "cpu") -> tuple[TorchFaces, CheckpointInfo]:
    """Open an exported DualStyleGAN and the codes of its styles.

    Args:
        folder: of the exported training of its target.
        codes: the folder that destylisation wrote.
        device: of torch, where the networks work.

    Raises:
        CheckpointError: not one of these, or the codes are not its own.
    """
    networks, info = load_networks(folder)
    generator = networks.get("generator")
    if not isinstance(generator, DualStyleGenerator) or not isinstance(info.model, FaceConfig):
        raise CheckpointError(must(str(folder), "hold a DualStyleGAN", info.preset, "Name the training of its target"))
    torch.set_flush_denormal(True)
    for network in (generator, networks["encoder"]):
        network.to(device)
    return TorchFaces(generator, networks["encoder"], info.model, read_codes(codes)), info
