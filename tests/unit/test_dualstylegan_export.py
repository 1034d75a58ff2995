"""The exported encoder and generator compute what the networks compute, for any number of faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models import export_face
from models.errors import CheckpointError
from models.export_face import export_faces
from models.style.dualstylegan import DualStyleGenerator, modulative_blocks
from models.style.face_networks import build_dualstyle
from models.style.stylegan2.build import debug_config

CONFIG = replace(debug_config(), structure_layers=5)
NUM, DIM = CONFIG.num_styles, CONFIG.style_dim


def made() -> dict[str, nn.Module]:
    """As after a training: each part changes something, and a mean face is known."""
    torch.manual_seed(0)
    networks = build_dualstyle(CONFIG)
    generator = networks["generator"]
    assert isinstance(generator, DualStyleGenerator)
    with torch.no_grad():
        for block in modulative_blocks(generator):
            for conv in (block.conv, block.conv2):
                conv[0].weight.mul_(100)  # type: ignore[operator,union-attr]
        for name, parameter in generator.named_parameters():
            if name.endswith("noise.weight"):
                parameter.fill_(0.2)
        for module in networks["encoder"].modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        networks["encoder"].mean_code.normal_()  # type: ignore[operator,union-attr]
    generator.generator.set_mean_style(64, torch.Generator().manual_seed(0))
    return networks


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, nn.Module], Path]:
    networks, folder = made(), tmp_path_factory.mktemp("faces") / "onnx"
    networks["encoder"].eval()
    assert export_faces(networks, folder) == (folder / "encoder.onnx", folder / "generator.onnx")
    modes = {name: network.training for name, network in networks.items()}
    assert modes == {"encoder": False, "generator": True, "discriminator": True}
    return networks, folder


def run(path: Path, **feeds: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
    return torch.from_numpy(found)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_both_agree_with_torch_for_any_batch(exported: tuple[dict[str, nn.Module], Path], batch: int) -> None:
    networks, folder = exported
    draw = torch.Generator().manual_seed(batch)
    faces = torch.rand(batch, 3, CONFIG.encoder_px, CONFIG.encoder_px, generator=draw)
    outer, weights = torch.randn(batch, NUM, DIM, generator=draw), torch.rand(batch, NUM, generator=draw)
    with torch.inference_mode():
        codes = networks["encoder"](faces)
        torch.testing.assert_close(run(folder / "encoder.onnx", face=faces), codes, rtol=1e-4, atol=1e-4)
        for psi in (0.75, 1.0):
            wanted = networks["generator"](codes, outer, weights, psi=psi)
            feeds = {"intrinsic": codes, "extrinsic": outer, "weights": weights, "psi": torch.tensor(psi)}
            torch.testing.assert_close(run(folder / "generator.onnx", **feeds), wanted, rtol=1e-4, atol=1e-4)
        assert float((wanted - networks["generator"](codes, outer, weights * 0)).abs().mean()) > 1e-2


@pytest.mark.slow
def test_two_files_and_nothing_beside_them(exported: tuple[dict[str, nn.Module], Path]) -> None:
    networks, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.onnx", "generator.onnx"]
    for name in ("encoder", "generator"):
        weights = 4 * sum(value.numel() for value in networks[name].state_dict().values())
        assert weights * 0.95 < (folder / f"{name}.onnx").stat().st_size < weights + 600_000


def test_what_can_not_be_exported_is_refused_and_older_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"older")
    networks = made()
    with pytest.raises(CheckpointError, match="must hold a face encoder and DualStyleGAN's generator; got .*Encoder"):
        export_faces({"encoder": networks["encoder"]}, tmp_path)
    monkeypatch.setattr(export_face, "MAX_BYTES", export_face._ROOM + 1000)
    with pytest.raises(CheckpointError, match=r"the encoder must have less than .* to fit into one ONNX file"):
        export_faces(networks, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert (tmp_path / "encoder.onnx").read_bytes() == b"older"
