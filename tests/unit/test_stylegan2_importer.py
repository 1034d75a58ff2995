"""Published StyleGAN2 files: every key accounted for, sizes from shapes, other files refused with their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.importers import stylegan2
from models.style.face_config import FaceConfig
from models.style.stylegan2.build import build_gan

NAN = float("nan")
CONFIG = FaceConfig(size_px=64, style_dim=16, mapping_layers=3, max_channels=24, channel_multiplier=0.03125)


def networks(config: FaceConfig = CONFIG, seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    made = build_gan(config)
    for network in made.values():
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    return made


def kernel(gain: float) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64 * gain


def published_generator(network: nn.Module) -> dict[str, Tensor]:
    """Modulated weights have an axis of samples, blurs and doublings their kernels."""
    state = {}
    for key, value in network.state_dict().items():
        if key == "mean_style":
            continue
        is_modulated = key.endswith("conv.weight")
        state[key] = value[None].clone() if is_modulated else value.clone()
        if is_modulated and key.startswith("convs.") and int(key.split(".")[1]) % 2 == 0:
            state[key.replace("conv.weight", "conv.blur.kernel")] = kernel(4)
        if is_modulated and key.startswith("to_rgbs."):
            state[key.replace("conv.weight", "upsample.kernel")] = kernel(4)
    return state


def published_discriminator(network: nn.Module) -> dict[str, Tensor]:
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith((".conv2.1.weight", ".skip.1.weight")):
            state[key.replace(".1.weight", ".0.kernel")] = kernel(1)
        state[key] = value.clone()
    return state


def content(made: dict[str, nn.Module]) -> dict[str, Any]:
    return {
        "g_ema": published_generator(made["generator"]),
        "latent_avg": torch.arange(CONFIG.style_dim).float(),
        "d": published_discriminator(made["discriminator"]),
    }


def write(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def test_every_entry_arrives_and_the_sizes_are_found(tmp_path: Path) -> None:
    made = networks()
    given = content(made)
    found = stylegan2.inspect(write(tmp_path / "x.pt", given))
    assert found.config == CONFIG
    for name, network in found.networks().items():
        for key, value in network.state_dict().items():
            wanted = given["latent_avg"] if key == "mean_style" else made[name].state_dict()[key]
            assert torch.equal(value, wanted), key
    taken = {row.network: row.taken for row in found.report.networks}
    num_given = len(given["g_ema"]) + len(given["d"])
    assert sum(taken.values()) + found.report.kernels == num_given + 1  # and the mean style
    assert found.report.kernels == 4 + 4 + 2 * 4
    assert found.report.ignored == ()
    assert "generator" in "\n".join(found.report.lines())


def test_pictures_are_those_of_the_published_weights(tmp_path: Path) -> None:
    made = networks()
    found = stylegan2.inspect(write(tmp_path / "x.pt", content(made)))
    z = torch.randn(2, CONFIG.style_dim)
    assert torch.equal(found.networks()["generator"](z), made["generator"](z))


@pytest.mark.parametrize(
    "config",
    [
        FaceConfig(),
        FaceConfig(size_px=1024),
        FaceConfig(channel_multiplier=1.0, size_px=512, mapping_layers=4),
        FaceConfig(size_px=32, max_channels=16),
    ],
)
def test_sizes_are_read_off_the_shapes(config: FaceConfig) -> None:
    with torch.device("meta"):
        state = build_gan(config)["generator"].state_dict()
    assert stylegan2.config_of(state, where="x") == config


def test_a_generator_alone_is_enough_and_what_is_missing_is_said(tmp_path: Path) -> None:
    given = {"g_ema": content(networks())["g_ema"], "g": {}, "iter": 5}
    found = stylegan2.inspect(write(tmp_path / "x.pt", given))
    assert set(found.states) == {"generator"}
    assert not found.has_mean
    assert not found.states["generator"]["mean_style"].any()
    assert found.report.ignored == ("g", "iter")
    assert "no mean style" in found.report.notes[0]
    assert "before averaging" in found.report.notes[1]


def test_into_networks_that_are_there(tmp_path: Path) -> None:
    made, fresh = networks(), networks(seed=1)
    path = write(tmp_path / "x.pt", content(made))
    stylegan2.load_into(fresh, path)
    z = torch.randn(2, CONFIG.style_dim)
    assert torch.equal(fresh["generator"](z), made["generator"](z))
    wider = networks(FaceConfig(size_px=32, style_dim=16, mapping_layers=3, max_channels=24))
    before = {key: value.clone() for key, value in wider["generator"].state_dict().items()}
    with pytest.raises(CheckpointError, match="Build the networks with the file's sizes"):
        stylegan2.load_into(wider, path)
    assert all(torch.equal(value, before[key]) for key, value in wider["generator"].state_dict().items())
    with pytest.raises(CheckpointError, match="must hold the discriminator"):
        stylegan2.load_into(fresh, write(tmp_path / "y.pt", {"g_ema": content(made)["g_ema"]}))


def without(given: dict[str, Any], key: str) -> None:
    del given["g_ema"][key]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("g_ema"), "must be a checkpoint of StyleGAN2; got a dict of latent_avg, d"),
        (lambda c: without(c, "convs.2.noise.weight"), r"g_ema: 1 missing \(convs.2.noise.weight\)"),
        (lambda c: without(c, "style.1.weight"), "g_ema must be a generator of StyleGAN2; got no style.1.weight"),
        (lambda c: c["g_ema"].update({"res.0.conv.weight": torch.zeros(2)}), r"1 unexpected \(res.0.conv.weight\)"),
        (
            lambda c: c["g_ema"].update({"conv1.activate.bias": torch.zeros(5)}),
            r"conv1.activate.bias \(5,\) instead of",
        ),
        (lambda c: c["g_ema"].update({"input.input": torch.full((1, 24, 4, 4), NAN)}), "got not finite"),
        (lambda c: c["g_ema"].update({"convs.0.conv.blur.kernel": torch.ones(4, 4)}), r"the kernel of \[1, 3, 3, 1\]"),
        (lambda c: c["d"].update({"convs.1.skip.0.kernel": torch.ones(2, 2)}), r"the kernel of \[1, 3, 3, 1\]"),
        (lambda c: c.update({"latent_avg": torch.zeros(3)}), "latent_avg must be one code of 16 numbers"),
        (lambda c: c.update({"g_ema": {"generator.style.1.weight": torch.zeros(2, 2)}}), "generator.style.1.weight"),
    ],
)
def test_other_files_are_refused_with_their_keys(change: Any, message: str, tmp_path: Path) -> None:
    given = content(networks())
    change(given)
    with pytest.raises(CheckpointError, match=message):
        stylegan2.inspect(write(tmp_path / "x.pt", given))
