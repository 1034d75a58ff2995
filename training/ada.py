"""Adaptive discriminator augmentation: what the discriminator sees is changed at random, real and made alike.

After Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, appendix B. Changes
follow one another as there: pixel blitting, geometry, colour. All of the geometry is one affine map, and a picture is
read through it once, bilinearly, its border reflected. (The paper reads it through wavelet filters.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import full_precision, wide

NUM_GATES, NUM_EVEN, NUM_NORMAL = 13, 8, 7
NUM_DRAWS = NUM_GATES + NUM_EVEN + NUM_NORMAL
"""Random numbers that one picture's changes take."""
SHIFT = 0.125
"""Of the picture's side: largest whole shift, and the deviation of the fractional one."""
SCALE, BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.2, 0.5, 1.0
"""Deviations; of all but brightness in powers of two."""
_GRAY = (1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3))
"""The axis of equal red, green and blue, of length 1."""


def draw(rng: np.random.Generator) -> np.ndarray:
    """The random numbers of one picture's changes, float64, (NUM_DRAWS,)."""
    return np.concatenate([rng.random(NUM_GATES + NUM_EVEN), rng.standard_normal(NUM_NORMAL)])


class Augmentation(nn.Module):
    """Changes pictures with a probability that follows how sure the discriminator is of the real ones.

    Its buffers are its state: in a training's networks, they are in its checkpoints.
    """

    probability: Tensor
    """Of each change, in [0, 1]; scalar."""
    signs: Tensor
    """Sum of the signs of the real scores since the probability moved last; scalar."""
    seen: Tensor
    """How many scores these were; scalar."""

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("probability", torch.tensor(float(probability)))
        self.register_buffer("signs", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(0.0))

    def forward(self, pictures: Tensor, draws: Tensor) -> Tensor:
        """Change each picture as its random numbers say; differentiable, and never rounded to 16 bits.

        Args:
            pictures: in about [0, 1], (B, 3, H, H).
            draws: of `draw`, (B, NUM_DRAWS).

        Returns:
            (B, 3, H, H), of the pictures' type, not clamped; a picture that nothing happens to keeps its bits.
        """
        with full_precision(pictures):
            named = _Named.of(draws, self.probability.to(draws.dtype))
            moved = reread(pictures, geometry(named, pictures.shape[-1]))
            return recolour(moved, colours(named))

    @torch.no_grad()
    def adapt(self, scores: Tensor, *, target: float | None, images: float, after: int) -> None:
        """Note scores of real pictures, and move the probability when there are enough; a collective.

        Args:
            scores: the discriminator's of this rank's pictures, (B, 1).
            target: of the mean sign of the scores: above it the probability rises, else it falls; None: it stays.
            images: after so many pictures the probability can have gone from 0 to 1.
            after: scores of all ranks together, after which it moves.
        """
        if target is None:
            return
        signs = wide(scores).sign()
        signs, number = sum_over_ranks(torch.stack([signs.sum(), torch.ones_like(signs).sum()]))
        self.signs += signs.to(self.signs.dtype)
        self.seen += number.to(self.seen.dtype)
        due = self.seen >= after
        step = torch.sign(self.signs / self.seen - target) * self.seen / images
        self.probability.copy_(torch.where(due, (self.probability + step).clamp(0, 1), self.probability))
        for noted in (self.signs, self.seen):
            noted.copy_(torch.where(due, torch.zeros_like(noted), noted))


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, equal to the bit on all ranks; detached. A collective."""
    values = values.detach()
    if not (dist.is_available() and dist.is_initialized()):
        return values
    rows = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, values)
    return torch.stack(rows).sum(0)


class _Named(NamedTuple):
    """What is done to each picture, (B,) each; neutral where its gate is shut."""

    flip: Tensor
    """1 or -1."""
    turns: Tensor
    """Of 90 degrees."""
    shift_x: Tensor
    """In shares of the picture's side, to be rounded to whole pixels."""
    shift_y: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    other_angle: Tensor
    offset_x: Tensor
    """In shares of the picture's side."""
    offset_y: Tensor
    brightness: Tensor
    contrast: Tensor
    negative: Tensor
    """1 where brightness is turned round."""
    hue: Tensor
    """Angle about the gray axis."""
    saturation: Tensor

    @classmethod
    def of(cls, draws: Tensor, probability: Tensor) -> _Named:
        """Give the random numbers, (B, NUM_DRAWS), their meaning."""
        gates, even, normal = torch.split(draws, [NUM_GATES, NUM_EVEN, NUM_NORMAL], 1)
        # Two turns come one after the other: together they shall be as likely as any other change.
        chances = probability.expand(NUM_GATES).clone()
        chances[[4, 6]] = 1 - (1 - probability).sqrt()
        flip, turns, shift, scale, angle, stretch, other, offset, bright, contrast, negative, hue, saturation = (
            (gates < chances).to(draws.dtype).unbind(1)
        )
        e, n = even.unbind(1), normal.unbind(1)
        return cls(
            flip=1 - 2 * flip * (e[0] * 2).floor(),
            turns=turns * (e[1] * 4).floor(),
            shift_x=shift * (2 * e[2] - 1) * SHIFT,
            shift_y=shift * (2 * e[3] - 1) * SHIFT,
            scale=torch.exp2(scale * n[0] * SCALE),
            angle=angle * (2 * e[4] - 1) * math.pi,
            stretch=torch.exp2(stretch * n[1] * SCALE),
            other_angle=other * (2 * e[5] - 1) * math.pi,
            offset_x=offset * n[2] * SHIFT,
            offset_y=offset * n[3] * SHIFT,
            brightness=bright * n[4] * BRIGHTNESS,
            contrast=torch.exp2(contrast * n[5] * CONTRAST),
            negative=negative * (e[6] * 2).floor(),
            hue=hue * (2 * e[7] - 1) * math.pi,
            saturation=torch.exp2(saturation * n[6] * SATURATION),
        )


def geometry(named: _Named, size_px: int) -> Tensor:
    """Where a changed picture's pixels are read, as affine maps of coordinates in [-1, 1]: (B, 2, 3)."""
    one, none = torch.ones_like(named.flip), torch.zeros_like(named.flip)
    turns = named.turns
    steps = [
        _matrix([[named.flip, none, none], [none, one, none]]),
        # Cosine and sine of whole quarters, without rounding.
        _rotation(_quarter(turns), _quarter((turns + 3) % 4)),
        _shift((named.shift_x * size_px).round() / size_px, (named.shift_y * size_px).round() / size_px),
        _matrix([[1 / named.scale, none, none], [none, 1 / named.scale, none]]),
        _rotation(named.angle.cos(), named.angle.sin()),
        _matrix([[1 / named.stretch, none, none], [none, named.stretch, none]]),
        _rotation(named.other_angle.cos(), named.other_angle.sin()),
        _shift(named.offset_x, named.offset_y),
    ]
    return _product(steps)[:, :2]


def reread(pictures: Tensor, theta: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) read where ``theta``, (B, 2, 3), says; those that stay where they are keep their bits."""
    still = torch.eye(2, 3, dtype=theta.dtype, device=theta.device)
    moved = (theta != still).flatten(1).any(1)
    if not bool(moved.any()):
        return pictures
    grid = F.affine_grid(theta.to(pictures.dtype), list(pictures.shape), align_corners=False)
    read = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return torch.where(moved[:, None, None, None], read, pictures)


def colours(named: _Named) -> Tensor:
    """What becomes of a pixel's colour, as affine maps of (red, green, blue) in [-1, 1]: (B, 3, 4)."""
    gray = torch.tensor(_GRAY, dtype=named.hue.dtype, device=named.hue.device)
    onto = torch.outer(gray, gray)
    eye = torch.eye(3, dtype=gray.dtype, device=gray.device)
    around = torch.linalg.cross(eye, gray.expand(3, 3)).T  # the matrix that takes the cross product with the gray axis
    cosine, sine = (wave[:, None, None] for wave in (named.hue.cos(), named.hue.sin()))
    steps = [
        eye * named.saturation[:, None, None] + onto * (1 - named.saturation)[:, None, None],
        eye * cosine - around * sine + onto * (1 - cosine),
        eye - 2 * onto * named.negative[:, None, None],
        eye * named.contrast[:, None, None],
    ]
    mixed = steps[0] @ steps[1] @ steps[2] @ steps[3]
    added = (mixed * named.brightness[:, None, None]).sum(2, keepdim=True)
    return torch.cat([mixed, added], 2)


def recolour(pictures: Tensor, matrix: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), in [0, 1], by maps (B, 3, 4) of colours in [-1, 1]; others keep their bits."""
    neutral = torch.eye(3, 4, dtype=matrix.dtype, device=matrix.device)
    changed = (matrix != neutral).flatten(1).any(1)
    if not bool(changed.any()):
        return pictures
    mixed, added = matrix[:, :, :3], matrix[:, :, 3:]
    shift = (added + 1 - mixed.sum(2, keepdim=True)) / 2
    made = torch.baddbmm(shift.to(pictures.dtype), mixed.to(pictures.dtype), pictures.flatten(2))
    return torch.where(changed[:, None, None, None], made.reshape(pictures.shape), pictures)


def _quarter(turns: Tensor) -> Tensor:
    """Cosine of so many quarter turns, 0 to 3: 1, 0, -1, 0."""
    return (turns == 0).to(turns.dtype) - (turns == 2).to(turns.dtype)


def _rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    none = torch.zeros_like(cosine)
    return _matrix([[cosine, -sine, none], [sine, cosine, none]])


def _shift(x: Tensor, y: Tensor) -> Tensor:
    """Of shares of the side, which is 2 in coordinates; what is read lies to the other side."""
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[one, none, -2 * x], [none, one, -2 * y]])


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Two rows of (B,) each, completed to (B, 3, 3)."""
    one, none = torch.ones_like(rows[0][0]), torch.zeros_like(rows[0][0])
    return torch.stack([torch.stack(list(row), 1) for row in (*rows, [none, none, one])], 1)


def _product(matrices: Sequence[Tensor]) -> Tensor:
    made = matrices[0]
    for matrix in matrices[1:]:
        made = made @ matrix
    return made
