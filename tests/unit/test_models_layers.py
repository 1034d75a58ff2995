"""Norms, resampling, warps and blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.errors import ParamsError
from models.layers.hourglass import Hourglass
from models.layers.norms import BatchNorm2d
from models.layers.precision import full_precision, wide
from models.layers.resampling import AntiAliasDownsample, ImagePyramid, gaussian_kernel
from models.layers.spectral import SpectralConv2d
from models.layers.warps import coordinate_grid, resize, resize_grid, warp


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---- batch normalisation


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_torchs_own(training: bool) -> None:
    ours, theirs = BatchNorm2d(4), nn.BatchNorm2d(4)
    with torch.no_grad():
        theirs.weight.uniform_(0.5, 2)
        theirs.bias.uniform_(-1, 1)
        theirs.running_var.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    ours.train(training)
    theirs.train(training)
    x = torch.randn(3, 4, 5, 6) * 2 + 1
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)


def test_batch_norm_keeps_the_entries_of_published_files() -> None:
    assert set(BatchNorm2d(2).state_dict()) == set(nn.BatchNorm2d(2).state_dict())


# ---- spectral normalisation


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    conv = SpectralConv2d(3, 6, 4)
    x = torch.randn(2, 3, 9, 9)
    for _ in range(60):
        conv(x)
    conv.eval()
    largest = torch.linalg.matrix_norm(conv.weight_orig.detach().flatten(1), ord=2)
    expected = F.conv2d(x, conv.weight_orig / largest, conv.bias)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)


def test_spectral_norm_moves_in_train_mode_alone() -> None:
    conv = SpectralConv2d(3, 6, 4)
    x = torch.randn(1, 3, 6, 6)
    conv(x)
    moved = conv.weight_u.clone()
    conv.eval()
    conv(x)
    assert torch.equal(conv.weight_u, moved)
    conv.train()
    conv(x)
    assert not torch.equal(conv.weight_u, moved)


def test_spectral_norm_lets_two_calls_share_a_backward() -> None:
    together = SpectralConv2d(3, 6, 4).double()
    apart = SpectralConv2d(3, 6, 4).double()
    apart.load_state_dict(together.state_dict())
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    (together(x).square().sum() + together(2 * x).square().sum()).backward()
    apart(x).square().sum().backward()
    apart(2 * x).square().sum().backward()
    torch.testing.assert_close(together.weight_orig.grad, apart.weight_orig.grad)


def test_spectral_norm_keeps_the_entries_of_published_files() -> None:
    assert set(SpectralConv2d(1, 1, 1).state_dict()) == {"bias", "weight_orig", "weight_u", "weight_v"}


# ---- resampling


@pytest.mark.parametrize(("scale", "side"), [(0.5, 5), (0.25, 13), (0.125, 29)])
def test_gaussian_kernel(scale: float, side: int) -> None:
    kernel = gaussian_kernel(scale)
    assert kernel.shape == (side, side)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    middle = side // 2
    sigma = (1 / scale - 1) / 2
    assert (kernel[middle, middle + 1] / kernel[middle, middle]).item() == pytest.approx(
        math.exp(-0.5 / sigma**2), rel=1e-5
    )


@pytest.mark.parametrize("scale", [0.5, 0.25])
def test_only_kept_pixels_are_computed_and_equal_blur_then_subsample(scale: float) -> None:
    down = AntiAliasDownsample(3, scale)
    image = torch.rand(2, 3, 32, 24)
    blurred = F.conv2d(image, down.weight, padding=down.weight.shape[-1] // 2, groups=3)
    torch.testing.assert_close(down(image), blurred[:, :, :: down.stride, :: down.stride])


def test_full_scale_does_nothing_and_keeps_nothing() -> None:
    down = AntiAliasDownsample(3, 1)
    image = torch.rand(1, 3, 8, 8)
    assert down(image) is image
    assert down.state_dict() == {}


@pytest.mark.parametrize("scale", [0.3, 0, 2])
def test_scale_must_be_one_over_a_whole_number(scale: float) -> None:
    with pytest.raises(ParamsError, match="scale must be 1 over a whole number"):
        AntiAliasDownsample(3, scale)


def test_pyramid() -> None:
    pyramid = ImagePyramid((1, 0.5, 0.25))
    sizes = pyramid(torch.rand(2, 3, 32, 32))
    assert {scale: tuple(image.shape) for scale, image in sizes.items()} == {
        1: (2, 3, 32, 32),
        0.5: (2, 3, 16, 16),
        0.25: (2, 3, 8, 8),
    }
    assert pyramid.state_dict() == {}


def test_downsampling_keeps_32_bits_under_autocast() -> None:
    down = AntiAliasDownsample(3, 0.25)
    image = torch.rand(1, 3, 32, 32)
    exact = down(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(down(image), exact)


# ---- precision


def test_full_precision_switches_autocast_off() -> None:
    a = torch.rand(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with full_precision(a):
            assert (a @ a).dtype == torch.float32


def test_wide_leaves_doubles() -> None:
    assert wide(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert wide(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


# ---- warps


def test_grid_is_x_first_and_ends_at_the_outer_centres() -> None:
    grid = coordinate_grid(3, 5, torch.zeros(()))
    assert grid.shape == (3, 5, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[2, 4].tolist() == [1, 1]
    assert grid[0, 4].tolist() == [1, -1]
    assert grid[1, 2].tolist() == [0, 0]


def test_the_identity_grid_reads_the_image_itself() -> None:
    image = torch.rand(1, 2, 6, 7)
    grid = coordinate_grid(6, 7, image)[None]
    torch.testing.assert_close(warp(image, grid, align_corners=True), image)
    assert not torch.allclose(warp(image, grid, align_corners=False), image)


def test_a_shifted_grid_moves_the_image() -> None:
    image = torch.rand(1, 1, 4, 5)
    grid = coordinate_grid(4, 5, image)[None] + torch.tensor([0.5, 0.0])  # one pixel of five
    moved = warp(image, grid, align_corners=True)
    torch.testing.assert_close(moved[..., :-1], image[..., 1:])
    assert moved[..., -1].abs().max() < 1e-6


def test_coordinates_are_not_rounded() -> None:
    image = torch.rand(1, 1, 64, 64).bfloat16()
    grid = coordinate_grid(64, 64, image)[None]
    assert grid.dtype == torch.float32
    moved = warp(image, grid, align_corners=True)
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved, image)


def test_resize_returns_what_fits_already() -> None:
    maps = torch.rand(1, 1, 4, 4)
    assert resize(maps, 4, 4) is maps
    assert resize(maps, 8, 6).shape == (1, 1, 8, 6)
    assert resize_grid(torch.rand(1, 4, 4, 2), 8, 6).shape == (1, 8, 6, 2)


# ---- hourglass


def test_hourglass_ends_with_its_input() -> None:
    hourglass = Hourglass(3, expansion=4, num_blocks=3, max_features=8)
    x = torch.rand(2, 3, 16, 24)
    out = hourglass(x)
    assert out.shape == (2, hourglass.out_channels, 16, 24) == (2, 7, 16, 24)
    assert torch.equal(out[:, -3:], x)
