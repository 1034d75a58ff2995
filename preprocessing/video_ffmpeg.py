"""The ffmpeg child process: facts of a file, decoding through a pipe, encoding from a pipe.

The binary is the one that ``imageio-ffmpeg`` carries. A child may open local files and pipes only, only containers of a
fixed list (so that a playlist or a script dressed up as a video opens nothing else), runs on one thread, and is killed
when its time is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from models.errors import EnvironmentProblem, must
from preprocessing.video_types import Limits, MediaError

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,gif,h264,hevc,ivf,"
    "yuv4mpegpipe,nut,mxf,wav,mp3,aac,flac"
)
_STREAM = re.compile(r"^  Stream #0:\d+(?:\[0x[0-9a-f]+\])?(?:\([^)]*\))?: (Video|Audio): (.*)$")
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,\[]|$)")
_FPS = re.compile(r", ([\d.]+)(k?) fps")
_TURNED = re.compile(r"^\s+Display Matrix: rotation of (-?[\d.]+) degrees")
_CUT_OFF = re.compile(r"partial file|File ended prematurely|moov atom not found|Packet corrupt|truncat", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What ffmpeg says of a file without decoding it."""

    width: int
    height: int
    num_packets: int
    fps: float
    has_audio: bool
    num_video_streams: int
    """Cover pictures count here, since another decoder might take one for the film."""


class Child:
    """An ffmpeg process with a deadline, whose last words are kept."""

    def __init__(self, arguments: list[str], *, timeout_s: float, feed: bool = False) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._timed_out = False
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE if not feed else subprocess.DEVNULL,
            stderr=self._errors,
        )
        self._timer = threading.Timer(max(timeout_s, 0.001), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self) -> None:
        self._timed_out = True
        self.process.kill()

    @property
    def output(self) -> IO[bytes]:
        """The child's output pipe."""
        assert self.process.stdout is not None, "the child was started for reading"
        return self.process.stdout

    @property
    def input(self) -> IO[bytes]:
        """The child's input pipe."""
        assert self.process.stdin is not None, "the child was started for writing"
        return self.process.stdin

    @property
    def timed_out(self) -> bool:
        """Whether the deadline killed the child."""
        return self._timed_out

    def finish(self) -> tuple[int, str]:
        """Wait for the end: exit status and everything that was written to stderr."""
        status = self.process.wait()
        self._timer.cancel()
        self._errors.seek(0)
        return status, self._errors.read(1 << 20).decode("utf-8", "replace")

    def close(self) -> None:
        """End the child whatever it does, and free its pipes."""
        self._timer.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def executable() -> str:
    """Path of the ffmpeg binary.

    Raises:
        EnvironmentProblem: there is none for this machine.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        fix = "Install the package imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE"
        raise EnvironmentProblem(must("ffmpeg", "be at hand", str(error), fix)) from None


def compiled(stream: Any) -> list[str]:
    """The command line of an ffmpeg-python graph."""
    command: list[str] = stream.compile(cmd=executable())
    return command


def opened(path: Path, **options: Any) -> Any:
    """A safe input node. ``file:`` and an absolute path keep dashes, colons and spaces from meaning anything."""
    import ffmpeg

    guard = {"protocol_whitelist": "file,pipe", "format_whitelist": _CONTAINERS, "threads": 1}
    return ffmpeg.input(f"file:{path.absolute()}", **guard, **options)


def examine(path: Path, limits: Limits) -> Facts:
    """Read the streams' headers and count the packets of the video stream, without decoding them.

    Raises:
        MediaError: not a known container, no video in it, no frame rate, cut off, too large, or too slow.
    """
    where, text, num_packets = path.name, *_demux(path, limits)
    videos, has_audio, turned = _streams(text)
    if "exceeds specified max pixel count" in text:
        rule = f"have at most {limits.max_pixels:,} pixels a frame"
        raise MediaError(must(where, rule, "more", "Scale it down, or raise max_source_pixels"), "too-large")
    films = [line for line in videos if "(attached pic)" not in line]
    if not films and has_audio:
        raise MediaError(must(where, "hold a video stream", "sound only"), "audio-only")
    if not films:
        raise MediaError(must(where, "be a readable video", _last_words(text, path)), "unreadable")
    size, rate = _SIZE.search(films[0]), _FPS.search(films[0])
    if size is None:
        raise MediaError(must(where, "state its picture size", "none"), "unreadable")
    if _CUT_OFF.search(text):
        raise MediaError(must(where, "be whole", "a file that ends early", "Fetch it again"), "truncated")
    if num_packets == 0:
        raise MediaError(must(where, "hold frames", "none"), "no-frames")
    fps = float(rate[1]) * (1000 if rate[2] else 1) if rate else 0.0
    if not 0 < fps <= 1000:
        raise MediaError(must(where, "have a frame rate above 0 and up to 1000", f"{fps:g}"), "frame-rate")
    width, height = int(size[1]), int(size[2])
    if round(turned) % 180 == 90:
        width, height = height, width
    return Facts(
        width=width,
        height=height,
        num_packets=num_packets,
        fps=fps,
        has_audio=has_audio,
        num_video_streams=len(videos),
    )


def _demux(path: Path, limits: Limits) -> tuple[str, int]:
    node = opened(path, max_pixels=limits.max_pixels).output(
        "pipe:", map="0:V:0", c="copy", format="null", progress="pipe:1"
    )
    child = Child([*compiled(node), "-nostdin", "-hide_banner", "-nostats"], timeout_s=limits.timeout_s)
    try:
        progress = child.output.read().decode("ascii", "replace")
        _, text = child.finish()
        if child.timed_out:
            raise late(path, limits)
    finally:
        child.close()
    counts = re.findall(r"^frame=\s*(\d+)", progress, re.MULTILINE)
    return text, int(counts[-1]) if counts else 0


def _streams(text: str) -> tuple[list[str], bool, float]:
    """Descriptions of the input's video streams, whether it has sound, and the first rotation in degrees."""
    videos, has_audio, turned = [], False, 0.0
    for line in text.split("\nOutput #0")[0].splitlines():
        found = _STREAM.match(line)
        if found and found[1] == "Video":
            videos.append(found[2])
        elif found:
            has_audio = True
        rotation = _TURNED.match(line)
        if rotation and len(videos) == 1:
            turned = float(rotation[1])
    return videos, has_audio, turned


def late(path: Path, limits: Limits) -> MediaError:
    """The error of an exceeded deadline."""
    rule = f"be read within {limits.timeout_s:g} s"
    return MediaError(must(path.name, rule, "a slower file", "Raise timeout_s, or cut it"), "timeout")


def _last_words(text: str, path: Path) -> str:
    """The last line of ffmpeg, without the full path."""
    lines = [line.strip() for line in text.splitlines() if "rror" in line or "nvalid" in line]
    told = re.sub(r"^\[[^\]]*\] ", "", lines[0]) if lines else "nothing known"  # without a memory address
    return told.replace(str(path.absolute()), path.name)[:200]


def decoded(
    path: Path, size: tuple[int, int], *, limits: Limits, batch_frames: int, skip: int = 0
) -> Iterator[np.ndarray]:
    """Frames through a pipe, every one that the file holds, in order.

    Args:
        path: the file.
        size: width and height, as `examine` gives them.
        limits: frames and time allowed.
        batch_frames: frames per yielded batch, the last one may be shorter.
        skip: frames decoded and thrown away first.

    Yields:
        uint8 RGB (n, H, W, 3).

    Raises:
        MediaError: decoding fails or takes too long.
    """
    width, height = size
    node = opened(path, max_pixels=limits.max_pixels).output(
        "pipe:", map="0:V:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", fps_mode="passthrough"
    )
    child = Child([*compiled(node), "-nostdin", "-v", "error"], timeout_s=limits.timeout_s)
    frame_bytes, whole = width * height * 3, True
    try:
        while skip and whole:
            whole = len(child.output.read(frame_bytes)) == frame_bytes
            skip -= 1
        while whole:
            raw = child.output.read(frame_bytes * batch_frames)
            count = len(raw) // frame_bytes
            whole = count == batch_frames
            if count:
                flat = np.frombuffer(raw, np.uint8, count * frame_bytes)
                yield flat.reshape(count, height, width, 3)
        status, text = child.finish()
        if child.timed_out:
            raise late(path, limits)
        if status != 0:
            raise MediaError(must(path.name, "be decodable", _last_words(text, path)), "undecodable")
    finally:
        child.close()


class Encoder:
    """An ffmpeg child that takes RGB frames and writes one file.

    Args:
        build: makes the output node's command from the raw input node.
        size: width and height of every frame.
        fps: frames per second.
        target: named in errors.
        timeout_s: of the whole encoding.
    """

    def __init__(self, build: Any, *, size: tuple[int, int], fps: float, target: Path, timeout_s: float) -> None:
        import ffmpeg

        raw = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{size[0]}x{size[1]}", framerate=_rate(fps))
        self._target = target
        self._child = Child([*compiled(build(raw)), "-v", "error"], timeout_s=timeout_s, feed=True)

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 RGB (n, H, W, 3)."""
        try:
            self._child.input.write(np.ascontiguousarray(frames).data)
        except BrokenPipeError:
            self._fail()

    def close(self) -> None:
        """Finish the file; raises `EnvironmentProblem` when it could not be written."""
        try:
            try:
                self._child.input.close()
            except BrokenPipeError:
                self._fail()
            status, text = self._child.finish()
            if status != 0:
                raise unwritten(self._target, text)
        finally:
            self._child.close()

    def abort(self) -> None:
        """End the child and leave the file unfinished."""
        self._child.close()

    def _fail(self) -> None:
        _, text = self._child.finish()
        self._child.close()
        raise unwritten(self._target, text)


def unwritten(target: Path, text: str) -> EnvironmentProblem:
    """The error of an output that ffmpeg could not write."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    got = lines[-1][:200] if lines else "ffmpeg ended early"
    fix = "Free some space" if "No space left" in text else "See that the folder can be written"
    return EnvironmentProblem(must(str(target), "be written in full", got, fix))


def run(arguments: list[str], *, target: Path, timeout_s: float) -> None:
    """Run one ffmpeg command to its end.

    Raises:
        EnvironmentProblem: it failed.
    """
    child = Child([*arguments, "-nostdin", "-v", "error"], timeout_s=timeout_s)
    try:
        child.output.read()
        status, text = child.finish()
    finally:
        child.close()
    if status != 0:
        raise unwritten(target, text)


def _rate(fps: float) -> str:
    """A frame rate as the fraction that a container can hold."""
    from fractions import Fraction

    return str(Fraction(fps).limit_denominator(1001))


def beside(target: Path) -> Path:
    """A fresh temporary path in the target's folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:40]}.", suffix=".part")
    os.close(handle)
    return Path(name)
