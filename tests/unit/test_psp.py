"""The pSp encoder: published sizes, codes for every layer, and what each of them sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.errors import ShapeError
from models.style.face_config import FaceConfig
from models.style.psp import Encoder, scaled

SMALL = FaceConfig(
    size_px=64, style_dim=32, max_channels=32, encoder_px=64, encoder_width=8, encoder_units=(1, 1, 1, 1)
)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(config: FaceConfig = SMALL) -> Encoder:
    torch.manual_seed(0)
    return Encoder(config).eval()


@pytest.mark.parametrize(("size_px", "expected"), [(256, 209_450_688), (1024, 267_136_704)])
def test_it_has_the_published_size(size_px: int, expected: int) -> None:
    with torch.device("meta"):
        encoder = Encoder(FaceConfig(size_px=size_px))
    assert count(encoder) == expected
    assert count(encoder.input_layer) + count(encoder.body) == 30_950_080
    assert encoder.ends == (6, 20, 23)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size_px": 32, "structure_layers": 3},
        {"encoder_px": 32},
        {"encoder_px": 128, "encoder_units": (1, 2, 1, 2)},
        {"style_dim": 64, "size_px": 128},
    ],
)
def test_one_code_for_each_layer_at_any_size(options: dict[str, int]) -> None:
    config = replace(SMALL, **options)  # type: ignore[arg-type]
    codes = small(config)(torch.rand(2, 3, 64, 64))
    assert codes.shape == (2, config.num_styles, config.style_dim)


def test_a_face_does_not_depend_on_its_batch() -> None:
    encoder, faces = small().double(), torch.rand(3, 3, 64, 64, dtype=torch.float64)
    alone = torch.cat([encoder(face[None]) for face in faces])
    torch.testing.assert_close(encoder(faces), alone, rtol=0, atol=1e-12)


def test_coarse_codes_see_the_deepest_stage_alone_and_fine_codes_all_three() -> None:
    encoder, faces = small(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = encoder(faces)
        encoder.latlayer2.bias += 1
        without_fine = encoder(faces)
        encoder.latlayer1.bias += 1
        without_middle = encoder(faces)
    changed = (without_fine - before).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False] * 7 + [True] * 3
    changed = (without_middle - before).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False] * 3 + [True] * 7


def test_every_parameter_learns() -> None:
    encoder = small().train()
    encoder(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
    silent = [name for name, parameter in encoder.named_parameters() if not bool(parameter.grad.any())]  # type: ignore[union-attr]
    assert silent == []


def test_the_mean_code_is_added_to_every_code() -> None:
    encoder, faces, mean = small(), torch.rand(2, 3, 64, 64), torch.randn(32)
    codes = encoder(faces)
    encoder.set_mean_code(mean)
    torch.testing.assert_close(encoder(faces), codes + mean)
    assert "mean_code" in encoder.state_dict()


def test_larger_faces_are_seen_as_means_of_their_areas() -> None:
    encoder, faces = small(), torch.rand(2, 3, 64, 64)
    doubled = faces.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(encoder(doubled), encoder(faces))
    for height, width in ((100, 70), (16, 300), (64, 64), (1, 1)):
        assert scaled(torch.full((1, 3, height, width), 0.25), 64).shape == (1, 3, 64, 64)
    assert bool((scaled(torch.full((1, 3, 100, 70), 0.25), 64) - 0.25).abs().max() < 1e-6)


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 64, 64, 3)])
def test_what_is_no_batch_of_faces_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"the faces must be a tensor \(B, 3, H, W\); got .*Stack RGB pictures"):
        small()(torch.rand(shape))
