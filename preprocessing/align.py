"""Still faces, aligned as FFHQ's are: upright, with eyes and mouth at the same places in every picture.

The square follows from the centres of the eyes and the corners of the mouth (Karras et al., Progressive Growing of
GANs, ICLR 2018, appendix C; StyleGAN's FFHQ uses the same). Drawn faces that no detector finds are cut from a box given
by hand, or from the middle.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from models.errors import must
from preprocessing.boxes import Box, central_square, iou, square
from preprocessing.config import DatasetConfig
from preprocessing.crop import ItemResult, crop_frames, turned_away
from preprocessing.detect import faces
from preprocessing.landmarks import LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE, confidence, landmarks68
from preprocessing.ledger import LedgerRow
from preprocessing.stills import check_side, read_still, written_still
from preprocessing.video_types import MediaError

BOX_COLUMNS = ("file", "left", "top", "right", "bottom")
MAX_BOXES_BYTES, MAX_PROBLEMS = 64 << 20, 1000
"""Of a CSV; so many of its bad rows are told one by one."""
BOX_INCREASE = 0.125
"""A box is grown by so much of its longer side on each side; on faces the aligned square is 1.25 heads high."""
SAME_FACE_IOU = 0.3
"""A face that is found counts as the one that a box names when they overlap by so much."""
MAX_FACES = 16
"""The largest so many of a picture are looked at."""
_DOUBTFUL, _SURE = 0.05, 0.5
"""Confidence below which a face counts for as little as can be, and above which its size alone counts."""
_OUTSIDE_SHARE = 0.01
"""Of the square's side; where it leaves the picture by less, that is not outside."""
_BLUR_SHARE, _BLURRED_BY, _PLAIN_BY = 0.02, 0.04, 0.3
"""Outside the picture, as shares of the square's side: sigma of the blur, how far out the mirrored picture is wholly
blurred, and how far out only its median colour is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedSquare:
    """A square in a picture, turned by any angle; in pixels, 0 the centre of the first one."""

    x: float
    """Of its centre."""
    y: float
    right_x: float
    """From the centre to the middle of its right side."""
    right_y: float

    @property
    def side(self) -> float:
        """Its length in pixels."""
        return 2 * math.hypot(self.right_x, self.right_y)

    def bounds(self) -> Box:
        """The upright box around it, in pixels from the picture's corner, to a hundredth."""
        reach = abs(self.right_x) + abs(self.right_y)
        sides = (self.x - reach, self.y - reach, self.x + reach, self.y + reach)
        return Box(*(round(side + 0.5, 2) for side in sides))

    def moved(self, left: float, top: float, factor: tuple[float, float] = (1.0, 1.0)) -> TurnedSquare:
        """The same square in a picture that begins at (left, top) and is ``factor`` (x, y) times as large.

        The factors may differ by the rounding of a picture's size; the square stays one.
        """
        mean = (factor[0] + factor[1]) / 2
        return TurnedSquare(
            x=(self.x - left + 0.5) * factor[0] - 0.5,
            y=(self.y - top + 0.5) * factor[1] - 0.5,
            right_x=self.right_x * mean,
            right_y=self.right_y * mean,
        )


def aligned_item(
    row: LedgerRow, source: Path, config: DatasetConfig, target: Path, box: Box | None = None
) -> ItemResult:
    """Cut one aligned face out of a picture; nothing but the files in ``target`` and the result is touched.

    The largest face that is found is taken, or the one at ``box``. Without any: of kind ``faces`` the item is rejected
    (``no-subject``); of kind ``images`` it is cut from the box, or from the middle, and the ledger's detail says so.

    Args:
        row: the item, as the download's ledger has it.
        source: its file.
        config: of its data set. ``min_side_px`` holds for the aligned square of ``faces``, and for the largest square
            of ``images``. ``outside: reject`` turns away faces whose square leaves the picture.
        target: folder for the still, which exists.
        box: the head from hair line to chin, in the upright picture's pixels; what lies outside does not count. It is
            believed: the predictor finds something like landmarks in a box without a face, too.

    Returns:
        A row of one frame, whose box is the upright one around the turned square, and the item's ledger row.

    Raises:
        EnvironmentProblem: the still can't be written, or the landmarks' weights are missing.
    """
    with turned_away(row, target) as failed:
        picture = read_still(source, config)
        size = (picture.shape[1], picture.shape[0])
        if config.kind == "images":
            check_side(row.item, min(size), config)
        marked = _marked(row.item, box, size)
        heads = _heads(picture, marked, is_drawn=config.kind == "images")
        turned = _turned(picture, heads)
        if turned is None and config.kind == "images":
            box, detail = _plain_square(marked, heads, size)
            still = crop_frames(picture[None], box, size_px=config.size_px)[0]
            return written_still(still, row, config, target, box=box, detail=detail)
        turned = _found(turned, size, row.item, config, marked=marked is not None)
        still = cut_turned(picture, turned, size_px=config.size_px)
        return written_still(still, row, config, target, box=turned.bounds())
    return ItemResult(row=row.rejected(failed[0]))


def cut_face(picture: np.ndarray, item: str, config: DatasetConfig) -> tuple[np.ndarray, Box]:
    """The largest face of a picture, aligned.

    Args:
        picture: uint8 RGB (H, W, 3).
        item: its name, for messages.
        config: of its data set.

    Returns:
        uint8 RGB (size_px, size_px, 3), and the upright box around the turned square, in the picture's pixels.

    Raises:
        MediaError: no face (``no-subject``), or one that is too small or leaves the picture.
    """
    size = (picture.shape[1], picture.shape[0])
    turned = _turned(picture, _heads(picture, None, is_drawn=config.kind == "images"))
    turned = _found(turned, size, item, config, marked=False)
    return cut_turned(picture, turned, size_px=config.size_px), turned.bounds()


def _found(
    turned: TurnedSquare | None, size: tuple[int, int], item: str, config: DatasetConfig, *, marked: bool
) -> TurnedSquare:
    if turned is None:
        got = "none at its box" if marked else f"none in {size[0]}x{size[1]} px"
        raise MediaError(must(item, "show a face", got, "Give its box by hand (boxes), or leave it out"), "no-subject")
    _check_square(turned, size, item, config)
    return turned


def face_square(points: np.ndarray) -> TurnedSquare:
    """The square that FFHQ's alignment cuts.

    Args:
        points: 68 landmarks (68, 2) in the picture's pixels.

    Returns:
        Its side is the larger of 4 distances between the eyes and 3.6 from the eyes to the mouth; its centre lies a
        tenth of the way from the eyes to the mouth; it is turned by the mean of both directions.
    """
    eyes, across, down = _features(points)
    right = across + np.array([down[1], -down[0]])
    right *= max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*right)
    centre = eyes + 0.1 * down
    return TurnedSquare(x=float(centre[0]), y=float(centre[1]), right_x=float(right[0]), right_y=float(right[1]))


def is_plausible(points: np.ndarray, head: Box) -> bool:
    """Whether 68 landmarks can be those of a face in a box; the predictor's nearly always look so.

    Args:
        points: (68, 2) in the picture's pixels.
        head: from the hair line to the chin.
    """
    eyes, across, down = _features(points)
    width, height = float(np.hypot(*across)), float(np.hypot(*down))
    if width < 0.15 * head.width or not 0.5 <= height / width <= 2.5:
        return False
    lean = math.atan2(across[0] * down[1] - across[1] * down[0], across @ down)  # a quarter turn where upright
    roll = math.atan2(across[1], across[0])
    middle = eyes + 0.1 * down - ((head.left + head.right) / 2, (head.top + head.bottom) / 2)
    side = max(4.0 * width, 3.6 * height) / max(head.width, head.height)
    return (
        abs(lean - math.pi / 2) < math.radians(30)
        and abs(roll) < math.radians(50)
        and bool(np.abs(middle).max() <= 0.3 * max(head.width, head.height))
        and 0.6 <= side <= 2.0
    )


def _features(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The middle between the eyes, and from there to the mouth; the way from the right eye to the left."""
    exact = np.asarray(points, np.float64)
    right, left = exact[RIGHT_EYE].mean(axis=0), exact[LEFT_EYE].mean(axis=0)
    eyes = (right + left) / 2
    return eyes, left - right, exact[list(MOUTH_CORNERS)].mean(axis=0) - eyes


def _marked(item: str, box: Box | None, size: tuple[int, int]) -> Box | None:
    """The box given by hand as far as it lies in the picture."""
    inside = box.within(size) if box else None
    if box and inside and min(inside.width, inside.height) < 1:
        rule, got = f"have its box inside its {size[0]}x{size[1]} px", ",".join(f"{side:g}" for side in box)
        raise MediaError(must(item, rule, got, "Mend its row in the boxes' CSV"), "box-outside")
    return inside


def _heads(picture: np.ndarray, marked: Box | None, *, is_drawn: bool) -> list[Box]:
    """Where a face may be, the best place first."""
    found = faces(picture)
    if marked:
        near = [face for face in found if iou(face, marked) >= SAME_FACE_IOU]
        best = sorted(near, key=lambda face: -iou(face, marked))[:1]
        # in a photo the predictor finds its points, in a drawing it only guesses
        return best if is_drawn else [*best, marked]
    if len(found) < 2:
        return found
    sure = {face: min(max(confidence(picture, face), _DOUBTFUL) / _SURE, 1.0) for face in found[:MAX_FACES]}
    return sorted(sure, key=lambda face: -face.area * sure[face])


def _turned(picture: np.ndarray, heads: Sequence[Box]) -> TurnedSquare | None:
    """The aligned square of the first head with landmarks to rely on."""
    for head in heads:
        points = landmarks68(picture, head)
        if is_plausible(points, head):
            return face_square(points)
    return None


def _plain_square(marked: Box | None, heads: Sequence[Box], size: tuple[int, int]) -> tuple[Box, str]:
    """What is cut of a drawing whose landmarks are not found, and how that is told in the ledger."""
    box, detail = central_square(size), "centred box: no face was found"
    if marked:
        box, detail = marked, "box by hand: no landmarks to align by"
    elif heads:
        box, detail = heads[0], "detected box: no landmarks to align by"
    grown = square(box, increase=BOX_INCREASE, frame=size, outside="pad") if marked or heads else box
    return grown or box, detail


def _check_square(turned: TurnedSquare, size: tuple[int, int], item: str, config: DatasetConfig) -> None:
    if config.kind == "faces":
        check_side(item, turned.side, config)
    around = turned.bounds()
    over = max(-around.left, -around.top, around.right - size[0], around.bottom - size[1])
    if config.outside == "reject" and over > _OUTSIDE_SHARE * turned.side:
        rule, got = "hold the whole aligned square", f"{over:.0f} px outside"
        raise MediaError(must(item, rule, got, "Set outside: pad to keep it"), "outside-frame")


def cut_turned(picture: np.ndarray, turned: TurnedSquare, *, size_px: int) -> np.ndarray:
    """Cut a turned square out of a picture and resize it, free of aliasing.

    Where the square leaves the picture, the picture is mirrored, more and more blurred, and fades to its median colour.
    A large square is shrunk by area first, turned at twice the size, and halved; memory is bounded by the picture's and
    the result's sizes.

    Args:
        picture: uint8 RGB (H, W, 3).
        turned: a square that touches the picture, of at most a few times its size.
        size_px: height and width of the result.

    Returns:
        uint8 RGB (size_px, size_px, 3).
    """
    part, turned = _shrunk(picture, turned, 2 * size_px)
    canvas, turned = _bordered(part, turned)
    times = 2 if turned.side > size_px else 1
    step_x, step_y = 2 * turned.right_x / (times * size_px), 2 * turned.right_y / (times * size_px)
    middle = (times * size_px - 1) / 2
    to_source = np.array(
        [
            [step_x, -step_y, turned.x - middle * (step_x - step_y)],
            [step_y, step_x, turned.y - middle * (step_y + step_x)],
        ]
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(
        canvas, to_source, (times * size_px, times * size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(cv2.resize(out, (size_px, size_px), interpolation=cv2.INTER_AREA) if times > 1 else out)


def _shrunk(picture: np.ndarray, turned: TurnedSquare, side_px: int) -> tuple[np.ndarray, TurnedSquare]:
    """The part of a picture around a square, by area so small that the square's side is ``side_px`` or less."""
    margin = 2 + math.ceil(turned.side / side_px)
    around, (height, width) = turned.bounds(), picture.shape[:2]
    left, right = _span(around.left - margin, around.right + margin, width)
    top, bottom = _span(around.top - margin, around.bottom + margin, height)
    part, turned = picture[top:bottom, left:right], turned.moved(left, top)
    if turned.side <= side_px:
        return part, turned
    factor = side_px / turned.side
    size = (max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor)))
    factors = (size[0] / (right - left), size[1] / (bottom - top))
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA), turned.moved(0, 0, factors)


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """Whole pixels of 0..length that hold low..high, at least one."""
    start = min(max(math.floor(low), 0), length - 1)
    return start, max(min(math.ceil(high), length), start + 1)


def _bordered(part: np.ndarray, turned: TurnedSquare) -> tuple[np.ndarray, TurnedSquare]:
    """The part with a border as wide as the square needs, and the square's place in it."""
    around, (height, width) = turned.bounds(), part.shape[:2]
    left, top = (max(0, math.ceil(2 - side)) for side in (around.left, around.top))
    right, bottom = max(0, math.ceil(around.right + 2 - width)), max(0, math.ceil(around.bottom + 2 - height))
    if not any((left, top, right, bottom)):
        return part, turned
    mirrored = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    across = np.maximum.reduce([-np.arange(-left, width + right), np.arange(-left, width + right) - width + 1])
    down = np.maximum.reduce([-np.arange(-top, height + bottom), np.arange(-top, height + bottom) - height + 1])
    out = np.hypot(np.maximum(across, 0)[None, :], np.maximum(down, 0)[:, None])[..., None] / turned.side
    out = out.astype(np.float32)
    blur, plain = np.clip(out / _BLURRED_BY, 0, 1), np.clip(out / _PLAIN_BY, 0, 1)
    soft = _blurred(mirrored, _BLUR_SHARE * turned.side).astype(np.float32)
    mixed = mirrored * (1 - blur) + soft * blur
    mixed += (np.median(part, axis=(0, 1)).astype(np.float32) - mixed) * plain
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), turned.moved(-left, -top)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur; a wide one is done on a small copy, which looks the same."""
    shrink = max(1, round(sigma / 3))
    height, width = picture.shape[:2]
    size = (max(1, width // shrink), max(1, height // shrink))
    little = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if shrink > 1 else picture
    soft = cv2.GaussianBlur(little, (0, 0), max(sigma / shrink, 0.1))
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) if shrink > 1 else soft)


def read_boxes(path: Path) -> tuple[dict[str, Box], list[str]]:
    """Boxes given by hand, from a CSV with the columns ``file,left,top,right,bottom`` in any order.

    Args:
        path: the CSV, UTF-8. ``file`` is a path below the source folder, as `LedgerRow.origin` has it; the sides are
            pixels of the upright picture, right and bottom exclusive.

    Returns:
        Box by file, and a sentence for each row that can't be used, with its line. Of a file named twice the first row
        counts.
    """
    boxes: dict[str, Box] = {}
    problems: list[str] = []
    try:
        if path.stat().st_size > MAX_BOXES_BYTES:
            rule, got = f"have at most {MAX_BOXES_BYTES >> 20} MiB", f"{path.stat().st_size:,} bytes"
            return {}, [must(path.name, rule, got)]
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
            rows = csv.reader(file)
            columns = [name.strip().lower() for name in next(rows, [])]
            missing = [name for name in BOX_COLUMNS if name not in columns]
            if missing:
                return {}, [must(path.name, f"have the columns {','.join(BOX_COLUMNS)}", f"no {', '.join(missing)}")]
            for cells in rows:
                problem = _take(f"{path.name} line {rows.line_num}", columns, cells, boxes) if any(cells) else None
                problems += [problem] if problem else []
    except (OSError, csv.Error) as error:
        problems.append(must(path.name, "be a CSV that can be read to its end", str(error)[:200]))
    more = len(problems) - MAX_PROBLEMS
    return boxes, [*problems[:MAX_PROBLEMS], f"{path.name} has {more} more bad rows."] if more > 0 else problems


def _take(where: str, columns: Sequence[str], cells: Sequence[str], boxes: dict[str, Box]) -> str | None:
    """Enter a row of the CSV into ``boxes``, or say what is wrong with it."""
    if len(cells) < len(columns):
        return must(where, f"have {len(columns)} cells", str(len(cells)))
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    name = PurePosixPath(row["file"])
    if not row["file"] or name.is_absolute() or ".." in name.parts:
        return must(where, "name a file below the source folder", repr(row["file"][:100]))
    sides = [_number(row[side]) for side in BOX_COLUMNS[1:]]
    for side, value in zip(BOX_COLUMNS[1:], sides, strict=True):
        if not math.isfinite(value):
            return must(where, f"have a number of pixels in {side}", repr(row[side][:100]))
    box = Box(*sides)
    if box.width < 1 or box.height < 1 or box.right <= 0 or box.bottom <= 0:
        return must(where, "have its box's right and bottom beyond left and top", ",".join(f"{s:g}" for s in box))
    if str(name) in boxes:
        return must(where, "name a file for the first time", str(name), "Remove one of its rows")
    boxes[str(name)] = box
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
