"""Pictures of a stylising model's evaluation: rows of photo, drawing and style, and bars of its distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines import plots, strips
from pipelines.evaluate_style_figures import Figure
from pipelines.plots import LIGHT, Theme


def strip(photos: Sequence[np.ndarray], drawings: Sequence[np.ndarray], styles: Sequence[np.ndarray]) -> bytes:
    """A column for each photo: photo, drawing, and some style picture, as PNG.

    Args:
        photos: uint8, (H, W, 3) each.
        drawings: likewise, as many.
        styles: likewise; they belong to no photo.
    """
    rows = {"photo": np.stack(photos), "drawing": np.stack(drawings), "some style picture": np.stack(styles)}
    return strips.strip_png(rows)


def distance_bars(
    made: Mapping[str, Figure], untouched: Mapping[str, Figure], *, title: str = "", theme: Theme = LIGHT
) -> bytes:
    """FID and KID of the drawings, as shares of the untouched photos', which are 1.

    Args:
        made: metric -> the drawings' figure.
        untouched: metric -> the photos'.
        title: above the bars.
        theme: colours.
    """
    shares = list(_shares(made, untouched))
    with plots._figure((7.2, 1.2 + 0.4 * max(len(shares), 1)), theme) as (figure, axes):
        places = np.arange(len(shares))
        values, errors = [share for _, share, _ in shares], [error for _, _, error in shares]
        axes.barh(places, values, xerr=errors, height=0.6, color=theme.accent, ecolor=theme.ink, label="drawings")
        axes.axvline(1.0, color=theme.quiet, linestyle=(0, (4, 3)), linewidth=1.4, label="untouched photos")
        axes.set_yticks(places, [name for name, _, _ in shares])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("distance from the style pictures, untouched photos = 1 (lower is better)")
        axes.set_title(title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
        return plots._png(figure)


def _shares(made: Mapping[str, Figure], untouched: Mapping[str, Figure]) -> list[tuple[str, float, float]]:
    """(metric, share, its deviation) of the distances that have a figure above 0 to compare with."""
    found = []
    for name, ours in made.items():
        theirs = untouched.get(name)
        if not name.startswith(("fid/", "kid/")) or theirs is None or ours.value is None:
            continue
        if theirs.value is not None and theirs.value > 0:
            found.append((name, ours.value / theirs.value, (ours.std or 0.0) / theirs.value))
    return found
