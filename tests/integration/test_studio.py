"""The studio in a real browser: from a photo to a GIF, what it says of bad input, and what is left of closed pages."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studio_kit as kit
from media_kit import encode, pattern
from PIL import Image
from stylise_kit import save, texture

from pipelines import registry
from pipelines.studio_visits import PREFIX
from preprocessing.video import probe, read_clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(kit.browser_path() is None, reason="needs a Chromium: apt-get install chromium"),
]
pytest.importorskip("playwright", reason="needs playwright: pip install -e .[dev]")
pytest.importorskip("gradio", reason="needs gradio: pip install -e .[studio]")

WORK_MS = 120_000
FRAMES = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> registry.Store:
    return kit.small_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def studio(root: Path, store: registry.Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.Served]:
    with kit.serving(root, store, tmp_path_factory.mktemp("studio")) as served:
        yield served


@pytest.fixture(scope="module")
def media(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good and bad files by what they are."""
    folder = tmp_path_factory.mktemp("media")
    texts = folder / "text.jpg"
    texts.write_text("not a picture")
    large = folder / "large.png"
    Image.effect_noise((2400, 2400), 90).save(large)
    assert large.stat().st_size > kit.MAX_UPLOAD_MB * 2**20
    nobody, long = folder / "nobody.mp4", folder / "long.mp4"
    encode(nobody, pattern(FRAMES))
    encode(long, pattern(2 * kit.MAX_SECONDS + 4), fps=2)
    driving = kit.film(samples / "faces" / "man-smile.mp4", folder / "driving.mp4", "-frames:v", str(FRAMES), "-an")
    return {
        "photo": samples / "portraits" / "man-smiling.jpg",
        "five": samples / "portraits" / "five-people.jpg",
        "no face": save(folder / "wall.png", texture(300, 300)),
        "text": texts,
        "large": large,
        "driving": driving,
        "slow driving": samples / "faces" / "woman-expressions.mp4",
        "nobody": nobody,
        "long": long,
    }


@pytest.fixture(scope="module")
def browser(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    shape = "scale=480:480,pad=640:480:80:0"
    camera = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    kit.film(
        samples / "portraits" / "man-smiling.jpg", camera, "-vf", shape, "-r", "10", "-t", "2", before=("-loop", "1")
    )
    with kit.browsing(camera) as opened:
        yield opened


@pytest.fixture
def page(browser: Any, studio: kit.Served) -> Iterator[Any]:
    context = browser.new_context(permissions=["camera"])
    made = context.new_page()
    open_studio(made, studio)
    yield made
    context.close()


def open_studio(page: Any, studio: kit.Served) -> None:
    page.set_default_timeout(WORK_MS)  # a loaded machine takes its time for everything
    page.goto(studio.address)
    page.locator("#styles img").first.wait_for()


def give(page: Any, part: str, path: Path) -> None:
    page.locator(f"#{part} input[type=file]").first.set_input_files(path)


def give_both(page: Any, media: dict[str, Path], driving: str = "driving") -> None:
    give(page, "photo", media["photo"])
    page.locator("#photo img").wait_for()
    give(page, "driving", media[driving])
    page.locator("#driving video").wait_for()


def animate(page: Any) -> None:
    page.locator("#run").click()


def said(page: Any, text: str) -> str:
    """What the page says that holds ``text``."""
    toast = page.locator(".toast-body").filter(has_text=text).first
    toast.wait_for(timeout=WORK_MS)
    return str(toast.inner_text())


def test_a_photo_becomes_a_gif_and_an_mp4(
    page: Any, studio: kit.Served, media: dict[str, Path], tmp_path: Path
) -> None:
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.reload()
    page.locator("#styles img").first.wait_for(timeout=60_000)
    give_both(page, media)
    animate(page)
    page.locator("#picture img").wait_for(timeout=WORK_MS)
    for kind in ("gif", "mp4"):
        with page.expect_download() as downloading:
            page.locator(f"#{kind}").click()
        path = tmp_path / f"got.{kind}"
        downloading.value.save_as(path)
        info = probe(path)
        assert (info.num_frames, info.width, info.height) == (FRAMES, 32, 32)
    elsewhere = [url for url in asked if not url.startswith((studio.address, "data:", "blob:"))]
    assert asked
    assert elsewhere == []


BAD = [
    ("no face", None, "must show a face; got none"),
    ("text", None, "text.jpg must"),
    ("large", None, "maximum allowed size"),
    (None, "long", "must last 20 s at most; got"),
]


@pytest.mark.parametrize(("photo", "driving", "says"), BAD, ids=lambda value: str(value))
def test_bad_media_get_one_clear_line(
    page: Any, studio: kit.Served, media: dict[str, Path], photo: str | None, driving: str | None, says: str
) -> None:
    if photo is not None:
        give(page, "photo", media[photo])
    if driving is not None:
        give(page, "driving", media[driving])
    line = said(page, says)
    assert "Traceback" not in line
    assert "/tmp" not in line
    assert studio.files("work-*") == []


def test_a_driving_video_must_show_a_face(page: Any, studio: kit.Served, media: dict[str, Path]) -> None:
    give_both(page, media, "nobody")
    animate(page)
    assert "nobody.mp4 must show a face" in said(page, "must show a face")
    assert studio.files("work-*") == []


def test_what_is_missing_is_said(page: Any, media: dict[str, Path]) -> None:
    animate(page)
    assert "be given a photo; got none" in said(page, "must be given")
    give(page, "photo", media["photo"])
    page.locator("#photo img").wait_for()
    animate(page)
    assert "be given a driving video; got none" in said(page, "a driving video")


def test_of_five_faces_one_is_chosen(page: Any, media: dict[str, Path]) -> None:
    give(page, "photo", media["five"])
    page.locator("#faces img").nth(4).wait_for(timeout=WORK_MS)
    assert "5 faces" in page.locator("#photo-note").inner_text()
    give(page, "driving", media["driving"])
    page.locator("#driving video").wait_for()
    animate(page)
    assert "5 faces and no choice" in said(page, "must have one face chosen")
    page.locator("#faces button.thumbnail-item").nth(3).click()
    animate(page)
    page.locator("#picture img").wait_for(timeout=WORK_MS)


def test_a_photo_by_camera(page: Any, media: dict[str, Path]) -> None:
    page.locator("#photo [aria-label='Capture from camera']").click()
    page.locator("#photo").get_by_text("Click to Access Webcam").click()
    page.locator("#photo video").wait_for()
    page.wait_for_timeout(1000)
    page.locator("#photo [aria-label='capture photo']").click()
    page.locator("#photo img").wait_for()
    give(page, "driving", media["driving"])
    page.locator("#driving video").wait_for()
    animate(page)
    page.locator("#picture img").wait_for(timeout=WORK_MS)


def test_a_driving_video_by_camera(page: Any, media: dict[str, Path], tmp_path: Path) -> None:
    give(page, "photo", media["photo"])
    page.locator("#driving [aria-label='Capture from camera']").click()
    page.locator("#driving").get_by_text("Click to Access Webcam").click()
    page.wait_for_timeout(1000)  # until the camera shows something
    page.locator("#driving [aria-label='start recording']").click()
    page.wait_for_timeout(1500)
    page.locator("#driving").get_by_text("Stop").click()
    page.locator("#driving [aria-label='Clear']").wait_for()
    animate(page)
    page.locator("#picture img").wait_for(timeout=WORK_MS)
    with page.expect_download() as downloading:
        page.locator("#mp4").click()
    downloading.value.save_as(tmp_path / "got.mp4")
    assert probe(tmp_path / "got.mp4").num_frames >= 5


def test_two_at_once_have_their_own(browser: Any, studio: kit.Served, media: dict[str, Path]) -> None:
    contexts = [browser.new_context(), browser.new_context()]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        open_studio(page, studio)
        give_both(page, media)
    for page in pages:
        animate(page)
    for page in pages:
        page.locator("#picture img").wait_for(timeout=WORK_MS)
    animate(pages[0])
    pages[0].locator("#history img").nth(1).wait_for(timeout=WORK_MS)
    assert pages[1].locator("#history img").count() == 0
    sources = [page.locator("#picture img").get_attribute("src") for page in pages]
    assert sources[0] != sources[1]
    mine = [folder for folder in studio.visits if list(folder.glob("work-*/*.gif"))]
    assert len(mine) == 2
    for context in contexts:
        context.close()
    assert kit.within(20, lambda: not any(folder.exists() for folder in mine))


def test_a_stop_ends_what_waits_for_others(browser: Any, studio: kit.Served, media: dict[str, Path]) -> None:
    contexts = [browser.new_context(), browser.new_context()]
    working, waiting = (context.new_page() for context in contexts)
    for page, driving in ((working, "slow driving"), (waiting, "driving")):
        open_studio(page, studio)
        give_both(page, media, driving)
    animate(working)
    working.get_by_text("following the movement").first.wait_for(timeout=WORK_MS)
    animate(waiting)
    waiting.get_by_text("waiting for 1 before this").first.wait_for(timeout=WORK_MS)
    waiting.locator("#stop").click()
    said(waiting, "The work was stopped")
    assert len(studio.files("work-*")) == 1  # the other one goes on
    for context in contexts:
        context.close()


@pytest.mark.parametrize("how", ["closed", "stopped"])
def test_work_ends_when_nobody_wants_it(browser: Any, studio: kit.Served, media: dict[str, Path], how: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    before = set(studio.visits)
    open_studio(page, studio)
    give_both(page, media, "slow driving")
    animate(page)
    page.get_by_text("following the movement").first.wait_for(timeout=WORK_MS)
    (mine,) = set(studio.visits) - before
    assert list(mine.glob("work-*"))
    if how == "stopped":
        page.locator("#stop").click()
        said(page, "The work was stopped")
        assert kit.within(10, lambda: not list(mine.glob("work-*")))
    context.close()
    assert kit.within(20, lambda: not mine.exists())
    assert studio.files("man-smiling.jpg") == []


def test_the_server_answers_nobody_else(studio: kit.Served) -> None:
    def status(path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(studio.address + path, headers=headers)) as answer:
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return int(error.code)

    assert status("") == 200
    assert status("", Host="elsewhere.example") == 400
    assert status("gradio_api/file=https://elsewhere.example/a.png") == 403
    assert status("gradio_api/file=/etc/passwd") == 403


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_ends(
    root: Path, store: registry.Store, browser: Any, media: dict[str, Path], tmp_path: Path, by: signal.Signals
) -> None:
    with kit.serving(root, store, tmp_path) as studio:
        page = browser.new_page()
        open_studio(page, studio)
        give_both(page, media, "slow driving")
        animate(page)
        page.get_by_text("following the movement").first.wait_for(timeout=WORK_MS)
        assert studio.files("work-*")
        kit.end(studio.process, by)
        page.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_leaves_goes_when_the_next_begins(
    root: Path, store: registry.Store, browser: Any, media: dict[str, Path], tmp_path: Path
) -> None:
    with kit.serving(root, store, tmp_path) as studio:
        page = browser.new_page()
        open_studio(page, studio)
        give(page, "photo", media["photo"])
        page.locator("#photo img").wait_for()
        (left,) = {folder.parent for folder in studio.visits}
        studio.process.kill()
        studio.process.wait()
        page.close()
    assert left.is_dir()
    with kit.serving(root, store, tmp_path) as studio:
        assert not left.exists()
        kit.end(studio.process)
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def move(page: Any, kind: str, value: float) -> None:
    """Move a slider."""
    number = page.locator(f"#{kind} input[type=number]")
    number.fill(str(value))
    number.press("Enter")


def test_a_cartoon_by_the_second_style_and_two_structure_weights(
    root: Path, browser: Any, media: dict[str, Path], tmp_path: Path
) -> None:
    store = kit.cartoon_registry(tmp_path)
    with kit.serving(root, store, tmp_path / "temporary") as studio:
        opened_s = time.perf_counter()
        page = browser.new_page()
        open_studio(page, studio)
        assert page.locator("#styles button.thumbnail-item").count() == 2
        assert page.locator("#styles .caption-label").all_inner_texts() == ["calm", "wild"]
        page.locator("#styles button.thumbnail-item").nth(1).click()
        give_both(page, media)
        move(page, "colour", 0.6)
        got = []
        for structure in (1, 0):
            move(page, "structure", structure)
            asked_s = time.perf_counter()
            animate(page)
            shown = page.locator("#history img").nth(1) if got else page.locator("#picture img")
            shown.wait_for(timeout=WORK_MS)
            now_s = time.perf_counter()
            print(f"shown {now_s - asked_s:.1f} s after the click, {now_s - opened_s:.1f} s after the page was opened")
            with page.expect_download() as downloading:
                page.locator("#gif").click()
            downloading.value.save_as(tmp_path / f"{structure}.gif")
            got.append(read_clip(tmp_path / f"{structure}.gif")[0].astype(int))
        labels = page.locator("#history .caption-label").all_inner_texts()
        page.close()
    assert labels == ["wild, driving"] * 2
    assert [len(frames) for frames in got] == [FRAMES, FRAMES]
    apart = np.abs(got[0] - got[1]).mean(axis=(1, 2, 3))
    assert (apart > 2).all(), apart
