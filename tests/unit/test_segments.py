"""Cutting by metadata: exactly the frames and the box that a row asks for, whatever the video at hand looks like."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from media_kit import ffmpeg
from PIL import Image

from models.errors import EnvironmentProblem
from preprocessing import pieces, video_cut
from preprocessing.boxes import Box
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames
from preprocessing.ledger import LedgerRow
from preprocessing.metadata import Segment
from preprocessing.segments import cut_segments, span_of
from preprocessing.video import DEFAULT_LIMITS, FrameReader, read_clip, read_frames, write_video
from preprocessing.video_ffmpeg import Child

ROW = LedgerRow(item="vid.mp4", origin="videos/vid.mp4", state="kept", sha256="5" * 64, num_bytes=9, video_id="vid")
WIDTH, HEIGHT, FPS = 160, 120, 25.0
LARGE = 4
"""So many times as large are the frames of the video that gets damaged: decoders are always some frames ahead."""
_DARK, _STEP = 30, 20


def numbered(num_frames: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Frames that show their number: the left half its units, the right half its tens, the lower half its hundreds."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    grain = np.random.default_rng(2).integers(-6, 7, (height, width, 1))
    for number, frame in enumerate(frames):
        units, tens, hundreds = number % 10, number // 10 % 10, number // 100
        frame[: height // 2, : width // 2] = _DARK + _STEP * units
        frame[: height // 2, width // 2 :] = _DARK + _STEP * tens
        frame[height // 2 :] = _DARK + _STEP * hundreds
        frame[:] = frame + np.roll(grain, number, axis=0)
    return frames


@functools.cache
def frames_of(path: Path) -> np.ndarray:
    """All frames of a file; no test writes the same name twice."""
    return read_clip(path)[0]


def numbers_in(path: Path) -> list[int]:
    """The numbers that a clip around the picture's middle shows."""
    frames = frames_of(path).astype(float)
    (up, down), (left, right) = (
        (slice(side // 8, side * 3 // 8), slice(side * 5 // 8, side * 7 // 8)) for side in frames.shape[1:3]
    )
    digits = [
        np.round((frames[:, rows, columns].mean(axis=(1, 2, 3)) - _DARK) / _STEP)
        for rows, columns in ((up, left), (up, right), (down, slice(None)))
    ]
    return [int(units + 10 * tens + 100 * hundreds) for units, tens, hundreds in zip(*digits, strict=True)]


def segment(start: int, end: int, row: int = 2, **values: Any) -> Segment:
    given = {
        "box": Box(40, 20, 120, 100),
        "fps": FPS,
        "width": WIDTH,
        "height": HEIGHT,
        "split": None,
        "identity": None,
    }
    return Segment(row=row, video_id="vid", start=start, end=end, **{**given, **values})


def settings(**values: Any) -> DatasetConfig:
    given: dict[str, Any] = {"size_px": 64, "crf": 8, "min_frames": 4, "min_side_px": 8, "encoder_preset": "ultrafast"}
    return DatasetConfig(kind="faces", source="x", cut="metadata", **{**given, **values})


def cut(source: Path, target: Path, segments: Sequence[Segment], **values: Any) -> ItemResult:
    """Cut, and see that the ledger, the clips and the folder tell the same."""
    target.mkdir(exist_ok=True)
    result = cut_segments(ROW, source, settings(**values), target, segments)
    kept = {part.item for part in result.parts if part.state == "kept"}
    assert len(result.parts) == len(segments)
    assert len({part.item for part in result.parts}) == len(segments)
    assert [part.origin for part in result.parts] == [f"vid:{one.row}" for one in segments]
    assert kept == {clip.id for clip in result.clips}
    assert {path.name for path in target.iterdir()} == {clip.path for clip in result.clips}
    assert (result.row.state, result.row.num_clips) == ("kept" if kept else "rejected", len(kept))
    for clip in result.clips[:2]:
        assert frames_of(target / clip.path).shape == (clip.num_frames, clip.size_px, clip.size_px, 3)
    return result


def reasons(result: ItemResult) -> list[str | None]:
    return [part.reason for part in result.parts]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 numbered frames."""
    path = tmp_path_factory.mktemp("made") / "vid.mp4"
    write_video(path, numbered(200), fps=FPS, crf=4, preset="veryfast")
    return path


@pytest.fixture(scope="module")
def large_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 numbered frames."""
    path = tmp_path_factory.mktemp("large") / "vid.mp4"
    write_video(path, numbered(100, WIDTH * LARGE, HEIGHT * LARGE), fps=FPS, crf=20, preset="ultrafast")
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames with soft shapes in colour, which tell every shift and stretch."""
    path = tmp_path_factory.mktemp("soft") / "vid.mp4"
    spots = np.random.default_rng(1).integers(70, 186, (6, 8, 3), dtype=np.uint8)
    still = np.asarray(cv2.resize(spots, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    write_video(path, np.stack([np.roll(still, number, axis=1) for number in range(20)]), fps=FPS, crf=1)
    return path


def difference(path: Path, source: Path, clip_box: tuple[float, float, float, float], span: tuple[int, int]) -> float:
    """Mean difference, in gray values, of a clip from the frames that Python cuts."""
    frames = frames_of(source)[slice(*span)]
    wanted = crop_frames(frames, Box(*clip_box), size_px=64).astype(int)
    return float(np.abs(frames_of(path) - wanted).mean())


def test_every_segment_holds_exactly_its_frames(video: Path, tmp_path: Path) -> None:
    spans = [(0, 40), (37, 93), (93, 97), (150, 200), (20, 180)]
    segments = [
        segment(*span, row=number + 2, split="test" if number % 2 else None, identity=f"id{number}")
        for number, span in enumerate(spans)
    ]
    result = cut(video, tmp_path / "out", segments)
    assert reasons(result) == [None] * 5
    for span, clip, part in zip(spans, result.clips, result.parts, strict=True):
        assert numbers_in(tmp_path / "out" / clip.path) == list(range(*span))
        assert clip.id == part.item == f"vid-{span[0]:06d}-{span[1]:06d}"
        assert (clip.start_frame, clip.start_s) == (span[0], span[0] / FPS)
        assert (clip.fps, clip.size_px, clip.box, clip.resize) == (FPS, 64, (40, 20, 120, 100), "square")
        assert (clip.origin, clip.origin_sha256, clip.decoder) == ("videos/vid.mp4", "5" * 64, "ffmpeg")
        assert (part.video_id, part.num_clips, part.sha256, part.num_bytes) == ("vid", 1, "5" * 64, 0)
        assert part.identity == clip.identity
    assert [clip.split for clip in result.clips] == ["train", "test", "train", "test", "train"]
    assert [clip.identity for clip in result.clips] == [f"id{number}" for number in range(5)]
    assert (result.num_frames, result.seconds, result.dropped) == (200, 8.0, {})


def test_without_a_person_the_identity_is_the_item_s(video: Path, tmp_path: Path) -> None:
    (clip,) = cut(video, tmp_path / "out", [segment(0, 10)]).clips
    assert clip.identity == "vid"
    (clip,) = cut(video, tmp_path / "by-name", [segment(0, 10)], identity_pattern=r"^(v)").clips
    assert clip.identity == "v"


def test_decoding_ends_with_the_last_segment(video: Path, tmp_path: Path) -> None:
    result = cut(video, tmp_path / "out", [segment(10, 20), segment(30, 50)])
    assert (result.num_frames, result.dropped) == (50, {"no-subject": 20})


@pytest.mark.parametrize(
    ("fps", "reference", "span"),
    [
        (25.0, 25.0, (10, 90)),
        (50.0, 25.0, (20, 180)),
        (12.5, 25.0, (5, 45)),
        (25.0, 50.0, (5, 45)),
        (30.0, 25.0, (12, 108)),
        (25.0, 30.0, (9, 75)),
        (29.97, 30.0, (10, 90)),
        (23.976023976, 23.98, (10, 90)),
        (59.94, 29.97, (20, 180)),
        (60000 / 1001, 29.97, (20, 180)),
        (0.5, 1.0, (5, 45)),
    ],
)
def test_the_span_at_another_frame_rate(fps: float, reference: float, span: tuple[int, int]) -> None:
    assert span_of(segment(10, 90, fps=reference), fps) == span


@given(
    start=st.integers(0, 10**6),
    length=st.integers(1, 2000),
    rates=st.tuples(st.integers(100, 12_000), st.integers(100, 12_000)),
)
@example(start=1001, length=1, rates=(2998, 2997))
def test_the_span_is_the_rule_of_the_public_scripts(start: int, length: int, rates: tuple[int, int]) -> None:
    fps, reference = (Fraction(rate, 100) for rate in rates)
    first, stop = span_of(segment(start, start + length, fps=float(reference)), float(fps))

    def is_in(frame: int) -> bool:
        return start * fps <= frame * reference < (start + length) * fps

    if first < stop:
        assert is_in(first)
        assert is_in(stop - 1)
    assert not is_in(first - 1)
    assert not is_in(stop)


@pytest.mark.parametrize(
    ("reference", "wanted"), [(50.0, range(10, 30)), (12.5, range(40, 120)), (30.0, range(17, 50))]
)
def test_frames_of_a_video_at_another_rate(video: Path, tmp_path: Path, reference: float, wanted: range) -> None:
    (clip,) = cut(video, tmp_path / "out", [segment(20, 60, fps=reference)]).clips
    assert numbers_in(tmp_path / "out" / clip.path) == list(wanted)
    assert (clip.fps, clip.id) == (FPS, "vid-000020-000060")


@pytest.mark.parametrize("size", [(320, 240), (80, 60), (1280, 720)])
def test_the_box_is_scaled_to_the_video_at_hand(picture: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    box = Box(24, 12, 72, 60).scaled(size[0] / WIDTH)
    box = Box(box.left, 12 * size[1] / HEIGHT, box.right, 60 * size[1] / HEIGHT)
    one = segment(2, 12, box=box, width=size[0], height=size[1])
    (clip,) = cut(picture, tmp_path / "out", [one]).clips
    assert clip.box == (24, 12, 72, 60)
    assert difference(tmp_path / "out" / clip.path, picture, clip.box, (2, 12)) < 2.5


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("side", [49, 64, 100])
def test_the_pixels_are_those_that_python_cuts(
    picture: Path, tmp_path: Path, offset: tuple[int, int], side: int
) -> None:
    left, top = 10 + offset[0], 8 + offset[1]
    (clip,) = cut(
        picture, tmp_path / "out", [segment(2, 12, box=Box(left, top, left + side, top + side))], lossless=True
    ).clips
    path = tmp_path / "out" / clip.path
    here = difference(path, picture, clip.box, (2, 12))
    assert clip.box == (left, top, left + side, top + side)
    assert here < 2.5
    for across, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        shifted = (left + across, top + down, left + side + across, top + side + down)
        assert difference(path, picture, shifted, (2, 12)) > here, "a pixel off"


def test_stretch_and_square(picture: Path, tmp_path: Path) -> None:
    tall = segment(2, 12, box=Box(50, 10, 90, 90))
    (clip,) = cut(picture, tmp_path / "stretch", [tall], resize="stretch").clips
    assert (clip.box, clip.resize) == ((50, 10, 90, 90), "stretch")
    assert difference(tmp_path / "stretch" / clip.path, picture, clip.box, (2, 12)) < 2.5
    (clip,) = cut(picture, tmp_path / "square", [tall], resize="square", increase=0.3).clips
    assert (clip.box, clip.resize) == ((30, 10, 110, 90), "square")
    assert difference(tmp_path / "square" / clip.path, picture, clip.box, (2, 12)) < 2.5


def test_a_square_that_leaves_the_frame(picture: Path, tmp_path: Path) -> None:
    corner, wide = segment(2, 12, box=Box(0, 100, 60, 120)), segment(3, 13, row=3, box=Box(10, 20, 150, 100))
    result = cut(picture, tmp_path / "pad", [corner, wide], resize="square", outside="pad")
    assert [clip.box for clip in result.clips] == [(0, 60, 60, 120), (10, -10, 150, 130)]
    for clip, span in zip(result.clips, ((2, 12), (3, 13)), strict=True):
        assert difference(tmp_path / "pad" / clip.path, picture, clip.box, span) < 3
    result = cut(picture, tmp_path / "reject", [corner, wide], resize="square", outside="reject")
    assert reasons(result) == [None, "outside-frame"]


def test_odd_sizes_of_the_frame(tmp_path: Path) -> None:
    spots = np.random.default_rng(1).integers(70, 186, (6, 8, 3), dtype=np.uint8)
    still = np.asarray(cv2.resize(spots, (161, 121), interpolation=cv2.INTER_CUBIC))
    source = tmp_path / "vid.mp4"
    write_video(source, np.repeat(still[None], 10, axis=0), fps=FPS, lossless=True)
    (clip,) = cut(source, tmp_path / "out", [segment(0, 10, box=Box(1, 1, 161, 121), width=161, height=121)]).clips
    assert clip.box == (1, 1, 161, 121)
    assert difference(tmp_path / "out" / clip.path, source, clip.box, (0, 10)) < 3


@pytest.mark.parametrize("way", ["ffmpeg", "python"])
def test_two_hundred_segments(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "python":
        monkeypatch.setattr(pieces, "can_cut", lambda _: False)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 190, 200 if way == "ffmpeg" else 30).tolist()
    segments = [segment(start, start + 8, row=number + 2) for number, start in enumerate(starts)]
    twice = len({(one.start, one.end) for one in segments})
    result = cut(video, tmp_path / "out", segments)
    assert {part.state for part in result.parts} == {"kept"}
    assert sum(part.item.count("-") == 3 for part in result.parts) == len(segments) - twice
    for one, clip in list(zip(segments, result.clips, strict=True))[::40]:
        assert numbers_in(tmp_path / "out" / clip.path) == list(range(one.start, one.end))


def test_only_so_many_encoders_run_at_once(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def watched(source: Path, cuts: Sequence[video_cut.Cut], **options: Any) -> tuple[int, bool]:
        passes.append(len(cuts))
        return video_cut.cut_clips(source, cuts, **options)

    monkeypatch.setattr(pieces, "cut_clips", watched)
    segments = [segment(number, number + 6, row=number + 2) for number in range(40)]
    assert len(cut(video, tmp_path / "out", segments).clips) == 40
    assert (passes, video_cut.most_cuts(64)) == ([32, 8], 32)
    assert [video_cut.most_cuts(size) for size in (256, 512, 1024)] == [32, 8, 4]

    monkeypatch.setattr(pieces, "can_cut", lambda _: False)
    monkeypatch.setattr(FrameReader, "batches", lambda self: self._decoded(2))
    running, peak = set[int](), [0]
    start, close = Child.__init__, Child.close

    def started(self: Child, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        if options.get("feed"):
            running.add(id(self))
            peak[0] = max(peak[0], len(running))

    def closed(self: Child) -> None:
        running.discard(id(self))
        close(self)

    monkeypatch.setattr(Child, "__init__", started)
    monkeypatch.setattr(Child, "close", closed)
    together = [segment(0, 6, row=number + 2) for number in range(20)]
    assert len(cut(video, tmp_path / "python", together).clips) == 20
    assert peak[0] == pieces.MAX_WRITERS


@pytest.mark.parametrize("values", [{}, {"lossless": True}, {"encoder_preset": "veryfast"}])
def test_a_clip_s_bytes_do_not_depend_on_its_company(video: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    alone, company = segment(20, 60), [segment(0, 30, row=9), segment(20, 60), segment(41, 70, row=8)]
    (clip,) = cut(video, tmp_path / "alone", [alone], **values).clips
    for name in ("one", "two"):
        assert cut(video, tmp_path / name, company, **values).clips[1].sha256 == clip.sha256


def test_the_two_ways_agree(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [segment(2, 12), segment(5, 20, row=3, box=Box(11, 3, 151, 118))]
    fast = cut(picture, tmp_path / "fast", segments)
    monkeypatch.setattr(pieces, "can_cut", lambda _: False)
    slow = cut(picture, tmp_path / "slow", segments)
    for one, other in zip(fast.clips, slow.clips, strict=True):
        assert replace(one, sha256="", decoder="") == replace(other, sha256="", decoder="")
        left, right = (frames_of(tmp_path / name / one.path).astype(int) for name in ("fast", "slow"))
        assert np.abs(left - right).mean() < 2.5


def test_segments_that_can_not_be_cut(video: Path, tmp_path: Path) -> None:
    segments = [
        segment(0, 40, row=2),
        segment(0, 3, row=3),
        segment(500, 600, row=4),
        segment(190, 260, row=5),
        segment(198, 260, row=6),
        segment(0, 20, row=7, box=Box(0, 0, 9, 2)),
        segment(0, 20, row=8, box=Box(0, 0, 7, 7)),
        segment(0, 10**8, row=9),
    ]
    result = cut(video, tmp_path / "out", segments)
    assert reasons(result) == [None, "too-short", "too-short", None, "too-short", "too-small", "too-small", "too-long"]
    assert [clip.num_frames for clip in result.clips] == [40, 10]
    assert all(" must " in part.detail and part.item in part.detail for part in result.parts if part.reason)
    result = cut(video, tmp_path / "none", segments[1:3])
    assert (result.row.state, result.row.reason, result.clips) == ("rejected", "too-short", ())
    result = cut(video, tmp_path / "small", segments[:2], min_source_px=200)
    assert reasons(result) == ["too-small", "too-small"]


def test_a_video_that_no_row_names(video: Path, tmp_path: Path) -> None:
    result = cut(video, tmp_path / "out", [])
    assert (result.row.reason, result.parts) == ("no-subject", ())


def tenths() -> list[Segment]:
    return [segment(start, start + 10, row=start + 2) for start in range(0, 100, 10)]


def check_beginning(result: ItemResult, folder: Path, reason: str) -> int:
    """See that whole segments are kept up to some moment, and none after it; their number."""
    count = len(result.clips)
    assert reasons(result) == [None] * count + [reason] * (10 - count)
    for one, clip in zip(tenths(), result.clips, strict=False):
        assert numbers_in(folder / clip.path) == list(range(one.start, one.end))
    return count


@pytest.mark.parametrize(("suffix", "share"), [("mp4", 0.4), ("mp4", 0.95), ("mkv", 0.7)])
def test_of_a_video_cut_short_complete_segments_are_kept(
    large_video: Path, tmp_path: Path, suffix: str, share: float
) -> None:
    ffmpeg("-i", large_video, "-c", "copy", "-movflags", "+faststart", tmp_path / f"whole.{suffix}")
    whole, short = (tmp_path / f"whole.{suffix}").read_bytes(), tmp_path / f"vid.{suffix}"
    short.write_bytes(whole[: int(len(whole) * share)])
    result = cut(short, tmp_path / "out", tenths())
    count = check_beginning(result, tmp_path / "out", "truncated")
    assert share * 10 - 3 <= count <= share * 10
    assert cut(short, tmp_path / "again", tenths()).clips == result.clips


def test_a_damaged_video_is_turned_away(large_video: Path, tmp_path: Path) -> None:
    content, broken = bytearray(large_video.read_bytes()), tmp_path / "vid.mp4"
    middle = int(len(content) * 0.6)
    content[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    broken.write_bytes(content)
    assert reasons(cut(broken, tmp_path / "out", tenths())) == ["undecodable"] * 10


@pytest.mark.parametrize("start", [0, 30])
def test_damage_far_behind_the_last_segment_does_not_matter(video: Path, tmp_path: Path, start: int) -> None:
    content, broken = bytearray(video.read_bytes()), tmp_path / "vid.mp4"
    content[-2000:] = np.random.default_rng(0).bytes(2000)
    broken.write_bytes(content)
    (clip,) = cut(broken, tmp_path / "out", [segment(start, start + 30)]).clips
    assert clip == cut(video, tmp_path / "whole", [segment(start, start + 30)]).clips[0]


@pytest.mark.parametrize(("content", "reason"), [(None, "missing"), (b"", "empty"), (b"junk" * 99, "unreadable")])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes | None, reason: str) -> None:
    source = tmp_path / "vid.mp4"
    if content is not None:
        source.write_bytes(content)
    result = cut(source, tmp_path / "out", [segment(0, 10), segment(10, 30, row=3)])
    assert (reasons(result), result.row.reason) == ([reason, reason], reason)


@pytest.mark.parametrize("way", ["ffmpeg", "python"])
def test_time_is_bounded(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "python":
        monkeypatch.setattr(pieces, "can_cut", lambda _: False)
    known = pieces.examined(video, DEFAULT_LIMITS)
    monkeypatch.setattr("preprocessing.segments.examined", lambda *_: known)
    result = cut(video, tmp_path / "out", [segment(0, 100)], timeout_s=0.001)
    assert reasons(result) == ["timeout"]


@pytest.mark.parametrize("way", ["ffmpeg", "python"])
def test_a_full_disk_is_not_the_video_s_fault(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "python":
        monkeypatch.setattr(pieces, "can_cut", lambda _: False)
    finish, target = Child.finish, tmp_path / "out"

    def full(self: Child) -> tuple[int, str]:
        status, text = finish(self)
        is_encoder = any(str(target) in str(word) for word in self.process.args)  # type: ignore[union-attr]
        return (228, f"{text}\nError writing trailer: No space left on device") if is_encoder else (status, text)

    monkeypatch.setattr(Child, "finish", full)
    target.mkdir()
    with pytest.raises(EnvironmentProblem, match="Free some space"):
        cut_segments(ROW, video, settings(), target, [segment(0, 50), segment(20, 70, row=3)])
    assert not list(target.iterdir())


def test_a_gif(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in numbered(30)]
    source = tmp_path / "vid.gif"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    result = cut(source, tmp_path / "out", [segment(3, 21), segment(20, 30, row=3)])
    assert [clip.decoder for clip in result.clips] == ["pillow", "pillow"]
    assert numbers_in(tmp_path / "out" / result.clips[0].path) == list(range(3, 21))


def test_a_variable_frame_rate(video: Path, tmp_path: Path) -> None:
    uneven = tmp_path / "vid.mp4"
    ffmpeg("-i", video, "-vf", "setpts=(N+max(N-50\\,0))/25/TB", "-fps_mode", "passthrough", "-crf", 4, uneven)
    fps = read_clip(uneven)[1].fps
    (clip,) = cut(uneven, tmp_path / "out", [segment(20, 90, fps=fps)]).clips
    assert numbers_in(tmp_path / "out" / clip.path) == list(range(20, 90))
    (clip,) = cut(uneven, tmp_path / "late", [segment(60, 90, fps=fps)]).clips
    assert clip.start_s == pytest.approx((60 + 10) / 25, abs=0.001)


def test_a_turned_video(video: Path, tmp_path: Path) -> None:
    turned = tmp_path / "vid.mp4"
    ffmpeg("-display_rotation", 180, "-i", video, "-c", "copy", turned)
    (clip,) = cut(turned, tmp_path / "out", [segment(20, 40)]).clips
    upright = frames_of(tmp_path / "out" / clip.path)[:, ::-1, ::-1]
    write_video(tmp_path / "upright.mp4", upright, fps=FPS, crf=4)
    assert numbers_in(tmp_path / "upright.mp4") == list(range(20, 40))


def test_a_size_that_changes(video: Path, tmp_path: Path) -> None:
    for name, size in (("a", "160:120"), ("b", "320:240")):
        ffmpeg("-i", video, "-vf", f"trim=end_frame=50,scale={size}", "-f", "mpegts", tmp_path / f"{name}.ts")
    source = tmp_path / "vid.ts"
    source.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    write_video(tmp_path / "all.mp4", read_frames(source), fps=FPS, crf=4)
    known = numbers_in(tmp_path / "all.mp4")
    (clip,) = cut(source, tmp_path / "out", [segment(40, 70)]).clips
    assert numbers_in(tmp_path / "out" / clip.path) == known[40:70]
    assert known[:45] == list(range(45))
    assert known[-20:] == list(range(30, 50))


@pytest.mark.parametrize(
    "options",
    [
        ("-pix_fmt", "yuv420p10le"),
        ("-pix_fmt", "yuv444p"),
        ("-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p"),
        ("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-pix_fmt", "yuv420p"),
    ],
)
def test_other_kinds_of_pixels(picture: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    source = tmp_path / "vid.mp4"
    ffmpeg("-i", picture, "-crf", 1, *options, source)
    (clip,) = cut(source, tmp_path / "out", [segment(2, 12, box=Box(11, 9, 91, 89))], lossless=True).clips
    assert difference(tmp_path / "out" / clip.path, source, clip.box, (2, 12)) < 2.5


def test_lossless_clips_and_keyframes(video: Path, tmp_path: Path) -> None:
    (clip,) = cut(video, tmp_path / "out", [segment(20, 50)], lossless=True, keyframe_every=5).clips
    path = tmp_path / "out" / clip.path
    assert numbers_in(path) == list(range(20, 50))
    assert b"avc1" in path.read_bytes()
    shown = ffmpeg("-i", path, "-c", "copy", "-bsf:v", "noise=drop=not(key)", "-f", "framecrc", "-").decode()
    assert len([line for line in shown.splitlines() if line.startswith("0,")]) == math.ceil(30 / 5)
