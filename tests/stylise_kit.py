"""A small real network with fresh weights as an engine, and pictures and videos to draw."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from models.layers.sample_norms import SampleNorm, Statistics
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines.stylise_models import ModelSource


class KitEngine:
    """Draws with a network of width 8; remembers the shapes that it was given."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = StyleGenerator(StyleConfig(width=8, num_blocks=1)).eval()
        self.norms = [module for module in self.network.modules() if isinstance(module, SampleNorm)]
        self.shapes: list[tuple[int, ...]] = []

    @torch.inference_mode()
    def measure(self, picture: np.ndarray) -> Any:
        found: list[Statistics] = []
        hooks = [
            norm.register_forward_pre_hook(lambda norm, given: found.append(norm.statistics(given[0])))
            for norm in self.norms
        ]
        self.network(_planes(picture[None]))
        for hook in hooks:
            hook.remove()
        return found

    @torch.inference_mode()
    def stylise(
        self, pictures: np.ndarray, *, strength: float = 1.0, tile_px: int | None = None, given: Any = None
    ) -> np.ndarray:
        del tile_px
        self.shapes.append(pictures.shape)
        for norm, statistics in zip(self.norms, given or [None] * len(self.norms), strict=True):
            norm.given = statistics
        drawn = self.network(_planes(pictures)).permute(0, 2, 3, 1).numpy()
        for norm in self.norms:
            norm.given = None
        photos = pictures.astype(np.float32) / 255
        mixture: np.ndarray = photos + (drawn - photos) * np.float32(strength)
        return mixture


@dataclasses.dataclass(frozen=True)
class KitModel(ModelSource):
    """A model whose engine is the kit's, also in other processes."""

    def engine(self) -> KitEngine:
        return KitEngine()


def _planes(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures.astype(np.float32) / 255).permute(0, 3, 1, 2)


def texture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth blobs of many colours, in which movement can be seen; uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    low, high = smooth.min(), smooth.max()
    made: np.ndarray = ((smooth - low) / (high - low) * 255).astype(np.uint8)
    return made


def panning(count: int, *, height: int = 48, width: int = 64, step_px: int = 2, seed: int = 0) -> np.ndarray:
    """A view that moves to the right over a texture by whole pixels, uint8 (N, H, W, 3)."""
    ground = texture(height, width + step_px * count, seed)
    return np.stack([ground[:, step_px * place : step_px * place + width] for place in range(count)])


def save(path: Path, picture: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path
