"""AED and AED-L2: how far the identity of a result lies from the identity of the truth.

A network for re-identification that has nothing to do with the model gives each frame of both videos an embedding. As
the public evaluation code of the first-order papers takes it, AED is the mean *squared* L2 distance, despite its name
(average Euclidean distance); AED-L2 is the plain norm.

Embeddings are (N, D); a frame in which nobody was found is NaN, and so is its figure, to be left out and counted by
whoever averages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.errors import ShapeError, must

Array = NDArray[np.float64]


def frame_aed(prediction: np.ndarray, truth: np.ndarray) -> Array:
    """Squared L2 distance of each pair of embeddings.

    Args:
        prediction: embeddings, (N, D), NaN where nobody was found.
        truth: likewise.

    Returns:
        0 or more, (N,); NaN where one of the two is.

    Raises:
        ShapeError: the two are no embeddings of one shape.
    """
    if prediction.shape != truth.shape or truth.ndim != 2:
        got = f"{prediction.shape} and {truth.shape}"
        raise ShapeError(must("prediction and truth", "be embeddings (N, D) of one shape", got))
    squares: Array = ((np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)) ** 2).sum(-1)
    return squares


def frame_aed_l2(prediction: np.ndarray, truth: np.ndarray) -> Array:
    """L2 distance of each pair of embeddings; as `frame_aed`."""
    return np.sqrt(frame_aed(prediction, truth))
