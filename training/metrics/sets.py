"""What the metrics of two sets of pictures share: their arguments, and figures that have a spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.errors import ShapeError, must


class Spread(NamedTuple):
    """A figure with its standard deviation."""

    mean: float
    std: float | None
    """None: there is only one value."""


def checked(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features, (N, D) and (M, D), as float64.

    Raises:
        ShapeError: fewer than two pictures, another number of features, or numbers that are not finite.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (first, second))
    if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] and min(len(a), len(b)) >= 2):
        rule = "be (N, D) and (M, D), of two pictures or more each"
        raise ShapeError(must("two sets of features", rule, f"{a.shape} and {b.shape}"))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ShapeError(must("two sets of features", "be finite", "NaN or infinity"))
    return a, b
