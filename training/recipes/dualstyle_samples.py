"""The samples of DualStyleGAN's fine-tuning: pictures and codes on the device, and what is drawn for them.

Every draw is keyed by the sample, and what a whole step does alike by the step: nothing depends on ranks, nor on where
a training was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import ClipError, must
from models.style.dualstylegan import DualStyleGenerator
from models.style.stylegan2.generator import mixed
from training import ada
from training.dualstyle_feed import CodedBatch
from training.face_config import FaceTrainConfig, StyleTransferConfig
from training.feed import PairBatch
from training.phases import Batch, Phase
from training.randomness import keyed
from training.recipes.face_gan import VIEWS


@dataclass(frozen=True, slots=True)
class Samples:
    """Prepares batches."""

    train: FaceTrainConfig
    generator: DualStyleGenerator
    device: torch.device
    dtype: torch.dtype

    @property
    def transfer(self) -> StyleTransferConfig:
        """What the domain says."""
        return self.train.transfer

    def prepare(self, pairs: PairBatch, phases: Sequence[Phase]) -> Batch:
        """Pictures and codes on the device, and the draws that the ``phases`` of the step need.

        Raises:
            ClipError: codes are missing in the target domain.
        """
        step = int(pairs.items.min()) // self.train.batch_size
        shared = {"draws": self._changes(pairs), **self._for_path(pairs, phases, step)}
        if self.transfer.domain == "source":
            return shared | self._of_source(pairs, step)
        if not isinstance(pairs, CodedBatch):
            fix = "Destylise the style pictures first"
            raise ClipError(must("the style pictures", "come with their codes", "none", fix))
        return shared | self._of_target(pairs, step)

    def _changes(self, pairs: PairBatch) -> Tensor:
        """What the augmentation draws, (B, 3, draws)."""
        seed = self.train.seed
        rows = [[ada.draw(keyed(seed, "ada", view, int(item))) for view in range(VIEWS)] for item in pairs.items]
        return torch.from_numpy(np.array(rows)).to(self.device, self.dtype)

    def _for_path(self, pairs: PairBatch, phases: Sequence[Phase], step: int) -> dict[str, Tensor]:
        """Codes and a picture of noise for each sample that the path's length is taken of; nothing in other steps."""
        phase = next((phase for phase in phases if phase.name == "path"), None)
        if phase is None or not phase.is_due(step):
            return {}
        parts, config = self.train.accumulate, self.generator.config
        num = max(len(pairs.items) // self.train.gan.path_batch_shrink // parts, 1) * parts
        some, side = PairBatch(pairs.source[:num], pairs.driving[:num], pairs.items[:num]), config.size_px
        outer = self.generator.generator.spread(self.normal(some, "path-extrinsic"))
        if isinstance(pairs, CodedBatch) and self.transfer.domain == "target":
            outer = self.code(pairs.extrinsic[:num])
        return {
            "path-intrinsic": self._random(some, "path-"),
            "path-extrinsic": outer,
            "path-picture": torch.stack([self._noise(int(item), side) for item in some.items]),
        }

    def _noise(self, item: int, side: int) -> Tensor:
        """A picture of noise, (3, side, side), drawn on the device: of large ones there are many numbers."""
        draw = torch.Generator(self.device)
        draw.manual_seed(int(keyed(self.train.seed, "path-picture", item).integers(2**63)))
        return self.code(torch.randn(3, side, side, generator=draw, device=self.device))

    def _of_source(self, pairs: PairBatch, step: int) -> dict[str, Tensor]:
        return {
            "real": self.image(pairs.source),
            "z1": self.normal(pairs, "z1"),
            "z2": self.normal(pairs, "z2"),
            "layer": self._alike(pairs, layer_at(self.transfer, step)),
            "encoded": self._alike(pairs, falls_to(step, self.transfer.encoded_share)),
        }

    def _of_target(self, pairs: CodedBatch, step: int) -> dict[str, Tensor]:
        style = self.image(pairs.driving)
        paired = falls_to(step, self.transfer.paired_share)
        # Counted among the unpaired steps alone, so that the two shares do not fall into each other's step.
        others = step - taken(step, self.transfer.paired_share)
        encoded = not paired and falls_to(others, self.transfer.encoded_share)
        jitter = self.normal(pairs, "jitter", *pairs.extrinsic.shape[1:]) * self.transfer.code_jitter
        return {
            "real": style,
            "style": style,
            "photo": self.image(pairs.source),
            "extrinsic": self.code(pairs.extrinsic) + jitter,
            "intrinsic": self._paired(pairs) if paired else self._random(pairs),
            "paired": self._alike(pairs, paired),
            "encoded": self._alike(pairs, encoded),
        }

    def _paired(self, pairs: CodedBatch) -> Tensor:
        """The style pictures' own codes of structure; those of colour are drawn, for colour is extrinsic."""
        change = self.generator.config.structure_layers
        own = self.code(pairs.intrinsic)
        return torch.cat([own[:, :change], self.normal(pairs, "colour", *own.shape[1:])[:, change:]], dim=1)

    def _random(self, pairs: PairBatch, purpose: str = "") -> Tensor:
        """Codes of a face that does not exist; mostly of two, that change at a layer drawn at random."""
        one, two = (self.normal(pairs, f"{purpose}{name}") for name in ("z1", "z2"))
        num = self.generator.config.num_styles
        layers = []
        for item in pairs.items:
            draw = keyed(self.train.seed, f"{purpose}mixing", int(item))
            layers.append(int(draw.integers(1, num)) if draw.random() < self.train.gan.mixing else num)
        spread = self.generator.generator.spread
        return mixed(spread(one), spread(two), torch.tensor(layers))

    def normal(self, pairs: PairBatch, name: str, *shape: int) -> Tensor:
        """Numbers of the normal distribution, keyed by a batch's samples; see `normal_of`."""
        return self.normal_of(pairs.items, name, *shape)

    def normal_of(self, items: np.ndarray, name: str, *shape: int) -> Tensor:
        """Numbers of the normal distribution, (B, D) or (B, *shape), keyed by samples and what they are for."""
        size = shape or (self.generator.config.style_dim,)
        drawn = [keyed(self.train.seed, name, int(item)).standard_normal(size, dtype=np.float32) for item in items]
        return self.code(torch.from_numpy(np.stack(drawn)))

    def _alike(self, pairs: PairBatch, value: int) -> Tensor:
        """What holds for the whole step, once for every sample, int64, (B,)."""
        return torch.full((len(pairs.items),), int(value), device=self.device)

    def code(self, codes: Tensor) -> Tensor:
        """On the device, in the weights' type."""
        return codes.to(device=self.device, dtype=self.dtype)

    def image(self, frames: Tensor) -> Tensor:
        """Frames, uint8, (B, 3, H, W), on the device in [0, 1]."""
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)


def layer_at(transfer: StyleTransferConfig, step: int) -> int:
    """From which layer on the codes are exchanged in ``step`` (from 0); after the last span, as in it."""
    for layer, end in zip(transfer.layers, np.cumsum(transfer.layer_steps), strict=True):
        if step < end:
            return layer
    return transfer.layers[-1]


def falls_to(step: int, share: float) -> bool:
    """Whether ``step`` (from 0) is one of a share of all steps that lie as evenly as can be."""
    return taken(step + 1, share) > taken(step, share)


def taken(steps: int, share: float) -> int:
    """How many of the first ``steps`` are of the share; the small number is what 10 x 0.3 lacks of 3."""
    return int(steps * share + 1e-9)
