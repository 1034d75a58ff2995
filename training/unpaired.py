"""The samples of a style training: a photo and a style picture that have nothing to do with each other.

Photos and style pictures are two global sequences, each as `training.feed.PairSequence` orders it, with keys of their
own; sample ``i`` is the i-th of both. So the smaller set comes round more often, and nothing depends on ranks or
threads.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from models.contracts import Split
from models.errors import ClipError, must
from training.feed import Feed, FeedOptions, PairBatch, PairSequence, Sample
from training.randomness import keyed
from training.shard_reader import ShardReader


class UnpairedFeed(Feed):
    """Hands out photos as ``source`` and style pictures as ``driving``, step after step, decoded ahead in threads."""

    def __init__(self, photos: ShardReader, styles: ShardReader, options: FeedOptions, split: Split = "train") -> None:
        """Prepare both sequences of a split.

        Raises:
            ClipError: a split is empty, or the two sets differ in their size of frames.
        """
        if photos.index.size_px != styles.index.size_px:
            got = f"{photos.index.size_px} and {styles.index.size_px} px"
            fix = "Set size_px alike and make the shards again"
            raise ClipError(must("photos and style pictures", "have one size", got, fix))
        super().__init__(photos, options, split)
        self.styles = styles
        other = int(keyed(options.seed, "style").integers(2**31))
        self.style_sequence = PairSequence(styles.clips(split), dataclasses.replace(options, seed=other))

    def assemble(self, step: int) -> PairBatch:
        """Read, decode and stack one step's photos and style pictures of this rank."""
        indices, size = self.sequence.step(step), self.reader.index.size_px
        photo = np.empty((len(indices), 3, size, size), dtype=np.uint8)
        style = np.empty_like(photo)
        for place, index in enumerate(indices):
            _decode(self.reader, self.sequence.sample(index), photo[place])
            _decode(self.styles, self.style_sequence.sample(index), style[place])
        items = np.fromiter(indices, dtype=np.int64, count=len(indices))
        return PairBatch(torch.from_numpy(photo), torch.from_numpy(style), items)


def _decode(reader: ShardReader, sample: Sample, into: np.ndarray) -> None:
    """One frame of a sample's clip as RGB planes, (3, H, W); a still has but one."""
    import cv2

    frame = reader.decode(sample.clip, sample.driving)
    blue, green, red = into[2], into[1], into[0]
    cv2.split(cv2.flip(frame, 1) if sample.mirrored else frame, [blue, green, red])
