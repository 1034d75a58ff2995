"""How a training computes fast: the order of feature maps, compiled kernels, fused Adam, memory that is kept."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.layers.hourglass import Hourglass, HourglassEncoder
from models.layers.resampling import ImagePyramid
from models.layers.spectral import SpectralConv2d
from models.motion.background import BackgroundPredictor
from models.motion.discriminator import Discriminator
from models.motion.generator import Generator
from models.motion.keypoints import Detector
from models.perceptual import Perceptual
from training.config import TrainConfig

KEPT_MEMORY: Mapping[str, str] = MappingProxyType(
    {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_ARENA_MAX": "1"}
)
"""What `keep_memory` does, as environment of a process to be started: the only way where a thread other than the main
one computes (a worker of Ray Train)."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Names of glibc's mallopt parameters (malloc.h)."""
_COMPILED = (Generator, Detector, BackgroundPredictor, Perceptual, ImagePyramid)
"""The discriminator is none of them: the buffers of its spectral norm move in place between forward and backward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Which means are used; none changes more than the rounding."""

    channels_last: bool = False
    """Feature maps keep the channels of a pixel together."""
    compile: bool = False
    """torch.compile makes the kernels of all networks but the discriminator."""
    fused_optimizer: bool = False
    """One kernel for all of Adam."""


def chosen(train: TrainConfig, device: torch.device) -> Speed:
    """The means of a training: what its configuration says, and where that leaves it open, what is faster.

    Args:
        train: ``channels_last``, ``compile`` and ``fused_optimizer``; ``precision``.
        device: where it computes.
    """
    on_gpu = device.type == "cuda"
    last, fused = train.channels_last, train.fused_optimizer
    return Speed(
        channels_last=on_gpu or train.precision == "bf16" if last is None else last,
        compile=train.compile,
        fused_optimizer=True if fused is None else fused,
    )


def prepare_networks(networks: Mapping[str, nn.Module], speed: Speed, device: torch.device) -> None:
    """Set networks up, in place, before their first call; to be called once.

    Weights stay as they are, in type, order and name, so that checkpoints, moving averages and the optimisers' moments
    see nothing of it (fused Adam reads weights, gradients and moments as flat memory: orders that differ, as after a
    checkpoint, would mix them up without an error).

    Args:
        networks: the trained ones, the perceptual backbone, image pyramids; others are left alone.
        speed: the means.
        device: where they compute.
    """
    for network in networks.values():
        if speed.channels_last:
            for module in _entrances(network, on_gpu=device.type == "cuda"):
                module.register_forward_pre_hook(_to_channels_last)
        if speed.compile and isinstance(network, _COMPILED):
            network.compile(dynamic=False)


def _entrances(network: nn.Module, *, on_gpu: bool) -> Iterator[nn.Module]:
    """Modules whose input sets the order of what follows.

    On CPUs those with large maps alone: where maps are small and weights many, the order costs more than it gains.
    Warps and instance normalisation put the channels apart again, so that there are several in a network.
    """
    if isinstance(network, Generator):
        yield from (network.first, *network.down_blocks, network.bottleneck, *network.up_blocks, network.final)
    if isinstance(network, Perceptual):
        yield network
    if on_gpu:
        kinds = (nn.Conv2d, SpectralConv2d) if isinstance(network, Discriminator) else (Hourglass, HourglassEncoder)
        yield from (module for module in network.modules() if isinstance(module, kinds))


def _to_channels_last(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first, *others = inputs
    return (first.contiguous(memory_format=torch.channels_last), *others)


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for the next step; for CPU trainings.

    Otherwise glibc gives every large tensor back to the system and has its pages zeroed again at the next step: a fifth
    of a step's time. The process then stays as large as it has ever been. Works where the main thread computes; see
    `KEPT_MEMORY`.

    Returns:
        Whether the C library knows how.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
