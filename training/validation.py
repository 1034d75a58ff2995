"""The check that a training makes of itself on its way: fixed pairs of the test split, beside doing nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.contracts import ShardClip
from training.feed import ShardReader
from training.phases import Recipe
from training.world import World

log = logging.getLogger(__name__)

BATCH_PAIRS = 16
L1, COPY_L1 = "validation/l1", "validation/copy_source_l1"


def fixed_pairs(clips: list[ShardClip], num_pairs: int) -> list[tuple[ShardClip, int]]:
    """Clips and positions of the frames to make out of each clip's first one, evenly over clips and time."""
    usable = [clip for clip in clips if clip.num_frames >= 2]
    if not usable:
        return []
    pairs = []
    for i in range(num_pairs):
        clip, turn = usable[i % len(usable)], i // len(usable)
        turns = (num_pairs - 1 - i % len(usable)) // len(usable) + 1
        pairs.append((clip, 1 + (2 * turn + 1) * (clip.num_frames - 1) // (2 * turns)))
    return pairs


class Reconstructs(Recipe, Protocol):
    """The recipe of a model that makes one frame of a pair out of the other."""

    def reconstruct(self, networks: Mapping[str, nn.Module], source: Tensor, driving: Tensor) -> Tensor:
        """Make ``driving`` from ``source`` and its motion, as at inference.

        Args:
            networks: the averaged networks, in eval mode.
            source: uint8, (B, 3, H, W), on any device.
            driving: likewise.

        Returns:
            Frames in [0, 1], (B, 3, H, W).
        """
        ...


class Validation:
    """L1 of reconstructions, shared among the ranks."""

    judged_by = L1

    def __init__(self, reader: ShardReader, recipe: Reconstructs, world: World, *, num_pairs: int) -> None:
        """Read this rank's share of the pairs; they stay in memory, as bytes."""
        self.recipe, self.world = recipe, world
        pairs = fixed_pairs(reader.clips("test"), num_pairs)
        self.num_pairs = len(pairs)
        if not pairs and world.is_first:
            log.warning("the data set has no test clips: the training is not validated on its way")
        frames = [reader.frames(clip, (0, position)) for clip, position in pairs[world.rank :: world.size]]
        self._frames = (
            np.stack(frames).transpose(1, 0, 4, 2, 3).copy() if frames else np.empty((2, 0, 3, 1, 1), np.uint8)
        )

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            Mean absolute difference to the driving frames, in [0, 1], of the reconstructions (`L1`) and of the source
            frames themselves (`COPY_L1`), equal on all ranks; nothing when there are no test clips.
        """
        if not self.num_pairs:
            return {}
        sums = np.zeros(2)
        for batch in batched_range(self._frames.shape[1], BATCH_PAIRS):
            source, driving = (torch.from_numpy(self._frames[side, batch]) for side in (0, 1))
            made = self.recipe.reconstruct(networks, source, driving)
            wanted = driving.to(made.device, made.dtype) / 255
            copied = source.to(made.device, made.dtype) / 255
            for place, frames in enumerate((made, copied)):
                sums[place] += float((frames - wanted).abs().mean(dim=(1, 2, 3), dtype=torch.float64).sum())
        means = self.world.gather(sums.tolist()).sum(axis=0) / self.num_pairs
        return {L1: float(means[0]), COPY_L1: float(means[1])}


def batched_range(stop: int, size: int) -> list[slice]:
    """Slices of at most ``size`` that cover 0 to ``stop``."""
    return [slice(start, min(start + size, stop)) for start in range(0, stop, size)]
