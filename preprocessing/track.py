"""Boxes of single frames become tubes: runs of frames in which one subject stays about where it was.

Frames are looked at every few frames only. Where a subject appears or is lost in between, the frames of that gap, which
are kept small in memory, are looked at one by one, so that a tube begins and ends on the right frame.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from preprocessing.boxes import Box, between, iou, union
from preprocessing.detect import Detector

MAX_HOLE_FRAMES = 3
"""A subject that is missed for so many frames, and found again, was there all the time."""


@dataclass(slots=True, eq=False)
class Tube:
    """One subject over consecutive frames; boxes at the frames that were looked at."""

    seen: list[tuple[int, Box]] = field(default_factory=list)
    """(frame, box) in order."""

    @property
    def start_frame(self) -> int:
        """First frame."""
        return self.seen[0][0]

    @property
    def end_frame(self) -> int:
        """First frame after the last."""
        return self.seen[-1][0] + 1

    @property
    def num_frames(self) -> int:
        """Length."""
        return self.end_frame - self.start_frame

    def box(self) -> Box:
        """The union over all frames; between two looks boxes move straight, so the seen ones suffice."""
        return union(box for _, box in self.seen)

    def box_at(self, frame: int) -> Box:
        """The box at any of its frames, by linear interpolation."""
        for (early, before), (late, after) in zip(self.seen, self.seen[1:], strict=False):
            if early <= frame <= late:
                return between(before, after, (frame - early) / (late - early))
        return self.seen[0][1] if frame < self.start_frame else self.seen[-1][1]


class Tracker:
    """Builds tubes from a video's small frames, given in order.

    A box belongs to the tube whose last box it overlaps most. A tube ends when its box overlaps its first box by less
    than ``iou_cut``, at ``max_frames``, and where the subject leaves.

    Args:
        detector: finds the boxes.
        iou_cut: intersection over union with the first box, 0 to 1.
        max_frames: longest tube.
        detect_every: looks at every k-th frame.
    """

    def __init__(self, detector: Detector, *, iou_cut: float, max_frames: int, detect_every: int) -> None:
        self._detector = detector
        self._iou_cut, self._max_frames, self._every = iou_cut, max_frames, detect_every
        self._next = 0
        self._looked = -1
        self._window: deque[tuple[int, np.ndarray]] = deque(maxlen=2 * detect_every + MAX_HOLE_FRAMES + 1)
        self._found: dict[int, list[Box]] = {}
        self._open: list[Tube] = []
        self._closed: list[Tube] = []

    @property
    def wants_next(self) -> bool:
        """Whether the next frame may be looked at; another may be given as None."""
        return self._detector.is_exact or self._next % self._every == 0

    def add(self, frame: np.ndarray | None) -> None:
        """The next frame, uint8 gray (h, w)."""
        index = self._next
        self._next += 1
        if frame is None:
            return
        self._window.append((index, frame))
        if index % self._every == 0:
            self._look(index)

    def finish(self) -> list[Tube]:
        """All tubes, in order of their first frames; call it once, after the last frame."""
        last = self._next - 1
        if last > self._looked and self._window and self._window[-1][0] == last:
            self._look(last)
        self._closed += self._open
        self._open = []
        return sorted(self._closed, key=lambda tube: (tube.start_frame, tube.seen[0][1]))

    def _look(self, index: int) -> None:
        previous, self._looked = self._looked, index
        free = list(self._boxes(index))
        for tube in list(self._open):
            match = self._match(tube, free)
            if match is not None and index - tube.seen[-1][0] <= self._every:
                free.remove(match)
                self._extend(tube, index, match)
            elif self._detector.is_exact:
                self._search(tube, index, free)
            else:
                self._drop(tube)
        for box in free:
            if not any(iou(box, tube.seen[-1][1]) > 0.3 for tube in self._open if tube.seen[-1][0] == index):
                self._begin(index, box, previous)
        for frame in [frame for frame in self._found if frame <= previous - self._every]:
            del self._found[frame]

    def _boxes(self, index: int) -> list[Box]:
        if index not in self._found:
            frame = next(frame for number, frame in self._window if number == index)
            self._found[index] = self._detector.boxes(frame)
        return self._found[index]

    def _match(self, tube: Tube, boxes: list[Box]) -> Box | None:
        last = tube.seen[-1][1]
        best = max(boxes, key=lambda box: iou(box, last), default=None)
        return best if best is not None and iou(best, last) > max(self._iou_cut, 0.05) else None

    def _extend(self, tube: Tube, index: int, box: Box) -> None:
        """Add a box, or end the tube before it and begin another one there."""
        first = tube.seen[0][1]
        strayed = iou(first, box) < self._iou_cut
        if not strayed and index - tube.start_frame < self._max_frames:
            tube.seen.append((index, box))
            return
        early, before = tube.seen[-1]
        limit = tube.start_frame + self._max_frames
        cut = index if strayed else limit
        if cut > early + 1:  # up to the cut the subject moves straight from its last box to this one
            tube.seen.append((cut - 1, between(before, box, (cut - 1 - early) / (index - early))))
        self._drop(tube)
        following = Tube(seen=[(cut, between(before, box, (cut - early) / (index - early)))])
        if cut < index:
            following.seen.append((index, box))
        self._open.append(following)

    def _search(self, tube: Tube, index: int, free: list[Box]) -> None:
        """Follow a lost subject frame by frame; end the tube once it is missing for longer than a hole."""
        for frame in range(tube.seen[-1][0] + 1, index + 1):
            match = self._match(tube, self._boxes(frame))
            if match is None:
                if frame - tube.seen[-1][0] > MAX_HOLE_FRAMES:
                    self._drop(tube)
                    return
                continue
            if frame == index and match in free:
                free.remove(match)
            self._extend(tube, frame, match)
            if tube not in self._open:
                tube = self._open[-1]

    def _begin(self, index: int, box: Box, previous: int) -> None:
        """A new subject; look backwards for the frame at which it came."""
        tube = Tube(seen=[(index, box)])
        taken = max((t.end_frame for t in self._closed if iou(t.seen[-1][1], box) > 0), default=0)
        earliest = max(previous + 1, taken)
        if not self._detector.is_exact:
            tube.seen = [(earliest, box)] + tube.seen if earliest < index else tube.seen
        for frame in range(index - 1, earliest - 1, -1) if self._detector.is_exact else ():
            match = self._match(Tube(seen=[tube.seen[0]]), self._boxes(frame))
            if match is None:
                break
            tube.seen.insert(0, (frame, match))
        self._open.append(tube)

    def _drop(self, tube: Tube) -> None:
        self._open.remove(tube)
        self._closed.append(tube)
