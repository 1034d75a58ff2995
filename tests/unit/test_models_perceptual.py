"""The frozen feature networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.errors import CheckpointError, EnvironmentProblem
from models.perceptual import EfficientNetLite0, Perceptual, Vgg19, build_perceptual, lite0_file


@pytest.fixture(scope="module")
def lite0() -> Perceptual:
    return build_perceptual("effnet-lite0")


@pytest.fixture(scope="module")
def lite0_state() -> dict[str, Tensor]:
    return torch.load(lite0_file(), map_location="cpu", weights_only=True)


def _photo(path: Path, side: int = 224) -> Tensor:
    with Image.open(path) as picture:
        short = min(picture.size)
        left, top = ((length - short) // 2 for length in picture.size)
        square = picture.convert("RGB").crop((left, top, left + short, top + short))
        pixels = np.array(square.resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


# ---- EfficientNet-lite0


@pytest.mark.parametrize(
    ("photo", "classes"),
    [("wonders_tajMahal.jpg", {668}), ("india_charminar.jpg", {668}), ("germany_brandenburgGate.jpg", {873})],
)
def test_the_backbone_recognises_what_it_was_trained_on(
    lite0: Perceptual, lite0_state: dict[str, Tensor], samples: Path, photo: str, classes: set[int]
) -> None:
    """With the file's own classifier on top: ImageNet's 668 is a mosque, 873 a triumphal arch."""
    deepest = lite0(_photo(samples / "photos" / photo))[-1]
    head = F.conv2d(deepest, lite0_state["_conv_head.weight"])
    statistics = (lite0_state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    pooled = F.relu6(F.batch_norm(head, *statistics, eps=1e-3)).mean((2, 3))
    logits = F.linear(pooled, lite0_state["_fc.weight"], lite0_state["_fc.bias"])
    assert logits.argmax().item() in classes
    assert logits.softmax(-1).max() > 0.3


@pytest.mark.parametrize("side", [32, 64, 100])
def test_five_levels(lite0: Perceptual, side: int) -> None:
    levels = lite0(torch.rand(2, 3, side, side))
    strides = (2, 4, 8, 16, 32)
    sides = []
    for _ in strides:
        side = -(-side // 2)
        sides.append(side)
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, s, s) for channels, s in zip((16, 24, 40, 112, 320), sides, strict=True)
    ]
    for level in levels:
        assert level.isfinite().all()
        assert level.std() > 0.1


def test_the_backbone_is_frozen_and_gradients_reach_the_image(lite0: Perceptual) -> None:
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    lite0.train()
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    sum(level.mean() for level in lite0(image)).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_the_backbone_names_itself_and_its_file(lite0: Perceptual) -> None:
    assert lite0.name == "effnet-lite0"
    assert lite0.sha256 == hashlib.sha256(lite0_file().read_bytes()).hexdigest()


def test_missing_and_superfluous_entries_are_refused(lite0_state: dict[str, Tensor]) -> None:
    less = {key: value for key, value in lite0_state.items() if key != "_blocks.7._bn1.bias"}
    with pytest.raises(CheckpointError, match=r"must hold _blocks\.7\._bn1\.bias"):
        EfficientNetLite0(less)
    with pytest.raises(CheckpointError, match=r"hold nothing that the network lacks; got \['_blocks.16"):
        EfficientNetLite0(lite0_state | {"_blocks.16._bn1.bias": torch.zeros(1)})


# ---- VGG-19


def _vgg_state(width: int = 4) -> dict[str, Tensor]:
    """The published layout, narrow."""
    widths = (1, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8)
    layers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    rng = torch.Generator().manual_seed(0)
    state, before = {}, 3
    for layer, relative in zip(layers, widths, strict=True):
        after = relative * width
        state[f"features.{layer}.weight"] = torch.randn(after, before, 3, 3, generator=rng) * 0.2
        state[f"features.{layer}.bias"] = torch.zeros(after)
        before = after
    return state | {"classifier.0.weight": torch.zeros(2, 2)}


def test_vgg_levels_and_file(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save(_vgg_state(), path)
    vgg = build_perceptual("vgg19", path)
    assert isinstance(vgg, Vgg19)
    assert (vgg.name, vgg.sha256) == ("vgg19", hashlib.sha256(path.read_bytes()).hexdigest())
    levels = vgg(torch.rand(1, 3, 32, 32))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
        (32, 2, 2),
    ]
    assert all(level.min() >= 0 for level in levels)


def test_a_missing_vgg_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"must be a file; got .*vgg\.pth\. Download https://"):
        build_perceptual("vgg19", tmp_path / "vgg.pth")


@pytest.mark.parametrize("content", [b"", b"not a weight file", b"\x80\x04cos\nsystem\n."])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vgg.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="must be a readable weight file"):
        build_perceptual("vgg19", path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="must hold a dict of tensors"):
        build_perceptual("vgg19", path)
