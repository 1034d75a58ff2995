"""Normalisations in ONNX that choose, while the graph runs, what they normalise by.

Maps are large and the arithmetic on them little, so what counts is how often one is read and written. A mean is cheap
in ONNX Runtime, every other reduction is slow; so all is said by means of maps that one operator makes. The second
moment takes the place of the squared distances, and ``2 max(x, a) - x - a`` that of ``|x - a|``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.export_sheet import Sheet
from models.layers.sample_norms import LIN, InstanceNorm, SampleNorm
from models.style.blocks import LEAK, Activation

if TYPE_CHECKING:
    from onnxscript import ir

PARTS = ("stylise", "measure", "given")
"""What the input ``part`` chooses, by its position here."""
_LEVEL = 16.0
"""How many variances a squared mean may be before the difference of moments is too rough in 32 bits."""


@dataclass(slots=True)
class Switch:
    """By what the normalisations of a graph decide, and what they decided."""

    given: ir.Value
    """(B, 2, K)."""
    is_given: ir.Value
    is_pooled: ir.Value
    is_one: ir.Value
    """Whether all of the batch is normalised by the same."""
    used: list[ir.Value] = field(default_factory=list)
    """Of each normalisation so far, (B, 2, C)."""
    num_used: int = 0
    """Their channels."""


def switch(sheet: Sheet, photo: ir.Value, given: ir.Value, part: ir.Value) -> Switch:
    """What a graph's inputs ``photo``, ``given`` and ``part`` say."""
    chosen = {name: sheet.op("Equal", part, sheet.ints(place)) for place, name in enumerate(PARTS)}
    is_given, is_pooled = (sheet.op("Squeeze", chosen[name]) for name in ("given", "measure"))
    is_alone = sheet.op("Squeeze", sheet.op("Equal", sheet.op("Shape", photo, start=0, end=1), sheet.ints(1)))
    return Switch(given, is_given, is_pooled, sheet.op("Or", is_alone, is_pooled))


def normalised(sheet: Sheet, name: str, norm: SampleNorm, x: ir.Value, by: Switch, activation: Activation) -> ir.Value:
    """`SampleNorm.forward` of (B, C, h, w) by a slice of what is given or by what is measured of x, then `activated`.

    Args:
        sheet: written on.
        name: of the layer in its network.
        norm: the layer.
        x: its input.
        by: gets what was used.
        activation: of the result.
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
    one = _scaled_together(f"{name}/one", x, (scale, shift), channels, activation)
    return sheet.choice(by.is_one, one, _scaled(f"{name}/each", x, (scale, shift), activation))


def activated(sheet: Sheet, x: ir.Value, activation: Activation) -> ir.Value:
    """`models.style.blocks.activated`."""
    if activation == "leaky":
        return sheet.op("LeakyRelu", x, alpha=LEAK)
    return sheet.op("Relu", x) if activation == "relu" else x


def _scaled(name: str, x: ir.Value, by: tuple[ir.Value, ir.Value], activation: Activation) -> Sheet:
    """``x`` times a scale and plus a shift, (B, 1, C) both."""
    sheet = Sheet(name)
    scale, shift = (sheet.op("Unsqueeze", sheet.op("Transpose", v, perm=[0, 2, 1]), sheet.ints(3)) for v in by)
    activated(sheet, sheet.op("Add", sheet.op("Mul", x, scale), shift), activation)
    return sheet


def _scaled_together(
    name: str, x: ir.Value, by: tuple[ir.Value, ir.Value], channels: int, activation: Activation
) -> Sheet:
    """The same for a batch with one scale and shift: as a convolution, of which ONNX Runtime makes a single pass."""
    sheet = Sheet(name)
    scale, shift = (sheet.op("Slice", v, sheet.ints(0), sheet.ints(1), sheet.ints(0)) for v in by)
    weight, bias = sheet.op("Reshape", scale, sheet.ints(channels, 1, 1, 1)), sheet.op("Reshape", shift, sheet.ints(-1))
    activated(sheet, sheet.op("Conv", x, weight, bias, kernel_shape=[1, 1], group=channels), activation)
    return sheet


def _slice(name: str, given: ir.Value, reach: tuple[int, int]) -> Sheet:
    sheet = Sheet(name)
    sheet.op("Slice", given, sheet.ints(reach[0]), sheet.ints(reach[1]), sheet.ints(2))
    return sheet


def _measure(name: str, norm: SampleNorm, x: ir.Value, *, pooled: bool) -> Sheet:
    """Mean and variance of samples (B, C, h, w) as (B, 2, C)."""
    sheet, axes = Sheet(name), ((0, 2, 3) if pooled else (2, 3))
    mean = sheet.mean(x, *axes)
    var = _variance(sheet, x, mean, axes)
    if not isinstance(norm, InstanceNorm):
        all_mean = sheet.mean(mean, 1)
        between = sheet.op("Sub", mean, all_mean)
        all_var = sheet.op("Add", sheet.mean(var, 1), sheet.mean(sheet.op("Mul", between, between), 1))
        shape = sheet.op("Shape", mean)
        mean_l, var_l = (sheet.op("Expand", value, shape) for value in (all_mean, all_var))
        if isinstance(norm, LIN):
            is_instance = _is_instance(sheet, x, (mean, var), (all_mean, all_var), axes, norm.eps)
            mean_l, var_l = (sheet.op("Where", is_instance, a, b) for a, b in ((mean, mean_l), (var, var_l)))
        mean, var = mean_l, var_l
    rows = [sheet.op("Transpose", sheet.op("Squeeze", part, sheet.ints(3)), perm=[0, 2, 1]) for part in (mean, var)]
    packed = sheet.op("Concat", *rows, axis=1)
    if pooled:
        batch = sheet.op("Shape", x, start=0, end=1)
        sheet.op("Expand", packed, sheet.op("Concat", batch, sheet.ints(1, 1), axis=0))
    return sheet


def _variance(sheet: Sheet, x: ir.Value, mean: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    """Biased, (B, C, 1, 1): by the second moment, or by the distances where a mean is so large that digits are lost."""
    square = sheet.op("Mul", mean, mean)
    rough = sheet.op("Sub", sheet.mean(sheet.op("Mul", x, x), *axes), square)
    excess = sheet.op("Sub", square, sheet.op("Mul", rough, sheet.number(_LEVEL)))
    is_fine = sheet.op("Less", sheet.op("ReduceMax", excess, keepdims=0), sheet.number(0.0))
    kept, again = Sheet(f"{sheet.name}/kept"), Sheet(f"{sheet.name}/again")
    kept.op("Identity", rough)
    apart = again.op("Sub", x, mean)
    again.mean(again.op("Mul", apart, apart), *axes)
    return sheet.choice(is_fine, kept, again)


def _distances(sheet: Sheet, x: ir.Value, mean: ir.Value, of: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    """Means of ``|x - of|`` in each channel, (B, C, 1, 1), where those of ``x`` are known."""
    larger = sheet.mean(sheet.op("Max", x, of), *axes)
    return sheet.op("Sub", sheet.op("Mul", larger, sheet.number(2.0)), sheet.op("Add", mean, of))


def _is_instance(
    sheet: Sheet,
    x: ir.Value,
    channels: tuple[ir.Value, ir.Value],
    whole: tuple[ir.Value, ir.Value],
    axes: tuple[int, ...],
    eps: float,
) -> ir.Value:
    """`LIN.choice`, (B, 1, 1, 1); the layer's score is computed where its upper bound does not decide."""
    distances = _distances(sheet, x, channels[0], channels[0], axes)
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
    distance = full.mean(_distances(full, x, channels[0], whole[0], axes), 1)
    full.op("Div", distance, divisor)
    layer = sheet.choice(is_sure, bound, full)
    return sheet.op("Greater", instance, layer)


def _more(sheet: Sheet, value: ir.Value, eps: float) -> ir.Value:
    return sheet.op("Add", value, sheet.number(eps))
