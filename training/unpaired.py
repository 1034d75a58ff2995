"""The samples of a style training: a photo and a style picture that have nothing to do with each other.

Photos and style pictures are two global sequences, each as `training.feed.PairSequence` orders it, with keys of their
own; sample ``i`` is the i-th of both. So the smaller set comes round more often, and nothing depends on ranks or
threads. Of each picture a square is cut at random, keyed by the sample's number: few pictures give many squares.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from models.contracts import Split
from models.errors import ClipError, check, must
from training.feed import Feed, FeedOptions, PairBatch, PairSequence, Sample
from training.randomness import keyed
from training.shard_reader import ShardReader

WHOLE = (1.0, 1.0)
"""The `crop` that takes whole pictures."""


class Square(NamedTuple):
    """What is cut out of a still, in its pixels."""

    left: int
    top: int
    side: int


def square_of(seed: int, index: int, *, still_px: int, size_px: int, crop: tuple[float, float]) -> Square:
    """The square that a sample shows of its still: of a random side, at a random place, both evenly drawn.

    Args:
        seed: of the sequence; photos and style pictures have different ones.
        index: the sample's number.
        still_px: side of the still.
        size_px: side of what the training sees; the square is never smaller, so that nothing is blown up.
        crop: smallest and largest side of the square as a share of the still's.
    """
    if crop == WHOLE:
        return Square(0, 0, still_px)
    size, x, y = keyed(seed, "crop", index).random(3).tolist()
    share = crop[0] + (crop[1] - crop[0]) * size
    side = max(size_px, min(round(share * still_px), still_px))
    room = still_px - side + 1
    return Square(int(x * room), int(y * room), side)


class UnpairedFeed(Feed):
    """Hands out photos as ``source`` and style pictures as ``driving``, step after step, decoded ahead in threads."""

    def __init__(
        self,
        photos: ShardReader,
        styles: ShardReader,
        options: FeedOptions,
        split: Split = "train",
        *,
        size_px: int | None = None,
        crop: tuple[float, float] = WHOLE,
        smooth: bool = False,
    ) -> None:
        """Prepare both sequences of a split.

        Args:
            photos: shards of stills.
            styles: shards of stills, of any size of their own.
            options: what this rank takes, and the flips.
            split: of the photos, and of the style pictures where one of theirs is in it; else theirs are those of the
                training: a style of few pictures can spare none.
            size_px: height and width of what is handed out; None: the shards' own size.
            crop: smallest and largest side of the square cut out of a still, as a share of the still's side. The
                default takes whole stills, and scales them.
            smooth: fill `PairBatch.smooth`, with the same square of the same style picture. The copies' blur shrinks
                with the squares: of stills twice as large as what is handed out, little more than half of it is left.

        Raises:
            ClipError: a split is empty; stills are smaller than ``size_px``, or of two sizes and it is None; the style
                shards hold no edge-smoothed copies.
            ParamsError: ``crop`` is no range of shares.
        """
        check((len(crop) == 2 and 0 < crop[0] <= crop[1] <= 1, "crop", crop, "be two shares in (0, 1], smaller first"))
        self.size_px, self.crop, self.smooth = _size(photos, styles, size_px), crop, smooth
        if smooth:
            styles.check_smooth()
        clips = styles.clips(split) or styles.clips("train")
        _check_any(photos, bool(photos.clips(split)), split)
        _check_any(styles, bool(clips), "train")
        other = int(keyed(options.seed, "style").integers(2**31))
        self.styles = styles
        self.style_sequence = PairSequence(clips, dataclasses.replace(options, seed=other))
        super().__init__(photos, options, split)

    def assemble(self, step: int) -> PairBatch:
        """Read, decode, cut and stack one step's photos and style pictures of this rank."""
        indices = self.sequence.step(step)
        photo = np.empty((len(indices), 3, self.size_px, self.size_px), dtype=np.uint8)
        style = np.empty_like(photo)
        smooth = np.empty_like(photo) if self.smooth else None
        for place, index in enumerate(indices):
            sample = self.sequence.sample(index)
            frame = self.reader.decode(sample.clip, sample.driving)
            self._fill(photo[place], frame, sample, self._square(self.sequence, index, self.reader))
            sample = self.style_sequence.sample(index)
            square = self._square(self.style_sequence, index, self.styles)
            self._fill(style[place], self.styles.decode(sample.clip, sample.driving), sample, square)
            if smooth is not None:
                self._fill(smooth[place], self.styles.decode_smooth(sample.clip), sample, square)
        items = np.fromiter(indices, dtype=np.int64, count=len(indices))
        copies = None if smooth is None else torch.from_numpy(smooth)
        return PairBatch(torch.from_numpy(photo), torch.from_numpy(style), items, copies)

    def _square(self, sequence: PairSequence, index: int, reader: ShardReader) -> Square:
        still_px = reader.index.size_px
        return square_of(sequence.options.seed, index, still_px=still_px, size_px=self.size_px, crop=self.crop)

    def _fill(self, planes: np.ndarray, frame: np.ndarray, sample: Sample, square: Square) -> None:
        """A square of a decoded frame, BGR (H, W, 3), as RGB planes of the training's size, (3, h, w)."""
        import cv2

        left, top, side = square
        part = frame[top : top + side, left : left + side]
        if side != self.size_px:
            part = cv2.resize(part, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)
        blue, green, red = planes[2], planes[1], planes[0]
        cv2.split(cv2.flip(part, 1) if sample.mirrored else part, [blue, green, red])


def _check_any(reader: ShardReader, found: bool, split: Split) -> None:
    if not found:
        name = reader.index.dataset
        fix = f"Set datasets.{name}.test_share otherwise, or add pictures; then cut and shard it again"
        raise ClipError(must(f"data set {name}", f"hold a picture of the {split} split", "none", fix))


def _size(photos: ShardReader, styles: ShardReader, size_px: int | None) -> int:
    """The side of what is handed out, which no still is smaller than."""
    if size_px is None:
        if photos.index.size_px != styles.index.size_px:
            got = f"{photos.index.size_px} and {styles.index.size_px} px"
            fix = "Set the training's size, or size_px of both alike and make the shards again"
            raise ClipError(must("photos and style pictures", "have one size", got, fix))
        return photos.index.size_px
    for index in (photos.index, styles.index):
        name, still_px = index.dataset, index.size_px
        if still_px < size_px:
            fix = f"Raise datasets.{name}.size_px, and cut and shard it again, or train at {still_px} px"
            raise ClipError(must(f"stills of data set {name}", f"be {size_px} px or larger", f"{still_px} px", fix))
    return size_px
