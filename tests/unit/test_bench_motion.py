"""The benchmarks of training and animation compare equals and run; how fast anything is decides nothing here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from models.layers.blocks import NarrowConv2d, UpBlock
from models.layers.resampling import AntiAliasDownsample
from models.motion.networks import build, debug_config
from training.feed import PairBatch

NAMES = ("timing", "reference", "graphs", "train_step", "animate")


@pytest.fixture(scope="module")
def bench(root: Path) -> dict[str, ModuleType]:
    """The benchmarks' modules by name, imported as the scripts import each other."""
    before = list(sys.path)
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path[:] = before


def steps(bench: dict[str, ModuleType], name: str, *options: str, count: int = 2) -> list[dict[str, float]]:
    """Losses of a variant's first steps."""
    train_step = bench["train_step"]
    parsed = train_step.parse(["--debug", "--batch", "2", *options])
    made = train_step.stepper(parsed, name, torch.device("cpu"))
    frames = bench["timing"].made_frames(4, 32, seed=3)
    pairs = PairBatch(frames[:2], frames[2:], np.arange(2))
    taken = [made.step(pairs) for _ in range(count)]
    return [{key: value for key, value in values.items() if key.startswith("loss/")} for values in taken]


@pytest.mark.parametrize(("preset", "gan"), [("fomm", "lsgan"), ("dcf", "hinge"), ("jam", "none")])
def test_the_reference_takes_the_same_steps(bench: dict[str, ModuleType], preset: str, gan: str) -> None:
    options = ("--preset", preset, "--gan", gan)
    published, mine = (steps(bench, name, *options) for name in ("reference", "fp32"))
    assert mine[0].keys() == published[0].keys()
    assert len(mine[0]) == (6 if gan != "none" else 3)
    for number, tolerance in ((0, 1e-4), (1, 5e-3)):  # the second step shows what the first one's update was
        for term, value in published[number].items():
            assert mine[number][term] == pytest.approx(value, rel=tolerance, abs=1e-6), (number, term)


def test_16_bits_are_near(bench: dict[str, ModuleType]) -> None:
    published, mine = (steps(bench, name, count=1)[0] for name in ("reference", "bf16"))
    for term, value in published.items():
        assert mine[term] == pytest.approx(value, rel=0.1), term


def test_the_reference_computes_the_long_way(bench: dict[str, ModuleType]) -> None:
    config, reference = debug_config(), bench["reference"]
    networks = build(config)
    before = {f"{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    reference.as_published(networks, config)
    modules = [module for network in networks.values() for module in network.modules()]
    assert not any(isinstance(module, UpBlock | NarrowConv2d | AntiAliasDownsample) for module in modules)
    kinds = [type(module) for module in modules]
    assert kinds.count(reference.FullSizeDownsample) == 3
    assert kinds.count(reference.DoublingUpBlock) == 6
    assert kinds.count(reference.RepeatingDenseMotion) == 1
    after = {f"{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_reference_leaves_gradients_in_the_discriminator(bench: dict[str, ModuleType]) -> None:
    train_step = bench["train_step"]
    options = train_step.parse(["--debug"])
    frames = bench["timing"].made_frames(4, 32, seed=3)
    found = {}
    for name in ("reference", "fp32"):
        made = train_step.stepper(options, name, torch.device("cpu"))
        phase = made.recipe.phases[0]
        batch = made.recipe.prepare(PairBatch(frames[:2], frames[2:], np.arange(2)))
        torch.stack(list(phase.module(batch, {}).losses.values())).sum().backward()
        weights = made.recipe.networks["discriminator"].parameters()
        found[name] = any(weight.grad is not None for weight in weights)
    assert found == {"reference": True, "fp32": False}


def test_every_way_animates_alike(bench: dict[str, ModuleType]) -> None:
    animate, timing = bench["animate"], bench["timing"]
    options = animate.parse(["--debug", "--batch", "3"])
    source, driving = (timing.made_frames(n, 32, seed=n) / 255 for n in (1, 5))
    published = animate.animator(options, "reference", source)(driving)
    assert published.shape == (5, 3, 32, 32)
    assert published.std() > 1e-3
    for name, tolerance in (("eager", 1e-5), ("channels-last", 1e-5), ("folded", 1e-5), ("bf16", 0.05)):
        made = animate.animator(options, name, source)(driving)
        torch.testing.assert_close(made, published, atol=tolerance, rtol=0, msg=name)


@pytest.mark.slow
def test_the_graphs_animate_alike(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    animate, timing = bench["animate"], bench["timing"]
    options = animate.parse(["--debug", "--batch", "3", "--onnx", str(tmp_path / "motion.onnx")])
    source, driving = (timing.made_frames(n, 32, seed=n) / 255 for n in (1, 6))
    published = animate.animator(options, "reference", source)(driving)
    for name, tolerance in (("onnx", 1e-4), ("onnx-int8", 0.05)):
        made = animate.animator(options, name, source)(driving)
        torch.testing.assert_close(made, published, atol=tolerance, rtol=0, msg=name)


@pytest.mark.slow
def test_a_quick_run(bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "train.json"
    few = ["--debug", "--rounds", "1", "--steps", "2", "--threads", "1"]
    bench["train_step"].main([*few, "--variants", "reference", "fp32", "--json", str(path)])
    figures = json.loads(path.read_text())
    assert set(figures["variants"]) == {"reference", "fp32"}
    assert figures["variants"]["reference"]["ratio_of_medians"] == 1.0
    fast, base = (figures["variants"][name] for name in ("fp32", "reference"))
    assert fast["ratio_of_minima"] == pytest.approx(base["min_s"] / fast["min_s"])
    assert fast["num_timed"] == 2
    assert fast["peak_mb"] > 50
    perceptual = {name: losses["loss/generator/perceptual"] for name, losses in figures["losses"].items()}
    assert perceptual["fp32"] == pytest.approx(perceptual["reference"], rel=1e-4)
    assert len(figures["machine"]["load_average"]) == 3
    told = capsys.readouterr()
    assert "losses of the first step" in told.out
    assert "round 1, fp32" in told.err


@pytest.mark.slow
def test_a_quick_animation(bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "animate.json"
    few = ["--debug", "--rounds", "1", "--repeats", "1", "--frames", "3", "--threads", "1"]
    bench["animate"].main([*few, "--variants", "reference", "folded", "--json", str(path)])
    figures = json.loads(path.read_text())
    assert set(figures["variants"]) == {"reference", "folded"}
    assert figures["differences"]["folded"]["largest"] < 1e-5
    assert "frames/s" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_step", "animate"])
def test_no_gpu_is_said(bench: dict[str, ModuleType], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench[name].main(["--device", "cuda"])
    assert "must find a GPU; got none" in capsys.readouterr().err


def test_a_variant_that_fails_is_left_out(
    bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "if sys.argv[-1] == 'bad': sys.exit('no such kernel')\n"
        'print(\'RESULT {"seconds": [2.0, 4.0], "peak_mb": 1.0}\')\n'
    )
    turns = bench["timing"].take_turns(script, {"good": {}, "bad": {}}, 2, [])
    assert [turn["seconds"] for turn in turns["good"]] == [[2.0, 4.0]] * 2
    assert set(turns) == {"good"}
    assert "bad: left out: no such kernel" in capsys.readouterr().err
    rows = bench["timing"].digest({"good": turns["good"], "twice": [{"seconds": [1.5], "peak_mb": 2.0}]}, "good")
    assert rows["twice"]["ratio_of_medians"] == 2.0
    assert rows["twice"]["ratio_of_rounds"] == [2.0]


def test_networks_of_the_benchmark_have_the_published_widths(bench: dict[str, ModuleType]) -> None:
    vgg = bench["train_step"].random_vgg()
    assert sum(p.numel() for p in vgg.parameters()) == 12_944_960  # the published count holds 6 for mean and deviation
    assert not any(isinstance(module, nn.BatchNorm2d) for module in vgg.modules())
