"""Metadata CSVs: which stretch of which video to cut, and where in the picture.

The public lists of VoxCeleb and TaiChiHD have the columns ``video_id,start,end,bbox,fps,width,height,partition`` and
maybe ``person_id``. A box reads ``left-top-right-bottom`` in pixels of a frame of ``width`` x ``height``; ``start`` and
``end`` number frames at ``fps``, the first one is frame 0, ``end`` is exclusive.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from models.contracts import Split
from models.errors import SourceError, must
from preprocessing.boxes import Box
from preprocessing.video_types import MediaError

COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition")
PERSON = "person_id"
"""The column that may be missing."""
MAX_ROWS = 1_000_000
MAX_LINE_CHARS = 4096
MAX_FILE_BYTES = 1 << 30
MAX_ID_CHARS = 64

_BOM = "\ufeff"
_WHOLE = re.compile(r"\+?([0-9]{1,9})(?:\.0*)?")
_DECIMAL = re.compile(r"\+?[0-9]{1,9}(?:\.[0-9]*)?")
_SHOWN_CHARS = 40
_MAX_SIDE_PX = 65_535
_MAX_FPS = 1000.0
_SPLITS: Mapping[str, Split] = {"train": "train", "test": "test", "unseen": "unseen"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A row: a stretch of a video and the box that is cut out of it."""

    row: int
    """Line number in the file; the header is 1."""
    video_id: str
    start: int
    """First frame, counted from 0 at the reference `fps`."""
    end: int
    """First frame after the last."""
    box: Box
    """In a frame of `width` x `height`."""
    fps: float
    """Reference frame rate."""
    width: int
    """Of the reference frame, in pixels."""
    height: int
    split: Split | None
    """None: the row leaves it open."""
    identity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that can't be used."""

    row: int
    """Line number in the file; the header is 1."""
    reason: Literal["bad-row", "duplicate-row", "box-outside"]
    detail: str
    """All that is wrong with it, in a sentence."""

    @property
    def name(self) -> str:
        """As the ledger calls it."""
        return f"row-{self.row:06d}"

    @property
    def error(self) -> MediaError:
        """The row as an error of an item."""
        return MediaError(self.detail, self.reason)


def read_metadata(path: Path) -> tuple[list[Segment], list[BadRow]]:
    """Read a metadata CSV.

    Commas, semicolons or tabs, quotes, any line ends, a byte order mark, further columns, any order of columns, blank
    lines and numbers like ``25.0`` are fine.

    Args:
        path: a UTF-8 file of at most 1 GiB and 1,000,000 rows.

    Returns:
        What can be cut, and the rows that can't be used; each in the file's order.

    Raises:
        SourceError: no such file, not UTF-8, too large, a column is missing (all of them are named), or no row at all.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SourceError(must(path.name, f"have at most {MAX_FILE_BYTES:,} bytes", f"{size:,}"))
        with path.open(encoding="utf-8", newline=None) as file:
            segments, bad = _read(path.name, file)
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02x}"
        raise SourceError(must(path.name, "be a CSV in UTF-8", got, "Save it as UTF-8")) from None
    except FileNotFoundError:
        raise SourceError(must(str(path), "be a CSV that says what to cut", "no such file")) from None
    except OSError as error:
        raise SourceError(must(str(path), "be readable", error.strerror or str(error))) from None
    if not segments and not bad:
        raise SourceError(must(path.name, "hold a row below its header", "none"))
    return segments, bad


def _read(where: str, file: TextIO) -> tuple[list[Segment], list[BadRow]]:
    lines = _lines(file)
    header = next(((number, line) for number, line in lines if line is None or line.strip()), (1, ""))
    table = _Table(where, header)
    for number, line in lines:
        if line is None or line.strip():
            table.add(number, line)
    return table.segments, table.bad


def _lines(file: TextIO) -> Iterator[tuple[int, str | None]]:
    """Numbered lines without their ends; None for one that is too long, which is not held in memory."""
    number = 0
    while line := file.readline(MAX_LINE_CHARS + 1):
        number += 1
        whole = line.endswith("\n") or len(line) <= MAX_LINE_CHARS
        while not whole:
            rest = file.readline(1 << 16)
            whole = not rest or rest.endswith("\n")
            line = ""
        yield number, line.rstrip("\n").removeprefix(_BOM if number == 1 else "") if line else None


class _Table:
    """Sorts rows into those that can be cut and those that can't."""

    def __init__(self, where: str, header: tuple[int, str | None]) -> None:
        self.segments: list[Segment] = []
        self.bad: list[BadRow] = []
        self._where = where
        self._seen: dict[tuple[str, int, int, Box], int] = {}
        text = header[1] or ""
        self._delimiter = max(",;\t", key=text.count)
        self._names = [name.strip().lower() for name in _fields(text, self._delimiter) or []]
        missing = [name for name in COLUMNS if name not in self._names]
        if missing:
            shown = _shown(text) if text else "an empty file" if header[1] is not None else "an endless line"
            fix = f"The first line names the columns: {','.join(COLUMNS)}[,{PERSON}]"
            raise SourceError(must(where, f"have {_listed('column', missing)}", shown, fix))
        twice = [name for name in (*COLUMNS, PERSON) if self._names.count(name) > 1]
        if twice:
            raise SourceError(must(where, f"have {_listed('column', twice)} once", _shown(text)))

    def add(self, number: int, line: str | None) -> None:
        """Take a line that is not blank."""
        if len(self.segments) + len(self.bad) >= MAX_ROWS:
            raise SourceError(must(self._where, f"have at most {MAX_ROWS:,} rows", "more", "Split it"))
        row = self._parsed(number, line)
        if row.problems or row.segment is None:
            self._turn_away(number, "bad-row" if row.is_bad else "box-outside", "; ".join(row.problems))
            return
        segment = row.segment
        first = self._seen.setdefault((segment.video_id, segment.start, segment.end, segment.box), number)
        if first != number:
            rule = "differ from all rows before it in video, start, end or box"
            self._turn_away(number, "duplicate-row", f"{rule}; got the same as row {first}")
        else:
            self.segments.append(segment)

    def _turn_away(self, number: int, reason: Literal["bad-row", "duplicate-row", "box-outside"], rule: str) -> None:
        detail = f"row {number} of {self._where} must {rule}."
        self.bad.append(BadRow(row=number, reason=reason, detail=detail))

    def _parsed(self, number: int, line: str | None) -> _Row:
        if line is None:
            return _Row.refused(f"have at most {MAX_LINE_CHARS:,} characters; got more")
        if "\0" in line:
            return _Row.refused("be text; got a NUL byte")
        fields = _fields(line, self._delimiter)
        if fields is None:
            return _Row.refused(f"be a line of CSV; got {_shown(line)}")
        while len(fields) > len(self._names) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(self._names):
            return _Row.refused(f"have {len(self._names)} fields; got {len(fields)}")
        return _Row.read(number, dict(zip(self._names, (value.strip() for value in fields), strict=True)))


@dataclass(slots=True)
class _Row:
    """The reading of one row: its segment, or what is wrong."""

    values: Mapping[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    is_bad: bool = False
    """False: the only problem is that the box leaves the frame."""
    segment: Segment | None = None

    @staticmethod
    def refused(problem: str) -> _Row:
        """A row that can't be read at all."""
        return _Row(problems=[problem], is_bad=True)

    @staticmethod
    def read(number: int, values: Mapping[str, str]) -> _Row:
        """Read every field of a row."""
        row = _Row(values)
        video_id, identity = row._id("video_id"), row._id(PERSON) if values.get(PERSON) else None
        start, end = row._span()
        width, height = row._whole("width", 1, _MAX_SIDE_PX), row._whole("height", 1, _MAX_SIDE_PX)
        fps, box, split = row._fps(), row._box(width, height), row._split()
        if not row.problems:
            row.segment = Segment(
                row=number,
                video_id=video_id,
                start=start,
                end=end,
                box=box,
                fps=fps,
                width=width,
                height=height,
                split=split,
                identity=identity,
            )
        return row

    def _refuse(self, rule: str, got: str) -> None:
        self.problems.append(f"{rule}; got {got}")
        self.is_bad = True

    def _whole(self, name: str, least: int = 0, most: int = 10**9) -> int:
        found = _WHOLE.fullmatch(self.values[name])
        value = int(found[1]) if found else -1
        if not least <= value <= most:
            self._refuse(f"have a whole number from {least} to {most:,} as {name}", _shown(self.values[name]))
        return value

    def _span(self) -> tuple[int, int]:
        before = len(self.problems)
        start, end = self._whole("start"), self._whole("end")
        if len(self.problems) == before and end <= start:
            self._refuse("have its end after its start", f"start {start}, end {end}")
        return start, end

    def _fps(self) -> float:
        text = self.values["fps"]
        value = float(text) if _DECIMAL.fullmatch(text) else math.nan
        if not 0 < value <= _MAX_FPS:
            self._refuse(f"have a number above 0 and up to {_MAX_FPS:g} as fps", _shown(text))
        return value

    def _box(self, width: int, height: int) -> Box:
        text = self.values["bbox"]
        found = [_WHOLE.fullmatch(side.strip()) for side in text.split("-")]
        sides = [float(side[1]) for side in found if side]
        if len(sides) != 4 or len(found) != 4:
            self._refuse("have left-top-right-bottom in whole numbers, 0 or more, as bbox", _shown(text))
            return Box(0, 0, 0, 0)
        box = Box(*sides)
        if box.width <= 0 or box.height <= 0:
            self._refuse("have a bbox with its left before its right and its top before its bottom", _shown(text))
        elif width > 0 and height > 0 and (box.right > width or box.bottom > height):
            self.problems.append(f"have a bbox inside its frame of {width}x{height}; got {_shown(text)}")
        return box

    def _split(self) -> Split | None:
        text = self.values["partition"].lower()
        if text and text not in _SPLITS:
            self._refuse(f"have {' or '.join(_SPLITS)} as partition", _shown(self.values["partition"]))
        return _SPLITS.get(text)

    def _id(self, name: str) -> str:
        value = self.values[name]
        plain = 0 < len(value) <= MAX_ID_CHARS and value.isprintable() and not {"/", "\\"} & set(value)
        if not plain or value in (".", ".."):
            rule = f"have 1 to {MAX_ID_CHARS} printable characters without slashes as {name}"
            self._refuse(rule, _shown(value))
        return value


def _fields(line: str, delimiter: str) -> list[str] | None:
    """The fields of one line, or None where its quotes do not close."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def _shown(text: str) -> str:
    """A value from outside as a message may hold it."""
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def _listed(what: str, names: list[str]) -> str:
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}"
