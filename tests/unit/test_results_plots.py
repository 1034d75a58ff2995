"""Curves, bars and strips: valid small pictures of whatever numbers come, and the arithmetic behind them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines import plots, strips
from pipelines.report_images import embed_bytes


def opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture


def test_smoothing_is_a_centred_mean_that_invents_nothing() -> None:
    values = np.zeros(100)
    values[50] = 11.0
    smoothed = plots.smooth(values)
    assert smoothed[50] == pytest.approx(1.0)
    assert smoothed.sum() == pytest.approx(11.0)
    np.testing.assert_allclose(plots.smooth(np.full(40, 3.0)), 3.0)
    np.testing.assert_array_equal(plots.smooth(np.array([1.0, 5.0])), [1.0, 5.0])
    assert plots.smooth(np.array([])).size == 0


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_curves_survive_gaps_zeros_and_strange_names(theme: plots.Theme) -> None:
    steps = list(range(1, 60))
    curves = {
        "total": (steps, [100.0 / step for step in steps]),
        "$x^": (steps, [float("nan"), float("inf"), *([0.001] * 57)]),
        "zero": (steps, [0.0] * 59),
        "empty": ([], []),
    }
    picture = opened(plots.loss_curves(curves, theme=theme))
    paper = tuple(int(theme.paper[place : place + 2], 16) for place in (1, 3, 5))
    assert picture.convert("RGB").getpixel((0, 0)) == paper
    assert picture.width > picture.height > 200


def test_empty_figures_are_pictures_too() -> None:
    for content in (plots.loss_curves({}), plots.validation_curve([], [], None), plots.video_bars([])):
        assert opened(content).format == "PNG"
        assert len(content) < 100_000


def test_only_the_worst_videos_are_drawn() -> None:
    few = opened(plots.video_bars([(f"video {place}", 0.1, 0.2) for place in range(plots.SHOWN_VIDEOS)]))
    many = opened(plots.video_bars([(f"video {place}", 0.1, 0.2) for place in range(500)]))
    assert abs(many.height - few.height) < 40


def test_positions_are_spread_with_both_ends() -> None:
    assert strips.spread(10, 4) == [0, 3, 6, 9]
    assert strips.spread(3, 6) == [0, 1, 2]
    assert strips.spread(1, 6) == [0]
    assert strips.spread(5, 0) == strips.spread(0, 5) == []


def test_floats_become_bytes_by_rounding_and_clipping() -> None:
    frames = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])
    np.testing.assert_array_equal(strips.as_bytes(frames), [[0, 0, 128, 255, 255]])
    same = np.array([[7]], dtype=np.uint8)
    assert strips.as_bytes(same) is same


def test_a_strip_has_a_cell_for_each_frame_and_a_transparent_ground() -> None:
    frames = np.full((3, 8, 8, 3), 255, dtype=np.uint8)
    picture = opened(strips.strip_png({"one": frames, "other": frames[:2]}, ["a", "b", "c"], cell_px=48))
    alpha = np.asarray(picture)[..., 3]
    assert alpha[0].max() == 0
    cells = (np.asarray(picture) == 255).all(-1).sum()
    assert cells == 5 * 48 * 48


def test_no_difference_is_black_and_a_large_one_bright() -> None:
    truth = np.zeros((1, 2, 2, 3), dtype=np.float32)
    prediction = truth.copy()
    prediction[0, 0, 0] = 1.0
    shown = strips.heat(prediction, truth)
    assert shown[0, 1, 1].max() < 10
    assert shown[0, 0, 0].sum() > 500


def test_heavy_stills_are_recoded_and_heavy_animations_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 2000, 3), dtype=np.uint8))
    png, gif = io.BytesIO(), io.BytesIO()
    noise.save(png, format="PNG")
    shown = embed_bytes(png.getvalue(), alt="noise")
    assert shown is not None
    assert shown.uri.startswith("data:image/webp;base64,")
    assert (shown.width, shown.alt) == (1800, "noise")
    small = noise.resize((20, 20))
    small.save(gif, format="GIF", save_all=True, append_images=[small.rotate(90)])
    kept = embed_bytes(gif.getvalue())
    assert kept is not None
    assert kept.uri.startswith("data:image/gif;base64,")
    monkeypatch.setattr("pipelines.report_images.MAX_ANIMATION_BYTES", 10)
    assert embed_bytes(gif.getvalue()) is None
