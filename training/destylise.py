"""Facial destylisation: the codes of a style picture, and of the face behind it (Yang et al., CVPR 2022, 3.1).

I: the encoder finds the picture's codes in Z+. II: codes and noise are optimised until the generator that was tuned
to the style makes the picture of them. III: the generator of faces makes a face of these codes, which the encoder
looks at again. What comes of a picture depends on it, its name, the seed and the networks alone: with a batch of 1 to
the bit, whatever was done before it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import TrainingError, must
from models.style.dualstylegan import DualStyleGenerator
from models.style.stylegan2.generator import Generator
from training.codes import Codes
from training.destylise_config import DestyliseConfig, RefineConfig
from training.destylise_losses import (
    identity_distance,
    noise_correlation,
    normalise_,
    perceptual_distance,
    pooled,
    seen,
    spread,
)
from training.randomness import keyed
from training.recipes.dualstyle_losses import CONTEXT_LEVEL, contextual_loss

Named = tuple[str, Tensor]
"""A picture's name, and the picture in [0, 1], (3, H, W)."""
Terms = dict[str, Tensor]
"""Weighted terms of a loss by name, (B,) each."""
Tell = Callable[[Sequence[str], int], None]
"""Hears of each step: the pictures' names, and how many steps are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destyliser:
    """The networks; they are put into eval mode, and none of their weights is changed."""

    generator: Generator
    """Of faces, g."""
    fine_tuned: Generator
    """The same, tuned to the style, g'."""
    encoder: nn.Module
    """Pictures to codes in Z+."""
    perceptual: nn.Module
    embed: Callable[[Tensor], Tensor] | None = None
    """Pictures to what tells faces apart, (B, D); None: the backbone's deepest features."""


class Destylised(NamedTuple):
    """What came of one picture."""

    name: str
    codes: Codes
    face: Tensor
    """What the generator of faces makes of the intrinsic codes, in [0, 1], (3, H, W), on the CPU."""
    begin: Mapping[str, float]
    """The weighted terms of step II's loss, by name, before its first step."""
    end: Mapping[str, float]
    """After its last."""


class Refined(NamedTuple):
    """What came of refining one picture's extrinsic codes."""

    name: str
    extrinsic: Tensor
    """(S, D), on the CPU."""
    before: Tensor
    """What the network draws with the codes as they were and its own noise, in [0, 1], (3, H, W), on the CPU."""
    after: Tensor
    """Likewise with the refined codes: whoever uses them has no noise that was fitted."""
    distances: tuple[float, float]
    """Of ``before`` and of ``after`` to the style picture, in the backbone's features."""
    begin: Mapping[str, float]
    """The weighted terms of the loss, by name, before the first step."""
    end: Mapping[str, float]
    """After the last; without steps as before."""


def destylise(
    pictures: Iterable[Named], networks: Destyliser, config: DestyliseConfig, *, tell: Tell | None = None
) -> Iterator[Destylised]:
    """Destylise pictures, one after another (or ``config.batch`` together).

    Args:
        pictures: of one size where several go together.
        networks: all on one device, where the work is done.
        config: weights and steps.
        tell: hears of progress.

    Yields:
        Each picture's result as soon as it is there.

    Raises:
        TrainingError: the optimisation of a picture has left the numbers; it says which.
    """
    for network in (networks.generator, networks.fine_tuned, networks.encoder, networks.perceptual):
        network.eval()
    waiting = iter(pictures)
    while batch := tuple(itertools.islice(waiting, config.batch)):
        yield from _destylise(batch, networks, config, tell)


def refine(
    pictures: Iterable[tuple[str, Tensor, Codes]],
    network: DualStyleGenerator,
    perceptual: nn.Module,
    config: RefineConfig,
    *,
    tell: Tell | None = None,
) -> Iterator[Refined]:
    """Fit the extrinsic codes of style pictures to a trained DualStyleGAN, one after another.

    Args:
        pictures: name, picture in [0, 1], (3, H, W), and its codes.
        network: trained in the target domain.
        perceptual: the backbone.
        config: weights and steps; codes of structure and of colour have learning rates of their own.
        tell: hears of progress.

    Yields:
        Each picture's new extrinsic codes; without steps the codes that it had.

    Raises:
        TrainingError: the optimisation of a picture has left the numbers.
    """
    network.eval()
    perceptual.eval()
    for name, picture, codes in pictures:
        yield _refine(name, picture, codes, network, perceptual, config, tell)


def learning_rate(share: float, config: DestyliseConfig) -> float:
    """The rate when ``share`` (0 to 1) of the steps is done: up in a line, level, down by a half cosine.

    Karras et al., CVPR 2020, appendix D.
    """
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / config.ramp_down))
    return config.learning_rate * down * min(1.0, share / config.ramp_up)


def _destylise(
    batch: Sequence[Named], networks: Destyliser, config: DestyliseConfig, tell: Tell | None
) -> Iterator[Destylised]:
    names = [name for name, _ in batch]
    device = networks.generator.mean_style.device
    wanted = torch.stack([picture for _, picture in batch]).to(device)
    with torch.no_grad():
        first = networks.encoder(wanted)
    codes = first.clone().requires_grad_(True)
    noises = _noises(networks.generator, config.seed, names, device)
    terms = _terms_of(wanted, networks, config)

    def loss() -> Terms:
        return terms(networks.fine_tuned(codes, noise=noises), codes, noises)

    optimizer = torch.optim.Adam([codes, *noises], lr=config.learning_rate)
    begin, end = _descend(names, optimizer, noises, loss, config, tell)
    with torch.no_grad():
        intrinsic, faces = _embedded(first, codes, noises, networks, config)
    for place, name in enumerate(names):
        found = Codes(first[place].cpu(), intrinsic[place].cpu())
        yield Destylised(name, found, faces[place].clamp(0, 1).cpu(), begin[place], end[place])


def _embedded(
    first: Tensor, codes: Tensor, noises: Sequence[Tensor], networks: Destyliser, config: DestyliseConfig
) -> tuple[Tensor, Tensor]:
    """Step III: the codes of the face that the generator of faces makes of ``codes``, and the face of those."""
    begin = networks.generator.config.structure_layers if config.keep_colours else first.shape[1]

    def coloured(found: Tensor) -> Tensor:
        return torch.cat([found[:, :begin], first[:, begin:]], dim=1)

    face = networks.generator(coloured(codes.detach()), config.truncation, noises)
    intrinsic = coloured(networks.encoder(face))
    return intrinsic, networks.generator(intrinsic, config.truncation, noises)


def _terms_of(
    wanted: Tensor, networks: Destyliser, config: DestyliseConfig
) -> Callable[[Tensor, Tensor, Sequence[Tensor]], Terms]:
    """The loss of step II (equation 1), of made pictures, their codes and their noise."""
    with torch.no_grad():
        target = seen(wanted)
        levels = networks.perceptual(target)
        known = pooled(levels) if networks.embed is None else networks.embed(target)

    def terms(made: Tensor, codes: Tensor, noises: Sequence[Tensor]) -> Terms:
        looked = seen(made)
        found = networks.perceptual(looked)
        embedding = pooled(found) if networks.embed is None else networks.embed(looked)
        found_terms = {
            "perceptual": perceptual_distance(found, levels),
            "identity": identity_distance(embedding, known),
            "mse": F.mse_loss(looked, target, reduction="none").mean(dim=(1, 2, 3)),
            "spread": spread(codes),
            "noise": noise_correlation(noises),
        }
        return {key: term * getattr(config, key) for key, term in found_terms.items()}

    return terms


def _refine(
    name: str,
    picture: Tensor,
    codes: Codes,
    network: DualStyleGenerator,
    perceptual: nn.Module,
    config: RefineConfig,
    tell: Tell | None,
) -> Refined:
    device, change = network.generator.mean_style.device, network.config.structure_layers
    target = seen(picture[None].to(device))
    intrinsic, extrinsic = (code[None].to(device) for code in (codes.intrinsic, codes.extrinsic))
    structure, colour = (part.clone().requires_grad_(True) for part in extrinsic.tensor_split((change,), dim=1))
    noises = _noises(network.generator, config.seed, [name], device)
    weights = torch.ones(network.config.num_styles, device=device)
    with torch.no_grad():
        wanted = perceptual(target)

    def loss() -> Terms:
        made = network(intrinsic, torch.cat([structure, colour], dim=1), weights, noise=noises)
        found = perceptual(seen(made))
        alike = contextual_loss(found[CONTEXT_LEVEL], wanted[CONTEXT_LEVEL])
        return {
            "perceptual": perceptual_distance(found, wanted) * config.perceptual,
            "contextual": alike[None] * config.contextual,
            "noise": noise_correlation(noises) * config.noise,
        }

    groups = [
        {"params": [structure], "lr": config.lr_structure},
        {"params": [colour], "lr": config.lr_colour},
        {"params": noises, "lr": config.lr_noise},
    ]
    begin, end = _descend([name], torch.optim.Adam(groups), noises, loss, config, tell)
    refined = torch.cat([structure, colour], dim=1).detach()
    with torch.no_grad():
        before, after = network(intrinsic, extrinsic, weights), network(intrinsic, refined, weights)
        away, now = (float(perceptual_distance(perceptual(seen(made)), wanted)) for made in (before, after))
    return Refined(
        name=name,
        extrinsic=refined[0].cpu(),
        before=before[0].clamp(0, 1).cpu(),
        after=after[0].clamp(0, 1).cpu(),
        distances=(away, now),
        begin=begin[0],
        end=end[0],
    )


def _descend(
    names: Sequence[str],
    optimizer: torch.optim.Optimizer,
    noises: Sequence[Tensor],
    loss: Callable[[], Terms],
    config: DestyliseConfig | RefineConfig,
    tell: Tell | None,
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Take the configured steps down; each picture's terms before the first and after the last."""
    changed = [value for group in optimizer.param_groups for value in group["params"]]
    begin: list[dict[str, float]] = []
    for step in range(config.steps):
        if isinstance(config, DestyliseConfig):
            optimizer.param_groups[0]["lr"] = learning_rate(step / config.steps, config)
        terms = loss()
        begin = begin or _finite(terms, names, step)
        total = torch.stack(list(terms.values())).sum()
        for value, slope in zip(changed, torch.autograd.grad(total, changed), strict=True):
            value.grad = slope
        optimizer.step()
        normalise_(noises)
        if tell is not None:
            tell(names, step + 1)
    with torch.no_grad():
        end = _finite(loss(), names, config.steps)
    return begin or end, end


def _finite(terms: Terms, names: Sequence[str], step: int) -> list[dict[str, float]]:
    """Each picture's terms."""
    columns = {key: term.detach().tolist() for key, term in terms.items()}
    found = [{key: column[place] for key, column in columns.items()} for place in range(len(names))]
    for name, each in zip(names, found, strict=True):
        if not all(math.isfinite(value) for value in each.values()):
            fix = "Lower the learning rate; the pictures before it are done"
            raise TrainingError(must(f"the losses of {name!r} after {step} steps", "be finite", each, fix))
    return found


def _noises(generator: Generator, seed: int, names: Sequence[str], device: torch.device) -> list[Tensor]:
    """Noise to begin with, keyed by the pictures' names: one plane per styled convolution, (B, 1, h, w)."""
    each = []
    for name in names:
        draw = torch.Generator().manual_seed(int(keyed(seed, "destylise", name).integers(2**62)))
        each.append(generator.make_noise(1, draw))
    return [torch.cat(planes).to(device).requires_grad_(True) for planes in zip(*each, strict=True)]
