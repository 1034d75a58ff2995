"""Metrics of stylised pictures: against sums written out in float64, against torch-fidelity, and on known pictures."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import style_eval_kit as kit
import torch

from models.errors import CheckpointError, ClipError, EnvironmentProblem, ShapeError
from pipelines import style_features, weights
from pipelines.evaluate_style_figures import absent_figures, figures_of, judge_model, look_at
from pipelines.stage import Paths
from pipelines.style_features import Inception, Seen, judges
from pipelines.torchvision_here import torchvision
from training.metrics.catalog import STYLE_METRICS
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR, content_distance, gradient_energy
from training.metrics.features import EffnetLite0, Look
from training.metrics.frechet import frechet_distance
from training.metrics.inception_score import inception_score
from training.metrics.kernel import kernel_distance, kernel_distances, mmd2


def sets(num: int = 40, more: int = 60, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features that go together in different ways."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(width, width))
    return rng.normal(size=(num, width)) @ mix, rng.normal(0.5, 1.2, size=(more, width))


def torch_fidelity(module: str) -> Any:
    """A module of the package; the test is skipped where it can't be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchvision()
            return __import__(f"torch_fidelity.{module}", fromlist=["torch_fidelity"])
    except ImportError as error:
        pytest.skip(f"torch-fidelity and torchvision are optional: {error}")


@pytest.mark.parametrize(("num", "more", "width"), [(40, 60, 7), (5, 60, 7), (4, 5, 9)])
def test_the_frechet_distance_is_the_written_out_one(num: int, more: int, width: int) -> None:
    a, b = sets(num, more, width)
    first, second = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(first)
    root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * inner
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_the_frechet_distance_of_normal_numbers() -> None:
    grid = np.array([[-1.0], [1.0]])  # mean 0, variance 2
    assert frechet_distance(grid, 3 * grid + 5) == pytest.approx(25 + 2 * (3 - 1) ** 2)
    assert frechet_distance(grid, grid) == pytest.approx(0, abs=1e-12)


def test_the_kernel_distance_is_the_written_out_one() -> None:
    a, b = sets(6, 5, 4)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((sum(float(p) * float(q) for p, q in zip(x, y, strict=True)) / 4 + 1) ** 3)

    within_a = sum(k(a[i], a[j]) for i in range(6) for j in range(6) if i != j) / 30
    within_b = sum(k(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / 20
    between = sum(k(x, y) for x in a for y in b) / 30
    assert mmd2(a, b) == pytest.approx(within_a + within_b - 2 * between, rel=1e-12)


def test_kernel_distances_are_of_halves_and_repeat_themselves() -> None:
    a, b = sets()
    found = kernel_distances(a, b)
    assert len(set(found)) > 400
    np.testing.assert_array_equal(found, kernel_distances(a, b))
    draws = np.random.RandomState(2020)
    first = mmd2(a[draws.choice(40, 20, replace=False)], b[draws.choice(60, 30, replace=False)])
    assert found[0] == first
    spread = kernel_distance(a, b)
    assert spread == (found.mean(), found.std())
    same = kernel_distance(a, a[::-1])
    assert abs(same.mean) < 3 * (same.std or 0)  # unbiased: about 0 for one distribution, of either sign


def test_the_deviation_over_halves_is_about_the_error_of_the_figure() -> None:
    rng = np.random.default_rng(1)
    drawn = [(rng.normal(size=(24, 3)), rng.normal(0.7, 1, size=(24, 3))) for _ in range(40)]
    error = np.std([mmd2(a, b) for a, b in drawn])
    told = np.median([kernel_distances(a, b, num_subsets=30).std() for a, b in drawn])
    assert 0.6 < told / error < 1.7


def test_the_inception_score_is_the_written_out_one() -> None:
    logits = np.random.default_rng(0).normal(0, 2, size=(9, 4))
    shares = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in logits]
    mean = [sum(column) / 9 for column in zip(*shares, strict=True)]
    divergence = sum(p * math.log(p / q) for row in shares for p, q in zip(row, mean, strict=True)) / 9
    assert inception_score(logits).mean == pytest.approx(math.exp(divergence), rel=1e-12)
    assert inception_score(logits).std is None


def test_the_inception_score_of_sure_answers_is_their_number() -> None:
    logits = np.eye(5).repeat(3, axis=0) * 1e4
    assert inception_score(logits).mean == pytest.approx(5)
    assert inception_score(np.zeros((8, 5))).mean == pytest.approx(1)
    many = inception_score(np.random.default_rng(0).normal(size=(120, 5)))
    assert many.std is not None
    with pytest.raises(ShapeError, match=r"logits must be .*; got \(8, 5\) in 9 parts"):
        inception_score(np.zeros((8, 5)), parts=9)


@pytest.mark.parametrize("bad", [np.zeros((1, 7)), np.zeros((4, 6)), np.zeros(7), np.full((4, 7), np.nan)])
def test_sets_that_do_not_compare_are_refused(bad: np.ndarray) -> None:
    for metric in (frechet_distance, kernel_distance):
        with pytest.raises(ShapeError, match="two sets of features must be"):
            metric(sets()[0], bad)


def test_torch_fidelity_gives_the_same_figures() -> None:
    fid, kid = torch_fidelity("metric_fid"), torch_fidelity("metric_kid")
    a, b = (torch.from_numpy(part) for part in sets(240, 240))
    statistics = [fid.fid_features_to_statistics(part) for part in (a, b)]
    theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a.numpy(), b.numpy()) == pytest.approx(theirs, rel=1e-9)
    out = kid.kid_features_to_metric(a, b, kid_subsets=500, kid_subset_size=100, rng_seed=2020, verbose=False)
    ours = kernel_distance(a.numpy(), b.numpy())
    assert ours.mean == pytest.approx(out["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(out["kernel_inception_distance_std"], rel=1e-9)
    score = torch_fidelity("metric_isc").isc_features_to_metric(a, splits=4, shuffle=True, rng_seed=2020)
    mine = inception_score(a.numpy(), parts=4)
    assert mine == pytest.approx((score["inception_score_mean"], score["inception_score_std"]), rel=1e-9)


@pytest.fixture(scope="module")
def judge() -> EffnetLite0:
    return EffnetLite0()


@pytest.fixture(scope="module")
def photos(samples: Path) -> np.ndarray:
    return kit.pictures(samples / "photos", 3, 96)


def kept(judge: EffnetLite0, made: np.ndarray, photos: np.ndarray) -> tuple[float, float]:
    """Content and detail, as a report has them."""
    maps, own = ([judge.look_with_content(one)[1] for one in part] for part in (made, photos))
    others = np.mean([content_distance(own[i], own[i - 1]) for i in range(len(own))])
    content = np.mean([content_distance(a, b) for a, b in zip(maps, own, strict=True)]) / others
    return float(content), sum(map(gradient_energy, made)) / sum(map(gradient_energy, photos))


def test_a_blurred_photo_fails_and_a_recoloured_one_passes(judge: EffnetLite0, photos: np.ndarray) -> None:
    assert kept(judge, photos, photos) == (0.0, 1.0)
    recoloured = np.clip(photos * (1.08, 0.97, 0.88) + (4, 6, 10), 0, 255).astype(np.uint8)
    content, detail = kept(judge, recoloured, photos)
    assert content < 0.3 < CONTENT_CEILING
    assert detail > 0.9 > DETAIL_FLOOR
    blurred = np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in photos])
    assert kept(judge, blurred, photos)[1] < 0.25 < DETAIL_FLOOR
    assert kept(judge, np.roll(photos, 1, axis=0), photos)[0] == pytest.approx(1)  # other photos
    blank = np.full_like(photos, 128)
    assert kept(judge, blank, photos)[0] > CONTENT_CEILING
    assert kept(judge, blank, photos)[1] == 0


def test_gradient_energy_knows_the_answer() -> None:
    board = (np.indices((4, 4)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    assert gradient_energy(board) == pytest.approx(2)
    assert gradient_energy(np.full((4, 4, 3), 9, np.uint8)) == 0
    with pytest.raises(ShapeError, match="a picture must be uint8 RGB"):
        gradient_energy(board.astype(np.float32))
    with pytest.raises(ShapeError, match="two feature maps must have one shape"):
        content_distance(np.zeros((2, 3, 3)), np.zeros((2, 3, 4)))


def test_the_embedded_judge_knows_its_classes(judge: EffnetLite0, samples: Path) -> None:
    castle, wat = kit.pictures(samples / "photos", 8, 224)[[6, 7]]
    found = {int(judge.look(one).logits.argmax()) for one in (castle, wat)}
    assert found <= {663, 698, 442, 497, 483, 668, 538, 727}  # monastery, palace, bell cote, church, castle, mosque...
    look = judge.look(castle)
    assert (look.features.shape, look.logits.shape, look.features.dtype) == ((320,), (1000,), np.float32)
    np.testing.assert_array_equal(judge.look(castle).features, look.features)
    with pytest.raises(ShapeError, match="uint8 RGB"):
        judge.look(castle.astype(np.float32))


class Colours:
    """A judge of colours: their means and variances are the features, their means the classes."""

    name = "colours"

    def look(self, picture: np.ndarray) -> Look:
        values = picture.reshape(-1, 3).astype(np.float32) / 255
        return Look(np.concatenate([values.mean(0), values.var(0)]), values.mean(0))


def test_figures_of_a_set_against_a_style() -> None:
    rng = np.random.default_rng(0)
    reds, more = rng.integers(0, 60, (2, 8, 5, 5, 3), dtype=np.uint8)
    reds, more = reds + np.array([150, 0, 0], np.uint8), more + np.array([150, 0, 0], np.uint8)
    networks = {"colours": Colours()}
    style = look_at(iter(reds), networks)
    near = figures_of(iter(more), style, networks=networks)
    far = figures_of(more[..., ::-1], reds, networks={**networks, "other": Colours()})
    assert set(near) == {"fid/colours", "kid/colours", "is/colours"}
    assert set(far) == {*near, "fid/other", "kid/other", "is/other"}
    for metric in ("fid/colours", "kid/colours"):
        assert (near[metric].value or 0) < 0.1 * (far[metric].value or 0)
        assert (near[metric].backbone, near[metric].num_pictures) == ("colours", 8)
    assert near["kid/colours"].std
    assert near["is/colours"].value == pytest.approx(1, abs=0.01)
    with pytest.raises(ClipError, match="one picture or more"):
        figures_of([], style, networks=networks)


@pytest.mark.slow
def test_the_embedded_judge_tells_paintings_from_photos(judge: EffnetLite0, samples: Path) -> None:
    paintings, photos = kit.pictures(samples / "paintings", 18), kit.pictures(samples / "photos", 9)
    networks = {"effnet-lite0": judge}
    style = look_at(paintings[::2], networks)
    near, far = (figures_of(part, style, networks=networks) for part in (paintings[1::2], photos))
    for metric in ("fid/effnet-lite0", "kid/effnet-lite0"):
        assert (near[metric].value or 0) < (far[metric].value or 0)


def seen(features: np.ndarray) -> Seen:
    return Seen(features, np.zeros((len(features), 3)))


def test_the_verdict_asks_for_all_three() -> None:
    rng = np.random.default_rng(0)
    style, photos = seen(rng.normal(2, 1, (80, 5))), seen(rng.normal(0, 1, (40, 5)))
    drawings, barely = seen(rng.normal(1.8, 1, (40, 5))), seen(photos.features + 0.02)
    good = judge_model(drawings, photos, style, content=0.5, detail=0.9)
    assert good.passed
    assert good.gain == pytest.approx(good.kid_untouched - good.kid_made)
    assert good.gain_share is not None
    assert good.gain_share > 0.5
    assert good.gain_deviations == pytest.approx(good.gain / good.gain_std)
    assert not judge_model(photos, photos, style, content=0.0, detail=1.0).nearer
    assert not judge_model(barely, photos, style, content=0.1, detail=1.0).nearer  # surely better, but by too little
    for content, detail, keeps in ((0.9, 0.9, (False, True)), (0.5, 0.2, (True, False))):
        verdict = judge_model(drawings, photos, style, content=content, detail=detail)
        assert (verdict.keeps_content, verdict.keeps_detail, verdict.passed) == (*keeps, False)


def test_the_catalogue_names_the_protocols() -> None:
    assert set(STYLE_METRICS) == {"fid", "kid", "is", "content", "detail"}
    assert all(name == metric.name and metric.unit and metric.protocol for name, metric in STYLE_METRICS.items())


def test_inception_is_absent_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, object] = {"torch_fidelity": object()}
    real = style_features.importlib.util.find_spec
    optional = ("torch_fidelity", "torchvision")
    monkeypatch.setattr(
        style_features.importlib.util,
        "find_spec",
        lambda name, *rest: answers.get(name) if name in optional else real(name, *rest),
    )
    found = judges(tmp_path)
    assert str(found["inception"]).endswith("not installed: torchvision")
    figures = absent_figures(found, 3)
    assert set(figures) == {"fid/inception", "kid/inception", "is/inception"}
    assert figures["fid/inception"].absent == found["inception"]
    answers["torchvision"] = object()
    assert "weights import inception" in str(judges(tmp_path)["inception"])
    file = tmp_path / weights.CATALOGUE["inception"].files[0].path
    file.parent.mkdir()
    file.write_bytes(b"something else")
    assert "must have the sha256 6726825d" in str(judges(tmp_path)["inception"])


def test_inception_is_imported_by_its_checksum(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"Get them from https://github\.com/toshas/torch-fidelity"):
        weights.fetch("inception", Paths(tmp_path))


def test_inception_looks_at_pictures(tmp_path: Path) -> None:
    module = torch_fidelity("feature_extractor_inceptionv3")
    file, own = tmp_path / "random.pth", module.FeatureExtractorInceptionV3.__new__(module.FeatureExtractorInceptionV3)
    random_state(module, own, file)
    judge = Inception(file)
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    look = judge.look(picture)
    assert (look.features.shape, look.logits.shape) == ((2048,), (1008,))
    assert np.isfinite(look.features).all()
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"must hold Inception's weights"):
        Inception(file)


def random_state(module: Any, network: Any, file: Path) -> None:
    """A weight file of the network's shapes: it is built without weights, for the package would download them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        network.__init__("inception", ["2048"])
    torch.save(network.state_dict(), file)
