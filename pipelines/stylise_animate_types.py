"""What `pipelines.stylise_animate` is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from models.errors import check
from pipelines.animate import SUFFIXES, AnimateOptions
from pipelines.engines import Engine
from pipelines.palette_gif import Emoji
from pipelines.photo_faces import FaceChoice, PhotoFace
from pipelines.stylist import OUTPUTS, Output
from pipelines.transfer import Mode
from preprocessing.boxes import Box

Stage = Literal["faces", "style", "keypoints", "frames"]
Mover = tuple[str, Engine]
"""Where a motion model came from, and the model, as `pipelines.animate.open_engine` gives them."""


class Stopped(Exception):
    """The caller asked to stop; nothing is left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A photo whose faces are known."""

    path: Path
    picture: np.ndarray
    """uint8 RGB (H, W, 3), upright."""
    faces: tuple[PhotoFace, ...]
    """From left to right, in the picture's pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyliseAnimateOptions:
    """Which face is taken, how it is stylised, moved and shown."""

    face: FaceChoice | None = None
    """``largest``, ``all``, or a number counted from the left, from 1 on; None: the photo must show one face."""
    box: Box | None = None
    """In place of ``face``: the head from hair line to chin, in the upright photo's pixels."""
    structure: float = 1.0
    """How much of the style's structure is taken, 0 to 1."""
    colour: float = 1.0
    """How much of the style's colours, 0 to 1; of models that draw their one style, the drawing's strength."""
    shown: Output = "style"
    """Which of the stylist's pictures is moved."""
    paste_back: bool = False
    """Show the whole photo, with its faces moved; else the crop alone."""
    max_px: int = 1280
    """Longer side of the photo that faces are pasted into; larger ones are scaled down."""
    motion: AnimateOptions = field(default_factory=AnimateOptions)
    """Of it count mode, adapt_scale, find_best_frame, smoothing, max_frames and keep_audio."""
    emoji: Emoji | None = None
    """Make the GIF a small one; None: the model's size, all frames and 256 colours."""
    also: tuple[str, ...] = ()
    """Further suffixes: beside the output, files of its name hold the same frames."""
    pictures: Path | None = None
    """Folder for the crop and all pictures that the stylist made of it; None: they are not kept."""

    def __post_init__(self) -> None:
        check(
            (0 <= self.structure <= 1, "structure", self.structure, "lie in 0 to 1"),
            (0 <= self.colour <= 1, "colour", self.colour, "lie in 0 to 1"),
            (self.shown in OUTPUTS, "shown", self.shown, f"be one of {', '.join(OUTPUTS)}"),
            (64 <= self.max_px <= 4096, "max_px", self.max_px, "lie in 64 to 4096"),
            (set(self.also) <= set(SUFFIXES), "also", self.also, f"hold {' or '.join(SUFFIXES)}"),
            (self.box is None or self.face is None, "face", self.face, "be left out where a box is given"),
            (not (self.emoji and self.paste_back), "paste_back", True, "be false of an emoji, which is the face alone"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Lets a caller follow a run, and end it between frames."""

    tell: Callable[[Stage, int, int], None] = lambda _stage, _done, _total: None
    """Called with the stage, how much of it is done, and how much there is."""
    stop: Callable[[], bool] = lambda: False

    def step(self, stage: Stage, done: int, total: int) -> None:
        """Tell, unless the caller wants to stop.

        Raises:
            Stopped: it does.
        """
        if self.stop():
            raise Stopped
        self.tell(stage, done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Time that the stages took."""

    faces: float = 0.0
    """Finding the faces of photo and driving video."""
    style: float = 0.0
    keypoints: float = 0.0
    """Of all driving frames."""
    frames: float = 0.0
    """Rendering, pasting and writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReport:
    """A face that was taken."""

    number: int
    """From the left, beginning with 1."""
    head: Box
    """In the photo's pixels."""
    side_px: int
    """Of its square in the photo."""
    is_aligned: bool
    reference_frame: int
    """Position of the driving frame that counts as its pose; 0 unless motion is relative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyliseAnimateReport:
    """What was made of what."""

    photo: str
    driving: str
    style: str
    stylist: str
    """Where the style came from: a model version or a checkpoint."""
    mover: str
    """Likewise the motion."""
    outputs: tuple[str, ...]
    num_bytes: tuple[int, ...]
    """Of the outputs."""
    pictures: tuple[str, ...]
    faces: tuple[FaceReport, ...]
    num_found: int
    """Faces in the photo; 0 where a box was given."""
    structure: float
    colour: float
    shown: Output
    pasted: bool
    motion: Mode
    num_frames: int
    """Of the driving video."""
    fps: float
    width: int
    height: int
    has_audio: bool
    seconds: Seconds
    note: str
    """What the reader should know; else empty."""
