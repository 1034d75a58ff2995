"""What the page shows of an evaluation's metrics, also where a report is older, odd or hostile."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.report_sections import absent, metrics

ENTRY = {"value": 1.5, "copy_source": 16.0, "unit": "pixels", "num_frames": 8, "num_left_out": 1, "num_missed": 2}


def test_metrics_come_in_the_catalogues_order_without_l1_and_the_plain_norms() -> None:
    names = ("aed-l2/x", "aed/x", "akd-l2/y", "akd/y", "eid/y+x", "l1", "mkr/y", "other/z")
    found = metrics({"test": {"metrics": dict.fromkeys(names, ENTRY)}})
    assert [one.name for one in found] == ["akd/y", "mkr/y", "aed/x", "eid/y+x", "other/z"]
    assert (found[0].test, found[0].test_copy, found[0].unseen, found[0].counts) == (1.5, 16.0, None, (8, 1, 2))


def test_unseen_identities_stand_beside() -> None:
    report = {"test": {"metrics": {"akd/y": ENTRY}}, "unseen": {"metrics": {"akd/y": {**ENTRY, "value": 4}}}}
    assert metrics(report)[0].unseen == 4


def test_what_has_no_figure_is_listed_by_reason() -> None:
    none = {**ENTRY, "value": None, "copy_source": None, "absent": "no detector"}
    report = {"test": {"metrics": {"mkr": none, "akd": none, "aed": {**none, "absent": "no file"}, "l1": ENTRY}}}
    assert metrics(report) == ()
    assert absent(report) == (("akd, mkr", "no detector"), ("aed", "no file"))


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"test": None},
        {"test": {"l1": 0.1}},
        {"test": {"metrics": ["akd"]}},
        {"test": {"metrics": {"akd": "much", 3: None}}},
        {"test": {"metrics": {"akd/x": {"value": "nan", "copy_source": [], "absent": ""}}}, "unseen": 7},
    ],
)
def test_odd_reports_show_nothing(report: dict[str, Any]) -> None:
    assert metrics(report) == ()
    assert absent(report) == ()
