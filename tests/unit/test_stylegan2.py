"""StyleGAN2's networks: sizes as published, modulated convolution against float64 written out, noise, truncation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.errors import ShapeError
from models.style.face_config import FaceConfig
from models.style.stylegan2.build import build_gan, debug_config
from models.style.stylegan2.discriminator import Discriminator, group_deviation
from models.style.stylegan2.generator import Generator, mixed
from models.style.stylegan2.inference import prepared
from models.style.stylegan2.layers import Upsample
from models.style.stylegan2.modulated import ModulatedConv, StyledConv, ToRGB

CONFIG = debug_config()


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generator(config: FaceConfig = CONFIG, *, noisy: bool = True) -> Generator:
    torch.manual_seed(0)
    made = Generator(config)
    for name, parameter in made.named_parameters():
        if name.endswith("noise.weight") and noisy:
            nn.init.constant_(parameter, 0.1)
        elif name.endswith("bias") and "modulation" not in name:
            nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.mark.parametrize(
    ("size", "generators", "discriminators"),
    [
        (256, 30_034_338, 28_864_129),
        (512, 30_276_583, 28_982_849),
        (1024, 30_370_060, 29_012_513),
    ],
)
def test_networks_have_the_published_sizes(size: int, generators: int, discriminators: int) -> None:
    with torch.device("meta"):
        networks = build_gan(FaceConfig(size_px=size))
    assert count(networks["generator"]) == generators
    assert count(networks["generator"].style) == 2_101_248  # type: ignore[arg-type]
    assert count(networks["discriminator"]) == discriminators


def written_out(conv: ModulatedConv, x: Tensor, style: Tensor, *, up: bool) -> Tensor:
    """Equations 1 and 3 with weights of each sample's own, every product a line of its own."""
    weight, size = conv.weight.double(), conv.weight.shape[-1]
    batch, _, height, width = x.shape
    scaled = style @ conv.modulation.weight.double().T / math.sqrt(style.shape[1]) + conv.modulation.bias.double()
    results = []
    for i in range(batch):
        own = weight * scaled[i][None, :, None, None] / math.sqrt(weight[0].numel())
        if conv.demodulate:
            own = own / torch.sqrt(own.square().sum((1, 2, 3), keepdim=True) + 1e-8)
        if up:
            made = scattered(own, x[i])
        else:
            made = torch.zeros(len(own), height, width, dtype=torch.float64)
            framed = nn.functional.pad(x[i], (size // 2,) * 4)
            for row in range(height):
                for column in range(width):
                    window = framed[:, row : row + size, column : column + size]
                    made[:, row, column] = (own * window).sum((1, 2, 3))
        results.append(made)
    return torch.stack(results)


def scattered(weight: Tensor, x: Tensor) -> Tensor:
    """Each pixel adds its kernel at twice its place; then [1, 3, 3, 1], with a gain of 4."""
    _, height, width = x.shape
    wider = torch.zeros(len(weight), 2 * height + 3, 2 * width + 3, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            at = slice(2 * row + 1, 2 * row + 4), slice(2 * column + 1, 2 * column + 4)
            wider[:, at[0], at[1]] += (weight * x[None, :, row, column, None, None]).sum(1)
    return blurred(wider, 2 * height, 2 * width)


def blurred(framed: Tensor, height: int, width: int) -> Tensor:
    made = torch.zeros(len(framed), height, width, dtype=torch.float64)
    for i, down in enumerate((1, 3, 3, 1)):
        for j, right in enumerate((1, 3, 3, 1)):
            made += framed[:, i : i + height, j : j + width] * (down * right / 16)
    return made


@pytest.mark.parametrize(("size", "demodulate", "up"), [(3, True, False), (3, True, True), (1, False, False)])
def test_modulated_convolution_is_that_with_weights_of_each_samples_own(size: int, demodulate: bool, up: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(5, 4, size, 6, demodulate=demodulate, up=up)
    x, style = drawn(3, 5, 4, 6, dtype=torch.float64), drawn(3, 6, seed=1, dtype=torch.float64)
    expected = written_out(conv, x, style, up=up)
    assert torch.allclose(conv.double()(x, style), expected, atol=1e-12)
    made = conv.float()(x.float(), style.float())
    assert torch.allclose(made, expected.float(), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(conv(x.float(), style.float()), made, atol=1e-5)


@pytest.mark.parametrize("up", [False, True])
def test_one_picture_without_gradients_is_computed_another_way_to_the_same_end(up: bool) -> None:
    torch.manual_seed(0)
    layer = StyledConv(5, 4, 6, up=up).double()
    nn.init.normal_(layer.activate.bias)
    nn.init.constant_(layer.noise.weight, 0.3)
    px = 8 * (1 + up)
    x, style, noise = (drawn(*shape, dtype=torch.float64) for shape in ((1, 5, 8, 8), (1, 6), (1, 1, px, px)))
    expected = layer(x, style, noise)
    layer.conv.keep_squares()
    with torch.no_grad():
        assert layer.conv.is_cheaper_alone(x)
        assert torch.allclose(layer(x, style, noise), expected, atol=1e-6)
        assert not layer.conv.is_cheaper_alone(x.expand(2, -1, -1, -1))
        assert not layer.conv.is_cheaper_alone(x[..., :1, :1])


def test_prepared_networks_draw_the_same_and_leave_the_original_alone() -> None:
    network, z = generator(), drawn(3, CONFIG.style_dim)
    entries = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    ready = prepared(network)
    with torch.inference_mode():
        for batch in (z, z[:1]):
            assert torch.allclose(ready(batch), network(batch), atol=1e-5)
    assert network.training
    assert all(torch.equal(value, entries[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rough = prepared(network, bf16=True)(z)
    wanted = network(z).detach()
    assert float((rough - wanted).abs().mean() / wanted.std()) < 0.03


def test_colours_are_a_modulated_convolution_added_to_the_doubled_picture() -> None:
    torch.manual_seed(0)
    layer = ToRGB(5, 6).double()
    nn.init.normal_(layer.bias)
    x, style, below = (drawn(*shape, dtype=torch.float64) for shape in ((2, 5, 8, 8), (2, 6), (2, 3, 4, 4)))
    wider = torch.zeros(6, 11, 11, dtype=torch.float64)  # zeros between pixels, two before and one behind
    wider[:, 2:10:2, 2:10:2] = below.flatten(0, 1)
    expected = written_out(layer.conv, x, style, up=False) + layer.bias + blurred(wider, 8, 8).reshape(2, 3, 8, 8)
    assert torch.allclose(layer(x, style, below), expected, atol=1e-12)


def test_doubling_keeps_a_plain_area_plain() -> None:
    made = Upsample()(torch.ones(1, 3, 8, 8))
    assert torch.allclose(made[..., 1:-1, 1:-1], torch.ones(()))


@pytest.mark.parametrize("config", [CONFIG, FaceConfig(size_px=64, style_dim=64, max_channels=32, mapping_layers=2)])
def test_pictures_and_scores_have_their_shapes(config: FaceConfig) -> None:
    network = generator(config)
    picture = network(drawn(3, config.style_dim))
    assert picture.shape == (3, 3, config.size_px, config.size_px)
    assert picture.std() > 1e-2
    judge = Discriminator(config)
    assert judge(picture).shape == (3, 1)
    assert judge.features(picture).shape == (3, config.channels(4), 4, 4)


def test_codes_of_each_layer_are_mapped_by_themselves() -> None:
    network, z = generator(), drawn(2, CONFIG.num_styles, CONFIG.style_dim)
    styles = network.mapping(z)
    assert torch.allclose(styles[1, 3], network.mapping(z[1, 3][None])[0], atol=1e-6)
    same = z[:, :1].expand_as(z)
    assert torch.allclose(network(same), network(z[:, 0]), atol=1e-5)


def test_samples_do_not_see_each_other() -> None:
    network, z = generator(), drawn(3, CONFIG.style_dim)
    assert torch.allclose(network(z)[1:2], network(z[1:2]), atol=1e-5)


def test_noise_is_the_networks_own_unless_it_is_given() -> None:
    network, z = generator(), drawn(2, CONFIG.style_dim)
    assert torch.equal(network(z), network(z))
    assert torch.equal(network(z), network(z, noise=network.fixed_noise()))
    first, again, other = (network.make_noise(2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert [tuple(plane.shape) for plane in first] == [(2, 1, px, px) for px in (4, 8, 8, 16, 16, 32, 32)]
    assert torch.equal(network(z, noise=first), network(z, noise=again))
    assert not torch.allclose(network(z, noise=first), network(z, noise=other), atol=1e-3)
    quiet = generator(noisy=False)
    assert torch.equal(quiet(z, noise=first), quiet(z, noise=other))


def test_truncation_pulls_towards_the_mean_of_many_styles() -> None:
    network = generator()
    network.set_mean_style(5_000, torch.Generator().manual_seed(3))
    z = drawn(5_000, CONFIG.style_dim, seed=4)
    styles = network.mapping(z)
    error = styles.std(0) / math.sqrt(5_000)
    assert bool(((styles.mean(0) - network.mean_style).abs() < 6 * error).all())
    half = network.truncate(styles, 0.5)
    assert torch.allclose(half, (styles + network.mean_style) / 2, atol=1e-6)
    assert torch.equal(network.truncate(styles, 1.0), styles)
    assert torch.allclose(network(z[:1], psi=0.0), network(z[1:2], psi=0.0), atol=1e-6)


def test_styles_change_at_the_layer_asked_for() -> None:
    first, second = drawn(2, 5, 3), drawn(2, 5, 3, seed=1)
    assert torch.equal(mixed(first, second, 2), torch.cat([first[:, :2], second[:, 2:]], 1))
    each = mixed(first, second, torch.tensor([0, 5]))
    assert torch.equal(each[0], second[0])
    assert torch.equal(each[1], first[1])


def test_layers_may_be_changed_from_outside() -> None:
    network, styles = generator(), drawn(1, CONFIG.num_styles, CONFIG.style_dim)
    seen: list[tuple[int, int]] = []

    def after(number: int, features: Tensor) -> Tensor:
        seen.append((number, features.shape[-1]))
        return features * 0 if number == 4 else features

    assert not torch.allclose(network.synthesis(styles, after=after), network.synthesis(styles), atol=1e-3)
    assert seen == [(0, 4), (1, 8), (2, 8), (3, 16), (4, 16), (5, 32), (6, 32)]


def test_a_code_reaches_its_own_layer_and_those_above() -> None:
    """Style i scales convolution i, and the last one the colours alone."""
    network, styles = generator(), drawn(1, CONFIG.num_styles, CONFIG.style_dim)

    def features(given: Tensor) -> list[Tensor]:
        kept: list[Tensor] = []
        network.synthesis(given, after=lambda _, x: kept.append(x.clone()) or x)  # type: ignore[func-returns-value]
        return kept

    base = features(styles)
    for i in range(CONFIG.num_styles):
        other = styles.clone()
        other[:, i] += 1
        changed = [not torch.equal(a, b) for a, b in zip(base, features(other), strict=True)]
        assert changed == [number >= i for number in range(CONFIG.num_styles - 1)]


@pytest.mark.parametrize("styles", [(1, 7, 16), (1, 8, 15), (8, 16)])
def test_styles_of_another_network_are_refused(styles: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"the styles must be \(B, 8, 16\) for 32 px; got"):
        generator().synthesis(torch.zeros(styles))


def test_noise_of_another_size_is_refused() -> None:
    network = generator()
    styles = torch.zeros(1, 8, 16)
    for noise in (network.fixed_noise()[:-1], [torch.zeros(1, 1, 4, 4)] * 7):
        with pytest.raises(ShapeError, match="the noise must have one plane"):
            network.synthesis(styles, noise)


def test_a_group_of_equal_pictures_has_no_deviation() -> None:
    same = drawn(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert torch.allclose(group_deviation(same), torch.tensor(1e-4), atol=1e-6)


@pytest.mark.parametrize(("batch", "size"), [(8, 4), (6, 3), (5, 1), (2, 2), (1, 1)])
def test_the_deviation_is_taken_in_groups(batch: int, size: int) -> None:
    x = drawn(batch, 3, 4, 4, dtype=torch.float64)
    made = group_deviation(x)
    assert made.shape == (batch, 1, 4, 4)
    for i in range(batch):
        group = x[i % (batch // size) :: batch // size]
        assert len(group) == size
        expected = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(made[i], expected)


def test_sixteen_bits_change_little() -> None:
    network, z = generator().requires_grad_(False), drawn(2, CONFIG.style_dim)
    wanted = network(z)
    with torch.autocast("cpu", torch.bfloat16):
        made = network(z)
    assert made.dtype == torch.float32
    assert float((made - wanted).abs().mean() / wanted.std()) < 0.03
