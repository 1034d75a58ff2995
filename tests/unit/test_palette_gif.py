"""Small GIFs: their colours, their time, their round cut-out, their size in bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stylise_kit import panning

from models.errors import ClipError, ParamsError
from pipelines.palette_gif import Emoji, write_emoji
from preprocessing.video import probe, read_clip


def opened(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Frames as RGBA and their durations in ms, as Pillow reads them."""
    with Image.open(path) as gif:
        frames, durations = [], []
        for place in range(getattr(gif, "n_frames", 1)):
            gif.seek(place)
            frames.append(np.asarray(gif.convert("RGBA")))
            durations.append(gif.info["duration"])
    return frames, durations


def moving(count: int = 24) -> np.ndarray:
    return panning(count, height=96, width=96)


def test_frames_are_left_out_but_time_is_kept(tmp_path: Path) -> None:
    write_emoji(tmp_path / "a.gif", [moving(48)], fps=23.98, look=Emoji(size_px=64, fps=12))
    frames, durations = opened(tmp_path / "a.gif")
    assert len(frames) == 24
    assert abs(sum(durations) - 1000 * 48 / 23.98) <= 10
    assert set(durations) <= {80, 90}


def test_slow_videos_keep_all_frames(tmp_path: Path) -> None:
    write_emoji(tmp_path / "a.gif", iter([moving(3), moving(2)]), fps=5, look=Emoji(size_px=64, fps=12))
    assert opened(tmp_path / "a.gif")[1] == [200] * 5


def test_few_colours_that_all_frames_share(tmp_path: Path) -> None:
    write_emoji(tmp_path / "a.gif", [moving()], fps=12, look=Emoji(size_px=96, colours=16))
    frames, _ = opened(tmp_path / "a.gif")
    colours = np.unique(np.concatenate(frames).reshape(-1, 4), axis=0)
    assert len(colours) <= 16
    assert np.abs(frames[5][..., :3].astype(int) - moving()[5]).mean() < 16
    assert (tmp_path / "a.gif").read_bytes().count(b"NETSCAPE2.0") == 1


def test_outside_the_circle_nothing_is_seen_in_any_frame(tmp_path: Path) -> None:
    write_emoji(tmp_path / "a.gif", [moving(8)], fps=12, look=Emoji(size_px=64, background="transparent"))
    frames, _ = opened(tmp_path / "a.gif")
    reach = np.arange(64) - 31.5
    far = np.hypot(reach[:, None], reach[None, :])
    for frame in frames:
        assert (frame[far > 32.5, 3] == 0).all()
        assert (frame[far < 31.5, 3] == 255).all()
    own, _ = read_clip(tmp_path / "a.gif")  # the project's reader shows transparency as white
    assert (own[:, 0, 0] == 255).all()


def test_the_circle_stays_on_a_picture_that_does_not_move(tmp_path: Path) -> None:
    still = np.repeat(moving(1), 6, axis=0)
    write_emoji(tmp_path / "a.gif", [still], fps=6, look=Emoji(size_px=64, background="transparent"))
    frames, durations = opened(tmp_path / "a.gif")
    assert sum(durations) == 1000
    assert all((frame == frames[0]).all() for frame in frames)
    assert (tmp_path / "a.gif").stat().st_size < 6000


def test_a_plain_background_takes_its_colour(tmp_path: Path) -> None:
    write_emoji(tmp_path / "a.gif", [moving(4)], fps=12, look=Emoji(size_px=64, colours=64, background="#ffcc00"))
    for frame in opened(tmp_path / "a.gif")[0]:
        assert np.abs(frame[:3, :3, :3].astype(int) - (255, 204, 0)).max() < 12
        assert (frame[..., 3] == 255).all()


def test_what_hardly_changes_takes_hardly_any_bytes(tmp_path: Path) -> None:
    still = np.repeat(moving(1)[:, :64, :64], 8, axis=0).astype(int)
    noisy = np.clip(still + np.random.default_rng(0).integers(-2, 3, still.shape), 0, 255).astype(np.uint8)
    write_emoji(tmp_path / "one.gif", [noisy[:1]], fps=12, look=Emoji(size_px=64))
    write_emoji(tmp_path / "all.gif", [noisy], fps=12, look=Emoji(size_px=64))
    assert (tmp_path / "all.gif").stat().st_size < 1.5 * (tmp_path / "one.gif").stat().st_size


def test_a_bound_on_bytes_is_kept(tmp_path: Path) -> None:
    frames, look = panning(18, height=96, width=96), Emoji(size_px=96)
    write_emoji(tmp_path / "free.gif", [frames], fps=12, look=look)
    most = (tmp_path / "free.gif").stat().st_size // 1000 // 3
    write_emoji(tmp_path / "fit.gif", [frames], fps=12, look=replace(look, max_kb=most))
    assert (tmp_path / "fit.gif").stat().st_size <= most * 1000
    assert abs(sum(opened(tmp_path / "fit.gif")[1]) - 1500) <= 10
    assert 48 <= probe(tmp_path / "fit.gif").width <= 96


def test_no_frames_and_wrong_frames(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="must get at least one frame; got none"):
        write_emoji(tmp_path / "a.gif", [], fps=12, look=Emoji())
    with pytest.raises(ClipError, match="be uint8"):
        write_emoji(tmp_path / "a.gif", [moving(2).astype(np.float32)], fps=12, look=Emoji())
    with pytest.raises(ClipError, match="frame rate of a.gif must lie in"):
        write_emoji(tmp_path / "a.gif", [moving(2)], fps=0, look=Emoji())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size_px": 8}, "size_px must lie in 32 to 1024"),
        ({"colours": 300}, "colours must lie in 4 to 256"),
        ({"fps": 0}, r"fps must lie in \(0, 50\]"),
        ({"background": "white"}, "background must be keep, transparent or a colour such as #ffffff; got 'white'"),
        ({"max_kb": 0}, "max_kb must be 1 or more"),
    ],
)
def test_looks_that_can_not_be(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        Emoji(**changes)  # type: ignore[arg-type]
