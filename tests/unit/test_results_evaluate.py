"""Evaluation with fake engines: copying the source is copy-source exactly, and a perfect engine scores 0."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.contracts import ShardClip
from models.errors import ClipError
from pipelines.evaluate import VideoScore, judge, summarise, table
from pipelines.params import EvaluationConfig
from pipelines.served.motion import Motion

SIZE = 16


class CopyingEngine:
    """Shows the source, wherever the keypoints are."""

    size_px = SIZE

    def __init__(self) -> None:
        self.batches: list[int] = []

    def keypoints(self, frames: np.ndarray) -> Motion:
        self.batches.append(len(frames))
        value = frames.reshape(len(frames), -1)[:, :4].reshape(len(frames), 2, 2)
        return Motion(value, np.broadcast_to(np.eye(2, dtype=np.float32), (len(frames), 2, 2, 2)))

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        return np.repeat(source[None], len(motion.value), axis=0)


class PerfectEngine(CopyingEngine):
    """Remembers what it was shown."""

    def keypoints(self, frames: np.ndarray) -> Motion:
        self.seen = frames
        return super().keypoints(frames)

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        return self.seen


class FakeReader:
    """Clips in memory."""

    def __init__(self, clips: dict[str, tuple[str, np.ndarray]], size_px: int = SIZE) -> None:
        self.folder = Path("shards")
        self.index = SimpleNamespace(size_px=size_px, split_rule="time")
        self._frames = {name: frames for name, (_, frames) in clips.items()}
        self._clips = [
            ShardClip(id=name, split=split, identity=name, num_frames=len(frames), fps=25.0, shard=0, row=row)  # type: ignore[arg-type]
            for row, (name, (split, frames)) in enumerate(clips.items())
        ]

    def clips(self, split: str) -> list[ShardClip]:
        return [clip for clip in self._clips if clip.split == split]

    def frames(self, clip: ShardClip, positions: Any) -> np.ndarray:
        return self._frames[clip.id][list(positions)]


def video(num_frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def reader() -> Any:
    clips = {
        "a": ("train", video(9, 0)),
        "b": ("test", video(7, 1)),
        "c": ("test", video(4, 2)),
        "d": ("unseen", video(3, 3)),
    }
    return FakeReader(clips)


def test_copying_the_source_scores_copy_source_exactly(reader: Any) -> None:
    engine = CopyingEngine()
    scores, _ = judge(engine, reader, EvaluationConfig(batch_size=3))
    assert [(score.video, score.split) for score in scores] == [("b", "test"), ("c", "test"), ("d", "unseen")]
    for score in scores:
        frames = reader._frames[score.video].astype(np.float64) / 255
        assert score.l1 == score.copy_source_l1
        assert score.l1 == pytest.approx(np.abs(frames - frames[0]).mean(), rel=1e-6)
        assert score.ratio == 1.0
    assert max(engine.batches) == 3


def test_a_perfect_engine_scores_zero(reader: Any) -> None:
    scores, _ = judge(PerfectEngine(), reader, EvaluationConfig())
    assert all(score.l1 == 0.0 < score.copy_source_l1 for score in scores)


def test_the_batch_size_changes_nothing(reader: Any) -> None:
    results = [judge(CopyingEngine(), reader, EvaluationConfig(batch_size=size))[0] for size in (1, 4, 64)]
    for score, other in zip(results[0], results[2], strict=True):
        assert score.l1 == pytest.approx(other.l1, rel=1e-6)
    assert [score.num_frames for score in results[1]] == [7, 4, 3]


def test_max_frames_takes_the_beginning(reader: Any) -> None:
    scores, shown = judge(CopyingEngine(), reader, EvaluationConfig(max_frames=2, num_strips=1, strip_frames=6))
    assert [score.num_frames for score in scores] == [2, 2, 2]
    assert shown[0].positions == (0, 1)


def test_strips_hold_source_driving_and_result(reader: Any) -> None:
    scores, shown = judge(PerfectEngine(), reader, EvaluationConfig(num_strips=2, strip_frames=3, batch_size=2))
    assert [entry.score.video for entry in shown] == ["b", "d"]
    first = shown[0]
    assert first.positions == (0, 3, 6)
    np.testing.assert_array_equal(first.driving, first.result)
    np.testing.assert_array_equal(first.driving[0], first.source)


def test_without_test_clips_or_with_another_size_it_stops(reader: Any) -> None:
    with pytest.raises(ClipError, match="hold a clip of split test; got none"):
        judge(CopyingEngine(), FakeReader({"a": ("train", video(3, 0))}), EvaluationConfig())  # type: ignore[arg-type]
    with pytest.raises(ClipError, match="model's 16 px; got 32 px"):
        judge(CopyingEngine(), FakeReader({"a": ("test", video(3, 0))}, size_px=32), EvaluationConfig())  # type: ignore[arg-type]


def scored(name: str, frames: int, l1: float, copy: float) -> VideoScore:
    return VideoScore(video=name, split="test", identity=name, num_frames=frames, l1=l1, copy_source_l1=copy)


def test_a_split_weighs_frames_and_also_tells_the_mean_of_videos() -> None:
    score = summarise([scored("a", 30, 0.1, 0.2), scored("b", 10, 0.3, 0.2)])
    assert score.l1 == pytest.approx(0.15)
    assert score.l1_mean_of_videos == pytest.approx(0.2)
    assert score.ratio == pytest.approx(0.75)
    assert (score.num_videos, score.num_frames, score.num_identities, score.num_videos_better) == (2, 40, 2, 1)


def test_nothing_that_moves_has_no_ratio() -> None:
    assert summarise([scored("a", 3, 0.1, 0.0)]).ratio is None
    assert scored("a", 3, 0.1, 0.0).ratio is None


def test_the_table_is_csv_worst_first_and_survives_commas_in_names() -> None:
    text = table([scored("good", 3, 0.1, 0.2), scored('bad, "worse"', 3, 0.4, 0.2), scored("still", 3, 0.0, 0.0)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["video"] for row in rows] == ['bad, "worse"', "good", "still"]
    assert float(rows[0]["ratio"]) == pytest.approx(2.0)
    assert rows[2]["ratio"] == ""
