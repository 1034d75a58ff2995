"""Splits, ledger and manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.contracts import LEDGER_NAME, MANIFEST_NAME, Clip
from models.errors import ClipError, ParamsError, SourceError
from preprocessing.clips import read_manifest, write_manifest
from preprocessing.config import DatasetConfig
from preprocessing.ledger import LedgerRow, check_yield, counts, read_ledger, write_ledger
from preprocessing.splits import assign, check_leaks, identity_of, split_by_time, whose


def config(**changes: object) -> DatasetConfig:
    return DatasetConfig(**{"kind": "faces", "source": "x", "split": "identity", **changes})  # type: ignore[arg-type]


def clip(number: int, identity: str | None = None, **changes: object) -> Clip:
    made = Clip(
        id=f"c{number:03d}",
        path=f"c{number:03d}.mp4",
        split="train",
        identity=identity or f"p{number}",
        num_frames=64,
        fps=25.0,
        size_px=64,
        box=(0.0, 1.0, 2.0, 3.5),
        start_frame=0,
        sha256=f"{number:064x}",
        origin=f"o{number}.mp4",
        origin_sha256=f"{number + 1000:064x}",
        decoder="decord",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def identities_tested(clips: list[Clip]) -> set[str]:
    return {clip.identity for clip in clips if clip.split == "test"}


def test_identities() -> None:
    assert identity_of("woman-expressions.mp4", "^(woman|man)") == "woman"
    assert identity_of("cat.gif", None) == identity_of("cat.gif", "^(dog)") == "cat"


def test_the_pattern_counts_for_more_than_the_source_and_that_for_more_than_the_name() -> None:
    row = LedgerRow(item="id1-a.mp4", origin="a", state="kept", identity="id7")
    assert whose(row, None) == "id7"
    assert whose(row, "^(id1)") == "id1"
    assert whose(replace(row, identity=None), None) == "id1-a"


def test_official_lists_stand_and_their_leaks_fail() -> None:
    clips = [clip(0), clip(1, split="test"), clip(2, "someone"), clip(3, "someone")]
    done = assign("d", clips, config(split="official", test_share=0.9))
    assert [one.split for one in done] == ["train", "test", "train", "train"]
    done = assign("d", clips, config(split="official", unseen=("someone",)))
    assert [one.split for one in done] == ["train", "test", "unseen", "unseen"]
    with pytest.raises(ClipError, match="identity someone in test and train"):
        assign("d", [clip(0, "someone"), clip(1, "someone", split="test")], config(split="official"))


def test_a_span_is_cut_in_two_with_a_gap() -> None:
    parts = split_by_time([(0, 472)], test_share=0.25, gap_frames=12)
    assert parts == [(0, (0, 342), "train"), (0, (354, 472), "test")]


def test_the_moment_is_one_for_all_spans_of_a_source() -> None:
    parts = split_by_time([(0, 100), (40, 140), (200, 260)], test_share=0.25, gap_frames=10, min_frames=1)
    tests = [part for _, part, split in parts if split == "test"]
    trains = [part for _, part, split in parts if split == "train"]
    assert sum(end - start for start, end in tests) == 65
    assert max(end for _, end in trains) + 10 <= min(start for start, _ in tests)
    assert all(0 <= place < 3 for place, _, _ in parts)


def test_what_is_too_short_for_two_parts_is_training() -> None:
    assert split_by_time([(5, 25)], test_share=0.25, gap_frames=12) == [(0, (5, 25), "train")]


def test_stills_are_split_by_time_too() -> None:
    spans = [(number, number + 1) for number in range(0, 240, 10)]
    parts = split_by_time(spans, test_share=0.25, gap_frames=12, min_frames=1)
    assert [split for _, _, split in parts].count("test") == 6
    assert len(parts) == 23, "one still lies in the gap"


def test_identities_stay_together() -> None:
    clips = [clip(number, f"p{number % 12}") for number in range(48)]
    done = assign("d", clips, config())
    assert len(identities_tested(done)) == 3
    assert not identities_tested(done) & {clip.identity for clip in done if clip.split == "train"}
    assert assign("d", clips[::-1], config()) == done[::-1], "the order of items plays no part"
    assert any(
        identities_tested(assign("d", clips, config(seed=seed))) != identities_tested(done) for seed in range(1, 5)
    )


def test_a_new_identity_moves_few_others() -> None:
    clips = [clip(number) for number in range(100)]
    before = identities_tested(assign("d", clips, config()))
    after = identities_tested(assign("d", [*clips, clip(100)], config()))
    assert len(before ^ after) <= 2


def test_few_identities_or_sources_are_refused() -> None:
    clips = [clip(number, f"p{number % 2}") for number in range(8)]
    with pytest.raises(ParamsError, match=r"datasets\.d\.split must be time, for there are 2 identities"):
        assign("d", clips, config())
    with pytest.raises(ParamsError, match="must be time"):
        assign("d", clips[:1], config(split="source"))


@pytest.mark.parametrize("num_sources", [2, 3])
def test_few_sources_are_on_both_sides(num_sources: int) -> None:
    done = assign("d", [clip(number) for number in range(num_sources)], config(split="source", test_share=0.01))
    assert {clip.split for clip in done} == {"train", "test"}


def test_equal_source_files_stay_together() -> None:
    clips = [clip(number, origin_sha256="same" if number < 6 else f"{number}") for number in range(12)]
    for seed in range(6):
        done = assign("d", clips, config(split="source", seed=seed))
        assert len({clip.split for clip in done[:6]}) == 1


def test_unseen_identities_are_neither() -> None:
    clips = [clip(0, "woman"), clip(1, "woman", split="test"), clip(2, "man")]
    done = assign("d", clips, config(split="time", unseen=("man",)))
    assert [clip.split for clip in done] == ["train", "test", "unseen"]


@pytest.mark.parametrize("same", ["identity", "origin_sha256", "sha256"])
def test_leaks_are_found(same: str) -> None:
    clips = [clip(0), replace(clip(1, split="test"), **{same: getattr(clip(0), same)})]
    with pytest.raises(ClipError, match="share no identity and no file"):
        check_leaks("d", clips, by_time=False)


def test_time_is_exempt_from_sharing_identities_but_not_files() -> None:
    clips = [clip(0), clip(1, "p0", split="test", origin_sha256=clip(0).origin_sha256)]
    check_leaks("d", clips, by_time=True)
    with pytest.raises(ClipError, match="file"):
        check_leaks("d", [clip(0), clip(1, split="test", sha256=clip(0).sha256)], by_time=True)
    with pytest.raises(ClipError, match="identity p0"):
        check_leaks("d", [clip(0), clip(1, "p0", split="unseen")], by_time=True)


def test_the_manifest_comes_back(tmp_path: Path) -> None:
    clips = [clip(2), clip(0, "naïve 日本"), clip(1)]
    write_manifest(tmp_path, clips)
    assert read_manifest(tmp_path) == sorted(clips, key=lambda entry: entry.id)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_a_wrong_manifest_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="must exist"):
        read_manifest(tmp_path)
    with pytest.raises(ClipError, match="ids of their own"):
        write_manifest(tmp_path, [clip(1), clip(1)])
    write_manifest(tmp_path, [clip(0), clip(1, path="../../etc/passwd")])
    with pytest.raises(ClipError, match=":2 must name a file inside its folder"):
        read_manifest(tmp_path)
    for wrong in ("{", "[]", "{}", '{"box": 3}'):
        (tmp_path / MANIFEST_NAME).write_text(wrong + "\n")
        with pytest.raises(ClipError, match=":1 must be"):
            read_manifest(tmp_path)


def row(name: str, reason: str | None = None) -> LedgerRow:
    state = "rejected" if reason else "kept"
    return LedgerRow(item=name, origin=name, state=state, reason=reason, detail="x must y; got z.")  # type: ignore[arg-type]


def test_the_ledger_comes_back(tmp_path: Path) -> None:
    rows = [row("b"), row("a", "empty"), row("c", "empty"), row("d", "missing")]
    write_ledger(tmp_path, rows)
    assert read_ledger(tmp_path) == sorted(rows, key=lambda entry: entry.item)
    assert counts(rows) == {"empty": 2, "missing": 1}
    (tmp_path / LEDGER_NAME).write_text('{"other": 1}\n')
    with pytest.raises(ClipError, match="ledger rows"):
        read_ledger(tmp_path)


def test_the_yield_floor_decides() -> None:
    rows = [row("b"), row("a", "empty"), row("c", "empty"), row("d", "missing")]
    assert check_yield("d", rows, 0.25) == 0.25
    with pytest.raises(SourceError, match=r"at least 30% of its items; got 1 of 4: 2 empty, 1 missing"):
        check_yield("d", rows, 0.3)
    for nothing in ([], rows[1:]):
        with pytest.raises(SourceError, match="at least one item"):
            check_yield("d", nothing, 0.0)
