"""The page's section on DualStyleGANs: what was destylised, what they make, what their weights move."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.params import Params
from pipelines.report_data import Report, Reports, find, number, whole
from pipelines.report_images import Picture, embed
from pipelines.stage import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceResultView:
    """One system."""

    name: str
    dataset: str
    style_dataset: str
    facts: tuple[tuple[str, str], ...]
    """(what, figure in words)."""
    claims: tuple[tuple[str, bool], ...]
    """(what was wanted, whether it is so)."""
    strips: tuple[Picture, ...]
    destylised: Picture | None
    """Style pictures above, the faces behind them below."""


def results(params: Params, paths: Paths, reports: Reports) -> list[FaceResultView]:
    """The evaluation of every system."""
    return [_result(name, params, paths, reports) for name in params.dualstyles]


def _result(name: str, params: Params, paths: Paths, reports: Reports) -> FaceResultView:
    report, before, system = reports.get("evaluate", name), reports.get("destylise", name), params.dualstyles[name]
    folder = paths.pictures("evaluate", name)
    shown = [embed(path, alt=f"Faces as cartoons, {path.stem}") for path in sorted(folder.glob("*.png"))]
    held = report.get("holds")
    return FaceResultView(
        name=name,
        dataset=system.dataset,
        style_dataset=system.style_dataset,
        facts=(*_facts(report, before), *_refined(reports.get("refine", name))),
        claims=tuple((str(what), bool(so)) for what, so in held.items()) if isinstance(held, dict) else (),
        strips=tuple(picture for picture in shown if picture is not None),
        destylised=embed(paths.pictures("destylise", name) / "strip.png", alt="Style pictures, and faces behind them"),
    )


def _facts(report: Report, before: Report) -> list[tuple[str, str]]:
    made, untouched = (number(find(report.get(side), "value")) for side in ("made", "untouched"))
    facts = []
    if made is not None and untouched is not None:
        facts.append(("KID of cartoons and of untouched faces to the style pictures", f"{made:.4f}, {untouched:.4f}"))
    again, mean = number(report.get("reconstruction_l1")), number(report.get("mean_face_l1"))
    if again is not None and mean is not None:
        facts.append(("L1 of faces to their reconstructions and to the mean face", f"{again:.4f}, {mean:.4f}"))
    for weight in ("structure", "colour"):
        moved = [number(find(report.get(weight), kind)) for kind in ("edges", "colours")]
        if None not in moved:
            facts.append((f"The {weight} weight moves edges and colours by", f"{moved[0]:.3f}, {moved[1]:.3f}"))
    first, last, count = (number(before.get(key)) for key in ("first_loss", "last_loss", "pictures"))
    if first is not None and last is not None:
        facts.append(
            (f"Destylisation of {whole(count) or 0} pictures: loss before and after", f"{first:.4g}, {last:.4g}")
        )
    return facts


def _refined(report: Report) -> list[tuple[str, str]]:
    before, after, steps = (number(report.get(key)) for key in ("distance_before", "distance_after", "steps"))
    if before is None or after is None or not steps:
        return []
    return [
        (
            "Refinement of the style codes: distance to the style pictures, before and after",
            f"{before:.3f}, {after:.3f}",
        )
    ]
