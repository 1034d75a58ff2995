"""What the page shows of models that draw: figures beside doing nothing, the verdict in words, drawings, trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_kit import figure, fill_style, fill_stylisation, page_of, put, style_evaluation, style_losses

from pipelines import plots, report, report_training
from pipelines.params import Params, load
from pipelines.report_data import Reports, family_of, read_curves, read_reports
from pipelines.report_style import claims, counted, figures, nearness, results, stylisations
from pipelines.report_training import critic_pictures, facts, loss_picture, validation_picture
from pipelines.stage import Paths

PHOTOS = np.random.default_rng(0).integers(0, 255, (3, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def all_params(root: Path) -> Params:
    return load(root / "params.yaml")


@pytest.fixture(scope="module")
def params(all_params: Params) -> Params:
    """Of a project that only draws."""
    sets = {name: all_params.datasets[name] for name in ("photos", "paintings")}
    return replace(all_params, datasets=sets, experiments={"ink": all_params.experiments["ink"]}, animations={})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def page(params: Params, paths: Paths) -> str:
    report.run(params, paths)
    return page_of(paths)[0]


@pytest.fixture(scope="module")
def full_page(params: Params, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With an evaluated, trained and registered model that draws."""
    paths = Paths(tmp_path_factory.mktemp("full"))
    fill_style(paths, "ink", PHOTOS, PHOTOS)
    return page(params, paths)


def changed(**verdict: Any) -> dict[str, Any]:
    """A verdict that is not that of the passing model."""
    found: dict[str, Any] = style_evaluation()["verdict"] | verdict
    return found


def test_figures_stand_beside_those_of_untouched_photos_and_the_verdict_is_in_words(full_page: str) -> None:
    for wanted in ("<strong>0.0412</strong>", "0.0655", "&plusmn; 0.0031", "<strong>4.32</strong>", "6.50", ">passes<"):
        assert wanted in full_page, wanted
    assert "KID 0.0412, that of the untouched photos 0.0655: 37% less, by 6.1 standard deviations." in full_page
    assert "content distance 0.52, at most 0.8 is asked for." in full_page
    assert "91% of the photos&#39; detail, 40% is asked for." in full_page
    assert "Without a figure: kid/inception, fid/inception (put the file of Inception&#39;s weights" in full_page
    assert "9 test photos, 15 style pictures (split by source)" in full_page
    assert "photos as paintings" in full_page


def test_a_project_that_only_draws_shows_nothing_of_motion(full_page: str) -> None:
    for unwanted in ("copy-source", "L1 of", "Animations", "inkmotion animate", "driving", "real person"):
        assert unwanted not in full_page, unwanted


def test_a_project_that_only_moves_shows_nothing_of_drawings(all_params: Params, paths: Paths) -> None:
    experiments = {"fomm-faces": all_params.experiments["fomm-faces"]}
    moving = replace(all_params, experiments=experiments, stylisations={}, animations={})
    put(paths, "evaluate", "fomm-faces", {"test": {"l1": 0.08, "copy_source_l1": 0.1}})
    put(paths, "train", "fomm-faces", {"steps": 3, "images_seen": 24})
    text = page(moving, paths)
    assert "copy-source" in text
    for unwanted in ("Drawings", "untouched", "Stylisations", "KID"):
        assert unwanted not in text, unwanted


def test_a_model_that_fails_is_told_by_what(params: Params, paths: Paths) -> None:
    verdict = changed(passed=False, nearer=False, kid_made=0.0731, gain_share=-0.12, gain_deviations=-1.3)
    verdict |= {"keeps_detail": False, "detail": 0.22}
    failures = [{"picture": "bridge_2", "dataset": "photos", "reason": "is not finite"}]
    put(paths, "evaluate", "ink", style_evaluation(verdict=verdict, failures=failures))
    text = page(params, paths)
    assert ">does not pass<" in text
    assert ">passes<" not in text
    assert "12% more, by 1.3 standard deviations" in text
    assert "22% of the photos&#39; detail" in text
    assert "<code>bridge_2</code> (is not finite)" in text
    assert '<div class="big bad">1.12</div>' in text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ({}, ""),
        ({"kid_made": 0.1}, ""),
        ({"kid_made": 0.01, "kid_untouched": -0.002, "gain_share": None}, "the photos are in the style already"),
        ({"kid_made": 0.5, "kid_untouched": 1.0, "gain_share": 0.5, "gain_deviations": None}, "1.00: 50% less"),
        (changed(min_gain=0.1, min_deviations=2.0), "deviations; 10% less by 2 is asked for"),
    ],
)
def test_nearness_in_words(verdict: dict[str, Any], words: str) -> None:
    assert nearness(verdict).endswith(words)
    assert bool(nearness(verdict)) == bool(words)


def test_parts_of_a_verdict_that_are_not_told_are_left_out() -> None:
    assert [claim.held for claim in claims(changed(keeps_content=False))] == [True, False, True]
    assert [claim.what for claim in claims(changed(nearer="yes", content=None))] == ["Is not blurred"]
    assert claims({}) == ()


def test_pictures_that_are_judged_in_squares_are_counted_so() -> None:
    report = style_evaluation(num_photos=36, num_style_pictures=60, squares=2)
    assert counted(report) == "36 squares of test photos, 60 of style pictures, 4 of each"


def test_figures_are_ordered_and_have_equally_many_decimals() -> None:
    made = {name: figure(value) for name, value in (("odd", 1.0), ("detail", 0.5), ("fid/b", 150.26), ("kid/b", 0.01))}
    untouched = {"fid/b": figure(9.5), "kid/b": figure(None), "detail": figure(1.0)}
    found = figures({"made": made, "untouched": untouched})
    assert [one.metric for one in found] == ["kid", "fid", "detail", "odd"]
    words = [(one.worded(one.made), one.worded(one.untouched)) for one in found]
    assert words == [("0.0100", "-"), ("150.3", "9.5"), ("0.50", "1.00"), ("1.00", "-")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"made": None, "untouched": [1], "verdict": "passed"},
        {"made": {"kid/x": 3, "fid/x": {"value": "NaN"}}, "verdict": {"passed": 1, "kid_untouched": 0, "kid_made": 1}},
        {"strips": "strip-0.png", "judges": {"name": "x"}, "failures": [3], "seed": "x", "weights_sha256": None},
        {"strips": [None, "../../../evil.png"], "num_photos": "many", "dataset": None},
    ],
)
def test_odd_reports_do_not_stop_the_page(params: Params, paths: Paths, wrong: dict[str, Any]) -> None:
    put(paths, "evaluate", "ink", style_evaluation(**wrong))
    put(paths, "train", "ink", {"steps": "x", "validation": [1], "style_dataset": 3})
    put(paths, "stylise", "palace", {"kind": 3, "num_pictures": "x", "strength": "much", "width": [1]})
    assert "inkmotion" in page(params, paths)


def test_hostile_names_are_shown_and_not_run(params: Params, paths: Paths) -> None:
    evil = "<script>alert(1)</script>\"'><img src=http://x onerror=alert(1)>"
    made = {f"{evil}/{evil}": figure(1.0, evil, absent=evil)}
    wrong = {"picture": evil, "reason": evil}
    told = {"device": evil, "split_rule": evil, "weights_sha256": evil, "dataset": evil, "style_dataset": evil}
    put(paths, "evaluate", "evil", style_evaluation(made=made, failures=[wrong], judges=[{"name": evil}], **told))
    put(paths, "train", "evil", {"steps": 3, "preset": "lwcomicgan", "dataset": evil, "style_dataset": evil})
    text = page(replace(params, experiments={}), paths)
    assert "<script>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_the_family_is_told_by_the_preset_or_by_the_data(params: Params) -> None:
    reports = Reports(
        stages={
            "evaluate": {"old": {"preset": "fomm"}, "gone": {"style_dataset": "paintings"}},
            "register": {"gone": {"version": 1}},
        },
        problems=(),
    )
    assert family_of("evaluate", "ink", params, reports) == "style"
    assert family_of("evaluate", "old", params, reports) == "motion"
    assert family_of("register", "gone", params, reports) == "style"
    assert family_of("register", "unheard", params, reports) == "motion"


@pytest.fixture
def curves(tmp_path: Path) -> report_training.Curves:
    table = tmp_path / "ink-losses.csv"
    table.write_text(style_losses())
    return read_curves(table)


def test_losses_of_two_that_work_against_each_other_have_no_total(
    curves: report_training.Curves, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[set[str]] = []

    def draw(shown: Mapping[str, Any], *, theme: plots.Theme) -> bytes:
        drawn.append(set(shown))
        return plots.figure_curve([1], [1], title="", theme=theme)

    monkeypatch.setattr(plots, "loss_curves", draw)
    assert loss_picture(curves, "ink", "style") is not None
    terms = {"warm_up/content", "generator/content", "generator/gan", "critic/gan", "penalty/penalty"}
    assert drawn == [terms, terms]
    loss_picture(curves, "ink", "motion")
    assert drawn[-1] == {"total", *terms}


def test_a_critics_figures_and_the_validation_have_their_own_pictures(curves: report_training.Curves) -> None:
    pictures = critic_pictures(curves, "ink")
    assert [one.light.alt.split(",")[0] for one in pictures] == ["Wasserstein distance", "gradient penalty"]
    assert all(one.light.uri != one.dark.uri for one in pictures)
    judged = validation_picture(curves, "ink", "style")
    assert judged is not None
    assert judged.light.alt == "Validation KID of ink"
    assert validation_picture(curves, "ink", "motion") is None


def test_facts_of_a_training_are_those_of_its_family() -> None:
    told = {"steps": 9, "validation_l1": None, "validation": {"validation/kid": 0.04, "validation/photo_kid": 0.06}}
    assert [what for what, _, _ in facts(told, "style")] == ["Steps", "Validation KID", "of untouched photos"]
    assert [what for what, _, _ in facts({**told, "validation_l1": 0.1}, "motion")] == ["Steps", "Validation L1"]


def test_curves_of_both_signs_and_far_apart_can_be_drawn() -> None:
    values = {"a": ([1.0, 2.0], [-300.0, 200.0]), "b": ([1.0, 2.0], [0.001, 0.002]), "none": ([], [])}
    assert plots.loss_curves(values).startswith(b"\x89PNG")
    assert plots.validation_curve([1, 2], [-0.1, -0.2], -0.1).startswith(b"\x89PNG")
    assert plots.figure_curve([], [], title="nothing").startswith(b"\x89PNG")
    assert plots.figure_curve([1, 2], [0.001, 5.0], title="far apart").startswith(b"\x89PNG")


def test_a_photo_stands_beside_its_drawing(params: Params, paths: Paths) -> None:
    fill_stylisation(paths, "palace", PHOTOS[0], PHOTOS[1], note="Take note.")
    [shown] = stylisations(params, paths, read_reports(paths))
    assert (shown.words, shown.files) == (
        "palace.jpg, drawn at strength 1, 24 x 24 px",
        ("stylise/palace/drawing.png",),
    )
    assert shown.strip is None  # it would be the pair again
    assert shown.pair is not None
    assert shown.pair[0].uri != shown.pair[1].uri
    text = page(params, paths)
    assert shown.pair[0].uri in text
    assert shown.pair[1].uri in text
    assert "Take note." in text


def test_a_video_tells_how_steady_it_is_and_links_to_its_file(params: Params, paths: Paths) -> None:
    steady = {"warping_error": 0.0213, "warping_error_by_frame": 0.0341, "temporal": True}
    fill_stylisation(paths, "clip", PHOTOS[0], PHOTOS[1], kind="video", num_frames=96, strength=0.5, **steady)
    (paths.pictures("stylise", "clip") / "clip.mp4").write_bytes(b"")
    shown = stylisations(params, paths, read_reports(paths))[-1]
    assert shown.files == ("stylise/clip/clip.mp4", "stylise/clip/drawing.png")
    assert shown.strip is not None
    assert shown.words.endswith("96 frames, kept steady, warping error 0.0213, frame by frame 0.0341")
    assert "strength 0.5" in shown.words


def test_a_folder_shows_its_strip_and_counts(params: Params, paths: Paths) -> None:
    folder = paths.pictures("stylise", "holiday")
    folder.mkdir(parents=True)
    Image.fromarray(PHOTOS[0]).save(folder / "strip.png")
    counts = {"num_pictures": 9, "num_made": 5, "num_kept": 3, "num_failed": 1}
    put(paths, "stylise", "holiday", {"source": "photos/holiday", "strength": 1.0, **counts})
    text = page(params, paths)
    assert "holiday, drawn at strength 1, 8 of 9 photos." in text
    assert "Photos and drawings of holiday" in text


def test_what_has_not_run_is_named(params: Params, paths: Paths) -> None:
    made = report.run(params, paths)
    assert {"train ink", "evaluate ink", "register ink", "stylise palace"} <= set(made.missing)
    text, _ = page_of(paths)
    assert "No drawing has been made yet." in text
    assert "Nothing has been evaluated yet." in text
    [result] = results(params, paths, read_reports(paths))
    assert (result.verdict, result.figures) == ("", ())


def test_commands_and_code_fit_the_family_of_each_version(all_params: Params, paths: Paths) -> None:
    for name in ("fomm-faces", "ink"):
        put(paths, "register", name, {"name": name, "version": 1, "aliases": ["champion"]})
    text = page(all_params, paths)
    assert "inkmotion animate --model models:/fomm-faces@champion --source" in text
    assert "inkmotion stylise --model models:/ink@champion --in" in text
    assert 'load_model("models:/ink@champion")' in text.replace("&#34;", '"')


def test_the_headline_counts_each_familys_pictures(params: Params, paths: Paths) -> None:
    put(paths, "train", "ink", {"images_seen": 4800, "preset": "lwcomicgan"})
    put(paths, "train", "old", {"images_seen": 960, "preset": "fomm"})
    put(paths, "evaluate", "ink", style_evaluation())
    text = page(params, paths)
    for count, label in (("4,800", "photos and style pictures trained on"), ("960", "pairs of frames trained on")):
        assert f'{count}</div><div class="small">{label}' in text
    assert '<div class="big good">0.63</div><div class="small">KID of drawings / of untouched photos<' in text
