"""The model card that every version carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from models.families import Family
from pipelines.carried import family_of
from pipelines.report_style import FigureView, claims, counted, figures

TEMPLATES = Path(__file__).parent / "templates"
CARDS: Mapping[Family, str] = {
    "motion": "model_card.md.j2",
    "style": "style_card.md.j2",
    "dualstyle": "dualstyle_card.md.j2",
    "system": "system_card.md.j2",
}
VARIANTS = {
    "fp16": "weights as 16 bit floats",
    "int8": "convolutions with 8 bit integers",
}
"""Reduced graphs that a version may carry -> what is reduced."""
MEANINGS = {
    "kid": "how unlike the style pictures they are, to a network",
    "fid": "likewise, another formula",
    "is": "how clear and how varied what they show is; it knows no style",
    "content": "how far they are from their photos: 0 the same, 1 as unlike as another photo",
    "detail": "how much of the photos' detail they keep; well below 1 is blurred",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantView:
    """A reduced graph among a version's files."""

    name: str
    what: str
    megabytes: float
    difference: float | None
    """Mean of a pixel's to the full graph, of 255."""


def model_card(name: str, *, tags: Mapping[str, str], evaluation: Mapping[str, Any]) -> str:
    """A version's card in Markdown: what it is, how to load it, figures, data, limits, and what its use asks for.

    Args:
        name: of the registered model.
        tags: of the version; ``family`` chooses the card.
        evaluation: the evaluate stage's report.
    """
    facts: dict[str, Any] = {"evaluation": evaluation, "size": evaluation["size_px"]}
    if family_of(tags) == "dualstyle":
        return render(name, tags, **facts)
    drawn: dict[str, Any] = {
        "rows": rows(evaluation),
        "claims": claims(_verdict(evaluation)),
        "counted": counted(evaluation),
        "variants": variants(tags),
    }
    return render(name, tags, **facts, **drawn)


def render(name: str, tags: Mapping[str, str], **facts: Any) -> str:
    """The card of a version's family, filled in."""
    source = (TEMPLATES / CARDS[family_of(tags)]).read_text(encoding="utf-8")
    template = jinja2.Template(source, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return str(template.render(name=name, tags=tags, **facts))


def variants(tags: Mapping[str, str]) -> tuple[VariantView, ...]:
    """The reduced graphs that a version's tags tell of."""
    told = [(name, what) for name, what in VARIANTS.items() if f"variant.{name}.bytes" in tags]
    return tuple(
        VariantView(
            name=name,
            what=what,
            megabytes=float(tags[f"variant.{name}.bytes"]) / 1e6,
            difference=_of_255(tags.get(f"variant.{name}.difference")),
        )
        for name, what in told
    )


def rows(evaluation: Mapping[str, Any]) -> tuple[tuple[FigureView, str], ...]:
    """A drawing model's figures, each with its meaning."""
    return tuple((figure, MEANINGS.get(figure.metric, figure.unit)) for figure in figures(evaluation))


def _of_255(difference: str | None) -> float | None:
    return None if difference is None else float(difference) * 255


def _verdict(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    verdict = evaluation.get("verdict")
    return verdict if isinstance(verdict, Mapping) else {}
