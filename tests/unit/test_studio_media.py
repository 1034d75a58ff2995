"""Photos and driving videos are looked over, and errors are one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from media_kit import encode, pattern
from PIL import Image
from stylise_kit import save, texture

from models.errors import InkmotionError, ParamsError, Problem, SourceError
from pipelines.studio_media import check_driving, check_photo, sentence

MAX_BYTES = 1 << 20


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driving") / "moves.mp4"
    encode(path, pattern(24))
    return path


def test_a_photo_and_a_video_pass(tmp_path: Path, video: Path) -> None:
    photo = save(tmp_path / "me.png", texture())
    assert check_photo(photo, max_bytes=MAX_BYTES) == photo
    info = check_driving(video, max_bytes=MAX_BYTES, max_seconds=20)
    assert (info.width, info.height, info.num_frames) == (128, 80, 24)


def test_nothing_given_is_said() -> None:
    with pytest.raises(SourceError, match="be given a photo; got none"):
        check_photo(None, max_bytes=MAX_BYTES)
    with pytest.raises(SourceError, match="be given a driving video; got none"):
        check_driving(None, max_bytes=MAX_BYTES, max_seconds=20)


def test_a_video_is_no_photo_and_a_picture_no_video(tmp_path: Path, video: Path) -> None:
    with pytest.raises(SourceError, match=r"moves\.mp4 must be a picture; got a video"):
        check_photo(video, max_bytes=MAX_BYTES)
    with pytest.raises(SourceError, match=r"me\.png must be a video of 2 frames or more; got one picture"):
        check_driving(save(tmp_path / "me.png", texture()), max_bytes=MAX_BYTES, max_seconds=20)


def test_a_text_with_a_picture_s_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "me.jpg"
    path.write_text("not a picture")
    with pytest.raises(SourceError, match=r"me\.jpg must"):
        check_photo(path, max_bytes=MAX_BYTES)


def test_too_many_bytes_seconds_or_pixels_are_refused(tmp_path: Path, video: Path) -> None:
    with pytest.raises(SourceError, match="have 0.000976562 MiB at most"):
        check_driving(video, max_bytes=1024, max_seconds=20)
    with pytest.raises(SourceError, match=r"last 0\.2 s at most; got \d\.\d s\. Cut it"):
        check_driving(video, max_bytes=MAX_BYTES, max_seconds=0.2)
    huge = tmp_path / "huge.png"
    Image.new("1", (8000, 5001)).save(huge)
    with pytest.raises(SourceError, match="have at most 40,000,000 pixels"):
        check_photo(huge, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SourceError("/tmp/x/y/me.png must be a picture; got 1/2."), "me.png must be a picture; got 1/2."),
        (SourceError("'/tmp/x/me.png'\nmust be whole."), "'me.png' must be whole."),
        (SourceError("me.png must have one (--face 1 to 5, --face all); got 5."), "me.png must have one; got 5."),
        (
            SourceError("models:/ink@champion must exist; got samples/a.jpg."),
            "models:/ink@champion must exist; got samples/a.jpg.",
        ),
    ],
)
def test_a_sentence_is_one_line_without_folders(error: InkmotionError, said: str) -> None:
    assert sentence(error) == said


def test_several_problems_are_one_line_too() -> None:
    error = ParamsError([Problem("strength", 2, "lie in 0 to 1"), Problem("face", 9, "be one of 0 to 4")])
    assert "\n" not in sentence(error)
    assert "face must be one of 0 to 4" in sentence(error)
