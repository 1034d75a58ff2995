"""How an animation is shown: panels beside each other, and the files that they go into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.errors import ParamsError, Problem
from pipelines import strips
from pipelines.sinks import Write
from pipelines.transfer import Part
from preprocessing.video import write_gif, write_video

SHOWN_PX = 256
"""Smallest side of a panel: what a small model makes is enlarged to it, or nobody sees anything."""
PANEL_GAP_PX = 6
STRIP_FRAMES = 6
WEBP_FRAMES = 240
"""A page shows no more: a WebP's pictures are all in memory while it is written."""
WEBP_QUALITY = 80
GIF_BYTES = 1 << 30
"""Of a GIF's raw frames: its 256 colours are chosen from all of them, and ffmpeg holds them until it has."""


class Shower:
    """Draws frames as they are shown: the result alone, or source, driving frame and result beside each other on white.

    Args:
        source: uint8, (S, S, 3).
        is_wide: all three.
    """

    def __init__(self, source: np.ndarray, *, is_wide: bool) -> None:
        self.is_wide = is_wide
        self._side = max(SHOWN_PX, len(source)) if is_wide else len(source)
        self._gap = np.full((self._side, PANEL_GAP_PX, 3), 255, dtype=np.uint8)
        self._source = self._panel(source)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is shown."""
        return self._side, 3 * self._side + 2 * PANEL_GAP_PX if self.is_wide else self._side

    def show(self, part: Part) -> np.ndarray:
        """uint8, (n, H, W, 3)."""
        if not self.is_wide:
            return part.result
        assert part.driving is not None, "driving frames are asked for where they are shown"
        shown = zip(map(self._panel, part.driving), map(self._panel, part.result), strict=True)
        return np.stack([np.hstack([self._source, self._gap, driving, self._gap, made]) for driving, made in shown])

    def _panel(self, frame: np.ndarray) -> np.ndarray:
        return frame if len(frame) == self._side else np.asarray(strips.enlarge(frame, self._side))


class Keeper:
    """Keeps what a page shows of an animation: some frames for a strip, and the first ones of what is shown.

    Args:
        source: uint8, (S, S, 3).
        num_frames: of the animation.
    """

    def __init__(self, source: np.ndarray, num_frames: int) -> None:
        self._source = source
        self._places = strips.spread(num_frames, STRIP_FRAMES)
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._shown: list[Image.Image] = []

    def keep(self, part: Part, shown: np.ndarray) -> None:
        """Take a part, which must hold its driving frames, and what is shown of it."""
        assert part.driving is not None, "a strip shows driving frames"
        inside = [place - part.start for place in self._places if 0 <= place - part.start < len(part.result)]
        self._kept += [(part.driving[place], part.result[place]) for place in inside]
        self._shown += [Image.fromarray(frame) for frame in shown[: max(0, WEBP_FRAMES - len(self._shown))]]

    def write_strip(self, path: Path) -> None:
        """Source, driving frames and results over time, as a PNG."""
        driving, results = (np.stack(frames) for frames in zip(*self._kept, strict=True))
        rows = {"source": np.stack([self._source] * len(results)), "driving": driving, "result": results}
        strips.write_strip(path, rows, [f"frame {place}" for place in self._places])

    def write_webp(self, path: Path, *, fps: float) -> None:
        """For pages: true colours at a tenth of the GIF's size; at most `WEBP_FRAMES`."""
        options: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0, "quality": WEBP_QUALITY}
        self._shown[0].save(path, format="WEBP", save_all=True, append_images=self._shown[1:], **options)


def writer_of(out: Path, *, fps: float, audio_from: Path | None) -> Write:
    """What writes a ``.gif`` or ``.mp4``; an mp4 takes the sound of ``audio_from``."""

    def write(path: Path, frames: Iterator[np.ndarray]) -> None:
        if out.suffix.lower() == ".gif":
            write_gif(path, frames, fps=fps)
        else:
            write_video(path, frames, fps=fps, audio_from=audio_from)

    return write


def check_gifs(outs: Sequence[Path], *, num_frames: int, shape: tuple[int, int]) -> None:
    """Refuse GIFs of so many frames that they would fill the memory.

    Raises:
        ParamsError: one of ``outs`` is a GIF, and the frames of ``shape`` (height, width) take more than `GIF_BYTES`.
    """
    most = GIF_BYTES // (shape[0] * shape[1] * 4)
    rule = (
        f"be an mp4 or take max_frames: a GIF of {shape[1]}x{shape[0]} holds at most {most} of the {num_frames} frames"
    )
    too_long = [out for out in outs if out.suffix.lower() == ".gif" and num_frames > most]
    if too_long:
        raise ParamsError([Problem("out", str(out), rule) for out in too_long])
