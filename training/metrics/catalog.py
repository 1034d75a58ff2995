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
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR, content_distance, gradient_energy
from training.metrics.eid import eid_of
from training.metrics.frechet import frechet_distance
from training.metrics.inception_score import inception_score
from training.metrics.kernel import kernel_distance
from training.metrics.l1 import frame_l1

Compute = Callable[..., Any]
"""(prediction, truth) -> a number a frame, (N,); of frames, points or embeddings (`Metric.of`); EID: `eid_of`.
Of style: of two sets' features, (N, D) and (M, D), of logits, of two maps, or of a picture."""
Of = Literal["frames", "points", "identity", "figures", "features", "logits", "maps"]


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
    """What it compares: pixels, keypoints or embeddings of a detector; ``figures``: it is made of other metrics;
    features, class scores or feature maps of a judge of pictures."""
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

_STYLISED = (
    "Every test photo is stylised whole and rounded to 8 bits; the judge looks at the results one by one, and at all "
    "style pictures of the data set, those of the training among them. "
)
_UNTOUCHED = "untouched is the same figure of the photos as they are."

STYLE_METRICS: dict[str, Metric] = {
    "fid": Metric(
        name="fid",
        unit="squared distance of features",
        better="lower",
        compute=frechet_distance,
        of="features",
        protocol=(
            f"{_STYLISED}Frechet distance of both sets' features, each taken for a normal distribution. Biased "
            f"upwards for few pictures, so only sets of the same size compare. {_UNTOUCHED}"
        ),
    ),
    "kid": Metric(
        name="kid",
        unit="squared discrepancy of features",
        better="lower",
        compute=kernel_distance,
        of="features",
        protocol=(
            f"{_STYLISED}Unbiased squared maximum mean discrepancy, polynomial kernel of degree 3, mean and standard "
            f"deviation over 500 subsets of half of either set, 100 pictures at most. {_UNTOUCHED}"
        ),
    ),
    "is": Metric(
        name="is",
        unit="1 to the number of classes",
        better="higher",
        compute=inception_score,
        of="logits",
        protocol=(
            f"{_STYLISED}Inception score over ten parts, or as few as have 50 pictures each. It knows no style: good "
            f"photos score well, too. {_UNTOUCHED}"
        ),
    ),
    "content": Metric(
        name="content",
        unit="of the distance of different photos",
        better="lower",
        compute=content_distance,
        of="maps",
        protocol=(
            "Mean absolute difference of result and photo in the judge's fourth level, over the mean of that of "
            f"different photos: 0 the same, 1 as unlike as another photo. Above {CONTENT_CEILING} the content is lost."
        ),
    ),
    "detail": Metric(
        name="detail",
        unit="of the photos' own",
        better="higher",
        compute=gradient_energy,
        of="frames",
        protocol=(
            "Mean square difference of neighbouring pixels' brightness, summed over the results, over that of the "
            f"photos. Below {DETAIL_FLOOR} the results are blurred. Above it more is not better."
        ),
    ),
}
"""Of stylised pictures; beside `METRICS`, which are of reconstructions."""
