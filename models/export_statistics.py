"""Normalisations in ONNX that choose, while the graph runs, what they normalise by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.export_sheet import Sheet
from models.layers.sample_norms import LIN, InstanceNorm, SampleNorm

if TYPE_CHECKING:
    from onnxscript import ir

PARTS = ("stylise", "measure", "given")
"""What the input ``part`` chooses, by its position here."""


@dataclass(slots=True)
class Switch:
    """By what the normalisations of a graph decide, and what they decided."""

    given: ir.Value
    """(B, 2, K)."""
    is_given: ir.Value
    is_pooled: ir.Value
    used: list[ir.Value] = field(default_factory=list)
    """Of each normalisation so far, (B, 2, C)."""
    num_used: int = 0
    """Their channels."""


def switch(sheet: Sheet, given: ir.Value, part: ir.Value) -> Switch:
    """What a graph's inputs ``given`` and ``part`` say."""
    chosen = {name: sheet.op("Equal", part, sheet.ints(place)) for place, name in enumerate(PARTS)}
    is_given, is_pooled = (sheet.op("Squeeze", chosen[name]) for name in ("given", "measure"))
    return Switch(given, is_given, is_pooled)


def normalised(sheet: Sheet, name: str, norm: SampleNorm, x: ir.Value, by: Switch) -> ir.Value:
    """`SampleNorm.forward` of (B, C, h, w) by a slice of what is given, or by what is measured of x.

    Args:
        sheet: written on.
        name: of the layer in its network.
        norm: the layer.
        x: its input.
        by: gets what was used.
    """
    channels = norm.weight.numel()
    measured = Sheet(f"{name}/measured")
    ways = {way: _measure(f"{name}/{way}", norm, x, pooled=way == "pooled") for way in ("own", "pooled")}
    measured.choice(by.is_pooled, ways["pooled"], ways["own"])
    taken = _slice(f"{name}/given", by.given, (by.num_used, by.num_used + channels))
    used = sheet.choice(by.is_given, taken, measured)
    by.used.append(used)
    by.num_used += channels
    mean, var = (sheet.op("Slice", used, sheet.ints(row), sheet.ints(row + 1), sheet.ints(1)) for row in (0, 1))
    deviation = sheet.op("Sqrt", _more(sheet, var, norm.eps))
    scale = sheet.op("Div", sheet.weight(f"{name}.weight", norm.weight), deviation)
    shift = sheet.op("Sub", sheet.weight(f"{name}.bias", norm.bias), sheet.op("Mul", mean, scale))
    scale, shift = (
        sheet.op("Unsqueeze", sheet.op("Transpose", row, perm=[0, 2, 1]), sheet.ints(3)) for row in (scale, shift)
    )
    return sheet.op("Add", sheet.op("Mul", x, scale), shift)


def _slice(name: str, given: ir.Value, reach: tuple[int, int]) -> Sheet:
    sheet = Sheet(name)
    sheet.op("Slice", given, sheet.ints(reach[0]), sheet.ints(reach[1]), sheet.ints(2))
    return sheet


def _measure(name: str, norm: SampleNorm, x: ir.Value, *, pooled: bool) -> Sheet:
    """Mean and variance of samples (B, C, h, w) as (B, 2, C)."""
    sheet, axes = Sheet(name), ((0, 2, 3) if pooled else (2, 3))
    mean = sheet.mean(x, *axes)
    apart = sheet.op("Sub", x, mean)
    var = sheet.mean(sheet.op("Mul", apart, apart), *axes)
    if not isinstance(norm, InstanceNorm):
        all_mean = sheet.mean(mean, 1)
        between = sheet.op("Sub", mean, all_mean)
        all_var = sheet.op("Add", sheet.mean(var, 1), sheet.mean(sheet.op("Mul", between, between), 1))
        shape = sheet.op("Shape", mean)
        mean_l, var_l = (sheet.op("Expand", value, shape) for value in (all_mean, all_var))
        if isinstance(norm, LIN):
            is_instance = _is_instance(sheet, x, apart, (mean, var), (all_mean, all_var), axes, norm.eps)
            mean_l, var_l = (sheet.op("Where", is_instance, a, b) for a, b in ((mean, mean_l), (var, var_l)))
        mean, var = mean_l, var_l
    rows = [sheet.op("Transpose", sheet.op("Squeeze", part, sheet.ints(3)), perm=[0, 2, 1]) for part in (mean, var)]
    packed = sheet.op("Concat", *rows, axis=1)
    if pooled:
        batch = sheet.op("Shape", x, start=0, end=1)
        sheet.op("Expand", packed, sheet.op("Concat", batch, sheet.ints(1, 1), axis=0))
    return sheet


def _is_instance(
    sheet: Sheet,
    x: ir.Value,
    apart: ir.Value,
    channels: tuple[ir.Value, ir.Value],
    whole: tuple[ir.Value, ir.Value],
    axes: tuple[int, ...],
    eps: float,
) -> ir.Value:
    """`LIN.choice`, (B, 1, 1, 1); the layer's score is computed where its upper bound does not decide."""
    distances = sheet.mean(sheet.op("Abs", apart), *axes)
    instance = sheet.mean(sheet.op("Div", distances, _more(sheet, channels[1], eps)), 1)
    divisor = _more(sheet, whole[1], eps)
    between = sheet.op("Sub", channels[0], whole[0])
    root = sheet.op("Sqrt", sheet.op("Add", channels[1], sheet.op("Mul", between, between)))
    farthest = sheet.op("Min", sheet.op("Add", distances, sheet.op("Abs", between)), root)
    most = sheet.op("Mul", sheet.op("Div", sheet.mean(farthest, 1), divisor), sheet.number(1 + 1e-5))
    least = sheet.op("ReduceMin", sheet.op("Sub", instance, most), keepdims=0)
    is_sure = sheet.op("Greater", least, sheet.number(0.0))
    bound, full = Sheet(f"{sheet.name}/bound"), Sheet(f"{sheet.name}/full")
    bound.op("Identity", most)
    distance = full.op("Abs", full.op("Sub", x, whole[0]))
    full.op("Div", full.mean(distance, 1, *axes), divisor)
    layer = sheet.choice(is_sure, bound, full)
    return sheet.op("Greater", instance, layer)


def _more(sheet: Sheet, value: ir.Value, eps: float) -> ir.Value:
    return sheet.op("Add", value, sheet.number(eps))
