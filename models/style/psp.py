"""pSp: an encoder that finds the style codes of a face in one pass (Richardson et al., CVPR 2021)."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ShapeError, must
from models.layers.norms import BatchNorm2d
from models.style.face_config import FaceConfig
from models.style.psp_body import Head, enlarged, stages

Space = Literal["z+", "w+"]
"""Of style codes: before the mapping network or behind it, one code for each layer."""
NUM_COARSE, NUM_MIDDLE = 3, 4
"""Codes found in the body's last and last but one stage; the others are found in the stage below these."""


class Encoder(nn.Module):
    """Face in, one style code for each layer of the generator out.

    The features of the body's last three stages are joined from the deepest upwards; each code has a head of its own.
    DualStyleGAN's encoder finds codes in Z+ (its section 3.1). In W+ codes are found as what they differ by from
    the mean code.
    """

    mean_code: Tensor

    def __init__(self, config: FaceConfig, *, space: Space = "z+") -> None:
        super().__init__()
        width, self.space, self.size_px = config.encoder_width, space, config.encoder_px
        self.input_layer = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), BatchNorm2d(width), nn.PReLU(width))
        self.body = stages(width, config.encoder_units)
        self.ends = tuple(end - 1 for end in accumulate(config.encoder_units))[1:]
        deep = 8 * width
        sizes = [config.encoder_px // _reduction(code) for code in range(config.num_styles)]
        self.styles = nn.ModuleList(Head(deep, config.style_dim, px) for px in sizes)
        self.latlayer1 = nn.Conv2d(4 * width, deep, 1)
        self.latlayer2 = nn.Conv2d(2 * width, deep, 1)
        self.register_buffer("mean_code", torch.zeros(config.num_styles, config.style_dim))

    def forward(self, pictures: Tensor) -> Tensor:
        """Find style codes.

        Args:
            pictures: faces in [0, 1], (B, 3, H, W), of any size: they are scaled to the encoder's.

        Returns:
            Codes of the encoder's space, (B, S, style_dim), S as `FaceConfig.num_styles`.

        Raises:
            ShapeError: no batch of RGB pictures.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            fix = "Stack RGB pictures of one size"
            raise ShapeError(must("the faces", "be a tensor (B, 3, H, W)", tuple(pictures.shape), fix))
        pyramid = self._pyramid(self.input_layer(scaled(pictures, self.size_px) * 2 - 1))
        found = [head(pyramid[_level(code)]) for code, head in enumerate(self.styles)]
        return torch.stack(found, 1) + self.mean_code

    def set_mean_code(self, mean: Tensor) -> None:
        """Add ``mean``, (style_dim,) or (S, style_dim), to all codes from now on: the mean style, for codes in W+."""
        self.mean_code.copy_(mean.expand_as(self.mean_code))

    def _pyramid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse, middle and fine features."""
        features = []
        for place, unit in enumerate(self.body):
            x = unit(x)
            if place in self.ends:
                features.append(x)
        fine, middle, coarse = features
        middle = enlarged(coarse, self.latlayer1(middle))
        return coarse, middle, enlarged(middle, self.latlayer2(fine))


def scaled(pictures: Tensor, size_px: int) -> Tensor:
    """Pictures (B, 3, H, W) at ``size_px`` x ``size_px``: means of areas from larger ones, bilinear from smaller."""
    height, width = pictures.shape[-2:]
    if (height, width) == (size_px, size_px):
        return pictures
    if min(height, width) < size_px:
        return F.interpolate(pictures, size=(size_px, size_px), mode="bilinear", align_corners=False)
    if height % size_px or width % size_px:
        return F.adaptive_avg_pool2d(pictures, size_px)
    return F.avg_pool2d(pictures, (height // size_px, width // size_px))


def _level(code: int) -> int:
    """Where a code is found: 0 coarse, 1 middle, 2 fine."""
    return 0 if code < NUM_COARSE else 1 if code < NUM_COARSE + NUM_MIDDLE else 2


def _reduction(code: int) -> int:
    """How much smaller than the picture the features are in which a code is found."""
    return int(16 >> _level(code))
