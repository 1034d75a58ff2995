"""How the files of a published method are laid out, and what a file's entries say that it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.importers.reading import shown

Kind = Literal["fomm", "articulated"]
"""Of a published checkpoint; also the preset that it becomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a kind of checkpoint keeps what."""

    kind: Kind
    title: str
    networks: Mapping[str, str]
    """Published name to ours."""
    required: tuple[str, ...]
    """Published names without which nothing can be animated."""
    prefixes: Mapping[str, tuple[tuple[str, str], ...]]
    """Our network -> (published, ours) beginnings of its entries' names, where they differ."""
    optimisers: Mapping[str, tuple[str, ...]]
    """Published name of an optimiser -> our networks whose parameters it holds, in its order."""
    epochs: tuple[str, ...]
    """Names under which the last finished epoch stands, the most telling first."""

    def ours(self, network: str, entry: str) -> str:
        """Our name of an entry of our network ``network``."""
        return _swapped(entry, self.prefixes.get(network, ()))

    def theirs(self, network: str, entry: str) -> str:
        """The inverse of `ours`."""
        return _swapped(entry, tuple((ours, theirs) for theirs, ours in self.prefixes.get(network, ())))


FOMM = Layout(
    kind="fomm",
    title="First Order Motion Model",
    networks={"generator": "generator", "kp_detector": "keypoint_detector", "discriminator": "discriminator"},
    required=("generator", "kp_detector"),
    prefixes={},
    optimisers={
        "optimizer_generator": ("generator",),
        "optimizer_kp_detector": ("keypoint_detector",),
        "optimizer_discriminator": ("discriminator",),
    },
    epochs=("epoch",),
)
ARTICULATED = Layout(
    kind="articulated",
    title="Articulated Animation",
    networks={
        "generator": "generator",
        "region_predictor": "keypoint_detector",
        "bg_predictor": "background_predictor",
        "avd_network": "avd",
    },
    required=("generator", "region_predictor"),
    prefixes={"generator": (("pixelwise_flow_predictor.", "dense_motion_network."),)},
    optimisers={"optimizer_reconstruction": ("generator", "keypoint_detector", "background_predictor")},
    epochs=("epoch_reconstruction", "epoch"),
)
LAYOUTS: dict[str, Layout] = {"fomm": FOMM, "articulated": ARTICULATED}

_FOREIGN = (
    ("inpainting_network", "Thin-Plate Spline Motion Model"),
    ("he_estimator", "one-shot free-view head synthesis (face-vid2vid)"),
    ("g_ema", "StyleGAN2"),
    ("state_dict", "one network, or another framework's training"),
)
_FOREIGN_ENTRIES = (("appearance_encoder.", "Monkey-Net"),)


def describe(content: Mapping[str, Any]) -> str:
    """What a checkpoint is, by its entries: a method's title, or its first entries."""
    for layout in LAYOUTS.values():
        if all(isinstance(content.get(name), Mapping) for name in layout.required):
            return _other_family(content) or layout.title
    for name, title in _FOREIGN:
        if name in content:
            return f"a checkpoint of {title}"
    names = [shown(name) for name in list(content)[:4]]
    if any("." in name for name in names):
        return f"the entries of a single network ({', '.join(names)}, ...)"
    return f"a dict of {', '.join(names)}" if names else "an empty dict"


def _other_family(content: Mapping[str, Any]) -> str | None:
    """A method that lays its files out alike, but has other networks inside."""
    for start, title in _FOREIGN_ENTRIES:
        if any(isinstance(key, str) and key.startswith(start) for key in content["generator"]):
            return f"a checkpoint of {title}"
    return next((f"a checkpoint of {title}" for name, title in _FOREIGN if name in content), None)


def _swapped(entry: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for before, after in prefixes:
        if entry.startswith(before):
            return after + entry.removeprefix(before)
    return entry
