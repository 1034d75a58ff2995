"""Steadiness: the warping error tells known changes, and steady drawings have less of it and stay sharp."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from stylise_kit import KitEngine, panning, texture

from pipelines.stylise_temporal import Comparison, Steadier, Tracker, mixed, sharpness, warping_error


def floats(frames: np.ndarray) -> np.ndarray:
    made: np.ndarray = frames.astype(np.float32) / 255
    return made


def test_the_movement_of_a_pan_is_found() -> None:
    tracker, frames = Tracker(), panning(2, height=96, width=128, step_px=3)
    assert tracker.step(frames[0]) is None
    movement = tracker.step(frames[1])
    assert movement is not None
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(np.median(movement.offset[inner], axis=(0, 1)) - (3, 0)).max() < 0.1
    assert movement.seen[inner].mean() > 0.95
    carried = movement.carry(floats(frames[0]))
    assert np.abs(carried - floats(frames[1]))[inner].mean() < 0.01


def test_drawings_that_move_with_their_photos_have_no_error() -> None:
    photos = panning(4, height=96, width=128)
    error = warping_error(photos, floats(255 - photos))
    assert error is not None
    assert error < 0.01


def test_the_error_is_the_change_of_brightness() -> None:
    photos = panning(4, height=96, width=128)
    flicker = np.array([0, 0.25, 0, 0.25], np.float32)[:, None, None, None]
    error = warping_error(photos, floats(photos) * 0.5 + flicker)
    assert error == pytest.approx(0.25, abs=0.01)


def test_what_stays_while_the_photo_moves_is_an_error() -> None:
    photos = panning(4, height=96, width=128, step_px=4)
    still = np.repeat(floats(photos[:1]), 4, axis=0)
    assert (warping_error(photos, still) or 0) > 0.05


def test_a_scene_cut_is_no_movement() -> None:
    photos = np.stack([texture(96, 128, seed=1), texture(96, 128, seed=2)])
    assert warping_error(photos, floats(photos)) is None
    assert warping_error(photos[:1], floats(photos[:1])) is None


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (33, 20)])
def test_tiny_frames_do_no_harm(size: tuple[int, int]) -> None:
    frames = np.stack(
        [texture(*size, seed=seed) if min(size) > 1 else np.zeros((*size, 3), np.uint8) for seed in (1, 1)]
    )
    steadier = Steadier(KitEngine())
    assert [steadier.step(frame).shape for frame in frames] == [(*size, 3)] * 2


class Flickering(KitEngine):
    """Each drawing is a little darker or lighter than the one before."""

    def stylise(self, pictures: np.ndarray, **options: object) -> np.ndarray:
        made = super().stylise(pictures, **options)  # type: ignore[arg-type]
        made *= 0.9 + 0.1 * (len(self.shapes) % 2)
        return made


def test_steady_drawings_flicker_less_and_stay_sharp() -> None:
    photos = panning(10, height=96, width=128)
    engine, other = Flickering(), Flickering()
    alone = [other.stylise(photo[None])[0] for photo in photos]
    steadier = Steadier(engine)
    steady = [steadier.step(photo) for photo in photos]
    before, after = warping_error(photos, alone), warping_error(photos, steady)
    assert before is not None
    assert after is not None
    assert after < 0.75 * before
    assert np.mean([sharpness(one) for one in steady]) > 0.9 * np.mean([sharpness(one) for one in alone])


def test_a_new_scene_begins_anew() -> None:
    cut = np.concatenate([panning(3, height=96, width=128, seed=1), panning(2, height=96, width=128, seed=2)])
    engine = KitEngine()
    steadier = Steadier(engine)
    made = [steadier.step(photo) for photo in cut]
    for place in (0, 3):
        assert np.abs(made[place] - engine.stylise(cut[place][None])[0]).max() < 1e-4
    assert steadier.movement is not None


def test_a_comparison_tells_both_errors_and_the_sharpness() -> None:
    photos, engine = panning(5, height=96, width=128), KitEngine()
    comparison, tracker = Comparison(engine), Tracker()
    for photo in photos:
        comparison.add(photo, floats(photo), tracker.step(photo))
    assert comparison.num_frames == 5
    assert comparison.error == warping_error(photos, floats(photos))
    assert comparison.error_by_frame == warping_error(photos, [engine.stylise(photo[None])[0] for photo in photos])
    assert comparison.sharpness_share != 1


def test_statistics_of_any_structure_are_mixed() -> None:
    class Pair(NamedTuple):
        mean: np.ndarray
        var: np.ndarray

    zero, one = Pair(np.zeros(2), np.zeros(2)), Pair(np.ones(2), np.full(2, 4.0))
    (made,) = mixed([zero], [one], 0.25)
    assert isinstance(made, Pair)
    assert np.array_equal(made.var, [1, 1])
    assert mixed({"a": np.zeros(1)}, {"a": np.ones(1)}, 0.5)["a"] == 0.5
    assert np.array_equal(mixed(np.zeros((1, 2, 3)), np.ones((1, 2, 3)), 1.0), np.ones((1, 2, 3)))
