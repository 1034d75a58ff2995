"""Animation by regions against recorded numbers of the published Articulated Animation model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from articulated_kit import KIT, model, networks

from pipelines.engines import TorchSession
from pipelines.served.motion import Motion, movement_scale, transfer

MODES = ("standard", "relative", "avd")
REGIONS_ATOL, PICTURES_ATOL = 1e-5, 1e-4
"""As the kit's README suggests for regions and for predictions."""


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, np.ndarray]:
    return np.load(KIT / "eval.npz")


@pytest.fixture(scope="module")
def engine() -> TorchSession:
    built = networks()
    options: dict[str, Any] = {"avd": built["avd"], "size_px": model().size_px, "device": "cpu"}
    return TorchSession(built["generator"], built["keypoint_detector"], **options)


def found(engine: TorchSession, recorded: Mapping[str, np.ndarray], name: str) -> Motion:
    return engine.keypoints(recorded[name].transpose(0, 2, 3, 1))


def moved(engine: TorchSession, recorded: Mapping[str, np.ndarray], mode: str) -> Motion:
    """Where the regions of both sources go, each moved by its own driving frame."""
    source, driving, initial = (found(engine, recorded, name) for name in ("source", "driving", "driving_initial"))
    if mode != "avd":
        return transfer(source, driving, initial, relative=mode == "relative", adapt_scale=False)
    pictures = recorded["source"].transpose(0, 2, 3, 1)
    parts = [engine.disentangle(picture, driving.take(place)) for place, picture in enumerate(pictures)]
    return Motion(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@pytest.mark.parametrize("name", ["source", "driving", "initial"])
def test_regions(engine: TorchSession, recorded: Mapping[str, np.ndarray], name: str) -> None:
    regions = found(engine, recorded, "driving_initial" if name == "initial" else name)
    for part, wanted in zip(regions, ("shift", "affine", "covar"), strict=True):
        np.testing.assert_allclose(part, recorded[f"region_{name}.{wanted}"], atol=REGIONS_ATOL, err_msg=wanted)


@pytest.mark.parametrize("mode", MODES)
def test_moved_regions(engine: TorchSession, recorded: Mapping[str, np.ndarray], mode: str) -> None:
    for part, wanted in zip(moved(engine, recorded, mode), ("shift", "affine", "covar"), strict=True):
        np.testing.assert_allclose(part, recorded[f"animate.{mode}.{wanted}"], atol=REGIONS_ATOL, err_msg=wanted)


@pytest.mark.parametrize("mode", MODES)
def test_frames(engine: TorchSession, recorded: Mapping[str, np.ndarray], mode: str) -> None:
    goal, pictures = moved(engine, recorded, mode), recorded["source"].transpose(0, 2, 3, 1)
    frames = np.concatenate([engine.render(picture, goal.take(place)) for place, picture in enumerate(pictures)])
    wanted = recorded[f"animate.{mode}.prediction"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(frames, wanted, atol=PICTURES_ATOL)


def test_the_modes_and_the_scale_are_exercised(engine: TorchSession, recorded: Mapping[str, np.ndarray]) -> None:
    source, initial = (found(engine, recorded, name) for name in ("source", "driving_initial"))
    assert abs(movement_scale(source, initial) - 1) > 0.01
    frames = [recorded[f"animate.{mode}.prediction"] for mode in MODES]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(frames[one] - frames[other]).max() > 100 * PICTURES_ATOL
