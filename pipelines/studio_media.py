"""What the studio takes in: photos and driving videos, looked over before any work is done."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from models.errors import InkmotionError, must
from pipelines.stylise_photo import facts_of
from preprocessing import video_ffmpeg
from preprocessing.video import DEFAULT_LIMITS, MediaError, probe
from preprocessing.video_types import VideoInfo

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".webm")
RECORDED = (".webm", ".mkv")
"""What browsers record into."""
_EVEN: dict[str, Any] = {
    "r": 25,
    "vf": "scale=trunc(iw/2)*2:trunc(ih/2)*2",
    "pix_fmt": "yuv420p",
    "vcodec": "libx264",
    "preset": "veryfast",
    "crf": 18,
    "acodec": "aac",
    "sn": None,
    "dn": None,
}
_REWRITE_TIMEOUT_S = 120.0
_FLAGS = re.compile(r" \(--[^)]*\)")


def check_photo(path: Path | None, *, max_bytes: int) -> Path:
    """A photo that can be worked with.

    Args:
        path: of the file; None: nobody gave one.
        max_bytes: larger files are refused unread.

    Raises:
        MediaError: there is none, it is no picture, too large, or broken.
    """
    chosen = check_given(path, "a photo", max_bytes)
    if facts_of(chosen).decoder != "pillow":
        fix = f"Choose one of {', '.join(PHOTO_SUFFIXES)}"
        raise MediaError(must(chosen.name, "be a picture", "a video", fix), "unsupported")
    return chosen


def check_driving(path: Path | None, *, max_bytes: int, max_seconds: float) -> VideoInfo:
    """Facts of a driving video that can be worked with.

    Args:
        path: of the file; None: nobody gave one.
        max_bytes: larger files are refused unread.
        max_seconds: longer ones are refused.

    Raises:
        MediaError: there is none, it is no video, too large, too long, or broken.
    """
    chosen = check_given(path, "a driving video", max_bytes)
    info = probe(chosen)
    if info.num_frames < 2:
        fix = f"Choose one of {', '.join(VIDEO_SUFFIXES)}"
        raise MediaError(must(chosen.name, "be a video of 2 frames or more", "one picture", fix), "one-frame")
    seconds = info.num_frames / info.fps if info.fps > 0 else 0.0
    if seconds > max_seconds:
        got, fix = f"{seconds:.1f} s", "Cut it, or start the studio with more (--max-seconds)"
        raise MediaError(must(chosen.name, f"last {max_seconds:g} s at most", got, fix), "too-long")
    return info


def written_anew(path: Path, folder: Path, *, max_seconds: float) -> Path:
    """A browser's recording as a video with a length, an index and an even rate; other files as they are.

    Args:
        path: of a driving video.
        folder: where a new file goes, if there has to be one.
        max_seconds: little more than so much is written.

    Raises:
        MediaError: the recording can't be read.
    """
    if path.suffix.lower() not in RECORDED:
        return path
    folder.mkdir(exist_ok=True)
    made = folder / f"{path.stem}.mp4"
    if made.is_file():
        return made
    part = made.with_name(f"part-{uuid.uuid4().hex}.mp4")  # a page may ask for the same one twice at a time
    node = video_ffmpeg.opened(path, max_pixels=DEFAULT_LIMITS.max_pixels).output(str(part), t=max_seconds + 1, **_EVEN)
    child = video_ffmpeg.Child(video_ffmpeg.compiled(node.overwrite_output()), timeout_s=_REWRITE_TIMEOUT_S)
    try:
        status, told = child.finish()
    finally:
        child.close()
    if status != 0 or child.timed_out:
        part.unlink(missing_ok=True)
        got = "one that takes too long" if child.timed_out else video_ffmpeg.first_error(told, path)
        raise MediaError(must(path.name, "be a video that can be read", got, "Record it again"))
    return part.rename(made)


def sentence(error: InkmotionError) -> str:
    """An error as the page says it: one line, files by their names alone, no flags of the command line."""
    words = _FLAGS.sub("", " ".join(str(error).split())).split(" ")
    return " ".join(_named(word) for word in words)


def _named(word: str) -> str:
    """A word without the folders of an absolute path; what else it holds stays."""
    start = word.lstrip("'\"(")
    if not start.startswith("/") or "/" not in start[1:]:
        return word
    return word[: len(word) - len(start)] + start.rsplit("/", 1)[1]


def check_given(path: Path | None, what: str, max_bytes: int) -> Path:
    """A file that was given, and is small enough.

    Raises:
        MediaError: there is none, or it is too large.
    """
    if path is None:
        raise MediaError(must("the studio", f"be given {what}", "none", "Upload, record or pick one"), "missing")
    if path.is_file() and path.stat().st_size > max_bytes:
        got = f"{path.stat().st_size / 2**20:.1f} MiB"
        raise MediaError(
            must(path.name, f"have {max_bytes / 2**20:g} MiB at most", got, "Make it smaller"), "too-large"
        )
    return path
