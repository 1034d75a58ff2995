"""From one picture to one square still."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from models.contracts import Clip
from models.errors import must
from preprocessing.boxes import Box, central_square
from preprocessing.clips import sha256_of
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames, limits_of, turned_away
from preprocessing.ledger import LedgerRow
from preprocessing.smooth import smooth_path, write_smooth
from preprocessing.splits import whose
from preprocessing.video import open_video
from preprocessing.video_pillow import num_pictures
from preprocessing.video_types import MediaError


def image_item(row: LedgerRow, source: Path, config: DatasetConfig, target: Path) -> ItemResult:
    """Cut the largest square out of a picture's middle; nothing but the files in ``target`` and the result is touched.

    Args:
        row: the item, as the download's ledger has it.
        source: its file. Of an animated GIF, PNG or WebP the first frame counts, and the ledger says so.
        config: of its data set. A picture whose square is smaller than ``min_side_px`` is rejected.
        target: folder for the still, which exists.

    Returns:
        A row of one frame, and the item's ledger row: kept, or rejected with the reason.

    Raises:
        EnvironmentProblem: the still can't be written (a full disk).
    """
    with turned_away(row, target) as failed:
        picture, num_frames = _read(source, config)
        box = central_square((picture.shape[1], picture.shape[0]))
        check_side(row.item, box.width, config)
        still = crop_frames(picture[None], box, size_px=config.size_px)[0]
        detail = f"the first of its {num_frames} frames" if num_frames > 1 else ""
        return written_still(still, row, config, target, box=box, detail=detail)
    return ItemResult(row=row.rejected(failed[0]))


def read_still(source: Path, config: DatasetConfig) -> np.ndarray:
    """A picture of any form as uint8 RGB (H, W, 3): upright by its EXIF tag, transparency on white.

    Raises:
        MediaError: it is unreadable, too large, or no still picture.
    """
    return _read(source, config)[0]


def _read(source: Path, config: DatasetConfig) -> tuple[np.ndarray, int]:
    """As `read_still`, and how many frames the file holds."""
    try:
        with open_video(source, limits=limits_of(config)) as reader:
            if reader.info.decoder != "pillow":
                got = f"a video of {reader.info.num_frames} frames"
                raise MediaError(must(source.name, "be a picture", got, "Use kind: film for its stills"), "unsupported")
            return np.asarray(next(reader.batches(1))[0]), max(reader.info.num_frames, num_pictures(source))
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:  # what Pillow's parsers let through
        if isinstance(error, OSError) and error.errno is not None:  # the machine's
            raise
        raise MediaError(must(source.name, "be decodable", str(error)[:200]), "undecodable") from None


def check_side(item: str, side: float, config: DatasetConfig) -> None:
    """Turn away what would have to be cut from a square smaller than ``min_side_px``.

    Args:
        item: its name.
        side: of the square, in the source's pixels.
        config: of its data set.

    Raises:
        MediaError: ``too-small``.
    """
    if side < config.min_side_px:
        rule = f"hold a square of {config.min_side_px} px"
        raise MediaError(must(item, rule, f"{side:.0f} px", "Lower min_side_px to keep it"), "too-small")


def written_still(
    still: np.ndarray, row: LedgerRow, config: DatasetConfig, target: Path, *, box: Box, detail: str = ""
) -> ItemResult:
    """Write an item's only still, and its edge-smoothed copy where the data set asks for one.

    Args:
        still: uint8 RGB (size_px, size_px, 3).
        row: the item's.
        config: of its data set.
        target: folder for the files; what is written there goes again when something fails.
        box: what was cut, in the source's pixels.
        detail: how it was cut, for the ledger.
    """
    name = f"{Path(row.item).stem}-000000"  # as the first frame of a clip is named
    path = target / f"{name}.png"
    try:
        Image.fromarray(still).save(path, format="PNG")
        smooth = write_smooth(still, path) if config.smooth else None
        clip = Clip(
            id=name,
            path=path.name,
            split=row.split or "train",
            identity=whose(row, config.identity_pattern),
            num_frames=1,
            fps=1.0,
            size_px=config.size_px,
            box=box[:],
            start_frame=0,
            sha256=sha256_of(path),
            origin=row.origin,
            origin_sha256=row.sha256,
            decoder="pillow",
            smooth=smooth,
        )
    except BaseException:
        path.unlink(missing_ok=True)
        smooth_path(path).unlink(missing_ok=True)
        raise
    kept = replace(row, state="kept", reason=None, detail=detail, decoder="pillow", num_clips=1)
    return ItemResult(row=kept, clips=(clip,), num_frames=1)
