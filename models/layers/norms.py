"""Batch normalisation whose statistics span all workers, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.layers.precision import wide


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that, while training on several workers, takes its statistics over all of them.

    Parameters, buffers, defaults and numbers are those of ``nn.BatchNorm2d`` seeing the workers' batches as one.
    Statistics are synchronised over `torch.distributed`'s default group when that is initialised with more than one
    worker and the module is in train mode; every worker must then call the module equally often. ``nn.SyncBatchNorm``
    does the same on GPUs alone.

    ``num_batches_tracked`` exists so that state dicts fit, and stays 0: with a fixed momentum nothing reads it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel.

        Args:
            input: (B, C, H, W), of any float type. Statistics are taken in at least 32 bits.

        Returns:
            Same shape and type.
        """
        if self.training and _world_size() > 1:
            return self._synchronised(input)
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )

    def _synchronised(self, x: Tensor) -> Tensor:
        mean, var, count = _statistics(x.detach())
        self._track(mean, var, count)
        out: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, var, count, self.eps
        )
        return out

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards the batch's; the running variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum or 0.0
        unbiased = var * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class BatchNorm1d(BatchNorm2d):
    """`BatchNorm2d` of vectors."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel: (B, C) -> same."""
        return super().forward(input[..., None, None])[..., 0, 0]


def _world_size() -> int:
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def _from_all(local: Tensor) -> Tensor:
    """Every worker's vector, (workers, n). Reduced in rank order it gives every worker the same bits each time."""
    rows = local.new_empty(_world_size(), local.shape[0])
    dist.all_gather(list(rows.unbind()), local)
    return rows


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values a channel (scalar), over all workers.

    Means and squared deviations of the parts are merged (Chan et al. 1979): one exchange, and small variances are not
    lost in the difference of two big sums.
    """
    x = wide(x)
    channels = x.shape[1]
    size = float(x.numel() // channels)
    mean = x.mean((0, 2, 3))
    squares = (x - mean[:, None, None]).square().sum((0, 2, 3))
    rows = _from_all(torch.cat([mean, squares, mean.new_full((1,), size)]))
    means, deviations, sizes = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    count = sizes.sum()
    mean = (means * sizes).sum(0) / count
    squares = (deviations + (means - mean).square() * sizes).sum(0)
    return mean, squares / count, count


class _Normalise(torch.autograd.Function):
    """Normalise by statistics that depend on every worker's input, and send the gradient back through them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        out = F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), count)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Through the statistics: dx = w/s * (dy - mean(dy) - xhat * mean(dy * xhat)), means over all workers.

        Ioffe and Szegedy, ICML 2015. The weights' own gradients stay local sums: data-parallel training reduces them
        with all others.
        """
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        dy = wide(grads[0])
        centred = wide(x) - mean[:, None, None]
        sum_dy = dy.sum((0, 2, 3))
        sum_dy_xhat = (dy * centred).sum((0, 2, 3)) * inverse_std
        dx = None
        # Exchanged even when this worker needs no gradient for x: all workers must take part.
        sums = _from_all(torch.cat([sum_dy, sum_dy_xhat])).sum(0)
        if ctx.needs_input_grad[0]:
            mean_dy, mean_dy_xhat = (sums / count).chunk(2)
            scale = inverse_std if weight is None else inverse_std * weight
            slope = (mean_dy_xhat * inverse_std)[:, None, None]
            dx = ((dy - mean_dy[:, None, None] - centred * slope) * scale[:, None, None]).to(x.dtype)
        dw = sum_dy_xhat.to(weight.dtype) if weight is not None else None
        db = sum_dy.to(weight.dtype) if weight is not None else None
        return dx, dw, db, None, None, None, None
