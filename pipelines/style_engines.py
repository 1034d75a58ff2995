"""What draws: a generator in torch, with the same interface as a registered model's `StyleSession`."""

from __future__ import annotations

import ctypes
import logging
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from models.errors import CheckpointError, must
from models.layers.sample_norms import packed, recording, using
from models.style.generator import StyleGenerator
from pipelines.engines import Device, pick_device
from pipelines.served.style import Array, Stylist
from training.checkpoint import CheckpointInfo, load_networks

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
_TRIM, _MAPPED = -1, -4
"""glibc's ``M_TRIM_THRESHOLD`` and ``M_MMAP_MAX``."""
_KEPT_BYTES = 1 << 30
"""The most memory that this process keeps without using it."""


class TorchStyle(Stylist):
    """A generator on the CPU or a GPU, without gradients."""

    def __init__(
        self,
        generator: nn.Module,
        *,
        device: Device = "auto",
        channels_last: bool | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Take a generator over, in eval mode.

        Args:
            generator: a `StyleGenerator`.
            device: ``auto`` takes a GPU when there is one.
            channels_last: keep the channels of a pixel together, which is faster; None: yes.
            precision: ``bf16`` computes convolutions in bfloat16.

        Raises:
            CheckpointError: the network is of another family.
            EnvironmentProblem: ``cuda`` is asked for where there is none.
        """
        if not isinstance(generator, StyleGenerator):
            raise CheckpointError(must("the network", "be a generator of the style family", type(generator).__name__))
        self.device = pick_device(device)
        if self.device.type == "cpu":
            _keep_memory()
        self.precision = precision
        self._format = torch.channels_last if channels_last in (None, True) else torch.contiguous_format
        self.generator = generator.eval().to(self.device).to(memory_format=self._format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, batch: Array, statistics: Array | None = None) -> Array:
        """See `Stylist.run`."""
        if statistics is None:
            return self._draw(batch)
        with using(self.generator, torch.as_tensor(statistics, dtype=torch.float32, device=self.device)):
            return self._draw(batch)

    @torch.inference_mode()
    def run_measure(self, batch: Array) -> Array:
        """See `Stylist.run_measure`."""
        with recording(self.generator, pooled=True):
            self._draw(batch)
            found: Array = packed(self.generator).float().cpu().numpy()
        return found

    def _draw(self, batch: Array) -> Array:
        photo = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device).contiguous(memory_format=self._format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            made = self.generator(photo)
        drawn: Array = made.float().cpu().numpy()
        return drawn


def _keep_memory() -> None:
    """Let this process keep the memory of large maps for the next ones.

    Otherwise glibc gives each of more than 32 MB back to the system, which clears all its pages at the next use; that
    takes a quarter of a drawing's time. Other C libraries stay as they are.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_MAPPED, 0)
        tune(_TRIM, _KEPT_BYTES)


def from_checkpoint(
    folder: Path, *, device: Device = "auto", channels_last: bool | None = None, precision: Precision = "fp32"
) -> tuple[TorchStyle, CheckpointInfo]:
    """An engine out of a checkpoint's or an exported model's folder; the averaged (EMA) weights where there are any.

    The options are `TorchStyle`'s.

    Raises:
        CheckpointError: the folder holds no whole checkpoint, or one of another kind of networks.
        EnvironmentProblem: ``cuda`` is asked for where there is none.
    """
    before_s = time.perf_counter()
    networks, info = load_networks(folder)
    generator = networks.get("generator")
    if not isinstance(generator, StyleGenerator):
        got = ", ".join(f"{name} ({type(network).__name__})" for name, network in networks.items()) or "nothing"
        raise CheckpointError(must(str(folder), "hold a generator of the style family", got))
    engine = TorchStyle(generator, device=device, channels_last=channels_last, precision=precision)
    logger.info("loaded %s (step %d) on %s in %.1f s", folder, info.step, engine.device, time.perf_counter() - before_s)
    return engine, info
