"""Single pictures as samples: each as often as any other, the same on any number of ranks, decoded once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_kit as kit

from models.errors import ClipError
from training.feed import FeedOptions
from training.pictures_feed import PictureFeed
from training.shard_reader import ShardReader

OPTIONS = FeedOptions(seed=3, batch_size=4, flip_horizontal=True)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return ShardReader(kit.write_shards(tmp_path_factory.mktemp("pictures"), num_train=6, num_frames=1))


def test_every_picture_comes_as_often_as_any_other(reader: ShardReader) -> None:
    with PictureFeed(reader, OPTIONS) as feed:
        seen = Counter(feed.sequence.sample(i).clip.id for i in range(60))
    assert set(seen.values()) == {10}
    assert len(seen) == 6


def test_pictures_are_the_shards_own_mirrored_or_not(reader: ShardReader) -> None:
    mirrored = 0
    with PictureFeed(reader, OPTIONS) as feed:
        for step in range(3):
            batch = feed.assemble(step)
            for picture, item in zip(batch.source, batch.items, strict=True):
                sample = feed.sequence.sample(int(item))
                frame = reader.frames(sample.clip)[0]
                wanted = frame[:, ::-1] if sample.mirrored else frame
                np.testing.assert_array_equal(picture.numpy(), wanted.transpose(2, 0, 1))
                mirrored += sample.mirrored
    assert 0 < mirrored < 12


def test_a_picture_is_decoded_once_for_both_halves_of_the_batch(
    reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = reader.decode
    monkeypatch.setattr(reader, "decode", lambda clip, place: decoded.append(clip.id) or decode(clip, place))
    with PictureFeed(reader, OPTIONS) as feed:
        batch = feed.assemble(0)
    assert len(decoded) == OPTIONS.batch_size
    assert batch.driving is batch.source


def test_two_ranks_see_what_one_sees(reader: ShardReader) -> None:
    with PictureFeed(reader, OPTIONS) as feed:
        whole = feed.assemble(5)
    shares = []
    for rank in range(2):
        with PictureFeed(reader, dataclasses.replace(OPTIONS, rank=rank, world_size=2)) as feed:
            shares.append(feed.assemble(5))
    order = np.argsort(np.concatenate([share.items for share in shares]))
    assert torch.equal(torch.cat([share.source for share in shares])[order], whole.source)


def test_larger_pictures_are_scaled_as_a_whole(reader: ShardReader) -> None:
    options = dataclasses.replace(OPTIONS, flip_horizontal=False)
    with PictureFeed(reader, options, size_px=16) as feed:
        batch = feed.assemble(0)
        frame = reader.frames(feed.sequence.sample(int(batch.items[0])).clip)[0]
    wanted = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(batch.source[0].numpy(), wanted.transpose(2, 0, 1))


def test_clips_give_frames_of_any_time(tmp_path: Path) -> None:
    clips = ShardReader(kit.write_shards(tmp_path, num_train=1, num_frames=12))
    with PictureFeed(clips, OPTIONS) as feed:
        assert len({feed.sequence.sample(i).source for i in range(60)}) > 8


def test_small_pictures_and_empty_splits_are_refused(reader: ShardReader, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="pictures of data set toy must be 64 px or larger; got 32 px"):
        PictureFeed(reader, OPTIONS, size_px=64)
    without = ShardReader(kit.write_shards(tmp_path, num_test=0, num_frames=1))
    with pytest.raises(ClipError, match="data set toy must hold a picture of the test split; got none"):
        PictureFeed(without, OPTIONS, "test")
