"""The card says what it is, how well it does, and what its use on people asks for."""

from __future__ import annotations

from typing import Any

import pytest
from report_kit import figure, style_evaluation

from pipelines.modelcard import model_card

TAGS = {
    "preset": "fomm",
    "profile": "sample",
    "training.step": "100",
    "training.images_seen": "800",
    "data.dataset": "faces",
    "data.index_sha256": "0123456789abcdef0123",
    "data.licences": "MIT",
}
FIGURES = {"l1": 0.08, "copy_source_l1": 0.12}


@pytest.mark.parametrize("unseen", [None, {"l1": 0.2, "copy_source_l1": 0.07}])
def test_the_card_is_complete(unseen: dict[str, float] | None) -> None:
    evaluation: dict[str, Any] = {"split_rule": "time", "test": FIGURES, "unseen": unseen, "size_px": 64}
    card = model_card("fomm-faces", tags=TAGS, evaluation=evaluation)
    for wanted in ("# fomm-faces", "models:/fomm-faces@champion", "0.0800", "0.1200", "time", "MIT", "agreed", "64 px"):
        assert wanted in card, wanted
    assert ("0.2000" in card) == (unseen is not None)
    assert "not how good" in card
    assert "\n\n## Data" in card


STYLE_TAGS = {key: TAGS[key] for key in ("profile", "training.step", "training.images_seen", "data.licences")}
STYLE_TAGS |= {"family": "style", "preset": "lwcomicgan"}
VARIANTS = {
    "variant.fp16.bytes": "5600000",
    "variant.fp16.difference": "0.0004",
    "variant.int8.bytes": "2900000",
    "variant.int8.difference": "0.01",
}


def test_the_card_of_a_model_that_draws_is_complete() -> None:
    card = model_card("ink", tags=STYLE_TAGS | VARIANTS, evaluation=style_evaluation())
    for wanted in (
        "# ink",
        'load_model("models:/ink@champion")',
        'predict({"photo": pictures}, params={"strength": 1.0})',
    ):
        assert wanted in card, wanted
    for wanted in ("float32 (N, H, W, 3) in [0, 1]", "64 px", "`paintings`", "MIT", "few sample"):
        assert wanted in card, wanted
    assert "9 test photos, 15 style pictures (split rule: source)" in card
    assert "| KID (effnet-lite0) | 0.0412 ± 0.0031 | 0.0655 ± 0.0031 |" in card
    assert "**yes** (KID 0.0412, that of the untouched photos 0.0655: 37% less" in card
    assert "`fp16` (weights as 16 bit floats): 5.6 MB, difference 0.10\n" in card
    assert "`int8` (convolutions with 8 bit integers): 2.9 MB, difference 2.55\n" in card
    for heading in ("Load it", "Figures", "Variants", "Data", "Limits", "Using it"):
        assert f"\n\n## {heading}\n\n" in card, heading
    assert "driving" not in card
    assert len(card) < 5000  # of which more would be cut off in the registry


def test_a_version_without_variants_tells_of_none() -> None:
    card = model_card("ink", tags=STYLE_TAGS, evaluation=style_evaluation())
    assert "Variants" not in card
    assert "\n\n## Data" in card
    one = model_card("ink", tags=STYLE_TAGS | {"variant.int8.bytes": "2900000"}, evaluation=style_evaluation())
    assert "2.9 MB\n" in one
    assert "fp16" not in one


def test_a_model_that_fails_says_so_on_its_card() -> None:
    evaluation = style_evaluation(made={"detail": figure(0.2, better="higher")})
    evaluation["verdict"] |= {"passed": False, "keeps_detail": False, "detail": 0.2}
    card = model_card("ink", tags=STYLE_TAGS | {"profile": "paper"}, evaluation=evaluation)
    assert "Is not blurred: **no** (20% of the photos' detail" in card
    assert "few sample" not in card
