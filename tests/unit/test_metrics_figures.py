"""AKD, MKR, AED and EID: answers known by hand, published rows, and what is left out."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from models.errors import ShapeError
from pipelines.params import MetricName
from training.metrics.aed import frame_aed, frame_aed_l2
from training.metrics.akd_mkr import found, frame_akd, frame_akd_l2, frame_mkr
from training.metrics.catalog import METRICS
from training.metrics.eid import eid, eid_of

NAN = np.nan
PRINTED = {  # table 1 of "Dual-Channel Fusion": L1, AKD, AED, EID, all in percent
    "FOMM": (18.26, 6.13, 4.58, 23.62),
    "FOMM + Tanh": (18.02, 4.97, 4.46, 22.74),
    "Ours-CL": (17.57, 4.67, 4.33, 22.07),
    "Ours": (17.47, 5.26, 4.15, 22.18),
}


def points(seed: int = 0, num_frames: int = 4, num_points: int = 68) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 256, (num_frames, num_points, 2)).astype(np.float32)


def test_points_against_themselves_differ_by_nothing() -> None:
    same = points()
    for metric in (frame_akd, frame_akd_l2, frame_mkr):
        np.testing.assert_array_equal(metric(same, same), np.zeros(4))


def test_a_shift_in_x_counts_half_in_akd_and_whole_in_akd_l2() -> None:
    truth = points().astype(np.float64)
    np.testing.assert_allclose(frame_akd(truth + (3, 0), truth), 1.5)
    np.testing.assert_allclose(frame_akd_l2(truth + (3, 0), truth), 3.0)
    np.testing.assert_allclose(frame_akd(truth + (3, -4), truth), 3.5)
    np.testing.assert_allclose(frame_akd_l2(truth + (3, -4), truth), 5.0)


def test_points_found_in_both_count_and_missing_ones_are_mkr() -> None:
    truth = np.array([[[0, 0], [10, 0], [20, 0], [NAN, NAN]]])
    ours = np.array([[[1, 0], [NAN, NAN], [26, 0], [5, 5]]])
    np.testing.assert_allclose(frame_akd(ours, truth), [(0.5 + 3) / 2])
    np.testing.assert_allclose(frame_akd_l2(ours, truth), [3.5])
    np.testing.assert_allclose(frame_mkr(ours, truth), [1 / 3])  # what is found in the result alone counts nowhere
    np.testing.assert_array_equal(found(truth), [[True, True, True, False]])


def test_frames_without_points_have_no_figure() -> None:
    truth = np.stack([np.full((5, 2), NAN), points(num_points=5)[0], points(num_points=5)[1]])
    ours = np.stack([points(num_points=5)[2], np.full((5, 2), NAN), points(num_points=5)[1]])
    np.testing.assert_array_equal(frame_akd(ours, truth), [NAN, NAN, 0])
    np.testing.assert_array_equal(frame_mkr(ours, truth), [NAN, 1, 0])


def test_aed_is_the_squared_norm_and_aed_l2_the_norm() -> None:
    truth = np.array([[0.0, 0.0], [1.0, 1.0], [NAN, NAN], [0.0, 0.0]])
    ours = np.array([[3.0, 4.0], [1.0, 1.0], [0.0, 0.0], [NAN, NAN]])
    np.testing.assert_array_equal(frame_aed(ours, truth), [25, 0, NAN, NAN])
    np.testing.assert_array_equal(frame_aed_l2(ours, truth), [5, 0, NAN, NAN])


@pytest.mark.parametrize("row", PRINTED)
def test_eid_meets_the_printed_rows(row: str) -> None:
    l1, akd, aed, printed = PRINTED[row]
    assert eid(l1_percent=l1, akd_percent=akd, aed_percent=aed) == pytest.approx(printed, abs=0.005 + 1e-9)


def test_eid_of_takes_each_metric_in_its_own_unit() -> None:
    assert eid_of(l1=0.1, akd_px=2.56, aed=0.04) == pytest.approx(10 + 0.5 * 1 + 0.5 * 4)


@pytest.mark.parametrize(
    ("compute", "one", "other"),
    [
        (frame_akd, (2, 5, 2), (2, 4, 2)),
        (frame_mkr, (2, 5, 3), (2, 5, 3)),
        (frame_akd_l2, (5, 2), (5, 2)),
        (frame_aed, (2, 5), (2, 6)),
        (frame_aed, (2, 5, 1), (2, 5, 1)),
    ],
)
def test_other_shapes_are_refused(compute: object, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="of one shape; got"):
        compute(np.zeros(one), np.zeros(other))  # type: ignore[operator]


def test_the_catalogue_says_what_each_metric_is() -> None:
    assert set(get_args(MetricName)) == set(METRICS)
    for name, metric in METRICS.items():
        assert name == metric.name
        assert "copy-source" in metric.protocol
        assert metric.backbone is None
    named = METRICS["akd"].on("dlib68")
    assert (named.name, named.backbone, named.compute) == ("akd/dlib68", "dlib68", METRICS["akd"].compute)
    assert "squared" in METRICS["aed"].protocol
    assert "coordinates" in METRICS["akd"].protocol
