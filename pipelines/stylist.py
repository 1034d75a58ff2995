"""What stylises a face for `pipelines.stylise_animate`, behind one interface.

A model of the ink family draws any picture in its one style. A model with an extrinsic style path (DualStyleGAN) has
many styles, and mixes structure and colours apart; it is another class with the same members.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from models.errors import ParamsError, Problem
from pipelines.params import Params
from pipelines.stage import Paths
from pipelines.stylise_models import Device, StyleEngine, open_model
from pipelines.stylise_photo import shown

Output = Literal["reconstruction", "style", "structure", "structure-off"]
"""The pictures that a stylist makes of a face: the face as the model sees it, without a style; structure and colours
of the style; its structure in the face's own colours (intrinsic colour codes); its structure with the colour layers
switched off."""
OUTPUTS: tuple[Output, ...] = ("reconstruction", "style", "structure", "structure-off")
_TOLD = 12
"""So many styles are listed in a message."""


class Stylist(Protocol):
    """Makes stylised pictures of an aligned face."""

    @property
    def name(self) -> str:
        """Where it came from, for reports."""

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of its styles."""

    @property
    def has_structure(self) -> bool:
        """Whether a style changes the face's structure, and makes all of `OUTPUTS`; else ``style`` alone."""

    @property
    def size_px(self) -> int | None:
        """Height and width of the crops that it is made for; None: any."""

    def thumbnail(self, style: str) -> np.ndarray | None:
        """A picture that shows a style, uint8 (H, W, 3); None: there is none."""

    def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[Output, np.ndarray]:
        """Make the pictures.

        Args:
            crop: an aligned face, uint8 RGB (H, W, 3).
            style: one of `styles`.
            structure: how much of the style's structure is taken, 0 to 1.
            colour: how much of its colours, 0 to 1.

        Returns:
            Pictures by name, uint8 RGB (S, S, 3); ``style`` is among them.
        """


class InkStylist:
    """A model of the style family: one style, named as the model, whose strength is ``colour``.

    Args:
        name: a model version or a checkpoint's folder, as `pipelines.stylise_models.ModelSource.name`.
        engine: draws.
    """

    has_structure = False
    size_px = None

    def __init__(self, name: str, engine: StyleEngine) -> None:
        self.name = name
        self.styles: tuple[str, ...] = (_short(name),)
        self._engine = engine

    def thumbnail(self, style: str) -> np.ndarray | None:
        """None: a network that draws has no picture of its style."""
        check_style(self, style)
        return None

    def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[Output, np.ndarray]:
        """The drawing, mixed with the crop by ``colour``; ``structure`` does nothing.

        Raises:
            ParamsError: no such style.
            ClipError: the drawing is not finite.
        """
        del structure
        check_style(self, style)
        return {"style": shown(self._engine.stylise(crop[None], strength=colour)[0])}


def open_stylist(
    params: Params | None, paths: Paths, *, model: str | None, checkpoint: Path | None, device: Device = "auto"
) -> Stylist:
    """What the command line names: a model version or a checkpoint of the style family.

    Args:
        params: of the project, for its registry; None: the environment's.
        paths: of the project.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/NAME``.
        checkpoint: a checkpoint's or exported model's folder.
        device: ``auto`` takes a GPU when there is one.

    Raises:
        ParamsError: neither or both are named, or what is named does not stylise.
        TrackingError: no such version, or the registry is away.
        CheckpointError: no whole checkpoint, or a graph that can't be opened.
    """
    source = open_model(params, paths, model=model, checkpoint=checkpoint, device=device)
    return InkStylist(source.name, source.engine())


def check_style(stylist: Stylist, style: str) -> None:
    """Refuse a style that the stylist does not have.

    Raises:
        ParamsError: naming those that it has, the likeliest first.
    """
    if style in stylist.styles:
        return
    near = difflib.get_close_matches(style, stylist.styles, n=3)
    names = [*near, *(name for name in stylist.styles if name not in near)]
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    raise ParamsError([Problem("style", style, f"be one of {stylist.name}'s: {', '.join(names[:_TOLD])}{more}")])


def only_style(stylist: Stylist) -> str:
    """The style of a stylist that has but one.

    Raises:
        ParamsError: it has several; some are named.
    """
    if len(stylist.styles) != 1:
        check_style(stylist, "")
    return stylist.styles[0]


def _short(name: str) -> str:
    """``ink`` of ``models:/ink/3`` and of ``data/trained/ink``."""
    tail = name.split()[0].removeprefix("models:/") if name.startswith("models:/") else Path(name).name
    return tail.split("/")[0].split("@")[0]
