"""How the pSp encoder is trained: it learns the codes of pictures before a generator that stands still.

After Richardson et al., "Encoding in Style", CVPR 2021, section 3.2. Beside real pictures stand ones that the generator
makes, whose codes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ParamsError, Problem
from models.layers.precision import wide
from models.perceptual import Perceptual, build_perceptual
from models.style.face_config import FaceConfig
from models.style.psp import Encoder, scaled
from models.style.stylegan2.generator import Generator, mixed
from training import pictures
from training.augment import augment_pictures
from training.face_config import EncoderLossConfig, FaceTrainConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase, PhaseOutput
from training.randomness import keyed
from training.recipes.motion_phases import Precision
from training.speed import chosen

MEAN_CODES = 4096
"""Of which the mean style is taken."""
PICTURED = 6
UNIT_EPSILON = 1e-8


class Identity(NamedTuple):
    """What says whose face a picture shows."""

    name: str
    """As the loss carries it."""
    look: Callable[[Tensor], Tensor]
    """Faces in [0, 1], (B, 3, H, W), to vectors whose direction counts, (B, N)."""


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: FaceConfig,
    train: FaceTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: Perceptual | None = None,
    identity: Identity | None = None,
) -> FaceEncoderRecipe:
    """Set up the training of an encoder.

    Args:
        networks: ``encoder`` and a trained ``generator``, which is frozen; moved to ``device`` and ``dtype``. The
            generator's mean style is taken anew; an untrained encoder of codes in W+ starts from it.
        model: their configuration.
        train: learning rate (``lr_generator``), backbone, precision, weights of the losses.
        device: where the training computes.
        dtype: of the weights.
        perceptual: features for the perceptual loss; the configured backbone unless given.
        identity: a face recogniser; the backbone's deepest features unless given.

    Raises:
        ParamsError: nothing is left to learn from.
    """
    _check(train.encoder)
    encoder, generator = networks["encoder"], networks["generator"]
    assert isinstance(encoder, Encoder), "networks['encoder'] is pSp's"
    assert isinstance(generator, Generator), "networks['generator'] is StyleGAN2's"
    generator.set_mean_style(MEAN_CODES, torch.Generator().manual_seed(0))
    if encoder.space == "w+" and not bool(encoder.mean_code.any()):
        encoder.set_mean_code(generator.mean_style)
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    generator.requires_grad_(False)
    if perceptual is None:
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights)
    perceptual.to(device=device, dtype=dtype)
    precision = Precision(device=device, bf16=train.precision == "bf16")
    around = Around(
        weights=train.encoder,
        precision=precision,
        generator=generator,
        perceptual=perceptual,
        identity=identity or Identity(perceptual.name, Pooled(perceptual)),
        loss_px=min(model.size_px, model.encoder_px),
    )
    return FaceEncoderRecipe(networks, train=train, around=around, device=device, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Pooled:
    """A backbone's deepest features, averaged over the picture: what a face recogniser stands for where none is."""

    backbone: Perceptual

    def __call__(self, faces: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C)."""
        levels: list[Tensor] = self.backbone(faces)
        return levels[-1].mean((2, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the phase uses and does not train: no module, so that nothing of it is registered."""

    weights: EncoderLossConfig
    precision: Precision
    generator: Generator
    perceptual: Perceptual
    identity: Identity
    loss_px: int
    """Pictures are compared at this size: the encoder's where the generator's are larger."""


class EncoderPhase(nn.Module):
    """Trains the encoder so that what the generator makes of its codes is the picture that it saw."""

    def __init__(self, encoder: Encoder, around: Around) -> None:
        super().__init__()
        self.encoder, self.around = encoder, around

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``picture`` in about [0, 1], (B, 3, H, W); ``codes`` (B, S, D) in the encoder's space, which count
                where ``known`` (B,) is 1.
            carry: nothing is read.
        """
        around, weights, wanted = self.around, self.around.weights, batch["picture"]
        with around.precision.context():
            codes = wide(self.encoder(wanted))
            made = wide(reconstructed(around.generator, self.encoder, codes))
            made, wanted = scaled(made, around.loss_px), scaled(wanted, around.loss_px)
            losses = self._seen(made, wanted)
        if weights.l2:
            losses["l2"] = F.mse_loss(made, wanted) * weights.l2
        if weights.code and weights.made_share:
            # Divided by their share on average, not by their number here: so parts and ranks add up to the whole.
            distance = (codes - batch["codes"]).square().mean((1, 2)) * batch["known"]
            losses["code"] = distance.mean() / weights.made_share * weights.code
        return PhaseOutput(losses, {})

    def _seen(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """The losses that networks see."""
        around, weights, losses = self.around, self.around.weights, {}
        if weights.perceptual:
            distance = perceptual_distance(around.perceptual, made, wanted)
            losses["perceptual"] = distance.mean() * weights.perceptual
        if weights.identity:
            with torch.no_grad():
                face = wide(around.identity.look(wanted))
            alike = F.cosine_similarity(wide(around.identity.look(made)), face)
            losses[f"identity/{around.identity.name}"] = (1 - alike).mean() * weights.identity
        return losses


class FaceEncoderRecipe:
    """Phase, samples and pictures of an encoder."""

    averaged: tuple[str, ...] = ("encoder",)

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        train: FaceTrainConfig,
        around: Around,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.train, self.around, self.device, self.dtype = train, around, device, dtype
        encoder = self.networks["encoder"]
        assert isinstance(encoder, Encoder), "networks['encoder'] is pSp's"
        self.space = encoder.space
        fused = chosen(train, device).fused_optimizer
        optimizer = adam({"encoder": (encoder.parameters(), train.lr_generator)}, train.adam_betas, fused=fused)
        phase = Phase(
            name="encoder",
            module=EncoderPhase(encoder, around),
            optimizer=optimizer,
            scheduler=schedule(optimizer, train),
            max_grad_norm=train.max_grad_norm,
            parts=train.accumulate,
        )
        self.phases: Sequence[Phase] = [phase]

    def prepare(self, pairs: PairBatch) -> Batch:
        """Pictures (``pairs.source``) to the device, some of them replaced by made ones, keyed by their numbers."""
        real = self._image(pairs.source)
        (real,) = augment_pictures(real, items=pairs.items, config=self.train.augment, seed=self.train.seed, of="photo")
        generator, share = self.around.generator, self.train.encoder.made_share
        rows = [self._row(int(item)) for item in pairs.items]
        known = torch.tensor([row.luck < share for row in rows], device=self.device)
        codes = self._tensor(np.stack([row.codes for row in rows]))
        changes = torch.tensor([row.change for row in rows], device=self.device)
        with torch.no_grad(), self.around.precision.context():
            codes = mixed(generator.spread(codes[:, 0]), generator.spread(codes[:, 1]), changes)
            styles = generator.mapping(codes)
            if bool(known.any()):
                real[known] = wide(generator.synthesis(styles[known])).clamp(0, 1).to(real.dtype)
        wanted = codes if self.space == "z+" else styles
        return {"picture": real, "codes": wanted, "known": known.to(self.dtype)}

    def _row(self, item: int) -> _Row:
        """A sample's draws; its codes have a mean square of 1, as the generator takes them."""
        rng, config = keyed(self.train.seed, "encoder", item), self.around.generator.config
        luck, mixes, change = rng.random(), rng.random(), int(rng.integers(1, config.num_styles))
        codes = rng.standard_normal((2, config.style_dim))
        codes /= np.sqrt(np.square(codes).mean(1, keepdims=True))
        return _Row(luck, change if mixes < self.train.gan.mixing else config.num_styles, codes)

    def reconstruct(self, networks: Mapping[str, nn.Module], photo: Tensor) -> Tensor:
        """Photos, uint8, (B, 3, H, W), encoded and made again: in about [0, 1], (B, 3, H, W)."""
        encoder = networks["encoder"]
        assert isinstance(encoder, Encoder), "networks['encoder'] is pSp's"
        with torch.no_grad(), self.around.precision.context():
            return wide(reconstructed(self.around.generator, encoder, wide(encoder(self._image(photo)))))

    def mean_picture(self) -> Tensor:
        """What the mean style gives, in about [0, 1], (1, 3, H, W)."""
        generator = self.around.generator
        with torch.no_grad():
            return generator.synthesis(generator.spread(generator.mean_style[None]))

    def distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Perceptual distance of pictures in [0, 1], (B, 3, H, W) each, at the size of the losses: (B,)."""
        with torch.no_grad():
            made, wanted = (scaled(faces, self.around.loss_px) for faces in (made, wanted))
            return perceptual_distance(self.around.perceptual, made, wanted)

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid, a row per picture: the picture, and what the generator makes of its codes."""
        photo = pairs.source[:PICTURED]
        columns = [self._image(photo), self.reconstruct(networks, photo)]
        return {"encoded": pictures.grid([pictures.as_frames(column) for column in columns])}

    def _image(self, frames: Tensor) -> Tensor:
        return frames.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, self.dtype)


class _Row(NamedTuple):
    """What is drawn for one sample."""

    luck: float
    """In [0, 1); below the share of made pictures it is one."""
    change: int
    """The layer from which on the second code counts."""
    codes: np.ndarray
    """(2, D)."""


def reconstructed(generator: Generator, encoder: Encoder, codes: Tensor) -> Tensor:
    """What the generator makes of an encoder's codes, (B, S, D): in about [0, 1], (B, 3, H, W)."""
    return generator.synthesis(generator.mapping(codes) if encoder.space == "z+" else codes)


def perceptual_distance(backbone: Perceptual, made: Tensor, wanted: Tensor) -> Tensor:
    """Distance of features' directions (Zhang et al., CVPR 2018, equation 1, with equal weights of all channels).

    Args:
        backbone: whose five levels are compared.
        made: in [0, 1], (B, 3, H, W).
        wanted: likewise; without a gradient.

    Returns:
        The mean over the levels of the mean over places of the squared difference: 0 (the same) to 2, (B,).
    """
    with torch.no_grad():
        references = [_directions(level) for level in backbone(wanted)]
    found = [_directions(level) for level in backbone(made)]
    levels = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(found, references, strict=True)]
    return torch.stack(levels).mean(0)


def _directions(features: Tensor) -> Tensor:
    """Each place's features, (B, C, h, w), scaled to length 1."""
    return F.normalize(wide(features), dim=1, eps=UNIT_EPSILON)


def _check(losses: EncoderLossConfig) -> None:
    weights = (losses.l2, losses.perceptual, losses.identity, losses.code * losses.made_share)
    if not any(weights):
        raise ParamsError([Problem("encoder", "weights of 0 alone", "have a term above 0")])
