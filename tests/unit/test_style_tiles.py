"""Large pictures in tiles: as if they were computed whole, without seams, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers.sample_norms import sample_norms
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines.served import style
from pipelines.served.style import Array, Stylist, patches, spans
from pipelines.style_engines import TorchStyle


def generator(seed: int = 0, *, gain: float = 1.0) -> StyleGenerator:
    torch.manual_seed(seed)
    made = StyleGenerator(StyleConfig(width=8, num_blocks=2))
    with torch.no_grad():
        for layer in sample_norms(made):
            layer.weight.add_(torch.randn_like(layer.weight) * 0.3)
            layer.bias.add_(torch.randn_like(layer.bias) * 0.3)
        made.blocks[-1].weight.mul_(gain)  # type: ignore[operator,union-attr]
    return made


def picture(height: int, width: int, *, seed: int = 0) -> Array:
    """Coarse and fine random structure, brighter towards the right."""
    random, whole = np.random.default_rng(seed), np.zeros((height, width, 3))
    for cell in (97, 31, 7):
        grid = random.random((height // cell + 1, width // cell + 1, 3))
        whole += np.kron(grid, np.ones((cell, cell, 1)))[:height, :width] / 3
    return (whole * np.linspace(0.3, 1, width)[None, :, None] * 255).astype(np.uint8)


class Recorded(Stylist):
    """Draws nothing new, and notes what it is asked for."""

    def __init__(self) -> None:
        self.areas: list[int] = []
        self.measured: list[int] = []

    def run(self, batch: Array, statistics: Array | None = None) -> Array:
        self.areas.append(batch[:, 0].size)
        return batch

    def run_measure(self, batch: Array) -> Array:
        self.measured.append(batch[:, 0].size)
        return np.zeros((1, 2, 1), np.float32)


@pytest.mark.parametrize(("size", "tile"), [(1, 256), (256, 256), (257, 256), (1000, 192), (4096, 1024), (4097, 1024)])
def test_tiles_cover_everything_once(size: int, tile: int) -> None:
    found, total = spans(size, tile), np.zeros(size)
    for span in found:
        assert span.stop - span.start <= tile
        assert span.start % 4 == 0, "the network halves twice"
        total[span.start : span.stop] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for one, next_ in zip(found[:-1], found[1:], strict=True):
        assert one.stop - next_.start >= min(128, tile // 4) - 4
        assert one.weights[-8:].max() == 0 == next_.weights[:8].max(), "a tile's own border counts nothing"


def test_what_is_not_drawn_comes_back_as_it_was() -> None:
    photo = picture(700, 501)
    np.testing.assert_allclose(Recorded().stylise(photo[None], tile_px=192)[0], photo / 255, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(3000, 2000), (400, 20000), (1800, 1801), (16, 200_000)])
def test_no_more_than_so_many_pixels_are_computed_at_once(height: int, width: int) -> None:
    engine = Recorded()
    engine.stylise(np.zeros((1, height, width, 3), np.uint8))
    assert max(engine.areas) <= style.TILE_PX**2
    assert max(engine.measured) <= style.PIXELS_AT_ONCE
    assert engine.measured[0] > style.PIXELS_AT_ONCE // 3
    several = Recorded()
    several.stylise(np.zeros((40, 256, 256, 3), np.uint8))
    assert max(several.areas) <= style.PIXELS_AT_ONCE


def test_patches_lie_evenly() -> None:
    whole = np.stack(np.broadcast_arrays(np.arange(3000)[:, None], np.arange(2000)[None], 0), -1)
    found = np.concatenate([patch.reshape(-1, 3) for patch in patches(whole)])
    np.testing.assert_allclose(found.mean(0)[:2], (1499.5, 999.5), atol=15)
    np.testing.assert_allclose(found.std(0)[:2], (866, 577), rtol=0.05)


def seams(drawn: Array, tile: int) -> float:
    """Mean step between columns where tiles meet over that elsewhere."""
    steps, meeting = np.abs(np.diff(drawn, axis=1)).mean((0, 2)), np.zeros(drawn.shape[1] - 1, bool)
    found = spans(drawn.shape[1], tile)
    for one, next_ in zip(found[:-1], found[1:], strict=True):
        meeting[next_.start : one.stop - 1] = True
    return float(steps[meeting].mean() / steps[~meeting].mean())


@pytest.mark.parametrize(("seed", "gain"), [(0, 1.0), (1, 3.0)])
def test_tiles_make_the_same_picture_without_seams(seed: int, gain: float) -> None:
    engine, photo = TorchStyle(generator(seed, gain=gain), device="cpu"), picture(260, 500)[None]
    whole, tiled = engine.stylise(photo), engine.stylise(photo, tile_px=192)
    assert whole.std() > 0.02
    assert np.abs(whole - tiled).mean() < 0.5 / 255
    assert seams(tiled[0], 192) / seams(whole[0], 192) < 1.05
    alone = np.concatenate([engine.stylise(half) for half in np.split(photo, 2, axis=2)], 2)
    assert np.abs(whole - alone).mean() > 4 * np.abs(whole - tiled).mean(), "shared statistics matter here"


def test_a_picture_can_be_drawn_by_the_statistics_of_another() -> None:
    engine, photo = TorchStyle(generator(), device="cpu"), picture(64, 96)
    own = engine.measure(photo)
    given = engine.stylise(photo[None], given=own)
    np.testing.assert_allclose(given, engine.stylise(photo[None]), atol=1e-5)
    other = engine.measure(photo // 4)
    assert np.abs(engine.stylise(photo[None], given=other) - given).mean() > 1e-2
    each = engine.stylise(np.stack([photo, photo]), given=np.concatenate([own, other]))
    np.testing.assert_allclose(each[:1], given, atol=1e-5)


def taught() -> StyleGenerator:
    """A generator that has learnt a little: pictures in two colours. Random ones magnify what statistics are off."""
    torch.manual_seed(0)
    made = StyleGenerator(StyleConfig(width=8, num_blocks=1))
    adam, tint = torch.optim.Adam(made.parameters(), 2e-3), torch.tensor([0.9, 0.7, 0.5])[:, None, None]
    sheet = torch.from_numpy(picture(512, 512, seed=1)).permute(2, 0, 1).float() / 255
    for number in range(150):
        top, left = (number * 37) % 448, (number * 91) % 448
        photo = sheet[None, :, top : top + 64, left : left + 64]
        adam.zero_grad()
        (made(photo) - photo.mean(1, keepdim=True) * tint).abs().mean().backward()
        adam.step()
    return made.eval()


@pytest.mark.slow
def test_a_picture_of_4096_px_is_measured_by_its_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, photo = TorchStyle(taught(), device="cpu"), picture(4096, 4096)[None]
    tiled = engine.stylise(photo)
    monkeypatch.setattr(style, "PIXELS_AT_ONCE", 1 << 30)
    whole = engine.stylise(photo)
    assert np.abs(whole - tiled).mean() < 2 / 255
    assert seams(tiled[0], style.TILE_PX) / seams(whole[0], style.TILE_PX) < 1.05
