"""Normalisations that see one sample alone: instance, layer, and LIN, which chooses between the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.names import SampleNormName
from models.layers.precision import full_precision, wide


class Statistics(NamedTuple):
    """By what a layer normalises, one value a channel or one for all."""

    mean: Tensor
    """(B, C, 1, 1) or (B, 1, 1, 1)."""
    var: Tensor
    """Biased, as ``mean``."""


class SampleNorm(nn.Module, ABC):
    """Zero mean and unit variance in each sample, then a scale and a shift for each channel."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps
        self.given: Statistics | None = None
        """In place of the sample's own: those of the picture that a tile is part of."""

    @abstractmethod
    def statistics(self, x: Tensor) -> Statistics:
        """Of samples (B, C, H, W), in at least 32 bits."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape and type."""
        with full_precision(x):
            mean, var = self.statistics(wide(x)) if self.given is None else self.given
            scale = self.weight[:, None, None] * torch.rsqrt(var + self.eps)
            shift = self.bias[:, None, None] - mean * scale
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


class InstanceNorm(SampleNorm):
    """Each channel by itself (Ulyanov et al., 2016); parameters and numbers are ``nn.InstanceNorm2d``'s."""

    def statistics(self, x: Tensor) -> Statistics:
        """(B, C, 1, 1) each."""
        return _of_channels(x)


class LayerNorm(SampleNorm):
    """All channels together (Ba et al., 2016); parameters and numbers are those of ``nn.GroupNorm(1, channels)``."""

    def statistics(self, x: Tensor) -> Statistics:
        """(B, 1, 1, 1) each."""
        return _of_all(_of_channels(x))


class Choice(NamedTuple):
    """What LIN weighs for each sample, (B,) each."""

    instance: Tensor
    """Mean of ``|x - mu_I| / var_I``."""
    layer: Tensor
    """Mean of ``|x - mu_L| / var_L``."""

    @property
    def is_instance(self) -> Tensor:
        """Whether the sample is normalised channel by channel, bool, (B,)."""
        return self.instance > self.layer


class LIN(SampleNorm):
    """Instance or layer normalisation, whichever has the larger score (LWComicGAN, equation 7).

    The scores are ``a_I = (x - mu_I) / var_I`` and ``a_L = (x - mu_L) / var_L``. The paper compares "the values" and
    uses "the normalisation to which the larger value belongs" for the layer; it does not say how a whole map of values
    is compared. Here it is by the mean absolute value, for each sample and layer; the chosen normalisation divides by
    the standard deviation, as usual. The choice is a step: gradients flow through the chosen normalisation alone.
    """

    def statistics(self, x: Tensor) -> Statistics:
        """The chosen ones, (B, C, 1, 1) each."""
        channels = _of_channels(x)
        whole = _of_all(channels)
        chosen = self._choice(x.detach(), channels, whole).is_instance[:, None, None, None]
        return Statistics(*(torch.where(chosen, one, all_) for one, all_ in zip(channels, whole, strict=True)))

    @torch.no_grad()
    def choice(self, x: Tensor) -> Choice:
        """Both scores of samples (B, C, H, W)."""
        x = wide(x)
        channels = _of_channels(x)
        return self._choice(x, channels, _of_all(channels))

    def _choice(self, x: Tensor, channels: Statistics, whole: Statistics) -> Choice:
        parts = (
            (x - mean.detach()).abs_().mean((2, 3)) / (var.detach().flatten(1) + self.eps)
            for mean, var in (channels, whole)
        )
        return Choice(*(part.mean(1) for part in parts))


NORMS: dict[SampleNormName, type[SampleNorm]] = {"instance": InstanceNorm, "layer": LayerNorm, "lin": LIN}


@contextmanager
def choices(network: nn.Module) -> Iterator[dict[str, Choice]]:
    """Observe what every LIN layer of a network chooses.

    Yields:
        A dict which each call of the network fills anew: the layer's name -> its `Choice` for that batch.
    """
    seen: dict[str, Choice] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, LIN):

            def note(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert isinstance(layer, LIN), "only LIN layers are hooked"
                seen[name] = layer.choice(inputs[0])

            handles.append(module.register_forward_pre_hook(note))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _of_channels(x: Tensor) -> Statistics:
    var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return Statistics(mean, var)


def _of_all(channels: Statistics) -> Statistics:
    """Of all values together, out of those of the channels, which have equally many."""
    mean = channels.mean.mean(1, keepdim=True)
    var = channels.var.mean(1, keepdim=True) + (channels.mean - mean).square().mean(1, keepdim=True)
    return Statistics(mean, var)
