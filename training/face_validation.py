"""The checks that trainings on faces make of themselves: are made pictures like real ones, do encoded come back?"""

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

KID = "validation/kid"
L1, MEAN_L1 = "validation/l1", "validation/mean_picture_l1"
DISTANCE, MEAN_DISTANCE = "validation/perceptual", "validation/mean_picture_perceptual"
BATCH = 16
MAX_REAL = 256


class Makes(Recipe, Protocol):
    """The recipe of a model that makes pictures of nothing but codes."""

    def make(self, networks: Mapping[str, nn.Module], num: int) -> Tensor:
        """Pictures of fixed codes: in about [0, 1], (num, 3, H, W)."""
        ...


class MadeValidation:
    """Kernel distance (KID) of made pictures to those of the training, in features of the embedded backbone.

    Every rank computes all of it on its own: the pictures are few, and so the figures are equal without an exchange.
    """

    judged_by = KID

    def __init__(self, reader: ShardReader, recipe: Makes, world: World, *, num_pictures: int, size_px: int) -> None:
        """Read the features of the training's pictures; they stay in memory."""
        self.recipe, self.num_pictures = recipe, num_pictures
        self._judge = EffnetLite0()
        self._real = self._features(first_frames(reader, reader.clips("train")[:MAX_REAL], size_px))
        if len(self._real) < 2 and world.is_first:
            log.warning("there are %d pictures: the training is not validated on its way", len(self._real))

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode: the distance, equal on all ranks; nothing for fewer than two pictures.

        Made pictures are judged as files would hold them: clamped to [0, 1] and rounded to 8 bits.
        """
        if len(self._real) < 2:
            return {}
        made = self.recipe.make(networks, self.num_pictures)
        found = made.to("cpu", torch.float32).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        return {KID: mmd2(self._features(found), self._real)}

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        """Of uint8 (N, 3, H, W), float64 (N, D)."""
        found = [self._judge.look(picture.transpose(1, 2, 0)).features for picture in pictures]
        return np.stack(found).astype(np.float64) if found else np.empty((0, 1))


class Encodes(Recipe, Protocol):
    """The recipe of a model that finds the codes of pictures."""

    def reconstruct(self, networks: Mapping[str, nn.Module], photo: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), encoded and made again: in about [0, 1], (B, 3, H, W)."""
        ...

    def mean_picture(self) -> Tensor:
        """What the mean style gives, in about [0, 1], (1, 3, H, W)."""
        ...

    def distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Perceptual distance of pictures in [0, 1], (B, 3, H, W) each: (B,)."""
        ...


class EncodedValidation:
    """How far encoded pictures of the test split are from themselves, shared among the ranks.

    Beside each figure stands that of the mean picture, which knows nothing of what it is compared with.
    """

    judged_by = L1

    def __init__(self, reader: ShardReader, recipe: Encodes, world: World, *, num_pictures: int, size_px: int) -> None:
        """Read this rank's share of the pictures; they stay in memory."""
        self.recipe, self.world = recipe, world
        test = reader.clips("test")[:num_pictures]
        self.num_pictures = len(test)
        if not test and world.is_first:
            log.warning("the data set has no test pictures: the training is not validated on its way")
        self._pictures = first_frames(reader, test[world.rank :: world.size], size_px)

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            Mean absolute difference (`L1`) and perceptual distance (`DISTANCE`) of reconstructions, clamped to [0, 1],
            and of the mean picture (`MEAN_L1`, `MEAN_DISTANCE`), equal on all ranks; nothing without test pictures.
        """
        if not self.num_pictures:
            return {}
        mean = self.recipe.mean_picture().clamp(0, 1)
        sums = np.zeros(4)
        for part in batched_range(len(self._pictures), BATCH):
            photo = torch.from_numpy(self._pictures[part])
            made = self.recipe.reconstruct(networks, photo).clamp(0, 1)
            wanted = photo.to(made.device, made.dtype) / 255
            for place, pictures in enumerate((made, mean.expand_as(wanted))):
                sums[2 * place] += float((pictures - wanted).abs().mean((1, 2, 3), dtype=torch.float64).sum())
                sums[2 * place + 1] += float(self.recipe.distance(pictures, wanted).double().sum())
        means = self.world.gather(sums.tolist()).sum(axis=0) / self.num_pictures
        return dict(zip((L1, DISTANCE, MEAN_L1, MEAN_DISTANCE), means.tolist(), strict=True))


def first_frames(reader: ShardReader, clips: Sequence[ShardClip], size_px: int) -> np.ndarray:
    """Whole first frames at the networks' size, uint8 RGB, (N, 3, H, W)."""
    frames = [reader.frames(clip, (0,))[0] for clip in clips]
    sized = [cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_AREA) for frame in frames]
    stack = np.stack(sized) if sized else np.empty((0, size_px, size_px, 3), np.uint8)
    return np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
