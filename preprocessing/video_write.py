"""Write videos and GIFs, atomically and always to the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ClipError, must
from preprocessing import video_ffmpeg
from preprocessing.config import EncoderPreset

_TIMEOUT_S = 3600.0
_FED_TIMEOUT_S = 86_400.0
"""Of an encoder whose frames come as fast as a model makes them."""
_MAX_GIF_FPS = 50.0  # a shorter delay than 20 ms is slowed down by browsers
_SAME_BYTES = {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1, "threads": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How H.264 is coded."""

    crf: int = 18
    """Constant rate factor, 0 to 51; 18 looks lossless. Of no effect when ``lossless``."""
    keyframe_every: int = 12
    """Frames from one keyframe to the next."""
    preset: EncoderPreset = "medium"
    """Of x264: faster ones give larger files of about the same quality."""
    lossless: bool = False
    """Keep every pixel's exact RGB value (H.264 High 4:4:4 Predictive, RGB, quantiser 0)."""

    def options(self) -> dict[str, Any]:
        """Options of an ffmpeg output: the same frames give the same bytes."""
        common = {"g": self.keyframe_every, "keyint_min": 1, "sc_threshold": 0, "preset": self.preset}
        if self.lossless:
            return {**common, **_SAME_BYTES, "c:v": "libx264rgb", "qp": 0, "movflags": "+faststart"}
        # the matrix is stated in the file, so that every reader turns the colours back the same way
        stated = {"crf": self.crf, "colorspace": "smpte170m", "color_range": "tv"}
        return {**common, **stated, **_SAME_BYTES, "c:v": "libx264", "movflags": "+faststart"}


class VideoWriter:
    """Takes frames one batch after another; the file appears under its name when the block ends well.

    H.264 in yuv420p, a keyframe every ``keyframe_every`` frames, no time stamp inside. Odd sizes are made
    even by doubling the last row or column. Lossless files hold RGB at any size: every reader gives back the very
    values that were written.

    Args:
        path: an ``.mp4``.
        fps: frames per second.
        crf: constant rate factor, 0 to 51; 18 looks lossless.
        keyframe_every: frames from one keyframe to the next.
        preset: of x264; faster ones give larger files of about the same quality.
        lossless: keep every pixel's exact RGB value; several times larger.
        audio_from: a file whose first sound track is kept, as far as the frames reach; none is no error.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float,
        crf: int = 18,
        keyframe_every: int = 12,
        preset: EncoderPreset = "medium",
        lossless: bool = False,
        audio_from: Path | None = None,
    ) -> None:
        if not 0 < fps <= 1000:
            raise ClipError(must(f"frame rate of {path.name}", "lie in (0, 1000]", f"{fps:g}"))
        self._path, self._fps, self._audio_from = path, fps, audio_from
        self._coding = Coding(crf=crf, keyframe_every=keyframe_every, preset=preset, lossless=lossless)
        self._part = video_ffmpeg.beside(path)
        self._encoder: video_ffmpeg.Encoder | None = None
        self._size: tuple[int, int] | None = None
        self._is_done = False
        self.num_frames = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def finish(self) -> None:
        """Put the file in its place; further calls do nothing.

        Raises:
            ClipError: there was no frame.
            EnvironmentProblem: the disk is full or the folder can't be written.
        """
        if not self._is_done:
            try:
                self._finish()
            finally:
                self.abort()

    def abort(self) -> None:
        """Leave nothing behind, unless the file is in its place already."""
        self._is_done = True
        if self._encoder is not None:
            self._encoder.abort()
        self._part.unlink(missing_ok=True)

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 RGB (H, W, 3) or (n, H, W, 3).

        Raises:
            ClipError: another size or type than the first frames.
            EnvironmentProblem: the disk is full or the folder can't be written.
        """
        batch = checked(frames, self._path)
        height, width = batch.shape[1:3]
        if self._encoder is None:
            self._size = (width, height)
            self._encoder = self._encode(width + self._more(width), height + self._more(height))
        if self._size != (width, height):
            raise ClipError(must(f"frames of {self._path.name}", f"be {self._size}", (width, height)))
        more = (self._more(height), self._more(width))
        if any(more):
            batch = np.pad(batch, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="edge")
        self._encoder.write(batch)
        self.num_frames += len(batch)

    def _more(self, side: int) -> int:
        """Rows or columns that are doubled."""
        return 0 if self._coding.lossless else side % 2

    def _encode(self, width: int, height: int) -> video_ffmpeg.Encoder:
        def build(raw: Any) -> Any:
            if not self._coding.lossless:
                raw = raw.filter("scale", out_color_matrix="bt601", out_range="tv").filter("format", "yuv420p")
            return raw.output(file_url(self._part), format="mp4", **self._coding.options()).overwrite_output()

        return video_ffmpeg.Encoder(
            build, size=(width, height), fps=self._fps, target=self._path, timeout_s=_FED_TIMEOUT_S
        )

    def _finish(self) -> None:
        if self._encoder is None:
            raise ClipError(must(str(self._path), "get at least one frame", "none"))
        self._encoder.close()
        if self._audio_from is not None:
            self._add_audio(self._audio_from)
        place(self._part, self._path)

    def _add_audio(self, source: Path) -> None:
        import ffmpeg

        with_sound = video_ffmpeg.beside(self._path)
        try:
            video = ffmpeg.input(file_url(self._part))["v"]
            sound = video_ffmpeg.opened(source)["a:0?"]
            seconds = f"{self.num_frames / self._fps:.6f}"
            options = {"c:v": "copy", "c:a": "aac", "t": seconds, "movflags": "+faststart", "flags:a": "+bitexact"}
            node = ffmpeg.output(video, sound, file_url(with_sound), format="mp4", **options, **_SAME_BYTES)
            video_ffmpeg.run(video_ffmpeg.compiled(node.overwrite_output()), target=self._path, timeout_s=_TIMEOUT_S)
            os.replace(with_sound, self._part)
        finally:
            with_sound.unlink(missing_ok=True)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    crf: int = 18,
    keyframe_every: int = 12,
    preset: EncoderPreset = "medium",
    lossless: bool = False,
    audio_from: Path | None = None,
) -> None:
    """Write an mp4 from frames or batches of frames, uint8 RGB (H, W, 3) or (n, H, W, 3); see `VideoWriter`.

    Raises:
        ClipError: no frame, a wrong size or type, or a frame rate of 0.
        EnvironmentProblem: the disk is full or the folder can't be written.
    """
    coding: dict[str, Any] = {"crf": crf, "keyframe_every": keyframe_every, "preset": preset, "lossless": lossless}
    with VideoWriter(path, fps=fps, audio_from=audio_from, **coding) as writer:
        for batch in frames:
            writer.write(batch)


def write_gif(path: Path, frames: Iterable[np.ndarray], *, fps: float) -> None:
    """Write a GIF that plays for ever, its 256 colours chosen from all its frames.

    Args:
        path: a ``.gif``.
        frames: uint8 RGB (H, W, 3) or (n, H, W, 3) each.
        fps: frames per second; above 50 frames are left out, for browsers show no more.

    Raises:
        ClipError: no frame, a wrong size or type, or a frame rate of 0.
        EnvironmentProblem: the disk is full or the folder can't be written.
    """
    if not 0 < fps <= 1000:
        raise ClipError(must(f"frame rate of {path.name}", "lie in (0, 1000]", f"{fps:g}"))
    part = video_ffmpeg.beside(path)

    def build(raw: Any) -> Any:
        timed = raw.filter("fps", _MAX_GIF_FPS) if fps > _MAX_GIF_FPS else raw
        copies = timed.filter_multi_output("split")
        palette = copies[0].filter("palettegen", stats_mode="full", reserve_transparent=0)
        import ffmpeg

        shown = ffmpeg.filter([copies[1], palette], "paletteuse", dither="sierra2_4a", diff_mode="rectangle")
        return shown.output(file_url(part), format="gif", loop=0, **_SAME_BYTES).overwrite_output()

    try:
        _encode_all(path, frames, build=build, fps=fps)
        place(part, path)
    finally:
        part.unlink(missing_ok=True)


def _encode_all(path: Path, frames: Iterable[np.ndarray], *, build: Callable[[Any], Any], fps: float) -> None:
    encoder: video_ffmpeg.Encoder | None = None
    shape: tuple[int, ...] = ()
    try:
        for batch in _batches(frames, path):
            if encoder is None:
                shape = batch.shape[1:]
                size = (shape[1], shape[0])
                encoder = video_ffmpeg.Encoder(build, size=size, fps=fps, target=path, timeout_s=_FED_TIMEOUT_S)
            if batch.shape[1:] != shape:
                raise ClipError(must(f"frames of {path.name}", f"be {shape}", batch.shape[1:]))
            encoder.write(batch)
        if encoder is None:
            raise ClipError(must(str(path), "get at least one frame", "none"))
        encoder.close()
    except BaseException:
        if encoder is not None:
            encoder.abort()
        raise


def _batches(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    for batch in frames:
        yield checked(batch, path)


def checked(frames: np.ndarray, path: Path) -> np.ndarray:
    """Frames as (n, H, W, 3).

    Raises:
        ClipError: not uint8 RGB.
    """
    batch = frames[None] if frames.ndim == 3 else frames
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3 or 0 in batch.shape:
        got = f"{frames.dtype} {frames.shape}"
        raise ClipError(must(f"frames of {path.name}", "be uint8 (H, W, 3) or (n, H, W, 3)", got))
    return batch


def file_url(path: Path) -> str:
    """A path as ffmpeg takes it: colons, dashes and spaces in it mean nothing."""
    return f"file:{path.absolute()}"


def place(part: Path, path: Path) -> None:
    """Put a finished file in its place."""
    part.chmod(0o644)
    os.replace(part, path)
