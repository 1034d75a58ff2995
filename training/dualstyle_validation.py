"""The checks that DualStyleGAN's fine-tuning makes of itself, one a domain; every rank computes all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.codes import CodeTable
from training.face_validation import first_frames
from training.recipes.dualstyle import DualStyleRecipe
from training.shard_reader import ShardReader
from training.style_validation import KID, StyleValidation, Stylises
from training.validation import batched_range
from training.world import World

EXCHANGE_L1, INTRINSIC_L1 = "validation/exchange_l1", "validation/intrinsic_l1"
PAIR_L1, CONTENT_L1 = "validation/pair_l1", "validation/content_l1"
BATCH = 16


class ExchangeValidation:
    """Source domain: how far what the extrinsic path makes is from what exchanging the codes gives."""

    judged_by = EXCHANGE_L1

    def __init__(self, recipe: DualStyleRecipe, *, num_pictures: int) -> None:
        """Fix the codes: those of the training's first samples."""
        self.recipe, self.num_pictures = recipe, num_pictures

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            Mean absolute difference to the exchanged codes' pictures, in [0, 1], of what is made (`EXCHANGE_L1`) and of
            what the intrinsic codes alone give (`INTRINSIC_L1`).
        """
        sums = np.zeros(2)
        for part in batched_range(self.num_pictures, BATCH):
            plain, _, wanted, made = self.recipe.exchanged(networks, np.arange(self.num_pictures)[part])
            sums += [_sum_l1(made, wanted), _sum_l1(plain, wanted)]
        return dict(zip((EXCHANGE_L1, INTRINSIC_L1), (sums / self.num_pictures).tolist(), strict=True))


@dataclass(slots=True)
class _InTurn:
    """Stylises photo after photo, the i-th in the manner of the i-th style picture, and round again."""

    recipe: DualStyleRecipe
    extrinsic: Tensor
    """(N, S, D)."""
    place: int = 0

    def stylise(self, networks: Mapping[str, nn.Module], photo: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), as drawings: in [0, 1], (B, 3, H, W)."""
        rows = (self.place + torch.arange(len(photo))) % len(self.extrinsic)
        self.place += len(photo)
        return self.recipe.stylise(networks, photo, self.extrinsic[rows])


class StyledValidation:
    """Target domain: are stylised test photos like the style pictures, and do these come back from their codes?"""

    judged_by = KID

    def __init__(
        self,
        photos: ShardReader,
        styles: ShardReader,
        codes: CodeTable,
        recipe: DualStyleRecipe,
        world: World,
        *,
        num_photos: int,
        size_px: int,
    ) -> None:
        """Read the photos, the features of the style pictures, and those style pictures that have codes."""
        known = [clip for clip in styles.clips("train") if clip.id in codes.names][:num_photos]
        found = [codes[clip.id] for clip in known]
        self.recipe = recipe
        self._extrinsic = torch.stack([each.extrinsic for each in found])
        self._intrinsic = torch.stack([each.intrinsic for each in found])
        self._pictures = first_frames(styles, known, size_px)
        self._turn = _InTurn(recipe, self._extrinsic)
        stylises = cast(Stylises, self._turn)
        self._drawings = StyleValidation(photos, styles, stylises, world, num_photos=num_photos, size_px=size_px)

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode.

        Returns:
            What `StyleValidation` finds (nothing without test photos), and the mean absolute difference to the style
            pictures, in [0, 1], of what their two codes give (`PAIR_L1`), and their intrinsic codes alone
            (`CONTENT_L1`).
        """
        self._turn.place = 0
        figures = self._drawings.run(networks)
        sums, num = np.zeros(2), len(self._pictures)
        for part in batched_range(num, BATCH):
            intrinsic = self._intrinsic[part]
            made = self.recipe.draw(networks, intrinsic, self._extrinsic[part])
            wanted = torch.from_numpy(self._pictures[part]).to(made.device, made.dtype) / 255
            sums += [_sum_l1(made, wanted), _sum_l1(self.recipe.plain(intrinsic), wanted)]
        return figures | dict(zip((PAIR_L1, CONTENT_L1), (sums / num).tolist(), strict=True))


def _sum_l1(made: Tensor, wanted: Tensor) -> float:
    """Mean absolute difference of each picture, added."""
    return float((made - wanted).abs().mean(dim=(1, 2, 3), dtype=torch.float64).sum())
