"""The refine stage: codes fitted to the trained network, a picture at a time; interrupted, it ends with the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dualstyle_kit import SMALL, Levels, exported
from style_eval_kit import make_shards, pictures

from models.errors import CheckpointError, ClipError
from pipelines import refine as stage
from pipelines.settings import DualStyleSystem
from pipelines.stage import Paths
from training.codes import Codes, CodeTable, code_table, read_codes, write_codes
from training.destylise_config import DestyliseConfig, RefineConfig
from training.recipes import dualstyle

NAME, COUNT = "small", 3
QUICK = RefineConfig(steps=2, lr_structure=0.02, lr_colour=0.05)


@dataclass
class Given:
    """As much of the parameters as the stage reads."""

    config: RefineConfig = field(default_factory=lambda: QUICK)

    def dualstyle(self, name: str) -> DualStyleSystem:
        assert name == NAME
        return DualStyleSystem(dataset="faces", style_dataset="styles", destylise=DestyliseConfig(), refine=self.config)


def codes_of(*names: str) -> CodeTable:
    draw, shape = torch.Generator().manual_seed(5), (SMALL.num_styles, SMALL.style_dim)
    made = {name: Codes(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)) for name in names}
    return code_table(made, {"from": "a test"})


ALL = codes_of(*(f"still-{number}" for number in range(COUNT)))


@pytest.fixture
def paths(tmp_path: Path, samples: Path) -> Paths:
    """A project with a trained DualStyleGAN, a few style pictures and their codes."""
    torch.manual_seed(0)
    exported(tmp_path / "data" / "trained" / f"{NAME}-target", "dualstylegan", dualstyle.build_networks(SMALL))
    make_shards(tmp_path / "data" / "shards" / "styles", pictures(samples / "photos", COUNT, SMALL.size_px), num_test=1)
    write_codes(tmp_path / "data" / "codes" / NAME, ALL)
    return Paths(tmp_path)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that costs nothing."""
    monkeypatch.setattr(stage, "build_perceptual", lambda *_: Levels())


def run(paths: Paths, config: RefineConfig = QUICK) -> stage.RefineReport:
    return stage.run(NAME, Given(config), paths)  # type: ignore[arg-type]


def stopping_after(count: int) -> Any:
    """Refinement that dies when so many pictures are done."""
    whole = stage.refine

    def part(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, one in enumerate(whole(*arguments, **options)):
            if number == count:
                raise KeyboardInterrupt
            yield one

    return part


def test_the_extrinsic_codes_come_nearer_and_the_others_stay(paths: Paths) -> None:
    report = run(paths)
    table = read_codes(paths.refined(NAME))
    assert table.names == ALL.names
    assert torch.equal(table.intrinsic, ALL.intrinsic)
    assert not any(torch.equal(one, other) for one, other in zip(table.extrinsic, ALL.extrinsic, strict=True))
    assert (table.about["from"], table.about["refined"]["steps"]) == ("a test", QUICK.steps)
    assert (report.pictures, report.done_before, report.steps) == (COUNT, 0, QUICK.steps)
    assert report.distance_after < report.distance_before
    assert report.nearer == COUNT
    assert report.last_loss < report.first_loss
    said = json.loads(paths.report("refine", NAME).read_text())
    assert said["distance_after"] == report.distance_after
    assert (paths.pictures("refine", NAME) / "strip.png").is_file()


@pytest.mark.usefixtures("light")
def test_without_steps_the_codes_are_taken_over(paths: Paths) -> None:
    report = run(paths, RefineConfig(steps=0))
    table = read_codes(paths.refined(NAME))
    assert torch.equal(table.extrinsic, ALL.extrinsic)
    assert torch.equal(table.intrinsic, ALL.intrinsic)
    assert report.distance_after == report.distance_before
    assert report.nearer == 0


@pytest.mark.usefixtures("light")
def test_an_interrupted_stage_goes_on_to_the_same_codes(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "refine", stopping_after(1))
        with pytest.raises(KeyboardInterrupt):
            run(paths)
    assert not paths.refined(NAME).exists()
    assert run(paths).done_before == 1
    other = Paths(tmp_path / "other")
    (tmp_path / "other" / "data").mkdir(parents=True)
    for name in ("trained", "shards", "codes"):
        (other.root / "data" / name).symlink_to(tmp_path / "data" / name)
    assert run(other).done_before == 0
    assert torch.equal(read_codes(paths.refined(NAME)).extrinsic, read_codes(other.refined(NAME)).extrinsic)


@pytest.mark.usefixtures("light")
def test_only_what_has_changed_is_done_again(paths: Paths) -> None:
    run(paths)
    first = read_codes(paths.refined(NAME))
    assert run(paths).done_before == COUNT
    moved = {name: ALL[name] for name in ALL.names} | {"still-1": Codes(*(code + 0.5 for code in ALL["still-1"]))}
    write_codes(paths.codes(NAME), code_table(moved))
    assert run(paths).done_before == COUNT - 1
    second = read_codes(paths.refined(NAME))
    assert [torch.equal(first[name].extrinsic, second[name].extrinsic) for name in ALL.names] == [True, False, True]
    assert run(paths, RefineConfig(steps=1)).done_before == 0


@pytest.mark.usefixtures("light")
def test_a_failed_stage_leaves_the_codes_that_were_there(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    run(paths)
    before = read_codes(paths.refined(NAME))
    monkeypatch.setattr(stage, "refine", stopping_after(1))
    with pytest.raises(KeyboardInterrupt):
        run(paths, RefineConfig(steps=1))
    assert torch.equal(read_codes(paths.refined(NAME)).extrinsic, before.extrinsic)


def test_names_may_leave_out_the_piece(paths: Paths) -> None:
    clip = stage.find("styles", paths.shards("styles"))[1][0]
    clips = [replace(clip, id="ink-000000"), replace(clip, id="wash-000001")]
    found = stage.pictures_of(codes_of("ink", "wash-000001"), clips)
    assert {name: one.id for name, one in found.items()} == {"ink": "ink-000000", "wash-000001": "wash-000001"}


@pytest.mark.usefixtures("light")
def test_what_is_missing_is_named(paths: Paths) -> None:
    write_codes(paths.codes(NAME), codes_of("still-0", "gone"))
    with pytest.raises(ClipError, match="none for gone"):
        run(paths)
    write_codes(paths.codes(NAME), codes_of("still-0"))
    assert run(paths).pictures == 1  # pictures without codes have no part in a training
    (paths.trained(f"{NAME}-target") / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="small-target"):
        run(paths)
    (paths.codes(NAME) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="codes"):
        run(paths)
