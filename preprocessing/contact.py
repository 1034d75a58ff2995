"""A contact sheet: a row of frames for each clip, so that a person can look at what was cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.contracts import Clip
from preprocessing.video import read_clip, read_picture

_CELL_PX, _GAP_PX, _TEXT_PX = 96, 4, 14
_SHADE = {"train": (52, 101, 164), "test": (206, 92, 0), "unseen": (117, 80, 123)}


def contact_sheet(folder: Path, clips: Sequence[Clip], target: Path, *, columns: int = 8, max_rows: int = 32) -> None:
    """Draw a sheet of clips (a row of frames, evenly over each) or of stills (one cell each).

    Args:
        folder: of the manifest.
        clips: what is shown, as far as the rows reach.
        target: a PNG.
        columns: cells in a row.
        max_rows: of the sheet.
    """
    cells = list(_cells(folder, clips, columns, max_rows * columns))
    rows = max(1, -(-len(cells) // columns))
    step_x, step_y = _CELL_PX + _GAP_PX, _CELL_PX + _TEXT_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for place, (frame, label, split) in enumerate(cells):
        x, y = _GAP_PX + place % columns * step_x, _GAP_PX + place // columns * step_y
        pen.text((x, y), label, fill=_SHADE[split])
        sheet.paste(Image.fromarray(frame).resize((_CELL_PX, _CELL_PX)), (x, y + _TEXT_PX))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a second name of a file in DVC's cache
    sheet.save(target)


def _cells(folder: Path, clips: Sequence[Clip], columns: int, most: int) -> Iterator[tuple[np.ndarray, str, str]]:
    for clip in clips[:most]:
        if clip.num_frames == 1:
            yield read_picture(folder / clip.path), f"{clip.start_frame} {clip.split}", clip.split
    for clip in clips[: most // columns]:
        if clip.num_frames > 1:
            frames, _ = read_clip(folder / clip.path)
            for column, place in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
                label = f"{clip.id}"[-16:] if column == 0 else f"{clip.split} {place}"
                yield frames[place], label, clip.split
