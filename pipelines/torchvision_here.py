"""torchvision beside a CPU build of torch.

The registry's torchvision wheel is a CUDA build. Beside a torch without CUDA its compiled operators can't be loaded,
and even ``import torchvision`` fails, because it says more about operators that it takes to be there. Here the two that
are missed at import get their schemas, and those that detectors call (`nms`, `roi_align`) an implementation in torch.
Where the compiled operators load, nothing is touched.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
_BLOCK = 32
"""Boxes that `roi_align` samples at once; bounds its memory."""


@functools.cache
def torchvision() -> ModuleType:
    """The package, usable.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _define()
    package = importlib.import_module("torchvision")
    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        vars(sys.modules[module])["_has_ops"] = lambda: True
    return package


@functools.cache
def _define() -> Any:
    """The operators; what is returned must live as long as they are used."""
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)
    library.impl("nms", nms, "CPU")
    library.impl("roi_align", roi_align, "CPU")
    return library


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression.

    Args:
        dets: boxes x1, y1, x2, y2, (N, 4).
        scores: (N,).
        iou_threshold: boxes that overlap a better one by more are dropped.

    Returns:
        Positions of the boxes that stay, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order].double()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive, kept = torch.ones(len(order), dtype=torch.bool), []
    for place in range(len(order)):
        if not alive[place]:
            continue
        kept.append(place)
        low = torch.maximum(boxes[place, :2], boxes[place + 1 :, :2])
        high = torch.minimum(boxes[place, 2:], boxes[place + 1 :, 2:])
        shared = (high - low).clamp(min=0).prod(-1)
        alive[place + 1 :] &= shared <= iou_threshold * (areas[place] + areas[place + 1 :] - shared)
    return order[torch.tensor(kept, dtype=torch.long)]


def roi_align(
    input: Tensor,  # noqa: A002  # the operator's own name
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Features of boxes by bilinear samples (He et al., Mask R-CNN, ICCV 2017, section 3).

    Args:
        input: maps, (N, C, H, W).
        rois: number of the map and x1, y1, x2, y2 in pixels of the picture, (K, 5).
        spatial_scale: from the picture's pixels to the map's.
        pooled_height: of the result.
        pooled_width: of the result.
        sampling_ratio: samples a cell in each direction; must be above 0.
        aligned: whether a pixel's centre is at 0.5.

    Returns:
        (K, C, pooled_height, pooled_width).

    Raises:
        NotImplementedError: ``sampling_ratio`` is to follow the box's size.
    """
    if sampling_ratio < 1:
        raise NotImplementedError("roi_align without a sampling ratio needs torchvision's compiled operators")
    shift = 0.5 if aligned else 0.0
    size = (pooled_height * sampling_ratio, pooled_width * sampling_ratio)
    made = [input.new_zeros((0, input.shape[1], pooled_height, pooled_width))]
    for part in torch.split(rois, _BLOCK) if len(rois) else ():
        low, high = part[:, 1:3] * spatial_scale - shift, part[:, 3:5] * spatial_scale - shift
        span = high - low if aligned else (high - low).clamp(min=1)
        x = low[:, :1] + span[:, :1] * _steps(size[1], part)
        y = low[:, 1:] + span[:, 1:] * _steps(size[0], part)
        samples = torch.cat([_sampled(input[int(box[0])], x[i], y[i])[None] for i, box in enumerate(part)])
        made.append(torch.nn.functional.avg_pool2d(samples, sampling_ratio))
    return torch.cat(made)


def _steps(count: int, like: Tensor) -> Tensor:
    """Middles of ``count`` equal parts of 0 to 1, (1, count)."""
    return ((torch.arange(count, device=like.device) + 0.5) / count).to(like.dtype)[None]


def _sampled(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Maps (C, H, W) at the crossings of columns ``x`` and rows ``y``; 0 beyond a pixel outside, (C, |y|, |x|)."""
    (first, rows), (start, columns) = _weights(y, maps.shape[-2]), _weights(x, maps.shape[-1])
    part = maps[:, first : first + rows.shape[1], start : start + columns.shape[1]]
    return rows @ part @ columns.T


def _weights(places: Tensor, length: int) -> tuple[int, Tensor]:
    """Linear interpolation between pixels: the first one that is used, and a matrix (len(places), pixels used)."""
    held = places.clamp(0, length - 1)
    pixels = torch.arange(int(held.min().floor()), int(held.max().ceil()) + 1, device=places.device)
    shares = (1 - (held[:, None] - pixels).abs()).clamp(min=0)
    inside = (places >= -1) & (places <= length)
    return int(pixels[0]), shares * inside[:, None]
