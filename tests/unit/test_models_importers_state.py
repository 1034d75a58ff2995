"""Adam's state out of published checkpoints, trainings that start from them, and our networks as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from published_kit import AA, SIZED, give_gradients, published, trained, write

from models.catalog import MODELS
from models.errors import CheckpointError
from models.importers import moments
from models.importers.inspect import Imported, inspect
from models.importers.layout import LAYOUTS, Kind
from models.importers.options import Assumptions
from models.importers.upstream import foreign_options, to_published, to_settings
from models.motion.config import MotionConfig
from models.motion.networks import build, debug_config


@pytest.mark.parametrize("old", [False, True])
def test_a_training_goes_on_as_it_would_have(tmp_path: Path, old: bool) -> None:
    theirs, optimizers, path = trained(tmp_path, old=old)
    found = inspect(path, "fomm", SIZED)
    assert found.report.epoch == 99
    assert all("taken: " in text and "after 3 steps" in text for text in found.report.optimisers.values())
    mine = found.networks()
    for network in mine.values():
        network.requires_grad_(True)
    both = [{"params": list(mine[name].parameters())} for name in ("generator", "keypoint_detector")]
    adams = [torch.optim.Adam(both, lr=2e-4, betas=(0.5, 0.999))]
    adams.append(torch.optim.Adam(mine["discriminator"].parameters(), lr=2e-4, betas=(0.5, 0.999)))
    counts = moments.restore(adams, mine, found.moments)
    assert counts == {name: len(list(network.parameters())) for name, network in mine.items()}
    for nets in (mine, theirs):
        for network in nets.values():
            give_gradients(network, seed=7)
    for optimizer in (*adams, *optimizers.values()):
        optimizer.step()
    for name, network in theirs.items():
        for key, value in network.named_parameters():
            assert torch.equal(dict(mine[name].named_parameters())[key], value), f"{name}.{key}"


def test_state_survives_a_checkpoint(tmp_path: Path) -> None:
    found = inspect(trained(tmp_path)[2], "fomm", SIZED)
    state = moments.state_of(found.moments, kind="fomm", epoch=99)
    read = torch.load(write(tmp_path / "state.pt", state), weights_only=True)
    again = moments.moments_in(read)
    one = ("generator", "final.bias", "exp_avg")
    assert torch.equal(again[one[0]][one[1]][one[2]], found.moments[one[0]][one[1]][one[2]])
    assert moments.moments_in({"phases": {}}) == {}
    assert moments.state_of({}, kind="fomm", epoch=None) is None
    with pytest.raises(CheckpointError, match="schema_version 1; got 2"):
        moments.moments_in({"imported": {"schema_version": 2}})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: state.update(state={}), "never stepped"),
        (lambda state: state["param_groups"][0]["params"].pop(), "holds 49 parameters, the networks have 50"),
        (lambda state: state["state"][0].update(exp_avg=torch.zeros(9)), "is not Adam's"),
        (lambda state: state["state"][0]["exp_avg"].fill_(float("nan")), "or not finite"),
        (lambda state: state["state"][0].update(step=-1), "is not Adam's"),
        (lambda state: state["state"][0].pop("exp_avg_sq"), "is not Adam's"),
        (lambda state: state.pop("param_groups"), "no optimiser's state"),
        (lambda state: state.update(param_groups=[{"params": 3}]), "no optimiser's state"),
        (lambda state: state.update(state=[]), "never stepped"),
    ],
)
def test_a_spoilt_optimiser_costs_no_weights(tmp_path: Path, spoil: Any, says: str) -> None:
    path = trained(tmp_path)[2]
    content = torch.load(path, weights_only=True)
    spoil(content["optimizer_generator"])
    found = inspect(write(path, content), "fomm", SIZED)
    assert says in found.report.optimisers["optimizer_generator"]
    assert set(found.moments) == {"keypoint_detector", "discriminator"}
    assert any(says in line for line in found.report.lines())


def test_the_second_stage_has_overwritten_the_firsts_optimiser(tmp_path: Path) -> None:
    theirs = build(debug_config(**AA))
    names = ("generator", "keypoint_detector", "background_predictor")
    parameters = [parameter for name in names for parameter in theirs[name].parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-4)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    content = published(theirs, "articulated", optimizer_reconstruction=optimizer.state_dict(), optimizer_avd={})
    found = inspect(write(tmp_path / "avd.pth", content), "articulated", SIZED)
    assert found.moments == {}
    assert "the AVD stage's optimiser" in found.report.optimisers["optimizer_reconstruction"]
    assert found.report.ignored == ("optimizer_avd",)
    del content["avd_network"]
    found = inspect(write(tmp_path / "first.pth", content), "articulated", SIZED)
    assert set(found.moments) == set(names)


def test_a_training_may_start_at_another_size_and_with_more_networks(tmp_path: Path) -> None:
    content = published(build(debug_config()))
    del content["discriminator"]
    found = inspect(write(tmp_path / "x.pth.tar", content), "fomm", SIZED)
    for scale in (1.0, 0.25):
        networks = build(debug_config(scale_factor=scale))
        averages = {f"ema.{name}": value for name, value in found.tensors().items()}
        tensors, fresh = moments.startable({**found.tensors(), **averages}, networks)
        assert fresh == {"discriminator"}
        for prefix in ("", "ema."):
            for name in ("generator", "keypoint_detector"):
                own = {key.removeprefix(f"{prefix}{name}."): value for key, value in tensors.items()}
                networks[name].load_state_dict({key: own[key] for key in networks[name].state_dict()})
        held = {key for key in tensors if key.startswith("generator.")}
        assert held == {f"generator.{key}" for key in networks["generator"].state_dict()}


def test_a_training_starts_with_a_discriminator_of_its_own_where_the_other_does_not_fit() -> None:
    before = build(debug_config())
    tensors = {f"{name}.{key}": value for name, net in before.items() for key, value in net.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in tensors.items()}
    same = build(debug_config())
    assert moments.startable(tensors, same)[1] == set()
    other = build(debug_config(discriminator_norm="instance", discriminator_keypoints=True))
    kept, fresh = moments.startable(tensors, other)
    assert fresh == {"discriminator"}
    assert not any("discriminator" in name for name in kept)
    assert {name for name in tensors if "discriminator" not in name} == set(kept)


# ---- the other way


@pytest.mark.parametrize("options", [{}, AA, {**AA, "background": "none", "avd": False}, {"width": 0.5}], ids=str)
def test_there_and_back_again(options: dict[str, Any], tmp_path: Path) -> None:
    config = debug_config(**options)
    kind: Kind = "articulated" if config.motion == "articulated" else "fomm"
    states = {name: network.state_dict() for name, network in build(config).items()}
    content = to_published(config, states, epoch=5)
    path = write(tmp_path / "x.pth.tar", content)
    found = inspect(path, kind, Assumptions(settings=to_settings(config)))
    _same(found, states)
    assert found.report.epoch == 5
    again = to_published(found.config, found.states, epoch=5)
    assert list(again) == list(content)
    for name in content:
        if name in LAYOUTS[kind].networks:
            assert list(again[name]) == list(content[name])
    effective = {**asdict(config), "width": 1.0}
    parts = ("detector", "motion", "generator", "discriminator", "background")
    for part in parts:
        for name in (f"{part}_expansion", f"{part}_max_features"):
            effective[name] = config.features(effective[name])
    found_options = asdict(found.config)
    for row in found.report.options:
        assert found_options[row.option] == effective[row.option], row.option


def _same(found: Imported, states: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    assert set(found.states) == set(states)
    for name, state in states.items():
        assert list(found.states[name]) == list(state)
        for key, value in state.items():
            assert torch.equal(found.states[name][key], value), f"{name}.{key}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"output_activation": "tanh", "discriminator_head": "dual-channel-fusion"},
            "output_activation: tanh",
        ),
        (
            {"occlusion": "multi-scale", "flow_attention": "max-cbam"},
            "flow_attention: max-cbam, occlusion: multi",
        ),
        ({"discriminator_norm": "spectral"}, "discriminator_norm: spectral"),
        ({"generator_dilations": (1, 2)}, r"generator_dilations: \[1, 2\]"),
        ({"background": "affine"}, "background: affine"),
        ({"generator_skips": True}, "generator_skips: True"),
        ({**AA, "discriminator": True}, "Articulated Animation's options only; got discriminator: True"),
        ({**AA, "hourglass_attention": "scse"}, "hourglass_attention: scse"),
    ],
    ids=str,
)
def test_what_the_published_code_cannot_hold_is_refused(options: dict[str, Any], says: str) -> None:
    config = debug_config(**options)
    assert foreign_options(config)
    with pytest.raises(CheckpointError, match=f"must have .*{says}"):
        to_published(config, {})


@pytest.mark.parametrize("preset", ["dcf", "jam", "jam-slim", "cbam-mso"])
def test_the_papers_presets_are_foreign(preset: str) -> None:
    assert foreign_options(MotionConfig(**MODELS[preset].model))
