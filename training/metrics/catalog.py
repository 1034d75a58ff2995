"""The catalogue of metrics: a plain dict from a metric's name to what it is and how it is computed.

A metric that rests on a pretrained network carries that network in its name (``fid/effnet-lite0``), so that figures of
different backbones are never set side by side unnoticed. L1 rests on none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from training.metrics.l1 import frame_l1

Compute = Callable[[Any, Any], Any]
"""(prediction, truth), both (N, H, W, C) or (N, C, H, W) in [0, 1] -> a number a frame, (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the tables."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    compute: Compute
    protocol: str
    """What is compared with what, over which frames; printed below the tables."""
    backbone: str | None = None
    """Name and weights' sha256 of the network that it rests on; None: pixels only."""

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` beats ``than``; equal figures do not."""
        return value < than if self.better == "lower" else value > than

    def best(self, values: Iterable[float]) -> float:
        """The best of some figures."""
        return min(values) if self.better == "lower" else max(values)


METRICS: dict[str, Metric] = {
    "l1": Metric(
        name="l1",
        unit="of the range from black (0) to white (1)",
        better="lower",
        compute=frame_l1,
        protocol=(
            "Reconstruction: each test clip's first frame is the source and each of its frames gives its own absolute "
            "keypoints. Mean absolute difference over pixels, channels and all frames, images in [0, 1]. copy-source "
            "is the same figure with the source shown unmoved."
        ),
    ),
}
