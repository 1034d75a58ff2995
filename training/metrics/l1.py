"""L1: how far reconstructed frames are from the true ones, and how far doing nothing is.

The protocol is the one of the published first-order evaluations: a clip's first frame is the source, every frame of the
clip (the first included) is reconstructed with its own absolute keypoints, and L1 is the mean absolute difference over
all pixels, channels and frames, images in [0, 1]. ``copy-source`` shows the first frame in place of every prediction.
Works on numpy arrays and torch tensors alike, channels first or last.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from models.errors import ShapeError, must

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def frame_l1(prediction: Array, truth: Array) -> Array:
    """Mean absolute difference of each frame.

    Args:
        prediction: frames in [0, 1], float, (N, H, W, C) or (N, C, H, W).
        truth: as ``prediction``.

    Returns:
        One number a frame in [0, 1], (N,).

    Raises:
        ShapeError: the two differ in shape, or are no batch of frames.
    """
    if tuple(prediction.shape) != tuple(truth.shape) or len(truth.shape) != 4:
        got = f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
        raise ShapeError(must("prediction and truth", "be two batches of frames of one shape", got))
    means: Array = abs(prediction - truth).reshape(len(truth), -1).mean(1)
    return means


def copy_source_l1(truth: Array, source: Array | None = None) -> Array:
    """L1 of each frame when the source is shown unmoved.

    Args:
        truth: frames in [0, 1], float, (N, H, W, C) or (N, C, H, W).
        source: the frame shown in place of each, (H, W, C) or (C, H, W); None: the first of ``truth``.

    Returns:
        One number a frame in [0, 1], (N,).
    """
    shown = truth[0] if source is None else source
    if isinstance(truth, torch.Tensor):
        return frame_l1(torch.as_tensor(shown).expand_as(truth), truth)
    return frame_l1(np.broadcast_to(np.asarray(shown), truth.shape), truth)
