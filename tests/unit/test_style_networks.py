"""The style family's networks: sizes as published, any picture's size, the critic, LIN against float64 written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.errors import ParamsError, ShapeError
from models.layers.sample_norms import LIN, NORMS, InstanceNorm, LayerNorm, SampleNormName, Statistics, choices
from models.style.config import Layout, StyleConfig
from models.style.networks import build, debug_config

LAYOUTS: tuple[tuple[Layout, int, SampleNormName], ...] = (
    ("lwcomicgan", 4, "lin"),
    ("animegan", 8, "instance"),
    ("animeganv2", 4, "layer"),
    ("cartoongan", 8, "instance"),
    ("cyclegan", 9, "instance"),
)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(layout: Layout, norm: SampleNormName) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return build(debug_config(StyleConfig(layout=layout, norm=norm)))


@pytest.mark.parametrize(
    ("layout", "num_blocks", "norm", "expected"),
    [
        ("animegan", 8, "instance", 3_956_096),
        ("animeganv2", 4, "layer", 2_143_552),
        ("cartoongan", 8, "instance", 11_124_352),
    ],
)
def test_generators_have_the_published_sizes(
    layout: Layout, num_blocks: int, norm: SampleNormName, expected: int
) -> None:
    assert count(build(StyleConfig(layout=layout, num_blocks=num_blocks, norm=norm))["generator"]) == expected


def test_lwcomicgan_is_not_larger_than_published_and_has_the_total_with_a_third_parameter_in_its_blocks() -> None:
    networks = build(StyleConfig())
    inside = [m for name, m in networks["generator"].named_modules() if isinstance(m, LIN) and name.count(".") > 2]
    blocks = [m for m in inside if m.weight.numel() in (256, 512)]
    assert count(networks["generator"]) == 2_791_296 < 2_796_416
    residual = [
        module
        for block in networks["generator"].blocks  # type: ignore[union-attr]
        if type(block).__name__ == "Inverted"
        for module in block.modules()
        if isinstance(module, LIN)
    ]
    assert len(residual) == 12
    assert {id(m) for m in residual} <= {id(m) for m in blocks}
    assert count(networks["generator"]) + sum(m.weight.numel() for m in residual) == 2_796_416


def test_the_tiny_one_has_less_than_half_a_million() -> None:
    assert count(build(StyleConfig(width=24))["generator"]) == 405_456


def test_cartoongan_is_published_with_its_critic() -> None:
    """13,253,452 is printed; 12,253,152 is what generator and critic have, and differs from it in two digits."""
    config = StyleConfig(
        layout="cartoongan", num_blocks=8, norm="instance", critic_spectral=False, critic_instance=True
    )
    networks = build(config)
    assert count(networks["generator"]) + count(networks["critic"]) == 12_253_152
    assert count(build(StyleConfig())["critic"]) == 1_127_520


@pytest.mark.parametrize(("layout", "num_blocks", "norm"), LAYOUTS)
def test_any_size_comes_back_as_it_was(layout: Layout, num_blocks: int, norm: SampleNormName) -> None:
    generator = small(layout, norm)["generator"].eval()
    for height, width in ((1, 1), (5, 3), (33, 47), (64, 32)):
        made = generator(torch.rand(2, 3, height, width)).detach()
        assert made.shape == (2, 3, height, width)
        assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_a_sample_does_not_depend_on_its_batch() -> None:
    generator = small("lwcomicgan", "lin")["generator"].double().eval()
    images = torch.rand(3, 3, 32, 40, dtype=torch.float64)
    images[1] *= 0.1  # so that not all choose alike
    together, alone = generator(images), torch.cat([generator(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(0, 3, 8, 8), [torch.rand(3, 8, 8)]]
)
def test_what_is_no_batch_of_one_size_is_refused_in_words(wrong: Tensor) -> None:
    generator = small("lwcomicgan", "lin")["generator"]
    with pytest.raises(ShapeError, match=r"the pictures must be a tensor \(B, 3, H, W\).*Stack RGB pictures"):
        generator(wrong)


@pytest.mark.parametrize("options", [{"size_px": 16}, {"width": 7}, {"width": 4}, {"critic_width": 1}])
def test_senseless_settings_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ParamsError):
        StyleConfig(**options)  # type: ignore[arg-type]


def test_the_critic_scores_patches_without_bounds() -> None:
    critic = small("lwcomicgan", "lin")["critic"]
    assert critic(torch.rand(2, 3, 32, 48)).shape == (2, 1, 8, 12)


def lin_by_hand(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, list[tuple[float, float]]]:
    """Equation 7 in plain loops over a (B, C, H, W) batch."""
    made, scores = torch.empty_like(x), []
    batch, channels, height, width = x.shape
    for b in range(batch):
        everything = [float(v) for v in x[b].flatten()]
        mean_l = math.fsum(everything) / len(everything)
        var_l = math.fsum((v - mean_l) ** 2 for v in everything) / len(everything)
        means, variances, instance = [], [], []
        for c in range(channels):
            values = [float(v) for v in x[b, c].flatten()]
            mean = math.fsum(values) / len(values)
            var = math.fsum((v - mean) ** 2 for v in values) / len(values)
            means.append(mean)
            variances.append(var)
            instance += [abs(v - mean) / (var + eps) for v in values]
        layer = [abs(v - mean_l) / (var_l + eps) for v in everything]
        score = (math.fsum(instance) / len(instance), math.fsum(layer) / len(layer))
        scores.append(score)
        for c in range(channels):
            mean, var = (means[c], variances[c]) if score[0] > score[1] else (mean_l, var_l)
            made[b, c] = (x[b, c] - mean) / math.sqrt(var + eps) * weight[c] + bias[c]
    return made, scores


def lin_input() -> Tensor:
    """One sample of alike channels that differ in their level, one with two quiet channels, one of zeros."""
    torch.manual_seed(3)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    x[0] *= torch.tensor([3.0, 0.5, 2.5, 4.0])[:, None, None]
    x[1, :2] *= 0.05
    x[1, 2] += 7
    x[2] = 0
    return x


def test_lin_equals_equation_7_written_out() -> None:
    x, layer = lin_input(), LIN(4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -1.0, 2.0, 1.5]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -2.0, 0.25]))
    wanted, scores = lin_by_hand(x, layer.weight.detach(), layer.bias.detach(), layer.eps)
    torch.testing.assert_close(layer(x).detach(), wanted, rtol=1e-10, atol=1e-10)
    choice = layer.choice(x)
    torch.testing.assert_close(choice.instance, torch.tensor([one for one, _ in scores], dtype=torch.float64))
    torch.testing.assert_close(choice.layer, torch.tensor([one for _, one in scores], dtype=torch.float64))


def test_lin_chooses_each_of_both_and_leaves_constant_samples_finite() -> None:
    torch.manual_seed(0)
    layer = LIN(4).double()
    uneven = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    uneven[:, 0] *= 0.01  # a quiet channel has large scores of its own
    # as a whole map heavy tails: quiet everywhere but in one loud channel, whose few values carry the variance
    heavy = torch.zeros(1, 4, 16, 16, dtype=torch.float64)
    heavy[..., :8] = 1.0
    heavy = heavy * torch.tensor([1.0, 1.0, 1.0, 1.0])[:, None, None] + torch.randn_like(heavy) * 1e-3
    assert layer.choice(uneven).is_instance.tolist() == [True]
    for x, wanted in ((uneven, InstanceNorm(4)), (torch.zeros(1, 4, 8, 8).double(), LayerNorm(4))):
        torch.testing.assert_close(layer(x).detach(), wanted.double()(x).detach())
    assert bool(layer(heavy).isfinite().all())


def test_lin_passes_gradcheck_on_either_side() -> None:
    torch.manual_seed(1)
    layer = LIN(3).double()
    nn.init.normal_(layer.weight)
    first = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    quiet = first.clone()
    quiet[:, 0] *= 0.1
    sides = set()
    for x in (first, quiet, torch.rand(1, 3, 4, 4, dtype=torch.float64).round() * 3 + first * 1e-2):
        sides.add(bool(layer.choice(x).is_instance))
        assert torch.autograd.gradcheck(layer, (x.requires_grad_(True),))
    assert True in sides


def test_what_lin_chose_can_be_seen_for_each_layer_and_sample() -> None:
    generator = small("lwcomicgan", "lin")["generator"].eval()
    layers = [name for name, module in generator.named_modules() if isinstance(module, LIN)]
    with choices(generator) as seen:
        generator(torch.rand(2, 3, 32, 32))
        assert sorted(seen) == sorted(layers)
        assert all(choice.is_instance.shape == (2,) for choice in seen.values())
    seen.clear()
    generator(torch.rand(2, 3, 32, 32))
    assert not seen


@pytest.mark.parametrize(("name", "theirs"), [("instance", nn.InstanceNorm2d), ("layer", None)])
def test_instance_and_layer_normalisation_are_torchs(name: SampleNormName, theirs: type[nn.Module] | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 7) * 3 + 1
    ours = NORMS[name](6)
    other = theirs(6, affine=True) if theirs is not None else nn.GroupNorm(1, 6)  # type: ignore[call-arg]
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    other.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), other(x), rtol=1e-5, atol=1e-5)


def test_given_statistics_stand_in_for_the_samples_own() -> None:
    whole = torch.randn(1, 4, 8, 8)
    for kind in NORMS.values():
        layer = kind(4)
        wanted = layer(whole)
        layer.given = Statistics(*(part.detach() for part in layer.statistics(whole)))
        torch.testing.assert_close(layer(whole[..., :4]), wanted[..., :4])
