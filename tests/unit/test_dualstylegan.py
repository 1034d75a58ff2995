"""DualStyleGAN's generator: published sizes, what each path changes, and that it starts as StyleGAN2."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.errors import ShapeError
from models.style.dualstylegan import DualStyleGenerator, ModRes, default_weights, modulative_blocks
from models.style.face_config import FaceConfig
from models.style.face_networks import build_dualstyle, build_encoder
from models.style.stylegan2.generator import mixed

SMALL = FaceConfig(
    size_px=64,
    style_dim=32,
    mapping_layers=2,
    max_channels=16,
    structure_layers=5,
    encoder_px=64,
    encoder_width=8,
    encoder_units=(1, 1, 1, 1),
)
NUM = SMALL.num_styles


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def fresh(config: FaceConfig = SMALL) -> DualStyleGenerator:
    """As training begins, but for the noise, whose strength is set."""
    torch.manual_seed(0)
    network = DualStyleGenerator(config).eval().requires_grad_(False)
    for name, parameter in network.generator.named_parameters():
        if name.endswith("noise.weight"):
            parameter.fill_(0.1)
    return network


def grown(config: FaceConfig = SMALL) -> DualStyleGenerator:
    """As after training: its extrinsic path changes what it sees."""
    network = fresh(config)
    for block in modulative_blocks(network):
        for conv in (block.conv, block.conv2):
            conv[0].weight *= 100
            conv[1].bias.normal_(std=0.2)
    for part in list(network.residuals)[config.structure_layers :]:
        part.weight += torch.randn_like(part.weight) * 0.5  # type: ignore[operator]
    return network


def codes(batch: int = 2, *, seed: int = 1, config: FaceConfig = SMALL) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.num_styles, config.style_dim, generator=draw)


@pytest.mark.parametrize(
    ("size_px", "total", "residuals", "structure"),
    [(256, 72_789_922, 42_230_272, 40_391_680), (1024, 74_176_268, 43_280_896, 40_391_680)],
)
def test_it_has_the_published_size(size_px: int, total: int, residuals: int, structure: int) -> None:
    with torch.device("meta"):
        network = DualStyleGenerator(FaceConfig(size_px=size_px))
    assert count(network) == total
    assert count(network.residuals) == residuals
    assert sum(count(block) for block in modulative_blocks(network)) == structure
    assert count(network.style) == 525_312
    assert len(network.residuals) == network.config.num_styles


def test_without_weight_it_is_stylegan2() -> None:
    network, inner, outer = grown(), codes(seed=1), codes(seed=2)
    wanted = network.generator(inner)
    assert torch.equal(network(inner, outer, torch.zeros(NUM)), wanted)
    assert torch.equal(network(inner, outer, torch.ones(NUM), fuse_layers=0), wanted)
    assert not torch.allclose(network(inner, outer, torch.ones(NUM)), wanted, atol=1e-2)


def test_at_its_start_it_mixes_styles_at_the_first_colour_layer() -> None:
    """Section 3.2: the residuals are next to nothing, the colour layers hand the extrinsic style on."""
    network, inner, outer = fresh(), codes(seed=1), codes(seed=2)
    mapped = [network.generator.mapping(each) for each in (inner, outer)]
    wanted = network.generator.synthesis(mixed(mapped[0], mapped[1], SMALL.structure_layers))
    assert float((network(inner, outer, torch.ones(NUM)) - wanted).std()) < 0.1 * float(wanted.std())
    exact = fresh()
    for part in list(exact.residuals)[SMALL.structure_layers :]:
        part.weight.copy_(torch.eye(SMALL.style_dim) * SMALL.style_dim**0.5)  # type: ignore[operator,union-attr]
    only_colours = torch.tensor([0.0] * SMALL.structure_layers + [1.0] * (NUM - SMALL.structure_layers))
    torch.testing.assert_close(exact(inner, outer, only_colours), wanted, rtol=0, atol=1e-5)


def test_each_weight_acts_on_its_own_layer() -> None:
    """A structure layer's weight changes the features from that layer on; a colour layer's, nothing before it."""
    network, inner, outer = grown(), codes(seed=1), codes(seed=2)
    plain = _features(network, inner, outer, torch.zeros(NUM))
    for layer in range(NUM - 1):
        seen = _features(network, inner, outer, torch.eye(NUM)[layer])
        changed = [not torch.equal(*pair) for pair in zip(seen, plain, strict=True)]
        first = layer + (layer < SMALL.structure_layers)  # a block acts behind its layer, a colour in it
        assert changed == [number >= first for number in range(NUM - 1)], layer
    last = network(inner, outer, torch.eye(NUM)[-1])
    assert not torch.allclose(last, network.generator(inner)), "the last one blends the style of the last colours"


def _features(network: DualStyleGenerator, inner: Tensor, outer: Tensor, weights: Tensor) -> list[Tensor]:
    """What comes out of each styled convolution, before a residual block changes it."""
    kept: list[Tensor] = []
    layers = (network.generator.conv1, *network.generator.convs)
    hooks = [layer.register_forward_hook(lambda _m, _i, out: kept.append(out.clone())) for layer in layers]
    network(inner, outer, weights)
    for hook in hooks:
        hook.remove()
    return kept


def test_fewer_fused_layers_are_weights_of_nothing_above_them() -> None:
    network, inner, outer = grown(), codes(seed=1), codes(seed=2)
    weights = torch.linspace(0.2, 1, NUM)
    for layers in (1, 4, 5, 7, NUM):
        cut = torch.where(torch.arange(NUM) < layers, weights, 0)
        found = network(inner, outer, weights, fuse_layers=layers)
        torch.testing.assert_close(found, network(inner, outer, cut), rtol=0, atol=1e-5)


def test_every_sample_has_its_own_weights_and_one_manner_serves_all() -> None:
    network, inner, outer = grown(), codes(3, seed=1), codes(1, seed=2)
    weights = torch.rand(3, NUM, generator=torch.Generator().manual_seed(3))
    together = network(inner, outer, weights, psi=0.7)
    alone = [network(inner[i : i + 1], outer, weights[i], psi=0.7) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_a_modulative_block_is_what_the_paper_draws() -> None:
    """Written out in 64 bits: normalise, scale and shift by the style, convolve, leaky ReLU; twice."""
    torch.manual_seed(0)
    block, x, style = (
        ModRes(3, 4).double().requires_grad_(False),
        torch.randn(2, 3, 5, 5).double(),
        torch.randn(2, 4).double(),
    )
    wanted = x
    for conv, norm in ((block.conv, block.norm), (block.conv2, block.norm2)):
        centred = wanted - wanted.mean((2, 3), keepdim=True)
        level = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        said = style @ norm.style.weight.T + norm.style.bias
        level = said[:, :3, None, None] * level + said[:, 3:, None, None]
        weight = conv[0].weight / 27**0.5  # type: ignore[operator]
        made = torch.stack(
            [
                sum(
                    weight[:, :, i, j] @ nn.functional.pad(sample, (1, 1, 1, 1))[:, i : i + 5, j : j + 5].flatten(1)
                    for i in range(3)
                    for j in range(3)
                )
                for sample in level
            ]
        ).unflatten(2, (5, 5))
        made = made + conv[1].bias[:, None, None]  # type: ignore[index]
        wanted = torch.where(made < 0, made * 0.2, made) * 2**0.5
    torch.testing.assert_close(block(x, style), wanted, rtol=1e-10, atol=1e-10)
    assert float(block.conv[0].weight.abs().max()) < 0.1  # type: ignore[union-attr,operator]


def test_codes_of_either_space_and_length() -> None:
    network, inner, outer = grown(), codes(seed=1), codes(seed=2)
    weights = default_weights(SMALL)
    wanted = network(inner, outer, weights)
    mapped = [network.generator.mapping(each) for each in (inner, outer)]
    found = network(*mapped, weights, intrinsic_space="w+", extrinsic_space="w+")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    same = inner[:, :1].expand_as(inner)
    torch.testing.assert_close(network(inner[:, 0], outer, weights), network(same, outer, weights))


def test_truncation_pulls_the_face_and_not_the_manner() -> None:
    network, inner, outer = grown(), codes(seed=1), codes(seed=2)
    network.generator.set_mean_style(64, torch.Generator().manual_seed(0))
    weights = default_weights(SMALL)
    faces = network(inner, outer, weights, psi=0.0)
    torch.testing.assert_close(faces, network(inner.flip(0), outer, weights, psi=0.0), rtol=0, atol=1e-5)
    taken = torch.ones(NUM)
    taken[: SMALL.structure_layers] = 0
    assert not torch.allclose(faces[0], faces[1], atol=1e-3), "manners differ as before"


def test_published_weights() -> None:
    assert default_weights(FaceConfig(size_px=1024)).tolist() == [0.75] * 7 + [1.0] * 11


def test_the_extrinsic_path_learns_alone() -> None:
    network = fresh()
    network.residuals.requires_grad_(True)
    network.style.requires_grad_(True)
    network(codes(seed=1), codes(seed=2), torch.full((NUM,), 0.5)).square().mean().backward()
    learning = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert set(learning) == {name for name, _ in network.named_parameters() if not name.startswith("generator.")}
    assert all(bool(parameter.grad.any()) for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("inner", "outer", "weights", "words"),
    [
        ((2, NUM - 1, 32), (2, NUM, 32), (NUM,), r"the codes must be \(B, 10, 32\) or \(B, 32\); got \(2, 9, 32\)"),
        ((2, NUM, 32), (2, NUM, 31), (NUM,), r"the codes must be .*got \(2, 10, 31\)"),
        ((2, NUM, 32), (3, NUM, 32), (NUM,), "the extrinsic codes must be of one manner, or of one for each face"),
        ((2, NUM, 32), (2, NUM, 32), (3, NUM), r"the weights must be \(10,\), or \(2, 10\) for 2 faces"),
        ((2, NUM, 32), (2, NUM, 32), (NUM + 1,), r"the weights must .*Give one for each layer"),
    ],
)
def test_what_does_not_fit_is_refused(
    inner: tuple[int, ...], outer: tuple[int, ...], weights: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        fresh()(torch.zeros(inner), torch.zeros(outer), torch.zeros(weights))


def test_what_is_built_together_fits_together() -> None:
    config = replace(SMALL, size_px=32, structure_layers=3, encoder_px=32)
    networks = build_dualstyle(config)
    assert sorted(networks) == ["discriminator", "encoder", "generator"]
    found = networks["encoder"](torch.rand(2, 3, 32, 32))
    faces = networks["generator"](found, found, default_weights(config))
    assert faces.shape == (2, 3, 32, 32)
    assert networks["discriminator"](faces).shape == (2, 1)
    assert sorted(build_encoder(config)) == ["encoder", "generator"]
