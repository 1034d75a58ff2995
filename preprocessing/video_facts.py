"""What a video file says of itself, without decoding a frame: streams, size as shown, number of frames, time stamps.

The text that ffmpeg prints is read, because the binary that ``imageio-ffmpeg`` carries comes without ffprobe. One run
reads the headers, a second one walks over all packets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from models.errors import must
from preprocessing.video_ffmpeg import Child, View, compiled, first_error, late, opened
from preprocessing.video_types import Limits, MediaError, check_bounds

_INPUT = re.compile(r"^Input #0, (\S+), from ")
_STREAM = re.compile(r"^  Stream #0:\d+(?:\[0x[0-9a-f]+\])?(?:\([^)]*\))?: (Video|Audio): (.*)$")
_CODEC = re.compile(r"^(\w+)")
_FORMAT = re.compile(r", (\w+)(?:\(([^)]*)\))?(?=,)")
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,\[]|$)")
_ASPECT = re.compile(r"[ \[]SAR (\d+):(\d+)")
_RATE = re.compile(r", ([\d.]+)(k?) (fps|tbr)")
_TURNED = re.compile(r"^\s+Display Matrix: rotation of (-?[\d.]+) degrees")
_ALPHA_FORMAT = re.compile(r"yuva|rgba|bgra|argb|abgr|gbrap|ayuv|vuya|^ya\d|^pal8$")
_CUT_OFF = re.compile(r"partial file|File ended prematurely|truncat", re.IGNORECASE)
_DISCARDED = 0x4
"""The flag of packets that an edit list takes out."""

_UNTIMED = np.iinfo(np.int64).min
_SQUARE_WITHIN = Fraction(1, 50)
_LARGEST_ASPECT = 4
"""Pixels that are said to be wider or higher than this are a wrong tag, and taken for square."""
_MAX_HEADER_BYTES = 16 << 20
_PARAMETER_SETS = {
    "h264": "noise=drop=not(key),h264_mp4toannexb,filter_units=pass_types=7",
    "hevc": "noise=drop=not(key),hevc_mp4toannexb,filter_units=pass_types=33",
    "av1": "noise=drop=not(key),filter_units=pass_types=1",
    "vp8": "noise=drop=not(key)",
    "vp9": "noise=drop=not(key)",
}
"""By codec, the filters that leave of a stream what says the frame's size, at every key frame."""


@dataclass(slots=True)
class _Stream:
    line: str
    turned: float = 0.0
    has_alpha_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What ffmpeg says of a file without decoding it."""

    view: View
    """How its frames are to be shown."""
    container: str
    """ffmpeg's names of it, with commas."""
    stated_fps: float
    """0: none."""
    has_audio: bool
    num_video_streams: int
    """Cover pictures count here, since another decoder might take one for the film."""
    is_turned: bool
    """By the container; it may be mirrored, too."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a common kind of file, that decord may try: one stream, nothing to be done to its frames."""
        view = self.view
        common = self.container.startswith(("mov,", "matroska,")) and view.codec in _PARAMETER_SETS
        return common and self.num_video_streams == 1 and not (view.has_alpha or view.is_interlaced or view.is_scaled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """What a walk over all packets found."""

    num_frames: int
    times_s: np.ndarray | None = field(default=None, repr=False)
    """float64 (num_frames,): when each frame is shown, growing from 0; None: the file holds no time stamps."""


def examine(path: Path, limits: Limits) -> Facts:
    """Read the streams' headers.

    Raises:
        MediaError: not a known container, no video in it, too large, turned askew, or too slow.
    """
    where, text = path.name, _told(path, limits)
    container, streams, has_audio = _streams(text)
    if "exceeds specified max pixel count" in text:
        rule = f"have at most {limits.max_pixels:,} pixels a frame"
        raise MediaError(must(where, rule, "more", "Scale it down, or raise max_source_pixels"), "too-large")
    films = [stream for stream in streams if "(attached pic)" not in stream.line]
    if not films and has_audio:
        raise MediaError(must(where, "hold a video stream", "sound only"), "audio-only")
    if not films:
        if "moov atom not found" in text and _is_mp4(path):
            raise _cut_off(path)
        raise MediaError(must(where, "be a readable video", first_error(text, path)), "unreadable")
    return Facts(
        view=_view(films[0], where, limits),
        container=container,
        stated_fps=_rate(films[0].line),
        has_audio=has_audio,
        num_video_streams=len(streams),
        is_turned=round(films[0].turned) % 360 != 0,
    )


def _told(path: Path, limits: Limits) -> str:
    """What ffmpeg tells of an input."""
    node = opened(path, max_pixels=limits.max_pixels).output("pipe:")
    command = compiled(node)
    child = Child([*command[:-1], "-hide_banner", "-nostdin"], timeout_s=limits.timeout_s)
    try:
        _, text = child.finish()
        if child.timed_out:
            raise late(path, limits)
    finally:
        child.close()
    return text.replace("At least one output file must be specified", "")


def _streams(text: str) -> tuple[str, list[_Stream], bool]:
    """The container, the video streams, and whether there is sound."""
    container, videos, has_audio = "", list[_Stream](), False
    for line in text.splitlines():
        if header := _INPUT.match(line):
            container = header[1]
        elif found := _STREAM.match(line):
            has_audio = has_audio or found[1] == "Audio"
            videos += [_Stream(found[2])] if found[1] == "Video" else []
        elif videos and (turned := _TURNED.match(line)):
            videos[-1].turned = float(turned[1])
        elif videos and re.match(r"^\s+alpha_mode\s*: 1$", line):
            videos[-1].has_alpha_layer = True
    return container, videos, has_audio


def _view(stream: _Stream, where: str, limits: Limits) -> View:
    size, codec, pixels = _SIZE.search(stream.line), _CODEC.match(stream.line), _FORMAT.search(stream.line)
    if size is None or codec is None:
        raise MediaError(must(where, "state its picture size", "none"), "unreadable")
    if abs(stream.turned - 90 * round(stream.turned / 90)) > 0.5:
        got = f"{stream.turned:g} degrees"
        raise MediaError(must(where, "be turned by a multiple of 90 degrees", got, "Encode it again"), "unsupported")
    width, height = int(size[1]), int(size[2])
    check_bounds(where, limits, width=width, height=height, num_frames=0)
    shown_width, shown_height = _square_pixels(width, height, stream.line)
    check_bounds(where, limits, width=shown_width, height=shown_height, num_frames=0)
    if round(stream.turned) % 180 == 90:
        shown_width, shown_height = shown_height, shown_width
    layout = pixels[2] or "" if pixels else ""
    return View(
        width=shown_width,
        height=shown_height,
        stored_size=(width, height),
        codec=codec[1],
        has_alpha=stream.has_alpha_layer or bool(pixels and _ALPHA_FORMAT.search(pixels[1])),
        is_interlaced=" first" in layout,
    )


def _square_pixels(width: int, height: int, line: str) -> tuple[int, int]:
    """The size at which pixels are square: the narrower side grows, so that nothing is lost."""
    stated = _ASPECT.search(line)
    if stated is None or "0" in stated.groups():
        return width, height
    aspect = Fraction(int(stated[1]), int(stated[2]))
    if abs(aspect - 1) <= _SQUARE_WITHIN or not Fraction(1, _LARGEST_ASPECT) <= aspect <= _LARGEST_ASPECT:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _rate(line: str) -> float:
    """The frame rate that a stream states: its mean one, else the one of its clock."""
    stated = {kind: float(value) * (1000 if thousands else 1) for value, thousands, kind in _RATE.findall(line)}
    rates = [rate for kind in ("fps", "tbr") if 0 < (rate := stated.get(kind, 0.0)) <= 1000]
    return rates[0] if rates else 0.0


def keeps_size(path: Path, facts: Facts, limits: Limits) -> bool:
    """Whether every key frame of a plain file states the same size.

    Raises:
        MediaError: too slow.
    """
    codec = facts.view.codec
    source = opened(path, max_pixels=limits.max_pixels)
    kind = "data" if codec in ("h264", "hevc") else "ivf"
    node = source.output("pipe:1", format=kind, map="0:V:0", c="copy", **{"bsf:v": _PARAMETER_SETS[codec]})
    child = Child([*compiled(node), "-nostdin", "-v", "error"], timeout_s=limits.timeout_s)
    try:
        found = _one_size(codec, child.output)
        status, _ = child.finish()
        if child.timed_out:
            raise late(path, limits)
    finally:
        child.close()
    return found and status == 0


def _one_size(codec: str, pipe: IO[bytes]) -> bool:
    """Whether all that a stream says of its size is the same; reads the pipe to its end."""
    if codec not in ("h264", "hevc"):
        sizes = set[bytes]()
        pipe.read(32)
        while len(head := pipe.read(12)) == 12:
            left = int.from_bytes(head[:4], "little")
            start = pipe.read(min(left, 64))
            if len(sizes) < 2:
                sizes.add(_stated_size(codec, start))
            _skip(pipe, left - len(start))
        return len(sizes) == 1
    content = pipe.read(_MAX_HEADER_BYTES)
    rest = _skip(pipe, None)
    return rest == 0 and len(set(re.split(b"\0*\0\0\1", content)) - {b""}) <= 1


def _stated_size(codec: str, start: bytes) -> bytes:
    """The bytes of a key frame's beginning, of AV1 of the sequence header, that hold its width and height."""
    if codec != "vp9":
        return start[3:10] if codec == "vp8" else start
    # VP9 bitstream specification, 6.2: marker, profile, flags, 24 bits of sync code, colours, width and height
    bits = "".join(f"{byte:08b}" for byte in start[:16]).ljust(128, "0")
    profile = int(bits[3] + bits[2], 2)
    at = 32 + (profile == 3) + (profile >= 2)
    is_rgb, has_layout = bits[at : at + 3] == "111", profile in (1, 3)
    at += 3 + (has_layout if is_rgb else 1 + 3 * has_layout)
    return bits[at : at + 32].encode()


def _skip(pipe: IO[bytes], size: int | None) -> int:
    """Read and forget ``size`` bytes, or all; how many there were."""
    count = 0
    while size is None or count < size:
        chunk = pipe.read(1 << 20 if size is None else min(1 << 20, size - count))
        if not chunk:
            break
        count += len(chunk)
    return count


def list_packets(path: Path, limits: Limits) -> Packets:
    """Look at every packet of the video stream for its time; those that an edit list takes out do not count.

    Raises:
        MediaError: cut off, without frames, or too slow.
    """
    most = {"map": "0:V:0", "c": "copy", "frames:v": limits.max_frames + 1}
    node = opened(path, max_pixels=limits.max_pixels).output("pipe:1", format="framecrc", **most)
    child = Child([*compiled(node), "-nostdin", "-hide_banner", "-nostats"], timeout_s=limits.timeout_s)
    times, clock = list[int](), Fraction(1)
    try:
        for line in child.output:
            if line.startswith(b"#tb 0: "):
                clock = Fraction(line[7:].strip().decode())
            elif line.startswith(b"0,"):
                parts = line.split(b",")
                flags = int(parts[6].strip()[2:], 16) if len(parts) > 6 and parts[6].startswith(b" F=") else 0
                if not flags & _DISCARDED:
                    times.append(int(parts[2]))
        _, text = child.finish()
        if child.timed_out:
            raise late(path, limits)
    finally:
        child.close()
    ticks = np.sort(np.asarray(times, np.int64))
    is_timed = len(ticks) > 0 and ticks[0] != _UNTIMED
    seconds = (ticks - ticks[0]) * float(clock) if is_timed else None
    return _whole(path, text, Packets(num_frames=len(times), times_s=seconds))


def _whole(path: Path, text: str, packets: Packets) -> Packets:
    if _CUT_OFF.search(text):
        raise _cut_off(path)
    if packets.num_frames == 0:
        raise MediaError(must(path.name, "hold frames", "none"), "no-frames")
    return packets


def _is_mp4(path: Path) -> bool:
    """Whether its first box is one that an mp4 begins with; a name alone makes ffmpeg take junk for one, too."""
    with path.open("rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"mdat", b"wide", b"free", b"skip")


def _cut_off(path: Path) -> MediaError:
    return MediaError(must(path.name, "be whole", "a file that ends early", "Fetch it again"), "truncated")


def frame_rate(path: Path, times_s: np.ndarray | None, stated_fps: float) -> float:
    """Frames per second: as stated, unless the time stamps tell another rate.

    The mean rate counts, so that a video of variable rate plays as long as before; the median one, where a single gap
    takes more than half of the time.

    Raises:
        MediaError: the frames are shown all at once, or more than 1000 a second.
    """
    fps = stated_fps
    if times_s is not None and len(times_s) > 1:
        steps = np.diff(times_s)
        if np.median(steps) <= 0:
            got = f"0 (most of {len(times_s)} frames at one instant)"
            raise MediaError(must(path.name, "have a frame rate above 0", got, "Encode it again"), "frame-rate")
        step = float(np.median(steps) if steps.max() > steps.sum() / 2 else steps.mean())
        rounded_s = 0.002 / len(steps)  # some containers count in whole milliseconds
        agrees = stated_fps > 0 and abs(1 / stated_fps - step) < max(0.02 * step, rounded_s)
        fps = stated_fps if agrees else 1 / step
    if not 0 < fps <= 1000:
        raise MediaError(must(path.name, "have a frame rate above 0 and up to 1000", f"{fps:g}"), "frame-rate")
    return fps
