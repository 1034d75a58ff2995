"""Kernel distance of two sets of features (Binkowski et al., ICLR 2018): with Inception's features it is KID."""

from __future__ import annotations

import numpy as np

from training.metrics.sets import Spread, checked

NUM_SUBSETS = 500
SUBSET_SIZE = 100
"""Pictures of each set in a subset, at most; fewer where half of the set is less."""
SEED = 2020


def kernel_distance(first: np.ndarray, second: np.ndarray) -> Spread:
    """Mean and standard deviation of `kernel_distances`.

    Raises:
        ShapeError: see there.
    """
    distances = kernel_distances(first, second)
    return Spread(float(distances.mean()), float(distances.std()))


def kernel_distances(
    first: np.ndarray, second: np.ndarray, *, num_subsets: int = NUM_SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> np.ndarray:
    """Squared maximum mean discrepancy of subsets, by the unbiased estimate (Gretton et al., JMLR 2012, equation 3).

    A subset is half of either set, and ``size`` pictures at most (two at least), drawn without replacement. For sets
    of equal size, both of ``2 size`` or more, these are the subsets and the figures of the package torch-fidelity.
    Halves are taken because smaller sets have no other subsets of ``size``: their deviation would be too small, or 0.
    The deviation of halves is about the error of the figure itself (the delete-half jackknife), that of smaller parts
    is larger.

    The draws depend on the seed and the numbers of pictures only: two calls with sets of the same sizes may be
    compared subset by subset.

    Args:
        first: a row of features a picture, (N, D), N of 2 or more.
        second: (M, D).
        num_subsets: how many.
        size: see above.
        seed: of the draws.

    Returns:
        float64, (num_subsets,); slightly negative where the sets are alike.

    Raises:
        ShapeError: fewer than two pictures, or another number of features.
    """
    a, b = checked(first, second)
    draws = np.random.RandomState(seed)
    num_a, num_b = (max(min(size, len(features) // 2), 2) for features in (a, b))
    distances = np.empty(num_subsets)
    for place in range(num_subsets):
        some = a[draws.choice(len(a), num_a, replace=False)]
        others = b[draws.choice(len(b), num_b, replace=False)]
        distances[place] = mmd2(some, others)
    return distances


def mmd2(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x y / D + 1)^3``, of (N, D) and (M, D)."""
    within = _mean_of_pairs(kernel(first, first)) + _mean_of_pairs(kernel(second, second))
    return float(within - 2 * kernel(first, second).mean())


def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Polynomial kernel of degree 3 of each of (N, D) with each of (M, D), (N, M)."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def _mean_of_pairs(values: np.ndarray) -> float:
    """Mean over different rows and columns of a square matrix."""
    count = len(values)
    return float((values.sum() - np.trace(values)) / (count * (count - 1)))
