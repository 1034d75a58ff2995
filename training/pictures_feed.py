"""The samples of a training on single pictures: each one decoded once, keyed by its number.

Sample ``i`` is a picture as `training.feed.PairSequence` orders them; of a clip of several frames one frame is drawn.
So nothing depends on the number of ranks or threads, nor on where a training was interrupted.
"""

from __future__ import annotations

import numpy as np
import torch

from models.contracts import Split
from models.errors import ClipError, must
from training.feed import Feed, FeedOptions, PairBatch
from training.shard_reader import ShardReader


class PictureFeed(Feed):
    """Hands out pictures, step after step, decoded ahead in threads; ``driving`` is the same tensor as ``source``."""

    def __init__(
        self, reader: ShardReader, options: FeedOptions, split: Split = "train", *, size_px: int | None = None
    ) -> None:
        """Prepare the sequence of a split.

        Args:
            reader: shards of stills or clips.
            options: what this rank takes, and the flips.
            split: of the pictures.
            size_px: height and width of what is handed out: whole pictures are scaled; None: the shards' own size.

        Raises:
            ClipError: the split is empty, or the pictures are smaller than ``size_px``.
        """
        name, still_px = reader.index.dataset, reader.index.size_px
        self.size_px = still_px if size_px is None else size_px
        if still_px < self.size_px:
            fix = f"Raise datasets.{name}.size_px, and cut and shard it again, or train at {still_px} px"
            raise ClipError(must(f"pictures of data set {name}", f"be {size_px} px or larger", f"{still_px} px", fix))
        if not reader.clips(split):
            fix = f"Set datasets.{name}.test_share otherwise, or add pictures; then cut and shard it again"
            raise ClipError(must(f"data set {name}", f"hold a picture of the {split} split", "none", fix))
        super().__init__(reader, options, split)

    def assemble(self, step: int) -> PairBatch:
        """Read, decode, scale and stack one step's pictures of this rank."""
        indices = self.sequence.step(step)
        pictures = np.empty((len(indices), 3, self.size_px, self.size_px), dtype=np.uint8)
        for planes, index in zip(pictures, indices, strict=True):
            sample = self.sequence.sample(index)
            self._fill(planes, self.reader.decode(sample.clip, sample.source), mirrored=sample.mirrored)
        items = np.fromiter(indices, dtype=np.int64, count=len(indices))
        source = torch.from_numpy(pictures)
        return PairBatch(source, source, items)

    def _fill(self, planes: np.ndarray, frame: np.ndarray, *, mirrored: bool) -> None:
        """A decoded frame, BGR (H, W, 3), as RGB planes of the training's size, (3, h, w)."""
        import cv2

        if frame.shape[0] != self.size_px:
            frame = cv2.resize(frame, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)
        blue, green, red = planes[2], planes[1], planes[0]
        cv2.split(cv2.flip(frame, 1) if mirrored else frame, [blue, green, red])
