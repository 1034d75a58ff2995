"""Videos of every nasty kind: each is read right (count, order, size, uprightness, colours), or rejected in words."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_kit import CORNERS, NUM_GRAYS, corners, encode, ffmpeg, gif, numbers, pattern
from PIL import Image

from preprocessing import video_decord, video_facts, video_ffmpeg
from preprocessing.video import DEFAULT_LIMITS, Limits, MediaError, open_video, probe, read_clip, read_picture

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", 4, "-pix_fmt", "yuv420p")
VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", 8, "-crf", 4, "-pix_fmt", "yuv420p")
SHAPES = {"same": (256, 160), "other": (80, 128)}
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
LETTERS = {(255, 255, 255): ".", **dict(zip(PALETTE, "rgbk", strict=True))}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("plain") / "plain.mp4", pattern(), *H264)


def rejected(path: Path, limits: Limits = DEFAULT_LIMITS) -> MediaError:
    """The error of a file that can't be used, whose words are as they should be."""
    with pytest.raises(MediaError) as caught, open_video(path, limits=limits) as reader:
        for _ in reader.batches():
            pass
    text = str(caught.value)
    assert text.startswith(path.name + " must ")
    assert "; got " in text
    assert "\n" not in text
    assert str(path.parent) not in text
    assert text.endswith(".")
    return caught.value


def read_whole(path: Path, *, num_frames: int = 12, size: tuple[int, int] = (128, 80), tolerance: float = 4) -> str:
    """Read a video of the known pattern and check all about it; the decoder's name."""
    frames, info = read_clip(path)
    assert (info.width, info.height) == size
    assert frames.shape == (num_frames, size[1], size[0], 3)
    assert numbers(frames) == [number % NUM_GRAYS for number in range(num_frames)]
    assert max(np.abs(corners(frame) - CORNERS).max() for frame in frames) <= tolerance
    return info.decoder


def through_ffmpeg(path: Path) -> np.ndarray:
    view = video_facts.examine(path, DEFAULT_LIMITS).view
    return np.concatenate(list(video_ffmpeg.decoded(path, view, limits=DEFAULT_LIMITS, batch_frames=5)))


CUT_OFF = ("empty", "unreadable", "truncated", "no-frames", "undecodable", "frame-rate")


def outcome(path: Path) -> str:
    """`read` when all frames that come are right and in order, else the reason."""
    try:
        frames, _ = read_clip(path)
    except MediaError as error:
        return error.reason
    shown = numbers(frames)
    in_order = shown == sorted(set(shown)) and len(shown) >= shown[-1] - 3  # some may lack what they are made from
    good = in_order and np.abs(corners(frames[-1]) - CORNERS).max() <= 10
    return "read" if good else "wrong"


# colours and pixel formats


@pytest.mark.parametrize(
    ("codec", "matrix", "tag", "value_range"),
    [
        ("libx264", "bt709", "bt709", "tv"),
        ("libx264", "bt709", "bt709", "pc"),
        ("libx264", "bt601", "smpte170m", "tv"),
        ("libx264", "bt601", "smpte170m", "pc"),
        ("libx264", "bt2020", "bt2020nc", "tv"),
        ("libx265", "bt709", "bt709", "pc"),
        ("libvpx-vp9", "bt709", "bt709", "tv"),
    ],
)
def test_colours_are_turned_back_as_they_were_coded(
    tmp_path: Path, codec: str, matrix: str, tag: str, value_range: str
) -> None:
    coded = f"scale=out_color_matrix={matrix}:out_range={value_range},format=yuv420p"
    tags = ("-colorspace", tag, "-color_range", value_range, "-crf", 4)
    quiet = ("-x265-params", "log-level=none") if codec == "libx265" else ("-cpu-used", 8) if "vpx" in codec else ()
    path = encode(tmp_path / "a.mkv", pattern(4), "-vf", coded, "-c:v", codec, *tags, *quiet)
    assert read_whole(path, num_frames=4) == "decord"
    assert np.array_equal(read_clip(path)[0], through_ffmpeg(path)), "both decoders give the same pixels"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ten.mp4", ("-c:v", "libx265", "-crf", 4, "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none")),
        ("ten.mkv", ("-c:v", "libx264", "-crf", 4, "-pix_fmt", "yuv420p10le")),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", 3)),
        ("twelve.mkv", ("-c:v", "libx265", "-crf", 4, "-pix_fmt", "yuv444p12le", "-x265-params", "log-level=none")),
        ("rgb.mkv", ("-c:v", "libx264rgb", "-qp", 0)),
        ("full.mp4", ("-c:v", "mjpeg", "-q:v", 2, "-pix_fmt", "yuvj420p")),
        ("raw.avi", ("-c:v", "rawvideo", "-pix_fmt", "bgr24")),
        ("old.avi", ("-c:v", "mpeg4", "-q:v", 2, "-bf", 2)),
        ("older.mpg", ("-c:v", "mpeg2video", "-q:v", 2)),
        ("theora.ogv", ("-c:v", "libtheora", "-q:v", 10)),
        ("av1.mkv", ("-c:v", "libsvtav1", "-preset", 10, "-crf", 8, "-pix_fmt", "yuv420p", "-svtav1-params", "lp=1")),
        ("vp8.webm", ("-c:v", "libvpx", "-crf", 4, "-b:v", "2M")),
        ("vp9.ivf", VP9),
    ],
)
def test_any_common_codec_and_depth(tmp_path: Path, name: str, options: tuple[object, ...]) -> None:
    path = encode(tmp_path / name, pattern(), *options)
    read_whole(path, tolerance=6)
    assert np.array_equal(read_clip(path)[0], through_ffmpeg(path))


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16le", "monow"])
def test_gray_and_black_and_white(tmp_path: Path, pix_fmt: str) -> None:
    options = ("-c:v", "rawvideo") if pix_fmt == "monow" else ("-c:v", "ffv1")
    frames, _ = read_clip(
        encode(tmp_path / f"a.{'avi' if pix_fmt == 'monow' else 'mkv'}", pattern(), *options, "-pix_fmt", pix_fmt)
    )
    assert np.ptp(frames.astype(int), axis=-1).max() == 0
    if pix_fmt == "monow":
        assert set(np.unique(frames)) == {0, 255}
    else:
        assert numbers(frames) == list(range(12))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", (*VP9[:-1], "yuva420p")),
        ("b.webm", ("-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", 0, "-crf", 4, "-b:v", "2M")),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", 4, "-pix_fmt", "yuva444p10le")),
        ("png.mov", ("-c:v", "png")),
        ("qtrle.mov", ("-c:v", "qtrle")),
        ("ffv1.mkv", ("-c:v", "ffv1", "-pix_fmt", "bgra")),
    ],
)
def test_transparency_is_on_white(tmp_path: Path, name: str, options: tuple[object, ...]) -> None:
    frames = np.concatenate([pattern(), np.full((12, 80, 128, 1), 255, np.uint8)], axis=-1)
    frames[:, :20, :64, 3], frames[:, :40, 64:, 3] = 0, 128
    frames[:, 30:50, 48:80, 3] = 255
    shown, info = read_clip(encode(tmp_path / name, frames, *options, pix_fmt="rgba"))
    assert numbers(shown) == list(range(12))
    assert info.decoder == "ffmpeg"
    assert shown[:, 2:16, 4:60].min() >= 251, "nothing there"
    assert np.abs(shown[:, 5:20, 100:120].astype(int) - (255 + CORNERS[0, 1].astype(int)) // 2).max() <= 6, "half there"
    assert np.abs(shown[:, 60:75, 100:120].astype(int) - CORNERS[1, 1]).max() <= 6, "all there"


# geometry


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3), (-90, 3)])
def test_a_rotation_tag_is_obeyed(plain: Path, tmp_path: Path, name: str, angle: int, turns: int) -> None:
    ffmpeg("-display_rotation", angle, "-i", plain, "-c", "copy", tmp_path / name)
    frames, info = read_clip(tmp_path / name)
    assert frames.shape == (12, *((128, 80) if turns % 2 else (80, 128)), 3)
    assert np.abs(corners(frames[0]) - np.rot90(CORNERS, turns)).max() <= 4
    assert numbers(frames) == list(range(12))
    assert info.decoder == "decord"
    assert np.array_equal(frames, through_ffmpeg(tmp_path / name))


@pytest.mark.parametrize("angle", [0, 90])
def test_a_mirrored_video_is_turned_by_ffmpeg_which_can(plain: Path, tmp_path: Path, angle: int) -> None:
    ffmpeg("-display_rotation", angle, "-display_hflip", "-i", plain, "-c", "copy", tmp_path / "a.mp4")
    frames, info = read_clip(tmp_path / "a.mp4")
    assert info.decoder == "ffmpeg"
    upright = {0: CORNERS[:, ::-1], 90: np.rot90(CORNERS[:, ::-1], -1)}[angle]
    assert np.abs(corners(frames[0]) - upright).max() <= 4


def test_a_video_that_is_turned_askew(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-display_rotation", 45, "-i", plain, "-c", "copy", tmp_path / "a.mp4")
    assert rejected(tmp_path / "a.mp4").reason == "unsupported"


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("2/1", (256, 80)), ("64/45", (182, 80)), ("1/2", (128, 160)), ("1280/1281", (128, 80)), ("50/1", (128, 80))],
)
def test_pixels_are_made_square(tmp_path: Path, aspect: str, size: tuple[int, int]) -> None:
    path = encode(tmp_path / "a.mp4", pattern(), *H264, "-vf", f"setsar={aspect}:max=9999")
    read_whole(path, size=size, tolerance=6)


def test_square_pixels_and_a_rotation(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", pattern(), *H264, "-vf", "setsar=2/1")
    ffmpeg("-display_rotation", 90, "-i", path, "-c", "copy", tmp_path / "b.mp4")
    frames, _ = read_clip(tmp_path / "b.mp4")
    assert frames.shape == (12, 256, 80, 3)
    assert np.abs(corners(frames[0]) - np.rot90(CORNERS)).max() <= 6


def test_a_size_of_pixels_that_breaks_the_limit(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", pattern(), *H264, "-vf", "setsar=4/1")
    assert rejected(path, Limits(max_pixels=20_000)).reason == "too-large"
    assert read_clip(path, limits=Limits(max_pixels=128 * 4 * 80))[1].width == 512


def test_half_pictures_are_made_whole(tmp_path: Path) -> None:
    """Two frames are woven into one; woven they would show the mean of both numbers."""
    woven = ("-vf", "tinterlace=interleave_top,fieldorder=tff", "-flags", "+ildct+ilme", "-x264opts", "tff=1")
    frames, info = read_clip(encode(tmp_path / "a.mp4", pattern(24), *H264, *woven))
    assert (len(frames), info.decoder) == (12, "ffmpeg")
    assert numbers(frames) == list(range(0, 24, 2))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("a.webm", size) for size in ((127, 79), (1, 1), (3, 2), (96, 64), (16, 16), (48, 48), (130, 98))),
        *(("a.mkv", size) for size in ((127, 79), (1, 1), (2, 3))),
    ],
)
def test_odd_and_tiny_sizes(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """decord stumbles over small rows, and says so."""
    options = VP9 if name == "a.webm" else ("-c:v", "ffv1")
    frames, info = read_clip(encode(tmp_path / name, pattern(5, *size), *options))
    assert (len(frames), info.width, info.height) == (5, *size)
    if size[1] >= 16:
        assert numbers(frames) == list(range(5))
        assert np.abs(corners(frames[0]) - CORNERS).max() <= 6


def test_8k_is_read_frame_by_frame(tmp_path: Path) -> None:
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", 30, "-pix_fmt", "yuv420p")
    path = encode(tmp_path / "a.mp4", pattern(3, 768, 432), "-vf", "scale=7680:4320:flags=neighbor", *coded)
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height, reader.info.decoder) == (7680, 4320, "ffmpeg")
        batches = [(len(batch), numbers(batch[:, ::8, ::8]), corners(batch[0, ::8, ::8])) for batch in reader.batches()]
    assert [batch[:2] for batch in batches] == [(1, [0]), (1, [1]), (1, [2])]
    assert np.abs(batches[1][2] - CORNERS).max() <= 4
    assert rejected(path, Limits(max_pixels=30_000_000)).reason == "too-large"


def test_long_videos_are_not_decords(plain: Path, samples: Path) -> None:
    """It would decode ahead of a caller that takes its time, to the end of the file, and keep it all."""
    with open_video(samples / "faces" / "woman-expressions.mp4") as reader:
        assert reader.info.decoder == "ffmpeg"
    assert probe(plain).decoder == "decord"


def test_huge_sizes_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    header = (
        b"DKIF\0\0\x20\0VP90"
        + (65535).to_bytes(2, "little") * 2
        + (25).to_bytes(4, "little")
        + (1).to_bytes(4, "little")
    )
    (tmp_path / "a.ivf").write_bytes(header.ljust(32, b"\0") + (20).to_bytes(4, "little") + bytes(28))
    assert rejected(tmp_path / "a.ivf").reason in ("too-large", "unreadable")
    content = bytearray(encode(tmp_path / "b.avi", pattern(), "-c:v", "rawvideo", "-pix_fmt", "bgr24").read_bytes())
    place = content.index(b"strf") + 12
    content[place : place + 8] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "b.avi").write_bytes(content)
    assert rejected(tmp_path / "b.avi").reason in ("too-large", "unreadable")


# a size that changes


def changing(folder: Path, name: str, kind: str) -> Path:
    """Six frames of one size and six of another one in a stream."""
    width, height = SHAPES[kind]
    parts = (pattern(6), pattern(6, width, height, first=6))
    if name.endswith(".webm"):  # VP8 changes its size at a key frame, with no word in the container
        one, two = (
            encode(folder / f"{n}.ivf", part, "-c:v", "libvpx", "-crf", 4, "-b:v", "2M").read_bytes()
            for n, part in enumerate(parts)
        )
        (folder / "both.ivf").write_bytes(one + two[32:])
        ffmpeg("-i", folder / "both.ivf", "-c", "copy", "-bsf:v", "setts=ts=N", folder / name)
        return folder / name
    one, two = (encode(folder / f"{n}.h264", part, *H264, "-bf", 0).read_bytes() for n, part in enumerate(parts))
    (folder / "both.h264").write_bytes(one + two)
    if not name.endswith(".h264"):
        ffmpeg("-i", folder / "both.h264", "-c", "copy", "-bsf:v", "setts=ts=N/25/TB", folder / name)
    return folder / name if not name.endswith(".h264") else folder / "both.h264"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.h264", "a.webm"])
def test_a_changing_frame_size_is_scaled_to_one(tmp_path: Path, name: str) -> None:
    """To one size, at least: in a short file, ffmpeg looks as far ahead as the second for the size to state."""
    path = changing(tmp_path, name, "same")
    info = probe(path)
    assert (info.width, info.height) in ((128, 80), (256, 160))
    assert read_whole(path, size=(info.width, info.height)) == "ffmpeg"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.h264", "a.webm"])
def test_a_changing_shape_is_rejected(tmp_path: Path, name: str) -> None:
    error = rejected(changing(tmp_path, name, "other"))
    assert error.reason == "unsupported"
    assert "128x80, then 80x128" in str(error) or "80x128, then 128x80" in str(error)


def test_a_changing_shape_never_gets_out(tmp_path: Path) -> None:
    """Not even to a caller that stops early."""
    path = changing(tmp_path, "a.mp4", "other")
    shown: list[int] = []
    with open_video(path) as reader:
        batches = reader.batches(2)
        with pytest.raises(MediaError):
            shown.extend(number for batch in batches for number in numbers(batch))
    assert shown == list(range(len(shown)))
    assert len(shown) <= 6


# time


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    """Six frames at 25 a second, then six at 5."""
    timing = ("-vf", "setpts='if(lt(N,6),N,6+(N-6)*5)/25/TB'", "-fps_mode", "vfr")
    for name in ("a.mp4", "a.mkv", "a.ts"):
        path = encode(tmp_path / name, pattern(), *H264, *timing)
        read_whole(path)
        with open_video(path) as reader:
            times = reader.timestamps()
            assert times is not None
            assert np.allclose(times, [*np.arange(6) / 25, *(6 / 25 + np.arange(6) / 5)], atol=0.002)
            assert reader.info.fps == pytest.approx(11 / (6 / 25 + 1), rel=0.01), "it plays as long as before"


@pytest.mark.parametrize(("fps", "stated"), [(1, 1), (25, 25), ("30000/1001", 29.97), (1000, 1000), (0.5, 0.5)])
def test_frame_rates(tmp_path: Path, fps: float, stated: float) -> None:
    path = encode(tmp_path / "a.mp4", pattern(), *H264, fps=fps)
    read_whole(path)
    with open_video(path) as reader:
        assert reader.info.fps == pytest.approx(stated, rel=1e-3)
        times = reader.timestamps()
        assert times is not None
        assert np.allclose(times, np.arange(12) / stated, rtol=2e-3)


def test_twelve_hours_in_twelve_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", pattern(), *H264, fps=1 / 3600)
    read_whole(path)
    with open_video(path) as reader:
        times = reader.timestamps()
        assert times is not None
        assert times[-1] == pytest.approx(11 * 3600)


def looped(folder: Path, times: int) -> Path:
    """9,000 frames so and so many times, not encoded again."""
    once = encode(
        folder / "once.mp4", pattern(1, 64, 64), *H264[:4], "-pix_fmt", "yuv420p", "-vf", "loop=8999:1", fps=25
    )
    ffmpeg("-stream_loop", times - 1, "-i", once, "-c", "copy", folder / "long.mp4")
    return folder / "long.mp4"


MEASURE = """
import resource, sys, time
from pathlib import Path
from preprocessing.video import Limits, open_video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_video(Path(sys.argv[1]), limits=Limits(max_frames=10**6)) as reader:
    count = next(reader.batches())
    times = reader.timestamps()
    print(reader.info.num_frames, len(times), round(times[-1]), len(count))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
def test_ten_hours_of_900_000_frames(tmp_path: Path, root: Path) -> None:
    path = looped(tmp_path, 100)
    assert rejected(path).reason == "too-long"
    told = subprocess.run([sys.executable, "-c", MEASURE, path], cwd=root, capture_output=True, text=True, check=True)
    facts, grown_mb = told.stdout.splitlines()
    assert facts == "900000 900000 36000 32"
    assert int(grown_mb) < 300


def test_a_video_with_too_many_frames_is_not_read_to_its_end(tmp_path: Path) -> None:
    error = rejected(looped(tmp_path, 2), Limits(max_frames=100))
    assert error.reason == "too-long"
    assert "got 101" in str(error)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pipe.webm", (*VP9, "-f", "webm", "-live", 1)),
        ("pipe.mkv", (*H264, "-f", "matroska")),
        ("pipe.ts", (*H264, "-f", "mpegts")),
        ("pipe.flv", (*H264, "-f", "flv", "-flvflags", "no_duration_filesize")),
        ("pipe.h264", (*H264, "-f", "h264")),
        ("pipe.hevc", ("-c:v", "libx265", "-crf", 4, "-x265-params", "log-level=none", "-f", "hevc")),
        ("frag.mp4", (*H264, "-f", "mp4", "-movflags", "frag_keyframe+empty_moov")),
        ("dash.mp4", (*H264, "-f", "mp4", "-movflags", "frag_every_frame+empty_moov+default_base_moof")),
    ],
)
def test_no_duration(plain: Path, tmp_path: Path, name: str, options: tuple[object, ...]) -> None:
    (tmp_path / name).write_bytes(ffmpeg("-i", plain, *options, "pipe:1"))
    read_whole(tmp_path / name)
    with open_video(tmp_path / name) as reader:
        assert (reader.info.num_frames, reader.info.fps) == (12, 25)
        times = reader.timestamps()
        assert times is None or np.allclose(times, np.arange(12) / 25, atol=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_late_start_shifts_nothing(plain: Path, tmp_path: Path, name: str) -> None:
    """decord gives a transport stream's frames from the wrong place on."""
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", "-c:a", "aac")
    ffmpeg("-itsoffset", 3, "-i", plain, *sound, tmp_path / name)
    read_whole(tmp_path / name)
    with open_video(tmp_path / name) as reader:
        times = reader.timestamps()
        assert times is not None
        assert np.allclose(times, np.arange(12) / 25, atol=1e-3)
        assert reader.info.has_audio


def test_frames_that_an_edit_list_takes_out_are_not_shown(tmp_path: Path) -> None:
    """What is trimmed without encoding; decord would show the last frame again for each."""
    path = encode(tmp_path / "a.mp4", pattern(28), *H264, "-g", 14)
    ffmpeg("-ss", 0.4, "-i", path, "-c", "copy", tmp_path / "b.mp4")
    frames, info = read_clip(tmp_path / "b.mp4")
    assert numbers(frames) == list(range(10, 28))
    assert (info.num_frames, info.decoder) == (18, "ffmpeg")
    assert probe(tmp_path / "b.mp4").num_frames == 18


# streams


def test_the_first_video_stream_counts(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-map", 0, "-map", 0, *H264, "-s:v:1", "48x32", tmp_path / "two.mkv")
    read_whole(tmp_path / "two.mkv")


@pytest.mark.parametrize("first", [True, False])
def test_a_cover_picture_is_not_the_video(plain: Path, tmp_path: Path, first: bool) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "cover.jpg")
    inputs = ["-i", plain, "-i", tmp_path / "cover.jpg"]
    order = ["-map", 1, "-map", 0, "-disposition:v:0"] if first else ["-map", 0, "-map", 1, "-disposition:v:1"]
    ffmpeg(*inputs, *order, "attached_pic", "-c", "copy", tmp_path / "a.mp4")
    read_whole(tmp_path / "a.mp4")


# what is no video


def test_archives_texts_and_drawings_in_a_videos_clothes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip.mp4", "w") as archive:
        archive.writestr("inner.mp4", bytes(1000))
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    (tmp_path / "drawing.mp4").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    (tmp_path / "drawing.png").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    (tmp_path / "zeros.mp4").write_bytes(bytes(10_000))
    (tmp_path / "text.avi").write_text("a\n" * 1000)
    for path in sorted(tmp_path.iterdir()):
        assert rejected(path).reason == "unreadable", path.name


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation>'
        "<BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".m3u8"])
def test_a_list_that_names_other_files_opens_none(plain: Path, tmp_path: Path, content: str, suffix: str) -> None:
    (tmp_path / "secret.mp4").symlink_to(plain)
    (tmp_path / f"list{suffix}").write_text(content)
    assert rejected(tmp_path / f"list{suffix}").reason == "unreadable"


def test_an_mp4_that_keeps_its_frames_in_another_file(plain: Path, tmp_path: Path) -> None:
    """A data reference to a file outside; only the file itself may be read."""
    content = bytearray(plain.read_bytes())
    place = content.index(b"url \0\0\0\1")
    content[place + 4 : place + 8] = bytes(4)  # "the frames are not in this file"
    (tmp_path / "a.mp4").write_bytes(content)
    assert outcome(tmp_path / "a.mp4") == "read" or outcome(tmp_path / "a.mp4") in CUT_OFF


# damage


def grainy(path: Path, *options: object) -> Path:
    frames = pattern(56, 160, 120)
    noise = np.random.default_rng(0).normal(0, 12, frames.shape)
    return encode(path, np.clip(frames + noise, 0, 255).astype(np.uint8), *options, "-g", 14)


def damaged(path: Path, num_bytes: int = 2000) -> Path:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + num_bytes] = np.random.default_rng(1).bytes(num_bytes)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_damage_in_the_middle_is_never_passed_on(tmp_path: Path, name: str) -> None:
    path = damaged(grainy(tmp_path / name, *H264[:4], "-pix_fmt", "yuv420p"))
    error = rejected(path)
    assert error.reason == "undecodable"
    assert "damaged" in str(error)


def test_decord_would_conceal_the_damage(tmp_path: Path) -> None:
    """Why the log of its libraries is listened to: it reports nothing itself."""
    path = damaged(grainy(tmp_path / "a.mkv", *H264[:4], "-pix_fmt", "yuv420p"))
    video = video_decord.DecordVideo(path)
    try:
        with pytest.raises(video_decord.DecordError, match="errors in the stream"):
            for _ in video.batches(8):
                pass
    finally:
        video.close()


def test_listening_to_the_log_ends_with_the_last_reader(plain: Path) -> None:
    log = video_decord._log
    before = log._listeners
    with open_video(plain) as one, open_video(plain) as two:
        assert log._listeners == before + 2
        assert len(next(one.batches())) == len(next(two.batches())) == 12
    assert log._listeners == before
    with pytest.raises(MediaError):
        probe(plain, limits=Limits(max_frames=2))
    assert log._listeners == before


WHOLE = {
    "a.mp4": H264,
    "fast.mp4": (*H264, "-movflags", "+faststart"),
    "a.mkv": H264,
    "a.webm": VP9,
    "a.ts": H264,
    "a.avi": ("-c:v", "mpeg4"),
    "a.gif": (),
}


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for name, options in WHOLE.items():
        encode(folder / name, pattern(28), *options)
    return folder


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WHOLE)), share=st.floats(0, 0.999, allow_subnormal=False))
def test_cut_off_at_any_byte(whole_files: Path, tmp_path: Path, name: str, share: float) -> None:
    """Either the frames up to there, in order, or an error with its reason."""
    content = (whole_files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert outcome(tmp_path / name) in ("read", *CUT_OFF)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 10**6))
def test_any_bytes_overwritten(whole_files: Path, tmp_path: Path, name: str, seed: int) -> None:
    """Frames of one size, or an error in words; nothing else, and never for long."""
    content, rng = bytearray((whole_files / name).read_bytes()), np.random.default_rng(seed)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(content)))
        content[place : place + 4] = rng.bytes(len(content[place : place + 4]))
    (tmp_path / name).write_bytes(content)
    limits = Limits(max_frames=1000, max_pixels=10**6, timeout_s=20)
    try:
        frames = read_clip(tmp_path / name, limits=limits)[0]
    except MediaError:
        rejected(tmp_path / name, limits)
    else:
        assert frames.ndim == 4


# GIFs


def flat(colour: int, width: int = 2, height: int = 2) -> np.ndarray:
    return np.full((height, width), colour, np.uint8)


def drawn(path: Path) -> list[str]:
    """Each frame's rows as letters."""
    return [
        "/".join("".join(LETTERS[tuple(pixel)] for pixel in row) for row in frame.tolist())
        for frame in read_clip(path)[0]
    ]


@pytest.mark.parametrize("transparent", [None, 3])
@pytest.mark.parametrize("background", [0, 3])
@pytest.mark.parametrize(
    ("disposal", "last"),
    [(0, "gggrr/gbbrr/gbbgg"), (1, "gggrr/gbbrr/gbbgg"), (2, "gggrr/g..rr/g..gg"), (3, "gggrr/gggrr/ggggg")],
)
def test_every_disposal(tmp_path: Path, transparent: int | None, background: int, disposal: int, last: str) -> None:
    """As browsers do it: cleared is transparent, whatever background colour the file names."""
    frames = [(0, 0, flat(1, 5, 3), 1, 10), (1, 1, flat(2), disposal, 10), (3, 0, flat(0), 1, 10)]
    path = gif(tmp_path / "a.gif", frames, size=(5, 3), palette=PALETTE, transparent=transparent, background=background)
    assert drawn(path) == ["ggggg/ggggg/ggggg", "ggggg/gbbgg/gbbgg", last]


def test_disposals_in_a_row(tmp_path: Path) -> None:
    frames = [
        (0, 0, np.array([[1, 3, 1]], np.uint8), 3, 10),  # restored to nothing
        (0, 0, flat(2, 1, 1), 1, 10),
        (1, 0, flat(0, 2, 1), 3, 10),  # restored to what the second left
        (0, 0, flat(3, 3, 1), 2, 10),  # clear itself, and clears all
        (2, 0, flat(1, 1, 1), 0, 10),
    ]
    path = gif(tmp_path / "a.gif", frames, size=(3, 1), palette=PALETTE, transparent=3)
    assert drawn(path) == ["g.g", "b..", "brr", "b..", "..g"]


def test_frames_end_at_the_edge_of_the_screen(tmp_path: Path) -> None:
    frames = [(0, 0, flat(1, 5, 4), 1, 10), (2, 1, flat(2, 9, 9), 1, 10), (7, 7, flat(0), 1, 10)]
    path = gif(tmp_path / "a.gif", frames, size=(4, 2), palette=PALETTE)
    assert drawn(path) == ["gggg/gggg", "gggg/ggbb", "gggg/ggbb"]


def test_delays_and_loops(tmp_path: Path) -> None:
    frames = [(0, 0, flat(number), 1, delay) for number, delay in enumerate((0, 1, 2, 10))]
    path = gif(tmp_path / "a.gif", frames, size=(2, 2), palette=PALETTE)
    assert drawn(path) == ["rr/rr"] * 5 + ["gg/gg"] * 5 + ["bb/bb"] + ["kk/kk"] * 5
    with open_video(path) as reader:
        assert reader.info.fps == 50
        times = reader.timestamps()
        assert times is not None
        assert np.allclose(times, np.arange(16) / 50)


def test_a_large_gif_screen_and_large_frames_are_refused(tmp_path: Path) -> None:
    path = gif(tmp_path / "a.gif", [(0, 0, flat(1), 1, 10)], size=(65535, 65535), palette=PALETTE)
    assert rejected(path).reason == "too-large"
    content = bytearray(gif(tmp_path / "b.gif", [(0, 0, flat(1), 1, 10)], size=(2, 2), palette=PALETTE).read_bytes())
    place = content.index(b",", 13 + 12)
    content[place + 5 : place + 9] = b"\xff" * 4
    (tmp_path / "b.gif").write_bytes(content)
    assert rejected(tmp_path / "b.gif").reason == "too-large"


def test_a_gif_of_100_000_frames(tmp_path: Path) -> None:
    one = gif(tmp_path / "one.gif", [(0, 0, flat(1), 1, 4)], size=(2, 2), palette=PALETTE, tail=b"").read_bytes()
    start = one.index(b"!\xf9")
    (tmp_path / "many.gif").write_bytes(one + one[start:] * 99_999 + b";")
    with open_video(tmp_path / "many.gif") as reader:
        assert (reader.info.num_frames, reader.info.fps) == (100_000, 25)
        assert len(next(reader.batches(16))) == 16
    assert rejected(tmp_path / "many.gif", Limits(max_frames=1000)).reason == "too-long"


def test_a_gif_that_waits_for_ever(tmp_path: Path) -> None:
    frames = [(0, 0, flat(1), 1, delay) for delay in (2, *[65535] * 10)]
    path = gif(tmp_path / "a.gif", frames, size=(2, 2), palette=PALETTE)
    assert rejected(path).reason == "too-long"


def test_a_gif_without_its_last_byte_and_one_that_goes_on(tmp_path: Path) -> None:
    frames = [(0, 0, flat(number), 1, 10) for number in range(3)]
    path = gif(tmp_path / "a.gif", frames, size=(2, 2), palette=PALETTE, tail=b"")
    assert len(drawn(path)) == 3
    assert len(drawn(gif(tmp_path / "b.gif", frames, size=(2, 2), palette=PALETTE, tail=b";junk"))) == 3
    assert rejected(gif(tmp_path / "c.gif", frames, size=(2, 2), palette=PALETTE, tail=b"junk")).reason == "truncated"
    assert rejected(gif(tmp_path / "d.gif", [], size=(2, 2), palette=PALETTE)).reason == "no-frames"


def test_the_first_picture_of_a_gif(tmp_path: Path) -> None:
    path = gif(tmp_path / "a.gif", [(1, 0, flat(2, 1, 1), 1, 10)], size=(2, 1), palette=PALETTE)
    assert read_picture(path).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_a_gif_looks_as_pillow_draws_it(samples: Path) -> None:
    """Where both are right: real GIFs with transparency."""
    for path in sorted((samples / "cartoons").glob("*.gif"))[:6]:
        frames, _ = read_clip(path)
        with Image.open(path) as opened:
            for index in (0, 3, 9):
                opened.seek(index)
                layer = opened.convert("RGBA")
                shown = Image.alpha_composite(Image.new("RGBA", layer.size, (255,) * 4), layer).convert("RGB")
                assert np.array_equal(np.asarray(shown), frames[index])
