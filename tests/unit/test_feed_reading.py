"""Shards as they are written and read back, whole and broken; batches out of threads."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path
from socket import gethostname

import cv2
import numpy as np
import pytest
import torch

from models.contracts import INDEX_NAME, Clip, ShardClip, ShardIndex
from models.errors import ClipError, EnvironmentProblem
from preprocessing.shards import ShardOptions, encode_frames, write_index, write_shard, write_shards
from training.feed import Feed, FeedOptions, PairBatch, ShardReader
from training.shard_cache import local_copy

SIZE_PX, NUM_FRAMES = 32, 6


def make_frames(number: int) -> np.ndarray:
    """A clip whose frames tell which they are: red counts clips, green frames, blue grows to the right."""
    frames = np.zeros((NUM_FRAMES, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    frames[..., 0] = 20 * number
    frames[..., 1] = (30 * np.arange(NUM_FRAMES, dtype=np.uint8))[:, None, None]
    frames[..., 2] = np.linspace(0, 255, SIZE_PX).astype(np.uint8)
    return frames


def make_shards(folder: Path, num_shards: int = 2, clips_per_shard: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files, clips = [], []
    for shard in range(num_shards):
        numbers = range(shard * clips_per_shard, (shard + 1) * clips_per_shard)
        rows = [(f"clip-{number}", encode_frames(make_frames(number), quality=98)) for number in numbers]
        files.append(write_shard(rows, folder / f"shard-{shard:05d}.parquet"))
        for row, number in enumerate(numbers):
            split = "test" if number == 0 else "train"
            place = {
                "split": split,
                "identity": "one",
                "num_frames": NUM_FRAMES,
                "fps": 25.0,
                "shard": shard,
                "row": row,
            }
            clips.append(ShardClip(id=f"clip-{number}", **place))
    index = ShardIndex(dataset="x", size_px=SIZE_PX, split_rule="source", shards=tuple(files), clips=tuple(clips))
    write_index(folder, index)
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shards(tmp_path / "shards")


def take(reader: ShardReader, num_batches: int, start: int = 0, **options: object) -> list[PairBatch]:
    with Feed(reader, FeedOptions(**{"batch_size": 4, **options})) as feed:  # type: ignore[arg-type]
        return list(itertools.islice(feed.batches(start), num_batches))


def same(one: list[PairBatch], other: list[PairBatch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.source, b.source) and torch.equal(a.driving, b.driving) and (a.items == b.items).all()
        for a, b in zip(one, other, strict=True)
    )


def test_frames_come_back_as_they_were(shards: Path) -> None:
    reader = ShardReader(shards)
    reader.verify()
    assert [clip.id for clip in reader.clips("test")] == ["clip-0"]
    assert len(reader.clips("train")) == 5
    for clip in reader.clips():
        number = int(clip.id.removeprefix("clip-"))
        whole, some = reader.frames(clip), reader.frames(clip, [4, 1, 4])
        assert whole.shape == (NUM_FRAMES, SIZE_PX, SIZE_PX, 3)
        assert np.abs(whole.astype(int) - make_frames(number)).max() <= 8
        assert np.array_equal(some, whole[[4, 1, 4]])


def test_batches_hold_the_samples_of_the_sequence(shards: Path) -> None:
    reader = ShardReader(shards)
    with Feed(reader, FeedOptions(batch_size=4)) as feed:
        batches = list(itertools.islice(feed.batches(0), 5))
        assert any(feed.sequence.sample(i).mirrored for i in range(20))
        for step, batch in enumerate(batches):
            assert batch.items.tolist() == list(feed.sequence.step(step))
            assert batch.source.dtype == torch.uint8
            assert batch.source.shape == batch.driving.shape == (4, 3, SIZE_PX, SIZE_PX)
            assert batch.source.is_contiguous()
            for place, index in enumerate(batch.items.tolist()):
                sample = feed.sequence.sample(index)
                expected = reader.frames(sample.clip, [sample.source, sample.driving])
                expected = expected[:, :, ::-1] if sample.mirrored else expected
                expected = expected.transpose(0, 3, 1, 2)
                assert np.array_equal(batch.source[place].numpy(), expected[0])
                assert np.array_equal(batch.driving[place].numpy(), expected[1])


def test_a_batch_is_its_own(shards: Path) -> None:
    first, second = take(ShardReader(shards), 2)
    before = second.source.clone()
    first.source.zero_()
    assert torch.equal(second.source, before)


def test_threads_and_prefetch_change_nothing(shards: Path) -> None:
    reader = ShardReader(shards)
    expected = take(reader, 6, threads=1, prefetch_batches=1)
    for threads, prefetch in ((2, 4), (4, 1), (3, 9)):
        assert same(take(reader, 6, threads=threads, prefetch_batches=prefetch), expected)
    assert same(take(ShardReader(shards, cache_bytes=1), 6, threads=3), expected)


def test_a_restart_goes_on_where_it_was(shards: Path) -> None:
    reader = ShardReader(shards)
    unbroken = take(reader, 9)
    for step in (1, 4, 8):
        assert same(take(reader, 9 - step, start=step), unbroken[step:])
    with Feed(reader, FeedOptions(batch_size=4)) as feed:
        next(feed.batches(0))
        again = list(itertools.islice(feed.batches(3), 2))
    assert same(again, unbroken[3:5])


def test_two_ranks_of_4_see_what_one_of_8_sees(shards: Path) -> None:
    reader = ShardReader(shards)
    ranks = [take(reader, 3, batch_size=8, rank=rank, world_size=2) for rank in (0, 1)]
    for step, whole in enumerate(take(reader, 3, batch_size=8)):
        for rank in (0, 1):
            part = ranks[rank][step]
            assert torch.equal(part.source, whole.source[rank::2])
            assert torch.equal(part.driving, whole.driving[rank::2])
            assert (part.items == whole.items[rank::2]).all()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = make_shards(tmp_path / "a"), make_shards(tmp_path / "b")
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (other / path.name).read_bytes()
    assert sorted(path.name for path in one.iterdir()) == [INDEX_NAME, "shard-00000.parquet", "shard-00001.parquet"]


def test_stats_count_what_was_handed_out(shards: Path) -> None:
    with Feed(ShardReader(shards), FeedOptions(batch_size=4)) as feed:
        assert feed.stats.samples == 0
        assert feed.stats.samples_per_s == 0
        list(itertools.islice(feed.batches(0), 3))
        stats = feed.stats
    assert stats.samples == 12
    assert stats.waited_s > 0
    assert stats.samples_per_s > 0


def test_the_cache_stays_within_its_bound(shards: Path) -> None:
    one_clip = sum(map(len, encode_frames(make_frames(1), quality=98)))
    reader = ShardReader(shards, cache_bytes=3 * one_clip)
    for clip in reader.clips() * 2:
        reader.frames(clip)
    assert 0 < len(reader._cache) < 6
    assert sum(coded.data.nbytes for coded in reader._cache.values()) == reader._cached_bytes <= 3 * one_clip


def test_a_reader_can_be_sent(shards: Path) -> None:
    reader = ShardReader(shards, cache_bytes=77)
    reader.frames(reader.clips()[0])
    sent = pickle.loads(pickle.dumps(reader))
    assert sent.cache_bytes == 77
    assert np.array_equal(sent.frames(sent.clips()[1]), reader.frames(reader.clips()[1]))


def test_a_missing_or_torn_shard_is_told_at_the_opening(shards: Path) -> None:
    path = shards / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ClipError, match=r"shard-00001.parquet must have \d+ bytes as indexed; got \d+ bytes"):
        ShardReader(shards)
    path.unlink()
    with pytest.raises(ClipError, match="shard-00001.parquet must be readable"):
        ShardReader(shards)


@pytest.mark.parametrize("place", ["footer", "pages"])
def test_a_spoilt_shard_is_told_by_name(shards: Path, place: str) -> None:
    path = shards / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    spoilt = range(len(content) - 200, len(content) - 8) if place == "footer" else range(4, len(content) // 2)
    for position in spoilt:
        content[position] ^= 0x55
    path.write_bytes(content)
    reader = ShardReader(shards)
    with pytest.raises(ClipError, match=r"shard-00001.parquet must have sha256 .* as indexed"):
        reader.verify()
    with pytest.raises(ClipError, match=r"shard-00001.parquet") as caught:
        [reader.frames(clip) for clip in reader.clips()]
    assert "\n" not in str(caught.value)


def test_an_error_in_a_thread_surfaces_in_the_batches(shards: Path) -> None:
    bad = [("clip-3", [b"no jpeg"] * NUM_FRAMES)] + [
        (f"clip-{n}", encode_frames(make_frames(n), quality=98)) for n in (4, 5)
    ]
    spoil(shards, bad)
    with (
        Feed(ShardReader(shards), FeedOptions(batch_size=4)) as feed,
        pytest.raises(ClipError, match=r"shard-00001.parquet, clip clip-3 must hold frames of 32 x 32"),
    ):
        list(itertools.islice(feed.batches(0), 50))


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (encode_frames(make_frames(3)[:, :16, :16], quality=90), "got 16 x 16"),
        ([b""] * NUM_FRAMES, "bytes that are no JPEG"),
        (encode_frames(make_frames(3)[:4], quality=90), "with 4 frames"),
    ],
)
def test_a_clip_that_differs_from_the_index_is_refused(shards: Path, frames: list[bytes], told: str) -> None:
    spoil(shards, [("clip-3", frames)])
    reader = ShardReader(shards)
    clip = next(clip for clip in reader.clips() if clip.id == "clip-3")
    with pytest.raises(ClipError, match=told):
        reader.frames(clip)


def spoil(shards: Path, rows: list[tuple[str, list[bytes]]]) -> None:
    """Replace shard 1, and let the index agree with it."""
    reader = ShardReader(shards)
    changed = write_shard(rows, shards / "shard-00001.parquet")
    write_index(shards, replace(reader.index, shards=(reader.index.shards[0], changed)))


def test_a_frame_outside_the_clip_is_refused(shards: Path) -> None:
    reader = ShardReader(shards)
    for position in (-1, NUM_FRAMES):
        with pytest.raises(ClipError, match=rf"clip-0 must hold frame {position}; got 6 frames"):
            reader.frames(reader.clips()[0], [position])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": 3, "clips": []}', "\x00"])
def test_a_bad_index_is_refused(shards: Path, text: str) -> None:
    (shards / INDEX_NAME).write_text(text)
    with pytest.raises(ClipError, match=r"index.json must be a shard index"):
        ShardReader(shards)


def test_an_index_of_another_schema_is_refused(shards: Path) -> None:
    raw = json.loads((shards / INDEX_NAME).read_text())
    (shards / INDEX_NAME).write_text(json.dumps({**raw, "schema_version": 9}))
    with pytest.raises(ClipError, match="must have schema_version 1; got 9"):
        ShardReader(shards)


def test_no_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="Run the shard stage first"):
        ShardReader(tmp_path)


def test_an_empty_split_is_an_error(shards: Path) -> None:
    with pytest.raises(ClipError, match="none in this split"):
        Feed(ShardReader(shards), FeedOptions(), split="unseen")


def test_shards_behind_a_url_are_copied_once(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("INKMOTION_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/remote/faces", recursive=True)
    try:
        reader = ShardReader("memory://remote/faces")
        reader.verify()
        assert reader.folder.is_relative_to(tmp_path / "cache")
        copied = {path: path.stat().st_mtime_ns for path in reader.folder.iterdir()}
        assert same(take(reader, 3), take(ShardReader(shards), 3))
        ShardReader("memory://remote/faces/")
        assert copied == {path: path.stat().st_mtime_ns for path in reader.folder.iterdir()}
        (reader.folder / "shard-00000.parquet").write_bytes(b"torn")
        ShardReader("memory://remote/faces").verify()
    finally:
        memory.rm("/remote", recursive=True)
    with pytest.raises(ClipError, match=r"memory://remote/gone must be a readable folder of shards"):
        ShardReader("memory://remote/gone")
    assert local_copy(f"file://{shards}") == shards


def test_an_index_can_not_name_files_elsewhere(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("INKMOTION_CACHE", str(tmp_path / "cache"))
    raw = json.loads((shards / INDEX_NAME).read_text())
    raw["shards"][0]["path"] = "../../outside.parquet"
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bad/index.json", json.dumps(raw).encode())
    try:
        with pytest.raises(ClipError, match="must name files below its folder"):
            ShardReader("memory://bad")
    finally:
        memory.rm("/bad", recursive=True)


def test_a_node_that_does_not_see_the_folder_stops_the_sharding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocessing.shards._mapped", lambda rows, task: [task(row) for row in rows])
    options = ShardOptions(dataset="x", split_rule="source", size_px=SIZE_PX, clips_per_shard=1)
    place = {"split": "train", "identity": "one", "num_frames": 1, "fps": 25.0, "size_px": SIZE_PX, "start_frame": 0}
    origin = {"origin": "x", "origin_sha256": "", "decoder": "decord", "sha256": "", "box": (0.0, 0.0, 1.0, 1.0)}
    clips = [Clip(id=str(number), path=f"{number}.mp4", **place, **origin) for number in range(2)]
    with pytest.raises(EnvironmentProblem, match=rf"must be seen by every Ray node; got not by {gethostname()}\."):
        write_shards(clips, tmp_path / "elsewhere", tmp_path, options)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ClipError, match="none of 2 .*nothing there"):
        write_shards(clips, tmp_path, tmp_path, options)


def test_coded_frames_keep_their_colours() -> None:
    frame = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    frame[..., 0] = 255
    decoded = cv2.imdecode(np.frombuffer(encode_frames(frame, quality=95)[0], np.uint8), cv2.IMREAD_COLOR)
    assert decoded[..., 2].min() > 240
    assert decoded[..., 0].max() < 15
