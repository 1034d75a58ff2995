"""Published checkpoints into our networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.errors import CheckpointError
from models.importers import fomm
from models.motion.networks import build, debug_config

PUBLISHED = {"generator": "generator", "keypoint_detector": "kp_detector", "discriminator": "discriminator"}


def _published(nets: dict[str, nn.Module]) -> dict[str, Any]:
    states = {theirs: nets[ours].state_dict() for ours, theirs in PUBLISHED.items()}
    return {**states, "optimizer_generator": {}, "epoch": 12}


def _write(path: Path, checkpoint: Any) -> Path:
    torch.save(checkpoint, path)
    return path


def test_all_entries_arrive(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = build(debug_config())
    path = _write(tmp_path / "00000012-checkpoint.pth.tar", _published(theirs))
    torch.manual_seed(1)
    ours = build(debug_config())
    report = fomm.load_into(ours, path)
    assert report.ignored == ("epoch", "optimizer_generator")
    for name, network in ours.items():
        given = theirs[name].state_dict()
        assert report.loaded[name] == sum(not key.endswith("num_batches_tracked") for key in given)
        for key, value in network.state_dict().items():
            assert torch.equal(value, given[key]), key


@pytest.mark.parametrize("counted", ["advanced", "absent"])
def test_counters_of_batches_do_not_matter(tmp_path: Path, counted: str) -> None:
    nets = build(debug_config())
    checkpoint = _published(nets)
    for theirs in PUBLISHED.values():
        state = checkpoint[theirs]
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            if counted == "absent":
                del state[key]
            else:
                state[key] = torch.tensor(1_000)
    fomm.load_into(nets, _write(tmp_path / "x.pth.tar", checkpoint))
    tracked = nets["generator"].state_dict()["first.norm.num_batches_tracked"]
    assert tracked.item() == 0


def test_networks_may_be_left_out(tmp_path: Path) -> None:
    nets = build(debug_config())
    checkpoint = _published(nets)
    del checkpoint["discriminator"]
    path = _write(tmp_path / "x.pth.tar", checkpoint)
    wanted = {name: nets[name] for name in ("generator", "keypoint_detector")}
    assert set(fomm.load_into(wanted, path).loaded) == set(wanted)
    with pytest.raises(CheckpointError, match="must hold the discriminator"):
        fomm.load_into(nets, path)


def test_another_configuration_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.pth.tar", _published(build(debug_config())))
    with pytest.raises(CheckpointError, match=r"generator must fit the model; got .*weight is \(16, 8, 3, 3\) and not"):
        fomm.load_into(build(debug_config(motion_max_features=8)), path)
    with pytest.raises(CheckpointError, match=r"detector must fit the model; got jacobian.weight is not known"):
        fomm.load_into(build(debug_config(estimate_jacobian=False)), path)
    with pytest.raises(CheckpointError, match=r"conv\.weight is missing"):
        fomm.load_into(build(debug_config(discriminator_spectral_norm=False)), path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    nets = build(debug_config())
    with pytest.raises(CheckpointError, match="must be a file"):
        fomm.load_into(nets, tmp_path / "absent.pth.tar")
    (tmp_path / "text.pth.tar").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="must be a readable checkpoint"):
        fomm.load_into(nets, tmp_path / "text.pth.tar")
    with pytest.raises(CheckpointError, match=r"must hold generator; got \['region_predictor'\]"):
        fomm.load_into(nets, _write(tmp_path / "other.pth.tar", {"region_predictor": {}}))
    with pytest.raises(CheckpointError, match="must hold a dict"):
        fomm.load_into(nets, _write(tmp_path / "tensor.pth.tar", torch.zeros(2)))


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("run",))


def test_no_code_in_a_file_is_ever_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "x.pth.tar", {"generator": _Harmful()})
    with pytest.raises(CheckpointError, match="must be a readable checkpoint"):
        fomm.load_into(build(debug_config()), path)
    assert capsys.readouterr().out == ""
