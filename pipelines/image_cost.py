"""What one drawing costs: its time, and the memory that its tensors hold."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

SIZE_PX = 256
"""Height and width of the picture that is drawn, whatever the model was trained on."""
RUNS = 5
BUDGET_S = 10.0
"""No further run is begun after so long."""
_MB = 2**20


class Stylises(Protocol):
    """What is measured."""

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        """Drawings of photos: uint8 (N, H, W, 3) -> float32 (N, H, W, 3) in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCost:
    """Of one picture of ``size_px`` x ``size_px``, alone in its batch."""

    seconds: float
    """Median of ``num_runs`` in one process, after one that does not count."""
    memory_mb: float
    """2^20 bytes: the most that tensors of the computation held at once (on a GPU: the most its device held), the
    networks' weights apart. Scratch memory inside an operation on the CPU is not in it."""
    size_px: int
    num_runs: int
    num_threads: int
    """Of torch on the CPU."""
    device: str


def image_cost(engine: Stylises, photo: np.ndarray, *, size_px: int | None = None) -> ImageCost:
    """Measure a drawing.

    Args:
        engine: draws.
        photo: uint8, (H, W, 3); scaled to a square of ``size_px``.
        size_px: height and width of what is drawn; None: `SIZE_PX`.
    """
    size_px = size_px or SIZE_PX
    given = cv2.resize(photo, (size_px, size_px), interpolation=cv2.INTER_AREA)[None]
    device = torch.device(str(getattr(engine, "device", "cpu")))
    started_s = time.perf_counter()
    peak = _held(engine, given, device)
    times: list[float] = []
    while not times or (len(times) < RUNS and time.perf_counter() - started_s < BUDGET_S):
        before_s = time.perf_counter()
        engine.stylise(given)  # its result is on the CPU, so a GPU is waited for
        times.append(time.perf_counter() - before_s)
    return ImageCost(
        seconds=statistics.median(times),
        memory_mb=peak / _MB,
        size_px=size_px,
        num_runs=len(times),
        num_threads=torch.get_num_threads(),
        device=str(device),
    )


def _held(engine: Stylises, given: np.ndarray, device: torch.device) -> int:
    """Bytes held at the most during a first drawing, beyond those held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        engine.stylise(given)
        return int(torch.cuda.max_memory_allocated(device)) - int(before)
    with LiveBytes() as live:
        engine.stylise(given)
    return int(live.peak)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call,misc]
    """Counts the bytes of the storages that operations made and that still live; of this thread, on the CPU.

    Operations that write into what was there before count nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        given = {_place(value) for value in tree_flatten((args, kwargs or {}))[0] if isinstance(value, Tensor)}
        for value in tree_flatten(made)[0]:
            if isinstance(value, Tensor) and _place(value) not in given:
                self._count(value)
        return made

    def _count(self, value: Tensor) -> None:
        storage, place = value.untyped_storage(), _place(value)
        if place in self._known or place == 0:
            return
        size = storage.nbytes()
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def _place(value: Tensor) -> int:
    return int(value.untyped_storage().data_ptr())
