"""Boxes of single frames become tubes: runs of frames in which one subject stays about where it was.

Frames are looked at every few frames only. Where a subject appears or is lost in between, the frames of that gap, which
wait in memory, are looked at one by one, so that a tube begins and ends on the right frame. A frame that nobody looks
at is not even scaled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from preprocessing.boxes import Box, between, iou, union
from preprocessing.camera import BreakReason, CameraWatch
from preprocessing.config import DatasetConfig
from preprocessing.detect import Detector, detector_for
from preprocessing.splits import Span

MAX_HOLE_FRAMES = 3
"""A subject that is missed for so many frames, and found again, was there all the time."""
WINDOW_BYTES = 320 << 20
"""Of the frames that wait; where they would take more they are scaled down to `_SHRUNK_PX`. 4K fits, 8K does not."""
_SHRUNK_PX = 720
_OVERSHOOT = 0.1
"""Of a box: so much a subject strays between two looks, 8 frames apart, from the way between its boxes."""


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
        """The union over the frames that were looked at."""
        return union(box for _, box in self.seen)

    def held(self, detect_every: int) -> Box:
        """The union with room for what happened between the looks; as the first where every frame was looked at."""
        largest = max(max(box.width, box.height) for _, box in self.seen)
        return self.box().grown(_OVERSHOOT * min((detect_every - 1) / 7, 1) * largest)

    def box_at(self, frame: int) -> Box:
        """The box at any of its frames, by linear interpolation."""
        for (early, before), (late, after) in zip(self.seen, self.seen[1:], strict=False):
            if early <= frame <= late:
                return between(before, after, (frame - early) / (late - early))
        return self.seen[0][1] if frame < self.start_frame else self.seen[-1][1]


@dataclass(frozen=True, slots=True)
class Break:
    """Frames that belong to no tube, because the camera moved or the picture jumped."""

    start_frame: int
    end_frame: int
    """First frame after the last."""
    reason: BreakReason


class Fates:
    """Why frames of a video are in no clip."""

    def __init__(self) -> None:
        self._marks: list[tuple[Span, str]] = []

    def mark(self, span: Span, reason: str) -> None:
        """A later reason for the same frame counts."""
        self._marks.append((span, reason))

    def counts(self, num_frames: int, kept: list[Span]) -> dict[str, int]:
        """Frames outside the ``kept`` spans by reason; their sum and the kept ones are all frames of the video."""
        names = ["kept", "no-subject", *sorted({reason for _, reason in self._marks})]
        fates = np.full(num_frames, 1, np.uint8)
        for (start, end), reason in [*self._marks, *((span, "kept") for span in kept)]:
            fates[start:end] = names.index(reason)
        numbers = np.bincount(fates, minlength=len(names)).tolist()
        return {name: number for name, number in zip(names[1:], numbers[1:], strict=True) if number}


def few_at_once(spans: Sequence[Span], most: int) -> list[list[int]]:
    """Positions of spans in groups, such that no frame lies in more than ``most`` spans of a group."""
    groups: list[list[int]] = []
    for place in sorted(range(len(spans)), key=lambda place: spans[place]):
        start = spans[place][0]
        free = (group for group in groups if sum(spans[other][1] > start for other in group) < most)
        group = next(free, None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return groups


class Tracker:
    """Builds tubes from a video's frames, given in order.

    A box belongs to the tube whose last box it overlaps most. A tube ends when its box overlaps its first box by less
    than ``iou_cut``, at ``max_frames``, where the subject leaves, and where the camera moves.

    Args:
        detector: finds the boxes.
        iou_cut: intersection over union with the first box, 0 to 1.
        max_frames: longest tube.
        detect_every: looks at every k-th frame.
        watch: says where the camera moves; None: it is not asked.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        iou_cut: float,
        max_frames: int,
        detect_every: int,
        watch: CameraWatch | None = None,
    ) -> None:
        self._detector, self._watch = detector, watch
        self._iou_cut, self._max_frames, self._every = iou_cut, max_frames, detect_every
        self._next = 0
        self._looked = -1
        # a subject may have been missed for MAX_HOLE_FRAMES before the last look already
        self._window: deque[tuple[int, np.ndarray, float]] = deque(maxlen=detect_every + MAX_HOLE_FRAMES + 1)
        self._found: dict[int, list[Box]] = {}
        self._open: list[Tube] = []
        self._closed: list[Tube] = []
        self.breaks: list[Break] = []
        """Where the camera moved, in order."""

    @property
    def wants_next(self) -> bool:
        """Whether the next frame may be looked at; another may be given as None."""
        return self._detector.is_exact or self._next % self._every == 0

    def add(self, frame: np.ndarray | None) -> None:
        """The next frame, uint8 RGB (H, W, 3), as the detector takes it; it must not be changed afterwards."""
        index = self._next
        self._next += 1
        if frame is None:
            return
        if frame.nbytes * (self._window.maxlen or 1) > WINDOW_BYTES:
            self._window.append((index, *_shrunk(frame)))
        else:
            self._window.append((index, frame, 1.0))
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
        reason = self._watch.look(self._frame(index)[0], self._small_boxes(index)) if self._watch else None
        if reason is not None:
            for tube in list(self._open):
                self._drop(tube)
            self.breaks.append(Break(previous + 1, index, reason))
            previous = index - 1  # what came before this frame is another picture
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

    def _frame(self, index: int) -> tuple[np.ndarray, float]:
        """A frame that waits, and the factor from its pixels to the video's."""
        return next((frame, factor) for number, frame, factor in self._window if number == index)

    def _boxes(self, index: int) -> list[Box]:
        if index not in self._found:
            frame, factor = self._frame(index)
            self._found[index] = [box.scaled(factor) for box in self._detector.boxes(frame)]
        return self._found[index]

    def _small_boxes(self, index: int) -> list[Box]:
        """The boxes in the pixels of the frame that waits."""
        return [box.scaled(1 / self._frame(index)[1]) for box in self._boxes(index)]

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


def tracker_for(config: DatasetConfig, *, detector: Detector | None = None) -> Tracker:
    """A tracker with a data set's settings; bodies are watched for camera motion where their pose is looked for.

    Raises:
        EnvironmentProblem: pretrained files are missing.
    """
    watch = None
    if config.kind == "bodies" and config.body_detector == "pose":
        watch = CameraWatch(max_flow_px=config.max_camera_flow_px, max_jump=config.max_intensity_jump)
    return Tracker(
        detector or detector_for(config),
        iou_cut=config.iou_cut,
        max_frames=config.max_frames,
        detect_every=config.detect_every,
        watch=watch,
    )


def follow(
    frames: Iterable[np.ndarray],
    config: DatasetConfig,
    *,
    detector: Detector | None = None,
    tracker: Tracker | None = None,
) -> list[Tube]:
    """The tubes of one video, in the frames' pixels and in order of their first frames.

    Args:
        frames: uint8 RGB, in order: frames (H, W, 3) or batches of them (n, H, W, 3).
        config: kind, iou_cut, max_frames, detect_every (1: every frame is looked at) and the rules for bodies.
        detector: finds the subjects; None: the one that ``config`` names.
        tracker: a new one, whose `Tracker.breaks` the caller wants to see; None: one with the settings of ``config``.

    Raises:
        EnvironmentProblem: pretrained files are missing.
    """
    tracker = tracker or tracker_for(config, detector=detector)
    for batch in frames:
        for frame in batch if batch.ndim == 4 else batch[None]:
            tracker.add(frame if tracker.wants_next else None)
    return tracker.finish()


def _shrunk(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """A frame scaled to `_SHRUNK_PX`, and the factor from its pixels to the frame's."""
    factor = frame.shape[0] / _SHRUNK_PX
    size = (max(1, round(frame.shape[1] / factor)), _SHRUNK_PX)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)), factor
