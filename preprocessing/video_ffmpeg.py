"""The ffmpeg child process: facts of a file, decoding through a pipe, encoding from a pipe.

The binary is the one that ``imageio-ffmpeg`` carries. A child may open local files and pipes only, only containers of a
fixed list (so that a playlist or a script dressed up as a video opens nothing else), runs on one thread, and is killed
when its time is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Generator
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
_DAMAGED = re.compile(rb"corrupt decoded frame|Error submitting packet to decoder")
_SIZED = re.compile(rb"graph [^\n]* w:(\d+) h:(\d+) pixfmt:")
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""ffmpeg's own ones leave the transparency out."""
_SAME_SHAPE = 0.02
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a video's frames are to be shown."""

    width: int
    """As shown: turned upright, with square pixels."""
    height: int
    codec: str
    stored_size: tuple[int, int]
    """Width and height as stored."""
    has_alpha: bool = False
    """Shown on white."""
    is_interlaced: bool = False
    """Its half pictures are made whole ones."""

    @property
    def is_scaled(self) -> bool:
        """Whether its pixels are not square as stored."""
        return sorted(self.stored_size) != sorted((self.width, self.height))


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
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, AttributeError):  # a larger pipe is faster, a small one will do
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
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

    def complaints(self, start: int) -> bytes:
        """What it wrote to stderr from a byte on, at most 1 MiB."""
        return os.pread(self._errors.fileno(), 1 << 20, start)

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


def late(path: Path, limits: Limits) -> MediaError:
    """The error of an exceeded deadline."""
    rule = f"be read within {limits.timeout_s:g} s"
    return MediaError(must(path.name, rule, "a slower file", "Raise timeout_s, or cut it"), "timeout")


def first_error(text: str, path: Path) -> str:
    """The first error that ffmpeg tells, without the full path."""
    lines = [line.strip() for line in text.splitlines() if "rror" in line or "nvalid" in line]
    told = re.sub(r"^(\[[^\]]*\] )+", "", lines[0]) if lines else "nothing known"  # without a memory address
    return told.replace(str(path.absolute()), path.name)[:200]


def decoded(path: Path, view: View, *, limits: Limits, batch_frames: int, skip: int = 0) -> Generator[np.ndarray]:
    """Frames through a pipe, every one that the file holds, in order.

    Where the frame's size changes, but not its shape, later frames are scaled to the first one's size.

    Args:
        path: the file.
        view: as `video_facts.examine` gives it.
        limits: frames and time allowed.
        batch_frames: frames per yielded batch, the last one may be shorter.
        skip: frames decoded and thrown away first.

    Yields:
        uint8 RGB (n, H, W, 3).

    Raises:
        MediaError: decoding fails, a frame is damaged or has another shape, or it takes too long.
    """
    child = Child(_command(path, view, limits), timeout_s=limits.timeout_s)
    shape = (view.height, view.width, 4 if view.has_alpha else 3)
    watch, done, whole = _Watch(path, view), -skip, True
    try:
        while whole:
            wanted = batch_frames if done >= 0 else min(batch_frames, -done)
            frames = _read(child.output, shape, wanted)
            whole = len(frames) == wanted
            watch.look(child, max(done, 0) + len(frames))
            if len(frames) and done >= 0:
                yield _on_white(frames) if view.has_alpha else frames
            done += len(frames)
        status, text = child.finish()
        if child.timed_out:
            raise late(path, limits)
        watch.look(child, max(done, 0))
        if status != 0:
            raise MediaError(must(path.name, "be decodable", first_error(text, path)), "undecodable")
    finally:
        child.close()


def _command(path: Path, view: View, limits: Limits) -> list[str]:
    decoder = {"c:v": _ALPHA_DECODERS[view.codec]} if view.has_alpha and view.codec in _ALPHA_DECODERS else {}
    # half pictures need 4 rows and 3 columns
    is_woven = view.is_interlaced and view.width >= 4 and view.height >= 4
    filters = {"vf": "bwdif=mode=send_frame:deint=interlaced"} if is_woven else {}
    node = opened(path, max_pixels=limits.max_pixels, **decoder).output(
        "pipe:",
        map="0:V:0",
        format="rawvideo",
        pix_fmt="rgba" if view.has_alpha else "rgb24",
        s=f"{view.width}x{view.height}",
        fps_mode="passthrough",
        enc_time_base="demux",  # or else frames nearer to each other than the mean rate are complained of
        **filters,
    )
    return [*compiled(node), "-nostdin", "-hide_banner", "-nostats", "-v", "verbose"]


def _read(pipe: IO[bytes], shape: tuple[int, int, int], num_frames: int) -> np.ndarray:
    """Whole frames, fewer at the end."""
    frames = np.empty((num_frames, *shape), np.uint8)
    free = memoryview(frames.data).cast("B")
    while free and (count := pipe.readinto(free)):  # type: ignore[attr-defined]
        free = free[count:]
    whole = (frames.nbytes - len(free)) // (frames.nbytes // num_frames)
    return frames[:whole]


def _on_white(frames: np.ndarray) -> np.ndarray:
    """RGBA frames as RGB."""
    out = np.empty((*frames.shape[:3], 3), np.uint8)
    for frame, place in zip(frames, out, strict=True):
        alpha = frame[..., 3:].astype(np.uint16)
        place[:] = (frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return out


class _Watch:
    """Reads what a decoding child complains of, as it comes: before the frames that it complains of are used."""

    def __init__(self, path: Path, view: View) -> None:
        self._path, self._size = path, view.stored_size
        self._seen = 0

    def look(self, child: Child, done: int) -> None:
        """Raises `MediaError` when a frame is damaged or has another shape than the first one."""
        text = child.complaints(self._seen)
        self._seen += text.rfind(b"\n") + 1
        if _DAMAGED.search(text):
            got = f"a damaged stretch near frame {done}"
            raise MediaError(must(self._path.name, "be undamaged", got, "Fetch it again"), "undecodable")
        for changed in _SIZED.finditer(text):
            width, height = int(changed[1]), int(changed[2])
            shape = width * self._size[1] / (height * self._size[0]) if width and height else 0.0
            if abs(shape - 1) > _SAME_SHAPE:
                got = f"{self._size[0]}x{self._size[1]}, then {width}x{height} near frame {done}"
                fix = "Cut it where the shape changes"
                raise MediaError(must(self._path.name, "keep the shape of its frames", got, fix), "unsupported")


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
