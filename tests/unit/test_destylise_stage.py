"""The destylise stage: interrupted anywhere it gives the codes of one that was not; what is done is not done again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dualstyle_kit import SMALL, exported
from style_eval_kit import make_shards, pictures

from models.errors import CheckpointError
from models.style.face_networks import build_encoder
from pipelines import destylise as stage
from pipelines.settings import DualStyleSystem
from pipelines.stage import Paths
from training.codes import read_codes
from training.destylise_config import DestyliseConfig
from training.recipes.face_gan import build_networks

NAME, COUNT = "small", 4


@dataclass
class Given:
    """As much of the parameters as the stage reads."""

    config: DestyliseConfig = field(default_factory=lambda: DestyliseConfig(steps=2))

    def dualstyle(self, name: str) -> DualStyleSystem:
        assert name == NAME
        return DualStyleSystem(dataset="faces", style_dataset="styles", destylise=self.config)


@pytest.fixture
def paths(tmp_path: Path, samples: Path) -> Paths:
    """A project with the three networks, random, and a few style pictures."""
    torch.manual_seed(0)
    for step, preset, networks in (
        ("gan", "stylegan2", build_networks(SMALL)),
        ("tuned", "stylegan2", build_networks(SMALL)),
        ("encoder", "psp", build_encoder(SMALL)),
    ):
        exported(tmp_path / "data" / "trained" / f"{NAME}-{step}", preset, networks)
    frames = pictures(samples / "photos", COUNT, SMALL.size_px)
    make_shards(tmp_path / "data" / "shards" / "styles", frames, num_test=1)
    return Paths(tmp_path)


def codes(paths: Paths) -> tuple[np.ndarray, np.ndarray]:
    table = read_codes(paths.codes(NAME))
    return table.extrinsic.numpy(), table.intrinsic.numpy()


def stopping_after(count: int) -> Any:
    """Destylisation that dies when so many pictures are done."""
    whole = stage.destylise

    def part(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, one in enumerate(whole(*arguments, **options)):
            if number == count:
                raise KeyboardInterrupt
            yield one

    return part


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_to_the_same_codes(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "destylise", stopping_after(2))
        with pytest.raises(KeyboardInterrupt):
            stage.run(NAME, Given(), paths)  # type: ignore[arg-type]
    assert not paths.codes(NAME).exists()
    report = stage.run(NAME, Given(), paths)  # type: ignore[arg-type]
    assert (report.pictures, report.done_before) == (COUNT, 2)
    broken = codes(paths)
    other = Paths(tmp_path / "other")
    (tmp_path / "other" / "data").mkdir(parents=True)
    for name in ("trained", "shards"):
        (tmp_path / "other" / "data" / name).symlink_to(tmp_path / "data" / name)
    assert stage.run(NAME, Given(), other).done_before == 0  # type: ignore[arg-type]
    for one, same in zip(broken, codes(other), strict=True):
        np.testing.assert_array_equal(one, same)


def test_what_is_done_is_kept_until_the_settings_change(paths: Paths) -> None:
    first = stage.run(NAME, Given(), paths)  # type: ignore[arg-type]
    assert first.last_loss < first.first_loss
    before = codes(paths)
    again = stage.run(NAME, Given(), paths)  # type: ignore[arg-type]
    assert again.done_before == COUNT
    np.testing.assert_array_equal(before[0], codes(paths)[0])
    other = stage.run(NAME, Given(DestyliseConfig(steps=3)), paths)  # type: ignore[arg-type]
    assert other.done_before == 0
    assert (paths.pictures("destylise", NAME) / "strip.png").is_file()


def test_a_missing_network_is_named(paths: Paths) -> None:
    (paths.trained(f"{NAME}-tuned") / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="tuned"):
        stage.run(NAME, Given(), paths)  # type: ignore[arg-type]
