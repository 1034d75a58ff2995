"""The published way of computing, through this project's networks: what the benchmarks compare with.

Written anew from what the public implementation is known to do: every frame is filtered at its full size, three
channels as groups, before pixels are dropped; the source is repeated for every keypoint's motion; up blocks double
first and convolve then; the generator's step keeps gradients of the discriminator's weights and a graph of its look at
the real frame; Adam goes from weight to weight; animation encodes the source again for every frame. Numbers are the
same but for rounding, which tests/unit/test_bench_motion.py proves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import NarrowConv2d, UpBlock
from models.layers.resampling import AntiAliasDownsample
from models.layers.warps import warp
from models.motion.config import MotionConfig
from models.motion.dense_motion import DenseMotionNetwork
from models.motion.generator import Generator
from models.motion.keypoints import Keypoints
from training.config import MotionTrainConfig
from training.feed import PairBatch
from training.optim import ADAM_EPS
from training.recipes.motion import MotionRecipe
from training.recipes.motion_phases import GeneratorPhase, generator_gan, weighted_l1


class FullSizeDownsample(nn.Module):
    """`AntiAliasDownsample` that filters every pixel and then drops most."""

    def __init__(self, down: AntiAliasDownsample) -> None:
        super().__init__()
        self.stride = down.stride
        if down.stride > 1:
            self.register_buffer("weight", down.weight)
            self.weight: Tensor

    def forward(self, image: Tensor) -> Tensor:
        if self.stride == 1:
            return image
        reach = self.weight.shape[-1] // 2
        blurred = F.conv2d(F.pad(image, (reach, reach, reach, reach)), self.weight, groups=image.shape[1])
        return blurred[:, :, :: self.stride, :: self.stride]


class DoublingUpBlock(nn.Module):
    """`UpBlock` that makes the doubled map before it convolves."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.conv, self.norm, self.residual, self.attention = block.conv, block.norm, block.residual, block.attention

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2.0))))
        x = x if self.residual is None else self.residual(x)
        return x if self.attention is None else self.attention(x)


class RepeatingDenseMotion(DenseMotionNetwork):
    """`DenseMotionNetwork` that repeats the source for every motion."""

    def _move_by_each(self, source: Tensor, motions: Tensor) -> Tensor:
        batch, num_motions, height, width, _ = motions.shape
        repeated = source.unsqueeze(1).repeat(1, num_motions, 1, 1, 1).flatten(0, 1)
        moved = warp(repeated, motions.flatten(0, 1), align_corners=self.align_corners)
        return moved.reshape(batch, num_motions, -1, height, width)


class PublishedGeneratorPhase(GeneratorPhase):
    """`GeneratorPhase` whose adversarial terms leave gradients in the discriminator and a graph of the real frame."""

    def _adversarial(self, made: Tensor, driving: Tensor, wanted: Keypoints) -> dict[str, Tensor]:
        discriminator, weights = self.used.discriminator, self.weights
        if discriminator is None:
            return {}
        keypoints = wanted.detach()
        judged, real = discriminator(made, keypoints), discriminator(driving, keypoints)
        losses = {"gan": generator_gan([one.score for one in judged], weights) * weights.generator_gan}
        terms = [
            weighted_l1(a, b.detach(), weight)
            for one, other in zip(judged, real, strict=True)
            for a, b, weight in zip(one.features, other.features, weights.feature_matching, strict=False)
        ]
        return losses | {"feature_matching": torch.stack(terms).sum()}


def as_published(networks: Mapping[str, nn.Module], config: MotionConfig) -> None:
    """Make networks of `models.motion.networks.build` compute the published way, in place; their weights stay."""
    generator = networks["generator"]
    assert isinstance(generator, Generator), "networks['generator'] is the motion family's"
    mine = generator.dense_motion_network
    repeating = RepeatingDenseMotion(config).train(mine.training)
    repeating.load_state_dict(mine.state_dict())
    generator.dense_motion_network = repeating
    for network in networks.values():
        plain(network)


def plain(network: nn.Module) -> None:
    """Put the published kind of each module into the place of this project's."""
    for name, child in network.named_children():
        if isinstance(child, AntiAliasDownsample):
            network.register_module(name, FullSizeDownsample(child))
        elif isinstance(child, NarrowConv2d):
            network.register_module(name, _conv(child))
        else:
            if isinstance(child, UpBlock) and child.mode == "nearest":
                network.register_module(name, DoublingUpBlock(child))
            plain(network.get_submodule(name))


def _conv(narrow: NarrowConv2d) -> nn.Conv2d:
    size = narrow.kernel_size[0]
    conv = nn.Conv2d(narrow.in_channels, narrow.out_channels, size, padding=size // 2)
    conv.weight, conv.bias = narrow.weight, narrow.bias
    return conv


class PublishedStep:
    """Takes the published training's steps with a recipe's networks."""

    def __init__(self, recipe: MotionRecipe, train: MotionTrainConfig) -> None:
        """Take over a recipe whose networks are `as_published`, before its first step."""
        self.recipe = recipe
        phase = recipe.phases[0]
        assert isinstance(phase.module, GeneratorPhase), "the first phase trains the generator"
        phase.module = _published_phase(phase.module, train)
        for phase in recipe.phases:
            groups = [{"params": list(group["params"]), "lr": group["lr"]} for group in phase.optimizer.param_groups]
            phase.optimizer = torch.optim.Adam(groups, betas=train.adam_betas, eps=ADAM_EPS, foreach=False)

    def step(self, pairs: PairBatch) -> dict[str, float]:
        """Take one step; the losses as `training.loop.Trainer.step` names them."""
        batch, carry, values = self.recipe.prepare(pairs), dict[str, Tensor](), dict[str, float]()
        for phase in self.recipe.phases:
            output = phase.module(batch, carry)
            torch.autograd.backward(torch.stack(list(output.losses.values())).sum())
            phase.optimizer.step()
            for each in self.recipe.phases:
                each.optimizer.zero_grad()
            carry.update(output.carry)
            values |= {f"loss/{phase.name}/{term}": loss.detach().item() for term, loss in output.losses.items()}
        return values


def _published_phase(mine: GeneratorPhase, train: MotionTrainConfig) -> PublishedGeneratorPhase:
    phase = PublishedGeneratorPhase(
        mine.generator,
        mine.keypoint_detector,
        mine.background_predictor,
        used=mine.used,
        train=train,
        align_corners=mine.align_corners,
        precision=mine.precision,
    )
    phase.pyramid = mine.pyramid
    plain(phase.pyramid)
    return phase
