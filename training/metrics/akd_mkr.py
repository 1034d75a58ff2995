"""AKD, AKD-L2 and MKR: how far the keypoints of a result lie from those of the truth, and how many are lost.

A detector that has nothing to do with the model looks at both videos (68 points of a face, joints of a body). As the
public evaluation code of the first-order papers takes it, AKD is the mean absolute difference over *coordinates*, in
pixels of frames of `FRAME_PX`; AKD-L2 is the mean Euclidean distance, which the name promises. MKR is the share of
points found in the truth that are missing in the result.

Points are (N, K, 2), x and y; a point that was not found is NaN. A frame that has no figure (nothing found in the
truth; for AKD, no point found in both) is NaN as well, to be left out and counted by whoever averages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.errors import ShapeError, must

Array = NDArray[np.float64]

FRAME_PX = 256
"""Height and width of the frames that detectors look at; frames of another size are resized first."""


def frame_akd(prediction: np.ndarray, truth: np.ndarray) -> Array:
    """Mean absolute difference of the coordinates of points found in both.

    Args:
        prediction: points in pixels, (N, K, 2), NaN where not found.
        truth: likewise.

    Returns:
        Pixels, (N,); NaN where no point was found in both.

    Raises:
        ShapeError: the two are no points of one shape.
    """
    return _mean_of_found(np.abs(_difference(prediction, truth)).mean(-1))


def frame_akd_l2(prediction: np.ndarray, truth: np.ndarray) -> Array:
    """Mean Euclidean distance of points found in both; as `frame_akd`."""
    return _mean_of_found(np.sqrt((_difference(prediction, truth) ** 2).sum(-1)))


def frame_mkr(prediction: np.ndarray, truth: np.ndarray) -> Array:
    """Share of the points found in the truth that are missing in the result.

    Args:
        prediction: points in pixels, (N, K, 2), NaN where not found.
        truth: likewise.

    Returns:
        0 to 1, (N,); NaN where the truth has no point.

    Raises:
        ShapeError: the two are no points of one shape.
    """
    missing = np.isnan(_difference(prediction, truth)).any(-1)
    wanted = found(truth)
    share: Array = _divided((missing & wanted).sum(-1), wanted.sum(-1))
    return share


def found(points: np.ndarray) -> NDArray[np.bool_]:
    """Which points were found, (N, K)."""
    return np.asarray(~np.isnan(np.asarray(points, np.float64)).any(-1))


def _difference(prediction: np.ndarray, truth: np.ndarray) -> Array:
    if prediction.shape != truth.shape or truth.ndim != 3 or truth.shape[-1] != 2:
        got = f"{prediction.shape} and {truth.shape}"
        raise ShapeError(must("prediction and truth", "be points (N, K, 2) of one shape", got))
    return np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)


def _mean_of_found(distances: Array) -> Array:
    """Mean over the points (N, K) that are not NaN."""
    there = ~np.isnan(distances)
    return _divided(np.where(there, distances, 0.0).sum(-1), there.sum(-1))


def _divided(total: np.ndarray, count: np.ndarray) -> Array:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
