"""The composed system with models that can be seen through: what is drawn, moved, pasted, written, refused and left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stylise_kit import KitEngine

from models.errors import EnvironmentProblem, ParamsError, SourceError
from pipelines import palette_gif, stylise_animate_scene
from pipelines.animate import AnimateOptions
from pipelines.palette_gif import Emoji
from pipelines.photo_faces import PhotoFace
from pipelines.served.motion import Motion
from pipelines.stage import as_json
from pipelines.stylise_animate import (
    Found,
    Stopped,
    StyliseAnimateOptions,
    StyliseAnimateReport,
    Watch,
    run,
)
from pipelines.stylist import OUTPUTS, InkStylist, Output, check_style, only_style
from preprocessing.align import TurnedSquare
from preprocessing.boxes import Box
from preprocessing.video import probe, read_clip, read_picture, write_video

SIZE, FRAMES = 32, 6
MOTION = AnimateOptions(max_frames=FRAMES, find_best_frame=False)


class Mover:
    """Every frame is its source, a little darker from frame to frame, so that the source can be told."""

    size_px = SIZE
    has_avd = False

    def __init__(self) -> None:
        self.sources: list[np.ndarray] = []
        self.rendered = 0

    def keypoints(self, frames: np.ndarray) -> Motion:
        assert frames.shape[1:] == (SIZE, SIZE, 3)
        value = np.tile(np.float32([[0, 0], [0.5, -0.5], [-0.5, -0.5]]), (len(frames), 1, 1))
        return Motion(value, np.broadcast_to(np.eye(2, dtype=np.float32), (len(frames), 3, 2, 2)))

    def disentangle(self, source: np.ndarray, pose: Motion) -> Motion:
        raise NotImplementedError

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        self.sources.append(source)
        count = len(motion.value)
        shade = 1 - 0.05 * (self.rendered + np.arange(count, dtype=np.float32))
        self.rendered += count
        frames: np.ndarray = source.astype(np.float32)[None] / 255 * shade[:, None, None, None]
        return np.clip(frames, 0, 1)


class Colours:
    """A stylist with structure: each of its pictures is one plain colour."""

    name, styles, has_structure, size_px = "models:/colours/1", ("red", "blue", "rose"), True, 64
    PLAIN: dict[Output, tuple[int, int, int]] = {
        "reconstruction": (20, 20, 20),
        "style": (250, 30, 30),
        "structure": (30, 30, 250),
        "structure-off": (30, 250, 30),
    }

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def thumbnail(self, style: str) -> np.ndarray | None:
        return None

    def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[Output, np.ndarray]:
        check_style(self, style)
        self.asked.append((crop, style, structure, colour))
        return {name: np.full_like(crop, self.PLAIN[name]) for name in OUTPUTS}


@pytest.fixture(scope="module")
def photo(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait of 229x225."""
    whole = Image.fromarray(read_picture(samples / "portraits" / "man-smiling.jpg"))
    path = tmp_path_factory.mktemp("photo") / "me.png"
    whole.resize((229, 225), Image.Resampling.BOX).save(path)
    return path


@pytest.fixture(scope="module")
def driving(samples: Path) -> Path:
    return samples / "faces" / "man-smile.mp4"


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PhotoFace, ...]]:
    """Three faces are found at known places, whatever the photo."""
    found = tuple(
        PhotoFace(
            number=number,
            head=Box(x - 15, 90, x + 15, 130),
            square=TurnedSquare(x=x, y=110, right_x=24, right_y=0),
            is_aligned=True,
        )
        for number, x in enumerate((40, 110, 180), 1)
    )
    monkeypatch.setattr(stylise_animate_scene, "find_faces", lambda picture: found)
    return found


def made(
    photo: Path | Found, driving: Path, out: Path, *, style: str = "red", watch: Watch | None = None, **options: Any
) -> tuple[StyliseAnimateReport, Colours, Mover]:
    stylist, mover = Colours(), Mover()
    chosen = StyliseAnimateOptions(**{"motion": MOTION, **options})
    report = run(
        photo, style, driving, out, stylist=stylist, mover=("models:/mover/1", mover), options=chosen, watch=watch
    )
    return report, stylist, mover


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_faces_square_is_drawn_and_the_drawing_moved(photo: Path, driving: Path, tmp_path: Path) -> None:
    report, stylist, mover = made(photo, driving, tmp_path / "me.gif", structure=0.5, colour=0.25)
    ((crop, style, structure, colour),) = stylist.asked
    assert (style, structure, colour) == ("red", 0.5, 0.25)
    assert crop.shape == (64, 64, 3)
    assert np.abs(crop[20:50, 16:48].astype(int) - crop[20:50, 16:48, :1]).mean() > 5  # skin, not the plain photo
    assert all((source == Colours.PLAIN["style"]).all() for source in mover.sources)
    frames, _ = read_clip(tmp_path / "me.gif")
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.abs(frames[0].astype(int) - Colours.PLAIN["style"]).max() < 6
    (face,) = report.faces
    assert face.is_aligned
    assert 100 < face.side_px < 160
    assert (report.num_found, report.num_frames, report.width, report.height) == (1, FRAMES, SIZE, SIZE)
    assert (report.stylist, report.mover, report.style) == ("models:/colours/1", "models:/mover/1", "red")
    assert report.num_bytes == ((tmp_path / "me.gif").stat().st_size,)
    assert files(tmp_path) == ["me.gif"]
    told = json.loads(json.dumps(as_json(report)))
    assert told["seconds"]["faces"] > 0
    assert told["faces"][0]["number"] == 1


@pytest.mark.parametrize("shown", OUTPUTS)
def test_any_of_the_stylists_pictures_can_be_moved(
    photo: Path, driving: Path, tmp_path: Path, three: object, shown: Output
) -> None:
    _, _, mover = made(photo, driving, tmp_path / "me.gif", face=1, shown=shown)
    assert (mover.sources[0] == Colours.PLAIN[shown]).all()


def test_all_pictures_are_kept_where_asked(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    report, _, _ = made(photo, driving, tmp_path / "me.gif", face=2, pictures=tmp_path / "kept" / "here")
    names = [f"face-2-{name}.png" for name in ("crop", *OUTPUTS)]
    assert sorted(path.name for path in (tmp_path / "kept" / "here").iterdir()) == sorted(names)
    assert [Path(path).name for path in report.pictures] == names
    red = np.asarray(Image.open(tmp_path / "kept" / "here" / "face-2-style.png"))
    assert (red == Colours.PLAIN["style"]).all()


def test_pasted_back_the_photo_stays_around_the_face(
    photo: Path, driving: Path, tmp_path: Path, three: tuple[PhotoFace, ...]
) -> None:
    report, _, _ = made(photo, driving, tmp_path / "me.mp4", face=2, paste_back=True)
    assert (report.width, report.height, report.pasted) == (230, 226, True)  # even sides
    assert report.has_audio
    assert probe(tmp_path / "me.mp4").has_audio
    first = read_clip(tmp_path / "me.mp4")[0][0, :225, :229].astype(int)
    assert np.abs(first[100:120, 100:120] - Colours.PLAIN["style"]).max() < 12
    around = np.abs(first - read_picture(photo))
    assert around[:70].mean() < 4
    assert around[:, 150:].mean() < 4


def test_all_faces_are_pasted_into_one_file(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    report, stylist, _ = made(photo, driving, tmp_path / "us.gif", face="all", paste_back=True)
    assert [face.number for face in report.faces] == [1, 2, 3]
    assert len(stylist.asked) == 3
    first = read_clip(tmp_path / "us.gif")[0][0].astype(int)
    for x in (40, 110, 180):
        assert first[110, x, 0] > 120  # each is rendered darker than the one before
        assert first[110, x, 1:].max() < 60
    assert files(tmp_path) == ["us.gif"]


def test_faces_that_are_not_pasted_have_a_file_each(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    report, _, _ = made(photo, driving, tmp_path / "us.gif", face="all")
    assert files(tmp_path) == ["us-1.gif", "us-2.gif", "us-3.gif"]
    assert [Path(out).name for out in report.outputs] == files(tmp_path)
    assert all(len(read_clip(Path(out))[0]) == FRAMES for out in report.outputs)


def test_more_faces_than_a_model_remembers_each_have_all_frames(
    photo: Path, driving: Path, tmp_path: Path, three: tuple[PhotoFace, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(
        PhotoFace(number=number, head=three[0].head, square=three[0].square, is_aligned=True) for number in range(1, 7)
    )
    monkeypatch.setattr(stylise_animate_scene, "find_faces", lambda picture: many)
    seen: list[tuple[str, int, int]] = []
    watch = Watch(tell=lambda *step: seen.append(step))
    report, _, mover = made(photo, driving, tmp_path / "us.gif", face="all", watch=watch)
    assert len(report.outputs) == 6
    assert mover.rendered == 6 * FRAMES
    assert {len(read_clip(Path(out))[0]) for out in report.outputs} == {FRAMES}
    steps = [done for stage, done, total in seen if stage == "frames"]
    assert steps == sorted(steps)
    assert {total for stage, _, total in seen if stage == "frames"} == {6 * FRAMES}


def test_of_a_photo_whose_faces_are_known_nobody_looks_for_them(
    photo: Path, driving: Path, tmp_path: Path, three: tuple[PhotoFace, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain, _ = made(photo, driving, tmp_path / "plain.gif", face=2)
    known = Found(path=photo, picture=read_picture(photo), faces=three)
    for looker in ("find_faces", "read_photo"):
        monkeypatch.setattr(stylise_animate_scene, looker, lambda *_: pytest.fail("looked again"))
    report, stylist, _ = made(known, driving, tmp_path / "known.gif", face=2)
    np.testing.assert_array_equal(stylist.asked[0][0], plain.asked[0][0])
    assert (report.photo, report.num_found, report.faces[0].number) == (str(photo), 3, 2)
    assert (tmp_path / "known.gif").read_bytes() == (tmp_path / "plain.gif").read_bytes()


def test_several_files_hold_the_frames_of_one_run(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    report, _, mover = made(photo, driving, tmp_path / "us.gif", face="all", also=(".mp4",))
    assert files(tmp_path) == sorted(f"us-{number}.{kind}" for number in (1, 2, 3) for kind in ("gif", "mp4"))
    assert mover.rendered == 3 * FRAMES
    assert sorted(Path(out).name for out in report.outputs) == files(tmp_path)
    assert report.num_bytes == tuple(Path(out).stat().st_size for out in report.outputs)
    assert report.has_audio
    for number in (1, 2, 3):
        gif, mp4 = (read_clip(tmp_path / f"us-{number}.{kind}")[0].astype(int) for kind in ("gif", "mp4"))
        assert gif.shape == mp4.shape == (FRAMES, SIZE, SIZE, 3)
        assert np.abs(gif - mp4).mean() < 6


def test_an_emoji_is_small_and_round(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    look = Emoji(size_px=48, colours=16, background="transparent")
    report, _, _ = made(photo, driving, tmp_path / "me.gif", face=1, emoji=look)
    assert (report.width, report.height) == (48, 48)
    with Image.open(tmp_path / "me.gif") as opened:
        shown = np.asarray(opened.convert("RGBA"))
        assert opened.info["loop"] == 0
    assert shown[0, 0, 3] == 0
    assert shown[24, 24, 3] == 255
    assert shown[24, 24, 0] > 200


def test_an_emoji_of_too_many_frames_is_refused_before_they_are_made(
    photo: Path, driving: Path, tmp_path: Path, three: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(palette_gif, "MOST_FRAMES", 2)
    with pytest.raises(ParamsError, match="emoji must have at most 2 frames.*max_frames.*got 3"):
        made(photo, driving, tmp_path / "new" / "me.gif", face=1, emoji=Emoji(fps=12))
    assert files(tmp_path) == []


def test_an_emoji_that_does_not_fit_is_kept_at_its_smallest(
    photo: Path, tmp_path: Path, driving: Path, three: object
) -> None:
    class Noisy(Colours):
        def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[Output, np.ndarray]:
            return {"style": np.random.default_rng(0).integers(0, 256, crop.shape, dtype=np.uint8)}

    options = StyliseAnimateOptions(motion=MOTION, face=1, emoji=Emoji(size_px=96, max_kb=1))
    mover = ("m", Mover())
    report = run(photo, "red", driving, tmp_path / "me.gif", stylist=Noisy(), mover=mover, options=options)
    assert report.num_bytes[0] > 1000
    assert "larger than the 1 kB asked for" in report.note
    assert report.width == 48


def test_a_drawings_strength_is_its_colour(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    ink, mover = InkStylist("models:/ink/3", KitEngine()), Mover()
    options = StyliseAnimateOptions(motion=MOTION, face=1, colour=0.0)
    run(photo, "ink", driving, tmp_path / "me.gif", stylist=ink, mover=("m", mover), options=options)
    crop = three[0].cut(read_picture(photo), size_px=256)  # type: ignore[index]
    small = np.asarray(Image.fromarray(crop).resize((SIZE, SIZE), Image.Resampling.BOX))
    np.testing.assert_allclose(mover.sources[0].astype(int), small, atol=2)  # strength 0: the face itself
    drawn = ink.stylise(crop, "ink", structure=1, colour=1)
    assert list(drawn) == ["style"]
    assert np.abs(drawn["style"].astype(int) - crop).mean() > 5
    assert ink.thumbnail("ink") is None


@pytest.mark.parametrize(
    ("name", "style"), [("models:/ink/3", "ink"), ("models:/ink/3 int8", "ink"), ("data/trained/ink-long", "ink-long")]
)
def test_an_ink_style_is_named_as_its_model(name: str, style: str) -> None:
    assert InkStylist(name, KitEngine()).styles == (style,)


def test_progress_is_told_stage_by_stage(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    seen: list[tuple[str, int, int]] = []
    made(photo, driving, tmp_path / "me.gif", face=1, watch=Watch(tell=lambda *step: seen.append(step)))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["faces", "style", "keypoints", "frames"]
    assert [step for step in seen if step[0] == "frames"] == [("frames", 0, FRAMES), ("frames", 4, FRAMES)]


@pytest.mark.parametrize("stage", ["faces", "style", "keypoints", "frames"])
def test_a_stop_leaves_nothing_and_what_was_there_stays(
    photo: Path, driving: Path, tmp_path: Path, three: object, stage: str
) -> None:
    reached: list[str] = []

    def stop() -> bool:
        return stage in reached

    watch = Watch(tell=lambda stage, *_: reached.append(stage), stop=stop)
    (tmp_path / "me.gif").write_bytes(b"what was there")
    with pytest.raises(Stopped):
        made(photo, driving, tmp_path / "me.gif", face=1, watch=watch, pictures=tmp_path / "kept")
    assert files(tmp_path) == ["me.gif"]
    assert (tmp_path / "me.gif").read_bytes() == b"what was there"
    reached.clear()
    with pytest.raises(Stopped):
        made(photo, driving, tmp_path / "new" / "folder" / "me.gif", face="all", watch=watch)
    assert files(tmp_path) == ["me.gif"]


def test_a_model_that_fails_leaves_nothing(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    class Failing(Mover):
        def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
            if self.rendered:
                raise MemoryError
            return super().render(source, motion)

    options = StyliseAnimateOptions(motion=MOTION, face="all", paste_back=True)
    with pytest.raises(MemoryError):
        run(
            photo,
            "red",
            driving,
            tmp_path / "new" / "me.mp4",
            stylist=Colours(),
            mover=("m", Failing()),
            options=options,
        )
    assert files(tmp_path) == []


def test_several_faces_want_a_choice(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    with pytest.raises(SourceError, match=r"me.png must show one face, or be told which to take; got 3 from left"):
        made(photo, driving, tmp_path / "new" / "me.gif")
    with pytest.raises(ParamsError, match=r"face must be one of those in me.png: 3 from left to right"):
        made(photo, driving, tmp_path / "new" / "me.gif", face=4)
    assert files(tmp_path) == []


def test_a_drawing_in_place_of_a_photo(samples: Path, driving: Path, tmp_path: Path) -> None:
    drawing = samples / "cartoon-faces" / "bigsmile-2.png"
    with pytest.raises(SourceError, match=r"bigsmile-2.png must show a face that a detector of photos finds.*--box"):
        made(drawing, driving, tmp_path / "new" / "me.gif")
    assert files(tmp_path) == []
    report, _, _ = made(drawing, driving, tmp_path / "me.gif", box=Box(60, 40, 200, 200))
    assert report.num_found == 0
    assert not report.faces[0].is_aligned
    assert "cut out upright" in report.note


def test_a_driving_video_without_a_face(photo: Path, tmp_path: Path, three: object) -> None:
    gray = tmp_path / "gray.mp4"
    write_video(gray, (np.full((64, 96, 3), level, np.uint8) for level in range(100, 150, 5)), fps=10)
    with pytest.raises(SourceError, match=r"gray.mp4 must show a face to move by; got none in the frames looked at"):
        made(photo, gray, tmp_path / "new" / "me.gif", face=1)
    assert files(tmp_path) == ["gray.mp4"]


def test_an_unknown_style_names_those_there_are(photo: Path, driving: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"style must be one of models:/colours/1's: red, blue, rose; got 'rad'"):
        made(photo, driving, tmp_path / "new" / "me.gif", style="rad")
    with pytest.raises(ParamsError, match=r"style must be one of models:/colours/1's: rose, red, blue; got 'rosé'"):
        made(photo, driving, tmp_path / "new" / "me.gif", style="rosé")
    assert files(tmp_path) == []


def test_of_many_styles_some_are_named() -> None:
    class Many(Colours):
        styles = tuple(f"cartoon-{number:03}" for number in range(317))  # type: ignore[assignment]

    with pytest.raises(ParamsError, match=r"be one of .*: cartoon-\d+, .* and 305 more; got 'cartoon-400'"):
        check_style(Many(), "cartoon-400")


def test_a_style_may_be_left_out_where_there_is_one() -> None:
    assert only_style(InkStylist("models:/ink/3", KitEngine())) == "ink"
    with pytest.raises(ParamsError, match="style must be one of models:/colours/1's: red, blue, rose; got ''"):
        only_style(Colours())


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("me.webm", {}, r"out must end in .gif or .mp4"),
        ("me.mp4", {"emoji": Emoji()}, r"out must end in .gif for an emoji"),
        ("me.gif", {"emoji": Emoji(), "also": (".mp4",)}, r"out must end in .gif for an emoji; got .*me.mp4"),
        ("me.mp4", {"also": (".gif", ".mp4")}, r"also must name each suffix once, and not that of me.mp4"),
        ("me.gif", {"motion": AnimateOptions(mode="avd")}, r"mode must be relative or absolute with this model"),
    ],
)
def test_outputs_that_can_not_be(
    photo: Path, driving: Path, tmp_path: Path, name: str, changes: dict[str, Any], told: str
) -> None:
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(ParamsError, match=told):
            made(photo, driving, folder / name, **changes)
    assert files(tmp_path) == []


def test_an_output_is_no_input(photo: Path, driving: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="be another file than the source and the driving video"):
        made(photo, driving, driving)
    assert probe(driving).num_frames == 72


def test_a_stylist_without_structure_has_one_picture(photo: Path, driving: Path, tmp_path: Path) -> None:
    ink, options = InkStylist("models:/ink/3", KitEngine()), StyliseAnimateOptions(shown="structure")
    with pytest.raises(ParamsError, match="shown must be style with models:/ink/3, which makes no other"):
        run(photo, "ink", driving, tmp_path / "me.gif", stylist=ink, mover=("m", Mover()), options=options)


def test_a_folder_that_can_not_be_made(photo: Path, driving: Path, tmp_path: Path, three: object) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(EnvironmentProblem, match="must be a folder that can be written"):
        made(photo, driving, tmp_path / "taken" / "me.gif", face=1)
    assert files(tmp_path) == ["taken"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"structure": 1.5}, "structure must lie in 0 to 1"),
        ({"colour": -0.1}, "colour must lie in 0 to 1"),
        ({"shown": "nothing"}, "shown must be one of reconstruction, style, structure, structure-off"),
        ({"also": ("mp4",)}, "also must hold .gif or .mp4"),
        ({"max_px": 10}, "max_px must lie in 64 to 4096"),
        ({"face": 1, "box": Box(0, 0, 9, 9)}, "face must be left out where a box is given"),
        ({"emoji": Emoji(), "paste_back": True}, "paste_back must be false of an emoji"),
    ],
)
def test_options_that_can_not_be(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        StyliseAnimateOptions(**changes)


def test_a_small_models_face_in_a_large_photo_is_called_enlarged(
    photo: Path, driving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = PhotoFace(
        number=1,
        head=Box(50, 50, 180, 200),
        square=TurnedSquare(x=110, y=110, right_x=80, right_y=0),
        is_aligned=True,
    )
    monkeypatch.setattr(stylise_animate_scene, "find_faces", lambda picture: (large,))
    report, _, _ = made(photo, driving, tmp_path / "me.gif", paste_back=True)
    assert "The face was enlarged 5.0 times" in report.note
