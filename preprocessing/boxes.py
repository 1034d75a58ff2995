"""Boxes in a frame: overlap, union, and the square that a crop takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Outside = Literal["pad", "reject"]


class Box(NamedTuple):
    """Left, top, right, bottom in pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """In pixels; 0 when the sides are crossed."""
        return max(0.0, self.width) * max(0.0, self.height)

    def within(self, frame: tuple[int, int]) -> Box:
        """The part inside a frame of (width, height)."""
        return Box(
            min(max(self.left, 0.0), frame[0]),
            min(max(self.top, 0.0), frame[1]),
            max(min(self.right, frame[0]), 0.0),
            max(min(self.bottom, frame[1]), 0.0),
        )

    def scaled(self, factor: float) -> Box:
        """The same box in a picture ``factor`` times as large."""
        return Box(*(side * factor for side in self))

    def grown(self, more: float) -> Box:
        """The box with its sides moved outwards by so many pixels."""
        return Box(self.left - more, self.top - more, self.right + more, self.bottom + more)


def iou(one: Box, other: Box) -> float:
    """Intersection over union, 0 to 1."""
    common = Box(
        max(one.left, other.left), max(one.top, other.top), min(one.right, other.right), min(one.bottom, other.bottom)
    )
    shared = common.area if common.width > 0 and common.height > 0 else 0.0
    whole = one.area + other.area - shared
    return shared / whole if whole > 0 else 0.0


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all boxes, of which there must be one."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def between(earlier: Box, later: Box, share: float) -> Box:
    """Linear interpolation: ``earlier`` at 0, ``later`` at 1."""
    return Box(*(a + (b - a) * share for a, b in zip(earlier, later, strict=True)))


def square(box: Box, *, increase: float, frame: tuple[int, int], outside: Outside) -> Box | None:
    """The square that a clip is cut to: the box grown, made square by growing, shifted inside the frame.

    Growth is given up as far as it would take the square out of the frame.

    Args:
        box: what must be seen; what of it lies outside the frame does not count.
        increase: growth on each side, as a share of the box's width and height.
        frame: width and height of the frame in pixels.
        outside: what becomes of a square larger than the frame: ``pad`` leaves it outside on both sides, ``reject``
            gives None.

    Returns:
        A square with whole-numbered sides, or None.
    """
    box = box.within(frame)
    needed = max(box.width, box.height)
    side = max(2, round(max(min(needed * (1 + 2 * increase), min(frame)), needed)))
    if outside == "reject" and side > min(frame):
        return None
    left = _placed((box.left + box.right) / 2, side, frame[0])
    top = _placed((box.top + box.bottom) / 2, side, frame[1])
    return Box(left, top, left + side, top + side)


def _placed(centre: float, side: int, length: int) -> float:
    """Where a span of ``side`` begins: around ``centre``, shifted inside 0..length, or around it when too long."""
    if side > length:
        return float(-((side - length) // 2))
    return float(min(max(round(centre - side / 2), 0), length - side))


def central_square(frame: tuple[int, int]) -> Box:
    """The largest square in the middle of a frame of (width, height)."""
    side = min(frame)
    left, top = (frame[0] - side) // 2, (frame[1] - side) // 2
    return Box(float(left), float(top), float(left + side), float(top + side))


def surrounding_square(frame: tuple[int, int]) -> Box:
    """The smallest square around a whole frame of (width, height); it lies outside where the frame is short."""
    side = max(frame)
    left, top = -((side - frame[0]) // 2), -((side - frame[1]) // 2)
    return Box(float(left), float(top), float(left + side), float(top + side))
