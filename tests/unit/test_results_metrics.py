"""L1: known answers, on arrays and tensors; the catalogue's sense of better."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.errors import ShapeError
from training.metrics.catalog import METRICS
from training.metrics.l1 import copy_source_l1, frame_l1


def test_frame_l1_knows_the_answer() -> None:
    truth = np.zeros((2, 4, 4, 3), dtype=np.float32)
    prediction = truth.copy()
    prediction[0] = 0.5
    prediction[1, :2] = 1.0
    np.testing.assert_allclose(frame_l1(prediction, truth), [0.5, 0.5])
    prediction[1, :2, :, 0] = 0.25
    np.testing.assert_allclose(frame_l1(prediction, truth)[1], (0.25 + 1 + 1) / 6)


def test_arrays_and_tensors_agree() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 5, 3, 8, 8), dtype=np.float32)
    arrays = frame_l1(one, other), copy_source_l1(other)
    tensors = frame_l1(torch.from_numpy(one), torch.from_numpy(other)), copy_source_l1(torch.from_numpy(other))
    for array, tensor in zip(arrays, tensors, strict=True):
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-6)


def test_copy_source_is_the_first_frame_against_all() -> None:
    frames = np.stack([np.full((4, 4, 3), value, dtype=np.float32) for value in (0.2, 0.3, 0.6)])
    np.testing.assert_allclose(copy_source_l1(frames), [0.0, 0.1, 0.4], atol=1e-7)
    np.testing.assert_allclose(copy_source_l1(frames, frames[2]), [0.4, 0.3, 0.0], atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 4, 4, 3), (2, 4, 5, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="two batches of frames of one shape"):
        frame_l1(np.zeros(shape, dtype=np.float32), np.zeros((2, 4, 4, 3), dtype=np.float32))


def test_the_catalogue_names_protocol_and_direction() -> None:
    metric = METRICS["l1"]
    assert metric.is_better(0.1, than=0.2)
    assert not metric.is_better(0.2, than=0.2)
    assert metric.best([0.3, 0.1, 0.2]) == 0.1
    assert metric.backbone is None
    assert "first frame" in metric.protocol
    assert "copy-source" in metric.protocol
    assert all(name == entry.name for name, entry in METRICS.items())
