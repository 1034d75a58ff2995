"""Edge-smoothed copies on their way from the cut through the shards to the reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.contracts import INDEX_NAME, Clip, ShardIndex
from models.errors import ClipError
from preprocessing.config import DatasetConfig
from preprocessing.ledger import LedgerRow
from preprocessing.shards import ShardOptions, make_index, shard_clips, write_index
from preprocessing.smooth import smoothed
from preprocessing.stills import image_item
from preprocessing.video import read_picture
from training.shard_reader import ShardReader

SIZE_PX = 48


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Three stills with copies in tmp_path/media."""
    made, media = [], tmp_path / "media"
    media.mkdir()
    config = DatasetConfig(
        kind="images", makes="stills", source="x", size_px=SIZE_PX, min_side_px=16, smooth=True, split="source"
    )
    for number in range(3):
        path = tmp_path / f"{number}.png"
        stripes = np.indices((60, 60))[number % 2] // (8 + 2 * number) % 2 * 200 + 20
        Image.fromarray(stripes.astype(np.uint8)).save(path)
        row = LedgerRow(item=path.name, origin=path.name, state="kept", sha256=f"{number:064x}")
        made += image_item(row, path, config, media).clips
    return made


def sharded(clips: list[Clip], folder: Path, *, smooth: bool) -> tuple[ShardReader, list[str]]:
    """The reader of the clips' shards, and why clips were left out."""
    target = folder / f"shards-{smooth}"
    target.mkdir()
    options = ShardOptions(dataset="x", split_rule="source", size_px=SIZE_PX, jpeg_quality=98, smooth=smooth)
    written = shard_clips(0, clips, folder / "media", target, options)
    write_index(target, make_index(clips, [written], options))
    return ShardReader(target), [clip.reason for clip in written.rejected]


def test_copies_come_back_beside_their_stills(clips: list[Clip], tmp_path: Path) -> None:
    reader, rejected = sharded(clips, tmp_path, smooth=True)
    assert not rejected
    assert reader.index.smooth
    for clip, place in zip(clips, reader.clips(), strict=True):
        still = read_picture(tmp_path / "media" / clip.path)
        copy = reader.smooth(place)
        assert copy.shape == (SIZE_PX, SIZE_PX, 3)
        assert np.abs(copy.astype(int) - smoothed(still)).max() <= 6
        assert np.abs(reader.frames(place)[0].astype(int) - still).max() <= 6
        assert np.abs(copy.astype(int) - still).max() > 30, "it is no second still"


def test_shards_without_copies_are_as_they_always_were(clips: list[Clip], tmp_path: Path) -> None:
    reader, _ = sharded(clips, tmp_path, smooth=False)
    raw = json.loads((reader.folder / INDEX_NAME).read_text())
    assert "smooth" not in raw
    assert ShardIndex.from_json(raw).smooth is False
    assert pq.read_schema(reader.folder / "shard-00000.parquet").names == ["id", "frames"]
    with pytest.raises(ClipError, match=r"data set x must hold edge-smoothed copies; got none. Set datasets.x.smooth"):
        reader.smooth(reader.clips()[0])


def test_copies_share_the_bound_of_the_cache(clips: list[Clip], tmp_path: Path) -> None:
    made, _ = sharded(clips, tmp_path, smooth=True)
    reader = ShardReader(made.folder, cache_bytes=1)
    for place in reader.clips() * 2:
        assert not np.array_equal(reader.smooth(place), reader.frames(place)[0])
    assert len(reader._cache) == 1


@pytest.mark.parametrize("wrong", ["gone", "size", "outside", "none"])
def test_a_still_whose_copy_can_not_be_had_is_left_out_alone(clips: list[Clip], tmp_path: Path, wrong: str) -> None:
    copy = tmp_path / "media" / str(clips[1].smooth)
    told = {"gone": "be a file", "size": "be 48 x 48", "outside": "lie below", "none": "have an edge-smoothed copy"}
    if wrong == "gone":
        copy.unlink()
    elif wrong == "size":
        Image.new("RGB", (32, 32)).save(copy)
    else:
        clips[1] = replace(clips[1], smooth="../0.png" if wrong == "outside" else None)
    reader, rejected = sharded(clips, tmp_path, smooth=True)
    assert [clip.id for clip in reader.clips()] == [clips[0].id, clips[2].id]
    assert told[wrong] in rejected[0]


def test_an_index_that_promises_copies_wrongly_is_told(clips: list[Clip], tmp_path: Path) -> None:
    reader, _ = sharded(clips, tmp_path, smooth=False)
    write_index(reader.folder, replace(reader.index, smooth=True))
    reader = ShardReader(reader.folder)
    with pytest.raises(ClipError, match=r"must be readable Parquet.*Make the shards again"):
        reader.smooth(reader.clips()[0])
