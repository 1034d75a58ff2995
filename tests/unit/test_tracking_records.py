"""The record on disk: nothing twice, nothing lost, whatever byte the writer is killed at."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from models.errors import TrackingError
from training.tracking.jsonl import RECORDS_NAME, RecordLog, RunCard, read_card, read_metrics, read_records

CARD = RunCard(experiment="inkmotion", run_name="r-1", params={"train.seed": "0"}, tags={"git": "abc"})


def kinds(folder: Path) -> list[str]:
    return [record["kind"] for record, _ in read_records(folder)]


def test_records_come_back(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "run", CARD)
    log.metrics(1, {"loss/a": 0.5, "loss/b": 2})
    log.metrics(2, {"loss/a": math.nan})
    picture = tmp_path / "x.png"
    picture.write_bytes(b"png")
    log.picture(2, "samples/train", picture)
    log.close()
    log.close()
    assert kinds(tmp_path / "run") == ["card", "metrics", "metrics", "picture", "end"]
    steps = read_metrics(tmp_path / "run")
    assert steps[0] == (1, {"loss/a": 0.5, "loss/b": 2.0})
    assert math.isnan(steps[1][1]["loss/a"])
    record = [record for record, _ in read_records(tmp_path / "run") if record["kind"] == "picture"][0]
    assert record["path"] == "pictures/samples-train-00000002.png"
    assert (tmp_path / "run" / record["path"]).read_bytes() == b"png"
    with pytest.raises(TrackingError, match="must be open"):
        log.metrics(3, {"loss/a": 1})


def test_a_picture_inside_the_folder_stays_where_it_is(tmp_path: Path) -> None:
    log = RecordLog(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.png").write_bytes(b"png")
    log.picture(1, "x", tmp_path / "own" / "x.png")
    log.picture(1, "x", tmp_path / "own" / "x.png")
    assert [record["path"] for record, _ in read_records(tmp_path)] == ["own/x.png"]
    with pytest.raises(TrackingError, match="x-00000002"):
        log.picture(2, "x", tmp_path.parent / "nowhere.png")
    log.abandon()


def test_a_resumed_training_records_nothing_twice(tmp_path: Path) -> None:
    first = RecordLog(tmp_path, CARD)
    for step in (1, 2, 3):
        first.metrics(step, {"loss": step / 10})
    first.metrics(2, {"val/l1": 0.2})  # another name may come later for the same step
    first.abandon()
    again = RecordLog(tmp_path, CARD)
    for step in (2, 3, 4):
        again.metrics(step, {"loss": step / 10, "val/l1": 0.2})
    again.close()
    assert kinds(tmp_path) == ["card", "metrics", "metrics", "metrics", "metrics", "metrics", "metrics", "end"]
    assert read_metrics(tmp_path) == [
        (1, {"loss": 0.1}),
        (2, {"loss": 0.2, "val/l1": 0.2}),
        (3, {"loss": 0.3, "val/l1": 0.2}),
        (4, {"loss": 0.4, "val/l1": 0.2}),
    ]


def test_the_card_is_written_again_when_it_changed_or_the_run_had_ended(tmp_path: Path) -> None:
    RecordLog(tmp_path, CARD).abandon()
    RecordLog(tmp_path, CARD).close("FAILED")
    RecordLog(tmp_path, CARD).abandon()
    other = RunCard(experiment="inkmotion", run_name="r-1", params={"train.seed": "0"}, tags={"git": "def"})
    RecordLog(tmp_path, other).abandon()
    assert kinds(tmp_path) == ["card", "end", "card", "card"]
    cards = [record for record, _ in read_records(tmp_path) if record["kind"] == "card"]
    assert len({card["uid"] for card in cards}) == 1
    latest = read_card(tmp_path)
    assert latest is not None
    assert latest["tags"] == {"git": "def"}


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_last_line_is_dropped_and_recorded_again(tmp_path: Path, cut: int) -> None:
    log = RecordLog(tmp_path, CARD)
    log.metrics(1, {"loss": 0.1})
    log.metrics(2, {"loss": 0.2})
    log.abandon()
    path = tmp_path / RECORDS_NAME
    os.truncate(path, path.stat().st_size - cut)
    assert read_metrics(tmp_path) == [(1, {"loss": 0.1})]
    again = RecordLog(tmp_path, CARD)
    again.metrics(2, {"loss": 0.2})
    again.abandon()
    assert read_metrics(tmp_path) == [(1, {"loss": 0.1}), (2, {"loss": 0.2})]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_reading_goes_on_from_any_yielded_offset(tmp_path: Path) -> None:
    log = RecordLog(tmp_path, CARD)
    for step in range(5):
        log.metrics(step, {"loss": step})
    log.abandon()
    whole = list(read_records(tmp_path))
    for place, (_, end) in enumerate(whole):
        assert list(read_records(tmp_path, end)) == whole[place + 1 :]


def test_foreign_content_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / RECORDS_NAME).write_bytes(b"\x00\x01 no json\n")
    with pytest.raises(TrackingError, match=r"records.jsonl, byte 0, must hold a JSON record"):
        RecordLog(tmp_path, CARD)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="must be"):
        RecordLog(tmp_path / "file", CARD)


def test_no_folder_means_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "nowhere") == []
    assert read_card(tmp_path / "nowhere") is None


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordLog(tmp_path, CARD)
    log.metrics(1, {"loss": 0.1})
    whole = os.write

    def short(file: int, data: bytes) -> int:
        return whole(file, data[:5])

    monkeypatch.setattr("training.tracking.jsonl.os.write", short)
    with pytest.raises(TrackingError, match="Free some disk space"):
        log.metrics(2, {"loss": 0.2})
    monkeypatch.undo()
    log.metrics(2, {"loss": 0.2})
    log.abandon()
    assert read_metrics(tmp_path) == [(1, {"loss": 0.1}), (2, {"loss": 0.2})]
