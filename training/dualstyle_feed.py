"""The samples of DualStyleGAN's target domain: a photo, a style picture, and the codes that were found for it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from models.contracts import Split
from models.errors import ClipError, must
from training.codes import CodeTable
from training.feed import FeedOptions, PairBatch, PairSequence
from training.shard_reader import ShardReader
from training.unpaired import UnpairedFeed


class CodedBatch(PairBatch):
    """A batch whose style pictures (``driving``) come with their codes."""

    extrinsic: Tensor
    """Float32, (B, S, D), in Z+."""
    intrinsic: Tensor
    names: tuple[str, ...]
    """Of the style pictures, as the codes know them: their clips' ids."""


def coded(pairs: PairBatch, codes: CodeTable, names: tuple[str, ...]) -> CodedBatch:
    """The batch with the codes of its style pictures.

    Args:
        pairs: photos and style pictures.
        codes: of the style pictures, and others.
        names: which pictures they are, B.

    Raises:
        CheckpointError: there are no codes for one of them.
    """
    found = [codes[name] for name in names]
    made = CodedBatch(*pairs)
    made.extrinsic = torch.stack([each.extrinsic for each in found])
    made.intrinsic = torch.stack([each.intrinsic for each in found])
    made.names = names
    return made


class DualStyleFeed(UnpairedFeed):
    """Hands out photos as ``source`` and whole style pictures with their codes as ``driving``.

    Style pictures are neither cut nor mirrored: their codes are of what they are.
    """

    def __init__(
        self,
        photos: ShardReader,
        styles: ShardReader,
        codes: CodeTable,
        options: FeedOptions,
        split: Split = "train",
        *,
        size_px: int | None = None,
    ) -> None:
        """Prepare both sequences of a split.

        Args:
            photos: shards of aligned faces.
            styles: shards of style pictures.
            codes: of the style pictures, by their clips' ids; style pictures without codes are left out.
            options: what this rank takes; the flip is of the photos alone.
            split: as of `UnpairedFeed`.
            size_px: height and width of what is handed out; None: the shards' own size.

        Raises:
            ClipError: a split is empty, no style picture has codes, or stills are smaller than ``size_px``.
        """
        super().__init__(photos, styles, options, split, size_px=size_px)
        self.codes = codes
        known, plain = set(codes.names), self.style_sequence.options
        clips = [clip for group in self.style_sequence.items for clip in group if clip.id in known]
        if not clips:
            fix = "Destylise the style pictures of this data set"
            where = f"data set {styles.index.dataset}"
            raise ClipError(must(where, "hold style pictures with codes", f"codes of {len(known)} others", fix))
        self.style_sequence = PairSequence(clips, dataclasses.replace(plain, flip_horizontal=False))

    def assemble(self, step: int) -> CodedBatch:
        """Read, decode and stack one step's photos and style pictures of this rank, with their codes."""
        pairs = super().assemble(step)
        names = tuple(self.style_sequence.sample(int(item)).clip.id for item in pairs.items)
        return coded(pairs, self.codes, names)
