"""Published files of codes: read without being run, and refused when there is more in them than codes."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointError
from training.codes_published import read_published_codes, read_published_dict


def arrays(*names: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((1, 6, 4), dtype=np.float32) for name in names}


def saved(path: Path, value: Any, protocol: int | None = None) -> Path:
    if protocol is None:
        np.save(path, value, allow_pickle=True)  # as the published files are written
        return path
    header = np.lib.format.header_data_from_array_1_0(np.array(None, dtype=object))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(np.array(value, dtype=object), file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
def test_published_files_are_read(tmp_path: Path, protocol: int | None) -> None:
    given = arrays("Cartoons_00038_01.jpg", "b.png", "ä.png")
    found = read_published_dict(saved(tmp_path / "exstyle_code.npy", given, protocol))
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name].numpy(), array[0])


def test_two_files_make_a_table(tmp_path: Path) -> None:
    outer, inner = arrays("a.jpg", "b.jpg"), arrays("b.jpg", "c.jpg", seed=1)
    table = read_published_codes(saved(tmp_path / "ex.npy", outer), saved(tmp_path / "in.npy", inner))
    assert table.names == ("b",)
    np.testing.assert_array_equal(table["b"].intrinsic.numpy(), inner["b.jpg"][0])
    with pytest.raises(CheckpointError, match="name pictures that in.npy names; got none of them"):
        read_published_codes(saved(tmp_path / "ex.npy", arrays("z")), tmp_path / "in.npy")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"a": Trap()}, "a call of (posix|os|nt) mkdir"),
        (OrderedDict(arrays("a")), "a call of collections OrderedDict"),
        ({"a": np.zeros((1, 6, 4))}, "'a', which is not float32 in rows"),
        ({"a": np.zeros((6, 4), np.float32)}, r"'a' of shape \(6, 4\)"),
        ({3: np.zeros((1, 6, 4), np.float32)}, "3, which is no array with a name"),
        ({"a": [1.0]}, "the operation BINFLOAT"),
        ([1, 2], "not enough values|a list|an array"),
    ],
)
def test_anything_else_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=line) as raised:
        read_published_dict(saved(tmp_path / "bad.npy", value))
    assert "If you trust where it is from" in str(raised.value)
    assert not (tmp_path / "sprung").exists()


def test_cut_off_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npy", arrays("a")).read_bytes()
    for number, data in enumerate((whole[:-40], whole[:200], b"", b"PK\x03\x04", whole + whole)):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(data)
        if number == 4:  # what follows the end is never looked at
            assert set(read_published_dict(path)) == {"a"}
        else:
            with pytest.raises(CheckpointError):
                read_published_dict(path)
    with pytest.raises(CheckpointError, match="be readable"):
        read_published_dict(tmp_path / "gone.npy")
