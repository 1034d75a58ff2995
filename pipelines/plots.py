"""Curves and bars as PNG, drawn without a display, for a light and for a dark page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

DPI = 144
SMOOTH_SHARE = 0.05
"""Length of the smoothing window, as a share of the curve."""
LOG_RATIO = 20.0
"""Terms whose sizes differ by more than this share a figure on a logarithmic axis only."""
MIN_LINEAR = 1e-3
"""Where losses take both signs, the axis is linear at least this far around 0."""
SHOWN_VIDEOS = 40
"""More bars than this can't be told apart; the worst are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of one page."""

    ink: str
    faint: str
    paper: str
    accent: str
    quiet: str
    cycle: tuple[str, ...]


LIGHT = Theme(
    ink="#26231f",
    faint="#d9d4ca",
    paper="#ffffff",
    accent="#b8391f",
    quiet="#9a9388",
    cycle=("#b8391f", "#2f6690", "#3b7a57", "#8a5a9e", "#b07d12", "#4c5b61", "#a3466c", "#5f7a2e"),
)
DARK = Theme(
    ink="#e9e5dc",
    faint="#3a3b42",
    paper="#1c1d22",
    accent="#ff7d5e",
    quiet="#8d897f",
    cycle=("#ff7d5e", "#7db7e8", "#7ccf9f", "#c79be0", "#e6bd5a", "#a9bbc2", "#ee92b8", "#b4d272"),
)


def loss_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, theme: Theme = LIGHT) -> bytes:
    """Curves of a training's losses, raw in the background and smoothed over it.

    Args:
        curves: name -> (steps, values), the one called ``total`` thicker; values that are not finite are left out.
        theme: colours.
    """
    with _figure((7.4, 3.1), theme) as (figure, axes):
        drawn = {name: _finite(*curve) for name, curve in curves.items()}
        drawn = {name: curve for name, curve in drawn.items() if len(curve[0])}
        for place, (name, (steps, values)) in enumerate(drawn.items()):
            colour = theme.cycle[place % len(theme.cycle)]
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            width = 2.2 if name == "total" else 1.4
            axes.plot(steps, smooth(values), color=colour, linewidth=width, label=name, solid_capstyle="round")
        medians = [abs(float(np.median(values))) for _, values in drawn.values()]
        if all(np.all(values > 0) for _, values in drawn.values()) and _far_apart(medians):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        elif _far_apart(medians):
            axes.set_yscale("symlog", linthresh=max(min(size for size in medians if size > 0), MIN_LINEAR))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("step")
        axes.set_ylabel("weighted loss")
        if drawn:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
        return _png(figure)


def validation_curve(
    steps: Sequence[float],
    values: Sequence[float],
    idle: float | None,
    *,
    labels: tuple[str, str] = ("validation L1", "copy-source"),
    theme: Theme = LIGHT,
) -> bytes:
    """A validation's figure over the training, lower is better, and the line of doing nothing that it has to get under.

    Args:
        steps: where it was taken.
        values: the figure.
        idle: the figure of doing nothing; None: unknown.
        labels: names of the figure and of doing nothing.
        theme: colours.
    """
    with _figure((3.9, 3.1), theme) as (figure, axes):
        places, shown = _finite(steps, values)
        axes.plot(places, shown, color=theme.accent, linewidth=2.2, marker="o", markersize=4, label=labels[0])
        if idle is not None:
            axes.axhline(idle, color=theme.quiet, linestyle=(0, (4, 3)), linewidth=1.4, label=labels[1])
        drawn = [*shown, idle or 0.0]
        top = max(drawn) * 1.12
        axes.set_ylim(min(0.0, min(drawn) * 1.12), top if top > 0 else 1.0)
        axes.set_xlabel("step")
        axes.legend(loc="lower left")
        return _png(figure)


def figure_curve(steps: Sequence[float], values: Sequence[float], *, title: str, theme: Theme = LIGHT) -> bytes:
    """One figure of a training, raw in the background and smoothed over it; sizes far apart on a logarithmic axis.

    Args:
        steps: where it was taken.
        values: the figure; what is not finite is left out.
        title: above the curve.
        theme: colours.
    """
    with _figure((3.9, 2.6), theme) as (figure, axes):
        places, shown = _finite(steps, values)
        axes.plot(places, shown, color=theme.accent, alpha=0.25, linewidth=0.8)
        axes.plot(places, smooth(shown), color=theme.accent, linewidth=1.8, solid_capstyle="round")
        if len(shown) and np.all(shown > 0) and _far_apart([float(shown.min()), float(shown.max())]):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("step")
        axes.set_title(title)
        return _png(figure)


def video_bars(rows: Sequence[tuple[str, float, float]], *, title: str = "", theme: Theme = LIGHT) -> bytes:
    """L1 of each video as a bar, its copy-source as a mark.

    Args:
        rows: (name, L1, copy-source L1) each; only the `SHOWN_VIDEOS` worst are drawn.
        title: above the bars.
        theme: colours.
    """
    worst = sorted(rows, key=lambda row: row[1], reverse=True)[:SHOWN_VIDEOS]
    with _figure((7.2, 0.9 + 0.3 * max(len(worst), 1)), theme) as (figure, axes):
        places = np.arange(len(worst))
        axes.barh(places, [row[1] for row in worst], height=0.6, color=theme.accent, label="model")
        marks = [row[2] for row in worst]
        axes.scatter(marks, places, marker="|", s=180, linewidths=2.4, color=theme.ink, label="copy-source", zorder=3)
        axes.set_yticks(places, [_short(row[0]) for row in worst])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean absolute difference, 0 to 1 (lower is better)")
        axes.set_title(title + ("" if len(worst) == len(rows) else f" (the {len(worst)} worst of {len(rows)})"))
        if worst:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
        return _png(figure)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window that shrinks at both ends, so that no value is invented beyond them."""
    half = int(len(values) * SMOOTH_SHARE)
    if half < 1:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _finite(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _far_apart(sizes: Sequence[float]) -> bool:
    positive = [size for size in sizes if size > 0]
    return len(positive) > 1 and max(positive) / min(positive) > LOG_RATIO


def _short(name: str, length: int = 36) -> str:
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


@contextmanager
def _figure(size: tuple[float, float], theme: Theme) -> Iterator[tuple[Any, Any]]:
    """A figure of its own backend, so that no display and no global state of pyplot is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9,
        "text.color": theme.ink,
        "text.parse_math": False,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": theme.paper,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": theme.faint,
        "grid.linewidth": 0.6,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": theme.paper,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    """The figure as a palette PNG: flat colours need no more, and it weighs a third."""
    from PIL import Image

    raw, out = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", bbox_inches="tight", pad_inches=0.12)
    Image.open(raw).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()
