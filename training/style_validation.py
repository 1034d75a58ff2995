"""The check that a style training makes of itself: are drawings of held-out photos like the style pictures?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.contracts import ShardClip
from training.metrics.features import EffnetLite0
from training.metrics.kernel import mmd2
from training.phases import Recipe
from training.shard_reader import ShardReader
from training.validation import batched_range
from training.world import World

log = logging.getLogger(__name__)

KID, PHOTO_KID = "validation/kid", "validation/photo_kid"
BATCH = 16
MAX_STYLES = 256


class Stylises(Recipe, Protocol):
    """The recipe of a model that makes drawings of photos."""

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), as drawings: in [0, 1], (B, 3, H, W)."""
        ...


class StyleValidation:
    """Kernel distance (KID) of stylised test photos to style pictures, in features of the embedded backbone.

    Every rank computes all of it on its own: the photos are few, and so the figures are equal without an exchange.
    """

    judged_by = KID

    def __init__(
        self, photos: ShardReader, styles: ShardReader, recipe: Stylises, world: World, *, num_photos: int, size_px: int
    ) -> None:
        """Read the photos, and the features of the style pictures; both stay in memory."""
        self.recipe = recipe
        test = photos.clips("test")[:num_photos]
        if len(test) < 2 and world.is_first:
            log.warning("the photos have %d of split test: the training is not validated on its way", len(test))
        self._photos = _whole(photos, test if len(test) >= 2 else [], size_px)
        self._judge = EffnetLite0()
        self._styles = self._features(_whole(styles, styles.clips("train")[:MAX_STYLES], size_px))
        self._untouched = self._features(self._photos)

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            The distance of the drawings (`KID`) and of the photos themselves (`PHOTO_KID`) to the style pictures, equal
            on all ranks; nothing when there are no test photos.
        """
        if not len(self._photos) or len(self._styles) < 2:
            return {}
        parts = batched_range(len(self._photos), BATCH)
        made = [self.recipe.stylise(networks, torch.from_numpy(self._photos[part])) for part in parts]
        drawings = torch.cat(made).to("cpu", torch.float32).mul(255).round().to(torch.uint8).numpy()
        kid = mmd2(self._features(drawings), self._styles)
        return {KID: kid, PHOTO_KID: mmd2(self._untouched, self._styles)}

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        """Of uint8 (N, 3, H, W), float64 (N, D)."""
        found = [self._judge.look(picture.transpose(1, 2, 0)).features for picture in pictures]
        return np.stack(found).astype(np.float64) if found else np.empty((0, 1))


def _whole(reader: ShardReader, stills: Sequence[ShardClip], size_px: int) -> np.ndarray:
    """Whole stills at the networks' size, uint8, (N, 3, H, W)."""
    frames = [reader.frames(still, (0,))[0] for still in stills]
    sized = [cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_AREA) for frame in frames]
    stack = np.stack(sized) if sized else np.empty((0, size_px, size_px, 3), np.uint8)
    return np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
