"""What each data set finds in a source folder: the miniatures whole, and folders and lists that mean harm."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from miniature_kit import Miniature, make

from models.errors import SourceError
from preprocessing.config import DatasetConfig
from preprocessing.datasets import ffhq, listing
from preprocessing.datasets.catalog import DATASETS
from preprocessing.datasets.spec import Item, Listing

VOX_HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id"


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Miniature]:
    folder = tmp_path_factory.mktemp("miniatures")
    return {name: make(name, folder / name) for name in DATASETS}


def config(name: str, **changes: object) -> DatasetConfig:
    return DatasetConfig(kind=DATASETS[name].kind, preset=name, **{**DATASETS[name].settings, **changes})


def found(name: str, folder: Path, **changes: object) -> Listing:
    return DATASETS[name].listing(folder, config(name, **changes))


def fill(folder: Path, *files: str, content: bytes = b"media") -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def reasons(items: tuple[Item, ...]) -> dict[str, str]:
    return {item.origin: item.problem.reason for item in items if item.problem}


@pytest.mark.parametrize("name", DATASETS)
def test_a_miniature_is_found_whole(name: str, miniatures: dict[str, Miniature]) -> None:
    made = miniatures[name]
    items = found(name, made.folder).items
    assert reasons(items) == {}
    assert {item.origin: item.split for item in items} == made.splits
    assert {item.origin: item.identity for item in items} == {
        origin: made.identities.get(origin) for origin in made.splits
    }
    assert all(item.path is not None and item.path.is_file() for item in items)
    stems = {Path(item.name).stem.lower() for item in items}
    assert len(stems) == len(items), "names must be unique without their suffix"
    assert all(
        set(item.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for item in items
    )
    assert found(name, made.folder).items == items, "always the same order"


@pytest.mark.parametrize("name", ["mgif", "ffhq", "celeb-df-v2", "landscape-photos", "voxceleb1", "fashion"])
def test_one_more_folder_around_it_changes_nothing(name: str, miniatures: dict[str, Miniature], tmp_path: Path) -> None:
    made = miniatures[name]
    (tmp_path / "wrapper").mkdir()
    for entry in made.folder.iterdir():
        os.link(entry, tmp_path / "wrapper" / entry.name) if entry.is_file() else _linked(entry, tmp_path / "wrapper")
    inner = tmp_path / "wrapper" / "moving-gif" if name == "mgif" else tmp_path / "wrapper"
    assert {item.origin for item in found(name, inner.parent).items} == set(made.splits)


def _linked(folder: Path, target: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        place = target / path.relative_to(folder.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_is_refused_in_words(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"data set {name} must hold"):
        found(name, tmp_path)


# By metadata


def test_metadata_names_the_videos_once_in_its_order(miniatures: dict[str, Miniature]) -> None:
    made = miniatures["voxceleb1"]
    listed = found("voxceleb1", made.folder)
    assert [item.video_id for item in listed.items] == ["WMh3ye5tBsE", "bDxy7bnj_bc", "-7w0IBEWc9Q", "NXjT3732Ekg"]
    assert listed.metadata == made.folder / "vox-metadata.csv"


def test_videos_that_are_not_there_are_to_be_fetched(tmp_path: Path) -> None:
    rows = [
        "aaaaaaaaaaa,0,99,10-10-90-90,25,640,360,train,id10001",
        "_bbbbbbbbbb,0,99,10-10-90-90,25,640,360,test,id10270",
        "ccccccccccc,0,99,10-10-90-90,25,640,360,train,id10002",
        "ddddddddddd,0,99,10-10-90-90,25,640,360,train,id10003",
        "AAAAAAAAAAA,0,99,10-10-90-90,25,640,360,train,id10004",
    ]
    (tmp_path / "vox-metadata.csv").write_text("\n".join([VOX_HEADER, *rows]))
    fill(tmp_path, "videos/ccccccccccc.webm", "ddddddddddd/whatever.mkv", "videos/ddddddddddd.txt", "other.mp4")
    items = found("voxceleb1", tmp_path).items
    by_id = {item.video_id: item for item in items}
    assert by_id["aaaaaaaaaaa"].path is None
    assert by_id["aaaaaaaaaaa"].origin == "https://www.youtube.com/watch?v=aaaaaaaaaaa"
    assert by_id["_bbbbbbbbbb"].split == "test"
    assert by_id["_bbbbbbbbbb"].identity == "id10270"
    assert by_id["ccccccccccc"].origin == "videos/ccccccccccc.webm"
    assert by_id["ccccccccccc"].name.endswith(".webm")
    assert by_id["ddddddddddd"].path == tmp_path / "ddddddddddd" / "whatever.mkv"
    assert len({item.name.lower() for item in items}) == 5, "ids that differ in case alone have names of their own"


def test_bad_rows_are_left_to_the_cut_which_names_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        "aaaaaaaaaaa,0,99,10-10-90-90,25,640,360,train,id10001",
        "aaaaaaaaaaa,99,5,10-10-90-90,25,640,360,train,id10001",
        "bbbbbbbbbbb,zero,99,10-10-90-90,25,640,360,train,id10001",
        "aaaaaaaaaaa,0,99,10-10-90-90,25,640,360,train,id10001",
    ]
    (tmp_path / "vox-metadata.csv").write_text("\n".join([VOX_HEADER, *rows]))
    fill(tmp_path, "aaaaaaaaaaa.mp4")
    assert [item.video_id for item in found("voxceleb1", tmp_path).items] == ["aaaaaaaaaaa"]
    assert "3 rows can't be used" in caplog.text


def test_a_csv_of_bad_rows_alone_is_refused_with_their_numbers(tmp_path: Path) -> None:
    row = "bbbbbbbbbbb,zero,99,10-10-90-90,25,640,360,train,id10001"
    (tmp_path / "vox-metadata.csv").write_text("\n".join([VOX_HEADER, *[row] * 30]))
    with pytest.raises(
        SourceError, match=r"must hold a row that can be used; got .*\b2\b.*\b21\b.*and 10 more"
    ) as caught:
        found("voxceleb1", tmp_path)
    assert len(str(caught.value)) < 8000


@pytest.mark.parametrize("one", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a\\b", "a b", "x" * 300])
def test_an_id_that_is_a_path_leads_nowhere(one: str, tmp_path: Path) -> None:
    folder = fill(tmp_path, "source/videos/good.mp4", "etc/passwd", "passwd.mp4") / "source"
    rows = ["good,0,99,10-10-90-90,25,640,360,train,id1", f"{one},0,99,10-10-90-90,25,640,360,train,id2"]
    (folder / "vox-metadata.csv").write_text("\n".join([VOX_HEADER, *rows]))
    items = found("voxceleb1", folder).items
    assert [item.video_id for item in items if item.problem is None] == ["good"]
    assert set(reasons(items).values()) <= {"bad-row"}
    assert all(item.path is None or item.path.is_relative_to(folder) for item in items)


def test_a_video_of_both_sides_is_on_none(tmp_path: Path) -> None:
    rows = ["aaa,0,99,10-10-90-90,25,640,360,train,id1", "aaa,200,299,10-10-90-90,25,640,360,test,id2"]
    (tmp_path / "vox-metadata.csv").write_text("\n".join([VOX_HEADER, *rows]))
    (item,) = found("voxceleb1", tmp_path).items
    assert item.split is None
    assert item.identity is None


def test_clips_cropped_by_the_public_scripts(tmp_path: Path) -> None:
    folder = fill(
        tmp_path,
        "train/id10005#WMh3ye5tBsE#003657#003994.mp4",
        "train/id10005#WMh3ye5tBsE#000000#000100.mp4",
        "test/id10280#NXjT3732Ekg#001093#001192.mp4",
        "test/id10281#XXXXXXXXXXX#000000#000099.mp4/0000000.png",
    )
    with pytest.raises(SourceError, match=r"with clips in train and test\. Set cut: whole"):
        found("voxceleb1", folder)
    items = found("voxceleb1", folder, cut="detect").items
    by_origin = {item.origin: item for item in items}
    assert [by_origin[origin].identity for origin in sorted(by_origin)] == ["id10280", "id10281", "id10005", "id10005"]
    assert by_origin["test/id10280#NXjT3732Ekg#001093#001192.mp4"].split == "test"
    frames = by_origin["test/id10281#XXXXXXXXXXX#000000#000099.mp4"]
    assert frames.problem is not None, "a folder of frames is turned away as one item"
    assert "a folder of pictures" in str(frames.problem)
    assert all("#" not in item.name for item in items)


# Folders


def test_what_leads_out_or_is_no_medium_is_told(tmp_path: Path) -> None:
    folder = fill(tmp_path, "s/train/a.gif", "s/train/b.doc", "s/test/c.gif", "s/test/README.gif", "out.gif") / "s"
    (folder / "train" / "link.gif").symlink_to(tmp_path / "out.gif")
    (folder / "train" / "dead.gif").symlink_to(folder / "nothing.gif")
    (folder / "test" / "folder").symlink_to(tmp_path)
    (folder / "test" / "same.gif").symlink_to(folder / "train" / "a.gif")
    os.mkfifo(folder / "test" / "pipe.gif")
    items = found("mgif", folder).items
    assert reasons(items) == {
        "test/folder": "outside-folder",
        "test/pipe.gif": "unsupported",
        "train/b.doc": "unsupported",
        "train/dead.gif": "missing",
        "train/link.gif": "outside-folder",
    }
    assert {item.origin for item in items} - set(reasons(items)) == {"train/a.gif", "test/c.gif", "test/same.gif"}


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "train") + b"/\xff\n;rm.gif")).write_bytes(b"x")
    (item,) = found("mgif", tmp_path).items
    assert item.origin == "train/\\udcff\\n;rm.gif" or item.origin == "train/\\xff\\n;rm.gif"
    assert item.name.isascii()
    assert item.path is not None
    assert item.path.is_file()


def test_landscape_photos_of_ones_own(tmp_path: Path) -> None:
    items = found("landscape-photos", fill(tmp_path, "alps/1.jpg", "2.png", "clip.mp4")).items
    assert reasons(items) == {"clip.mp4": "unsupported"}
    assert {item.split for item in items} == {None}


def test_boxes_given_by_hand_are_found(tmp_path: Path) -> None:
    fill(tmp_path, "face.jpg")
    assert found("cartoon-faces", tmp_path).boxes is None
    fill(tmp_path, "boxes.csv")
    assert found("cartoon-faces", tmp_path).boxes == tmp_path / "boxes.csv"
    assert found("cartoon-faces", tmp_path, boxes="mine.csv").boxes == tmp_path / "mine.csv"


# Fashion's lists


def test_listed_videos_are_to_be_fetched_or_are_there(tmp_path: Path) -> None:
    fill(tmp_path, "videos/91+b.mp4", "train/not-listed.mp4")
    (tmp_path / "fashion_train.txt").write_text(
        "https://m.media-amazon.com/images/I/91%2Bb.mp4\r\n\r\nhttp://host/x/far.mp4?a=1\n"
    )
    (tmp_path / "fashion_test.txt").write_text("https://m.media-amazon.com/images/I/91c.mp4\n")
    by_origin = {item.origin: item for item in found("fashion", tmp_path).items}
    assert set(by_origin) == {"train/91+b.mp4", "train/far.mp4", "test/91c.mp4", "train/not-listed.mp4"}
    assert by_origin["train/91+b.mp4"].path == tmp_path / "videos" / "91+b.mp4"
    assert by_origin["train/far.mp4"].path is None
    assert by_origin["train/far.mp4"].urls == ("http://host/x/far.mp4?a=1",)
    assert by_origin["test/91c.mp4"].split == "test"
    assert all(item.name.isascii() and "+" not in item.name for item in by_origin.values())


def test_bad_lines_of_a_list_are_items_with_their_number(tmp_path: Path) -> None:
    lines = [
        "file:///etc/passwd.mp4",
        "https://host/good.mp4",
        "https://host/..%2F..%2Fetc%2Fpasswd.mp4",
        "https://other/good.mp4",
        "<html>",
        "https:///nohost.mp4",
        "https://host/page.html",
        "http://[bad/x.mp4",
        "https://host/" + "a" * 5000 + ".mp4",
        "https://host/.mp4",
    ]
    (tmp_path / "fashion_train.txt").write_text("\n".join(lines))
    (tmp_path / "fashion_test.txt").write_bytes(b"\xff\xfe\x00\n")
    items = found("fashion", tmp_path).items
    assert [item.origin for item in items if item.problem is None] == ["train/good.mp4"]
    bad = {f"fashion_train.txt:{number}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 10)} | {"fashion_test.txt:1"}
    assert set(reasons(items)) == bad
    assert reasons(items)["fashion_train.txt:4"] == "duplicate-row"
    message = str(next(item.problem for item in items if item.origin == "fashion_train.txt:4"))
    assert "fashion_train.txt line 4 must name a video that is new; it stands in fashion_train.txt line 2" in message
    assert all(len(str(item.problem)) < 400 for item in items)


def test_a_list_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "fashion_train.txt").open("wb") as file:
        file.truncate(listing.MAX_LIST_BYTES + 1)
    with pytest.raises(SourceError, match="at most 67,108,864 bytes"):
        found("fashion", tmp_path)


# FFHQ's metadata


def entry(number: int, **changes: object) -> dict[str, object]:
    path = f"images1024x1024/{number // 1000 * 1000:05d}/{number:05d}.png"
    image = {"file_url": "https://drive.google.com/uc?id=1", "file_path": path, "file_size": 5, "file_md5": "0" * 32}
    return {"category": "training", "image": {**image, **changes}}


def ffhq_items(folder: Path, text: str) -> tuple[Item, ...]:
    (folder / ffhq.METADATA).write_text(text)
    return found("ffhq", folder).items


def test_ffhq_takes_addresses_sizes_and_checksums(tmp_path: Path) -> None:
    fill(tmp_path, "00001.png", "00000/00002.png")
    text = json.dumps({str(number): entry(number) for number in range(3)}, indent=1)
    items = ffhq_items(tmp_path, text)
    assert [item.origin for item in items] == [f"images1024x1024/00000/0000{number}.png" for number in range(3)]
    assert [item.path and item.path.relative_to(tmp_path).as_posix() for item in items] == [
        None,
        "00001.png",
        "00000/00002.png",
    ]
    assert {(item.md5, item.num_bytes, item.urls) for item in items} == {
        ("0" * 32, 5, ("https://drive.google.com/uc?id=1",))
    }


def test_ffhq_takes_thumbnails_for_small_sizes(miniatures: dict[str, Miniature]) -> None:
    items = found("ffhq", miniatures["ffhq"].folder, size_px=128).items
    assert {item.origin.partition("/")[0] for item in items} == {"thumbnails128x128"}
    assert {item.path for item in items} == {None}


def test_ffhq_without_metadata_goes_by_the_numbers(tmp_path: Path) -> None:
    fill(tmp_path, "images1024x1024/59000/59999.png", "images1024x1024/60000/60000.png", "images1024x1024/x.png")
    sides = {item.origin: item.split for item in found("ffhq", tmp_path).items}
    assert list(sides.values()) == ["train", "test", None]


@pytest.mark.parametrize(
    "changes",
    [
        {"file_path": "../../etc/passwd"},
        {"file_path": "images1024x1024/00000/../../x.png"},
        {"file_path": ["x"]},
        {"file_url": "https://drive.google.com.evil.example/uc?id=1"},
        {"file_url": "file:///etc/passwd"},
        {"file_md5": "F" * 32},
        {"file_size": -1},
        {"file_size": "5"},
        {"file_size": None},
    ],
)
def test_an_entry_of_another_form_is_told(changes: dict[str, object], tmp_path: Path) -> None:
    items = ffhq_items(tmp_path, json.dumps({"0": entry(0), "1": entry(1, **changes), "2": 3, "..": entry(2)}))
    assert reasons(items) == {"ffhq-dataset-v2.json:1": "bad-row", "ffhq-dataset-v2.json:2": "bad-row"}
    assert [item.origin for item in items if not item.problem] == [
        "images1024x1024/00000/00000.png",
        "images1024x1024/00000/00002.png",
    ]


def test_a_picture_that_is_named_twice_is_told(tmp_path: Path) -> None:
    text = ", ".join(f'"{key}": {json.dumps(value)}' for key, value in (("0", entry(0)), ("0", entry(0)), ("x", {})))
    items = ffhq_items(tmp_path, "{" + text + "}")
    assert [item.problem and item.problem.reason for item in items] == [None, "duplicate-row", "bad-row"]
    assert len({item.name for item in items}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"0": ',
        '{"0" 1}',
        "{0: 1}",
        '{"0": 1 "1": 2}',
        '{"0": ' + "[" * 100_000,
        '{"0": ' + "9" * 10_000 + "}",
        '{"0": "' + "x" * 3_000_000 + '"}',
        "<html>quota exceeded</html>",
        '{"0": {}',
    ],
)
def test_metadata_that_are_no_metadata_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ffhq-dataset-v2.json"):
        ffhq_items(tmp_path, text)


def test_the_memory_does_not_grow_with_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / ffhq.METADATA
    filler = "y" * 4000
    with path.open("w") as file:
        file.write("{" + ",".join(f'"{number}": {{"x": "{filler}"}}' for number in range(5000)) + "}")
    tracemalloc.start()
    assert sum(1 for _ in ffhq.entries(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 12_000_000


# Celeb-DF's test list


def test_celeb_df_reads_people_and_the_list(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "Celeb-real/videos/id0_0000.mp4",
        "Celeb-real/id12_0011.mp4",
        "Celeb-synthesis/id0_id16_0000.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-real/odd.mp4",
    )
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id16_0000.mp4\n1 YouTube-real/00999.mp4\nnonsense\n"
        "1 ../../etc/passwd\n1 Celeb-real/id0_0000.mp4\n"
    )
    items = found("celeb-df-v2", tmp_path).items
    good = {item.origin: (item.identity, item.split) for item in items if item.problem is None}
    assert good == {
        "Celeb-real/id0_0000.mp4": ("id0", "test"),
        "Celeb-real/id12_0011.mp4": ("id12", "train"),
        "Celeb-real/odd.mp4": (None, "train"),
        "Celeb-synthesis/id0_id16_0000.mp4": ("id0", "test"),
        "YouTube-real/00170.mp4": (None, "train"),
    }
    assert reasons(items) == {
        "YouTube-real/00999.mp4": "missing",
        "List_of_testing_videos.txt:4": "bad-row",
        "List_of_testing_videos.txt:5": "bad-row",
        "List_of_testing_videos.txt:6": "duplicate-row",
    }


def test_celeb_df_needs_its_list_for_the_official_split_alone(tmp_path: Path) -> None:
    fill(tmp_path, "Celeb-real/id0_0000.mp4")
    assert [item.split for item in found("celeb-df-v2", tmp_path).items] == [None]
    with pytest.raises(SourceError, match=r"List_of_testing_videos\.txt must be readable"):
        found("celeb-df-v2", tmp_path, split="official")
