"""Files of codes: what is written is read, nothing half done is, and nothing foreign is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.errors import CheckpointError
from training import codes as module
from training.codes import MANIFEST, Codes, code_table, codes_sha256, read_codes, style_names, write_codes


def made(*names: str, seed: int = 0) -> dict[str, Codes]:
    draw = torch.Generator().manual_seed(seed)
    return {name: Codes(*torch.randn(2, 8, 4, generator=draw)) for name in names}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = made("b/two.png", "a one.jpg", "ünï")
    write_codes(tmp_path / "codes", code_table(given, {"steps": 3}))
    found = read_codes(tmp_path / "codes")
    assert found.names == ("a one.jpg", "b/two.png", "ünï")
    assert found.about == {"steps": 3}
    for name, codes in given.items():
        assert torch.equal(found[name].extrinsic, codes.extrinsic)
        assert torch.equal(found[name].intrinsic, codes.intrinsic)
    found.check_fits(8, 4)


def test_styles_are_called_after_their_pictures_without_the_stills_number() -> None:
    assert style_names(["micah-3-000000", "Disney_01.jpg", "film-000012"]) == (
        "micah-3",
        "Disney_01.jpg",
        "film-000012",
    )
    for ids in (("a", "a-000000"), ("a-000000", "a-000000-000000"), ("-000000", "-000000-000000")):
        names = style_names(ids)
        assert len(set(names)) == len(ids)
        assert all(name == known or name not in ids for name, known in zip(names, ids, strict=True))
    assert style_names(("a", "a-000000")) == ("a", "a-000000")


def test_new_codes_take_the_place_of_old_ones(tmp_path: Path) -> None:
    write_codes(tmp_path, code_table(made("a")))
    before = codes_sha256(tmp_path)
    write_codes(tmp_path, code_table(made("a", "b", seed=1)))
    assert read_codes(tmp_path).names == ("a", "b")
    assert codes_sha256(tmp_path) != before
    assert len(list(tmp_path.iterdir())) == 2
    write_codes(tmp_path, code_table(made("a", "b", seed=1)))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_writer_that_dies_leaves_the_old_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_codes(tmp_path, code_table(made("a")))
    written = module._write

    def dies(path: Path, data: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError("no space")
        written(path, data)

    monkeypatch.setattr(module, "_write", dies)
    with pytest.raises(OSError, match="no space"):
        write_codes(tmp_path, code_table(made("a", seed=7)))
    assert torch.equal(read_codes(tmp_path)["a"].extrinsic, made("a")["a"].extrinsic)


def test_missing_pictures_and_other_sizes_are_named() -> None:
    table = code_table(made("a"))
    with pytest.raises(CheckpointError, match="hold the codes of every style picture; got none of b, c"):
        table.check_holds(["a", "b", "c"])
    with pytest.raises(CheckpointError, match="none of b"):
        table["b"]
    with pytest.raises(CheckpointError, match="be 18 x 512 numbers for each picture; got 8 x 4"):
        table.check_fits(18, 512)


def test_codes_that_can_not_be_are_refused() -> None:
    with pytest.raises(CheckpointError, match="one or more"):
        code_table({})
    mixed = made("a") | {"b": Codes(torch.zeros(6, 4), torch.zeros(6, 4))}
    with pytest.raises(CheckpointError, match=r"extrinsic codes of 'b' must be of the others' shape \(8, 4\)"):
        code_table(mixed)
    broken = made("a")
    broken["a"].intrinsic[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="intrinsic codes of 'a' must be finite"):
        code_table(broken)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"schema_version": 2}, "have schema_version 1; got 2"),
        ({"file": "../elsewhere"}, "name a file beside it"),
        ({"names": ["a", "a"]}, "name every picture once"),
        ({"names": ["a", "b", "c"]}, "codes of 3 pictures"),
        ({"sha256": "0" * 64}, "have the manifest's sha256 000000000000"),
        ({"file": "gone"}, "be readable"),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, change: dict[str, object], line: str) -> None:
    write_codes(tmp_path, code_table(made("a", "b")))
    raw = json.loads((tmp_path / MANIFEST).read_text()) | change
    (tmp_path / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=line):
        read_codes(tmp_path)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Destylise the style pictures first"):
        read_codes(tmp_path)
    with pytest.raises(CheckpointError, match="Destylise the style pictures first"):
        codes_sha256(tmp_path)
