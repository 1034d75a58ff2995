"""What is drawn is told from the source and the output; wrong ones are refused before a model is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from stylise_kit import KitModel, panning, save, texture
from typer.testing import CliRunner

import cli
from models.errors import ParamsError, SourceError
from pipelines import stylise as stylising
from pipelines.params import ClusterConfig, StylisationConfig
from pipelines.stage import Paths
from pipelines.stylise import StyliseOptions, StyliseReport, plan, stylise
from preprocessing.video import probe, write_gif, write_video

MODEL = KitModel(name="models:/ink/3")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    save(folder / "photo.png", texture())
    write_video(folder / "video.mp4", panning(6), fps=10)
    write_gif(folder / "video.gif", [panning(6)], fps=10)
    return folder


@pytest.mark.parametrize(
    ("source", "out", "kind"),
    [
        ("photo.png", "out.jpg", "photo"),
        ("video.mp4", "out.mp4", "video"),
        ("video.mp4", "out.webp", "video"),
        ("video.gif", "out.gif", "video"),
        ("video.gif", "out.png", "photo"),
        ("", "out", "folder"),
    ],
)
def test_the_kind_is_told_from_both_ends(media: Path, source: str, out: str, kind: str) -> None:
    assert plan(media / source, media.parent / "new" / out).kind == kind
    assert (media.parent / "new").is_dir()


@pytest.mark.parametrize(
    ("source", "out", "says"),
    [
        ("photo.png", "out.mp4", r"end in \.png, \.jpg, \.jpeg, \.webp for a photo"),
        ("photo.png", "out", r"end in \.png"),
        ("photo.png", "media", "name a file, not a folder"),
        ("photo.png", "media/photo.png", "be another file than the source"),
        ("video.mp4", "out.png", r"end in \.mp4, \.gif, \.webp for a video"),
        ("", "media/out", "lie apart from the source folder"),
        ("", "media", "lie apart from the source folder"),
        ("", "media/photo.png", "name a folder"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(media: Path, source: str, out: str, says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        plan(media / source, media.parent / out)


def test_what_is_not_there_is_refused(media: Path) -> None:
    with pytest.raises(SourceError, match=r"must exist; got no such file or folder"):
        plan(media / "nothing.png", media / "out.png")


@pytest.mark.parametrize("key", [{"strength": 1.5}, {"max_frames": 0}, {"tile_px": 100}, {"num_workers": 0}])
def test_options_outside_their_range_are_refused(key: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        StyliseOptions(**key)


def test_a_gif_as_a_picture_is_its_first_frame_and_that_is_said(media: Path) -> None:
    report = stylise(MODEL, media / "video.gif", media.parent / "out.png", options=StyliseOptions())
    assert isinstance(report, StyliseReport)
    assert (report.kind, report.num_frames, report.fps) == ("photo", 1, None)
    assert "first of the 6" in report.note


def test_a_photo_tells_what_has_no_effect(media: Path) -> None:
    report = stylise(MODEL, media / "photo.png", media.parent / "out.png", options=StyliseOptions(temporal=True))
    assert isinstance(report, StyliseReport)
    assert report.temporal is False
    assert "nothing to keep steady" in report.note
    assert report.model == "models:/ink/3"


def test_a_video_is_reported(media: Path) -> None:
    options = StyliseOptions(temporal=True, strength=0.5, max_frames=4)
    report = stylise(MODEL, media / "video.mp4", media.parent / "out.mp4", options=options)
    assert isinstance(report, StyliseReport)
    assert (report.num_frames, report.fps, report.width, report.height) == (4, 10, 64, 48)
    assert report.num_compared == 4
    assert report.warping_error is not None
    assert report.warping_error_by_frame is not None
    assert report.sharpness_share is not None


def params_of(source: str, **options: Any) -> Any:
    config = StylisationConfig(experiment="ink", source=source, **options)
    return SimpleNamespace(stylisation=lambda _: config, cluster=ClusterConfig())


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("media/photo.png", {"photo.png", "drawing.png", "strip.png"}),
        ("media/video.mp4", {"photo.png", "drawing.png", "strip.png", "wall.mp4"}),
        ("media", {"drawings", "strip.png"}),
    ],
)
def test_a_stage_leaves_pictures_and_a_report(
    media: Path, monkeypatch: pytest.MonkeyPatch, source: str, made: set[str]
) -> None:
    monkeypatch.setattr(stylising, "of_experiment", lambda *_: MODEL)
    (media / "video.gif").unlink()
    paths = Paths(media.parent)
    report = stylising.run("wall", params_of(source), paths)
    assert {path.name for path in paths.pictures("stylise", "wall").iterdir()} == made
    written = json.loads(paths.report("stylise", "wall").read_text())
    assert (written["source"], written["model"]) == (source, "models:/ink/3")
    if isinstance(report, StyliseReport):
        assert report.outputs == tuple(f"reports/stylise/wall/{name}" for name in sorted(made))
    with Image.open(paths.pictures("stylise", "wall") / "strip.png") as strip:
        assert strip.width == 2 * 64 + 8
    if "drawings" in made:
        assert [path.name for path in (paths.pictures("stylise", "wall") / "drawings").iterdir()] == ["photo.png"]
    if "wall.mp4" in made:
        assert probe(paths.pictures("stylise", "wall") / "wall.mp4").num_frames == 6


def test_a_stage_that_fails_leaves_the_old_pictures(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stylising, "of_experiment", lambda *_: MODEL)
    paths = Paths(media.parent)
    stylising.run("wall", params_of("media/photo.png"), paths)
    (media / "photo.png").write_bytes(b"broken")
    with pytest.raises(SourceError):
        stylising.run("wall", params_of("media/photo.png"), paths)
    assert (paths.pictures("stylise", "wall") / "drawing.png").is_file()


@pytest.mark.parametrize("broken", [False, True])
def test_the_command_fails_where_a_photo_of_a_folder_does(
    media: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    monkeypatch.setattr(stylising, "open_model", lambda *_, **__: MODEL)
    if broken:
        (media / "broken.png").write_bytes(b"broken")
    words = ["stylise", "--model", "models:/ink", "--in", str(media), "--out", str(media.parent / "out")]
    done = CliRunner().invoke(cli.app, [*words, "--num-workers", "1"])
    assert done.exit_code == int(broken), done.output
    assert f"num_failed: {int(broken)}" in done.output


def test_the_model_is_not_opened_for_a_wrong_output(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(stylising, "open_model", refuse)
    done = CliRunner().invoke(cli.app, ["stylise", "--model", "x", "--in", str(media / "photo.png"), "--out", "a.mp4"])
    assert done.exit_code == 1
    assert "for a photo" in " ".join(done.output.split())


def test_a_model_is_left_as_it_was(media: Path) -> None:
    assert replace(MODEL, device="cpu").engine().stylise(texture()[None]).shape == (1, 48, 64, 3)
