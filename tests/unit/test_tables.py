"""Tables of made-up reports: the arithmetic, the marks, the published figures, what can't be mistaken for what."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tables_kit import made_up, write_reports

from models import errors
from pipelines import params as reader
from pipelines import tables
from pipelines.params import Params
from pipelines.stage import Paths
from pipelines.table_config import BlockConfig, Rows, TableConfig
from pipelines.table_csv import table_csv
from pipelines.table_figures import T_975, Block, Line, Measure, is_noise, t_975
from pipelines.table_picture import draw
from pipelines.table_published import printed_figures, read_published
from pipelines.table_reports import read_tables
from pipelines.table_text import (
    PUBLISHED,
    change_text,
    markdown,
    printed,
    published_change,
    seeds_text,
    setting_of,
    shown,
    title,
    value_text,
)
from training.metrics.eid import eid_of

STYLE_PAPERS = ("lwcomicgan",)
PAPERS = ("dual-channel-fusion", "joint-attention", "cbam-multi-occlusion", "presets")


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own settings and papers, with reports of everything."""
    folder = tmp_path_factory.mktemp("tables")
    shutil.copytree(root / "papers", folder / "papers")
    shutil.copy(root / "params.yaml", folder)
    write_reports(folder, reader.load(folder / "params.yaml"))
    return folder


@pytest.fixture(scope="module")
def params(project: Path) -> Params:
    return reader.load(project / "params.yaml")


def copied(project: Path, target: Path) -> Paths:
    shutil.copytree(project, target, dirs_exist_ok=True)
    return Paths(target)


def report_file(paths: Paths, params: Params, stage: str, name: str) -> Path:
    return paths.root / "reports" / params.report_folders()[name] / f"{stage}.json"


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def block(rows: Mapping[str, Measure], *, published: Mapping[str, float] | None = None, metric: str = "l1") -> Block:
    """A block of one column, of rows given by their figures."""
    config = BlockConfig(title="T", dataset="faces", rows=Rows(dict.fromkeys(rows, "x")))
    lines = tuple(
        Line(
            label=label,
            experiments=("x-seed0",),
            measures={metric: measure},
            published={metric: published[label]} if published and label in published else {},
            cost=None,
        )
        for label, measure in rows.items()
    )
    return Block(
        config=config,
        metrics=(metric,),
        lines=lines,
        baseline=lines[0],
        split_rule="time",
        size_px=64,
        num_videos=1,
        perceptual_backbone="effnet-lite0",
    )


def test_mean_and_sample_deviation() -> None:
    measure = Measure(values=(0.07, 0.08, 0.09))
    assert measure.mean == pytest.approx(0.08)
    assert measure.deviation == pytest.approx(0.01)
    assert Measure(values=(0.07,)).deviation is None
    assert Measure().mean is None


def test_noise_is_students_t_of_two_samples() -> None:
    first = (1.0, 2.0, 3.0)
    error = float(np.sqrt((statistics.variance(first) * 2 + statistics.variance(first) * 2) / 4 * (2 / 3)))
    limit = T_975[3] * error  # four degrees of freedom
    below, above = (Measure(values=tuple(v + limit * f for v in first)) for f in (0.999, 1.001))
    assert is_noise(Measure(values=first), below) is True
    assert is_noise(Measure(values=first), above) is False
    assert is_noise(above, Measure(values=first)) is False
    assert is_noise(Measure(values=(1.0, 1.0)), Measure(values=(1.0, 1.0))) is True
    assert is_noise(Measure(values=(1.0, 1.0)), Measure(values=(1.1, 1.1))) is False
    many = tuple(float(v) for v in np.random.default_rng(0).normal(size=40))
    assert is_noise(Measure(values=many), Measure(values=tuple(v + 5 for v in many))) is False
    assert list(T_975) == sorted(T_975, reverse=True)
    assert (T_975[0], T_975[3], T_975[9], T_975[29]) == (12.706, 2.776, 2.228, 2.042)


def test_the_limit_of_noise_is_students_of_any_number_of_seeds() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (*range(1, 60), 120, 10_000):
        assert t_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)
    seven = tuple(map(float, range(7)))  # twice: 12 degrees of freedom
    error = statistics.stdev(seven) * (2 / 7) ** 0.5
    for limit, noise in ((2.1, True), (2.2, False)):
        assert is_noise(Measure(values=seven), Measure(values=tuple(v + limit * error for v in seven))) is noise


def test_the_test_is_right_in_nineteen_of_twenty_draws() -> None:
    rng = np.random.default_rng(7)
    same = [
        is_noise(Measure(values=tuple(rng.normal(size=3))), Measure(values=tuple(rng.normal(size=3))))
        for _ in range(2000)
    ]
    assert 0.93 < np.mean(same) < 0.97


def test_one_seed_is_no_estimate() -> None:
    found = block({"A": Measure(values=(1.0,)), "B": Measure(values=(2.0,))})
    assert is_noise(*(line.measures["l1"] for line in found.lines)) is None
    assert change_text(found.lines[1], found) == "+100.0% (one seed)"
    assert value_text(found.lines[0], "l1", found, percent=False) == "1.0000"


def test_changes_are_against_the_baseline() -> None:
    rows = {
        "A": Measure(values=(0.10, 0.11, 0.12)),
        "B": Measure(values=(0.11, 0.12, 0.13)),
        "C": Measure(values=(0.20, 0.21, 0.22)),
        "D": Measure(absent="none"),
    }
    found = block(rows, published={"A": 0.046, "B": 0.043})
    assert [change_text(line, found) for line in found.lines] == ["baseline", "+9.1% (noise)", "+90.9%", "-"]
    assert [published_change(line, found) for line in found.lines] == ["-", "-6.5%", "-", "-"]
    assert found.best("l1") is found.lines[0]
    assert printed("l1", found) == ["0.046", "0.043", "-", "-"]
    assert printed("l1", block(rows, published={"A": 1.3, "B": 1.37})) == ["1.30", "1.37", "-", "-"]
    assert printed("l1", block(rows)) is None


def test_a_lone_row_is_not_the_best_of_anything() -> None:
    found = block({"A": Measure(values=(1.0, 2.0)), "B": Measure(absent="none")})
    assert found.best("l1") is None


def test_percentages_are_those_of_eid() -> None:
    """Shown in percent, the three columns add up to the EID that the evaluation reports."""
    l1, akd, aed = 0.0612, 2.56, 0.031
    parts = [float(shown(value, key, percent=True)) for key, value in (("l1", l1), ("akd", akd), ("aed", aed))]
    assert parts == [6.12, 1.0, 3.1]
    assert parts[0] + 0.5 * parts[1] + 0.5 * parts[2] == pytest.approx(eid_of(l1=l1, akd_px=akd, aed=aed), abs=0.01)
    assert shown(8.17, "eid", percent=True) == "8.17"


def test_the_published_rows_obey_their_eid(root: Path) -> None:
    for figures in read_published(root / "papers" / "published.yaml")["dual-channel-fusion"]["rows"].values():
        assert figures["L1"] + 0.5 * figures["AKD"] + 0.5 * figures["AED"] == pytest.approx(figures["EID"], abs=0.0051)


def test_every_published_row_stands_in_a_table(params: Params, project: Path) -> None:
    """Each with its printed figures: built here, or said to be published only."""
    published = read_published(project / "papers" / "published.yaml")
    parts = {
        "dual-channel-fusion": ["rows"],
        "joint-attention": ["table-1.mgif", "table-1.celeb-df-v2", "table-2.stage-1", "table-2.stage-2"],
        "cbam-multi-occlusion": ["table-1.taichi-hd", "table-1.voxceleb1", "table-1.mgif", "table-2"],
    }
    only_published = set()
    for name, keys in parts.items():
        blocks = [part for table in read_tables(params.paper(name), params, Paths(project)) for part in table.blocks]
        assert [part.config.published for part in blocks] == keys
        for part in blocks:
            figures: Any = published[name]
            for key in str(part.config.published).split("."):
                figures = figures[key]
            assert set(figures) <= {line.label for line in part.lines}
            for line in part.lines:
                wanted = figures.get(line.label, {})
                wanted = wanted if isinstance(wanted, dict) else {part.metrics[0]: wanted}
                assert {key.upper(): value for key, value in line.published.items()} == {
                    key.upper(): value for key, value in wanted.items()
                }
            only_published |= {line.label for line in part.lines if not line.experiments}
    assert only_published == {"X2Face"}


def test_figures_are_those_of_the_reports(params: Params, project: Path) -> None:
    (table,) = read_tables(params.paper("presets"), params, Paths(project))
    faces = table.blocks[0]
    for line in faces.lines:
        assert line.experiments == tuple(f"{line.label}-on-faces-seed{seed}" for seed in (0, 1, 2))
        judged = [made_up(params, name)[1] for name in line.experiments]
        trained = [made_up(params, name)[0] for name in line.experiments]
        assert line.measures["l1"].values == tuple(report["test"]["l1"] for report in judged)
        assert line.measures["unseen/l1"].values == tuple(report["unseen"]["l1"] for report in judged)
        assert line.measures["unseen/l1"].copy_source == 0.0684
        assert line.measures["akd"].backbone == "dlib68"
        assert line.measures["aed"].absent == "no network of identity for bodies"
        assert line.cost is not None
        assert line.cost.step.values == tuple(report["step_s"] for report in trained)
        assert line.cost.animating == 1_394_709 + 251_120
        assert line.cost.avd_steps == (20 if line.label in ("articulated", "jam", "jam-slim") else 0)
    assert faces.copy_source("l1") == 0.0801


def test_the_second_stage_is_a_column(params: Params, project: Path) -> None:
    _, speed = read_tables(params.paper("joint-attention"), params, Paths(project))
    first, second = speed.blocks
    ours = made_up(params, "jam-on-celeb-df-seed1")[0]
    assert first.lines[1].measures["step_s"].values[1] == ours["step_s"]
    assert second.lines[1].measures["avd_step_s"].values[1] == ours["second_stage"]["step_s"]
    assert second.lines[1].published == {"avd_step_s": 711.90}


def test_reports_of_an_older_evaluation_still_give_l1(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    for seed in (0, 1, 2):
        path = report_file(paths, params, "evaluate", f"fomm-on-faces-seed{seed}")
        changed(path, test={"l1": 0.07, "copy_source_l1": 0.08}, unseen=None)
    line = read_tables(params.paper("presets"), params, paths)[0].blocks[0].lines[0]
    assert line.measures["l1"].values == (0.07, 0.07, 0.07)
    assert line.measures["akd"].absent.startswith("not among the evaluation's metrics")
    assert line.measures["unseen/l1"].absent == "the data set keeps nobody unseen"


@pytest.mark.parametrize("name", PAPERS)
def test_nothing_of_the_sample_profile_passes_for_published(
    params: Params, project: Path, tmp_path: Path, name: str
) -> None:
    """Every heading, file name, title and CSV line says which it is."""
    paths = Paths(project)
    made = read_tables(params.paper(name), params, paths)
    setting = setting_of(name, params, made)
    text = markdown(made, setting, {table.name: "p.png" for table in made})
    assert text.startswith(f"# {name}: tables (sample profile, 64 px, ")
    assert "> **Sample profile.**" in text
    heads = [line for line in text.splitlines() if line.startswith(("| row |", "| cost"))]
    assert len(heads) >= len(made)
    for head in heads:
        cells = [cell.strip() for cell in head.strip("|").split("|")]
        if cells[0] == "row":
            assert all(cell.endswith(("sample profile", PUBLISHED)) for cell in cells[1:])
        else:
            assert cells[0] == "cost (sample profile)"
    for line in text.splitlines():
        if line.startswith("#"):
            assert "sample profile" in line or "measured on" in line or line == "## How to read them"
    for table in made:
        rows = list(csv.DictReader(io.StringIO(table_csv(table, setting))))
        for row in rows:
            assert (row["profile"], row["size_px"]) == (("sample", "64") if row["experiment"] else ("", ""))
            assert row["mean"] == "" or int(row["steps"]) <= 120
            assert (row["published_conditions"] == "256 px, full training") == bool(row["published"])


def test_run_writes_documents_tables_and_pictures(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    report = tables.run("dual-channel-fusion", params, paths)
    folder = tmp_path / "reports" / "tables" / "dual-channel-fusion"
    document, picture = "dual-channel-fusion-sample-64px.md", "table-1-sample-64px.png"
    assert {path.name for path in folder.iterdir()} == {document, picture, "table-1-sample-64px.csv"}
    assert (report.num_tables, report.num_trainings) == (1, 12)
    assert f"({picture})" in (folder / document).read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tables.run("dual-channel-fusion", params, paths)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rows_that_are_published_only_say_so(params: Params, project: Path) -> None:
    made = read_tables(params.paper("cbam-multi-occlusion"), params, Paths(project))
    text = markdown(made, setting_of("cbam-multi-occlusion", params, made), {"table-1": "1", "table-2": "2"})
    line = next(line for line in text.splitlines() if line.startswith("| X2Face"))
    assert line == "| X2Face | - (a) | - (a) | - (a) | - (a) | - | - | 0.080 | 17.65 | 0.109 | 0.270 | +31.1% |"
    assert "(a) published only" in text


def test_markdown_of_a_small_block() -> None:
    """Golden: one block, copy-source, marks, changes, published figures."""
    rows = {
        "FOMM": Measure(values=(0.070, 0.072, 0.074), copy_source=0.09),
        "Ours | x": Measure(values=(0.069, 0.071, 0.073), copy_source=0.09),
        "Bad": Measure(values=(0.100, 0.101, 0.102), copy_source=0.09),
    }
    from pipelines.table_figures import Table
    from pipelines.table_text import Setting

    found = block(rows, published={"FOMM": 0.05, "Ours | x": 0.045})
    made = Table(name="t", config=TableConfig(title="Small"), blocks=(found,))
    setting = Setting(paper="p", profile="sample", sizes_px=(64,))
    lines = markdown([made], setting, {"t": "t.png"}).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| row"))
    assert lines[start : start + 6] == [
        "| row | L1, sample profile | of copy-source, sample profile | L1 against FOMM, sample profile "
        f"| L1, {PUBLISHED} | against FOMM, {PUBLISHED} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| *copy-source* | 0.0900 | 1.00 |  |  |  |",
        "| FOMM | 0.0720 ± 0.0020 ≈ | 0.80 | baseline | 0.050 | - |",
        "| Ours \\| x | **0.0710 ± 0.0020** | 0.79 | -1.4% (noise) | 0.045 | -10.0% |",
        "| Bad | 0.1010 ± 0.0010 | 1.12 | +40.3% | - | - |",
    ]
    row = next(csv.DictReader(io.StringIO(table_csv(made, setting))))
    assert row["mean"] == "0.072"
    assert row["values"] == "0.07 0.072 0.074"
    assert (row["is_best"], row["is_noise_of_best"], row["published"]) == ("false", "true", "0.05")


def test_the_aim_names_who_misses_it(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    for row in ("fomm", "articulated", "dcf", "jam", "jam-slim", "cbam-mso"):
        for seed in (0, 1, 2):
            path = report_file(paths, params, "evaluate", f"{row}-on-faces-seed{seed}")
            l1 = 0.0721 if row == "jam" else 0.0720
            changed(path, test={"l1": l1, "copy_source_l1": 0.08, "metrics": {}})
    made = read_tables(params.paper("presets"), params, paths)
    text = markdown(made, setting_of("presets", params, made), {"presets": "p.png"})
    assert "L1 at most 0.9 of copy-source; missed by jam." in text


@pytest.mark.parametrize(
    ("stage", "values", "says"),
    [
        ("evaluate", {"size_px": 256}, "must have size_px 64; got 256. It is of other settings than those of profile"),
        ("evaluate", {"seed": 7}, "must have seed 0; got 7"),
        ("evaluate", {"weights_sha256": "00"}, "must have weights_sha256"),
        ("evaluate", {"data_sha256": "00"}, "must compare rows of the same data_sha256"),
        ("evaluate", {"detect_every": 1}, "must compare rows of the same detect_every; got 1 and 4"),
        ("evaluate", {"test": {"l1": 0.1, "num_videos": 3}}, "must compare rows of the same test.num_videos"),
        ("train", {"steps": 40}, "must have steps 120; got 40"),
        ("train", {"preset": "jam"}, "must have preset fomm; got jam"),
        ("train", {"tags": {"params_sha256": "00"}}, "must have params_sha256 [0-9a-f]{64}; got 00. It is of other"),
        ("train", {"tags": None}, "must have params_sha256 [0-9a-f]{64}; got None"),
        (
            "train",
            {"seconds": None},
            "train.json: seconds must be a number; got None. Run inkmotion train fomm",
        ),
        ("train", {"steps": "many"}, "steps must be a whole number, 0 or more; got 'many'"),
        ("train", {"images_seen": None}, "images_seen must be a whole number"),
        ("train", {"num_parameters": {"generator": "1"}}, "num_parameters.generator must be a whole number"),
        ("train", {"second_stage": {"steps": 1, "seconds": None}}, "second_stage.seconds must be a number; got None"),
        ("train", {"weights_sha256": None}, "weights_sha256 must be a text; got None"),
        ("train", {"seconds": 10**400}, "seconds must be a number"),
    ],
)
def test_reports_of_other_settings_are_refused(
    params: Params, project: Path, tmp_path: Path, stage: str, values: dict[str, Any], says: str
) -> None:
    paths = copied(project, tmp_path)
    changed(report_file(paths, params, stage, "fomm-on-faces-seed0"), **values)
    with pytest.raises(errors.CheckpointError, match=says):
        read_tables(params.paper("presets"), params, paths)


def test_unseen_columns_compare_the_same_clips(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    path = report_file(paths, params, "evaluate", "jam-on-faces-seed0")
    unseen = json.loads(path.read_text())["unseen"]
    for key, says in (("num_videos", "got 2 and 1"), ("num_frames", "got 144 and 1")):
        changed(path, unseen={**unseen, key: 1})
        with pytest.raises(errors.CheckpointError, match=rf"rows of the same unseen\.{key}; {says}"):
            read_tables(params.paper("presets"), params, paths)
    changed(path, unseen={**unseen, "num_videos": 1})
    assert read_tables(params.paper("cbam-multi-occlusion"), params, paths)  # which has no such column
    changed(path, unseen=None)
    faces = read_tables(params.paper("presets"), params, paths)[0].blocks[0]
    assert next(line for line in faces.lines if line.label == "jam").measures["unseen/l1"].values == ()


def test_two_networks_are_never_in_one_column(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    for seed in (0, 1, 2):
        path = report_file(paths, params, "evaluate", f"jam-on-faces-seed{seed}")
        test = copy.deepcopy(json.loads(path.read_text())["test"])
        test["metrics"]["akd/dlib68"]["sha256"] = {"landmarks.dat": "cd" * 32}
        changed(path, test=test)
    with pytest.raises(errors.CheckpointError, match="rows of the same weights below akd"):
        read_tables(params.paper("presets"), params, paths)


def test_frames_without_a_figure_are_counted(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    for seed in (0, 1, 2):
        path = report_file(paths, params, "evaluate", f"jam-on-faces-seed{seed}")
        test = json.loads(path.read_text())["test"]
        test["metrics"]["akd/dlib68"] |= {"num_frames": 28, "num_missed": seed}
        changed(path, test=test)
    made = read_tables(params.paper("presets"), params, paths)
    text = markdown(made, setting_of("presets", params, made), {"presets": "p.png"})
    assert "- Faces, AKD/dlib68: frames left out, as nothing was found in them: jam 3 of 87" in text


def test_frames_that_mkr_counts_are_not_left_out(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    for seed in (0, 1, 2):
        path = report_file(paths, params, "evaluate", f"cbam-mso-on-bodies-seed{seed}")
        test = json.loads(path.read_text())["test"]
        test["metrics"]["mkr/dlib68"] |= {"num_frames": 30, "num_missed": 30}
        changed(path, test=test)
    made = read_tables(params.paper("cbam-multi-occlusion"), params, paths)
    text = markdown(made, setting_of("presets", params, made), {"table-1": "1", "table-2": "2"})
    assert "left out" not in text


def test_missing_and_broken_reports_name_the_command(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    report_file(paths, params, "evaluate", "jam-on-cartoons-seed1").unlink()
    with pytest.raises(errors.CheckpointError) as caught:
        tables.run("joint-attention", params, paths)
    assert str(caught.value) == (
        "the tables of joint-attention must have the reports of all its trainings (48); got 1 missing. Run inkmotion "
        "run papers/joint-attention/dvc.yaml, or by hand: inkmotion evaluate jam-on-cartoons-seed1."
    )
    for text, says in (
        ("[" * 9999, "be a report; got values nested too deeply. Run"),
        ("{", "be a report; got Expecting"),
    ):
        report_file(paths, params, "evaluate", "jam-on-cartoons-seed1").write_text(text)
        with pytest.raises(errors.CheckpointError, match=says):
            tables.run("joint-attention", params, paths)
    report_file(paths, params, "evaluate", "jam-on-cartoons-seed1").write_text("[]")
    with pytest.raises(errors.CheckpointError, match="be a report; got a list in place of a mapping"):
        tables.run("joint-attention", params, paths)
    with pytest.raises(errors.CheckpointError, match=r"96 missing|48 missing"):
        tables.run(
            "joint-attention", params, Paths(shutil.copytree(project / "papers", tmp_path / "x" / "papers").parent)
        )
    with pytest.raises(errors.ParamsError, match="known: cbam-multi-occlusion"):
        tables.run("nobody", params, paths)


def test_published_figures_that_are_not_there_are_told(params: Params, project: Path, tmp_path: Path) -> None:
    paths = copied(project, tmp_path)
    path = tmp_path / "papers" / "published.yaml"
    raw = yaml.safe_load(path.read_text())
    del raw["joint-attention"]["table-2"]["stage-1"]
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(errors.ParamsError, match="tables.table-2.published must be a path in papers/published.yaml"):
        read_tables(params.paper("joint-attention"), params, paths)
    path.unlink()
    with pytest.raises(errors.ParamsError, match="published.yaml must be readable YAML"):
        read_tables(params.paper("joint-attention"), params, paths)


@pytest.mark.parametrize(
    ("row", "figures", "says"),
    [
        ("FOMM", {"L1": 0.061, "AKD": "n/a"}, "table-2.FOMM.AKD must be a number, or not be there; got 'n/a'"),
        ("FOMM", {"L1": None}, "table-2.FOMM.L1 must be a number, or not be there; got None"),
        ("FOMM", {"L1": True}, "table-2.FOMM.L1 must be a number"),
        ("FOMM", {"L1": float("inf")}, "table-2.FOMM.L1 must be a number"),
        ("FOMM", 0.061, r"table-2.FOMM must name its figures' columns \(L1, AKD, MKR, AED\), as .* got 0.061"),
        ("FOMM", None, "table-2.FOMM must name its figures' columns"),
        ("FOMM + CBAMM", {"L1": 0.061}, r"table-2 must name rows as the table does \(FOMM, .* got 'FOMM \+ CBAMM'"),
    ],
)
def test_published_figures_that_fit_nowhere_are_refused(
    params: Params, project: Path, tmp_path: Path, row: str, figures: Any, says: str
) -> None:
    paths = copied(project, tmp_path)
    path = tmp_path / "papers" / "published.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["cbam-multi-occlusion"]["table-2"][row] = figures
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(errors.ParamsError, match=says):
        read_tables(params.paper("cbam-multi-occlusion"), params, paths)
    path.write_text("[" * 3000)
    with pytest.raises(errors.ParamsError, match="must be readable YAML; got 'values nested too deeply'"):
        read_tables(params.paper("cbam-multi-occlusion"), params, paths)


def test_published_figures_stand_below_their_own_column(params: Params) -> None:
    paper = params.paper("joint-attention")
    block = paper.tables["table-1"].blocks[0]
    raw: dict[str, Any] = {"joint-attention": {"table-1": {"mgif": {"AA": {"L1": 0.0218, "FID": "n/a"}}}}}
    assert printed_figures(raw, paper, "table-1", block, ("akd", "l1")) == {"AA": {"l1": 0.0218}}
    raw["joint-attention"]["table-1"]["mgif"] = {"AA": 0.0218}
    assert printed_figures(raw, paper, "table-1", block, ("l1",)) == {"AA": {"l1": 0.0218}}
    with pytest.raises(errors.ParamsError, match="mgif.AA must name its figures' columns"):
        printed_figures(raw, paper, "table-1", block, ("akd", "l1"))


def test_a_part_of_the_figures_may_be_shown_by_two_blocks(params: Params) -> None:
    paper = params.paper("joint-attention")
    table = paper.tables["table-1"]
    first = dataclasses.replace(table.blocks[0], rows=Rows({"FOMM": "fomm"}), baseline=None)
    second = dataclasses.replace(table.blocks[0], rows=Rows({"AA": "articulated"}))
    paper = dataclasses.replace(paper, tables={"table-1": dataclasses.replace(table, blocks=(first, second))})
    raw = {"joint-attention": {"table-1": {"mgif": {"AA": {"L1": 0.0218}, "FOMM": {"L1": 0.0231}}}}}
    assert printed_figures(raw, paper, "table-1", first, ("l1",)) == {"FOMM": {"l1": 0.0231}}
    assert printed_figures(raw, paper, "table-1", second, ("l1",)) == {"AA": {"l1": 0.0218}}


def test_units_are_those_of_the_column() -> None:
    heads = {
        metric: title(metric, block({"A": Measure()}, metric=metric), percent=True)
        for metric in ("l1", "eid", "step_s", "memory_mb")
    }
    assert heads == {"l1": "L1 (%)", "eid": "EID (%)", "step_s": "step (s)", "memory_mb": "memory (MB)"}


def test_seeds_are_those_of_the_rows() -> None:
    found = block({"A": Measure(values=(1.0,)), "B": Measure(values=(1.0, 2.0, 3.0))})
    assert seeds_text([found]) == "1 seed"
    three = dataclasses.replace(found.lines[1], experiments=("x-seed0", "x-seed1", "x-seed2"))
    found = dataclasses.replace(found, lines=(found.lines[0], three))
    assert seeds_text([found]) == "1 or 3 seeds"


def test_pictures_grow_with_their_rows(params: Params, project: Path) -> None:
    first, second = read_tables(params.paper("joint-attention"), params, Paths(project))
    setting = setting_of("joint-attention", params, [first, second])
    sizes = []
    for table in (first, second):
        with Image.open(io.BytesIO(draw(table, setting))) as picture:
            picture.load()
            sizes.append(picture.size)
    assert all(width > 800 for width, _ in sizes)
    assert sizes[0][1] > sizes[1][1] > 300


def test_a_picture_survives_what_is_absent() -> None:
    from pipelines.table_figures import Table
    from pipelines.table_text import Setting

    found = block({"A": Measure(absent="x"), "$B^_": Measure(values=(1.0,))})
    setting = Setting(paper="p", profile="paper", sizes_px=(256,))
    content = draw(Table(name="t", config=TableConfig(title="T"), blocks=(found,)), setting)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"


def test_graphs_name_what_the_settings_name(root: Path) -> None:
    """Rows of other papers, whose reports a table needs, stand in the graph by hand: all of them, and no other."""
    params = reader.load(root / "params.yaml")
    owner = {key: name for name, paper in params.papers.items() for key in (*paper.rows, *paper.methods)}
    for name, paper in params.papers.items():
        if not paper.tables:
            continue  # trainings with names of their own
        graph = yaml.safe_load((root / "papers" / name / "dvc.yaml").read_text())
        rows = {
            (row, part.dataset)
            for table in paper.tables.values()
            for part in table.blocks
            for row in part.rows.values()
        }
        foreign = {f"reports/papers/{owner[key]}/{key[0]}-on-{key[1]}" for key in rows if key[0] and owner[key] != name}
        wanted = {"papers/published.yaml", f"reports/papers/{name}", *foreign}
        assert set(graph["stages"]["table"]["deps"]) == wanted
        assert graph["stages"]["table"]["outs"] == [f"reports/tables/{name}"]
        stages = {"train", "evaluate", "table"} | ({"draw"} if paper.methods else set())
        assert set(graph["stages"]) - {"download", "cut", "shard"} == stages
        assert ("shard" in graph["stages"]) == bool(paper.datasets)
        for stage in graph["stages"].values():
            assert stage.get("do", stage)["wdir"] == "../.."


def test_graphs_track_what_describes_a_training(root: Path) -> None:
    """All of it, by keys that are there, for DVC fails where one is missing; of presets: docs/tables.md."""
    parts = ["all_rows", "rows.{row}", *(f"profiles.{{profile}}.{key}" for key in ("published", "model", "train"))]
    parts.append("profiles.{profile}.rows.{row}")
    for name in {*PAPERS, *STYLE_PAPERS} - {"presets"}:
        graph = yaml.safe_load((root / "papers" / name / "dvc.yaml").read_text())
        *main, own = graph["stages"]["train"]["params"]
        tracked = ("published", "style") if name in STYLE_PAPERS else ("published", "model", "train")
        assert main == [f"profiles.${{profile}}.{key}" for key in tracked]
        written = [part.replace("{profile}", "${profile}").replace("{row}", "${item.row}") for part in parts]
        assert own == {f"papers/{name}/params.yaml": written}
        raw = yaml.safe_load((root / "papers" / name / "params.yaml").read_text())
        for part, profile, row in itertools.product(parts, ("sample", "paper"), raw["rows"]):
            section = raw
            for key in part.format(profile=profile, row=row).split("."):
                section = section[key]


def test_the_projects_own_graph_needs_nothing_of_the_papers(root: Path) -> None:
    """A folder that the project's stages depend on would pull every stage in that writes below it."""
    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    deps = {dep for stage in graph["stages"].values() for dep in stage.get("do", stage).get("deps", [])}
    assert not {dep for dep in deps if "reports/papers".startswith(dep.rstrip("/")) or dep.startswith("papers")}


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What DVC reads of the project, in a repository of its own."""
    project = tmp_path_factory.mktemp("clone") / "a clone"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    for file in files:
        if file.startswith(("papers/", ".dvc", "dvc.yaml", "params.yaml", ".gitignore")) and not file.endswith(".lock"):
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / file, project / file)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    return project


def dvc(project: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PAPERS, *STYLE_PAPERS])
def test_dvc_reads_the_graphs(params: Params, clone: Path, name: str) -> None:
    """The stages of every row and seed, the state of all, and what the tables need of other papers: no more."""
    path, paper = f"papers/{name}/dvc.yaml", params.paper(name)
    stages = {line.rpartition(":")[2] for line in dvc(clone, "stage", "list", "--name-only", path).split()}
    keys = {f"{row}-{data}-{seed}" for row, data in paper.rows for seed in paper.seeds}
    drawn = {f"draw@{method}-{data}" for method, data in paper.methods}
    data = {f"{stage}@{own}" for own in paper.datasets for stage in ("download", "cut", "shard")}
    assert stages == {f"{stage}@{key}" for stage in ("train", "evaluate") for key in keys} | data | drawn | {"table"}
    assert f"deleted:            reports/tables/{name}" in dvc(clone, "status", path)
    above = set(re.findall(r"train@[a-z0-9-]+", dvc(clone, "dag", "--dot", f"{path}:table")))
    wanted = {
        (row, part.dataset)
        for table in paper.tables.values()
        for part in table.blocks
        for row in part.rows.values()
        if row is not None
    }
    trained = (wanted | set(paper.rows)) - set(paper.methods)
    seeds = (0,) if name in STYLE_PAPERS else (0, 1, 2)
    assert above == {f"train@{row}-{data}-{seed}" for row, data in trained for seed in seeds}


@pytest.mark.slow
def test_the_projects_own_graph_runs_none_of_the_papers(clone: Path) -> None:
    graph = dvc(clone, "dag", "--dot", "dvc.yaml")
    assert "train@fomm-faces" in graph
    assert "papers/" not in graph
