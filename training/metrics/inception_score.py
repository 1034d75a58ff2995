"""Inception score (Salimans et al., NeurIPS 2016): are pictures clearly something, and together many things?"""

from __future__ import annotations

import numpy as np

from models.errors import ShapeError, must
from training.metrics.sets import Spread

MAX_PARTS = 10
PART_SIZE = 50
"""Pictures that a part has at least, where there are so many."""
SEED = 2020


def inception_score(logits: np.ndarray, *, parts: int | None = None, seed: int = SEED) -> Spread:
    """``exp`` of the mean Kullback-Leibler divergence of each picture's classes from those of all.

    The published figure is the mean over ten parts of 5,000 pictures. It can't exceed the number of pictures of a
    part, so small sets are taken as one part, or as few as have `PART_SIZE` each.

    Args:
        logits: of a classifier, before the softmax, (N, classes).
        parts: that the shuffled pictures are divided into; None: see above.
        seed: of the shuffling.

    Returns:
        1 (all alike) to the number of classes, its standard deviation over parts.

    Raises:
        ShapeError: no picture, or more parts than pictures.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not 1 <= (parts or 1) <= len(values):
        got = f"{values.shape} in {parts or 1} parts"
        raise ShapeError(must("logits", "be (N, classes), of a picture a part or more", got))
    count = parts or max(min(MAX_PARTS, len(values) // PART_SIZE), 1)
    shuffled = _log_softmax(values[np.random.RandomState(seed).permutation(len(values))])
    bounds = [place * len(values) // count for place in range(count + 1)]
    scores = np.array([_score(shuffled[start:stop]) for start, stop in zip(bounds, bounds[1:], strict=False)])
    return Spread(float(scores.mean()), float(scores.std()) if count > 1 else None)


def _score(logs: np.ndarray) -> float:
    """Of one part's logarithms of probabilities, (n, classes)."""
    shares = np.exp(logs)
    with np.errstate(divide="ignore"):  # a class of no picture: its terms are 0
        differences = np.where(shares > 0, logs - np.log(shares.mean(axis=0)), 0.0)
    return float(np.exp((shares * differences).sum(axis=1).mean()))


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
