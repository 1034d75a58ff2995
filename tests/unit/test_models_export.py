"""The exported graph computes what the networks compute, for every option of the family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import motion_kit
import numpy as np
import onnxruntime
import pytest
import torch
from motion_kit import SIZE, Exported
from torch import Tensor, nn

from models.catalog import presets_of
from models.errors import CheckpointError
from models.export import export_motion
from models.motion.generator import EncodedSource
from models.motion.keypoints import Keypoints

Arrays = dict[str, np.ndarray]
QUICK = ("articulated",)
PRESETS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in (*presets_of("motion"), "mixed")
]


PARTS = ("keypoint", "encoded", "prediction", "avd")


class Graph:
    """An opened graph, of which parts are asked for."""

    def __init__(self, path: Path, *, profile: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {port.name: port.shape for port in self.session.get_inputs()}
        self.outputs = [port.name for port in self.session.get_outputs()]

    def part(self, head: str, given: Arrays) -> Arrays:
        """All outputs when one part is computed; what is not given is not a number."""
        blank = {
            name: np.full([side if isinstance(side, int) else 1 for side in shape], np.nan, np.float32)
            for name, shape in self.inputs.items()
        }
        found = self.session.run(None, {**blank, **given, "part": np.array(PARTS.index(head))})
        return dict(zip(self.outputs, found, strict=True))

    def encode(self, source: np.ndarray) -> Arrays:
        """What the render and AVD parts take of a source."""
        found, made = self.part("keypoint", {"driving": source}), self.part("encoded", {"source": source})
        named = {name: array for name, array in found.items() if name.startswith("keypoint_")}
        named |= {name: array for name, array in made.items() if name.startswith("encoded_")}
        return {f"source_{name.partition('_')[2]}": array for name, array in named.items()}


def made_keypoints(kit: Exported, count: int) -> Keypoints:
    """Keypoints that no detector would give."""
    shape = (count, kit.config.num_keypoints)
    axes = 0.3 * torch.eye(2) + 0.05 * torch.randn(*shape, 2, 2)
    is_region = kit.config.motion == "articulated"
    turned = axes if is_region else torch.eye(2) + 0.2 * torch.randn(*shape, 2, 2)
    jacobian = turned if kit.config.estimate_jacobian else None
    return Keypoints(torch.rand(*shape, 2) - 0.5, jacobian, axes @ axes.mT if is_region else None)


def feeds(points: Keypoints) -> Arrays:
    jacobian = torch.full((*points.value.shape, 2), torch.nan) if points.jacobian is None else points.jacobian
    named = points._replace(jacobian=jacobian)._asdict()
    return {f"motion_{name}": part.numpy() for name, part in named.items() if part is not None}


def close(found: np.ndarray, wanted: Tensor) -> None:
    assert found.shape == tuple(wanted.shape)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_graph_agrees_with_torch(preset: str) -> None:
    kit = motion_kit.exported(preset)
    graph, (generator, detector) = Graph(kit.path), (kit.networks[n] for n in ("generator", "keypoint_detector"))
    torch.manual_seed(1)
    source = torch.rand(1, 3, SIZE, SIZE)
    encoded = graph.encode(source.numpy())
    for count in (1, 5):
        driving, points = torch.rand(count, 3, SIZE, SIZE), made_keypoints(kit, count)
        with torch.inference_mode():
            found, still = detector(driving), detector(source).expand(count)
            wanted = generator(
                source.expand(count, -1, -1, -1), source_keypoints=still, driving_keypoints=points
            ).prediction
        got = graph.part("keypoint", {"driving": driving.numpy()})
        turned = torch.eye(2).expand(count, kit.config.num_keypoints, 2, 2)
        for name, part in (
            found._replace(jacobian=turned if found.jacobian is None else found.jacobian)._asdict().items()
        ):
            assert (part is None) == (f"keypoint_{name}" not in got)
            if part is not None:
                close(got[f"keypoint_{name}"], part)
        moved = graph.part("prediction", {"source": source.numpy(), **encoded, **feeds(points)})["prediction"]
        close(moved, wanted)
        assert wanted.std() > 5e-3, "an output that says something"


@pytest.mark.parametrize("preset", ["articulated", pytest.param("jam", marks=pytest.mark.slow)])
def test_avd_agrees_with_torch(preset: str) -> None:
    kit = motion_kit.exported(preset)
    graph, points = Graph(kit.path), made_keypoints(kit, 4)
    source = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        wanted = kit.networks["avd"](kit.networks["keypoint_detector"](source).expand(4), points)
    got = graph.part("avd", {**graph.encode(source.numpy()), **feeds(points)})
    for name, part in wanted._asdict().items():
        close(got[f"avd_{name}"], part)


def test_one_part_is_computed_and_the_others_are_empty(tmp_path: Path) -> None:
    kit = motion_kit.exported("articulated")
    graph = Graph(kit.path, profile=tmp_path / "profile")
    source = torch.rand(1, 3, SIZE, SIZE).numpy()
    given = {"source": source, "driving": source, **graph.encode(source), **feeds(made_keypoints(kit, 2))}
    for head in PARTS:
        found = graph.part(head, given)
        assert {name for name, array in found.items() if array.size} == {n for n in found if n.startswith(head)}
    events = json.loads(Path(graph.session.end_profiling()).read_text())
    runs = [event for event in events if event["name"] == "model_run"]
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    convolutions = []
    for run in runs[2:]:  # after `encode`
        inside = [node for node in nodes if 0 <= node["ts"] - run["ts"] <= run["dur"]]
        convolutions.append(sum(node["args"]["op_name"] in ("Conv", "FusedConv") for node in inside))
    detect, encode, render, avd = convolutions
    layers = {name: sum(isinstance(m, nn.Conv2d) for m in net.modules()) for name, net in kit.networks.items()}
    downs = kit.config.generator_down_blocks
    assert avd == 0
    assert encode in (1 + downs, 2 + downs), "the first convolution, the down blocks, the anti-alias filter"
    assert layers["keypoint_detector"] <= detect <= layers["keypoint_detector"] + 1
    assert 0 < render <= layers["generator"] - 1 - downs


def test_one_file_and_nothing_beside_it() -> None:
    path = motion_kit.exported("fomm").path
    assert [inside.name for inside in path.parent.iterdir()] == ["motion.onnx"]
    content = path.read_bytes()
    assert b".data" not in content
    assert str(Path(__file__).parents[2]).encode() not in content, "paths of this machine"


def test_names_and_types() -> None:
    regions, points = (Graph(motion_kit.exported(preset).path) for preset in ("articulated", "fomm"))
    assert points.outputs == [
        *("keypoint_value", "keypoint_jacobian", "encoded_small", "encoded_features_0", "prediction"),
    ]
    assert set(points.inputs) == {
        *("part", "source", "driving", "motion_value", "motion_jacobian"),
        *("source_value", "source_jacobian", "source_small", "source_features_0"),
    }
    more = {"motion_covariance", "source_covariance", "source_features_1", "source_features_2"}
    assert set(regions.inputs) == {*points.inputs, *more}
    assert regions.outputs[-4:] == ["prediction", "avd_value", "avd_jacobian", "avd_covariance"]
    for graph in (regions, points):
        assert {port.type for port in graph.session.get_inputs() if port.name != "part"} == {"tensor(float)"}
        assert graph.inputs["source"] == [1, 3, SIZE, SIZE]
        taken = {name.partition("_")[2] for name in graph.inputs if name.startswith("source_")}
        assert taken == {name.partition("_")[2] for name in graph.outputs if name.startswith(("encoded_", "keypoint_"))}


def test_the_networks_keep_their_modes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = motion_kit.debug_of("articulated")
    nets: dict[str, Any] = motion_kit.networks_of(config)
    nets["keypoint_detector"].eval()

    def fail(*_: object, **__: object) -> None:
        assert not nets["generator"].training
        raise RuntimeError("no space")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError, match="no space"):
        export_motion(nets, config, tmp_path / "motion.onnx")
    assert (nets["generator"].training, nets["keypoint_detector"].training, nets["avd"].training) == (True, False, True)
    assert list(tmp_path.iterdir()) == []


def test_other_networks_are_refused(tmp_path: Path) -> None:
    kit = motion_kit.exported("fomm")
    nets = kit.networks
    for given in ({"generator": nets["generator"]}, {**nets, "avd": nets["generator"]}):
        with pytest.raises(CheckpointError, match="networks to export must hold a motion generator"):
            export_motion(given, kit.config, tmp_path / "motion.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_encoding_is_all_that_the_generator_keeps_of_a_source() -> None:
    kit = motion_kit.exported("articulated")
    graph, source = Graph(kit.path), torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        encoded: EncodedSource = kit.networks["generator"].encode(source)
    got = graph.encode(source.numpy())
    close(got["source_small"], encoded.small)
    for place, part in enumerate(encoded.features):
        close(got[f"source_features_{place}"], part)
