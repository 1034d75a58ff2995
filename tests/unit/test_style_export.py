"""The exported style graph computes what the network computes, for every layout, in every part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ShapeError
from models.export_style import export_style
from models.layers.sample_norms import SampleNormName, num_statistics, packed, recording, sample_norms, using
from models.style.config import Layout, StyleConfig
from models.style.generator import StyleGenerator
from models.style.networks import debug_config

LAYOUTS: tuple[tuple[Layout, SampleNormName], ...] = (
    ("lwcomicgan", "lin"),
    ("lwcomicgan", "layer"),
    ("animegan", "instance"),
    ("animeganv2", "layer"),
    ("cartoongan", "instance"),
    ("cyclegan", "instance"),
)


def made(layout: Layout = "lwcomicgan", norm: SampleNormName = "lin", *, width: int = 8) -> StyleGenerator:
    """A generator whose normalisations scale and shift, in eval mode."""
    torch.manual_seed(0)
    small = debug_config(StyleConfig(layout=layout, norm=norm))
    config = StyleConfig(layout=layout, norm=norm, width=width, num_blocks=small.num_blocks)
    generator = StyleGenerator(config).eval()
    with torch.no_grad():
        for layer in sample_norms(generator):
            layer.weight.add_(torch.randn_like(layer.weight) * 0.2)
            layer.bias.add_(torch.randn_like(layer.bias) * 0.2)
    return generator


class Graph:
    """An opened graph, of which parts are asked for."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.num_statistics = self.session.get_inputs()[1].shape[-1]

    def part(self, number: int, photo: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Drawing and statistics; statistics that are not given are not numbers."""
        unused = torch.full((len(photo), 2, self.num_statistics), torch.nan)
        statistics = unused if given is None else given.expand(len(photo), -1, -1)
        feeds = {"photo": photo.numpy(), "given": statistics.numpy(), "part": np.array(number)}
        drawing, used = self.session.run(["drawing", "statistics"], feeds)
        return torch.from_numpy(drawing), torch.from_numpy(used)


def uneven(height: int, width: int) -> Tensor:
    """Three pictures of unlike brightness and contrast."""
    photo = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1))
    photo[1] = photo[1] * 0.1 + 0.7
    photo[2, :, : height // 2] = 0
    return photo


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("layout", "norm"), LAYOUTS)
def test_every_part_agrees_with_torch(layout: Layout, norm: SampleNormName, tmp_path: Path) -> None:
    generator = made(layout, norm)
    export_style(generator, StyleConfig(layout=layout, norm=norm), tmp_path / "style.onnx")
    graph = Graph(tmp_path / "style.onnx")
    assert graph.num_statistics == num_statistics(generator)
    for height, width in ((8, 8), (36, 52)):
        photo = uneven(height, width)
        with torch.inference_mode():
            for number, pooled in ((0, False), (1, True)):
                with recording(generator, pooled=pooled):
                    wanted, used = generator(photo), packed(generator)
                drawing, statistics = graph.part(number, photo)
                close(drawing, wanted)
                close(statistics, used.expand(3, -1, -1))
            assert float(wanted.std()) > 1e-2, "a drawing that says something"
            with using(generator, used):
                wanted = generator(photo)
        drawing, statistics = graph.part(2, photo, used)
        close(drawing, wanted)
        close(statistics, used.expand(3, -1, -1))


def test_pooled_patches_are_measured_as_one_picture() -> None:
    layer = made().blocks[0].norm  # type: ignore[union-attr]
    patches = torch.randn(4, 8, 6, 6)
    layer.pooled = True  # type: ignore[union-attr,assignment]
    together = layer.statistics(patches)  # type: ignore[union-attr,operator]
    layer.pooled = False  # type: ignore[union-attr,assignment]
    beside = torch.cat(list(patches), 2)[None]
    torch.testing.assert_close(tuple(together), tuple(layer.statistics(beside)))  # type: ignore[union-attr,operator]


def test_the_network_is_as_it_was_after_recording_and_using() -> None:
    generator, photo = made(), uneven(16, 16)
    wanted = generator(photo)
    with recording(generator, pooled=True):
        generator(photo)
        statistics = packed(generator)
    with using(generator, statistics):
        assert not torch.allclose(generator(photo), wanted, atol=1e-3)
    torch.testing.assert_close(generator(photo), wanted)
    with pytest.raises(ShapeError, match="statistics must be .*Measure them with the same network"):
        using(generator, statistics[..., 1:]).__enter__()


@pytest.mark.parametrize(("precision", "most"), [("fp32", 4.5), ("fp16", 2.4)])
def test_weights_are_stored_once(precision: str, most: float, tmp_path: Path) -> None:
    generator, path = made(width=64), tmp_path / "style.onnx"
    export_style(generator, StyleConfig(), path, precision=precision)  # type: ignore[arg-type]
    assert path.stat().st_size / sum(p.numel() for p in generator.parameters()) < most
    assert [inside.name for inside in tmp_path.iterdir()] == ["style.onnx"]


def test_16_bits_are_near(tmp_path: Path) -> None:
    generator, photo = made(), uneven(32, 32)
    export_style(generator, StyleConfig(), tmp_path / "half.onnx", precision="fp16")
    drawing, _ = Graph(tmp_path / "half.onnx").part(0, photo)
    assert float((drawing - generator(photo).detach()).abs().mean()) < 2e-3


def test_what_is_no_generator_is_refused_and_the_older_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "style.onnx"
    path.write_bytes(b"older")
    with pytest.raises(CheckpointError, match="must be a generator of the style family"):
        export_style(nn.Conv2d(3, 3, 1), StyleConfig(), path)
    strange = made()
    strange.blocks.append(nn.Sigmoid())
    with pytest.raises(CheckpointError, match="blocks.* must be a block that can be exported; got Sigmoid"):
        export_style(strange, StyleConfig(), path)
    assert path.read_bytes() == b"older"
