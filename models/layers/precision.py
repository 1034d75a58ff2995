"""What must not be rounded to 16 bits by mixed precision: coordinates, statistics, singular values."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast is off on ``like``'s device; nothing at all when it is off already."""
    device = like.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def wide(x: Tensor) -> Tensor:
    """``x`` in at least 32 bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
