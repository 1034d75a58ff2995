"""The checkpoint format: what goes in comes out, and what does not fit is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import CheckpointError
from models.motion.networks import build, debug_config
from training.checkpoint import (
    MANIFEST,
    STATE,
    WEIGHTS,
    CheckpointInfo,
    export_weights,
    file_sha256,
    load_networks,
    read_info,
    read_state,
    tensors_of,
    write_checkpoint,
)
from training.config import LossConfig, MotionTrainConfig
from training.ema import MovingAverage
from training.state import TrainState

MODEL = debug_config(discriminator_scales=(1.0, 0.5))
TRAIN = MotionTrainConfig(milestones=(3, 5), losses=LossConfig(pixel=2.0, perceptual=(1.0,)), adam_betas=(0.4, 0.9))


def networks(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return build(MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose average differs from its weights."""
    nets, target = networks(), tmp_path / "step-00000007"
    average = MovingAverage({name: nets[name] for name in ("generator", "keypoint_detector")}, 0.5)
    average.update(networks(1), 1)
    target.mkdir()
    info = CheckpointInfo(
        step=7,
        images_seen=14,
        preset="fomm",
        model=MODEL,
        train=TRAIN,
        sha256="",
        metrics={"validation/l1": 0.1},
        experiment="toy",
        data="ab" * 32,
    )
    state = {"train": TrainState(step=7).state_dict(), "phases": {"generator": {"lr": 0.1}}}
    write_checkpoint(target, info, tensors_of(nets, average.state_dict()), state)
    return target


def edit(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**raw, **changes}))


def test_manifest_round_trip(folder: Path) -> None:
    info = read_info(folder)
    assert (info.step, info.images_seen, info.preset, info.experiment) == (7, 14, "fomm", "toy")
    assert info.model == MODEL
    assert info.train == TRAIN
    assert info.metrics == {"validation/l1": 0.1}
    assert info.data == "ab" * 32
    assert info.sha256 == file_sha256(folder / WEIGHTS)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, STATE, MANIFEST}


def test_networks_come_back_averaged_or_raw(folder: Path) -> None:
    raw, _ = load_networks(folder, ema=False)
    averaged, info = load_networks(folder)
    assert info == read_info(folder)
    assert set(raw) == {"generator", "keypoint_detector", "discriminator"}
    for name, network in networks().items():
        mine, mean = raw[name].state_dict(), averaged[name].state_dict()
        assert all(torch.equal(value, mine[key]) for key, value in network.state_dict().items())
        same = all(torch.equal(value, mean[key]) for key, value in network.state_dict().items())
        assert same == (name == "discriminator")
        assert not averaged[name].training
        assert not any(parameter.requires_grad for parameter in averaged[name].parameters())


def test_state_comes_back(folder: Path) -> None:
    state = read_state(folder, read_info(folder))
    assert state["phases"] == {"generator": {"lr": 0.1}}
    restored = TrainState()
    restored.load_state_dict(state["train"])
    assert restored.step == 7


def test_an_export_has_weights_only(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported"
    target.mkdir()
    info = export_weights(folder, target)
    assert {path.name for path in target.iterdir()} == {WEIGHTS, MANIFEST}
    assert info.sha256 == read_info(folder).sha256
    assert (target / WEIGHTS).stat().st_mode & 0o444 == 0o444
    loaded, again = load_networks(target)
    assert again.step == 7
    assert set(loaded) == set(networks())
    with pytest.raises(CheckpointError, match="weights only"):
        read_state(target, again)


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} must be readable"):
        load_networks(folder)


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_an_altered_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} must have the manifest's sha256"):
        load_networks(folder) if name == WEIGHTS else read_state(folder, read_info(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "must have schema_version 1; got 2"),
        ({"preset": "nobody"}, "preset must be one of"),
        ({"surprise": 1}, "must hold only .*; got surprise"),
        ({"model": {"size_px": 33}}, "model must be valid; got size_px must .*; size_px"),
        ({"model": [1]}, "model must be a mapping"),
        ({"train": {"adam_betas": [2, 3]}}, "train must be valid; got adam_betas"),
        ({"step": "7"}, "must hold whole numbers and texts"),
        ({"sha256": None}, "must hold whole numbers and texts"),
        ({"train": {"losses": {"unheard": 1}}}, "losses must hold only"),
    ],
)
def test_a_strange_manifest_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_info(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 1}'])
def test_junk_for_a_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="must"):
        read_info(folder)


def test_entries_that_do_not_fit_are_listed(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    gone = next(key for key in tensors if key.startswith("discriminator.") and tensors[key].ndim == 4)
    del tensors[gone]
    tensors["discriminator.unheard"] = torch.zeros(1)
    save_file(tensors, folder / WEIGHTS)
    edit(folder, sha256=file_sha256(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=f"missing {gone}; superfluous discriminator.unheard"):
        load_networks(folder)


def test_entries_of_another_shape_are_listed(folder: Path) -> None:
    edit(folder, model={**dataclasses.asdict(MODEL), "num_keypoints": 5})
    with pytest.raises(CheckpointError, match=r"fit the network 'generator'; got .*weight \(.*\) instead of \("):
        load_networks(folder)


def test_an_unknown_network_is_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "stranger.weight": torch.zeros(1)}, folder / WEIGHTS)
    edit(folder, sha256=file_sha256(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"hold only generator, .*; got stranger.weight"):
        load_networks(folder)


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"junk")
    edit(folder, sha256=file_sha256(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match="be a safetensors file"):
        load_networks(folder)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_no_pickle_is_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"train": Bomb()}, folder / STATE)
    edit(folder, state_sha256=file_sha256(folder / STATE))
    with pytest.raises(CheckpointError, match=r"state\.pt must hold plain values"):
        read_state(folder, read_info(folder))
    assert not (tmp_path / "exploded").exists()


def test_a_state_of_another_schema_is_refused() -> None:
    state = TrainState().state_dict()
    with pytest.raises(CheckpointError, match="schema_version 1; got 9"):
        TrainState().load_state_dict({**state, "schema_version": 9})
    del state["best_step"]
    with pytest.raises(CheckpointError, match="best_step"):
        TrainState().load_state_dict(state)


def test_random_state_is_part_of_the_state() -> None:
    torch.manual_seed(5)
    state = TrainState(step=1, best_metric=0.5).state_dict()
    first = torch.rand(3)
    TrainState().load_state_dict(state)
    assert torch.equal(torch.rand(3), first)


def test_average_follows_slowly_and_warms_up() -> None:
    module = nn.BatchNorm2d(2)
    average = MovingAverage({"norm": module}, 0.99)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(10.0)  # type: ignore[union-attr]
        module.num_batches_tracked.fill_(4)  # type: ignore[union-attr, operator]
    average.update({"norm": module}, 1)
    entries = average.state_dict()
    keep = 2 / 11  # warming up
    assert torch.allclose(entries["norm.weight"], torch.full((2,), keep * 1 + (1 - keep) * 3.0))
    assert torch.allclose(entries["norm.running_mean"], torch.full((2,), (1 - keep) * 10.0))
    assert entries["norm.num_batches_tracked"] == 4
    average.update({"norm": module}, 100_000)
    assert torch.allclose(average.state_dict()["norm.weight"], entries["norm.weight"], atol=0.01)
    assert not any(parameter.requires_grad for parameter in average.networks["norm"].parameters())
