"""What is said about a video: its facts, the bounds that media must keep, and the error with its machine word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import SourceError, must

Decoder = Literal["decord", "ffmpeg", "pillow"]
Reason = Literal[
    "missing",
    "empty",
    "unreadable",
    "unsupported",
    "audio-only",
    "no-frames",
    "one-frame",
    "frame-rate",
    "truncated",
    "too-large",
    "too-small",
    "too-long",
    "timeout",
    "undecodable",
    "outside-folder",
    "no-subject",
    "too-short",
    "outside-frame",
    "camera-motion",
    "no-distinct-frame",
    # fetching
    "network",
    "rate-limited",
    "server-error",
    "forbidden",
    "not-found",
    "redirects",
    "wrong-length",
    "wrong-checksum",
    "not-media",
    "quota",
    "needs-form",
    "private",
    "removed",
    "geo-blocked",
    "age-restricted",
    "bot-check",
    "unsafe-archive",
    # metadata rows
    "bad-row",
    "duplicate-row",
    "box-outside",
    "no-video",
    "failed",
]
"""Why an item is rejected, in one machine word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one media file. They are checked before anything is decoded, and again while decoding."""

    max_pixels: int = 40_000_000
    """Of one frame."""
    max_frames: int = 200_000
    timeout_s: float = 600.0
    """From opening a file to its last frame, the caller's own work in between included."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """The facts of one video, GIF or picture."""

    width: int
    """As shown: after the container's rotation."""
    height: int
    num_frames: int
    """As the container counts them; a decoder may give a few less."""
    fps: float
    decoder: Decoder
    """Which decoder reads it."""
    has_audio: bool


class MediaError(SourceError):
    """A file that is rejected, with the machine word of its reason."""

    def __init__(self, message: str, reason: Reason = "unreadable") -> None:
        super().__init__(message, reason)
        self.message = message
        self.reason: Reason = reason

    def __str__(self) -> str:
        return self.message


def check_bounds(where: str, limits: Limits, *, width: int, height: int, num_frames: int) -> None:
    """Raise `MediaError` when a file's stated size breaks a limit."""
    if width < 1 or height < 1:
        raise MediaError(must(where, "have a picture size", f"{width}x{height}"), "unreadable")
    if width * height > limits.max_pixels:
        rule = f"have at most {limits.max_pixels:,} pixels a frame"
        raise MediaError(
            must(where, rule, f"{width}x{height}", "Scale it down, or raise max_source_pixels"), "too-large"
        )
    if num_frames > limits.max_frames:
        rule = f"have at most {limits.max_frames:,} frames"
        raise MediaError(must(where, rule, f"{num_frames:,}", "Cut it, or raise max_source_frames"), "too-long")
