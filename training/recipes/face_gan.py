"""How StyleGAN2 is trained on single pictures; `face_gan_phases` holds the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.perceptual import build_perceptual
from models.style.face_config import FaceConfig
from models.style.stylegan2.build import build_gan
from models.style.stylegan2.discriminator import Discriminator
from models.style.stylegan2.generator import Generator
from training import ada, pictures
from training.augment import augment_pictures
from training.face_config import FaceTrainConfig
from training.feed import PairBatch
from training.optim import adam, schedule
from training.phases import Batch, Phase
from training.randomness import keyed
from training.recipes.face_gan_phases import (
    Around,
    DiscriminatorPhase,
    GeneratorPhase,
    PathMean,
    PathPhase,
    SlopePhase,
)
from training.recipes.face_gan_warm_up import Components, WarmUpPhase
from training.recipes.motion_phases import Precision
from training.speed import chosen

PICTURED_ROWS, PICTURED_COLUMNS = 4, 6
VIEWS = 3
"""Sets of pictures that the discriminator sees in a step: the generator's, real ones, the generator's again."""
MADE_AT_ONCE = 16
WARM_UP_BETAS = (0.5, 0.99)
NOISE_STRENGTH = "noise.weight"
"""End of the names of the generator's parameters that say how much noise it adds."""


def build_networks(config: FaceConfig) -> dict[str, nn.Module]:
    """Fresh networks of a training: ``generator``, ``discriminator``, and what else a checkpoint has to hold.

    ``augmentation`` and ``path`` have no weights: their buffers are the augmentation's probability and the running mean
    of the path's length.
    """
    return {**build_gan(config), "augmentation": ada.Augmentation(), "path": PathMean()}


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: FaceConfig,
    train: FaceTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> FaceGanRecipe:
    """Set up the training of StyleGAN2.

    Args:
        networks: of `build_networks`; moved to ``device`` and ``dtype``. The augmentation's probability is set to
            ``gan.ada_initial``, also where they come from another training.
        model: their configuration.
        train: learning rates, precision, the weights and rhythm of the penalties, the augmentation.
        device: where the training computes.
        dtype: of the weights.
    """
    for network in networks.values():
        network.to(device=device, dtype=dtype).train()
    augmentation = networks["augmentation"]
    assert isinstance(augmentation, ada.Augmentation), "networks['augmentation'] is the recipe's own"
    augmentation.probability.fill_(train.gan.ada_initial)
    for name, parameter in networks["generator"].named_parameters():
        if name.endswith(NOISE_STRENGTH):
            parameter.requires_grad_(train.gan.learn_noise)
    return FaceGanRecipe(networks, model=model, train=train, device=device, dtype=dtype)


class FaceGanRecipe:
    """Phases, samples and pictures of StyleGAN2."""

    averaged: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        model: FaceConfig,
        train: FaceTrainConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.networks: Mapping[str, nn.Module] = dict(networks)
        self.model, self.train, self.device, self.dtype = model, train, device, dtype
        self.precision = Precision(device=device, bf16=train.precision == "bf16")
        self.components: Components | None = None
        self.phases: Sequence[Phase] = self._phases()

    def _phases(self) -> list[Phase]:
        generator, discriminator = self.networks["generator"], self.networks["discriminator"]
        augmentation, path = self.networks["augmentation"], self.networks["path"]
        assert isinstance(generator, Generator), "networks['generator'] is StyleGAN2's"
        assert isinstance(discriminator, Discriminator), "networks['discriminator'] likewise"
        assert isinstance(augmentation, ada.Augmentation), "networks['augmentation'] is the recipe's own"
        assert isinstance(path, PathMean), "networks['path'] likewise"
        gan, train = self.train.gan, self.train
        around = Around(
            weights=gan,
            precision=self.precision,
            discriminator=discriminator,
            augmentation=augmentation,
            path=path,
            batch_size=train.batch_size,
            parts=train.accumulate,
        )
        making = self._adam("generator", train.lr_generator, gan.path_every_steps if gan.path_length else None)
        judging = self._adam("discriminator", train.lr_discriminator, gan.r1_every_steps if gan.r1 else None)
        begin = gan.warm_up_steps
        phases = [
            *self._warm_up(generator),
            self._phase("generator", GeneratorPhase(generator, around), making, first_step=begin),
        ]
        if gan.path_length:
            path_phase = PathPhase(generator, around)
            phases.append(self._lazy("path", path_phase, making, gan.path_every_steps, first_step=begin))
        late = begin // 2  # what is drawn before is no match for it
        module = DiscriminatorPhase(discriminator, around)
        phases.append(self._phase("discriminator", module, judging, first_step=late))
        if gan.r1:
            slope = SlopePhase(discriminator, around)
            phases.append(self._lazy("slope", slope, judging, gan.r1_every_steps, first_step=late))
        return phases

    def _warm_up(self, generator: Generator) -> list[Phase]:
        steps, train = self.train.gan.warm_up_steps, self.train
        if not steps:
            return []
        weights = Path(train.perceptual_weights) if train.perceptual_weights else None
        perceptual = build_perceptual(train.perceptual_backbone, weights).to(device=self.device, dtype=self.dtype)
        module = WarmUpPhase(generator, perceptual, self.precision)
        groups = {"generator": (generator.parameters(), train.gan.lr_warm_up)}
        optimizer = adam(groups, WARM_UP_BETAS, fused=chosen(train, self.device).fused_optimizer)
        limits: dict[str, Any] = {"stop_step": steps, "parts": train.accumulate, "max_grad_norm": train.max_grad_norm}
        return [Phase(name="warm_up", module=module, optimizer=optimizer, **limits)]

    def learn_components(self, pictures: np.ndarray) -> None:
        """Take from the training's pictures, uint8, (N, 3, H, W), what the warm-up needs."""
        self.components = Components(pictures, self.model.style_dim)

    def _adam(self, name: str, rate: float, every: int | None) -> torch.optim.Adam:
        """Adam that steps once more for a penalty ``every`` few steps, and so learns and forgets less (appendix B)."""
        share = 1.0 if every is None else every / (every + 1)
        first, second = self.train.adam_betas
        groups = {name: (self.networks[name].parameters(), rate * share)}
        return adam(groups, (first**share, second**share), fused=chosen(self.train, self.device).fused_optimizer)

    def _phase(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer, *, first_step: int = 0) -> Phase:
        """A phase of every step, with the schedule of its optimiser."""
        made = self._lazy(name, module, optimizer, 1, first_step=first_step)
        made.scheduler = schedule(optimizer, self.train)
        return made

    def _lazy(
        self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer, every: int, *, first_step: int = 0
    ) -> Phase:
        return Phase(
            name=name,
            module=module,
            optimizer=optimizer,
            every_n_steps=every,
            first_step=first_step,
            parts=self.train.accumulate,
            max_grad_norm=self.train.max_grad_norm,
        )

    def prepare(self, pairs: PairBatch) -> Batch:
        """Real pictures (``pairs.source``) to the device; codes, noise and changes, keyed by the samples' numbers."""
        items = [int(item) for item in pairs.items]
        real = pairs.source.to(self.device, non_blocking=True).to(self.dtype).div_(255.0)
        (real,) = augment_pictures(real, items=pairs.items, config=self.train.augment, seed=self.train.seed, of="photo")
        batch = {"real": real, "draws": self._changes(items), **self._codes(items, "generator")}
        if items[0] // self.train.batch_size < self.train.gan.warm_up_steps:
            assert self.components is not None, "the pictures' components are known before a warm-up"
            batch["components"] = self.components.codes(real, batch["codes"][:, 0])
        path = next((phase for phase in self.phases if phase.name == "path"), None)
        if path is not None and path.is_due(items[0] // self.train.batch_size):
            some = items[: self._num_for_path(len(items))]
            batch |= {f"path-{name}": value for name, value in self._codes(some, "path").items()}
            shape = (3, self.model.size_px, self.model.size_px)
            rows = [torch.randn(shape, generator=self._draw("picture", item), device=self.device) for item in some]
            batch["path-picture"] = torch.stack(rows).to(self.dtype)
        return batch

    def _num_for_path(self, num: int) -> int:
        """Of this rank's ``num`` samples, how many the path's length is taken of: as many in every part."""
        parts = self.train.accumulate
        return max(num // self.train.gan.path_batch_shrink // parts, 1) * parts

    def _changes(self, items: Sequence[int]) -> Tensor:
        rows = [[ada.draw(keyed(self.train.seed, "ada", view, item)) for view in range(VIEWS)] for item in items]
        return torch.from_numpy(np.array(rows)).to(self.device, self.dtype)

    def _codes(self, items: Sequence[int], purpose: str) -> dict[str, Tensor]:
        """Two codes a sample, where they change, and noise."""
        generator = self.networks["generator"]
        assert isinstance(generator, Generator), "networks['generator'] is StyleGAN2's"
        codes, change, noise = [], [], []
        for item in items:
            rng = keyed(self.train.seed, "mixing", purpose, item)
            layer = int(rng.integers(1, self.model.num_styles))
            change.append(layer if rng.random() < self.train.gan.mixing else self.model.num_styles)
            draw = self._draw(purpose, item)
            codes.append(torch.randn(2, self.model.style_dim, generator=draw, device=self.device))
            noise.append(generator.make_noise(1, draw, self.device))
        planes = {f"noise-{i}": torch.cat(layer).to(self.dtype) for i, layer in enumerate(zip(*noise, strict=True))}
        both = torch.stack(codes).to(self.dtype)
        return {"codes": both, "change": torch.tensor(change, device=self.device), **planes}

    def _draw(self, purpose: str, item: int) -> torch.Generator:
        """On the device, where there are many numbers to draw."""
        seed = int(keyed(self.train.seed, "codes", purpose, item).integers(2**63))
        return torch.Generator(self.device).manual_seed(seed)

    def make(self, networks: Mapping[str, nn.Module], num: int) -> Tensor:
        """Pictures of fixed codes, the same for every step of a training: in about [0, 1], (num, 3, H, W)."""
        codes = [keyed(self.train.seed, "fixed", number).standard_normal(self.model.style_dim) for number in range(num)]
        given = torch.from_numpy(np.stack(codes)).to(self.device, self.dtype)
        with torch.no_grad(), self.precision.context():
            return torch.cat([networks["generator"](part) for part in torch.split(given, MADE_AT_ONCE)])

    def pictures(self, networks: Mapping[str, nn.Module], pairs: PairBatch) -> dict[str, np.ndarray]:
        """One grid of what fixed codes give."""
        made = pictures.as_frames(self.make(networks, PICTURED_ROWS * PICTURED_COLUMNS))
        return {"samples": pictures.grid(np.split(made, PICTURED_COLUMNS))}
