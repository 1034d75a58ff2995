"""Convolution under spectral normalisation (Miyato et al., ICLR 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import full_precision


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by an estimate of its largest singular value.

    The estimate is one power iteration further with every call in train mode. State: ``weight_orig``, ``bias`` and the
    singular vectors ``weight_u`` (out,) and ``weight_v`` (in * k * k,), the names that published checkpoints use.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.bias = plain.bias
        self.weight_orig = plain.weight
        self.eps = eps
        rows = plain.weight.flatten(1)
        self.register_buffer("weight_u", F.normalize(rows.new_empty(rows.shape[0]).normal_(), dim=0, eps=eps))
        self.register_buffer("weight_v", F.normalize(rows.new_empty(rows.shape[1]).normal_(), dim=0, eps=eps))
        self.weight_u: Tensor
        self.weight_v: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B, in, H, W).

        Returns:
            (B, out, H', W') with H' = (H + 2p - d(k - 1) - 1) // s + 1 for padding p, dilation d and stride s.
        """
        with full_precision(x):
            weight = self._normalised_weight()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def _normalised_weight(self) -> Tensor:
        rows = self.weight_orig.flatten(1)
        if self.training:
            self._iterate(rows)
        # Copies, because the next call moves the buffers in place before this call's backward has read them.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, torch.mv(rows, v))

    @torch.no_grad()
    def _iterate(self, rows: Tensor) -> None:
        self.weight_v.copy_(F.normalize(torch.mv(rows.t(), self.weight_u), dim=0, eps=self.eps))
        self.weight_u.copy_(F.normalize(torch.mv(rows, self.weight_v), dim=0, eps=self.eps))
