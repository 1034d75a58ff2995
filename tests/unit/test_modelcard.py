"""The card says what it is, how well it does, and what its use on people asks for."""

from __future__ import annotations

from typing import Any

import pytest

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
