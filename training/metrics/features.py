"""The embedded judge of pictures: EfficientNet-lite0 with its classifier. A judge gives features and class scores."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ShapeError, must
from models.perceptual import build_perceptual, lite0_file

SIDE_PX = 224
"""Of the pictures that the embedded judge was trained on; all are scaled to it."""
CONTENT_LEVEL = 4
"""Of the backbone's five: the content loss's."""
FEATURE_SCALE = 0.25
"""Of the embedded judge's features: their mean square is then about 0.2. KID's kernel ``(x y / D + 1)^3`` is not free
of scale: of the means as they are (3) its cube makes the figure a matter of a few pictures."""
_TF_EPSILON = 1e-3


class Look(NamedTuple):
    """What a judge says of a picture, float32."""

    features: np.ndarray
    """(D,)."""
    logits: np.ndarray
    """Class scores before the softmax, (classes,)."""


class FeatureNetwork(Protocol):
    """A judge of single pictures."""

    @property
    def name(self) -> str:
        """As metrics carry it."""

    def look(self, picture: np.ndarray) -> Look:
        """Features and class scores of a picture, uint8 RGB, (H, W, 3)."""


class EffnetLite0:
    """EfficientNet-lite0 as published, with 320 features (a quarter of its last level's means) and its 1000 classes.

    Pictures of any size are scaled to 224 x 224 (bilinear, averaged where they shrink). They are looked at one by one,
    so what is found does not depend on which are looked at together.
    """

    name = "effnet-lite0"

    def __init__(self, device: torch.device | None = None) -> None:
        """Read the installed package's weight file.

        Args:
            device: where it computes; the CPU by default.

        Raises:
            EnvironmentProblem: the package is not installed.
            CheckpointError: its file is another's.
        """
        self.device = device or torch.device("cpu")
        self._backbone = build_perceptual("effnet-lite0").to(self.device)
        self.sha256 = self._backbone.sha256
        state = torch.load(lite0_file(), map_location="cpu", weights_only=True)
        scale = state["_bn1.weight"] / torch.sqrt(state["_bn1.running_var"] + _TF_EPSILON)
        shift = state["_bn1.bias"] - state["_bn1.running_mean"] * scale
        self._head = (state["_conv_head.weight"] * scale[:, None, None, None]).to(self.device), shift.to(self.device)
        self._classes = state["_fc.weight"].to(self.device), state["_fc.bias"].to(self.device)

    def look(self, picture: np.ndarray) -> Look:
        """Features (320,) and class scores (1000,) of a picture, uint8 RGB, (H, W, 3).

        Raises:
            ShapeError: another shape or type.
        """
        return self.look_with_content(picture)[0]

    @torch.inference_mode()
    def look_with_content(self, picture: np.ndarray) -> tuple[Look, np.ndarray]:
        """The same, and the map by which content is compared: float32, (112, 14, 14).

        Raises:
            ShapeError: another shape or type.
        """
        levels = self._backbone(_scaled(picture).to(self.device))
        last = levels[-1]
        head = F.relu6(F.conv2d(last, *self._head)).mean((2, 3))
        look = Look(_array(last.mean((2, 3)) * FEATURE_SCALE), _array(F.linear(head, *self._classes)))
        return look, _array(levels[CONTENT_LEVEL - 1])


def as_image(picture: np.ndarray) -> Tensor:
    """A picture, uint8 RGB, (H, W, 3), as a tensor of its own, (1, 3, H, W), uint8.

    Raises:
        ShapeError: another shape or type.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ShapeError(must("a picture", "be uint8 RGB, (H, W, 3)", f"{picture.dtype} {picture.shape}"))
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())


def _scaled(picture: np.ndarray) -> Tensor:
    image = as_image(picture).float() / 255
    return F.interpolate(image, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True, align_corners=False)


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values[0].float().cpu().numpy())
