"""Cut many clips out of one video in one pass of one ffmpeg process: decode, crop, resize and encode.

No frame passes through Python, and only the pixels inside the boxes are converted. Frames are counted as
`video_ffmpeg.decoded` gives them. Files that need care (damaged, of changing frame size) are left to the caller.

How far the decoder runs ahead of the last frame that is asked for is fixed: a file is found damaged always or never.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from preprocessing.boxes import Box
from preprocessing.video_ffmpeg import Child, View, compiled, late, opened, unwritten
from preprocessing.video_types import Limits
from preprocessing.video_write import Coding, file_url

_MANY_PIXELS = 32 * 256 * 256
_MOST, _FEWEST = 32, 4
_FRAMES = re.compile(r"^frame=\s*(\d+)", re.MULTILINE)
_TROUBLE = re.compile(r"corrupt decoded frame|Error submitting packet to decoder|Reconfiguring filter graph")
_MACHINE = re.compile(
    r"No space left|quota exceeded|Permission denied|Read-only file|Cannot allocate|Too many open", re.IGNORECASE
)
_MAX_TEXT = 1 << 20
_SCALER = "bicubic+accurate_rnd+bitexact"
_AHEAD = 64
"""Packets that are decoded beyond the last frame: more than H.264 and H.265 hold back."""
_DROPPED, _MOST_DROPPED = "Packet corrupt", 2
"""An mp4 that is cut off ends inside a packet of video and maybe one of sound; more of them are another damage."""
_MP4 = "Input #0, mov,mp4"
_ENDS_EARLY = re.compile(rf"{_DROPPED}|partial file|File ended prematurely")
_EMPTY = "at least one of its streams received no packets"
_REORDERED = 16
"""As many frames H.264 stores out of order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One clip to be made."""

    path: Path
    """Written as it comes: give a temporary name."""
    start_frame: int
    """First frame, counted from 0."""
    end_frame: int
    """First frame after the last."""
    box: Box
    """Whole-numbered, in the pixels of the frame as shown; what lies outside repeats the frame's edge."""


class NeedsCare(Exception):
    """The file can't be cut this way; what was written is of no use."""


def most_cuts(size_px: int) -> int:
    """How many clips one pass may make. ffmpeg frees an encoder at the very end: each holds 3 to 8 MB at 256 px."""
    return max(_FEWEST, min(_MOST, _MANY_PIXELS // (size_px * size_px)))


def can_cut(view: View) -> bool:
    """Whether frames can be used as they are stored, but for their rotation."""
    return not (view.has_alpha or view.is_interlaced or view.is_scaled)


def cut_clips(
    source: Path,
    cuts: Sequence[Cut],
    *,
    view: View,
    fps: float,
    size_px: int,
    coding: Coding,
    limits: Limits,
) -> tuple[int, bool]:
    """Make clips of a video, each resized to a square.

    Args:
        source: the file.
        cuts: up to `most_cuts`; each file has the frames of its span that there are.
        view: of the source, which `can_cut`.
        fps: of the clips.
        size_px: height and width of the clips.
        coding: of the clips.
        limits: pixels and time allowed.

    Returns:
        Number of frames decoded, at most the last ``end_frame``, and whether the file ends inside a frame. Then there
        may be more frames in the clips: some between the last ones may be missing, and these do not count.

    Raises:
        NeedsCare: the file is damaged, or its frames change.
        MediaError: it takes too long.
        EnvironmentProblem: the clips can't be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    last = max(cut.end_frame for cut in cuts)
    runs_on = f"noise=drop=gte(n\\,{last + _AHEAD})"
    video = opened(source, max_pixels=limits.max_pixels, fflags="+discardcorrupt", **{"bsf:v": runs_on})
    node = _graph(video, cuts, size=(view.width, view.height), rate=rate, size_px=size_px, coding=coding)
    command = [*compiled(node), "-y", "-nostdin", "-hide_banner", "-nostats", "-v", "info"]
    child = Child([*command, "-filter_complex_threads", "1", "-progress", "pipe:1"], timeout_s=limits.timeout_s)
    try:
        progress = child.output.read().decode("ascii", "replace")
        status, text = child.finish()
        if child.timed_out:
            raise late(source, limits)
    finally:
        child.close()
    counts = _FRAMES.findall(progress)
    num_frames = int(counts[-1]) if counts else 0
    # ffmpeg takes it for an error when a clip gets no frame; here it is none
    is_done = status == 0 or 0 < text.count(_EMPTY) == sum(cut.start_frame >= num_frames for cut in cuts)
    if not is_done and _MACHINE.search(text):
        raise unwritten(cuts[0].path.parent, _MACHINE.findall(text)[-1])
    has_holes = text.count(_DROPPED) > (_MOST_DROPPED if _MP4 in text else 0)
    if not is_done or has_holes or _TROUBLE.search(text) or len(text) >= _MAX_TEXT:
        raise NeedsCare
    if num_frames < last and _ENDS_EARLY.search(text):
        return max(0, num_frames - _REORDERED), True
    return min(last, num_frames), False


def _graph(
    video: Any, cuts: Sequence[Cut], *, size: tuple[int, int], rate: Fraction, size_px: int, coding: Coding
) -> Any:
    import ffmpeg

    # crop counts on 4:2:0; captions and the like are not to get into the clips
    copies = video["V:0"].filter("format", "yuv420p").filter("sidedata", "delete").filter_multi_output("split")
    outputs = [copies[0].output("pipe:1", format="null", fps_mode="passthrough")]  # the first output is what is counted
    for number, cut in enumerate(cuts, start=1):
        part = copies[number].filter("trim", start_frame=cut.start_frame, end_frame=cut.end_frame)
        part = _resized(part, cut.box, size=size, size_px=size_px, lossless=coding.lossless)
        part = part.filter("settb", f"{rate.denominator}/{rate.numerator}").filter("setpts", "N")
        timing = {"fps_mode": "cfr", "r": str(rate), "map_chapters": -1}
        outputs.append(part.output(file_url(cut.path), format="mp4", **timing, **coding.options()))
    return ffmpeg.merge_outputs(*outputs)


def _resized(part: Any, box: Box, *, size: tuple[int, int], size_px: int, lossless: bool) -> Any:
    """Crop and resize. Chroma of an odd offset begins half a sample before the luma, which the resizing is told."""
    left, top, right, bottom = (round(side) for side in box)
    inner = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    part = part.filter("crop", inner[2] - inner[0], inner[3] - inner[1], inner[0], inner[1], exact=1)
    shift: dict[str, Any] = {}
    if inner[0] % 2:
        shift["in_h_chr_pos"] = 128 - 256
    if inner[1] % 2:
        shift["in_v_chr_pos"] = 128 - 256
    edges = (inner[0] - left, right - inner[2], inner[1] - top, bottom - inner[3])
    is_as_large = (right - left, bottom - top) == (size_px, size_px)  # then swscale copies chroma, shifted or not
    if any(edges) or (shift and is_as_large):
        part, shift = part.filter("scale", flags=_SCALER, **shift).filter("format", "yuv444p"), {}
    if any(edges):
        part = part.filter("pad", right - left, bottom - top, edges[0], edges[2])
        part = part.filter("fillborders", *edges, mode="smear")
    colours = {} if lossless else {"out_color_matrix": "bt601", "out_range": "tv"}
    scaled = part.filter("scale", size_px, size_px, flags=_SCALER, **colours, **shift)
    shown = scaled.filter("format", "rgb24" if lossless else "yuv420p").filter("setsar", 1)
    return shown.filter("setparams", color_primaries="unknown", color_trc="unknown")
