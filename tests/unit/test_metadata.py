"""Metadata CSVs: every row is taken or listed with its number and what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SourceError
from preprocessing import metadata
from preprocessing.boxes import Box
from preprocessing.metadata import BadRow, Segment, read_metadata

HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id"
GOOD = "-A_b3,10,90,5-6-105-86,25.0,640,360,train,id10270"


def write(folder: Path, *lines: str, ends: str = "\n", encoding: str = "utf-8") -> Path:
    path = folder / "metadata.csv"
    path.write_bytes(ends.join(lines).encode(encoding))
    return path


def row(**values: str) -> str:
    """The good row with other values."""
    names = HEADER.split(",")
    fields = dict(zip(names, GOOD.split(","), strict=True)) | values
    return ",".join(fields[name] for name in names)


def only_bad(path: Path) -> BadRow:
    segments, bad = read_metadata(path)
    assert segments == []
    (one,) = bad
    return one


def test_a_row_is_read(tmp_path: Path) -> None:
    segments, bad = read_metadata(write(tmp_path, HEADER, GOOD, row(start="0", partition="test", person_id="")))
    assert bad == []
    assert segments[0] == Segment(
        row=2,
        video_id="-A_b3",
        start=10,
        end=90,
        box=Box(5, 6, 105, 86),
        fps=25.0,
        width=640,
        height=360,
        split="train",
        identity="id10270",
    )
    assert (segments[1].row, segments[1].split, segments[1].identity) == (3, "test", None)
    assert pickle.loads(pickle.dumps(segments)) == segments


def test_without_persons_in_another_order_and_with_more_columns(tmp_path: Path) -> None:
    header = "height,note,partition,bbox,video_id,end,start,width,fps"
    segments, bad = read_metadata(write(tmp_path, header, "360,hello,test,5-6-105-86,x,90,10,640,25"))
    assert bad == []
    assert (segments[0].video_id, segments[0].box, segments[0].identity) == ("x", Box(5, 6, 105, 86), None)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_harmless_differences(tmp_path: Path, ends: str, encoding: str, delimiter: str) -> None:
    lines = [
        HEADER,
        "",
        GOOD,
        '"' + row(start="11").replace(",", '","') + '"',
        row(start=" 12 ", end="90.0") + ",,",
        "",
    ]
    path = write(tmp_path, *(line.replace(",", delimiter) for line in lines), ends=ends, encoding=encoding)
    segments, bad = read_metadata(path)
    assert bad == []
    assert [(one.row, one.start) for one in segments] == [(3, 10), (4, 11), (5, 12)]


BAD_ROWS = {
    "missing fields": ("a,1,2", "bad-row", "have 9 fields; got 3"),
    "too many fields": (GOOD + ",more", "bad-row", "have 9 fields; got 10"),
    "no number": (row(start="ten"), "bad-row", "as start; got 'ten'"),
    "half a frame": (row(end="90.5"), "bad-row", "as end; got '90.5'"),
    "negative start": (row(start="-1"), "bad-row", "as start; got '-1'"),
    "endless end": (row(end="9" * 30), "bad-row", "as end; got '9999"),
    "digits of another script": (row(start="１２"), "bad-row", "as start"),
    "underscore": (row(start="1_0"), "bad-row", "as start"),
    "end before start": (row(end="9"), "bad-row", "have its end after its start; got start 10, end 9"),
    "nothing between": (row(end="10"), "bad-row", "have its end after its start"),
    "fps of 0": (row(fps="0"), "bad-row", "as fps; got '0'"),
    "fps nan": (row(fps="nan"), "bad-row", "as fps; got 'nan'"),
    "fps inf": (row(fps="inf"), "bad-row", "as fps; got 'inf'"),
    "fps negative": (row(fps="-25"), "bad-row", "as fps; got '-25'"),
    "fps too high": (row(fps="1e9"), "bad-row", "as fps; got '1e9'"),
    "no width": (row(width="0"), "bad-row", "as width; got '0'"),
    "no height": (row(height=""), "bad-row", "as height; got ''"),
    "box of three": (row(bbox="5-6-105"), "bad-row", "as bbox; got '5-6-105'"),
    "box of five": (row(bbox="5-6-105-86-1"), "bad-row", "as bbox"),
    "box negative": (row(bbox="-5-6-105-86"), "bad-row", "as bbox; got '-5-6-105-86'"),
    "box of words": (row(bbox="a-b-c-d"), "bad-row", "as bbox"),
    "box crossed": (row(bbox="105-6-5-86"), "bad-row", "left before its right"),
    "box empty": (row(bbox="5-6-105-6"), "bad-row", "top before its bottom"),
    "box outside": (row(bbox="5-6-641-86"), "box-outside", "inside its frame of 640x360; got '5-6-641-86'"),
    "box below": (row(bbox="5-6-105-361"), "box-outside", "inside its frame"),
    "partition": (row(partition="dev"), "bad-row", "train or test or unseen as partition; got 'dev'"),
    "id with a slash": (row(video_id="../a"), "bad-row", "as video_id; got '../a'"),
    "id with a backslash": (row(video_id="a\\b"), "bad-row", "as video_id"),
    "id of dots": (row(video_id=".."), "bad-row", "as video_id; got '..'"),
    "id too long": (row(video_id="a" * 65), "bad-row", "as video_id; got 'aaaa"),
    "no id": (row(video_id=""), "bad-row", "as video_id; got ''"),
    "id with a bell": (row(video_id="a\x07b"), "bad-row", "as video_id"),
    "person with a slash": (row(person_id="a/b"), "bad-row", "as person_id"),
    "NUL": (row(video_id="a\0b"), "bad-row", "got a NUL byte"),
    "open quote": (row(video_id='"a'), "bad-row", "be a line of CSV"),
    "long line": (row(video_id="a" * 5000), "bad-row", "at most 4,096 characters; got more"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_listed(tmp_path: Path, name: str) -> None:
    line, reason, told = BAD_ROWS[name]
    bad = only_bad(write(tmp_path, HEADER, "", line))
    assert (bad.row, bad.name, bad.reason) == (3, "row-000003", reason)
    assert told in bad.detail
    assert bad.detail.startswith("row 3 of metadata.csv must ")
    assert len(bad.detail) < 300
    assert bad.detail.isprintable()
    assert (bad.error.reason, str(bad.error)) == (reason, bad.detail)


def test_all_that_is_wrong_with_a_row_is_told_at_once(tmp_path: Path) -> None:
    bad = only_bad(write(tmp_path, HEADER, row(start="x", fps="0", bbox="9-9-1-1", partition="?", video_id="/")))
    for name in ("start", "fps", "bbox", "partition", "video_id"):
        assert name in bad.detail


def test_bad_rows_do_not_cost_the_good_ones(tmp_path: Path) -> None:
    lines = [line for line, _, _ in BAD_ROWS.values()]
    mixed = [text for number, line in enumerate(lines) for text in (line, row(start=str(number)))]
    mixed = [text for text in mixed if '"' not in text]
    segments, bad = read_metadata(write(tmp_path, HEADER, *mixed))
    assert len(bad) == len(lines) - 1
    assert sorted([one.row for one in segments] + [one.row for one in bad]) == list(range(2, len(mixed) + 2))


def test_duplicates(tmp_path: Path) -> None:
    lines = [GOOD, row(end="91"), row(bbox="5-6-105-87"), row(video_id="b"), row(fps="30", person_id="other")]
    segments, bad = read_metadata(write(tmp_path, HEADER, *lines))
    assert [one.row for one in segments] == [2, 3, 4, 5]
    assert (bad[0].row, bad[0].reason) == (6, "duplicate-row")
    assert "row 2" in bad[0].detail


def test_missing_columns_are_named_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="have columns start, bbox, partition; got 'video_id,end,fps,width,height'"):
        read_metadata(write(tmp_path, "video_id,end,fps,width,height", "a,1,25,640,360"))
    with pytest.raises(SourceError, match="have column start once"):
        read_metadata(write(tmp_path, f"{HEADER},start", GOOD))


def test_files_that_are_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_metadata(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="be readable"):
        read_metadata(tmp_path)
    with pytest.raises(SourceError, match="have columns video_id, start"):
        read_metadata(write(tmp_path, ""))
    with pytest.raises(SourceError, match="hold a row below its header"):
        read_metadata(write(tmp_path, HEADER, ""))
    with pytest.raises(SourceError, match="UTF-8"):
        read_metadata(write(tmp_path, HEADER, row(video_id="ü"), encoding="latin-1"))
    with pytest.raises(SourceError, match="UTF-8"):
        read_metadata(write(tmp_path, HEADER, GOOD, encoding="utf-16"))
    monkeypatch.setattr(metadata, "MAX_ROWS", 3)
    with pytest.raises(SourceError, match="at most 3 rows"):
        read_metadata(write(tmp_path, HEADER, *(row(start=str(number)) for number in range(4))))
    monkeypatch.setattr(metadata, "MAX_FILE_BYTES", 10)
    with pytest.raises(SourceError, match="at most 10 bytes"):
        read_metadata(write(tmp_path, HEADER, GOOD))


def test_an_endless_line_is_not_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "metadata.csv"
    with path.open("wb") as file:
        file.write(f"{HEADER}\n".encode())
        for _ in range(32):
            file.write(b"a" * (1 << 20))
        file.write(f"\n{GOOD}\n".encode())
    tracemalloc.start()
    try:
        segments, bad = read_metadata(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ([one.row for one in segments], [one.row for one in bad]) == ([3], [2])
    assert peak < 4 << 20


def test_a_line_of_just_the_longest_length(tmp_path: Path) -> None:
    padded = GOOD + " " * (metadata.MAX_LINE_CHARS - len(GOOD))
    segments, bad = read_metadata(write(tmp_path, HEADER, padded, padded + " ", row(start="3")))
    assert ([one.row for one in segments], [one.row for one in bad]) == ([2, 4], [3])


@given(st.lists(st.text(max_size=40).filter(lambda text: "\n" not in text and "\r" not in text), max_size=8))
def test_any_text_gives_rows_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("\n".join([HEADER, *lines]), encoding="utf-8", errors="replace", newline="")
    if not any(line.strip() for line in lines):
        with pytest.raises(SourceError, match="hold a row"):
            read_metadata(path)
        return
    segments, bad = read_metadata(path)
    assert len(segments) + len(bad) <= len(lines)
    assert all(one.detail.isprintable() for one in bad)
