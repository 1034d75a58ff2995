"""Normalisations that see one sample alone: instance, layer, and LIN, which chooses between the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.errors import ShapeError, must
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
        self.pooled = False
        """Whether a batch is the patches of one picture, which have one mean and variance together."""
        self.used: Statistics | None = None
        """Of the last call, where `recording` looks on."""
        self.is_recorded = False

    @abstractmethod
    def statistics(self, x: Tensor) -> Statistics:
        """Of samples (B, C, H, W), in at least 32 bits; of the whole batch, B = 1, where it is ``pooled``."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape and type."""
        with full_precision(x):
            mean, var = found = self.statistics(wide(x)) if self.given is None else self.given
            if self.is_recorded:
                self.used = found
            scale = self.weight[:, None, None] * torch.rsqrt(var + self.eps)
            shift = self.bias[:, None, None] - mean * scale
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


class InstanceNorm(SampleNorm):
    """Each channel by itself (Ulyanov et al., 2016); parameters and numbers are ``nn.InstanceNorm2d``'s."""

    def statistics(self, x: Tensor) -> Statistics:
        """(B, C, 1, 1) each."""
        return _of_channels(x, pooled=self.pooled)


class LayerNorm(SampleNorm):
    """All channels together (Ba et al., 2016); parameters and numbers are those of ``nn.GroupNorm(1, channels)``."""

    def statistics(self, x: Tensor) -> Statistics:
        """(B, 1, 1, 1) each."""
        return _of_all(_of_channels(x, pooled=self.pooled))


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
        channels = _of_channels(x, pooled=self.pooled)
        whole = _of_all(channels)
        chosen = self._is_instance(x.detach(), channels, whole)[:, None, None, None]
        return Statistics(*(torch.where(chosen, one, all_) for one, all_ in zip(channels, whole, strict=True)))

    @torch.no_grad()
    def choice(self, x: Tensor) -> Choice:
        """Both scores of samples (B, C, H, W)."""
        x = wide(x)
        channels = _of_channels(x, pooled=self.pooled)
        return self._choice(x, channels, _of_all(channels))

    @torch.no_grad()
    def _is_instance(self, x: Tensor, channels: Statistics, whole: Statistics) -> Tensor:
        """`Choice.is_instance`; the layer's score is computed where its upper bound does not decide.

        In each channel, the mean of ``|x - mu_L|`` is at most the root of the mean square, and at most the mean of
        ``|x - mu_I|`` and ``|mu_I - mu_L|`` together. On a GPU, looking at the bound costs more than it saves.
        """
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self._choice(x, channels, whole).is_instance
        distances = _distances(x, channels.mean, _over(self.pooled))
        instance = (distances / (channels.var.flatten(1) + self.eps)).mean(1)
        between = (channels.mean - whole.mean).flatten(1)
        farthest = torch.minimum(distances + between.abs(), (channels.var.flatten(1) + between.square()).sqrt())
        most = farthest.mean(1) / (whole.var.flatten() + self.eps)
        if bool((instance > most * (1 + 1e-5)).all()):
            return torch.ones_like(instance, dtype=torch.bool)
        return Choice(instance, self._score(x, whole)).is_instance

    def _choice(self, x: Tensor, channels: Statistics, whole: Statistics) -> Choice:
        return Choice(self._score(x, channels), self._score(x, whole))

    @torch.no_grad()
    def _score(self, x: Tensor, of: Statistics) -> Tensor:
        """Mean of ``|x - mu| / var``, (B,)."""
        distances = _distances(x, of.mean.expand(-1, x.shape[1], -1, -1), _over(self.pooled))
        return (distances / (of.var.flatten(1) + self.eps)).mean(1)


NORMS: dict[SampleNormName, type[SampleNorm]] = {"instance": InstanceNorm, "layer": LayerNorm, "lin": LIN}


_CACHED = 1 << 18
"""Values of which a processor's cache holds some copies."""


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


def sample_norms(network: nn.Module) -> list[SampleNorm]:
    """The normalisations of a network, in the order in which packed statistics hold them."""
    return [module for module in network.modules() if isinstance(module, SampleNorm)]


def num_statistics(network: nn.Module) -> int:
    """K, the normalised channels of all layers together."""
    return sum(norm.weight.numel() for norm in sample_norms(network))


@contextmanager
def recording(network: nn.Module, *, pooled: bool = False) -> Iterator[None]:
    """Keep what every normalisation uses; `packed` gives it out after a call of the network.

    Args:
        network: observed and, at the end, as it was.
        pooled: take the batches of calls inside for patches of one picture, with one mean and variance together.
    """
    norms = sample_norms(network)
    try:
        for norm in norms:
            norm.is_recorded, norm.pooled = True, pooled
        yield
    finally:
        for norm in norms:
            norm.is_recorded, norm.pooled, norm.used = False, False, None


def packed(network: nn.Module) -> Tensor:
    """Means and variances of all normalisations in the last call under `recording`, one of each a channel.

    Returns:
        (B, 2, K), means first; B = 1 where they were pooled. A network without normalisations has K = 0.
    """
    used = [(norm.used, norm.weight.numel()) for norm in sample_norms(network)]
    layers = []
    for found, channels in used:
        assert found is not None, "the network is called inside `recording` before"
        layers.append(torch.stack([part.flatten(1).expand(-1, channels) for part in found], 1))
    return torch.cat(layers, 2) if layers else torch.zeros(1, 2, 0)


@contextmanager
def using(network: nn.Module, statistics: Tensor) -> Iterator[None]:
    """Let every normalisation use given statistics in place of its samples' own.

    Args:
        network: as it was, at the end.
        statistics: as `packed` makes them, (B, 2, K), for batches of B, or B = 1 for any.

    Raises:
        ShapeError: they are not those of such a network.
    """
    norms, wanted = sample_norms(network), num_statistics(network)
    if statistics.ndim != 3 or statistics.shape[1:] != (2, wanted):
        fix = "Measure them with the same network"
        raise ShapeError(must("statistics", f"be (B, 2, {wanted})", tuple(statistics.shape), fix))
    layers = torch.split(statistics[..., None, None], [norm.weight.numel() for norm in norms], 2)
    try:
        for norm, layer in zip(norms, layers, strict=True):
            norm.given = Statistics(layer[:, 0], layer[:, 1])
        yield
    finally:
        for norm in norms:
            norm.given = None


def _over(pooled: bool) -> tuple[int, ...]:
    return (0, 2, 3) if pooled else (2, 3)


def _distances(x: Tensor, mean: Tensor, over: tuple[int, ...]) -> Tensor:
    """Mean of ``|x - mean|`` in each channel, (B, C)."""
    return _apart(x, mean, over, torch.Tensor.abs_).flatten(1)


def _apart(x: Tensor, mean: Tensor, over: tuple[int, ...], measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of a measure of ``x - mean``, (B, C, 1, 1); on a CPU by parts that stay in the cache."""
    if x.device.type != "cpu" or not x.numel():
        return measure(x - mean).mean(over, keepdim=True)
    if x.is_contiguous():
        few = max(1, _CACHED * x.shape[1] // x.numel())
        parts = zip(torch.split(x, few, 1), torch.split(mean, few, 1), strict=True)
        return torch.cat([measure(part - of).mean(over, keepdim=True) for part, of in parts], 1)
    rows = torch.split(x, max(1, _CACHED * x.shape[2] // x.numel()), 2)
    sums = torch.stack([measure(part - mean).sum(over, keepdim=True) for part in rows])
    return sums.sum(0) / (x.numel() // x.shape[1] // (1 if 0 in over else x.shape[0]))


def _of_channels(x: Tensor, *, pooled: bool) -> Statistics:
    """In plain means while compiling, and on a CPU without gradients, where ``var_mean`` takes ten times as long."""
    over = _over(pooled)
    if torch.compiler.is_compiling():
        mean = x.mean(over, keepdim=True)
        return Statistics(mean, (x - mean).square().mean(over, keepdim=True))
    if x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad):
        mean = x.mean(over, keepdim=True)
        return Statistics(mean, _apart(x, mean, over, lambda distance: distance.mul_(distance)))
    var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    return Statistics(mean, var)


def _of_all(channels: Statistics) -> Statistics:
    """Of all values together, out of those of the channels, which have equally many."""
    mean = channels.mean.mean(1, keepdim=True)
    var = channels.var.mean(1, keepdim=True) + (channels.mean - mean).square().mean(1, keepdim=True)
    return Statistics(mean, var)
