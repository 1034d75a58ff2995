"""The studio in a real browser: from a photo to a GIF, what it says of bad input, and what is left of closed pages."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import studio_kit as kit
from media_kit import encode, pattern
from PIL import Image
from stylise_kit import save, texture

from pipelines import registry
from preprocessing.video import probe

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
    page.goto(studio.address)
    page.locator("#styles img").first.wait_for(timeout=60_000)


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
