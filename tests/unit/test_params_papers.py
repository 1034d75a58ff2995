"""papers/*/params.yaml: merged with the project's, names kept apart, refused with the file's name."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import errors
from pipelines import params, params_papers_form
from pipelines.params_papers import PaperFile, read_papers

SMALL: dict[str, Any] = {
    "seeds": [3, 5],
    "trained_on": ["faces", "own"],
    "profiles": {
        "sample": {
            "datasets": {"own": {"source": "samples/faces", "split": "time"}},
            "model": {"num_keypoints": 4},
            "train": {"max_steps": 7, "batch_size": 2},
            "rows": {"tanh": {"max_steps": 9}},
        },
        "paper": {"datasets": {"own": {"preset": "fashion"}}, "published": {"own": "fashion"}},
    },
    "datasets": {"own": {"watch": "samples/faces", "kind": "faces", "makes": "clips"}},
    "all_rows": {"flip_time": False, "model": {"temperature": 0.2}},
    "rows": {"plain": {"preset": "fomm"}, "tanh": {"preset": "fomm", "model": {"output_activation": "tanh"}}},
    "tables": {
        "table-1": {
            "title": "A table",
            "metrics": ["l1", "akd"],
            "blocks": [{"title": "Own", "dataset": "own", "rows": {"Plain": "plain", "Tanh": "tanh", "Other": None}}],
        }
    },
}


@pytest.fixture(scope="module")
def main(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


@pytest.fixture
def small() -> dict[str, Any]:
    return copy.deepcopy(SMALL)


def parsed(main: dict[str, Any], *papers: dict[str, Any], profile: str = "sample") -> params.Params:
    files = [
        PaperFile(name=name, where=f"papers/{name}/params.yaml", raw=raw)
        for name, raw in zip(("one", "two"), papers, strict=False)
    ]
    return params.parse({**main, "profile": profile}, files)


def written(folder: Path, raw: Any, name: str = "one") -> Path:
    target = folder / "papers" / name / "params.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return folder


def problems(main: dict[str, Any], *papers: dict[str, Any]) -> str:
    with pytest.raises(errors.ParamsError) as caught:
        parsed(main, *papers)
    return str(caught.value)


def test_rows_times_data_sets_times_seeds_are_experiments(main: dict[str, Any], small: dict[str, Any]) -> None:
    found = parsed(main, small)
    names = {
        f"{row}-on-{data}-seed{seed}"
        for row, data, seed in itertools.product(("plain", "tanh"), ("faces", "own"), (3, 5))
    }
    assert set(found.paper("one").experiments) == names
    first, second = (found.experiment(f"tanh-on-own-seed{seed}") for seed in (3, 5))
    assert (first.train.seed, second.train.seed) == (3, 5)
    assert first == dataclasses.replace(second, train=dataclasses.replace(second.train, seed=3))
    assert not names & set(found.experiments)
    assert "own" not in found.datasets
    assert found.dataset("own").source == "samples/faces"


def test_precedence_within_a_paper(main: dict[str, Any], small: dict[str, Any]) -> None:
    found = parsed(main, small)
    plain, tanh = (found.experiment(f"{row}-on-own-seed3") for row in ("plain", "tanh"))
    assert (plain.train.max_steps, tanh.train.max_steps) == (7, 9)
    assert (plain.model.output_activation, tanh.model.output_activation) == ("sigmoid", "tanh")
    assert {plain.model.num_keypoints, tanh.model.num_keypoints} == {4}
    assert (plain.model.temperature, plain.train.flip_time) == (0.2, False)
    assert plain.train.lr_generator == main["profiles"]["sample"]["train"]["lr_generator"]
    small["rows"]["plain"]["model"] = {"temperature": 0.3}
    assert parsed(main, small).experiment("plain-on-own-seed3").model.temperature == 0.3


def test_the_other_profile_takes_its_own_data_and_published_settings(
    main: dict[str, Any], small: dict[str, Any]
) -> None:
    small["datasets"]["own"]["kind"] = "bodies"
    found = parsed(main, small, profile="paper")
    assert found.dataset("own").preset == "fashion"
    row = found.experiment("plain-on-own-seed3")
    assert (row.model.size_px, row.train.max_epochs, row.train.losses.gan) == (256, 100, "lsgan")
    assert found.experiment("plain-on-faces-seed3").train.losses.gan == "none"  # published for VoxCeleb


def test_reports_of_papers_lie_apart(main: dict[str, Any], small: dict[str, Any]) -> None:
    folders = parsed(main, small).report_folders()
    assert folders["plain-on-own-seed5"] == "papers/one/plain-on-own/seed5"
    assert folders["own"] == "papers/one/own"
    assert not set(folders) & (set(main["experiments"]) | set(main["datasets"]))


def test_tables_are_typed(main: dict[str, Any], small: dict[str, Any]) -> None:
    table = parsed(main, small).paper("one").tables["table-1"]
    assert table.metrics == ("l1", "akd")
    assert table.blocks[0].rows == {"Plain": "plain", "Tanh": "tanh", "Other": None}
    assert (table.blocks[0].metrics, table.blocks[0].baseline, table.percent) == (None, None, False)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("rows.plain.preset", "fom", "papers/one/params.yaml: rows.plain.preset must be one of fomm"),
        ("rows.plain.bogus", 1, "papers/one/params.yaml: rows.plain.bogus must not be there"),
        ("rows.plain.model", {"bogus": 1}, "papers/one/params.yaml: rows.plain.model.bogus must not be there"),
        ("profiles.sample.train.max_steps", "many", "profiles.sample.train.max_steps must be a whole number"),
        ("profiles.sample.model.num_keypoints", 0, "papers/one/params.yaml: profiles.sample.model.num_keypoints must"),
        ("profiles.sample.datasets", {"none": {}}, "profiles.sample.datasets.none must not be there"),
        ("datasets.own.kind", "ghosts", "papers/one/params.yaml: datasets.own.kind must be one of faces"),
        ("trained_on", ["nobody"], "papers/one/params.yaml: rows.plain.dataset must be one of faces"),
        ("profiles.sample.published", {"own": "voks"}, "rows.plain.published must be none or one of vox"),
        ("tables.table-1.blocks", [], "papers/one/params.yaml: tables.table-1.blocks must be a list of mappings"),
        ("tables.table-1.bogus", 1, "tables.table-1.bogus must not be there"),
        ("tables.table-1.metrics", [], "tables.table-1.metrics must name a column or more; got ()"),
        ("tables.table-1.metrics", ["l1", "l1"], "tables.table-1.metrics must name each column once"),
        ("tables.table-1.metrics", ["akdd"], "tables.table-1.metrics must hold only l1, akd"),
        ("tables.table-1.metrics", ["unseen/step_s"], "must hold only l1, akd"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(
    main: dict[str, Any], small: dict[str, Any], place: str, value: Any, says: str
) -> None:
    *path, key = place.split(".")
    section = small
    for part in path:
        section = section[part]
    section[key] = value
    assert says in problems(main, small)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": {"Plain": "plane"}}, "blocks[0].rows must name rows that a paper trains on own; got 'plane'"),
        ({"rows": {"Plain": None}}, "blocks[0].rows must hold a row that is built here"),
        ({"baseline": "Other"}, "blocks[0].baseline must be null or one of Plain, Tanh"),
        ({"dataset": "cartoons"}, "must name rows that a paper trains on cartoons"),
        ({"aim": 0}, "blocks[0].aim must be above 0"),
        (
            {"aim": 0.9, "metrics": ["akd"]},
            "blocks[0].aim must stand in a block with an l1 column, or be null; got 0.9",
        ),
        ({"metrics": []}, "blocks[0].metrics must name a column or more; got ()"),
        ({"metrics": ["l1", "akdd"]}, "blocks[0].metrics must hold only l1, akd"),
    ],
)
def test_blocks_name_what_is_trained(
    main: dict[str, Any], small: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    small["tables"]["table-1"]["blocks"][0].update(change)
    assert says in problems(main, small)


def test_names_are_unique_over_all_files(main: dict[str, Any], small: dict[str, Any]) -> None:
    text = problems(main, small, copy.deepcopy(small))
    assert "papers/two/params.yaml must give datasets names of their own; papers/one/params.yaml has this one" in text
    assert "'plain-on-own-seed3'" in text
    taken = copy.deepcopy(main)
    taken["experiments"]["plain-on-faces-seed3"] = taken["experiments"]["fomm-faces"]
    assert "params.yaml has this one; got 'plain-on-faces-seed3'" in problems(taken, small)
    small["datasets"]["faces"] = small["datasets"]["own"]
    assert "names of their own; params.yaml has this one; got 'faces'" in problems(main, small)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("[1, 2", "must be readable YAML"),
        ("- a\n", "must be readable YAML; got 'a list in place of a mapping'"),
        ("seeds: !!python/object/apply:os.system ['true']\n", "must be readable YAML"),
        ({**SMALL, "bogus": 1}, "papers/one/params.yaml: bogus must not be there; known here: seeds"),
        ({**SMALL, "seeds": [1, 1]}, "seeds must be a list of different whole numbers"),
        ({**SMALL, "seeds": [True]}, "seeds must be a list of different whole numbers"),
        ({**SMALL, "seeds": [-1]}, "seeds must be a list of different whole numbers"),
        ({**SMALL, "seeds": []}, "seeds must be a list of different whole numbers"),
        ({**SMALL, "seeds": list(range(999))}, "make at most 1000 trainings"),
        ({**SMALL, "trained_on": "faces"}, "trained_on must be a list of different data sets"),
        ({**SMALL, "rows": 5}, "rows must be a mapping"),
        ({**SMALL, "rows": {"../x": {}}}, "must have names of letters, digits, '-' or '_' only; got '../x'"),
        ({**SMALL, "rows": {"a": 1}}, "rows.a must be a mapping"),
        ({**SMALL, "rows": {"tanh": {"seed": 1}}}, "rows.tanh.seed must not be there; seeds and trained_on say it"),
        ({**SMALL, "all_rows": {"seed": 1}}, "all_rows.seed must not be there; seeds and trained_on say it; got 1"),
        ({**SMALL, "all_rows": {"dataset": "own"}}, "all_rows.dataset must not be there; seeds and trained_on say it"),
        (
            {**SMALL, "profiles": {"sample": {"rows": {"tanh": {"dataset": "cartoons"}}}}},
            "profiles.sample.rows.tanh.dataset must not be there; seeds and trained_on say it; got 'cartoons'",
        ),
        (
            {**SMALL, "profiles": {"sample": {"rows": {"tanh": {"seed": 7}}}}},
            "profiles.sample.rows.tanh.seed must not be there",
        ),
        (
            {**SMALL, "profiles": {"sample": {"train": {"seed": 7}}}},
            "profiles.sample.train.seed must not be there; seeds and trained_on say it; got 7",
        ),
        (
            {**SMALL, "profiles": {"sample": {"train": {"dataset": "own"}}}},
            "profiles.sample.train.dataset must not be there",
        ),
        (
            {**SMALL, "profiles": {"sample": {"rows": {"tanh": 5}}}},
            "sample.rows.tanh must be a mapping; got 5",
        ),
        ("[" * 3000, "must be readable YAML; got 'values nested too deeply'"),
        ("seeds: !!bool perhaps\n", 'must be readable YAML; got "a value that does not fit its tag'),
        ({**SMALL, "methods": {"vgg": {"dataset": "own"}}}, "methods.vgg.dataset must not be there; seeds and"),
        ({**SMALL, "methods": {"vgg": 5}}, "methods.vgg must be a mapping; got 5"),
        ({"methods": {"vgg": {}}}, "seeds must be a list of different whole numbers"),
        (
            {**SMALL, "profiles": {"sample": {"methods": {"dataset": "own"}}}},
            "methods.dataset must not be there; seeds",
        ),
        ({**SMALL, "profiles": {"sample": {"data": {}}}}, "profiles.sample.data must not be there"),
        ({**SMALL, "profiles": {"sample": {"rows": {"who": {}}}}}, "profiles.sample.rows must name rows"),
        ({**SMALL, "profiles": {"sample": 1}}, "profiles.sample must be a mapping"),
    ],
)
def test_a_broken_file_gets_a_line(tmp_path: Path, raw: Any, says: str) -> None:
    with pytest.raises(errors.ParamsError) as caught:
        read_papers(written(tmp_path, raw))
    assert says in str(caught.value)
    assert "papers/one/params.yaml" in str(caught.value)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL) / "papers" / "one" / "params.yaml"
    path.write_text("# " + "x" * params_papers_form.MAX_FILE_BYTES)
    with pytest.raises(errors.ParamsError, match="of which 1048576 are read"):
        read_papers(tmp_path)


def test_a_profile_that_a_paper_lacks_is_told(main: dict[str, Any], small: dict[str, Any]) -> None:
    del small["profiles"]["sample"]
    assert "papers/one/params.yaml: profiles.sample must be there" in problems(main, small)


def test_a_project_without_papers_has_none(root: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    assert params.load(tmp_path / "params.yaml").papers == {}


@pytest.mark.parametrize("profile", ["sample", "paper"])
def test_the_projects_own_papers_are_valid(root: Path, main: dict[str, Any], profile: str) -> None:
    found = params.parse({**main, "profile": profile}, read_papers(root))
    assert {name: len(paper.experiments) for name, paper in found.papers.items()} == {
        "cbam-multi-occlusion": 15,
        "dual-channel-fusion": 12,
        "dualstyle-animation": 5,
        "joint-attention": 12,
        "long": 1,
        "lwcomicgan": 6,
        "presets": 36,
    }
    size_px = {"sample": 64, "paper": 256}[profile]
    for paper in (paper for paper in found.papers.values() if paper.tables):
        assert len(paper.seeds) == (1 if paper.methods else 3)
        assert {experiment.model.size_px for experiment in paper.experiments.values()} == {size_px}
        for dataset in paper.datasets.values():
            assert dataset.size_px == size_px


def test_a_column_of_unseen_people_is_a_column(main: dict[str, Any], small: dict[str, Any]) -> None:
    block = small["tables"]["table-1"]["blocks"][0]
    block.update({"metrics": ["unseen/akd-l2", "l1", "avd_step_s"], "aim": 0.9})
    assert parsed(main, small).paper("one").tables["table-1"].blocks[0].metrics == tuple(block["metrics"])


@pytest.mark.parametrize("profile", ["sample", "paper"])
def test_rows_differ_only_by_their_options(root: Path, main: dict[str, Any], profile: str) -> None:
    """Within a paper and data set: the training differs by adversarial loss (and, where said, by its length) alone."""
    found = params.parse({**main, "profile": profile}, read_papers(root))
    allowed = {
        "dual-channel-fusion": {"losses", "max_steps", "max_epochs", "milestone_epochs"},
        "cbam-multi-occlusion": set(),
        "joint-attention": {"batch_size", "num_repeats", "avd"},  # AA is published with others than FOMM
        "presets": {"losses", "batch_size", "num_repeats", "avd"},
    }
    for paper in (found.paper(name) for name in allowed):
        for _, dataset in paper.rows:
            trains = [
                dataclasses.asdict(paper.experiments[names[0]].train)
                for (_, data), names in paper.rows.items()
                if data == dataset
            ]
            differing = {key for key in trains[0] if any(train[key] != trains[0][key] for train in trains)}
            assert differing <= allowed[paper.name], (paper.name, dataset)
            if profile == "sample":
                assert differing <= {"losses", "max_steps"}, (paper.name, dataset)


def test_rows_of_the_papers_are_what_their_names_say(root: Path, main: dict[str, Any]) -> None:
    for profile in ("sample", "paper"):
        found = params.parse({**main, "profile": profile}, read_papers(root))

        def of(row: str, dataset: str, found: params.Params = found) -> params.ExperimentConfig:
            return found.experiment(f"{row}-on-{dataset}-seed0")

        fashion = {row: of(row, "fashion") for row in ("fomm", "fomm-tanh", "ours-cl", "ours")}
        assert [row.train.losses.gan for row in fashion.values()] == ["lsgan"] * 3 + ["hinge"]
        assert [row.model.output_activation for row in fashion.values()] == ["sigmoid", "tanh", "tanh", "tanh"]
        assert [row.model.discriminator_norm for row in fashion.values()] == ["instance"] * 2 + ["multi"] * 2
        assert fashion["ours-cl"].model == fashion["ours"].model
        assert fashion["ours"].model.discriminator_head == "dual-channel-fusion"
        assert not any(row.train.flip_horizontal or row.train.augment.hue for row in fashion.values())
        bodies = {row: of(row, "bodies").model for row in ("fomm", "fomm-cbam", "fomm-max-cbam", "fomm-cbam-mso")}
        assert [model.flow_attention for model in bodies.values()] == ["none", "cbam", "max-cbam", "cbam"]
        assert [model.occlusion for model in bodies.values()] == ["single", "single", "single", "multi-scale"]
        ours = of("cbam-mso", "bodies").model
        assert dataclasses.replace(bodies["fomm-cbam-mso"], flow_attention="max-cbam") == ours
        for dataset in ("faces", "cartoons"):
            dcf = of("dcf", dataset)
            assert (dcf.train.losses.gan, dcf.model.discriminator_norm) == ("hinge", "multi")
        assert of("jam", "celeb-df").model.width == of("articulated", "celeb-df").model.width == 1.0


def test_trainings_with_names_of_their_own(main: dict[str, Any]) -> None:
    raw = {
        "profiles": {"sample": {"datasets": {"own": {"source": "samples/faces"}}}},
        "datasets": {"own": {"watch": "samples/faces", "kind": "faces", "makes": "clips"}},
        "experiments": {
            "ink-longer": {"preset": "lwcomicgan", "dataset": "photos", "style_dataset": "paintings", "max_steps": 7},
            "faces-longer": {"preset": "fomm", "dataset": "own", "model": {"temperature": 0.2}},
        },
    }
    found = parsed(main, raw)
    ink, faces = found.experiment("ink-longer"), found.experiment("faces-longer")
    assert (ink.train.max_steps, ink.style_dataset, faces.train.max_steps) == (7, "paintings", 120)
    assert "ink-longer" not in found.experiments
    assert found.report_folders()["ink-longer"] == "papers/one/ink-longer"
    raw["experiments"]["faces-longer"]["style_dataset"] = "paintings"
    raw["experiments"]["fomm-faces"] = {"preset": "fomm", "dataset": "own"}
    text = problems(main, raw)
    assert "experiments.faces-longer.style_dataset must be null: this preset learns from one data set" in text
    assert "give experiments names of their own; params.yaml has this one; got 'fomm-faces'" in text


@pytest.fixture
def drawing() -> dict[str, Any]:
    """A paper of the style family with two methods."""
    rows = {"Ours": "ours", "VGG": "vgg"}
    return {
        "seeds": [0],
        "trained_on": ["photos"],
        "profiles": {"sample": {"methods": {"steps": 5}}, "paper": {}},
        "all_rows": {"style_dataset": "paintings"},
        "rows": {"ours": {"preset": "lwcomicgan"}},
        "methods": {"vgg": {"method": "gatys", "style_weight": 3}, "wct": {"method": "wct", "steps": 9}},
        "tables": {
            "t": {"title": "T", "metrics": ["fid"], "blocks": [{"title": "B", "dataset": "photos", "rows": rows}]}
        },
    }


def test_methods_are_of_the_rows_data(main: dict[str, Any], drawing: dict[str, Any]) -> None:
    found = parsed(main, drawing)
    methods = found.paper("one").methods
    first, second = methods["vgg", "photos"], methods["wct", "photos"]
    assert (first.dataset, first.style_dataset, first.steps, first.style_weight) == ("photos", "paintings", 5, 3)
    assert second.steps == 9
    assert found.report_folders()["wct-on-photos"] == "papers/one/wct-on-photos"
    assert parsed(main, drawing, profile="paper").paper("one").methods["vgg", "photos"].steps is None


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("methods.vgg.method", "gatis", "papers/one/params.yaml: methods.vgg.method must be one of gatys, wct"),
        ("methods.vgg.bogus", 1, "papers/one/params.yaml: methods.vgg.bogus must not be there"),
        ("methods.vgg.style_dataset", "none", "methods.vgg.style_dataset must be one of faces"),
        ("methods.ours", {"method": "wct"}, "methods must have names that no row has; got 'ours'"),
        ("profiles.sample.methods.steps", 0, "profiles.sample.methods.steps must be 1 or more"),
        ("tables.t.metrics", ["fid", "l1"], "rows of the style family have no such figure"),
        ("tables.t.metrics", ["unseen/fid"], "must hold only l1, akd"),
        ("rows.ours.style_dataset", "none", "rows.ours.style_dataset must be one of faces"),
    ],
)
def test_what_is_wrong_with_methods_is_told(
    main: dict[str, Any], drawing: dict[str, Any], place: str, value: Any, says: str
) -> None:
    *path, key = place.split(".")
    section = drawing
    for part in path:
        section = section[part]
    section[key] = value
    assert says in problems(main, drawing)


def test_rows_of_two_families_are_not_compared(main: dict[str, Any], drawing: dict[str, Any]) -> None:
    drawing["rows"]["fomm"] = {"preset": "fomm"}
    drawing["all_rows"] = {}
    drawing["rows"]["ours"]["style_dataset"] = "paintings"
    for method in drawing["methods"].values():
        method["style_dataset"] = "paintings"
    drawing["tables"]["t"]["blocks"][0]["rows"]["FOMM"] = "fomm"
    assert "rows must be of one family; got 'motion, style'" in problems(main, drawing)


def test_a_paper_may_have_systems_of_its_own(main: dict[str, Any], small: dict[str, Any]) -> None:
    small["dualstyles"] = {"drawn": {"dataset": "faces", "style_dataset": "cartoon-faces", "gan": {"max_steps": 7}}}
    found = parsed(main, small)
    assert found.experiment("drawn-gan").train.max_steps == 7
    assert found.dualstyle("drawn").style_dataset == "cartoon-faces"
    assert found.report_folders()["drawn"] == "papers/one/drawn"
    assert found.report_folders()["drawn-target"] == "papers/one/drawn-target"
    assert "drawn" not in found.dualstyles


def test_a_papers_system_is_checked_as_the_projects(main: dict[str, Any], small: dict[str, Any]) -> None:
    small["dualstyles"] = {
        "dualstyle-cartoon": {"dataset": "faces", "style_dataset": "cartoon-faces"},
        "odd": {"dataset": "nowhere", "style_dataset": "cartoon-faces", "bogus": 1},
    }
    told = problems(main, small)
    assert "dualstyle-cartoon-gan" in told
    assert "params.yaml has this one" in told
    assert "papers/one/params.yaml: dualstyles.odd.dataset must be one of" in told
    assert "papers/one/params.yaml: dualstyles.odd.bogus must not be there" in told
