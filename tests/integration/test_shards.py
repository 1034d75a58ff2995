"""Clips to shards by Ray Data, from real mp4 files, and what happens to those that can't be used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.contracts import INDEX_NAME, Clip
from models.errors import ClipError, EnvironmentProblem
from pipelines import shard
from pipelines.params import ClusterConfig, Params, load
from pipelines.session import ray_session
from pipelines.stage import Paths, only_writer
from preprocessing.clips import write_manifest
from preprocessing.shards import file_sha256
from preprocessing.video import read_clip, write_video
from training.feed import Feed, FeedOptions, ShardReader

SIZE_PX, NUM_FRAMES, NUM_CLIPS = 64, 20, 7


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """One local Ray for all tests here; the stage uses it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


@pytest.fixture(scope="module")
def params(root: Path) -> Params:
    params = load(root / "params.yaml")
    made = dataclasses.replace(params.dataset("faces"), size_px=SIZE_PX, clips_per_shard=3)
    return dataclasses.replace(params, datasets={"made": made})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    folder = paths.cut("made", "clips")
    folder.mkdir(parents=True)
    write_manifest(folder, [make_clip(folder, number) for number in range(NUM_CLIPS)])
    return paths


def make_clip(folder: Path, number: int) -> Clip:
    """A bright square that moves over a gradient."""
    grey = np.linspace(40, 200, SIZE_PX).astype(np.uint8)
    frames = np.broadcast_to(grey[None, None, :, None], (NUM_FRAMES, SIZE_PX, SIZE_PX, 3)).copy()
    for place, frame in enumerate(frames):
        frame[8 + 4 * number : 20 + 4 * number, 2 * place : 2 * place + 12] = (255, 40 * number, 30)
    path = folder / f"clip {number}.mp4"
    write_video(path, frames, fps=25, crf=8)
    return describe(path, number, NUM_FRAMES)


def describe(path: Path, number: int, num_frames: int) -> Clip:
    return Clip(
        id=f"clip-{number}",
        path=path.name,
        split="test" if number == 0 else "train",
        identity=f"person-{number % 2}",
        num_frames=num_frames,
        fps=25.0,
        size_px=SIZE_PX,
        box=(0.0, 0.0, 64.0, 64.0),
        start_frame=0,
        sha256=file_sha256(path),
        origin="made",
        origin_sha256="0" * 64,
        decoder="decord",
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_clips_become_shards_that_the_feed_reads(paths: Paths, params: Params) -> None:
    report = shard.run("made", params, paths)
    folder = paths.shards("made")
    assert sorted(content(folder)) == [INDEX_NAME, *(f"shard-{number:05d}.parquet" for number in range(3))]
    reader = ShardReader(folder)
    reader.verify()
    assert [clip.id for clip in reader.clips()] == [f"clip-{number}" for number in range(NUM_CLIPS)]
    assert [(clip.shard, clip.row) for clip in reader.clips()] == [divmod(n, 3) for n in range(NUM_CLIPS)]
    for clip, number in zip(reader.clips(), range(NUM_CLIPS), strict=True):
        expected, _ = read_clip(paths.cut("made", "clips") / f"clip {number}.mp4")
        difference = np.abs(reader.frames(clip).astype(int) - expected.astype(int))
        assert difference.mean() < 3
    with Feed(reader, FeedOptions(batch_size=4)) as feed:
        batch = next(feed.batches(0))
    assert batch.source.shape == (4, 3, SIZE_PX, SIZE_PX)
    written = json.loads(paths.report("shard", "made").read_text())
    assert written["clips"] == report.clips == NUM_CLIPS
    assert written["frames_of_split"] == {"train": 120, "test": 20}
    assert written["clips_of_split"] == {"train": 6, "test": 1}
    assert (written["identities"], written["shards"], written["rejected"]) == (2, 3, [])
    assert written["bytes"] == sum(len(data) for name, data in content(folder).items() if name != INDEX_NAME)
    assert written["index_sha256"] == file_sha256(folder / INDEX_NAME)
    assert written["split_rule"] == params.dataset("made").split


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes_also_on_ray(
    paths: Paths, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.run("made", params, paths)
    before = content(paths.shards("made"))
    monkeypatch.setattr(shard, "_RAY_PAYS_S", 0.0)
    shard.run("made", params, paths)
    assert content(paths.shards("made")) == before
    assert not [path.name for path in paths.shards("made").parent.iterdir() if "making" in path.name]


def test_bad_clips_are_left_out_with_their_reasons(paths: Paths, params: Params) -> None:
    folder = paths.cut("made", "clips")
    clips = [make_clip(folder, number) for number in range(NUM_CLIPS)]
    (folder / "clip 0.mp4").write_bytes(b"changed")
    (folder / "clip 1.mp4").unlink()
    whole = (folder / "clip 2.mp4").read_bytes()
    (folder / "clip 2.mp4").write_bytes(whole[: len(whole) // 3])
    clips[2] = describe(folder / "clip 2.mp4", 2, NUM_FRAMES)
    clips[4] = dataclasses.replace(clips[4], num_frames=NUM_FRAMES + 1)
    write_manifest(folder, clips)
    report = shard.run("made", params, paths)
    reasons = {clip.id: clip.reason for clip in report.rejected}
    assert set(reasons) == {"clip-0", "clip-1", "clip-2", "clip-4"}
    assert "must have sha256" in reasons["clip-0"]
    assert "nothing there" in reasons["clip-1"]
    assert "clip 2.mp4" in reasons["clip-2"]
    assert "must have 21 frames of 64 x 64; got 20 of 64 x 64" in reasons["clip-4"]
    reader = ShardReader(paths.shards("made"))
    reader.verify()
    assert [clip.id for clip in reader.clips()] == ["clip-3", "clip-5", "clip-6"]
    assert [(clip.shard, clip.row) for clip in reader.clips()] == [(0, 0), (0, 1), (1, 0)]
    for clip in reader.clips():
        assert reader.frames(clip).shape[0] == NUM_FRAMES


def test_without_a_usable_clip_the_old_shards_stay(paths: Paths, params: Params) -> None:
    shard.run("made", params, paths)
    before = content(paths.shards("made"))
    for path in paths.cut("made", "clips").glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(ClipError, match=r"must hold a clip that can be decoded; got none of 7 \(first: "):
        shard.run("made", params, paths)
    assert content(paths.shards("made")) == before


def test_stills_are_clips_of_one_frame(paths: Paths, params: Params) -> None:
    stills = dataclasses.replace(params.dataset("made"), kind="film", makes="stills")
    folder = paths.cut("made", "stills")
    folder.mkdir(parents=True)
    picture = np.full((SIZE_PX, SIZE_PX, 3), (200, 90, 10), dtype=np.uint8)
    assert cv2.imwrite(str(folder / "still.png"), picture[:, :, ::-1])
    write_manifest(folder, [describe(folder / "still.png", 1, 1)])
    shard.run("made", dataclasses.replace(params, datasets={"made": stills}), paths)
    reader = ShardReader(paths.shards("made"))
    frames = reader.frames(reader.clips()[0])
    assert np.abs(frames[0].astype(int) - picture).max() <= 4


@pytest.mark.parametrize("manifest", [None, ""])
def test_no_clips_say_which_stage_to_run(paths: Paths, params: Params, manifest: str | None) -> None:
    path = paths.cut("made", "clips") / "manifest.jsonl"
    path.unlink()
    if manifest is not None:
        path.write_text(manifest)
    with pytest.raises(ClipError, match=r"manifest.jsonl must .*\."):
        shard.run("made", params, paths)
    assert not paths.shards("made").exists()


def test_one_writer_at_a_time(paths: Paths, params: Params) -> None:
    with only_writer(paths.shards("made")), pytest.raises(EnvironmentProblem, match="must have one writer"):
        shard.run("made", params, paths)
