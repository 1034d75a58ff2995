"""The model card that every version carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"


def model_card(name: str, *, tags: Mapping[str, str], evaluation: Mapping[str, Any]) -> str:
    """A version's card in Markdown: what it is, how to load it, figures, data, limits, and what its use asks for.

    Args:
        name: of the registered model.
        tags: of the version.
        evaluation: the evaluate stage's report.
    """
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    return str(template.render(name=name, tags=tags, evaluation=evaluation, size=evaluation["size_px"]))
