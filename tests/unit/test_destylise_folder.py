"""A set of pictures destylised into a folder: interrupted and begun again, the result is that of one go."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_destylise import QUICK, networks, picture
from torch import Tensor

from training.codes import CodeTable, read_codes
from training.destylise import Destylised, Destyliser
from training.destylise_folder import destylise_into

__all__ = ["networks"]

NAMES = ("a", "b", "c")
CONFIG = dataclasses.replace(QUICK, steps=3)


def load(name: str) -> Tensor:
    return picture(ord(name[0]))


def same(one: CodeTable, other: CodeTable) -> bool:
    equal = torch.equal(one.extrinsic, other.extrinsic) and torch.equal(one.intrinsic, other.intrinsic)
    return equal and one.names == other.names and one.about == other.about


def into(
    folder: Path, networks: Destyliser, *names: str, steps: int = 3, weights: str = "x"
) -> tuple[CodeTable, list[str]]:
    seen: list[str] = []
    config = dataclasses.replace(CONFIG, steps=steps)
    table = destylise_into(
        folder, names, load, networks, config, made_of={"sha256": weights}, done=lambda one: seen.append(one.name)
    )
    assert same(table, read_codes(folder))
    return table, seen


def test_a_run_that_was_stopped_goes_on_and_ends_alike(networks: Destyliser, tmp_path: Path) -> None:
    whole, seen = into(tmp_path / "whole", networks, *NAMES)
    assert seen == list(NAMES)

    def stops(found: Destylised) -> None:
        if found.name == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        destylise_into(tmp_path / "cut", NAMES, load, networks, CONFIG, made_of={"sha256": "x"}, done=stops)
    assert read_codes(tmp_path / "cut").names == ("a", "b")
    again, seen = into(tmp_path / "cut", networks, *NAMES)
    assert seen == ["c"]
    assert same(whole, again)
    assert into(tmp_path / "cut", networks, *NAMES)[1] == []


def test_other_settings_and_networks_begin_anew(networks: Destyliser, tmp_path: Path) -> None:
    into(tmp_path, networks, "a")
    assert into(tmp_path, networks, "a", steps=2)[1] == ["a"]
    assert into(tmp_path, networks, "a", steps=2, weights="y")[1] == ["a"]
    table, seen = into(tmp_path, networks, "b", steps=2, weights="y")
    assert (table.names, seen) == (("b",), ["b"])
    assert set(table.about["losses"]) == {"b"}
