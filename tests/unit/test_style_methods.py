"""Methods that train nothing: which style picture a photo is given, what is judged, what a drawing costs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from style_eval_kit import OPTIONS, make_shards, pictures
from torch import nn

from models.errors import ClipError, ParamsError
from models.perceptual import Perceptual
from pipelines import evaluate_methods, judging
from pipelines.image_cost import LiveBytes, image_cost
from pipelines.params_papers import method_named
from pipelines.stage import Paths
from pipelines.style_methods import MethodConfig, Optimises, open_method
from training.shard_reader import ShardReader

NAME = "vgg-on-photos"
DATA: dict[str, Any] = {"dataset": "photos", "style_dataset": "paintings"}
CONFIG = MethodConfig(method="gatys", **DATA, steps=2, optimizer="adam")


class Levels(Perceptual):
    """Five small levels, in place of a trained backbone."""

    def __init__(self) -> None:
        super().__init__("levels", "")
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 3, stride=2**level, padding=1) for level in range(5))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [layer(image) for layer in self.layers]


@pytest.fixture(scope="module")
def project(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Shards of three test photos, one of training, and four style pictures, one of them of split test."""
    paths = Paths(tmp_path_factory.mktemp("methods"))
    make_shards(paths.shards("photos"), pictures(samples / "photos", 4), num_test=3)
    make_shards(paths.shards("paintings"), pictures(samples / "paintings", 4), num_test=1)
    return paths


@pytest.fixture(scope="module")
def paintings(project: Paths) -> ShardReader:
    return ShardReader(project.shards("paintings"))


@pytest.fixture(scope="module")
def photos(samples: Path) -> np.ndarray:
    return pictures(samples / "photos", 4)


def params(config: MethodConfig = CONFIG) -> Any:
    """What the stage reads of params.yaml."""
    paper = SimpleNamespace(methods={("vgg", "photos"): config}, experiments={})
    return SimpleNamespace(papers={"one": paper}, evaluation=OPTIONS, cluster=None)


def test_a_photo_is_given_one_of_the_training_pictures_by_its_pixels(
    paintings: ShardReader, photos: np.ndarray
) -> None:
    method = Optimises(CONFIG, paintings, Levels())
    train = [np.asarray(paintings.frames(clip, [0])[0]).tobytes() for clip in paintings.clips("train")]
    squares = [photo[top : top + 32, left : left + 32] for photo in photos for top in (0, 32) for left in (0, 32)]
    given = [train.index(method.style_of(square).tobytes()) for square in squares]
    assert set(given) == {0, 1, 2}
    again = Optimises(CONFIG, paintings, Levels())
    assert [train.index(again.style_of(square).tobytes()) for square in reversed(squares)] == given[::-1]


@pytest.mark.parametrize("method", ["gatys", "wct"])
def test_drawings_differ_from_photos_and_repeat(paintings: ShardReader, photos: np.ndarray, method: Any) -> None:
    config = MethodConfig(method=method, **DATA, steps=16, optimizer="adam")
    draws = Optimises(config, paintings, Levels())
    made = draws.stylise(photos[:2])
    assert made.shape == photos[:2].shape
    assert made.dtype == np.float32
    assert 0 <= made.min() <= made.max() <= 1
    assert np.abs(made - photos[:2] / 255).mean() > 1e-3
    assert np.array_equal(draws.stylise(photos[1:2])[0], made[1])  # alone as among others


def test_it_crosses_processes(project: Paths) -> None:
    opener = open_method(CONFIG, styles=project.shards("paintings"), weights=project.weights)
    draws = pickle.loads(pickle.dumps(opener))(Path("nowhere"), "cpu")
    assert draws.backbone.name == "effnet-lite0"
    assert not any(weight.requires_grad for weight in draws.backbone.parameters())


def test_without_a_style_picture_to_give_it_says_so(samples: Path, tmp_path: Path) -> None:
    make_shards(tmp_path / "none", pictures(samples / "paintings", 2), num_test=2)
    with pytest.raises(ClipError, match="must hold a picture of split train"):
        Optimises(CONFIG, ShardReader(tmp_path / "none"), Levels())


def test_a_method_is_judged_like_a_trained_model(project: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.image_cost.SIZE_PX", 64)
    report = judging.run(NAME, params(), project)
    assert report.preset == "gatys"
    assert report.weights_sha256 == CONFIG.sha256
    written = json.loads(project.report("evaluate", NAME).read_text())
    assert written["num_photos"] == 3
    assert written["squares"] == 1
    assert set(written["made"]) >= {"fid/effnet-lite0", "kid/effnet-lite0", "content/effnet-lite0", "detail"}
    assert written["made"]["content/effnet-lite0"]["value"] > 0
    assert written["image_cost"]["size_px"] == 64
    assert written["image_cost"]["memory_mb"] > 0.1
    folder = project.pictures("evaluate", NAME)
    assert {path.name for path in folder.glob("*-?.png")} >= {
        f"{w}-{n}.png" for w in ("photo", "drawing") for n in "012"
    }


def test_an_unknown_method_is_told() -> None:
    with pytest.raises(ParamsError, match="known: vgg-on-photos"):
        method_named(params().papers, "vg-on-photos")
    with pytest.raises(ParamsError, match="known: none"):
        evaluate_methods.run(NAME, SimpleNamespace(papers={}), Paths())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"method": "wct", "steps": 3}, "steps must be 4 or more"),
        ({"strength": 0.5}, "strength must be null: wct alone has it"),
        ({"method": "wct", "style_weight": 1.0}, "style_weight must be null: gatys alone has it"),
        ({"method": "wct", "total_variation": 1.0}, "total_variation must be null: gatys alone has it"),
        ({"total_variation": -1.0}, "total_variation must be 0 or more"),
        ({"method": "wct", "strength": 2.0}, "strength must lie in 0 to 1"),
    ],
)
def test_settings_of_methods_have_rules(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        MethodConfig(**{"method": "gatys", **DATA, **values})


def test_other_settings_have_another_checksum() -> None:
    assert CONFIG.sha256 == MethodConfig(method="gatys", **DATA, steps=2, optimizer="adam").sha256
    assert CONFIG.sha256 != MethodConfig(method="gatys", **DATA, steps=3, optimizer="adam").sha256


def test_live_bytes_are_those_of_tensors_that_live() -> None:
    before = torch.zeros(1 << 18)
    with LiveBytes() as live:
        one = before + 1
        two = one * 2
        del one
        two.add_(1)
        view = two.view(2, -1)
        del two
    assert live.peak == 2 << 20
    assert live.now == 1 << 20
    del view
    assert live.now == 0


def test_a_drawing_costs_what_its_largest_moment_holds() -> None:
    class Draws:
        def stylise(self, given: np.ndarray) -> np.ndarray:
            wide = torch.zeros(1 << 20)
            return np.zeros(given.shape, np.float32) + float(wide.sum())

    cost = image_cost(Draws(), np.zeros((32, 32, 3), np.uint8), size_px=16)
    assert 4.0 <= cost.memory_mb < 4.01
    assert cost.seconds > 0
    assert (cost.size_px, cost.num_runs, cost.device) == (16, 5, "cpu")
