"""The served style model: any size, any strength, wrong input in words, alone without the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.export_style import export_style
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator
from pipelines.served.style import Array, StyleModel, StyleSession
from pipelines.style_engines import TorchStyle

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def network() -> StyleGenerator:
    torch.manual_seed(0)
    return StyleGenerator(StyleConfig(width=8, num_blocks=1))


@pytest.fixture(scope="module")
def onnx(network: StyleGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("style") / "style.onnx"
    export_style(network, StyleConfig(width=8, num_blocks=1), path)
    return path


@pytest.fixture(scope="module")
def session(onnx: Path) -> StyleSession:
    return StyleSession(onnx, providers=CPU)


def photos(count: int, height: int, width: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (33, 46), (64, 32)])
def test_any_size_is_drawn_as_torch_draws_it(
    session: StyleSession, network: StyleGenerator, height: int, width: int
) -> None:
    pictures = photos(2, height, width)
    drawn = session.stylise(pictures)
    assert (drawn.shape, drawn.dtype) == ((2, height, width, 3), np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(drawn, wanted.numpy(), atol=1e-4)


def test_tiles_and_statistics_are_those_of_torch(session: StyleSession, network: StyleGenerator) -> None:
    engine, pictures = TorchStyle(network, device="cpu"), photos(1, 230, 210)
    np.testing.assert_allclose(session.stylise(pictures, tile_px=192), engine.stylise(pictures, tile_px=192), atol=1e-4)
    measured = session.measure(pictures[0])
    np.testing.assert_allclose(measured, engine.measure(pictures[0]), atol=1e-4, rtol=1e-3)
    other = session.stylise(pictures // 2, given=measured)
    np.testing.assert_allclose(other, engine.stylise(pictures // 2, given=measured), atol=1e-4)
    with pytest.raises(ValueError, match="given statistics must be those of this model.*Measure them"):
        session.stylise(pictures, given=measured[..., 1:])


@pytest.mark.parametrize("tile_px", [None, 192])
def test_strength_leads_from_the_photo_to_the_drawing(session: StyleSession, tile_px: int | None) -> None:
    pictures = photos(2, 20, 200)
    none, half, all_ = (session.stylise(pictures, strength=s, tile_px=tile_px) for s in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal((none * 255).round().astype(np.uint8), pictures)
    np.testing.assert_array_equal(none, pictures.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(half, (none + all_) / 2, atol=1e-6)


WRONG = {
    "a list of sizes": ([photos(1, 8, 8)[0], photos(1, 8, 12)[0]], {}, r"pictures of one size.*in another call"),
    "floats": (photos(1, 8, 8) / 255, {}, "photo must be a numpy array of uint8; got float64"),
    "one picture": (photos(1, 8, 8)[0], {}, r"photo must be RGB pictures \(N, H, W, 3\).*x\[None\]"),
    "alpha": (np.zeros((1, 8, 8, 4), np.uint8), {}, "drop an alpha channel"),
    "none": (photos(0, 8, 8), {}, "at least one pixel"),
    "too strong": (photos(1, 8, 8), {"strength": 1.5}, "strength must be from 0 .* got 1.5"),
    "no number": (photos(1, 8, 8), {"strength": float("nan")}, "strength must be .* got nan"),
    "small tiles": (photos(1, 8, 8), {"tile_px": 16}, "tile_px must be 192 or more; got 16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_words(session: StyleSession, name: str) -> None:
    pictures, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        session.stylise(pictures, **options)


def test_the_pyfunc_predicts(onnx: Path, session: StyleSession) -> None:
    model, pictures = StyleModel(), photos(2, 12, 16)
    model.load_context(SimpleNamespace(artifacts={"style": str(onnx)}))
    np.testing.assert_allclose(model.predict(None, {"photo": pictures}), session.stylise(pictures), atol=1e-5)
    half = model.predict(None, {"photo": pictures}, params={"strength": 0.5, "tile_px": 0})
    np.testing.assert_allclose(half, session.stylise(pictures, strength=0.5), atol=1e-5)
    for wrong, got in ((pictures, "ndarray"), ({"source": pictures}, "source")):
        with pytest.raises(ValueError, match=f"the input must be a dict .* named photo; got .*{got}"):
            model.predict(None, wrong)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    from onnxscript import ir

    value = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([1]))
    node = ir.node("Identity", [value])
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = "y", value.dtype, value.shape
    graph = ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="other")
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="must have inputs photo, given and part; got .*Register the model again"):
        StyleSession(tmp_path / "other.onnx", providers=CPU)


def test_it_imports_nothing_of_the_project(root: Path) -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "found = {name.split('.')[0] for name in sys.modules} & {'models', 'pipelines', 'training', 'torch'}; "
        "assert not found, found"
    )
    path = root / "pipelines" / "served" / "style.py"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
