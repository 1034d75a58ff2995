"""The catalogue of metrics: a plain dict from a metric's name to what it is and how it is computed.

A metric that rests on a pretrained network carries that network in its name (``akd/dlib68``), so that figures of
different backbones are never set side by side unnoticed. L1 rests on none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.metrics.aed import frame_aed, frame_aed_l2
from training.metrics.akd_mkr import frame_akd, frame_akd_l2, frame_mkr
from training.metrics.eid import eid_of
from training.metrics.l1 import frame_l1

Compute = Callable[..., Any]
"""(prediction, truth) -> a number a frame, (N,); of frames, points or embeddings (`Metric.of`); EID: `eid_of`."""
Of = Literal["frames", "points", "identity", "figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the tables."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    compute: Compute
    protocol: str
    """What is compared with what, over which frames; printed below the tables."""
    of: Of = "frames"
    """What it compares: pixels, keypoints or embeddings of a detector; ``figures``: it is made of other metrics."""
    backbone: str | None = None
    """Name of the network that it rests on; its weights' checksums stand in the report. None: pixels only."""

    def on(self, backbone: str) -> Metric:
        """The same, resting on a network: its name is part of the metric's."""
        return replace(self, name=f"{self.name}/{backbone}", backbone=backbone)

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` beats ``than``; equal figures do not."""
        return value < than if self.better == "lower" else value > than

    def best(self, values: Iterable[float]) -> float:
        """The best of some figures."""
        return min(values) if self.better == "lower" else max(values)


_RECONSTRUCTION = (
    "Reconstruction: each test clip's first frame is the source and each of its frames gives its own absolute "
    "keypoints (and the background's motion, where the model predicts it). "
)
_DETECTED = (
    "A detector that is no part of the model looks at the true frame and at the result, both scaled to 256 x 256 and "
    "rounded to 8 bits. Frames of the truth in which it finds nothing are left out and counted. "
)
_COPY = "copy-source is the same figure with the source shown unmoved."

METRICS: dict[str, Metric] = {
    "l1": Metric(
        name="l1",
        unit="of the range from black (0) to white (1)",
        better="lower",
        compute=frame_l1,
        protocol=(
            f"{_RECONSTRUCTION}Mean absolute difference over pixels, channels and all frames, images in [0, 1]. {_COPY}"
        ),
    ),
    "akd": Metric(
        name="akd",
        unit="pixels at 256 x 256",
        better="lower",
        compute=frame_akd,
        of="points",
        protocol=(
            f"{_RECONSTRUCTION}{_DETECTED}Mean absolute difference over coordinates (as the public evaluation code "
            f"takes it) of the points found in both, mean over frames. {_COPY}"
        ),
    ),
    "akd-l2": Metric(
        name="akd-l2",
        unit="pixels at 256 x 256",
        better="lower",
        compute=frame_akd_l2,
        of="points",
        protocol=f"{_RECONSTRUCTION}{_DETECTED}Mean Euclidean distance of the points found in both. {_COPY}",
    ),
    "mkr": Metric(
        name="mkr",
        unit="share of points, 0 to 1",
        better="lower",
        compute=frame_mkr,
        of="points",
        protocol=(
            f"{_RECONSTRUCTION}{_DETECTED}Share of the points found in the true frame that are missing in the result, "
            f"mean over frames. {_COPY}"
        ),
    ),
    "aed": Metric(
        name="aed",
        unit="squared distance of embeddings",
        better="lower",
        compute=frame_aed,
        of="identity",
        protocol=(
            f"{_RECONSTRUCTION}{_DETECTED}Mean squared L2 distance of identity embeddings (as the public evaluation "
            f"code takes it) over frames in which somebody is found in both. {_COPY}"
        ),
    ),
    "aed-l2": Metric(
        name="aed-l2",
        unit="distance of embeddings",
        better="lower",
        compute=frame_aed_l2,
        of="identity",
        protocol=f"{_RECONSTRUCTION}{_DETECTED}Mean L2 distance of identity embeddings. {_COPY}",
    ),
    "eid": Metric(
        name="eid",
        unit="percent",
        better="lower",
        compute=eid_of,
        of="figures",
        protocol=(
            "L1 + 0.5 AKD + 0.5 AED, each in percent: L1 of the range, AKD of the frame's side (pixels / 256), "
            f"AED times 100. Our reading of a table whose units are not stated. {_COPY}"
        ),
    ),
}
