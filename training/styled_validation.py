"""The check that a DualStyleGAN's training makes of itself: are test faces in the style pictures' manner like them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.codes import CodeTable
from training.face_validation import BATCH, KID, first_frames
from training.metrics.features import EffnetLite0
from training.metrics.kernel import mmd2
from training.phases import Recipe
from training.shard_reader import ShardReader
from training.validation import batched_range

PHOTO_KID = "validation/photo_kid"
MAX_STYLES = 256


class Styles(Recipe, Protocol):
    """The recipe of a model that draws faces in the manner of codes."""

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor, extrinsic: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), in the manner of codes (B, S, D): in [0, 1], (B, 3, H, W)."""
        ...


class StyledValidation:
    """Kernel distance (KID) of test faces, each in the manner whose turn it is, to the style pictures.

    Every rank computes all of it on its own: the pictures are few, and so the figures are equal without an exchange.
    """

    judged_by = KID

    def __init__(
        self,
        photos: ShardReader,
        styles: ShardReader,
        codes: CodeTable,
        recipe: Styles,
        *,
        num_photos: int,
        size_px: int,
    ) -> None:
        """Read the faces, and the features of the style pictures; they stay in memory."""
        self.recipe = recipe
        self._judge = EffnetLite0()
        self._photos = first_frames(photos, photos.clips("test")[:num_photos], size_px)
        self._styles = self._features(first_frames(styles, styles.clips("train")[:MAX_STYLES], size_px))
        turns = np.arange(len(self._photos)) % len(codes.names)
        self._extrinsic = codes.extrinsic[torch.from_numpy(turns)]
        self._untouched = self._features(self._photos)

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode: the distance of the drawings, and that of the faces themselves."""
        if len(self._photos) < 2 or len(self._styles) < 2:
            return {}
        made = [
            self.recipe.stylise(networks, torch.from_numpy(self._photos[part]), self._extrinsic[part])
            for part in batched_range(len(self._photos), BATCH)
        ]
        drawings = torch.cat(made).to("cpu", torch.float32).mul(255).round().to(torch.uint8).numpy()
        return {KID: mmd2(self._features(drawings), self._styles), PHOTO_KID: mmd2(self._untouched, self._styles)}

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        """Of uint8 (N, 3, H, W), float64 (N, D)."""
        found = [self._judge.look(picture.transpose(1, 2, 0)).features for picture in pictures]
        return np.stack(found).astype(np.float64) if found else np.empty((0, 1))
