"""A small copy of each public data set in its real layout, made from the sample media.

Who is on which side and what is cut is as real as two faces, three bodies and a film allow: pieces of one video stand
for videos of several people. No two files are equal, so that the leak check means something.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from models.contracts import Split
from preprocessing.video_ffmpeg import executable

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
_FACES, _BODIES = SAMPLES / "faces", SAMPLES / "bodies"
WOMAN, MAN = _FACES / "woman-expressions.mp4", _FACES / "man-smile.mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Miniature:
    """One made data set, and what must be found in it."""

    name: str
    """Of the data set in the catalogue."""
    folder: Path
    """The source folder."""
    splits: dict[str, Split | None]
    """Side in the official lists by item's origin; the keys are all items."""
    identities: dict[str, str | None] = field(default_factory=dict)
    """Who is seen, by item's origin; an item that is missing here is nobody in particular."""
    num_rows: int | None = None
    """Of the metadata CSV."""


def make(name: str, folder: Path) -> Miniature:
    """Build a data set's miniature.

    Args:
        name: in the catalogue.
        folder: its source folder; made, and filled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _MAKERS[name](folder)


def piece(
    source: Path, target: Path, start: int, end: int, *, width: int | None = None, there_and_back: bool = False
) -> Path:
    """The frames [start, end) of a video as a video of its own.

    Args:
        source: the video.
        target: the file to write; its suffix says which container.
        start: first frame.
        end: first frame that is left out.
        width: in pixels; the height follows. None: as it is.
        there_and_back: followed by the same frames in reverse.
    """
    cut = f"[0:v]trim=start_frame={start}:end_frame={end},setpts=PTS-STARTPTS"
    cut += f",scale={width}:-2" if width else ""
    graph = f"{cut},split[a][b];[b]reverse[c];[a][c]concat[v]" if there_and_back else f"{cut}[v]"
    codec = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [executable(), "-v", "error", "-y", "-i", source, "-filter_complex", graph, "-map", "[v]", *codec, target]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return target


def copy(source: Path, target: Path) -> Path:
    """A file's copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return target


VOX_ROWS = (
    # video_id, start, end, box, fps, width, height, side, person
    ("WMh3ye5tBsE", 0, 70, "560-160-1120-700", 25, 1280, 720, "train", "id10005"),
    ("WMh3ye5tBsE", 20, 95, "580-160-1130-690", 25, 1280, 720, "train", "id10005"),
    ("WMh3ye5tBsE", 5, 80, "540-140-1140-710", 25, 1280, 720, "train", "id10005"),
    ("bDxy7bnj_bc", 0, 72, "620-100-1160-620", 25, 1280, 720, "train", "id10003"),
    ("bDxy7bnj_bc", 18, 90, "600-90-1180-640", 25, 1280, 720, "train", "id10003"),
    ("-7w0IBEWc9Q", 2, 76, "640-120-1230-680", 25, 1280, 720, "train", "id10001"),
    ("NXjT3732Ekg", 0, 66, "360-190-800-610", 30, 1280, 720, "test", "id10280"),
    ("NXjT3732Ekg", 6, 71, "350-180-810-620", 30, 1280, 720, "test", "id10280"),
)
"""Boxes hold at twice the size of the videos at hand, and at another frame rate than most of theirs."""
_VOX_VIDEOS = {
    "WMh3ye5tBsE": (WOMAN, 0, 100),
    "bDxy7bnj_bc": (WOMAN, 200, 296),
    "-7w0IBEWc9Q": (WOMAN, 340, 430),
    "NXjT3732Ekg": (MAN, 0, 72),
}


def _voxceleb1(folder: Path) -> Miniature:
    for one, (source, start, end) in _VOX_VIDEOS.items():
        piece(source, folder / "videos" / f"{one}.mp4", start, end)
    lines = [",".join(map(str, row)) for row in VOX_ROWS]
    header = "video_id,start,end,bbox,fps,width,height,partition,person_id"
    (folder / "vox-metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    sides: dict[str, Split | None] = {f"videos/{row[0]}.mp4": _side(row[7]) for row in VOX_ROWS}
    people: dict[str, str | None] = {f"videos/{row[0]}.mp4": row[8] for row in VOX_ROWS}
    return Miniature(name="voxceleb1", folder=folder, splits=sides, identities=people, num_rows=len(VOX_ROWS))


TAICHI_ROWS = (
    ("u6rJiF-gPx8", 0, 140, "140-330-1060-1250", 60.0, 1080, 1920, "train"),
    ("u6rJiF-gPx8", 40, 190, "140-330-1060-1250", 60.0, 1080, 1920, "train"),
    ("NBGys-uxScs", 10, 150, "380-60-1260-940", 30.0, 1768, 994, "train"),
    ("NBGys-uxScs", 0, 130, "380-60-1260-940", 30.0, 1768, 994, "train"),
    ("FBuF0xOal9M", 0, 150, "140-330-1060-1250", 60.0, 1080, 1920, "test"),
    ("FBuF0xOal9M", 50, 190, "140-330-1060-1250", 60.0, 1080, 1920, "test"),
)


def _taichihd(folder: Path) -> Miniature:
    videos = folder / "videos"
    piece(_BODIES / "balance-front.mp4", videos / "u6rJiF-gPx8.mp4", 0, 100, width=540, there_and_back=True)
    piece(_BODIES / "walk.mp4", videos / "NBGys-uxScs.mkv", 60, 140, width=884, there_and_back=True)
    piece(_BODIES / "balance-side.mp4", videos / "FBuF0xOal9M.mp4", 0, 100, width=540, there_and_back=True)
    lines = [",".join(map(str, row)) for row in TAICHI_ROWS]
    (folder / "taichi-metadata.csv").write_text(
        "\n".join(["video_id,start,end,bbox,fps,width,height,partition", *lines]) + "\n"
    )
    files = {path.stem: f"videos/{path.name}" for path in videos.iterdir()}
    sides: dict[str, Split | None] = {files[row[0]]: _side(row[7]) for row in TAICHI_ROWS}
    return Miniature(name="taichihd", folder=folder, splits=sides, num_rows=len(TAICHI_ROWS))


def _mgif(folder: Path) -> Miniature:
    sides: dict[str, Split | None] = {}
    gifs = sorted((SAMPLES / "cartoons").glob("*.gif"))[:8]
    for number, gif in enumerate(gifs):
        side: Split = "test" if number >= 6 else "train"
        origin = f"{side}/{number % 6:05d}.gif"
        copy(gif, folder / "moving-gif" / origin)
        sides[origin] = side
    return Miniature(name="mgif", folder=folder, splits=sides)


_FASHION = {
    "train/81FyMPk-WIS.mp4": ("walk.mp4", 0, 74, 530),
    "train/91+bCFG1jOS.mp4": ("walk.mp4", 78, 150, 530),
    "train/91+PxmDyrgS.mp4": ("balance-front.mp4", 0, 72, 288),
    "test/91-3003CN5S.mp4": ("balance-side.mp4", 0, 72, 288),
    "test/91BjuE6irxS.mp4": ("walk.mp4", 154, 226, 530),
}


def _fashion(folder: Path) -> Miniature:
    for side in ("train", "test"):
        mine = [origin for origin in _FASHION if origin.startswith(side)]
        urls = [f"https://m.media-amazon.com/images/I/{Path(origin).name}" for origin in mine]
        (folder / f"fashion_{side}.txt").write_text("\n".join(urls) + "\n")
    for origin, (source, start, end, width) in _FASHION.items():
        piece(_BODIES / source, folder / origin, start, end, width=width)
    sides: dict[str, Split | None] = {origin: _side(origin.partition("/")[0]) for origin in _FASHION}
    return Miniature(name="fashion", folder=folder, splits=sides)


_PORTRAITS = (
    # number, photo, left and top of the square, its side
    (0, "astronaut.jpg", 60, 0, 400),
    (1, "man-smiling.jpg", 0, 0, 560),
    (1999, "five-people.jpg", 100, 0, 260),
    (59_999, "five-people.jpg", 340, 60, 260),
    (60_000, "five-people.jpg", 620, 135, 260),
    (69_999, "astronaut.jpg", 0, 0, 512),
)


def _ffhq(folder: Path) -> Miniature:
    entries, sides = {}, {}
    for number, photo, left, top, side in _PORTRAITS:
        origin = f"images1024x1024/{number // 1000 * 1000:05d}/{number:05d}.png"
        path = folder / origin
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(SAMPLES / "portraits" / photo) as picture:
            crop = picture.convert("RGB").crop((left, top, left + side, top + side))
        crop.resize((1024, 1024), Image.Resampling.BICUBIC).save(path, compress_level=1)
        entries[str(number)] = _ffhq_entry(origin, path.read_bytes(), number)
        sides[origin] = _side("train" if number < 60_000 else "test")
    (folder / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    return Miniature(name="ffhq", folder=folder, splits=dict(sides))


def _ffhq_entry(origin: str, content: bytes, number: int) -> dict[str, object]:
    def described(path: str) -> dict[str, object]:
        return {
            "file_url": f"https://drive.google.com/uc?id=made-up-{number}",
            "file_path": path,
            "file_size": len(content),
            "file_md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "pixel_size": [1024, 1024],
            "face_landmarks": [[1.5, 2.5]] * 68,
        }

    return {
        "category": "training" if number < 60_000 else "validation",
        "metadata": {"photo_title": 'a "title", {with} [signs] \\ é', "license": "Attribution-NonCommercial License"},
        "image": described(origin),
        "thumbnail": described(origin.replace("images1024x1024", "thumbnails128x128")),
        "in_the_wild": described(origin.replace("images1024x1024", "in-the-wild-images")),
    }


def _celeb_df(folder: Path) -> Miniature:
    files = {f"Celeb-real/id{person}_0000.mp4": (WOMAN, 30 * person, f"id{person}") for person in range(4)}
    files |= {f"YouTube-real/{number:05d}.mp4": (WOMAN, 140 + 40 * number, None) for number in range(5)}
    files |= {"Celeb-real/id5_0003.mp4": (MAN, 0, "id5"), "Celeb-synthesis/id5_id0_0003.mp4": (MAN, 4, "id5")}
    for origin, (source, start, _) in files.items():
        piece(source, folder / origin, start, start + 66, width=480)
    tested = ("Celeb-real/id1_0000.mp4", "YouTube-real/00002.mp4", "Celeb-synthesis/id5_id0_0003.mp4")
    lines = [f"{0 if 'synthesis' in origin else 1} {origin}" for origin in tested]
    (folder / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")
    sides: dict[str, Split | None] = {origin: "test" if origin in tested else "train" for origin in files}
    people = {origin: person for origin, (_, _, person) in files.items()}
    return Miniature(name="celeb-df-v2", folder=folder, splits=sides, identities=people)


def _film(name: str) -> Callable[[Path], Miniature]:
    def made(folder: Path) -> Miniature:
        copy(SAMPLES / "films" / "big-buck-bunny-excerpt.mp4", folder / "film.mp4")
        return Miniature(name=name, folder=folder, splits={"film.mp4": None})

    return made


def _landscape_photos(folder: Path) -> Miniature:
    sides: dict[str, Split | None] = {}
    photos = sorted((SAMPLES / "photos").glob("*.jpg"))[:14]
    for number, photo in enumerate(photos):
        place = "train_photo" if number < 10 else "val" if number < 12 else "test/HR_photo"
        origin = f"{place}/{number}.jpg"
        copy(photo, folder / origin)
        sides[origin] = "train" if number < 10 else "test"
    copy(SAMPLES / "paintings" / "greatwave.jpg", folder / "Hayao" / "style" / "0.jpg")  # no photo
    return Miniature(name="landscape-photos", folder=folder, splits=sides)


def _cartoon_faces(folder: Path) -> Miniature:
    sides: dict[str, Split | None] = {}
    for number, face in enumerate(sorted((SAMPLES / "cartoon-faces").glob("*.png"))[::6]):
        origin = f"Cartoons_{number:05d}_01.jpg"
        with Image.open(face) as picture:
            flat = Image.new("RGB", picture.size, "white")
            flat.paste(picture.convert("RGBA"), mask=picture.convert("RGBA"))
        flat.save(folder / origin, quality=95)
        sides[origin] = None
    (folder / "boxes.csv").write_text("file,left,top,right,bottom\nCartoons_00001_01.jpg,40,40,216,216\n")
    return Miniature(name="cartoon-faces", folder=folder, splits=sides)


def _side(word: object) -> Split:
    return "test" if word == "test" else "train"


_MAKERS: dict[str, Callable[[Path], Miniature]] = {
    "voxceleb1": _voxceleb1,
    "taichihd": _taichihd,
    "mgif": _mgif,
    "fashion": _fashion,
    "ffhq": _ffhq,
    "celeb-df-v2": _celeb_df,
    "ink-film": _film("ink-film"),
    "animation-film": _film("animation-film"),
    "landscape-photos": _landscape_photos,
    "cartoon-faces": _cartoon_faces,
}
