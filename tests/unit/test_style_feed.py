"""Unpaired samples: two sequences, the same on any number of ranks, each picture as often as any other."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import training_kit as kit

from models.contracts import INDEX_NAME, ShardClip, ShardIndex
from models.errors import ClipError, ParamsError
from preprocessing.shards import encode_frames, write_index, write_shard
from training.feed import FeedOptions, PairBatch
from training.shard_reader import ShardReader
from training.unpaired import UnpairedFeed, square_of

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
    larger = stills(tmp_path / "larger", size_px=64)
    with pytest.raises(ClipError, match="photos and style pictures must have one size; got 32 and 64 px"):
        UnpairedFeed(readers[0], ShardReader(larger), OPTIONS)
    with pytest.raises(ClipError, match="stills of data set toy must be 48 px or larger; got 32 px"):
        UnpairedFeed(ShardReader(larger), readers[0], OPTIONS, size_px=48)
    index = json.loads((larger / INDEX_NAME).read_text())
    (larger / INDEX_NAME).write_text(json.dumps({**index, "clips": []}))
    for sets, split in (((larger, readers[0].folder), "train"), ((readers[0].folder, larger), "train")):
        with pytest.raises(ClipError, match=f"must hold a picture of the {split} split; got none"):
            UnpairedFeed(*map(ShardReader, sets), OPTIONS, size_px=32)


def stills(folder: Path, *, size_px: int = 64, num: int = 5, smooth: bool = True, splits: str = "train") -> Path:
    """Shards of stills whose red grows to the right and green downwards; blue tells the still. Copies are inverted."""
    folder.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, size_px).astype(np.uint8)
    rows, copies, clips = [], {}, []
    for number in range(num):
        picture = np.empty((size_px, size_px, 3), np.uint8)
        picture[..., 0], picture[..., 1], picture[..., 2] = ramp, ramp[:, None], 40 * number
        name = f"still-{number}"
        rows.append((name, encode_frames(picture[None], quality=98)))
        copies[name] = encode_frames(255 - picture[None], quality=98)[0]
        place = {"split": splits, "identity": name, "num_frames": 1, "fps": 1.0, "shard": 0, "row": number}
        clips.append(ShardClip(id=name, **place))  # type: ignore[arg-type]
    file = write_shard(rows, folder / "shard-00000.parquet", smooth=copies if smooth else None)
    index = ShardIndex(
        dataset="toy", size_px=size_px, split_rule="source", shards=(file,), clips=tuple(clips), smooth=smooth
    )
    write_index(folder, index)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardReader, ShardReader]:
    """Photos of 64 px and style pictures of 96 px, with copies."""
    folder = tmp_path_factory.mktemp("large")
    return ShardReader(stills(folder / "photos", smooth=False)), ShardReader(stills(folder / "styles", size_px=96))


def cropped(readers: tuple[ShardReader, ShardReader], **options: object) -> UnpairedFeed:
    made = dataclasses.replace(OPTIONS, **options)  # type: ignore[arg-type]
    return UnpairedFeed(*readers, made, size_px=32, crop=(0.4, 1.0), smooth=True)


def is_same(one: PairBatch, other: PairBatch) -> bool:
    assert one.smooth is not None
    assert other.smooth is not None
    pictures = [(one.source, other.source), (one.driving, other.driving), (one.smooth, other.smooth)]
    return bool(np.array_equal(one.items, other.items)) and all(torch.equal(*pair) for pair in pictures)


def test_squares_are_of_every_size_and_place_and_within_the_still() -> None:
    drawn = [square_of(7, index, still_px=96, size_px=32, crop=(0.2, 0.8)) for index in range(3000)]
    sides = [square.side for square in drawn]
    assert (min(sides), max(sides)) == (32, 77), "no smaller than what the training sees"
    assert min(min(left, top) for left, top, _ in drawn) == 0
    assert max(max(left, top) + side for left, top, side in drawn) == 96
    middles = np.array([(left + side / 2, top + side / 2) for left, top, side in drawn])
    assert np.abs(middles.mean(0) - 48).max() < 1.5
    assert abs(np.corrcoef(middles.T)[0, 1]) < 0.1
    assert square_of(7, 5, still_px=96, size_px=32, crop=(1.0, 1.0)) == (0, 0, 96)
    assert drawn[5] == square_of(7, 5, still_px=96, size_px=32, crop=(0.2, 0.8))


def test_a_square_is_cut_where_it_was_drawn(large: tuple[ShardReader, ShardReader]) -> None:
    with cropped(large, flip_horizontal=False, batch_size=16) as feed:
        batch = feed.assemble(0)
        for place, item in enumerate(batch.items.tolist()):
            for given, sequence, still_px in (
                (batch.source, feed.sequence, 64),
                (batch.driving, feed.style_sequence, 96),
            ):
                seed = sequence.options.seed
                left, top, side = square_of(seed, item, still_px=still_px, size_px=32, crop=(0.4, 1.0))
                red, green = given[place, 0].float().mean(), given[place, 1].float().mean()
                middle = np.array([left + (side - 1) / 2, top + (side - 1) / 2]) * 255 / (still_px - 1)
                assert np.abs(np.array([red, green]) - middle).max() < 4


def test_copies_are_of_the_same_square_and_flip(large: tuple[ShardReader, ShardReader]) -> None:
    with cropped(large, batch_size=16) as feed:
        batch = feed.assemble(1)
    assert batch.smooth is not None
    assert batch.smooth.dtype == torch.uint8
    assert batch.smooth.shape == batch.driving.shape == (16, 3, 32, 32)
    assert (batch.smooth.int() + batch.driving.int() - 255).abs().max() <= 8


def test_photos_and_style_pictures_are_cut_independently(large: tuple[ShardReader, ShardReader]) -> None:
    with UnpairedFeed(large[0], large[0], OPTIONS, size_px=32, crop=(0.5, 1.0)) as feed:
        seeds = feed.sequence.options.seed, feed.style_sequence.options.seed
        of = [[square_of(seed, i, still_px=64, size_px=32, crop=(0.5, 1.0)) for i in range(400)] for seed in seeds]
        assert feed.assemble(0).smooth is None
    sides = np.array([[square.side for square in squares] for squares in of])
    assert abs(np.corrcoef(sides)[0, 1]) < 0.15


def test_cut_squares_are_the_same_on_two_ranks_and_any_threads(large: tuple[ShardReader, ShardReader]) -> None:
    with cropped(large) as feed:
        whole = list(itertools.islice(feed.batches(0), 6))
    with cropped(large, threads=4, prefetch_batches=2) as feed:
        assert all(map(is_same, whole, itertools.islice(feed.batches(0), 6)))
    with cropped(large) as feed:
        assert all(map(is_same, whole[4:], itertools.islice(feed.batches(4), 2))), "gone on with at step 4"
    for rank in range(2):
        with cropped(large, rank=rank, world_size=2) as feed:
            for batch, part in zip(whole, itertools.islice(feed.batches(0), 6), strict=True):
                mine = PairBatch(*(value[rank::2] for value in batch))  # type: ignore[index]
                assert is_same(mine, part)


def test_few_pictures_give_many_squares(large: tuple[ShardReader, ShardReader]) -> None:
    with cropped(large, batch_size=20) as feed:
        shown = torch.cat([feed.assemble(step).driving for step in range(5)]).flatten(1)
    assert len(shown.unique(dim=0)) == 100, "of five pictures"


def test_a_style_without_a_test_split_is_shown_by_what_trains(tmp_path: Path) -> None:
    photos = ShardReader(stills(tmp_path / "photos", splits="test"))
    styles = ShardReader(stills(tmp_path / "styles", num=1))
    with UnpairedFeed(photos, styles, OPTIONS, "test") as feed:
        assert {feed.style_sequence.sample(i).clip.id for i in range(8)} == {"still-0"}
    with pytest.raises(ClipError, match="data set toy must hold a picture of the train split; got none"):
        UnpairedFeed(photos, styles, OPTIONS, "train")


@pytest.mark.parametrize("crop", [(0.0, 1.0), (0.8, 0.5), (0.5, 1.1)])
def test_wrong_shares_are_refused(large: tuple[ShardReader, ShardReader], crop: tuple[float, float]) -> None:
    with pytest.raises(ParamsError, match="crop must be two shares"):
        UnpairedFeed(*large, OPTIONS, size_px=32, crop=crop)


def test_copies_that_are_not_there_are_told(large: tuple[ShardReader, ShardReader]) -> None:
    message = (
        "the shards of data set toy must hold edge-smoothed copies; got none. "
        "Set datasets.toy.smooth to true, and cut and shard it again."
    )
    with pytest.raises(ClipError, match=re.escape(message)):
        UnpairedFeed(large[0], large[0], OPTIONS, smooth=True)
