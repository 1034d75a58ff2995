"""Tables of models that draw: trained rows and methods that train nothing, of the same photos; their drawings."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tables_kit import NO_INCEPTION, made_up_drawings, write_reports

from models import errors
from pipelines import params as reader
from pipelines import tables
from pipelines.params import Params
from pipelines.stage import Paths
from pipelines.table_csv import table_csv
from pipelines.table_drawings import drawn, parameters, read_drawings, strip
from pipelines.table_figures import Measure, Table
from pipelines.table_picture import draw
from pipelines.table_reports import read_tables
from pipelines.table_text import markdown, setting_of

PAPER = "lwcomicgan"
METHODS = ("vgg-on-photos", "wct-on-photos")


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for name in (PAPER, "published.yaml"):
        source = root / "papers" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, _parent(folder) / name)
    shutil.copy(root / "params.yaml", folder)
    write_reports(folder, reader.load(folder / "params.yaml"))
    return folder


def _parent(folder: Path) -> Path:
    (folder / "papers").mkdir(exist_ok=True)
    return folder / "papers"


@pytest.fixture(scope="module")
def params(project: Path) -> Params:
    return reader.load(project / "params.yaml")


@pytest.fixture
def paths(project: Path, tmp_path: Path) -> Paths:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    return Paths(tmp_path)


def made(params: Params, paths: Paths) -> tuple[Table, Table]:
    first, second = read_tables(params.paper(PAPER), params, paths)
    return first, second


def document(params: Params, paths: Paths) -> str:
    found = made(params, paths)
    return markdown(found, setting_of(PAPER, params, found), {table.name: "p.png" for table in found})


def report_file(paths: Paths, params: Params, name: str, stage: str = "evaluate") -> Path:
    return paths.root / "reports" / params.report_folders()[name] / f"{stage}.json"


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_rows_and_methods_stand_beside_what_is_published(params: Params, project: Path) -> None:
    table, counts = made(params, Paths(project))
    (block,) = table.blocks
    printed = yaml.safe_load((project / "papers" / "published.yaml").read_text())[PAPER]
    found = {line.label: line for line in block.lines}
    for label, figures in printed["table-2"].items():
        assert found[label].published == {key.lower(): value for key, value in figures.items()}
    judged = made_up_drawings(params, "cyclegan-on-photos-seed0")[1]
    line = found["CycleGAN"]
    for column in ("fid", "kid", "is", "content"):
        assert line.measures[column].values == (judged["made"][f"{column}/effnet-lite0"]["value"],)
        assert line.measures[column].copy_source == judged["untouched"][f"{column}/effnet-lite0"]["value"]
        assert line.measures[column].backbone == "effnet-lite0"
    assert line.measures["image_ms"].values == (judged["image_cost"]["seconds"] * 1000,)
    assert line.measures["image_mb"].values == (90.5,)
    assert found["VGG"].cost is None
    assert found["VGG"].experiments == (METHODS[0],)
    assert {line.label: line.published["parameters"] for line in counts.blocks[0].lines if line.published} == {
        label: figures["parameters"] for label, figures in printed["table-3"].items()
    }
    ours = next(line for line in counts.blocks[0].lines if line.label == "LWComicGAN")
    assert ours.measures["parameters"].values == (2_796_416.0,)
    assert ours.measures["parameters_trained"].values == (2_796_416.0 + 1_127_520.0,)


def test_the_greater_inception_score_is_the_better_one(params: Params, project: Path) -> None:
    (block,) = made(params, Paths(project))[0].blocks
    for column, choose in (("fid", min), ("kid", min), ("is", max)):
        means = {line.label: line.measures[column].mean for line in block.lines}
        best = block.best(column)
        assert best is not None
        assert means[best.label] == choose(value for value in means.values() if value is not None)
    best = block.best("kid")
    assert best is not None
    for column, value in (("content", 0.9), ("detail", 0.1)):  # whoever draws nothing like the photo is best in nothing
        broken = dataclasses.replace(best, measures={**best.measures, column: Measure(values=(value,))})
        lines = tuple(broken if line is best else line for line in block.lines)
        other = dataclasses.replace(block, lines=lines).best("kid")
        assert other is not None
        assert other.label != best.label
    assert block.best("content") is None  # an untouched photo would win
    assert block.best("detail") is None


def test_the_document_says_what_the_figures_are(params: Params, paths: Paths) -> None:
    changed(
        report_file(paths, params, "animegan-on-photos-seed0"),
        made={**made_up_drawings(params, "animegan-on-photos-seed0")[1]["made"], "detail": {"value": 0.01}},
    )
    text = document(params, paths)
    assert "measured on `photos` in the style of `paintings`, split by source, 6 test photos, 256 px" in text
    for name in (*METHODS, *params.paper(PAPER).experiments):
        changed(report_file(paths, params, name), squares=2)
    assert "split by source, 6 squares of test photos, 128 px" in document(params, paths)
    assert "| *untouched photos* | 310.00 | 3.10 | 1.2000 | 0.000 | 1.000 |" in text
    assert "FID/effnet-lite0, sample profile" in text
    assert (
        "Every trained row was given the same time, 90 s, whatever number of steps that was; VGG and WCT train" in text
    )
    assert "blurred: AnimeGAN." in text
    assert "338.22" in text
    assert "copy-source" not in text
    assert "AVD" not in text
    assert "a handful of photos" in text
    assert "| LWComicGAN | 2.796 | 1.128 |" in text
    assert "| LWComicGAN | 2,796,416 | 3,923,936 | baseline | 2,796,416 | - |" in text


def test_every_line_of_the_csv_says_what_it_is(params: Params, project: Path) -> None:
    found = made(params, Paths(project))
    setting = setting_of(PAPER, params, found)
    rows = list(csv.DictReader(io.StringIO(table_csv(found[0], setting))))
    by_key = {(row["row"], row["metric"]): row for row in rows}
    wct, ours = by_key["WCT", "kid"], by_key["LWComicGAN", "kid"]
    assert (wct["experiment"], wct["seeds"], wct["steps"]) == (METHODS[1], "", "")
    assert (ours["experiment"], ours["seeds"], ours["steps"]) == ("lwcomicgan-on-photos", "1", "150")
    assert ours["spread"] == "0.01"
    assert ours["deviation"] == ""
    assert ours["backbone_sha256"].startswith("lite0.pth=cdcd")
    assert {row["profile"] for row in rows} == {"sample"}
    for table in found:
        with Image.open(io.BytesIO(draw(table, setting))) as picture:
            assert picture.format == "PNG"


def test_inception_is_shown_where_it_is_there(params: Params) -> None:
    report = made_up_drawings(params, METHODS[0])[1]
    assert drawn(report, "fid").backbone == "effnet-lite0"
    report["made"]["fid/inception"] = {"value": 99.0, "backbone": "inception", "num_pictures": 6}
    assert drawn(report, "fid").values == (99.0,)
    assert drawn(report, "fid").backbone == "inception"
    del report["made"]["fid/effnet-lite0"]
    report["made"]["fid/inception"] = {"value": None, "backbone": "inception", "absent": NO_INCEPTION}
    assert drawn(report, "fid").absent == NO_INCEPTION


def test_what_is_absent_says_why() -> None:
    assert drawn({}, "kid").absent == "not among the evaluation's figures"
    assert drawn({"made": {"kid/x": {"value": float("nan")}}}, "kid").absent == "not among the evaluation's figures"
    assert drawn({"image_cost": None}, "image_ms").absent == "the evaluation measured no drawing"
    assert parameters({}, "parameters").absent == "the training's report counts no parameters"
    assert parameters({"num_parameters": {"critic": 3}}, "parameters").absent == "no generator"
    assert parameters({"num_parameters": {"critic": 3}}, "parameters_trained").values == (3.0,)


@pytest.mark.parametrize(
    ("name", "stage", "values", "says"),
    [
        (METHODS[0], "evaluate", {"weights_sha256": "00"}, "must have weights_sha256 .* inkmotion evaluate vgg-on"),
        (METHODS[1], "evaluate", {"preset": "gatys"}, "must have preset wct; got gatys"),
        (METHODS[1], "evaluate", {"data_sha256": "00"}, "must compare rows of the same data_sha256"),
        (METHODS[1], "evaluate", {"style_data_sha256": "00"}, "rows of the same style_data_sha256"),
        (METHODS[1], "evaluate", {"squares": 2}, "rows of the same squares; got 1 and 2|got 2 and 1"),
        (METHODS[1], "evaluate", {"num_photos": 5}, "rows of the same num_photos; got 6 and 5|got 5 and 6"),
        ("cyclegan-on-photos-seed0", "evaluate", {"size_px": 64}, "rows of the same size_px"),
        ("cyclegan-on-photos-seed0", "evaluate", {"seed": 3}, "must have seed 0; got 3"),
        ("cyclegan-on-photos-seed0", "evaluate", {"weights_sha256": "00"}, "must have weights_sha256"),
        ("cyclegan-on-photos-seed0", "train", {"tags": {"params_sha256": "00"}}, "must have params_sha256"),
        ("cyclegan-on-photos-seed0", "train", {"stopped_early": False}, "must have steps 1000000; got 150"),
        (
            "cyclegan-on-photos-seed0",
            "evaluate",
            {"image_cost": {"seconds": 1.0, "memory_mb": 1.0, "size_px": 256, "num_threads": 4, "device": "cpu"}},
            "rows of the same image_cost.num_threads",
        ),
    ],
)
def test_reports_that_do_not_compare_are_refused(
    params: Params, paths: Paths, name: str, stage: str, values: dict[str, Any], says: str
) -> None:
    changed(report_file(paths, params, name, stage), **values)
    with pytest.raises(errors.CheckpointError, match=says):
        read_tables(params.paper(PAPER), params, paths)


def test_missing_reports_of_methods_are_told(params: Params, paths: Paths) -> None:
    report_file(paths, params, METHODS[0]).unlink()
    with pytest.raises(errors.CheckpointError, match=r"\(14\); got 1 missing\. .* inkmotion evaluate vgg-on-photos"):
        read_tables(params.paper(PAPER), params, paths)


def written(folder: Path, photos: np.ndarray, drawings: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for what, pictures in (("photo", photos), ("drawing", drawings)):
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{what}-{number}.png")
    return folder


def test_drawings_of_the_same_photos_stand_side_by_side(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    photos, first, second = (draws.integers(0, 256, (3, 16, 16, 3), np.uint8) for _ in range(3))
    folders = {
        "One": written(tmp_path / "one", photos, first),
        "Two": written(tmp_path / "two", photos[[2, 0]], second[[2, 0]]),
        "None": tmp_path / "none",
    }
    found = read_drawings(folders)
    assert found is not None
    assert [np.array_equal(photo, photos[place]) for photo, place in zip(found.photos, (0, 2), strict=True)] == [
        True
    ] * 2
    assert set(found.by_row) == {"One", "Two"}
    assert np.array_equal(found.by_row["One"][1], first[2])
    assert np.array_equal(found.by_row["Two"][1], second[2])
    with Image.open(io.BytesIO(strip(found))) as picture:
        assert picture.width > 1.4 * picture.height  # three columns, two rows
    assert read_drawings({"None": tmp_path / "none"}) is None
    other = written(tmp_path / "other", first, second)
    assert read_drawings({"One": folders["One"], "Other": other}) is None


def test_run_writes_the_strip_and_the_same_bytes_again(params: Params, paths: Paths) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for name in (*METHODS, "lwcomicgan-on-photos-seed0"):
        written(report_file(paths, params, name).parent / "evaluate", photos, photos // 2)
    report = tables.run(PAPER, params, paths)
    folder = Path(report.folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "lwcomicgan-sample-64px.md",
        *(f"table-{number}-sample-64px.{kind}" for number in (2, 3) for kind in ("csv", "png")),
        "table-2-sample-64px-drawings.png",
    }
    assert "(table-2-sample-64px-drawings.png)" in Path(report.document).read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tables.run(PAPER, params, paths)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_published_figure_stands_in_a_table(params: Params, project: Path) -> None:
    published = yaml.safe_load((project / "papers" / "published.yaml").read_text())[PAPER]
    shown = {table.blocks[0].config.published: table.blocks[0] for table in made(params, Paths(project))}
    for key, block in shown.items():
        for label, figures in published[key].items():
            line = next(line for line in block.lines if line.label == label)
            assert line.published == {name.lower(): value for name, value in figures.items()}
    assert published["higher"] == ["IS"]


def test_every_row_has_the_same_time(params: Params) -> None:
    paper = params.paper(PAPER)
    assert {experiment.train.max_seconds for experiment in paper.experiments.values()} == {90}
    assert {experiment.datasets for experiment in paper.experiments.values()} == {("photos", "paintings")}
    assert {method.style_dataset for method in paper.methods.values()} == {"paintings"}
