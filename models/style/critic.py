"""The critic of stylised pictures: how much is this patch like the style?"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from models.layers.precision import wide
from models.layers.sample_norms import InstanceNorm
from models.layers.spectral import SpectralConv2d
from models.style.blocks import LEAK
from models.style.config import StyleConfig


class StyleCritic(nn.Module):
    """A patch critic: 3x3 convolutions without biases, two halvings (Chen et al., CartoonGAN, CVPR 2018, figure 2b).

    With spectral normalisation and without any other, so that a gradient penalty sees each sample by itself.
    """

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        first, norm = config.critic_width, config.critic_instance
        spectral = {"spectral": config.critic_spectral}
        layers: list[nn.Module] = [_Layer(3, first // 2, norm=False, **spectral)]
        for before, middle in ((first // 2, first), (2 * first, 2 * first)):
            layers.append(_Layer(before, middle, norm=False, stride=2, **spectral))
            layers.append(_Layer(middle, 2 * middle, norm=norm, **spectral))
        layers.append(_Layer(4 * first, 4 * first, norm=norm, **spectral))
        self.layers = nn.Sequential(*layers)
        self.score = _conv(4 * first, 1, **spectral)

    def forward(self, image: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            image: in [0, 1], (B, 3, H, W).

        Returns:
            A value for each patch, (B, 1, H / 4, W / 4), without bounds; higher is more like the style.
        """
        return wide(self.score(self.layers(image * 2 - 1)))


class _Layer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, norm: bool, spectral: bool, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, spectral=spectral, stride=stride)
        self.norm = InstanceNorm(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        x = self.conv(x)
        return leaky_relu(x if self.norm is None else self.norm(x), LEAK)


def _conv(in_channels: int, out_channels: int, *, spectral: bool, stride: int = 1) -> nn.Module:
    kind = SpectralConv2d if spectral else nn.Conv2d
    return kind(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
