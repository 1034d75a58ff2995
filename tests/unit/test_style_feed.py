"""Unpaired samples: two sequences, the same on any number of ranks, each picture as often as any other."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import training_kit as kit

from models.contracts import INDEX_NAME
from models.errors import ClipError
from training.feed import FeedOptions
from training.shard_reader import ShardReader
from training.unpaired import UnpairedFeed

OPTIONS = FeedOptions(seed=3, batch_size=4, flip_horizontal=True)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardReader, ShardReader]:
    folder = tmp_path_factory.mktemp("unpaired")
    photos = kit.write_shards(folder / "photos", num_train=6, num_frames=1)
    styles = kit.write_shards(folder / "styles", num_train=4, num_frames=1)
    return ShardReader(photos), ShardReader(styles)


def drawn(feed: UnpairedFeed, num: int) -> list[tuple[str, str]]:
    return [(feed.sequence.sample(i).clip.id, feed.style_sequence.sample(i).clip.id) for i in range(num)]


def test_every_picture_comes_as_often_and_pairs_change(readers: tuple[ShardReader, ShardReader]) -> None:
    with UnpairedFeed(*readers, OPTIONS) as feed:
        pairs = drawn(feed, 48)
    assert set(Counter(photo for photo, _ in pairs).values()) == {8}
    assert set(Counter(style for _, style in pairs).values()) == {12}
    assert len(set(pairs)) > 12, "who meets whom is not fixed"


def test_sets_of_equal_size_are_not_in_step(readers: tuple[ShardReader, ShardReader]) -> None:
    with UnpairedFeed(readers[0], readers[0], OPTIONS) as feed:
        pairs = drawn(feed, 60)
    assert 0 < sum(photo == style for photo, style in pairs) < 30


def test_two_ranks_see_what_one_sees(readers: tuple[ShardReader, ShardReader]) -> None:
    with UnpairedFeed(*readers, OPTIONS) as feed:
        whole = feed.assemble(5)
    shares = []
    for rank in range(2):
        with UnpairedFeed(*readers, dataclasses.replace(OPTIONS, rank=rank, world_size=2)) as feed:
            shares.append(feed.assemble(5))
    for name in ("source", "driving"):
        both = torch.cat([getattr(share, name) for share in shares])
        order = np.argsort(np.concatenate([share.items for share in shares]))
        assert torch.equal(both[order], getattr(whole, name))


def test_frames_are_the_shards_own_mirrored_or_not(readers: tuple[ShardReader, ShardReader]) -> None:
    with UnpairedFeed(*readers, OPTIONS) as feed:
        batch = next(feed.batches(2))
        for place, item in enumerate(batch.items):
            for given, reader, sequence in (
                (batch.source, readers[0], feed.sequence),
                (batch.driving, readers[1], feed.style_sequence),
            ):
                sample = sequence.sample(int(item))
                frame = reader.frames(sample.clip)[0]
                wanted = frame[:, ::-1] if sample.mirrored else frame
                np.testing.assert_array_equal(given[place].numpy(), wanted.transpose(2, 0, 1))


def test_sets_of_two_sizes_and_empty_ones_are_refused(readers: tuple[ShardReader, ShardReader], tmp_path: Path) -> None:
    folder = kit.write_shards(tmp_path / "larger", num_frames=1)
    index = json.loads((folder / INDEX_NAME).read_text())
    (folder / INDEX_NAME).write_text(json.dumps({**index, "size_px": 64}))
    with pytest.raises(ClipError, match="photos and style pictures must have one size; got 32 and 64 px"):
        UnpairedFeed(readers[0], ShardReader(folder), OPTIONS)
    (folder / INDEX_NAME).write_text(json.dumps({**index, "clips": []}))
    with pytest.raises(ClipError, match="have a clip to draw from"):
        UnpairedFeed(readers[0], ShardReader(folder), OPTIONS)
