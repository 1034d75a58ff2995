"""Reading and writing videos: every kind of bad file is turned away in words, and what is good comes back whole."""

from __future__ import annotations

import pickle
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import ClipError, EnvironmentProblem, SourceError
from preprocessing import video_facts, video_ffmpeg
from preprocessing.video import (
    DEFAULT_LIMITS,
    Limits,
    MediaError,
    open_video,
    probe,
    read_clip,
    read_frames,
    read_picture,
    write_gif,
    write_video,
)


def ffmpeg(*arguments: object) -> None:
    subprocess.run([video_ffmpeg.executable(), "-v", "error", "-y", *map(str, arguments)], check=True)


def moving(num_frames: int = 20, width: int = 64, height: int = 48) -> np.ndarray:
    """A bright square that wanders over a gradient."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 200, width).astype(np.uint8)
    frames[..., 2] = np.linspace(0, 200, height).astype(np.uint8)[:, None]
    for number, frame in enumerate(frames):
        frame[10:26, number : number + 16] = (250, 240, 20)
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, moving(), fps=25, crf=8)
    return path


def view_of(path: Path) -> video_ffmpeg.View:
    return video_facts.examine(path, DEFAULT_LIMITS).view


def reason_of(path: Path, **limits: float) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path, limits=Limits(**limits))  # type: ignore[arg-type]
    text = str(caught.value)
    assert " must " in text
    assert "; got " in text
    assert "0x5" not in text, "an address in memory differs at every run"
    return caught.value.reason


def test_a_written_video_comes_back(clip: Path) -> None:
    frames, info = read_clip(clip)
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 48, 20, 25.0)
    assert (info.decoder, info.has_audio) == ("decord", False)
    assert frames.shape == (20, 48, 64, 3)
    assert np.abs(frames.astype(int) - moving()).mean() < 4


def test_batches_are_bounded_and_in_order(clip: Path) -> None:
    batches = list(read_frames(clip, batch_frames=6))
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert np.array_equal(np.concatenate(batches), read_clip(clip)[0])
    assert np.array_equal(read_clip(clip, max_frames=7)[0], np.concatenate(batches)[:7])


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, iter(moving()), fps=23.976)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sizes_are_made_even(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", moving()[:, :47, :63], fps=25)
    frames, _ = read_clip(tmp_path / "odd.mp4")
    assert frames.shape[1:3] == (48, 64)
    assert np.abs(frames[:, :, -1].astype(int) - frames[:, :, -2]).mean() < 8


@pytest.mark.parametrize(
    "name", ["a b.mp4", 'it\'s "it".mp4', "-x.mp4", "naïve 日本 🎬.mp4", "a:b%03d.mp4", "$(x);&.mp4"]
)
def test_any_name_works(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, tmp_path / name)
    assert probe(Path(name)).num_frames == 20
    through_pipe = video_ffmpeg.decoded(Path(name), view_of(Path(name)), limits=DEFAULT_LIMITS, batch_frames=8)
    assert sum(len(batch) for batch in through_pipe) == 20
    write_video(Path(f"copy {name}"), read_frames(Path(name)), fps=25, audio_from=Path(name))
    assert read_clip(Path(f"copy {name}"))[1].num_frames == 20
    assert not list(tmp_path.glob(".*")), "temporary files stay behind"


def test_where_decord_stumbles_ffmpeg_goes_on_with_the_next_frame(samples: Path) -> None:
    path = samples / "faces" / "man-then-title-card.mov"
    with open_video(path) as reader:
        assert reader.info.decoder == "decord"
        frames = np.concatenate([batch[:, ::16, ::16] for batch in reader.batches()])
        assert (len(frames), reader.info.decoder) == (169, "ffmpeg")
    piped = video_ffmpeg.decoded(path, view_of(path), limits=DEFAULT_LIMITS, batch_frames=32)
    assert np.array_equal(frames, np.concatenate([batch[:, ::16, ::16] for batch in piped]))


def test_rotation_is_done(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-display_rotation", 90, "-i", clip, "-c", "copy", tmp_path / "turned.mp4")
    info = probe(tmp_path / "turned.mp4")
    assert (info.width, info.height) == (48, 64)
    assert next(read_frames(tmp_path / "turned.mp4")).shape[1:3] == (64, 48)


def test_missing_empty_junk_and_folders(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "junk.gif").write_bytes(b"GIF89a" + np.random.default_rng(0).bytes(3))
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(tmp_path / "none.mp4") == "missing"
    assert reason_of(tmp_path / "empty.mp4") == "empty"
    assert reason_of(tmp_path / "junk.mp4") == "unreadable"
    assert reason_of(tmp_path / "junk.gif") == "unreadable"
    assert reason_of(tmp_path / "folder.mp4") == "unsupported"


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_truncated_video(clip: Path, tmp_path: Path, share: float) -> None:
    content = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * share)])
    assert reason_of(tmp_path / "cut.mp4") == "truncated"


def test_sound_without_pictures(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.3", tmp_path / "sound.mp4")
    ffmpeg("-i", clip, "-frames:v", 1, tmp_path / "cover.jpg")
    cover = ("-i", tmp_path / "cover.jpg", "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", tmp_path / "sound.mp4", *cover, tmp_path / "album.m4a")
    assert reason_of(tmp_path / "sound.mp4") == "audio-only"
    assert reason_of(tmp_path / "album.m4a") == "audio-only"


def test_a_frame_rate_of_zero(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    entry = content.index(b"stts") + 12  # number of frames, time of each
    assert struct.unpack(">II", content[entry : entry + 8])[0] == 20
    content[entry + 4 : entry + 8] = bytes(4)
    (tmp_path / "still.mp4").write_bytes(content)
    assert reason_of(tmp_path / "still.mp4") == "frame-rate"


def test_a_playlist_in_a_videos_clothes_opens_nothing(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "clip.mp4")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    assert reason_of(tmp_path / "list.mp4") == "unreadable"
    assert reason_of(tmp_path / "concat.mp4") == "unreadable"


def test_limits_hold_before_anything_is_decoded(clip: Path, tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (300, 200)).save(tmp_path / "picture.png")
    assert reason_of(tmp_path / "huge.png") == "too-large"
    assert reason_of(tmp_path / "picture.png", max_pixels=50_000) == "too-large"
    assert reason_of(clip, max_pixels=3000) == "too-large"
    assert reason_of(clip, max_frames=19) == "too-long"
    assert reason_of(clip, timeout_s=1e-6) == "timeout"


def test_the_child_is_killed_at_its_deadline(samples: Path) -> None:
    path = samples / "bodies" / "walk.mp4"
    frames = video_ffmpeg.decoded(path, view_of(path), limits=Limits(timeout_s=0.2), batch_frames=1)
    with pytest.raises(MediaError) as caught:  # a caller that takes longer than allowed, while the child waits for it
        list(map(lambda _: time.sleep(0.05), frames))
    assert caught.value.reason == "timeout"


def test_a_tiny_picture_is_told_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    info = probe(tmp_path / "dot.png")
    assert (info.width, info.height, info.num_frames) == (1, 1, 1)


def test_pictures_are_upright_and_on_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (10, 20, 30)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "turned.jpg").shape == (40, 20, 3)
    assert (read_picture(tmp_path / "clear.png") == 255).all()
    assert (read_picture(tmp_path / "deep.png") == 255).all()


def test_the_first_frame_of_a_video_is_its_picture(clip: Path) -> None:
    assert np.array_equal(read_picture(clip), read_clip(clip)[0][0])


def disc(place: int) -> Image.Image:
    """A red square on nothing."""
    frame = Image.new("RGBA", (32, 24), (0, 0, 0, 0))
    frame.paste((255, 0, 0, 255), (place, 8, place + 8, 16))
    return frame


def save_gif(path: Path, durations: list[int], **options: int) -> None:
    frames = [disc(4 * number) for number in range(len(durations))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, disposal=2, **options)


def test_a_gif_is_on_white_and_its_frames_are_disposed_of(tmp_path: Path) -> None:
    save_gif(tmp_path / "a.gif", [80] * 5, loop=0)
    frames, info = read_clip(tmp_path / "a.gif")
    assert (info.num_frames, info.fps, info.decoder) == (5, 12.5, "pillow")
    for number, frame in enumerate(frames):
        red = (frame == (255, 0, 0)).all(axis=-1)
        assert red.sum() == 64, "an earlier frame shows through"
        assert red[8:16, 4 * number : 4 * number + 8].all()
        assert (frame[~red] == 255).all()


@pytest.mark.parametrize(
    ("durations", "repeats", "fps"),
    [
        ([100, 200, 100], [1, 2, 1], 10.0),
        ([40, 50, 40, 40], [1, 1, 1, 1], 4000 / 170),
        ([0, 0], [1, 1], 10.0),
        ([20, 1000], [1, 50], 50.0),
    ],
)
def test_gif_durations_are_honoured(tmp_path: Path, durations: list[int], repeats: list[int], fps: float) -> None:
    save_gif(tmp_path / "a.gif", durations, loop=3)
    frames, info = read_clip(tmp_path / "a.gif")
    assert len(frames) == info.num_frames == sum(repeats), "loops are not repeated"
    assert info.fps == pytest.approx(fps)
    shown = [int(np.argmax((frame[12] == (255, 0, 0)).all(axis=-1))) // 4 for frame in frames]
    assert shown == [number for number, count in enumerate(repeats) for _ in range(count)]


def test_a_truncated_gif(tmp_path: Path) -> None:
    save_gif(tmp_path / "a.gif", [80] * 5)
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-30])
    assert reason_of(tmp_path / "cut.gif") == "truncated"


def test_a_written_gif_comes_back(tmp_path: Path) -> None:
    frames = moving()
    write_gif(tmp_path / "a.gif", [frames[:10], *frames[10:]], fps=24)
    shown, info = read_clip(tmp_path / "a.gif")
    assert len(shown) == 20
    assert info.fps == pytest.approx(24, rel=0.03)
    assert np.abs(shown.astype(int) - frames).mean() < 4
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.info["loop"] == 0


def test_sound_is_kept_where_there_is_some(clip: Path, samples: Path, tmp_path: Path) -> None:
    loud, mute = tmp_path / "loud.mp4", tmp_path / "mute.mp4"
    write_video(loud, moving(), fps=25, audio_from=samples / "faces" / "woman-expressions.mp4")
    write_video(mute, moving(), fps=25, audio_from=clip)
    assert (probe(loud).has_audio, probe(mute).has_audio) == (True, False)
    assert np.array_equal(read_clip(loud)[0], read_clip(mute)[0])


def test_a_failed_write_leaves_the_old_file(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    shutil.copy(clip, target)
    before = target.read_bytes()

    def breaking() -> object:
        yield moving()
        raise KeyError("made to fail")

    for write, wrong in ((write_video, target), (write_gif, tmp_path / "clip.gif")):
        with pytest.raises(KeyError):
            write(wrong, breaking(), fps=25)  # type: ignore[operator]
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    for wrong in ([], [moving().astype(np.float32)], [moving(), moving()[:, :20]]):
        with pytest.raises(ClipError, match="must"):
            write_video(tmp_path / "a.mp4", wrong, fps=25)
        with pytest.raises(ClipError, match="must"):
            write_gif(tmp_path / "a.gif", wrong, fps=25)
    with pytest.raises(ClipError, match="frame rate"):
        write_video(tmp_path / "a.mp4", moving(), fps=0)
    assert not list(tmp_path.iterdir())


def test_an_output_that_can_not_be_written_is_no_fault_of_the_medium(tmp_path: Path) -> None:
    problem = video_ffmpeg.unwritten(tmp_path, "x\nav_write: No space left on device\n")
    assert isinstance(problem, EnvironmentProblem)
    assert "Free some space" in str(problem)


def test_the_error_crosses_processes() -> None:
    error = MediaError("a must be b; got c.", "truncated")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, SourceError)
    assert (str(again), again.reason) == (str(error), "truncated")
