"""Samples of the target domain: every style picture comes with the codes that are its own, whole and as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import training_kit as kit

from models.errors import CheckpointError, ClipError
from training.codes import Codes, CodeTable, code_table
from training.dualstyle_feed import CodedBatch, DualStyleFeed, coded
from training.feed import FeedOptions, PairBatch
from training.shard_reader import ShardReader

OPTIONS = FeedOptions(seed=3, batch_size=4, flip_horizontal=True, threads=1, prefetch_batches=1)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardReader, ShardReader]:
    folder = tmp_path_factory.mktemp("coded")
    photos = kit.write_shards(folder / "photos", num_train=6, num_frames=1)
    styles = kit.write_shards(folder / "styles", num_train=4, num_frames=1)
    return ShardReader(photos), ShardReader(styles)


def codes(*names: str) -> CodeTable:
    return code_table({name: Codes(*torch.full((2, 8, 4), float(place))) for place, name in enumerate(names)})


ALL = codes("train-0", "train-1", "train-2", "train-3")


def test_each_style_picture_comes_with_its_own_codes(readers: tuple[ShardReader, ShardReader]) -> None:
    with DualStyleFeed(*readers, ALL, OPTIONS) as feed:
        given = next(feed.batches(2))
    assert isinstance(given, CodedBatch)
    assert given.extrinsic.shape == given.intrinsic.shape == (4, 8, 4)
    by_name = {clip.id: clip for clip in readers[1].clips("train")}
    for place, name in enumerate(given.names):
        assert torch.equal(given.extrinsic[place], ALL[name].extrinsic)
        whole = readers[1].frames(by_name[name])[0]
        np.testing.assert_array_equal(given.driving[place].numpy(), whole.transpose(2, 0, 1))


def test_photos_are_mirrored_and_style_pictures_are_not(readers: tuple[ShardReader, ShardReader]) -> None:
    with DualStyleFeed(*readers, ALL, OPTIONS) as feed:
        assert any(feed.sequence.sample(i).mirrored for i in range(20))
        assert not any(feed.style_sequence.sample(i).mirrored for i in range(20))


def test_two_ranks_see_what_one_sees(readers: tuple[ShardReader, ShardReader]) -> None:
    with DualStyleFeed(*readers, ALL, OPTIONS) as feed:
        whole = feed.assemble(1)
    for rank in range(2):
        with DualStyleFeed(*readers, ALL, dataclasses.replace(OPTIONS, rank=rank, world_size=2)) as feed:
            share = feed.assemble(1)
        mine = np.isin(whole.items, share.items)
        assert torch.equal(whole.extrinsic[torch.from_numpy(mine)], share.extrinsic)
        assert torch.equal(whole.driving[torch.from_numpy(mine)], share.driving)


def test_pictures_without_codes_are_left_out(readers: tuple[ShardReader, ShardReader]) -> None:
    with DualStyleFeed(*readers, codes("train-1", "train-3", "another"), OPTIONS) as feed:
        assert {name for step in range(4) for name in feed.assemble(step).names} == {"train-1", "train-3"}
    with pytest.raises(ClipError, match="hold style pictures with codes; got codes of 1 others"):
        DualStyleFeed(*readers, codes("another"), OPTIONS)


def test_codes_of_other_pictures_are_refused() -> None:
    nothing = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="none of gone"):
        coded(PairBatch(nothing, nothing, np.arange(1)), ALL, ("gone",))


def test_a_folder_of_codes_feeds_a_training(readers: tuple[ShardReader, ShardReader], tmp_path: Path) -> None:
    from training.codes import read_codes, write_codes

    write_codes(tmp_path, ALL)
    with DualStyleFeed(*readers, read_codes(tmp_path), OPTIONS) as feed:
        assert torch.equal(feed.assemble(0).intrinsic, feed.assemble(0).intrinsic)
