"""Evaluation with fake engines: copying the source is copy-source exactly, and a perfect engine scores 0."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.contracts import ShardClip
from models.errors import ClipError
from pipelines.evaluate import judged_clips
from pipelines.evaluate_work import Shown, estimate_s, look_every, reconstruct
from pipelines.lookers import Looker, Subject
from pipelines.params import EvaluationConfig
from pipelines.score import Network, Rests, Tally, VideoScore, summarise, table
from preprocessing.boxes import Box

SIZE = 16
FAKE = Rests(
    points=Network(name="corners", what="", sha256={"a": "1"}),
    identity=Network(name="mean", what="", sha256={"b": "2"}),
)


class CopyingEngine:
    """Shows the source, wherever the keypoints are."""

    size_px = SIZE

    def __init__(self) -> None:
        self.batches: list[int] = []

    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        return np.repeat(source[None], len(frames), axis=0)


class PerfectEngine(CopyingEngine):
    """Gives back what it was shown."""

    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return frames.copy()


class BlindEngine(CopyingEngine):
    """Divides by zero."""

    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return np.full_like(frames, np.nan)


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


class BrightSpot:
    """Finds the brightest pixel, as two points (the second never in the right half), unless the frame is dark."""

    num_points = 2

    def __init__(self) -> None:
        self.num_looks = 0

    def __call__(self, frame: np.ndarray) -> Subject | None:
        self.num_looks += 1
        gray = frame.astype(int).sum(-1)
        if gray.max() < 300:
            return None
        y, x = np.argwhere(gray == gray.max()).mean(0)
        second = (x, y) if x < 128 else (np.nan, np.nan)
        return Subject(np.array([(x, y), second]), Box(0.0, 0.0, 9.0, 9.0))


class Brightness:
    """A picture's mean is its identity."""

    num_dims = 1

    def __call__(self, frame: np.ndarray, subject: Subject) -> np.ndarray:
        return np.array([frame.mean() / 255])


def video(num_frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)


def dots(*columns: int | None, size_px: int = 256) -> np.ndarray:
    """A white square of 4 px at each column; None: nothing."""
    frames = np.zeros((len(columns), size_px, size_px, 3), np.uint8)
    for frame, column in zip(frames, columns, strict=True):
        if column is not None:
            frame[100:104, column : column + 4] = 255
    return frames


def judge(engine: Any, reader: FakeReader, options: EvaluationConfig, **more: Any) -> list[tuple[VideoScore, Any]]:
    clips = judged_clips(reader, engine.size_px)  # type: ignore[arg-type]
    return [reconstruct(engine, reader, clip, options=options, **more) for clip in clips]  # type: ignore[arg-type]


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
    scores = [score for score, _ in judge(engine, reader, EvaluationConfig(batch_size=3))]
    assert [(score.video, score.split) for score in scores] == [("b", "test"), ("c", "test"), ("d", "unseen")]
    for score in scores:
        frames = reader._frames[score.video].astype(np.float64) / 255
        assert score.l1 == score.copy_source_l1
        assert score.l1 == pytest.approx(np.abs(frames - frames[0]).mean(), rel=1e-6)
        assert score.ratio == 1.0
    assert max(engine.batches) == 3


def test_a_perfect_engine_scores_zero(reader: Any) -> None:
    scores = [score for score, _ in judge(PerfectEngine(), reader, EvaluationConfig())]
    assert all(score.l1 == 0.0 < score.copy_source_l1 for score in scores)


def test_what_is_not_finite_is_a_failure(reader: Any) -> None:
    with pytest.raises(ClipError, match=r"the model's frames of b must be finite; got L1 nan by frame 0"):
        judge(BlindEngine(), reader, EvaluationConfig())


def test_the_batch_size_changes_nothing(reader: Any) -> None:
    results = [judge(CopyingEngine(), reader, EvaluationConfig(batch_size=size)) for size in (1, 4, 64)]
    for (score, _), (other, _) in zip(results[0], results[2], strict=True):
        assert score.l1 == pytest.approx(other.l1, rel=1e-6)
    assert [score.num_frames for score, _ in results[1]] == [7, 4, 3]


def test_max_frames_takes_the_beginning(reader: Any) -> None:
    judged = judge(CopyingEngine(), reader, EvaluationConfig(max_frames=2), columns=(0, 1))
    assert [score.num_frames for score, _ in judged] == [2, 2, 2]


def test_strips_hold_source_driving_and_result(reader: Any) -> None:
    judged = judge(PerfectEngine(), reader, EvaluationConfig(batch_size=2), columns=(0, 2))
    shown: Shown = judged[0][1]
    assert shown.positions == (0, 2)
    np.testing.assert_array_equal(shown.driving, shown.result)
    np.testing.assert_array_equal(shown.driving[0], shown.source)
    assert shown.png().startswith(b"\x89PNG")


def test_without_test_clips_or_with_another_size_it_stops() -> None:
    with pytest.raises(ClipError, match="hold a clip of split test; got none"):
        judged_clips(FakeReader({"a": ("train", video(3, 0))}), SIZE)  # type: ignore[arg-type]
    with pytest.raises(ClipError, match="model's 16 px; got 32 px"):
        judged_clips(FakeReader({"a": ("test", video(3, 0))}, size_px=32), SIZE)  # type: ignore[arg-type]


class Moved(CopyingEngine):
    """Shifts every frame by 3 px to the right."""

    size_px = 256

    def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return np.roll(frames, 3, axis=2)


def figures(engine: Any, frames: np.ndarray, options: EvaluationConfig | None = None) -> Any:
    reader, looker = FakeReader({"a": ("test", frames)}, size_px=256), Looker(BrightSpot(), Brightness())
    engine.size_px = 256
    scores = [score for score, _ in judge(engine, reader, options or EvaluationConfig(batch_size=2), looker=looker)]
    return summarise(scores, FAKE).metrics


def test_a_video_against_itself_scores_zero_in_everything() -> None:
    found = figures(PerfectEngine(), dots(10, 30, 50))
    assert [name for name in found] == [
        "l1",
        *("akd/corners", "akd-l2/corners", "mkr/corners", "aed/mean", "aed-l2/mean", "eid/corners+mean"),
    ]
    assert all(figure.value == 0 for figure in found.values())
    assert found["akd/corners"].copy_source == pytest.approx((0 + 10 + 20) / 3)  # half of the columns' distance
    assert found["akd-l2/corners"].copy_source == pytest.approx((0 + 20 + 40) / 3)
    assert (found["akd/corners"].backbone, found["akd/corners"].sha256) == ("corners", {"a": "1"})


def test_a_shift_by_3_px_is_an_akd_of_one_and_a_half() -> None:
    found = figures(Moved(), dots(10, 30, 50))
    assert found["akd/corners"].value == 1.5
    assert found["akd-l2/corners"].value == 3.0
    assert found["mkr/corners"].value == 0
    assert found["aed/mean"].value == 0


def test_missing_points_and_empty_frames_are_counted() -> None:
    class Worse(CopyingEngine):
        """One frame right, one moved to where the second point is lost, one empty; the truth of the fourth is empty."""

        def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
            return dots(10, 200, None, 10)[: len(frames)].astype(np.float32) / 255

    found = figures(Worse(), dots(10, 20, 30, None), EvaluationConfig())
    mkr, akd, aed = (found[name] for name in ("mkr/corners", "akd/corners", "aed/mean"))
    assert mkr.value == pytest.approx((0 + 0.5 + 1) / 3)
    assert (mkr.num_frames, mkr.num_left_out, mkr.num_missed) == (3, 1, 1)
    assert akd.value == pytest.approx((0 + 180 / 2) / 2)
    assert (akd.num_frames, akd.num_left_out, akd.num_missed) == (2, 1, 1)
    assert (aed.num_frames, aed.num_left_out, aed.num_missed) == (2, 1, 1)
    assert mkr.copy_source == 0


def test_a_truth_in_which_nobody_is_found_has_no_figure_and_says_so() -> None:
    found = figures(PerfectEngine(), dots(None, None))
    assert found["akd/corners"].value is None
    assert found["akd/corners"].absent == "nothing was found in the true frames (2 frames looked at)"
    assert found["eid/corners+mean"].absent == "AKD or AED has no figure"


def test_a_result_in_which_nobody_is_found_has_an_mkr_only() -> None:
    class Dark(CopyingEngine):
        def reconstruct(self, source: np.ndarray, frames: np.ndarray) -> np.ndarray:
            return np.zeros_like(frames)

    found = figures(Dark(), dots(10, 20))
    assert found["mkr/corners"].value == 1.0
    assert found["akd/corners"].absent == "nothing was found in any result (2 frames looked at)"
    assert found["akd/corners"].copy_source == 2.5


def test_eid_is_made_of_the_means() -> None:
    found = figures(Moved(), dots(10, 30, 50))
    l1, akd, aed = (found[name].value for name in ("l1", "akd/corners", "aed/mean"))
    assert found["eid/corners+mean"].value == pytest.approx(100 * l1 + 50 * akd / 256 + 50 * aed)


def test_every_nth_frame_is_looked_at_whatever_the_batch_size() -> None:
    for batch_size in (1, 3, 64):
        options = EvaluationConfig(batch_size=batch_size, detect_every=3)
        reader, spot = FakeReader({"a": ("test", dots(*range(0, 80, 10)))}, size_px=256), BrightSpot()
        engine = PerfectEngine()
        engine.size_px = 256
        [(score, _)] = judge(engine, reader, options, looker=Looker(spot, None))
        assert score.num_looked_at == 3  # 0, 3 and 6 of 8
        assert spot.num_looks == 1 + 2 * 3
        assert set(score.tallies) == {"akd", "akd-l2", "mkr"}
    assert (look_every(EvaluationConfig(), 256), look_every(EvaluationConfig(), 64)) == (1, 4)
    assert look_every(EvaluationConfig(detect_every=1), 64) == 1


def test_what_there_is_no_network_for_is_absent_with_the_reason() -> None:
    rests = Rests(points="no detector knows the subjects of cartoons", identity="no network")
    found = summarise([scored("a", 3, 0.1, 0.2)], rests).metrics
    assert found["akd"].value is None
    assert found["akd"].absent == "no detector knows the subjects of cartoons"
    assert found["aed"].absent == "no network"
    assert found["l1"].value == pytest.approx(0.1)
    some = summarise([scored("a", 3, 0.1, 0.2)], Rests(points="x", identity="y", wanted=("mkr",))).metrics
    assert set(some) == {"l1", "mkr"}


def test_work_is_estimated_from_frames_and_looks(reader: Any) -> None:
    clips = reader.clips("test")
    assert estimate_s(clips, EvaluationConfig(), 256, looks=False) == pytest.approx(11 * 0.6)
    assert estimate_s(clips, EvaluationConfig(max_frames=2), 256, looks=True) == pytest.approx(4 * 0.6 + 8 * 0.1)


def scored(name: str, frames: int, l1: float, copy: float, **more: Any) -> VideoScore:
    return VideoScore(video=name, split="test", identity=name, num_frames=frames, l1=l1, copy_source_l1=copy, **more)


def test_a_split_weighs_frames_and_also_tells_the_mean_of_videos() -> None:
    score = summarise([scored("a", 30, 0.1, 0.2), scored("b", 10, 0.3, 0.2)])
    assert score.l1 == pytest.approx(0.15)
    assert score.l1_mean_of_videos == pytest.approx(0.2)
    assert score.ratio == pytest.approx(0.75)
    assert (score.num_videos, score.num_frames, score.num_identities, score.num_videos_better) == (2, 40, 2, 1)
    assert score.metrics["l1"].value == score.l1


def test_nothing_that_moves_has_no_ratio() -> None:
    assert summarise([scored("a", 3, 0.1, 0.0)]).ratio is None
    assert scored("a", 3, 0.1, 0.0).ratio is None


def test_a_score_survives_json() -> None:
    score = scored("a", 3, 0.1, 1 / 3, tallies={"akd": Tally(total=1 / 7, num_frames=2)}, num_looked_at=2)
    assert VideoScore.from_json(asdict(score)) == score


def test_the_table_is_csv_worst_first_and_survives_commas_in_names() -> None:
    text = table([scored("good", 3, 0.1, 0.2), scored('bad, "worse"', 3, 0.4, 0.2), scored("still", 3, 0.0, 0.0)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["video"] for row in rows] == ['bad, "worse"', "good", "still"]
    assert float(rows[0]["ratio"]) == pytest.approx(2.0)
    assert rows[2]["ratio"] == ""


def test_the_table_has_a_column_for_every_metric_that_is_there() -> None:
    tally = Tally(total=3.0, num_frames=2, copy_total=8.0, copy_num_frames=2)
    rests = Rests(points=Network(name="dots", what="", sha256={}), identity="none")
    text = table([scored("a", 3, 0.1, 0.2, tallies={"akd": tally}, num_looked_at=2), scored("b", 3, 0.1, 0.2)], rests)
    rows = {row["video"]: row for row in csv.DictReader(io.StringIO(text))}
    assert (rows["a"]["akd/dots"], rows["a"]["copy_source akd/dots"]) == ("1.500000", "4.000000")
    assert rows["b"]["akd/dots"] == ""
    assert rows["a"]["frames looked at"] == "2"
    assert "aed" not in text
