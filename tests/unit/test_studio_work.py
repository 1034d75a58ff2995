"""What the studio makes of an order, with models that can be seen through, and what a stop leaves of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_stylise_animate import SIZE, Colours, Mover

from models.errors import SourceError
from pipelines import studio_work
from pipelines.photo_faces import PhotoFace
from pipelines.studio_media import sentence
from pipelines.studio_work import Order, Workshop
from pipelines.stylise_animate import Found, Stopped
from preprocessing.align import TurnedSquare
from preprocessing.boxes import Box
from preprocessing.video import probe, read_clip, read_picture, write_video

FRAMES = 10


@pytest.fixture
def workshop() -> Workshop:
    return Workshop(lambda uri: Colours(), lambda uri: Mover(), sample=None)


@pytest.fixture(scope="module")
def driving(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames, info = read_clip(samples / "faces" / "man-smile.mp4")
    path = tmp_path_factory.mktemp("driving") / "smile.mp4"
    write_video(path, iter(frames[:FRAMES]), fps=info.fps)
    return path


@pytest.fixture
def order(samples: Path, driving: Path) -> Order:
    """The second of two faces that are known."""
    path = samples / "portraits" / "man-smiling.jpg"
    faces = tuple(
        PhotoFace(
            number=number,
            head=Box(0, 0, 90, 90),
            square=TurnedSquare(x=100.0 * number, y=150, right_x=60, right_y=0),
            is_aligned=True,
        )
        for number in (1, 2)
    )
    photo = Found(path=path, picture=read_picture(path), faces=faces)
    asked = {"stylist": "models:/colours/1", "style": "blue", "structure": 0.5, "colour": 0.25, "mover": "m"}
    return Order(photo=photo, face=faces[1], driving=driving, **asked)  # type: ignore[arg-type]


def test_a_gif_an_mp4_and_a_still_are_made(
    workshop: Workshop, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio_work, "find_faces", lambda picture: pytest.fail("the faces are known"))
    told: list[tuple[float, str]] = []
    made = workshop.make(order, tmp_path, progress=lambda *step: told.append(step), is_over=lambda: False)
    for path in (made.gif, made.mp4):
        info = probe(path)
        assert (info.num_frames, info.width, info.height) == (FRAMES, SIZE, SIZE)
    assert (np.asarray(Image.open(made.still)) == Colours.PLAIN["style"]).all()
    assert made.label == "blue, smile"
    parts, words = zip(*told, strict=True)
    assert list(parts) == sorted(parts)
    assert (parts[0], parts[-1]) == (0.0, 1.0)
    assert f"animating: frame 4 of {FRAMES}" in words
    order_told = [words.index(text) for text in ("stylising the face", "following the movement", "done")]
    assert order_told == sorted(order_told)


@pytest.mark.parametrize("stage", ["looking for the face", "stylising", "following", "animating"])
def test_a_stop_between_frames_leaves_nothing(workshop: Workshop, order: Order, tmp_path: Path, stage: str) -> None:
    reached: list[str] = []
    with pytest.raises(Stopped):
        workshop.make(
            order,
            tmp_path,
            progress=lambda part, what: reached.append(what),
            is_over=lambda: any(what.startswith(stage) for what in reached),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_driving_video_without_a_face_is_named(workshop: Workshop, order: Order, tmp_path: Path) -> None:
    gray = tmp_path / "gray.mp4"
    write_video(gray, (np.full((64, 96, 3), level, np.uint8) for level in range(100, 150, 5)), fps=10)
    asked = {name: getattr(order, name) for name in Order.__slots__} | {"driving": gray}
    with pytest.raises(SourceError) as caught:
        workshop.make(Order(**asked), tmp_path, progress=lambda *_: None, is_over=lambda: False)
    assert sentence(caught.value).startswith("gray.mp4 must show a face to move by; got none")
