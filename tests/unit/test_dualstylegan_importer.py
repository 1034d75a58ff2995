"""Published DualStyleGAN files: every entry arrives, pictures are the same, other files are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from face_files_kit import published_discriminator, published_dualstyle, published_generator, scrambled, write
from torch import Tensor

from models.errors import CheckpointError
from models.importers import dualstylegan
from models.style.dualstylegan import DualStyleGenerator, default_weights
from models.style.face_config import FaceConfig
from models.style.stylegan2.discriminator import Discriminator

CONFIG = FaceConfig(
    size_px=64, style_dim=16, mapping_layers=3, max_channels=24, channel_multiplier=0.03125, structure_layers=5
)


def made() -> DualStyleGenerator:
    network = scrambled(DualStyleGenerator(CONFIG))
    assert isinstance(network, DualStyleGenerator)
    network.generator.mean_style.zero_()
    return network


def test_every_entry_arrives_and_the_picture_is_the_same(tmp_path: Path) -> None:
    network = made()
    found = dualstylegan.inspect(write(tmp_path / "generator.pt", {"g_ema": published_dualstyle(network)}))
    assert found.config == CONFIG
    assert not found.has_mean
    (generator,) = found.networks().values()
    for key, value in generator.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key
    lines = found.report.lines()
    assert lines[0] == "generator.pt (DualStyleGAN)"
    assert any(line.startswith("structure_layers") and " 5 " in line for line in lines)
    assert found.report.networks[0].taken == len(network.state_dict())
    assert found.report.kernels == 8
    codes = torch.randn(2, 2, CONFIG.num_styles, CONFIG.style_dim)
    weights = default_weights(CONFIG)
    assert torch.equal(generator(*codes, weights, psi=0.75), network(*codes, weights, psi=0.75))


def test_the_discriminator_and_the_mean_come_along_where_they_are(tmp_path: Path) -> None:
    network, critic, mean = made(), scrambled(Discriminator(CONFIG)), torch.arange(16.0)
    content = {
        "g_ema": published_dualstyle(network),
        "g": published_dualstyle(network),
        "d": published_discriminator(critic),
        "latent_avg": mean,
    }
    found = dualstylegan.inspect(write(tmp_path / "x.pt", content))
    networks = found.networks()
    assert sorted(networks) == ["discriminator", "generator"]
    assert torch.equal(networks["generator"].state_dict()["generator.mean_style"], mean)
    for key, value in networks["discriminator"].state_dict().items():
        assert torch.equal(value, critic.state_dict()[key]), key
    assert found.has_mean
    assert found.report.ignored == ("g",)


def test_networks_that_are_there_are_filled(tmp_path: Path) -> None:
    network = made()
    path = write(tmp_path / "x.pt", {"g_ema": published_dualstyle(network)})
    fresh = DualStyleGenerator(CONFIG)
    dualstylegan.load_into({"generator": fresh}, path)
    assert torch.equal(fresh.generator.input.input, network.generator.input.input)
    with pytest.raises(CheckpointError, match="must hold the discriminator; got .*'generator'"):
        dualstylegan.load_into({"discriminator": Discriminator(CONFIG)}, path)
    other = DualStyleGenerator(replace(CONFIG, structure_layers=3))
    with pytest.raises(
        CheckpointError, match=r"g_ema: .*missing.*unexpected.*Build the networks with the file's sizes"
    ):
        dualstylegan.load_into({"generator": other}, path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"res.2.norm.style.bias": None}, r"g_ema: 1 missing \(residuals.2.norm.style.bias\), \d+ that fit"),
        ({"res.10.weight": torch.zeros(16, 16)}, r"1 unexpected \(residuals.10.weight\)"),
        (
            {"style.2.weight": torch.zeros(2, 2)},
            r"1 of another shape \(style.2.weight \(2, 2\) instead of \(16, 16\)\)",
        ),
        ({"res.4.conv.0.weight": None}, "structure_layers must be odd"),
        ({"generator.input.input": None}, "must be a generator of StyleGAN2; got no input.input"),
        ({"res.9.weight": torch.full((16, 16), float("nan"))}, "res.9.weight must be a tensor of finite numbers"),
        ({"generator.convs.0.conv.blur.kernel": torch.ones(4, 4)}, r"must be the kernel of \[1, 3, 3, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_entries(
    tmp_path: Path, entries: dict[str, Tensor | None], words: str
) -> None:
    state = {**published_dualstyle(made()), **entries}
    content = {"g_ema": {key: value for key, value in state.items() if value is not None}}
    with pytest.raises(CheckpointError, match=words):
        dualstylegan.inspect(write(tmp_path / "x.pt", content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            lambda: {"g_ema": published_generator(made().generator)},
            r"got no res\.\* among \d+ entries \(style.1.weight",
        ),
        (lambda: {"state_dict": {}}, "must be a checkpoint of DualStyleGAN; got a checkpoint of one network"),
        (lambda: {}, "must be a checkpoint of DualStyleGAN; got an empty dict"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        dualstylegan.inspect(write(tmp_path / "x.pt", content()))
