"""Published checkpoints, imported without a word about their options, give the recorded numbers (see the kits)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from models.importers.inspect import Imported, inspect
from models.importers.layout import LAYOUTS, Kind
from models.importers.options import Assumptions
from models.importers.upstream import to_published
from models.motion.generator import Generated

KITS = Path(__file__).parent
KINDS: tuple[Kind, ...] = ("fomm", "articulated")
PUBLISHED_ENTRIES = {
    "fomm": {"generator": 112, "kp_detector": 33, "discriminator": 26},
    "articulated": {"generator": 112, "region_predictor": 31, "bg_predictor": 23, "avd_network": 69},
}


def imported(kind: Kind, *, told: bool, align_corners: bool = False) -> Imported:
    kit = KITS / f"{kind}-tiny"
    settings = yaml.safe_load((kit / "config.yaml").read_text()) if told else None
    assumptions = Assumptions(settings=settings, align_corners=align_corners, size_px=64)
    return inspect(kit / "tiny-checkpoint.pth.tar", kind, assumptions)


def recorded(kind: Kind, name: str = "eval") -> dict[str, Tensor]:
    with np.load(KITS / f"{kind}-tiny" / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    worst = (actual - expected).abs().max().item()
    assert worst <= tolerance, f"{what} differs by {worst:.2e}, more than {tolerance:.0e}"


@torch.no_grad()
def moved(networks: dict[str, nn.Module], frames: dict[str, Tensor]) -> Generated:
    source, driving = frames["source"], frames["driving"]
    find, background = networks["keypoint_detector"], networks.get("background_predictor")
    made: Generated = networks["generator"](
        source,
        source_keypoints=find(source),
        driving_keypoints=find(driving),
        background=None if background is None else background(source, driving),
    )
    return made


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_frames_come_out(kind: Kind, told: bool) -> None:
    frames = recorded(kind)
    networks = imported(kind, told=told).networks()
    made = moved(networks, frames)
    close(made.prediction, frames["generator.prediction"], 1e-4, "prediction")
    close(made.deformed, frames["generator.deformed"], 1e-4, "deformed")
    prefix = "dense_motion" if kind == "fomm" else "pixelwise_flow"
    close(made.motion.occlusion[0], frames[f"{prefix}.occlusion_map"], 1e-5, "occlusion")


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_frames_of_the_old_convention_come_out(kind: Kind) -> None:
    frames = recorded(kind)
    made = moved(imported(kind, told=True, align_corners=True).networks(), frames)
    close(made.prediction, recorded(kind, "eval_ac1")["generator.prediction"], 1e-4, "prediction")
    assert (made.prediction - frames["generator.prediction"]).abs().max() > 0.05


@torch.no_grad()
def test_the_recorded_disentangled_frame_comes_out() -> None:
    frames = recorded("articulated")
    networks = imported("articulated", told=False).networks()
    find = networks["keypoint_detector"]
    identity, pose = find(frames["source"]), find(frames["driving"])
    mixed = networks["avd"](identity, pose)
    close(mixed.value, frames["animate.avd.shift"], 1e-5, "shift")
    made = networks["generator"](frames["source"], source_keypoints=identity, driving_keypoints=mixed)
    close(made.prediction, frames["animate.avd.prediction"], 1e-4, "prediction")


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_is_accounted_for_and_goes_back(kind: Kind) -> None:
    found = imported(kind, told=True)
    original = torch.load(KITS / f"{kind}-tiny" / "tiny-checkpoint.pth.tar", weights_only=True)
    assert found.report.unknown_settings == ()
    for row in found.report.networks:
        assert (row.missing, row.unexpected) == (0, 0)
        assert row.taken + row.counters == len(original[row.published]) == PUBLISHED_ENTRIES[kind][row.published]
    content = to_published(found.config, found.states)
    assert set(content) == set(original)
    for name in LAYOUTS[kind].networks:
        assert set(content[name]) == set(original[name])
        for key, value in original[name].items():
            assert torch.equal(content[name][key], value), f"{name}.{key}"
            assert content[name][key].dtype == value.dtype
    for name in (name for name in original if name.startswith("optimizer_")):
        assert len(content[name]["param_groups"][0]["params"]) == len(original[name]["param_groups"][0]["params"])
