"""Frechet distance of two sets of features (Heusel et al., NeurIPS 2017): with Inception's features it is FID."""

from __future__ import annotations

import numpy as np

from training.metrics.sets import checked


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two sets, each taken for a normal distribution (equation 6).

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, covariances over N - 1. The trace of the root is the sum of the
    singular values of ``R1 R2^T`` where ``C = R^T R``; so no root of a matrix is taken, and fewer pictures than
    features are no trouble. It is taken in float64.

    The figure is biased upwards, the more so the fewer the pictures: compare sets of the same size only.

    Args:
        first: a row of features a picture, (N, D), N of 2 or more.
        second: (M, D).

    Returns:
        0 or more.

    Raises:
        ShapeError: fewer than two pictures, or another number of features.
    """
    a, b = checked(first, second)
    between = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _root(a), _root(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = between @ between + np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(float(distance), 0.0)


def _root(features: np.ndarray) -> np.ndarray:
    """``R`` with ``R^T R`` the covariance, (min(N, D), D)."""
    count, width = features.shape
    centred = (features - features.mean(axis=0)) / np.sqrt(count - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if count > width else centred
