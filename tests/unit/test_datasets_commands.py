"""The `datasets` commands: what is told of public data sets; a new entry in params.yaml that changes nothing else."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import ParamsError
from pipelines import dataset_entry
from pipelines import params as reader
from pipelines.datasets import COLUMNS, add, check, listed, shown
from pipelines.stage import Paths
from preprocessing.config import DatasetConfig
from preprocessing.datasets.catalog import DATASETS


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A project's folder with the project's own params.yaml, and media beside it."""
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    return tmp_path


@pytest.fixture
def media(project: Path) -> Callable[..., Path]:
    def filled(*names: str, folder: str = "media/mine") -> Path:
        for name in names:
            path = project / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return project / folder

    return filled


def written(project: Path, name: str, **wishes: Any) -> tuple[dict[str, Any], str]:
    """The new entry, and what was said; the file is otherwise byte for byte what it was."""
    file = project / "params.yaml"
    before = file.read_bytes().decode()
    said = add(file, name, **wishes)
    after = file.read_bytes().decode()
    only_before, only_after = [], []
    for line in difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)):
        (only_before if line[0] == "-" else only_after if line[0] == "+" else []).append(line[2:])
    assert only_before == []
    entry = yaml.safe_load(after)["datasets"][name]
    profiles = len(yaml.safe_load(after)["profiles"])
    assert len(only_after) == 1 + len(entry) + profiles
    return entry, said


def test_an_own_folder_becomes_a_whole_entry(project: Path, media: Callable[..., Path]) -> None:
    entry, said = written(project, "mine", path=media("a.mp4", "b.mp4"), kind="faces")
    assert list(entry) == ["watch", *(field.name for field in dataclasses.fields(DatasetConfig))]
    filled = {key: value for key, value in entry.items() if value is not None}
    assert filled == {
        "watch": "media/mine",
        "kind": "faces",
        "source": "media/mine",
        "makes": "clips",
        "split": "source",
    }
    config = reader.load(project / "params.yaml").dataset("mine")
    assert (config.kind, config.source, config.split) == ("faces", "media/mine", "source")
    assert "inkmotion datasets check mine" in said
    assert "inkmotion download mine" in said
    assert "split" in said.lower()


def test_the_entry_has_the_shape_of_those_that_are_there(project: Path, media: Callable[..., Path]) -> None:
    entry, _ = written(project, "mine", path=media("a.gif"), kind="cartoons")
    raw = yaml.safe_load((project / "params.yaml").read_text())
    assert list(entry) == list(raw["datasets"]["cartoons"])
    assert list(raw["datasets"])[-1] == "mine"
    for profile in raw["profiles"].values():  # DVC refuses a stage whose parameters are not all there
        assert profile["datasets"]["mine"] == {}


def test_it_is_valid_in_every_profile(project: Path, media: Callable[..., Path]) -> None:
    file = project / "params.yaml"
    for kind in ("faces", "images", "film"):
        add(file, f"my-{kind}", path=media("a.mp4", "b.mp4", folder=kind), kind=kind)
    for name in DATASETS:
        add(file, f"public_{name}", preset=name)
    raw = yaml.safe_load((project / "params.yaml").read_text())
    for profile in raw["profiles"]:
        params = reader.parse({**raw, "profile": profile})
        for name, spec in DATASETS.items():
            config = params.dataset(f"public_{name}")
            assert (config.preset, config.kind) == (name, spec.kind)
            assert config.makes == spec.settings["makes"] == raw["datasets"][f"public_{name}"]["makes"]
            assert config.split == spec.settings["split"]


def test_a_public_data_set_watches_the_file_that_describes_it(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, said = written(project, "vox", preset="voxceleb1")
    assert entry["watch"] == str(root / "preprocessing/datasets/voxceleb1.py")  # of another project: an absolute path
    assert Path(entry["watch"]).is_file()
    assert (entry["preset"], entry["source"], entry["split"]) == ("voxceleb1", None, None)
    assert "inkmotion download vox --accept-terms" in said
    inside = project / "preprocessing/datasets/voxceleb1.py"
    monkeypatch.setattr(dataset_entry.inspect, "getsourcefile", lambda of: str(inside))
    entry, _ = written(project, "vox2", preset="voxceleb1")
    assert entry["watch"] == "preprocessing/datasets/voxceleb1.py"


def test_a_local_copy_of_a_public_data_set(project: Path, media: Callable[..., Path]) -> None:
    entry, said = written(project, "vox", preset="voxceleb1", path=media("x.mp4"), kind="faces")
    assert (entry["watch"], entry["source"], entry["split"]) == ("media/mine", "media/mine", None)
    assert "--accept-terms" not in said


def test_a_data_set_by_form_says_what_to_do(project: Path) -> None:
    _, said = written(project, "celeb", preset="celeb-df-v2")
    assert "by hand" in said
    assert "datasets.celeb.source" in said


@pytest.mark.parametrize(
    ("kind", "names", "split"),
    [
        ("faces", ["a.mp4"], "time"),
        ("faces", [], "time"),
        ("bodies", ["a.mp4", "b.mp4"], "source"),
        ("faces", [f"{n}.mp4" for n in range(30)], "source"),
        ("faces", [f"p{n}/{m}.mp4" for n in range(10) for m in range(2)], "identity"),
        ("faces", [f"p{n}/{m}.mp4" for n in range(9) for m in range(2)], "source"),
        ("faces", [f"p{n}/only.mp4" for n in range(12)], "source"),
        ("faces", [f"\u4eba{chr(0x4E00 + n)}/{m}.mp4" for n in range(10) for m in range(2)], "source"),
        ("faces", ["train/a.mp4", "test/b.mp4"], "official"),
        ("faces", ["train/a.mp4", "test/b.mp4", "c.mp4"], "source"),
        ("film", ["a.mp4", "b.mp4"], "time"),
        ("images", ["a.png", "b.png"], "source"),
        ("cartoons", ["a.gif", "notes.txt"], "time"),
    ],
)
def test_the_split_fits_what_is_in_the_folder(
    project: Path, media: Callable[..., Path], kind: str, names: list[str], split: str
) -> None:
    small(project)
    folder = media(*names)
    folder.mkdir(parents=True, exist_ok=True)
    entry, said = written(project, "mine", path=folder, kind=kind)
    assert entry["split"] == split
    assert f"Split: {split} (" in said
    assert (entry["identity_pattern"] is not None) == (split == "identity")
    assert entry["makes"] == ("stills" if kind in ("film", "images") else "clips")


def test_a_split_that_is_asked_for(project: Path, media: Callable[..., Path]) -> None:
    entry, _ = written(project, "mine", path=media("a.mp4", "b.mp4"), kind="faces", split="time")
    assert entry["split"] == "time"


def test_paths(
    project: Path, media: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    small(project)
    folder = media("a.mp4", folder="my media: \u00e4 #1 'x'")
    entry, _ = written(project, "odd", path=folder, kind="faces")
    assert entry["source"] == "my media: \u00e4 #1 'x'"
    outside = tmp_path_factory.mktemp("outside")
    (outside / "b.mp4").touch()
    entry, _ = written(project, "outside", path=outside, kind="faces")
    assert entry["source"] == str(outside)
    monkeypatch.chdir(project / "media" if (project / "media").exists() else project)
    entry, _ = written(project, "relative", path=Path(os.path.relpath(folder)), kind="faces")
    assert entry["source"] == "my media: \u00e4 #1 'x'"
    monkeypatch.setenv("HOME", str(outside.parent))
    entry, _ = written(project, "home", path=Path(f"~/{outside.name}"), kind="faces")
    assert entry["source"] == str(outside)


@pytest.mark.parametrize(
    ("name", "wishes", "words"),
    [
        ("", {}, ["name must"]),
        ("a b", {}, ["name must be letters"]),
        ("-a", {}, ["name must be letters"]),
        ("a/b", {}, ["name must be letters"]),
        ("../a", {}, ["name must be letters"]),
        ("a\nb", {}, ["name must be letters"]),
        ("n" * 65, {}, ["name must be letters"]),
        ("\u00e4", {}, ["name must be letters"]),
        ("null", {}, ["text to YAML"]),
        ("on", {}, ["text to YAML"]),
        ("123", {}, ["text to YAML"]),
        ("0o17", {}, ["text to YAML"]),
        ("faces", {}, ["datasets.faces must not be there already"]),
        ("mine", {"path": None}, ["--path must name a folder"]),
        ("mine", {"path": Path("/no/such/folder")}, ["--path must be a folder that exists"]),
        ("mine", {"path": Path(__file__)}, ["--path must be a folder that exists"]),
        ("mine", {"kind": "face"}, ["--kind must be one of faces"]),
        ("mine", {"kind": None}, ["--kind must be one of faces"]),
        ("mine", {"preset": "voxceleb"}, ["--preset must be one of voxceleb1"]),
        ("mine", {"preset": "voxceleb1", "kind": "film"}, ["--kind must be one of faces"]),
        ("mine", {"split": "luck"}, ["--split must be one of official"]),
        (
            "a b",
            {"path": Path("/no"), "kind": "x", "split": "y"},
            ["name must", "--path must", "--kind must", "--split"],
        ),
    ],
)
def test_what_can_t_be_is_refused_at_once_and_nothing_is_written(
    project: Path, media: Callable[..., Path], name: str, wishes: dict[str, Any], words: list[str]
) -> None:
    file = project / "params.yaml"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    with pytest.raises(ParamsError) as caught:
        add(file, name, **({"path": media("a.mp4"), "kind": "faces"} | wishes))
    for word in words:
        assert word in str(caught.value)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert sorted(path.name for path in project.iterdir()) == ["media", "params.yaml"]


def test_a_path_that_dvc_would_read_otherwise_is_refused(project: Path, media: Callable[..., Path]) -> None:
    with pytest.raises(ParamsError, match=r"no \$\{"):
        add(project / "params.yaml", "mine", path=media("a.mp4", folder="${HOME}"), kind="faces")


def small(project: Path, change: Callable[[str], str] = str) -> Path:
    """A short params.yaml of another layout."""
    text = (
        "# a comment\nprofile: one\nprofiles:\n    one:\n        datasets:\n"
        "            a: {source: x}   # odd   spacing\n"
        "        # about data\n        data:\n            size_px: 64\n    two: {datasets: {}}\n\n"
        "datasets:\n    a:\n        kind:   faces\n        watch: 'x'\n        # trailing remark of a\n\n\n"
        "# of the experiments\nexperiments:\nanimations: null\nevaluation:\nregistration:\ntracking:\ncluster:\n"
    )
    (project / "params.yaml").write_bytes(change(text.replace("    two: {datasets: {}}\n", "")).encode())
    return project


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: (
            "datasets:"
            + text.split("\ndatasets:")[1].split("# of")[0]
            + text.split("datasets:\n    a:")[0]
            + text[text.index("experiments:") :]
        ),
        lambda text: (
            text[: text.index("\ndatasets:")]
            + "\n"
            + text[text.index("experiments:") :]
            + "\n"
            + text[text.index("datasets:\n    a:") : text.index("# of")].rstrip()
        ),
        lambda text: text.replace(
            "    one:\n        datasets:\n            a: {source: x}   # odd   spacing\n", "    one:\n"
        ).replace("kind:   faces", "kind:   faces\n        source: x"),
        lambda text: text.replace("        # about data\n        data:\n            size_px: 64\n", ""),
        lambda text: "---\n" + text,
        lambda text: "\ufeff" + text,
    ],
)
def test_files_of_another_layout(project: Path, media: Callable[..., Path], change: Callable[[str], str]) -> None:
    small(project, change)
    file = project / "params.yaml"
    before = file.read_bytes().decode()
    reader.load(file)
    add(file, "mine", path=media("a.mp4"), kind="faces")
    after = file.read_bytes().decode()
    kept = [line for line in difflib.ndiff(before.split("\n"), after.split("\n")) if line[0] == "-"]
    assert kept in ([], [f"- {before.split(chr(10))[-1]}"])  # a last line without an end gets one
    assert reader.load(file).dataset("mine").kind == "faces"
    raw = yaml.safe_load(after)
    assert raw["profiles"]["one"]["datasets"]["mine"] == {}
    assert raw["datasets"]["a"] == yaml.safe_load(before)["datasets"]["a"]
    if "\r\n" in before:
        assert after.count("\n") == after.count("\r\n")
    if "# trailing remark of a\n" in after:
        assert after.index("# trailing remark of a") < after.rindex("    mine:\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(
            "        datasets:\n            a: {source: x}   # odd   spacing\n", "        datasets: {a: {source: x}}\n"
        ),
        lambda text: (
            text[: text.index("\ndatasets:")] + "\ndatasets: {a: {kind: faces}}\n" + text[text.index("experiments:") :]
        ),
    ],
)
def test_a_mapping_in_braces_is_left_alone(
    project: Path, media: Callable[..., Path], change: Callable[[str], str]
) -> None:
    file = small(project, change) / "params.yaml"
    before = file.read_bytes()
    reader.load(file)
    with pytest.raises(ParamsError, match="a line for each key"):
        add(file, "mine", path=media("a.mp4"), kind="faces")
    assert file.read_bytes() == before


def test_a_file_that_is_wrong_already_is_not_touched(project: Path, media: Callable[..., Path]) -> None:
    file = project / "params.yaml"
    for text, words in (("profile: [", "readable YAML"), ("profile: none\n", "profile must"), (None, "exist")):
        file.unlink() if text is None else file.write_text(text)
        with pytest.raises(ParamsError, match=words):
            add(file, "mine", path=media("a.mp4"), kind="faces")


def test_a_link_to_the_file_stays_a_link(project: Path, media: Callable[..., Path]) -> None:
    real = project / "elsewhere" / "params.yaml"
    real.parent.mkdir()
    os.replace(project / "params.yaml", real)
    (project / "params.yaml").symlink_to(real)
    add(project / "params.yaml", "mine", path=media("a.mp4"), kind="faces")
    assert (project / "params.yaml").is_symlink()
    assert "mine" in reader.load(real).datasets


# list, show, check


def test_the_list_names_all_and_who_uses_them(root: Path) -> None:
    raw = yaml.safe_load((root / "params.yaml").read_text())
    rows = listed(reader.parse({**raw, "profile": "paper"}))
    assert [row[0] for row in rows] == list(DATASETS)
    assert all(len(row) == len(COLUMNS) and all(row) for row in rows)
    used = dict(zip([row[0] for row in rows], [row[-1] for row in rows], strict=True))
    assert (used["voxceleb1"], used["ffhq"], used["fashion"]) == ("faces", "face-stills", "-")
    assert [row[:-1] for row in listed(None)] == [row[:-1] for row in rows]


@pytest.mark.parametrize("name", DATASETS)
def test_show_says_everything(name: str) -> None:
    spec, text = DATASETS[name], shown(name)
    flat = " ".join(text.split())
    wanted = [
        spec.title,
        spec.homepage,
        spec.licence.name,
        spec.licence.url,
        spec.licence.allows,
        *spec.papers,
        *spec.notes,
    ]
    wanted += [url for remote in spec.remotes for url in remote.urls] + [remote.status for remote in spec.remotes]
    wanted += [count.who for count in spec.counts] + [f"{n:,}" for count in spec.counts for n in count.of.values()]
    wanted += spec.terms.split("\n") + spec.layout.split("\n") + spec.how_to_get.split("\n\n")
    wanted += [f"{key}: {value}" for key, value in spec.settings.items() if isinstance(value, str)]
    wanted += [spec.form.url, spec.form.what] if spec.form else []
    for words in wanted:
        assert " ".join(words.split()) in flat, words
    for key in {field.name for field in dataclasses.fields(DatasetConfig)} - {
        "source",
        "mirror",
        "accept_terms",
        "max_items",
        "only",
    }:
        assert key in text or key in ("kind", "preset", "video_url"), key
    assert f"inkmotion datasets add {name.split('-')[0]} --preset {name}" in text
    assert f"{DatasetConfig(kind=spec.kind, preset=name, **dict(spec.settings)).yield_floor:.0%}" in text
    assert "\x1b" not in text


def test_show_of_an_unknown_name_tells_the_known() -> None:
    with pytest.raises(ParamsError, match="be one of voxceleb1, taichihd"):
        shown("vox")


def test_check_looks_at_a_data_set_of_the_project(root: Path) -> None:
    text, is_good = check("faces", reader.load(root / "params.yaml"), Paths(root))
    assert is_good
    assert "3 of 3 items can be used" in text
    assert "Good to go: 0 errors, 0 warnings" in text


def test_check_looks_at_another_folder(project: Path, media: Callable[..., Path]) -> None:
    params = reader.load(project / "params.yaml")
    text, is_good = check("faces", params, Paths(project), path=media("a.mp4", "train/x.txt"))
    assert not is_good
    assert "Stages will fail" in text
    for words in ("0 of 2 items", "a.mp4", "x.txt", "left out: 1 empty, 1 unsupported"):
        assert words in text
    text, is_good = check("voxceleb1", params, Paths(project), path=project / "media")
    assert not is_good
    assert "vox-metadata.csv" in text


def test_check_needs_a_name_and_a_folder_that_it_can_find(project: Path) -> None:
    params = reader.load(project / "params.yaml")
    with pytest.raises(ParamsError, match="hold the name asked for; known: faces, cartoons, .*voxceleb1"):
        check("nobody", params, Paths(project))
    with pytest.raises(ParamsError, match="given by --path"):
        check("voxceleb1", params, Paths(project))
