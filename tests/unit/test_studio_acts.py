"""What is done for a page: its photo's faces, what is missing, its history, what is left of failures."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_kit import encode, pattern
from stylise_kit import save, texture

from models.errors import ParamsError, SourceError
from pipelines import studio_work
from pipelines.photo_faces import PhotoFace
from pipelines.studio_acts import Acts, Bounds, Wish
from pipelines.studio_choices import Choice, Choices
from pipelines.studio_media import written_anew
from pipelines.studio_visits import Made, VisitEnded, Visits
from pipelines.studio_work import Order, Progress, Workshop
from pipelines.stylise_animate_types import Stopped
from preprocessing.align import TurnedSquare
from preprocessing.boxes import Box
from preprocessing.video import probe

OFFERED = Choices(stylists=(Choice(uri="models:/ink/1", label="ink 1"),), movers=(Choice(uri="m", label="m"),))


class KitWorkshop(Workshop):
    """Makes empty files instead of animations, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(lambda uri: pytest.fail(uri), lambda uri: pytest.fail(uri), sample=None)
        self.orders: list[Order] = []
        self.fails: Exception | None = None

    def make(self, order: Order, folder: Path, *, progress: Progress, is_over: Any) -> Made:
        self.orders.append(order)
        progress(0.5, "half")
        files = [folder / name for name in ("a.gif", "a.mp4", "a.png")]
        for path in files:
            path.touch()
        if self.fails:
            raise self.fails
        if is_over():
            raise Stopped
        return Made(folder=folder, gif=files[0], mp4=files[1], still=files[2], label=order.style)


def face(number: int, beyond: str = "") -> PhotoFace:
    square = TurnedSquare(x=20.0 * number, y=20, right_x=8, right_y=0)
    return PhotoFace(number=number, head=Box(0, 0, 9, 9), square=square, is_aligned=True, beyond=beyond)


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> list[PhotoFace]:
    """What the detectors find."""
    found = [face(1)]
    monkeypatch.setattr(studio_work, "find_faces", lambda picture: tuple(found))
    return found


@pytest.fixture
def workshop() -> KitWorkshop:
    return KitWorkshop()


@pytest.fixture
def acts(tmp_path: Path, workshop: KitWorkshop) -> Acts:
    root = tmp_path / "studio"
    root.mkdir()
    made = Acts(Visits(root), workshop, lambda: OFFERED, Bounds(max_bytes=1 << 20, max_seconds=20))
    assert made.begin("page") == OFFERED
    return made


@pytest.fixture
def wish(tmp_path: Path) -> dict[str, Any]:
    driving = tmp_path / "moves.mp4"
    encode(driving, pattern(8))
    photo = save(tmp_path / "me.png", texture())
    models = {"stylist": "models:/ink/1", "style": "ink", "mover": "m"}
    return {"photo": photo, "face": None, "structure": 1.0, "colour": 0.5, "driving": driving, **models}


def quiet(part: float, what: str) -> None:
    """Progress that nobody looks at."""


def test_one_face_needs_no_choice(
    acts: Acts, workshop: KitWorkshop, faces: list[PhotoFace], wish: dict[str, Any]
) -> None:
    seen = acts.look("page", wish["photo"])
    assert (len(seen.faces), seen.chosen, seen.told) == (1, 0, "")
    acts.run("page", Wish(**wish), progress=quiet)
    order = workshop.orders[0]
    assert (order.face, order.style, order.colour, order.driving) == (faces[0], "ink", 0.5, wish["driving"])


def test_of_several_faces_one_is_chosen(
    acts: Acts, workshop: KitWorkshop, faces: list[PhotoFace], wish: dict[str, Any]
) -> None:
    faces += [face(2), face(3, beyond="9 px beyond the left border")]
    seen = acts.look("page", wish["photo"])
    assert (len(seen.faces), seen.chosen) == (3, None)
    assert "3 faces" in seen.told
    with pytest.raises(SourceError, match="have one face chosen; got 3 faces and no choice"):
        acts.run("page", Wish(**wish), progress=quiet)
    acts.run("page", Wish(**{**wish, "face": 1}), progress=quiet)
    assert workshop.orders[0].face.number == 2
    with pytest.raises(SourceError, match="show the whole face; got 9 px beyond the left border"):
        acts.run("page", Wish(**{**wish, "face": 2}), progress=quiet)


def test_a_photo_without_a_face_is_refused_and_the_one_before_does_not_count(
    acts: Acts, faces: list[PhotoFace], wish: dict[str, Any], tmp_path: Path
) -> None:
    acts.look("page", wish["photo"])
    faces.clear()
    other = save(tmp_path / "wall.png", texture(seed=1))
    with pytest.raises(SourceError, match=r"wall\.png must show a face; got none"):
        acts.look("page", other)
    with pytest.raises(SourceError, match=r"wall\.png must show a face; got none"):
        acts.run("page", Wish(**{**wish, "photo": other}), progress=quiet)


@pytest.mark.parametrize(("missing", "says"), [("photo", "a photo"), ("driving", "a driving video")])
def test_missing_media_are_named(
    acts: Acts, faces: list[PhotoFace], wish: dict[str, Any], missing: str, says: str
) -> None:
    with pytest.raises(SourceError, match=f"be given {says}; got none"):
        acts.run("page", Wish(**{**wish, missing: None}), progress=quiet)


def test_a_missing_style_is_named(acts: Acts, faces: list[PhotoFace], wish: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="style must be chosen"):
        acts.run("page", Wish(**{**wish, "style": None}), progress=quiet)


def test_a_failure_costs_nothing_that_was_made(
    acts: Acts, workshop: KitWorkshop, faces: list[PhotoFace], wish: dict[str, Any]
) -> None:
    acts.run("page", Wish(**wish), progress=quiet)
    workshop.fails = SourceError("broken")
    with pytest.raises(SourceError):
        acts.run("page", Wish(**wish), progress=quiet)
    visit = acts.visits.open("page")
    assert [made.gif.exists() for made in visit.past] == [True]
    assert len(list(visit.folder.glob("work-*"))) == 1


def test_a_closed_page_gets_nothing_any_more(acts: Acts, faces: list[PhotoFace], wish: dict[str, Any]) -> None:
    acts.leave("page")
    for ask in (
        lambda: acts.look("page", wish["photo"]),
        lambda: acts.run("page", Wish(**wish), progress=quiet),
        lambda: acts.halt("page"),
    ):
        with pytest.raises(VisitEnded):
            ask()


def test_halted_work_stops_and_the_next_goes_on(
    acts: Acts, workshop: KitWorkshop, faces: list[PhotoFace], wish: dict[str, Any]
) -> None:
    with pytest.raises(Stopped):
        acts.run("page", Wish(**wish), progress=lambda part, what: acts.halt("page") if part else None)
    acts.run("page", Wish(**wish), progress=quiet)
    assert len(acts.visits.open("page").past) == 1


def test_work_that_waits_for_others_is_stopped_too(
    acts: Acts, workshop: KitWorkshop, faces: list[PhotoFace], wish: dict[str, Any]
) -> None:
    working, waiting, release = threading.Event(), threading.Event(), threading.Event()

    def slowly(part: float, what: str) -> None:
        if what == "half":
            working.set()
            assert release.wait(20)

    def in_line(part: float, what: str) -> None:
        if what == "waiting for 1 before this":
            waiting.set()

    acts.begin("other")
    with ThreadPoolExecutor(2) as both:
        first = both.submit(acts.run, "page", Wish(**wish), progress=slowly)
        assert working.wait(20)
        second = both.submit(acts.run, "other", Wish(**wish), progress=in_line)
        assert waiting.wait(20)
        acts.halt("other")
        assert isinstance(second.exception(20), Stopped)
        assert not first.done()
        release.set()
        assert first.result(20).label == "ink"
    assert len(workshop.orders) == 1
    assert list(acts.visits.open("other").folder.glob("work-*")) == []


def test_uploads_go_with_their_last_page(acts: Acts, faces: list[PhotoFace], tmp_path: Path) -> None:
    shared = save(tmp_path / "studio" / "uploads" / "me.png", texture())
    outside = save(tmp_path / "sample.png", texture())
    acts.begin("other")
    for page in ("page", "other"):
        acts.look(page, shared)
        acts.look(page, outside)
    acts.leave("page")
    assert shared.exists()
    acts.leave("other")
    assert not shared.exists()
    assert outside.exists()


def test_a_recording_without_length_is_written_anew(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", pattern(30), "-c:v", "libvpx", fps=30)
    cut = tmp_path / "sample.webm"
    encode(cut, pattern(30, width=127, height=81), "-f", "webm", "-live", "1", "-c:v", "libvpx", fps=30)
    made = written_anew(cut, tmp_path / "new", max_seconds=20)
    info = probe(made)
    assert (made.name, info.width, info.height, info.fps) == ("sample.mp4", 126, 80, 25)
    assert 24 <= info.num_frames <= 28
    assert probe(written_anew(whole, tmp_path / "more", max_seconds=0.1 - 1)).num_frames <= 4
    assert written_anew(made, tmp_path / "new", max_seconds=20) == made
    broken = tmp_path / "broken.webm"
    broken.write_bytes(b"\x1aE\xdf\xa3 nothing")
    with pytest.raises(SourceError, match=r"broken\.webm must be a video that can be read"):
        written_anew(broken, tmp_path / "new", max_seconds=20)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sample.mp4"]


def test_a_recording_may_be_asked_for_twice_at_once(tmp_path: Path) -> None:
    recorded = encode(tmp_path / "sample.webm", pattern(30), "-c:v", "libvpx", fps=30)
    with ThreadPoolExecutor(4) as several:
        asked = [several.submit(written_anew, recorded, tmp_path / "new", max_seconds=20) for _ in range(4)]
    assert {each.result() for each in asked} == {tmp_path / "new" / "sample.mp4"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sample.mp4"]


def test_styles_are_shown_once_and_without_a_sample_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class KitStylist:
        name, styles, has_structure, size_px = "models:/ink/1", ("a", "b"), False, None
        asked: list[str] = []  # noqa: RUF012

        def thumbnail(self, style: str) -> np.ndarray | None:
            return np.zeros((9, 9, 3), np.uint8) if style == "a" else None

        def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[str, np.ndarray]:
            self.asked.append(style)
            return {"style": crop}

    made = Workshop(lambda uri: KitStylist(), lambda uri: pytest.fail(uri), sample=None)  # type: ignore[arg-type, return-value]
    for _ in range(2):
        shown = made.styles("models:/ink/1")
    assert [(picture.shape, name) for picture, name in shown] == [((256, 256, 3), "a"), ((256, 256, 3), "b")]
    assert KitStylist.asked == ["b"]
