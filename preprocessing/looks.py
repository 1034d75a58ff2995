"""What a frame of a film shows, in a few numbers: light, contrast, sharpness, text; and the black bars of the film."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from preprocessing.boxes import Box, central_square

SMALL_PX = 320
"""A frame is thinned to this size before it is measured (its longer side)."""
TEXT_PX = 960
"""Text is looked for at this size."""
BLACK_MEAN, FLAT_CONTRAST = 16.0, 6.0
"""Flat: a smaller standard deviation of the gray values (0-255) than the second; black: flat or nearly, and darker."""
_BLACK_CONTRAST = 9.0
_EVEN_STEP, _EVEN_SHARE = 12, 0.72
_INK_STEP = 36
_MAX_INK_SHARE = 0.3
_TEXT_SHARE = 0.75
_MAX_LETTER = 0.25
_MIN_LETTERS = 4

_LINE_PX = 128
_LIT_LEVEL, _LIT_STEP, _CLEAR_LEVEL = 26, 14, 44
_LIT_SHARE, _EDGE_JUMP, _MIN_PICTURE = 0.6, 0.35, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One frame's numbers."""

    mean: float
    """Gray value, 0-255, inside the bars."""
    contrast: float
    """Standard deviation of the gray values."""
    is_even: bool
    """Most of it is smooth ground: it may be a title."""
    sharpness: float = 0.0
    """Variance of the Laplacian; only frames of one scene compare."""
    is_read: bool = False
    """Text was looked for."""
    ink: np.ndarray | None = None
    """Of text on smooth ground: share of letters in each row, float32 (rows,)."""

    @property
    def is_black(self) -> bool:
        """Nothing to see, and dark."""
        return self.mean < BLACK_MEAN and self.contrast < _BLACK_CONTRAST

    @property
    def is_flat(self) -> bool:
        """Nothing to see."""
        return self.contrast < FLAT_CONTRAST


def thinned(frame: np.ndarray) -> np.ndarray:
    """A frame, uint8 RGB (H, W, 3), with pixels left out until its longer side has `SMALL_PX` or fewer."""
    height, width = frame.shape[:2]
    scale = SMALL_PX / max(height, width)
    if scale >= 1:
        return frame
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST))


def within(picture: Box, frame: np.ndarray, small: np.ndarray) -> np.ndarray:
    """The part of a smaller copy of a frame that lies inside a box of the frame."""
    down, across = small.shape[0] / frame.shape[0], small.shape[1] / frame.shape[1]
    top, left = math.ceil(picture.top * down), math.ceil(picture.left * across)
    bottom, right = int(picture.bottom * down), int(picture.right * across)
    return small[top : max(bottom, top + 1), left : max(right, left + 1)]


def look_at(frame: np.ndarray, small: np.ndarray, picture: Box, *, read: bool = True) -> Look:
    """Measure a frame.

    Args:
        frame: uint8 RGB (H, W, 3).
        small: the same, `thinned`.
        picture: what of it is not a bar, in pixels of the frame.
        read: look for text, which costs more than the rest.
    """
    gray = np.ascontiguousarray(within(picture, frame, small)[..., 1])  # green carries most of the brightness
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(gray))
    look = Look(mean=mean, contrast=deviation, is_even=_even_share(gray) >= _EVEN_SHARE)
    if look.is_black or look.is_flat:
        return look
    sharpness = float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0]) ** 2
    if not (read and look.is_even):
        return replace(look, sharpness=sharpness)
    ink = text_rows(within(picture, frame, frame))
    return replace(look, sharpness=sharpness, ink=ink, is_read=True)


def _even_share(gray: np.ndarray) -> float:
    """Share of the pixels that hardly differ from the next ones to the right and below."""
    across = cv2.absdiff(gray[:-1, 1:], gray[:-1, :-1])
    down = cv2.absdiff(gray[1:, :-1], gray[:-1, :-1])
    return float(np.count_nonzero(cv2.max(across, down) < _EVEN_STEP)) / across.size


def text_rows(picture: np.ndarray) -> np.ndarray | None:
    """Where the letters are, when a picture shows lines of text on plain or smooth ground and little else.

    Letters stand out from the ground round them; those of a line are alike in height, stand on one base line and close
    together. Lines may run across or, as in Chinese and Japanese titles, down.

    Args:
        picture: uint8 RGB (H, W, 3).

    Returns:
        Share of letters in each row, float32 (rows,), with `TEXT_PX` or less on the longer side; None: no title.
    """
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    scale = TEXT_PX / max(gray.shape)
    if scale < 1:
        size = (max(2, round(gray.shape[1] * scale)), max(2, round(gray.shape[0] * scale)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    ink = _ink(gray)
    share = float(ink.mean())
    if not 0 < share <= _MAX_INK_SHARE:
        return None
    if all(_share_in_lines(way)[0] < _TEXT_SHARE for way in (ink, np.ascontiguousarray(ink.T))):
        return None
    rows: np.ndarray = ink.mean(axis=1, dtype=np.float32)
    return rows


def _ink(gray: np.ndarray) -> np.ndarray:
    """0 or 1: what stands out from the ground, which is smooth: the median over a fifth of the picture's height."""
    quarter = cv2.resize(gray, (max(2, gray.shape[1] // 4), max(2, gray.shape[0] // 4)), interpolation=cv2.INTER_AREA)
    size = max(3, quarter.shape[0] // 5) | 1
    ground = cv2.resize(cv2.medianBlur(quarter, size), gray.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray((cv2.absdiff(gray, ground) > _INK_STEP).astype(np.uint8))


def _share_in_lines(ink: np.ndarray) -> tuple[float, int]:
    """Share of the ink that belongs to lines of text across the picture, and the number of those lines."""
    height, width = ink.shape
    # a black and a white row of letters apart stay apart, letters of a row become one blob
    joined = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((1, max(3, width // 12) | 1), np.uint8))
    _, places, blobs, _ = cv2.connectedComponentsWithStats(joined, connectivity=8, ltype=cv2.CV_16U)
    wide, high = blobs[:, cv2.CC_STAT_WIDTH], blobs[:, cv2.CC_STAT_HEIGHT]
    long = (wide >= 2 * high) & (high >= 3) & (high <= _MAX_LETTER * min(height, width))
    long[0] = False
    amounts = np.bincount(places[ink > 0], minlength=len(blobs))
    total = int(np.count_nonzero(ink))
    if amounts[long].sum() < _TEXT_SHARE * total:
        return 0.0, 0
    _, _, letters, _ = cv2.connectedComponentsWithStats(ink, connectivity=8, ltype=cv2.CV_16U)
    middles = letters[:, [0, 1]] + letters[:, [2, 3]] // 2
    lines = [
        int(line) for line in np.flatnonzero(long) if _is_line(_inside(letters, middles, blobs[line]), blobs[line])
    ]
    return float(amounts[lines].sum()) / total, len(lines)


def _inside(letters: np.ndarray, middles: np.ndarray, blob: np.ndarray) -> np.ndarray:
    """The letters, rows of OpenCV's component statistics, whose middles lie in a blob."""
    left, top, wide, high, _ = blob
    own = (middles[1:, 0] >= left) & (middles[1:, 0] < left + wide)
    own &= (middles[1:, 1] >= top) & (middles[1:, 1] < top + high)
    return np.asarray(letters[1:][own])


def _is_line(letters: np.ndarray, blob: np.ndarray) -> bool:
    """Whether these parts are letters of one line: enough, close together, alike in height, on one base line."""
    high = int(blob[cv2.CC_STAT_HEIGHT])
    letters = letters[letters[:, cv2.CC_STAT_HEIGHT] * 4 >= high]  # no dots and commas
    if len(letters) < _MIN_LETTERS:
        return False
    tall, left = letters[:, cv2.CC_STAT_HEIGHT], letters[:, cv2.CC_STAT_LEFT]
    gaps = np.sort(left)[1:] - np.sort(left + letters[:, cv2.CC_STAT_WIDTH])[:-1]
    feet = letters[:, cv2.CC_STAT_TOP] + tall
    on_line = float((np.abs(feet - np.median(feet)) <= max(1.0, 0.15 * high)).mean())
    alike = float((np.abs(tall - np.median(tall)) <= max(1.0, 0.4 * float(np.median(tall)))).mean())
    beside = float((np.abs(gaps) <= 0.6 * high).mean())
    return min(on_line, alike, beside) >= 0.6 and float(np.median(tall)) >= 0.45 * high


class Bars:
    """Black bars round the picture, learnt from frames all over a film.

    A row or column counts as lit in a frame where it is not both dark and of one value. Bars end where the share of
    frames that light a row jumps: a dark scene dims its edges in some frames only, or little by little, and so cuts
    nothing away. A subtitle in a bar, or a bar that some scenes lack, does not hide it. Bars come in pairs.
    """

    def __init__(self, width: int, height: int, *, cut: bool = True) -> None:
        self._size = (width, height)
        self._cut = cut
        self._rows, self._columns = np.zeros((2, height), np.int64), np.zeros((2, width), np.int64)
        self._picture: Box | None = Box(0.0, 0.0, float(width), float(height))

    def add(self, frame: np.ndarray) -> None:
        """Learn from a frame, uint8 RGB (H, W, 3), that is neither black nor a title."""
        if self._cut:
            width, height = self._size
            thin = cv2.resize(frame, (min(width, _LINE_PX), height), interpolation=cv2.INTER_NEAREST)
            flat = cv2.resize(frame, (width, min(height, _LINE_PX)), interpolation=cv2.INTER_NEAREST)
            self._rows += _lit(thin)
            self._columns += _lit(cv2.transpose(flat))
            self._picture = None

    @property
    def picture(self) -> Box:
        """What lies inside the bars, as known so far; the whole frame where there are none."""
        if self._picture is None:
            left, right = _edges(self._columns)
            top, bottom = _edges(self._rows)
            self._picture = Box(float(left), float(top), float(right), float(bottom))
        return self._picture

    @property
    def square(self) -> Box:
        """The largest square in the middle of the picture."""
        left, top, right, bottom = self.picture
        inner = central_square((int(right - left), int(bottom - top)))
        return Box(inner.left + left, inner.top + top, inner.right + left, inner.bottom + top)


def _lit(lines: np.ndarray) -> np.ndarray:
    """Whether each row of (n, m, 3) is something else than black, and clearly so, but for 3 % of its pixels; (2, n)."""
    gray = np.sort(cv2.cvtColor(lines, cv2.COLOR_RGB2GRAY), axis=1)
    few = round(0.03 * gray.shape[1])
    low, high = gray[:, few].astype(np.int64), gray[:, gray.shape[1] - 1 - few].astype(np.int64)
    return np.stack([(high > _LIT_LEVEL) | (high - low > _LIT_STEP), high > _CLEAR_LEVEL])


def _edges(counts: np.ndarray) -> tuple[int, int]:
    """First row of the picture, and first row behind it; counts (2, n) of frames in which a row is lit, clearly lit."""
    length, most = counts.shape[1], int(counts[0].max())
    if most == 0:
        return 0, length
    shares = counts / most
    first, last = _first_lit(shares), _first_lit(shares[:, ::-1])
    paired = abs(first - last) <= max(4, 0.35 * max(first, last))
    if not paired or min(first, last) < 2 or length - first - last < _MIN_PICTURE * length:
        return 0, length
    soft = 1 if length < 360 else 2  # a bar's edge is blurred by compression
    return first + soft, length - last - soft


def _first_lit(shares: np.ndarray) -> int:
    lit, clear = shares
    first, reach = int(np.argmax(lit >= _LIT_SHARE)), max(3, len(lit) // 100)
    jump = clear[first : first + reach].max() - lit[max(0, first - reach)]
    return first if first and jump >= _EDGE_JUMP else 0
