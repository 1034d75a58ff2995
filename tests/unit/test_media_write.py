"""The video writer: lossless files give back every value, keyframes lie where they should, bytes never differ."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from media_kit import ffmpeg

from models.errors import ClipError
from preprocessing import video_ffmpeg
from preprocessing.video import DEFAULT_LIMITS, VideoWriter, open_video, read_clip, write_video


def noise(num_frames: int = 30, width: int = 64, height: int = 48) -> np.ndarray:
    """The worst that there is to code: every value in every place."""
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def smooth(num_frames: int = 30, width: int = 64, height: int = 48) -> np.ndarray:
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[..., 0] = (across * 2 + number) % 256
        frame[..., 1] = down * 3
        frame[..., 2] = 255 - across
    return frames


def piped(path: Path) -> np.ndarray:
    """All frames as ffmpeg decodes them, without decord."""
    with open_video(path) as reader:
        view = video_ffmpeg.View(
            width=reader.info.width,
            height=reader.info.height,
            codec="h264",
            stored_size=(reader.info.width, reader.info.height),
        )
    return np.concatenate(list(video_ffmpeg.decoded(path, view, limits=DEFAULT_LIMITS, batch_frames=8)))


def keyframes(path: Path) -> list[int]:
    """Numbers of the frames that can be decoded alone."""
    listed = ffmpeg("-i", path, "-c", "copy", "-bsf:v", "noise=drop=not(key)", "-f", "framecrc", "-").decode()
    step = int(re.findall(r"^0,.*?,.*?, *(\d+),", listed, re.MULTILINE)[0])
    return [int(time) // step for time in re.findall(r"^0, *-?\d+, *(\d+),", listed, re.MULTILINE)]


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (17, 64)])
@pytest.mark.parametrize("preset", ["ultrafast", "medium"])
def test_lossless_files_give_back_every_value_by_both_decoders(
    tmp_path: Path, size: tuple[int, int], preset: str
) -> None:
    frames = noise(14, *size)
    path = tmp_path / "exact.mp4"
    write_video(path, frames, fps=25, lossless=True, preset=preset)  # type: ignore[arg-type]
    read, info = read_clip(path)
    assert info.decoder == "decord"
    assert np.array_equal(read, frames)
    assert np.array_equal(piped(path), frames)


def test_lossy_files_are_smaller_and_close(tmp_path: Path) -> None:
    frames = smooth()
    write_video(tmp_path / "exact.mp4", frames, fps=25, lossless=True)
    write_video(tmp_path / "near.mp4", frames, fps=25, crf=12)
    read, _ = read_clip(tmp_path / "near.mp4")
    assert not np.array_equal(read, frames)
    assert np.abs(read.astype(int) - frames).mean() < 4
    assert (tmp_path / "near.mp4").stat().st_size < (tmp_path / "exact.mp4").stat().st_size


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast", "medium"])
@pytest.mark.parametrize("every", [1, 5, 12])
def test_keyframes_lie_where_they_were_asked_for(tmp_path: Path, every: int, preset: str, lossless: bool) -> None:
    frames = smooth(30)
    frames[17:] = 255 - frames[17:]  # a cut of scene makes none
    path = tmp_path / "keys.mp4"
    write_video(path, frames, fps=30000 / 1001, keyframe_every=every, preset=preset, lossless=lossless)  # type: ignore[arg-type]
    assert keyframes(path) == list(range(0, 30, every))
    assert read_clip(path)[1].num_frames == 30


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast", "medium"])
def test_the_same_frames_give_the_same_bytes_however_they_are_batched(
    tmp_path: Path, preset: str, lossless: bool
) -> None:
    frames = smooth()
    write_video(tmp_path / "a.mp4", frames, fps=24, preset=preset, lossless=lossless)  # type: ignore[arg-type]
    with VideoWriter(tmp_path / "b.mp4", fps=24, preset=preset, lossless=lossless) as writer:  # type: ignore[arg-type]
        for start in range(0, 30, 7):
            writer.write(frames[start : start + 7])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b"Lavf" not in (tmp_path / "a.mp4").read_bytes(), "who wrote it is no part of a clip"


def test_lossless_with_sound(tmp_path: Path, samples: Path) -> None:
    frames = noise(24)
    write_video(
        tmp_path / "loud.mp4", frames, fps=24, lossless=True, audio_from=samples / "faces" / "woman-expressions.mp4"
    )
    read, info = read_clip(tmp_path / "loud.mp4")
    assert info.has_audio
    assert np.array_equal(read, frames)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_failed_block_leaves_nothing(tmp_path: Path, lossless: bool) -> None:
    writer = VideoWriter(tmp_path / "half.mp4", fps=24, lossless=lossless)
    writer.write(noise(4))
    with pytest.raises(ClipError, match="frames of half.mp4 must be"), writer:
        writer.write(noise(4, width=32))
    assert not list(tmp_path.iterdir())
