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
from models.perceptual import build_perceptual
from training.metrics.kernel import kernel_distance
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
        self._backbone = build_perceptual("effnet-lite0")
        self._styles = self._features(_whole(styles, styles.clips("train")[:MAX_STYLES], size_px))

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            The distance of the drawings (`KID`) and of the photos themselves (`PHOTO_KID`) to the style pictures, equal
            on all ranks; nothing when there are no test photos.
        """
        if not len(self._photos) or len(self._styles) < 2:
            return {}
        made = [self.recipe.stylise(networks, self._photos[part]) for part in batched_range(len(self._photos), BATCH)]
        drawings = torch.cat(made).to("cpu", torch.float32).mul_(255).round_().to(torch.uint8)
        figures = {KID: drawings, PHOTO_KID: self._photos}
        return {name: kernel_distance(self._features(of), self._styles) for name, of in figures.items()}

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> np.ndarray:
        """Means over the last level's map, (N, C)."""
        parts = (pictures[part].float() / 255 for part in batched_range(len(pictures), BATCH))
        found = [self._backbone(part)[-1].mean(dim=(2, 3)).double().numpy() for part in parts]
        return np.concatenate(found) if found else np.empty((0, 1))


def _whole(reader: ShardReader, stills: Sequence[ShardClip], size_px: int) -> Tensor:
    """Whole stills at the networks' size, uint8, (N, 3, H, W)."""
    frames = [reader.frames(still, (0,))[0] for still in stills]
    sized = [cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_AREA) for frame in frames]
    stack = np.stack(sized) if sized else np.empty((0, size_px, size_px, 3), np.uint8)
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()
