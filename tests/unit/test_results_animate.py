"""Animation with a fake engine: what moves, what is written, what is refused, and what stays when something fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import EnvironmentProblem, ParamsError, SourceError
from pipelines import animate_show, transfer
from pipelines.animate import AnimateOptions, animate, check_outputs, named, open_all
from pipelines.framing import Picture, Video
from pipelines.served.motion import Motion
from pipelines.sinks import writing
from pipelines.transfer import RENDER_AT_ONCE, Transfer
from preprocessing.video import VideoWriter, probe, read_clip, write_gif, write_video

SIZE = 16
LEVELS = (60, 100, 140, 120)
"""Brightness of the driving frames."""


class BrightnessEngine:
    """Its first keypoint's x is the frame's mean brightness; it renders that x as red."""

    size_px = SIZE
    has_avd = False

    def __init__(self) -> None:
        self.seen = 0
        self.most = 0

    def keypoints(self, frames: np.ndarray) -> Motion:
        self.seen, self.most = self.seen + len(frames), max(self.most, len(frames))
        value = np.tile(np.float32([[0, 0], [0.5, -0.5], [-0.5, -0.5]]), (len(frames), 1, 1))
        value[:, 0, 0] = frames.reshape(len(frames), -1).mean(axis=1) / 255 * 2 - 1
        return Motion(value, np.broadcast_to(np.eye(2, dtype=np.float32), (len(frames), 3, 2, 2)))

    def disentangle(self, source: np.ndarray, pose: Motion) -> Motion:
        raise NotImplementedError

    def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
        self.most = max(self.most, len(motion.value))
        frames = np.zeros((len(motion.value), SIZE, SIZE, 3), dtype=np.float32)
        frames[..., 0] = (motion.value[:, 0, 0, None, None] + 1) / 2
        return frames


def plain(level: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.fromarray(plain(200)).save(tmp_path / "source.png")
    return tmp_path / "source.png"


@pytest.fixture
def driving(tmp_path: Path) -> Path:
    write_video(tmp_path / "driving.mp4", (plain(level) for level in LEVELS), fps=10, crf=1)
    return tmp_path / "driving.mp4"


def options(**changes: object) -> AnimateOptions:
    return AnimateOptions(**{"crop": False, "find_best_frame": False, **changes})  # type: ignore[arg-type]


def prepared(source: Path, driving: Path, **changes: object) -> tuple[Picture, Video, Transfer, np.ndarray]:
    """What an animation is made of, and its frames, in memory."""
    engine, chosen = BrightnessEngine(), options(**changes)
    opened = open_all(engine, [source], driving, [], options=chosen)
    picture, seen = opened.pictures[0], opened.driving
    rules: dict[str, Any] = {name: getattr(chosen, name) for name in ("mode", "adapt_scale", "find_best_frame")}
    plan = transfer.prepare(engine, picture.frame, seen, **rules)
    parts = [part.result for part in transfer.render(engine, plan, seen, with_driving=False)]
    return picture, seen.video, plan, np.concatenate(parts)


def reds(source: Path, driving: Path, **changes: object) -> np.ndarray:
    """The x of the first keypoint in every frame, as brightness."""
    return prepared(source, driving, **changes)[-1][:, SIZE // 2, SIZE // 2, 0].astype(float)


def test_absolute_motion_takes_the_driving_keypoints(source: Path, driving: Path) -> None:
    np.testing.assert_allclose(reds(source, driving, mode="absolute", find_best_frame=True), LEVELS, atol=3)
    assert prepared(source, driving, mode="absolute", find_best_frame=True)[2].reference == 0


def test_relative_motion_adds_the_movement_since_the_first_frame(source: Path, driving: Path) -> None:
    np.testing.assert_allclose(reds(source, driving), [200, 240, 255, 255], atol=4)


def test_best_frame_is_the_reference(tmp_path: Path, driving: Path) -> None:
    near = tmp_path / "near-the-third.png"
    Image.fromarray(plain(139)).save(near)
    assert prepared(near, driving, find_best_frame=True)[2].reference == 2
    np.testing.assert_allclose(reds(near, driving, find_best_frame=True), [59, 99, 139, 119], atol=4)


def test_smoothing_averages_over_time(source: Path, driving: Path) -> None:
    rough, calm = (reds(source, driving, mode="absolute", smoothing=width) for width in (0.0, 0.8))
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    third = (LEVELS @ weights[:4]) / weights[:4].sum()
    assert abs(calm[2] - third) < 3
    assert np.abs(np.diff(calm)).sum() < np.abs(np.diff(rough)).sum()


def test_an_avd_mode_needs_an_avd_network(source: Path, driving: Path) -> None:
    with pytest.raises(ParamsError, match="mode must be relative or absolute with this model, which has no AVD"):
        animate(BrightnessEngine(), [source], driving, driving.parent / "x.gif", options=options(mode="avd"))


def test_an_avd_mode_takes_what_the_network_gives(source: Path, driving: Path) -> None:
    class Avd(BrightnessEngine):
        has_avd = True

        def disentangle(self, source: np.ndarray, pose: Motion) -> Motion:
            return pose._replace(value=-pose.value)

    made = driving.parent / "avd.mp4"
    (report,) = animate(Avd(), [source], driving, made, options=options(mode="avd"))
    assert report.motion == "avd"
    red = read_clip(made)[0][:, SIZE // 2, SIZE // 2, 0]
    np.testing.assert_allclose(red, 255 - np.array(LEVELS), atol=8)


@pytest.mark.parametrize("width", [-1.0, 101.0, float("nan")])
def test_a_senseless_smoothing_is_refused(width: float) -> None:
    with pytest.raises(ParamsError, match="smoothing must lie in 0 to 100 frames"):
        options(smoothing=width)


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".GIF"])
def test_a_file_is_written_with_the_driving_videos_rate(source: Path, driving: Path, suffix: str) -> None:
    out = driving.parent / f"new folder/out's{suffix}"
    (report,) = animate(BrightnessEngine(), [source], driving, out, options=options(), model="models:/m/1")
    info = probe(out)
    assert (info.width, info.height, info.num_frames) == (SIZE, SIZE, 4)
    assert info.fps == pytest.approx(10, rel=0.01)
    assert (report.num_frames, report.motion, report.model, report.note) == (4, "relative", "models:/m/1", "")
    assert report.outputs == (str(out),)


def test_side_by_side_shows_three_large_panels(source: Path, driving: Path) -> None:
    out = driving.parent / "wide.mp4"
    animate(BrightnessEngine(), [source], driving, out, options=options(side_by_side=True, max_frames=2))
    frames, info = read_clip(out)
    side, gap = animate_show.SHOWN_PX, animate_show.PANEL_GAP_PX
    assert (info.height, info.width, len(frames)) == (side, 3 * side + 2 * gap, 2)
    row = frames[0, side // 2].astype(int)
    assert abs(row[side // 2] - 200).max() <= 4
    assert row[side + gap // 2].min() > 240
    assert abs(row[side // 2 + side + gap] - LEVELS[0]).max() <= 4
    assert abs(row[side // 2 + 2 * (side + gap)] - [200, 0, 0]).max() <= 12


def test_several_sources_share_the_driving_keypoints(source: Path, driving: Path, tmp_path: Path) -> None:
    Image.fromarray(plain(40)).save(tmp_path / "dark.png")
    (tmp_path / "other").mkdir()
    Image.fromarray(plain(90)).save(tmp_path / "other" / "dark.png")
    engine = BrightnessEngine()
    sources = [source, tmp_path / "dark.png", tmp_path / "other" / "dark.png"]
    reports = animate(engine, sources, driving, tmp_path / "out.mp4", options=options())
    assert [Path(name).name for report in reports for name in report.outputs] == [
        "out-source.mp4",
        "out-dark.mp4",
        "out-dark-2.mp4",
    ]
    assert engine.seen == len(LEVELS) + len(sources)
    for report, start in zip(reports, (200, 40, 90), strict=True):
        red = read_clip(Path(report.outputs[0]))[0][:, SIZE // 2, SIZE // 2, 0]
        np.testing.assert_allclose(red[:2], [start, start + 40], atol=8)
    assert named(Path("a/b.gif"), [source]) == [Path("a/b.gif")]
    alike = [path.name for path in named(Path("o.gif"), [Path("a/x.png"), Path("b.png/x.png"), Path("x-2.png")])]
    assert alike == ["o-x.gif", "o-x-2.gif", "o-x-2-2.gif"]


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "long.mp4", fps=25, preset="ultrafast") as writer:
        for start in range(0, 800, 100):
            levels = 40 + (np.arange(start, start + 100) % 150)
            writer.write(np.broadcast_to(levels[:, None, None, None], (100, 48, 64, 3)).astype(np.uint8))
    return tmp_path / "long.mp4"


@pytest.mark.parametrize("wide", [False, True])
def test_a_long_video_is_never_held_whole(
    source: Path, long_video: Path, monkeypatch: pytest.MonkeyPatch, wide: bool
) -> None:
    alive = {"now": 0, "most": 0}

    class Counted(np.ndarray):
        """Frames that count themselves for as long as anything refers to them."""

        def __new__(cls, array: np.ndarray) -> Counted:
            made = np.array(array).view(cls)
            made.counted = len(made)  # type: ignore[attr-defined]
            alive["now"] += len(made)
            alive["most"] = max(alive["most"], alive["now"])
            return made

        def __del__(self) -> None:
            alive["now"] -= getattr(self, "counted", 0)

    plain_batches = Video.batches

    def batches(self: Video) -> Iterator[np.ndarray]:
        return (Counted(batch) for batch in plain_batches(self))

    monkeypatch.setattr(animate_show, "SHOWN_PX", SIZE)
    monkeypatch.setattr(Video, "batches", batches)
    monkeypatch.setattr(transfer, "as_bytes", lambda frames: Counted((frames * 255).astype(np.uint8)))
    engine, out = BrightnessEngine(), long_video.parent / "out.mp4"
    (report,) = animate(
        engine, [source], long_video, out, options=options(side_by_side=wide, find_best_frame=True, smoothing=2.0)
    )
    assert (report.num_frames, probe(out).num_frames, engine.seen) == (800, 800, 801)
    assert engine.most <= RENDER_AT_ONCE
    assert 0 < alive["most"] <= 6 * RENDER_AT_ONCE


def test_a_gif_of_a_long_video_is_refused_before_the_work(
    source: Path, driving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(animate_show, "GIF_BYTES", 3 * SIZE * SIZE * 4)
    engine = BrightnessEngine()
    with pytest.raises(ParamsError, match="be an mp4 or take max_frames: a GIF of 16x16 holds at most 3 of the 4"):
        animate(engine, [source], driving, driving.parent / "x.gif", options=options())
    assert engine.seen == 0
    animate(engine, [source], driving, driving.parent / "x.gif", options=options(max_frames=3))


def _odd_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Files of all kinds of a picture, bright above and dark below, and what they show, (H, W)."""
    half = np.full((30, 40), 60, np.uint8)
    half[:15] = 200
    Image.fromarray(half).save(folder / "grey.png")
    Image.fromarray(np.dstack([half, np.full((30, 40), 255, np.uint8)])).save(folder / "grey-alpha.png")
    clear = np.where(half == 200, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([half, half, half, clear])).save(folder / "alpha.png")
    Image.fromarray(half.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(half).convert("P").save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    Image.fromarray(np.dstack([np.rot90(half)] * 3)).save(folder / "turned.jpg", exif=exif, quality=95)
    write_gif(folder / "moving.gif", [np.dstack([half] * 3)] * 2, fps=5)
    tall = np.dstack([np.repeat(half, 4, axis=0)] * 3)
    Image.fromarray(tall).save(folder / "tall.png")
    shown = dict.fromkeys(("grey", "grey-alpha", "sixteen", "palette", "turned", "moving", "tall"), half)
    return {**shown, "alpha": np.where(half == 200, 200, 255)}


@pytest.mark.parametrize("name", ["grey", "grey-alpha", "alpha", "sixteen", "palette", "turned", "moving", "tall"])
def test_pictures_of_all_kinds_can_be_moved(tmp_path: Path, driving: Path, name: str) -> None:
    shown = _odd_pictures(tmp_path)[name]
    (path,) = tmp_path.glob(f"{name}.*")
    picture, *_, result = prepared(path, driving, max_frames=1)
    assert result.shape == (1, SIZE, SIZE, 3)
    found = picture.frame.astype(int)
    assert np.abs(found - found[..., :1]).max() <= 2, "grey"
    assert abs(found[2, SIZE // 2, 0] - int(shown[5, 20])) <= 4
    assert abs(found[-3, SIZE // 2, 0] - int(shown[-5, 20])) <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_driving_video_of_one_frame_gives_one_frame_and_says_so(source: Path, tmp_path: Path, suffix: str) -> None:
    one = tmp_path / f"one{suffix}"
    if suffix == ".png":
        Image.fromarray(plain(70)).save(one)
    else:
        (write_gif if suffix == ".gif" else write_video)(one, [plain(70)], fps=10)  # type: ignore[operator]
    (report,) = animate(BrightnessEngine(), [source], one, tmp_path / "out.gif", options=options(find_best_frame=True))
    assert report.num_frames == probe(tmp_path / "out.gif").num_frames == 1
    assert report.note.startswith("The driving video has one frame, so there is no movement")
    (still,) = animate(BrightnessEngine(), [source], one, tmp_path / "out.mp4", options=options(mode="absolute"))
    assert (still.num_frames, still.note) == (1, "")


def test_driving_videos_of_other_shapes_are_cut_to_their_middle(source: Path, tmp_path: Path) -> None:
    frame = plain(30, 20, 90)
    frame[:, 35:55] = 150
    write_video(tmp_path / "wide.mp4", [frame] * 3, fps=10, crf=1)
    video = prepared(source, tmp_path / "wide.mp4")[1]
    assert video.box == (35, 0, 55, 20)
    np.testing.assert_allclose(next(video.batches()), 150, atol=6)


def test_where_no_face_is_found_the_middle_is_taken_and_said(
    source: Path, driving: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        out = driving.parent / "x.gif"
        (report,) = animate(BrightnessEngine(), [source], driving, out, options=options(crop=True))
    assert (report.framing_source, report.framing_driving) == ("centre", "centre")
    assert report.note == "No face was found in the source and the driving video; the middle was taken."
    assert "no face found in source.png" in caplog.text


def test_a_face_is_cut_out(samples: Path) -> None:
    face, moving = samples / "portraits/man-smiling.jpg", samples / "faces/woman-expressions.mp4"
    picture, video, _, result = prepared(face, moving, crop=True, max_frames=17)
    assert (picture.framing, video.framing) == ("face", "face")
    left, top, right, bottom = video.box
    assert right - left == bottom - top
    assert 100 < right - left <= 360
    assert 100 < (left + right) / 2 < 500
    assert len(result) == sum(map(len, video.batches())) == 17


@pytest.mark.parametrize("name", ["x.avi", "x", "x.png", "x.gif.txt"])
def test_other_files_than_gif_and_mp4_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match=r"out must end in \.gif or \.mp4"):
        check_outputs([Path(name)])


def test_an_input_or_a_folder_is_no_output(source: Path, driving: Path) -> None:
    with pytest.raises(ParamsError, match="another file than the source"):
        check_outputs([driving.parent / "." / driving.name], inputs=[source, driving])
    (driving.parent / "folder.gif").mkdir()
    with pytest.raises(ParamsError, match="name a file, not a folder"):
        check_outputs([driving.parent / "folder.gif"])
    with pytest.raises(EnvironmentProblem, match="be a folder that can be written"):
        check_outputs([source / "inside" / "x.gif"])


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_bad_input_leaves_the_old_result(source: Path, tmp_path: Path, content: bytes | None) -> None:
    out, bad = tmp_path / "old.gif", tmp_path / "bad.mp4"
    out.write_bytes(b"precious")
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(SourceError):
        animate(BrightnessEngine(), [source], bad, out, options=options())
    with pytest.raises(SourceError):
        animate(BrightnessEngine(), [source, bad], source, out, options=options())
    assert out.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} <= {"old.gif", "bad.mp4", "source.png"}


def test_a_failing_engine_leaves_the_old_result(source: Path, driving: Path) -> None:
    class Failing(BrightnessEngine):
        def render(self, source: np.ndarray, motion: Motion) -> np.ndarray:
            raise RuntimeError("out of memory")

    out = driving.parent / "old.mp4"
    out.write_bytes(b"precious")
    with pytest.raises(RuntimeError, match="out of memory"):
        animate(Failing(), [source], driving, out, options=options())
    assert out.read_bytes() == b"precious"
    assert {path.name for path in driving.parent.iterdir()} == {"old.mp4", "source.png", "driving.mp4"}


def test_a_failing_writer_ends_the_rendering_and_leaves_no_file(source: Path, tmp_path: Path) -> None:
    def fail(path: Path, frames: Iterator[np.ndarray]) -> None:
        next(frames)
        raise EnvironmentProblem("the disk is full")

    def write(path: Path, frames: Iterator[np.ndarray]) -> None:
        batches = list(frames)
        path.write_bytes(b"".join(batch.tobytes() for batch in batches))

    given = 0

    def feed(*files: tuple[str, Any]) -> None:
        nonlocal given
        with writing([(tmp_path / name, how) for name, how in files]) as put:
            for given in range(1, 1000):  # noqa: B007 - looked at when it has failed
                put(np.zeros((1, 2, 2, 3), np.uint8))

    with pytest.raises(EnvironmentProblem, match="disk is full"):
        feed(("whole", write), ("broken", fail))
    assert 2 <= given < 10
    assert not (tmp_path / "whole").exists()
    with pytest.raises(RuntimeError, match="ended before its frames"):
        feed(("idle", lambda *_: None))
    with writing([(tmp_path / name, write) for name in ("one", "two")]) as put:
        for level in range(5):
            put(np.full((1, 1, 1, 3), level, np.uint8))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == bytes(sorted([*range(5)] * 3))


def test_one_pixel_is_refused(tmp_path: Path, driving: Path) -> None:
    Image.fromarray(plain(9, 1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(SourceError, match="at least 2 px high and wide; got 1x1"):
        prepared(tmp_path / "dot.png", driving)
