"""Videos become drawings frame by frame, with their sound and rate, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_kit import encode, ffmpeg
from PIL import Image
from stylise_kit import KitEngine, panning

from models.errors import ParamsError, SourceError
from pipelines import stylise_video as videos
from pipelines.stylise_video import stylise_video, write_webp
from preprocessing.video import probe, read_clip, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "in.mp4", panning(10), fps=12.5)
    return tmp_path / "in.mp4"


@pytest.fixture
def with_sound(tmp_path: Path, video: Path) -> Path:
    out = tmp_path / "sound.mp4"
    ffmpeg("-i", video, "-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-c:v", "copy", "-c:a", "aac", out)
    return out


def parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_every_kind_of_video_is_written_at_the_same_rate(tmp_path: Path, video: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    drawn = stylise_video(KitEngine(), video, [out])
    assert (drawn.num_frames, drawn.fps) == (10, 12.5)
    if suffix == ".webp":
        with Image.open(out) as made:
            made.seek(9)
            made.load()
            assert (made.n_frames, made.size, made.info["duration"]) == (10, (64, 48), 80)  # type: ignore[attr-defined]
    else:
        info = probe(out)
        assert (info.num_frames, info.width, info.height) == (10, 64, 48)
        assert info.fps == pytest.approx(12.5)
    assert parts_in(tmp_path) == []


def test_the_frames_are_the_drawings_of_the_photos(tmp_path: Path, video: Path) -> None:
    stylise_video(KitEngine(), video, [tmp_path / "out.mp4"], max_frames=3)
    made, info = read_clip(tmp_path / "out.mp4")
    photos = read_clip(video)[0][:3]
    assert info.num_frames == 3
    assert np.abs(made / 255 - KitEngine().stylise(photos)).mean() < 0.05


def test_the_sound_is_kept_as_far_as_the_frames_reach(tmp_path: Path, with_sound: Path) -> None:
    drawn = stylise_video(KitEngine(), with_sound, [tmp_path / "out.mp4", tmp_path / "out.gif"], max_frames=5)
    assert drawn.has_audio
    assert probe(tmp_path / "out.mp4").has_audio
    assert not stylise_video(KitEngine(), with_sound, [tmp_path / "out.gif"]).has_audio


def test_a_video_of_odd_size_can_be_drawn(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", panning(3, height=33, width=41), fps=10, lossless=True)
    stylise_video(KitEngine(), tmp_path / "odd.mp4", [tmp_path / "out.mp4"])
    assert probe(tmp_path / "out.mp4").width == 42


def test_the_networks_get_a_bounded_number_of_pixels(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_AT_ONCE_PIXELS", 3 * 64 * 48)
    engine = KitEngine()
    stylise_video(engine, video, [tmp_path / "out.mp4"])
    assert [shape[0] for shape in engine.shapes] == [3, 3, 3, 1]


def test_a_steady_video_is_compared_with_its_frames_alone(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "COMPARED_FRAMES", 4)
    drawn = stylise_video(KitEngine(), video, [tmp_path / "out.mp4"], temporal=True)
    assert drawn.num_frames == 10
    assert drawn.comparison is not None
    assert drawn.comparison.num_frames == 4
    assert drawn.comparison.error is not None
    assert drawn.comparison.error_by_frame is not None
    assert drawn.comparison.error < drawn.comparison.error_by_frame


def test_stills_are_spread_over_the_video(tmp_path: Path, video: Path) -> None:
    drawn = stylise_video(KitEngine(), video, [tmp_path / "out.mp4"])
    photos = read_clip(video)[0]
    assert len(drawn.stills) == videos.STILLS
    assert np.array_equal(drawn.stills[0][0], photos[0])
    assert np.array_equal(drawn.stills[-1][0], photos[-1])


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, SourceError])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_stopped_in_the_middle_it_leaves_what_was_there(
    tmp_path: Path, video: Path, suffix: str, problem: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(KitEngine):
        def stylise(self, pictures: np.ndarray, **options: Any) -> np.ndarray:
            if len(self.shapes) == 2:
                raise problem
            return super().stylise(pictures, **options)

    monkeypatch.setattr(videos, "_MOST_AT_ONCE", 2)
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"old")
    with pytest.raises(problem):
        stylise_video(Stopping(), video, [out])
    assert out.read_bytes() == b"old"
    assert parts_in(tmp_path) == []


def test_a_video_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.avi", panning(40), "-c:v", "mjpeg")
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceError):
        stylise_video(KitEngine(), tmp_path / "cut.avi", [tmp_path / "out.mp4"])
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_too_long_for_the_memory_is_told_before_a_frame_is_drawn(
    tmp_path: Path, video: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_RAW_BYTES", 64 * 48 * 4 * 9)
    engine = KitEngine()
    with pytest.raises(ParamsError, match=r"be an mp4 or take max_frames.*at most 9 of 10"):
        stylise_video(engine, video, [tmp_path / f"out{suffix}"])
    assert engine.shapes == []
    stylise_video(engine, video, [tmp_path / f"out{suffix}"], max_frames=9)


def test_a_webp_plays_its_frames(tmp_path: Path) -> None:
    write_webp(tmp_path / "out.webp", [panning(3)], fps=10)
    with Image.open(tmp_path / "out.webp") as made:
        assert made.n_frames == 3  # type: ignore[attr-defined]
