"""Published pSp files: every entry arrives, sizes are told by shapes, other files are refused with their entries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from face_files_kit import published_encoder, scrambled, write
from torch import Tensor

from models.errors import CheckpointError
from models.importers import psp
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from models.style.stylegan2.generator import Generator

CONFIG = FaceConfig(
    size_px=64,
    style_dim=16,
    mapping_layers=3,
    max_channels=24,
    channel_multiplier=0.03125,
    encoder_px=64,
    encoder_width=4,
    encoder_units=(1, 2, 3, 1),
)
OPTIONS = {"start_from_latent_avg": True, "output_size": 64, "checkpoint_path": None}
MEAN = torch.arange(float(CONFIG.num_styles * CONFIG.style_dim)).reshape(CONFIG.num_styles, CONFIG.style_dim)


def made() -> tuple[Encoder, Generator]:
    encoder, generator = scrambled(Encoder(CONFIG)), scrambled(Generator(CONFIG), 1)
    assert isinstance(encoder, Encoder)
    assert isinstance(generator, Generator)
    return encoder, generator


def test_every_entry_arrives_and_the_sizes_are_told(tmp_path: Path) -> None:
    encoder, generator = made()
    path = write(tmp_path / "encoder.pt", published_encoder(encoder, generator))
    found = psp.inspect(path)
    assert found.config == CONFIG
    networks = found.networks()
    for name, wanted in (("encoder", encoder), ("generator", generator)):
        given = wanted.state_dict()
        for key, value in networks[name].state_dict().items():
            counted_or_mean = key.endswith("num_batches_tracked") or key in ("mean_code", "mean_style")
            assert torch.equal(value, torch.zeros_like(value) if counted_or_mean else given[key]), key
    rows = {row.network: row for row in found.report.networks}
    assert rows["encoder"].counters == 18
    assert rows["encoder"].taken == len(encoder.state_dict()) - 18
    assert any("encoder_units" in line and "(1, 2, 3, 1)" in line for line in found.report.lines())
    assert found.report.lines()[0] == "encoder.pt (pSp)"
    faces = torch.rand(2, 3, 64, 64)
    encoder.mean_code.zero_()
    torch.testing.assert_close(networks["encoder"](faces), encoder(faces))


def test_an_encoder_comes_without_a_decoder_too(tmp_path: Path) -> None:
    found = psp.inspect(write(tmp_path / "x.pt", published_encoder(made()[0], None)))
    assert list(found.networks()) == ["encoder"]
    assert found.config.encoder_units == CONFIG.encoder_units


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"latent_avg": MEAN, "opts": OPTIONS}, MEAN),
        ({"latent_avg": MEAN[0], "opts": OPTIONS}, MEAN[0]),
        ({"latent_avg": MEAN, "opts": {"start_from_latent_avg": False}}, 0 * MEAN),
        ({"latent_avg": MEAN}, 0 * MEAN),
        ({"opts": OPTIONS}, 0 * MEAN),
    ],
)
def test_the_mean_is_added_where_the_file_says_so(tmp_path: Path, more: dict[str, Any], wanted: Tensor) -> None:
    encoder, generator = made()
    found = psp.inspect(write(tmp_path / "x.pt", published_encoder(encoder, generator, **more)))
    assert torch.equal(found.states["encoder"]["mean_code"], wanted.expand(CONFIG.num_styles, -1))
    is_added = bool(wanted.any())
    assert any("latent_avg is added" in line for line in found.report.lines()) == is_added


def test_in_w_the_mean_is_the_generators_too(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", published_encoder(*made(), latent_avg=MEAN[1].expand_as(MEAN), opts=OPTIONS))
    found = psp.inspect(path, space="w+")
    encoder, generator = found.networks().values()
    assert isinstance(encoder, Encoder)
    assert encoder.space == "w+"
    assert torch.equal(generator.state_dict()["mean_style"], MEAN[1])


def test_networks_that_are_there_are_filled(tmp_path: Path) -> None:
    encoder, generator = made()
    path = write(tmp_path / "x.pt", published_encoder(encoder, generator))
    fresh = Encoder(CONFIG)
    report = psp.load_into({"encoder": fresh}, path)
    assert report.networks[0].taken == len(psp.inspect(path).states["encoder"]) - 18
    assert torch.equal(fresh.latlayer1.weight, encoder.latlayer1.weight)
    other = Encoder(replace(CONFIG, encoder_width=8))
    before = other.latlayer1.weight.clone()
    with pytest.raises(CheckpointError, match=r"state_dict: encoder: .* of another shape .*Build the networks with"):
        psp.load_into({"encoder": other}, path)
    assert torch.equal(other.latlayer1.weight, before)


def changed(content: dict[str, Any], **entries: Tensor | None) -> dict[str, Any]:
    """The checkpoint with some entries replaced, or left out."""
    state = {**content["state_dict"], **{key.replace("__", "."): value for key, value in entries.items()}}
    return {**content, "state_dict": {key: value for key, value in state.items() if value is not None}}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"encoder__latlayer2__bias": None}, r"state_dict: encoder: 1 missing \(latlayer2.bias\), \d+ that fit"),
        ({"encoder__extra": torch.zeros(1)}, r"1 unexpected \(extra\)"),
        ({"encoder__latlayer1__weight": torch.zeros(1, 2)}, r"1 of another shape \(latlayer1.weight \(1, 2\) instead"),
        ({"encoder__body__1__res_layer__1__weight": torch.tensor(1.0)}, "must be pSp's; got .*encoder_units"),
        ({"encoder__latlayer1__bias": torch.full((32,), float("nan"))}, "latlayer1.bias must be .*got not finite"),
        (
            {"encoder__styles__9__linear__weight": None},
            "must hold an encoder and a decoder that fit; got 9 codes for 32 px, and a decoder of 64 px",
        ),
        ({"face_pool__weight": torch.zeros(1)}, "must hold pSp's encoder and decoder alone; got .*face_pool.weight"),
        ({"encoder__input_layer__0__weight": None}, "must be a gradual style encoder of pSp .*no input_layer.0.weight"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_entries(
    tmp_path: Path, entries: dict[str, Tensor | None], words: str
) -> None:
    path = write(tmp_path / "x.pt", changed(published_encoder(*made()), **entries))
    with pytest.raises(CheckpointError, match=words):
        psp.inspect(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"g_ema": {}}, "must be a checkpoint of pSp; got a checkpoint of StyleGAN2.*networks in state_dict"),
        ({"state_dict": {}}, "must hold pSp's encoder and decoder alone; got no entries"),
        ({"state_dict": {"conv.weight": torch.zeros(1)}}, "got 1 entries, among them conv.weight"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        psp.inspect(write(tmp_path / "x.pt", content))


@pytest.mark.parametrize("mean", [torch.zeros(3), torch.full((16,), float("inf")), "mean"])
def test_a_strange_mean_is_refused(tmp_path: Path, mean: Any) -> None:
    path = write(tmp_path / "x.pt", published_encoder(*made(), latent_avg=mean))
    with pytest.raises(CheckpointError, match="latent_avg must be one code of 16 numbers, or 10 of them"):
        psp.inspect(path)
