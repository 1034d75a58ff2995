"""Where the scenes of a film begin and end: hard cuts, flashes, and gradual transitions.

The film goes by once. Of every frame a few numbers, a gray thumbnail of 16x9 and a histogram are kept (under 500
bytes), from which the whole film is judged at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from preprocessing.boxes import Box
from preprocessing.looks import Look, look_at, thinned, within

Fate = Literal["", "black", "flat", "title", "credits", "transition"]
"""Why a frame can be no still; empty: it can."""
FATES: tuple[Fate, ...] = ("", "black", "flat", "title", "credits", "transition")

_COLOUR_PX = (64, 36)
_THUMB_PX = (16, 9)
_NUM_BINS, _PALE = 16, 64
_NEAR = 8
"""Frames on both sides that a cut is compared with."""
_FLASH = 4
"""A flash is over after so many frames."""
_SPANS = (2, 4, 6, 8, 10, 14, 18, 24, 32, 42, 56, 72, 96)
"""Lengths in frames of gradual transitions that are looked for; 2 is a cut with one mixed frame."""
_MIN_BLEND_CHANGE, _BLEND_ERROR, _BLEND_LIKENESS, _BLEND_RECOLOURED = 8.0, 0.33, 0.65, 0.25
_SURE_ERROR, _SURE_LIKENESS, _FADE_CONTRAST = 0.15, 0.4, 0.3
_CUT_LIKENESS, _CUT_RECOLOURED = 0.55, 0.4
READ_EVERY = 6
"""Text is looked for in every so manieth frame."""
_ROLL_LAG, _ROLL_LIKENESS = 2 * READ_EVERY, 0.6
_ROLL_LINES = 2
_TEXT_GAP, _TEXT_SHARE = 24, 0.4
_BLEND_HOLE = 7
_MIXED_ERROR = 0.15
_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The numbers of all N frames."""

    change: np.ndarray
    """Mean change of hue, saturation and value against the frame before, 0-255, float32 (N,)."""
    thumbs: np.ndarray
    """Gray, uint8 (N, 144)."""
    colours: np.ndarray
    """Shares of 16 values and of 8 hues, pale and strong, in the picture, float16 (N, 32); each sums to 1."""
    mean: np.ndarray
    """Gray value, float32 (N,)."""
    black: np.ndarray
    """bool (N,)."""
    flat: np.ndarray
    """bool (N,)."""
    even: np.ndarray
    """Mostly smooth ground, bool (N,)."""
    read: np.ndarray
    """Text was looked for, bool (N,)."""
    text: np.ndarray
    """Text and little else, bool (N,)."""
    roll: np.ndarray
    """Rows by which text moved up in 12 frames, float32 (N,); NaN where there is none to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """What was found in a film of N frames."""

    starts: np.ndarray
    """First frame of each scene but the first, int64, ascending; of a gradual transition its middle."""
    fates: np.ndarray
    """Place in `FATES` of each frame, int8 (N,)."""

    def scene_of(self, frame: int) -> int:
        """Number of the scene that a frame belongs to."""
        return int(np.searchsorted(self.starts, frame, side="right"))


class Watcher:
    """Collects a film's `Timeline`, frame by frame."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._thumbs: list[bytes] = []
        self._colours: list[bytes] = []
        self._inks: list[np.ndarray | None] = []
        self._last: np.ndarray | None = None

    def add(self, frame: np.ndarray, picture: Box) -> tuple[Look, float]:
        """Take in the next frame, uint8 RGB (H, W, 3), of which ``picture`` is not a bar.

        Returns:
            What it shows, and its content change against the frame before.
        """
        small = thinned(frame)
        look = look_at(frame, small, picture, read=len(self._rows) % READ_EVERY == 0)
        colour = np.asarray(
            cv2.cvtColor(cv2.resize(small, _COLOUR_PX, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2HSV_FULL)
        )
        inner = within(picture, frame, colour)
        change = 0.0 if self._last is None else content_change(within(picture, frame, self._last), inner)
        self._last = colour
        value = np.ascontiguousarray(inner[..., 2])
        self._thumbs.append(cv2.resize(value, _THUMB_PX, interpolation=cv2.INTER_AREA).tobytes())
        self._colours.append(_histogram(inner).tobytes())
        self._inks = [*self._inks[-_ROLL_LAG:], look.ink]
        flags = (look.is_black, look.is_flat, look.is_even, look.is_read, look.ink is not None)
        self._rows.append((change, look.mean, self._rolled(), *(float(flag) for flag in flags)))
        return look, change

    def _rolled(self) -> float:
        early, late = self._inks[0], self._inks[-1]
        if len(self._inks) <= _ROLL_LAG or early is None or late is None or len(early) != len(late):
            return float("nan")
        return _shift(early, late)

    def finish(self) -> Timeline:
        """Everything seen."""
        table = np.array(self._rows, np.float32).reshape(-1, 8)
        black, flat, even, read, text = (table[:, column] > 0 for column in range(3, 8))
        thumbs = np.frombuffer(b"".join(self._thumbs), np.uint8).reshape(-1, _THUMB_PX[0] * _THUMB_PX[1])
        return Timeline(
            change=table[:, 0],
            thumbs=thumbs,
            colours=np.frombuffer(b"".join(self._colours), np.float16).reshape(-1, 2 * _NUM_BINS),
            mean=table[:, 1],
            roll=table[:, 2],
            black=black,
            flat=flat,
            even=even,
            read=read,
            text=text,
        )


def _histogram(hsv: np.ndarray) -> np.ndarray:
    """Shares of values and of hues, float16 (32,)."""
    flat = hsv.reshape(-1, 3)
    values = np.bincount(flat[:, 2] >> 4, minlength=_NUM_BINS)
    hues = np.bincount((flat[:, 0] >> 5) + 8 * (flat[:, 1] > _PALE), minlength=_NUM_BINS)
    return np.asarray((np.r_[values, hues] / len(flat)).astype(np.float16))


def content_change(one: np.ndarray, other: np.ndarray) -> float:
    """Mean change of hue, saturation and value between two pictures, 0-255.

    Hue goes round, and counts as far as both pictures are coloured: the hue of gray says nothing.

    Args:
        one: uint8 HSV, each 0-255, (h, w, 3).
        other: the same.
    """
    change = cv2.absdiff(one, other)
    hue = change[..., 0]
    hue = 2.0 * np.minimum(hue, 255 - hue) * (np.minimum(one[..., 1], other[..., 1]) / 255.0)
    return float(hue.mean() + change[..., 1].mean() + change[..., 2].mean()) / 3


def _shift(early: np.ndarray, late: np.ndarray) -> float:
    """By how many rows text of several lines moved up; 0 where nothing fits."""
    if min(sum(1 for _ in runs(rows > 0)) for rows in (early, late)) < _ROLL_LINES:
        return 0.0
    one, other = early - early.mean(), late - late.mean()
    reach = len(one) // 4
    scores = np.correlate(one, other, "full")[len(one) - 1 - reach : len(one) + reach]
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    best = int(np.argmax(scores))
    return float(best - reach) if norm > 0 and scores[best] >= _ROLL_LIKENESS * norm else 0.0


def find_scenes(timeline: Timeline, *, threshold: float) -> Scenes:
    """Find scenes, and the frames that no still can be taken from.

    Args:
        timeline: of the whole film.
        threshold: content change above which a scene begins, 0-255. A change counts from a sixth of it where it stands
            out from the frames round it and the picture is another one, in what is where or in its colours.
    """
    num_frames = len(timeline.change)
    cuts, flashes = _without_flashes(_jumps(timeline, threshold), timeline.thumbs)
    blends = _blends(timeline, cuts)
    in_transition = blends.copy()
    in_transition[_mixed(timeline.thumbs, cuts)] = True
    for start, stop in flashes:
        in_transition[start:stop] = True
    middles = [(start + stop) // 2 for start, stop in runs(blends)]
    starts = np.unique(np.array([*cuts, *middles], np.int64))
    fates = np.zeros(num_frames, np.int8)
    fates[in_transition] = FATES.index("transition")
    fates[timeline.flat] = FATES.index("flat")
    _mark_text(timeline, starts, fates)
    fates[timeline.black] = FATES.index("black")
    return Scenes(starts=starts[(starts > 0) & (starts < num_frames)], fates=fates)


def _jumps(timeline: Timeline, threshold: float) -> list[int]:
    """Frames whose picture is another one than the frame's before."""
    change = timeline.change
    found = []
    for frame in np.flatnonzero(change > threshold / 6):
        near = np.r_[change[max(1, frame - _NEAR) : frame], change[frame + 1 : frame + 1 + _NEAR]]
        usual = float(np.median(near)) if len(near) else 0.0
        strong = change[frame] > threshold and change[frame] > 2.5 * usual
        other = _likeness(timeline.thumbs[frame - 1], timeline.thumbs[frame]) < _CUT_LIKENESS
        other = other or bool(_recoloured(*timeline.colours[frame - 1 : frame + 1]) > _CUT_RECOLOURED)
        if strong or other and change[frame] > 4 * usual + 2:
            found.append(int(frame))
    return found


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two thumbnails, -1 to 1; 0 where one is flat."""
    a, b = one.astype(np.float32) - one.mean(), other.astype(np.float32) - other.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


def _recoloured(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What two histograms (..., 32) do not share, 0 to 1."""
    return np.asarray(1 - np.minimum(one, other).astype(np.float32).sum(axis=-1) / 2)


def _without_flashes(jumps: list[int], thumbs: np.ndarray) -> tuple[list[int], list[tuple[int, int]]]:
    """Cuts, and spans of frames between two jumps after which the picture is the one before."""
    cuts, flashes, place = list[int](), list[tuple[int, int]](), 0
    while place < len(jumps):
        start = jumps[place]
        ends = [jump for jump in jumps[place + 1 :] if jump - start <= _FLASH] if place + 1 < len(jumps) else []
        away = _gap(thumbs[start - 1], thumbs[start])
        back = next((end for end in ends if _gap(thumbs[start - 1], thumbs[end]) < 0.35 * away), None)
        if back is None:
            cuts.append(start)
            place += 1
        else:
            flashes.append((start, back))
            place = jumps.index(back) + 1
    return cuts, flashes


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float32) - other).mean())


def _blends(timeline: Timeline, cuts: list[int]) -> np.ndarray:
    """Frames in dissolves and fades, bool (N,).

    In a dissolve every frame is a weighted mean of the pictures before and behind it, which are unlike in what is where
    and in their colours. Motion changes what is where, but the colours little.
    """
    thumbs = timeline.thumbs
    found = np.zeros(len(thumbs), bool)
    is_cut = np.zeros(len(thumbs) + 1, np.int64)
    is_cut[1:][cuts] = 1
    cuts_before = np.cumsum(is_cut)
    for span in _SPANS:
        half = span // 2
        for start in range(half, len(thumbs) - half, _CHUNK):
            middle = np.arange(start, min(start + _CHUNK, len(thumbs) - half))
            uncut = cuts_before[middle + half + 1] == cuts_before[middle - half + 1]
            for frame in middle[uncut][_is_blend(timeline, middle[uncut], half)]:
                found[_blended(thumbs, int(frame), half)] = True
    if not len(found):
        return found
    closed = cv2.morphologyEx(found.astype(np.uint8)[:, None], cv2.MORPH_CLOSE, np.ones((_BLEND_HOLE, 1), np.uint8))
    return np.asarray(cv2.dilate(closed, np.ones((3, 1), np.uint8)).ravel() > 0)


def _is_blend(timeline: Timeline, middle: np.ndarray, half: int) -> np.ndarray:
    """Whether frames ``middle - half`` to ``middle + half`` go from one picture to another by blending; (n,)."""
    thumbs = timeline.thumbs
    first, last = (thumbs[middle + offset].astype(np.float32) for offset in (-half, half))
    change = np.abs(last - first).mean(axis=1) + 1e-6
    error = np.zeros(len(middle), np.float32)
    for offset in sorted({round(half * eighth / 4) for eighth in range(-3, 4)}):
        mixed = first + (last - first) * np.float32((offset + half) / (2 * half))
        error = np.maximum(error, np.abs(thumbs[middle + offset] - mixed).mean(axis=1) / change)
    contrast = [side.std(axis=1) for side in (first, last)]
    first -= first.mean(axis=1, keepdims=True)
    last -= last.mean(axis=1, keepdims=True)
    likeness = (first * last).mean(axis=1) / np.maximum(contrast[0] * contrast[1], 1e-6)
    recoloured = _recoloured(timeline.colours[middle - half], timeline.colours[middle + half])
    other = (likeness < _BLEND_LIKENESS) & (recoloured > _BLEND_RECOLOURED)
    other |= (likeness < _SURE_LIKENESS) & (error < _SURE_ERROR)
    fades = np.minimum(*contrast) < _FADE_CONTRAST * np.maximum(*contrast)
    return np.asarray((change >= _MIN_BLEND_CHANGE) & (error < _BLEND_ERROR) & (other | fades))


def _blended(thumbs: np.ndarray, middle: int, half: int) -> np.ndarray:
    """Numbers of the frames between one picture and the other, in a stretch that goes over by blending."""
    stretch = thumbs[middle - half : middle + half + 1].astype(np.float32)
    way = stretch[-1] - stretch[0]
    shares = (stretch - stretch[0]) @ way / float(way @ way)
    return np.flatnonzero((shares > 0.04) & (shares < 0.96)) + middle - half


def _mixed(thumbs: np.ndarray, cuts: list[int]) -> list[int]:
    """Frames on either side of a cut that are a mean of the pictures next to them, as changed frame rates leave."""
    found = []
    for frame in sorted({frame for cut in cuts for frame in (cut - 1, cut)}):
        if 0 < frame < len(thumbs) - 1:
            first, middle, last = thumbs[frame - 1 : frame + 2].astype(np.float32)
            way = last - first
            share = float((middle - first) @ way) / max(float(way @ way), 1e-6)
            error = float(np.abs(middle - first - way * share).mean()) / max(float(np.abs(way).mean()), 1e-6)
            if 0.1 < share < 0.9 and error < _MIXED_ERROR:
                found.append(frame)
    return found


def runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """First frame, and first frame behind, of each stretch of true flags (N,)."""
    edges = np.flatnonzero(np.diff(np.r_[0, flags.astype(np.int8), 0]))
    yield from ((int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def _mark_text(timeline: Timeline, starts: np.ndarray, fates: np.ndarray) -> None:
    """Mark titles and rolling credits, with the frames round them in which text comes in or goes."""
    text = np.zeros(len(fates), bool)
    bounds = np.r_[0, starts, len(text)]
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        found, read = (np.r_[0, np.cumsum(flags[begin:end])] for flags in (timeline.text, timeline.read))
        for frame in np.flatnonzero(timeline.text[begin:end]):
            first, stop = max(0, frame - _TEXT_GAP), min(end - begin, frame + _TEXT_GAP + 1)
            if found[stop] - found[first] >= _TEXT_SHARE * (read[stop] - read[first]):
                text[begin + first : begin + stop] = True
    for start, stop in runs(text & timeline.even):
        rolled = timeline.roll[start:stop]
        rolled = rolled[~np.isnan(rolled)]
        moves = len(rolled) > 0 and max((rolled >= 2).mean(), (rolled <= -2).mean()) >= 0.5
        fates[start:stop] = FATES.index("credits" if moves else "title")
