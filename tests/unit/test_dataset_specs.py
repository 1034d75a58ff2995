"""The public data sets: complete, consistent, and documented as they are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models.errors import ParamsError
from preprocessing.config import CUTS_OF_KIND, DatasetConfig
from preprocessing.datasets import docs
from preprocessing.datasets.catalog import DATASETS, dataset_spec
from preprocessing.datasets.spec import DatasetSpec

NAMES = (
    "voxceleb1",
    "taichihd",
    "mgif",
    "fashion",
    "ffhq",
    "celeb-df-v2",
    "ink-film",
    "animation-film",
    "landscape-photos",
    "cartoon-faces",
)
PUBLISHED = {
    # data set -> numbers that a paper or its authors have published: they must all be on record
    "voxceleb1": ({"train": 18_130, "test": 503}, {"train": 12_331, "test": 444}),
    "taichihd": ({"train": 2_652, "test": 285},),
    "mgif": ({"train": 900, "test": 100},),
    "fashion": ({"train": 500, "test": 100},),
    "ffhq": ({"all": 70_000},),
    "celeb-df-v2": ({"all": 6_529}, {"test": 518}),
    "ink-film": ({"all": 718},),
    "animation-film": ({"all": 1_792},),
    "landscape-photos": ({"train": 6_656},),
    "cartoon-faces": ({"all": 317},),
}
EXPECTED = {"voxceleb1": 20_075, "taichihd": 3_334, "mgif": 1_000, "fashion": 600, "ffhq": 70_000, "celeb-df-v2": 6_529}

each = pytest.mark.parametrize("spec", DATASETS.values(), ids=lambda spec: spec.name)


def addresses(spec: DatasetSpec) -> list[str]:
    found = [spec.homepage, spec.licence.url, *(url for remote in spec.remotes for url in remote.urls)]
    return found + ([spec.form.url] if spec.form else []) + ([spec.video_url] if spec.video_url else [])


def test_all_ten_are_there() -> None:
    assert tuple(DATASETS) == NAMES
    assert all(spec.name == name for name, spec in DATASETS.items())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"preset must be one of voxceleb1, .*cartoon-faces; got 'vox'"):
        dataset_spec("vox")
    assert dataset_spec("mgif") is DATASETS["mgif"]


@each
def test_nothing_is_left_empty(spec: DatasetSpec) -> None:
    may_be_empty = {"remotes", "video_url", "form", "num_gb"}
    for one in fields(spec):
        assert getattr(spec, one.name) or one.name in may_be_empty, one.name
    assert all(text == text.strip() and "  " not in text for text in (spec.title, spec.licence.name, *spec.notes))
    assert spec.remotes or spec.form or spec.kind == "film", "no way to it"
    assert spec.num_gb or any("size" in note for note in spec.notes), "its size, or why it is not told"
    assert all(
        paper.partition(":")[0] in ("dcf", "jam", "cbam-mso", "lwcomicgan", "dualstyle") for paper in spec.papers
    )


@each
def test_addresses_are_addresses_and_their_state_is_told(spec: DatasetSpec) -> None:
    for url in addresses(spec):
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https"), url
        assert parts.hostname, url
        assert "." in parts.hostname, url
    for remote in spec.remotes:
        assert re.search(r"\b20[12]\d\b", remote.status) or "not tried" in remote.status
        assert remote.md5 is None or re.fullmatch(r"[0-9a-f]{32}", remote.md5)
        assert remote.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", remote.sha256)
        assert remote.md5 or remote.sha256 or "checksum" in remote.status, "a checksum, or that there is none"
        assert not remote.name.startswith("/")
        assert ".." not in remote.name
    assert spec.video_url is None or "{id}" in spec.video_url


@each
def test_settings_are_a_configuration(spec: DatasetSpec) -> None:
    config = DatasetConfig(kind=spec.kind, preset=spec.name, **spec.settings)
    assert config.cut_rule in CUTS_OF_KIND[spec.kind]
    assert {"makes", "cut", "split", "size_px", "yield_floor"} <= set(spec.settings), "said, not left to defaults"
    assert not {"source", "mirror", "preset", "kind", "accept_terms", "seed"} & set(spec.settings)
    assert any(note.startswith("Yield floor") and f"{config.yield_floor:g}" in note for note in spec.notes), (
        "its reason"
    )
    if config.cut_rule == "metadata":
        assert config.metadata in [remote.name for remote in spec.remotes]


@each
def test_counts_are_those_published(spec: DatasetSpec) -> None:
    known = [dict(count.of) for count in spec.counts]
    for count in PUBLISHED[spec.name]:
        assert count in known
    assert sum(count.is_expected for count in spec.counts) == 1
    assert spec.expected is not None
    assert sum(spec.expected.of.values()) == EXPECTED.get(spec.name, sum(spec.expected.of.values()))
    for count in spec.counts:
        assert set(count.of) <= {"train", "test", "all"}
        assert all(number > 0 for number in count.of.values())
        assert count.who
    if spec.kind == "film":
        assert spec.settings["num_stills"] == spec.expected.of["all"]
    if spec.settings["split"] == "official":
        assert "train" in spec.expected.of, "an official split has numbers for its sides"


def test_what_the_public_scripts_do_is_what_is_set() -> None:
    vox, taichi = DATASETS["voxceleb1"].settings, DATASETS["taichihd"].settings
    crop_vox = {"iou_cut": 0.25, "max_frames": 1024, "increase": 0.1, "size_px": 256}
    crop_taichi = {"max_frames": 1024, "increase": 0.05, "min_source_px": 300, "size_px": 256}
    crop_taichi |= {"min_person_share": 0.1, "max_camera_flow_px": 1.0, "max_intensity_jump": 1.5}
    assert crop_vox.items() <= vox.items()
    assert crop_taichi.items() <= taichi.items()
    assert vox["outside"] == taichi["outside"] == "reject"
    assert vox["resize"] == taichi["resize"] == "stretch"


def test_the_page_is_current(root: Path) -> None:
    assert (root / "docs" / "datasets.md").read_text(encoding="utf-8") == docs.page(), (
        "run `python -m preprocessing.datasets.docs`"
    )
    assert docs.PAGE.samefile(root / "docs" / "datasets.md")


@each
def test_the_page_says_everything_of_a_data_set(spec: DatasetSpec) -> None:
    text = docs.section(spec)
    joined = " ".join(text.replace("\n> ", " ").split())
    for url in addresses(spec):
        assert url in text
    for part in (spec.how_to_get, spec.terms, *spec.notes, *(remote.status for remote in spec.remotes)):
        assert " ".join(part.split()) in joined
    assert spec.layout in text
    assert all(f"`{key}`" in text for key in spec.settings)
    for command in ("datasets show", "datasets add", "download", "ledger", "cut"):
        assert f"inkmotion {command} " in text
    assert f"{sum(spec.expected.of.values()):,}" in text if spec.expected else True
    assert f"](#{docs.anchor(spec)})" in docs.page()


def test_tables_of_the_page_are_whole() -> None:
    page = re.sub(r"```.*?```", "", docs.page(), flags=re.DOTALL)
    width = 0
    for line in page.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("| ") else 0
        assert not (width and cells) or cells == width, line
        width = cells
