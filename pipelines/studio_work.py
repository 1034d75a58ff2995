"""What the studio does with what a page gives it: faces found, styles shown, a face stylised and animated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.errors import SourceError, must
from pipelines import stylise_animate
from pipelines.animate import SUFFIXES
from pipelines.engines import Engine
from pipelines.photo_faces import PhotoFace, find_faces
from pipelines.studio_choices import Kept
from pipelines.studio_visits import Made
from pipelines.stylise_animate_scene import EYES
from pipelines.stylise_animate_types import Found, Stage, StyliseAnimateOptions, Watch
from pipelines.stylise_photo import read_photo
from pipelines.stylist import Stylist

Thumbnail = tuple[np.ndarray, str]
"""Picture, uint8 (H, W, 3), and name of a style or a face."""
Progress = Callable[[float, str], None]
"""How much is done, 0 to 1, and what is done now."""
SHOWN_PX = 256
"""Of faces and styles in a list."""
LOOK_PX = 2000
"""Longest side at which a photo is worked with."""
STAGES: dict[Stage, tuple[float, float, str]] = {
    "faces": (0.05, 0.1, "looking for the face in the driving video"),
    "style": (0.15, 0.15, "stylising the face"),
    "keypoints": (0.3, 0.1, "following the movement"),
    "frames": (0.4, 0.55, "animating"),
}
"""Where on the way each begins, its share of the way, and how the page calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for."""

    photo: Found
    face: PhotoFace
    stylist: str
    """Model version that stylises."""
    style: str
    structure: float
    colour: float
    driving: Path
    mover: str
    """Model version that animates."""


class Workshop:
    """The opened models, and what is made with them.

    Args:
        open_stylist: opens a model version that stylises.
        open_mover: one that animates.
        sample: a portrait in which styles without a picture of their own are shown; None: there is none.
    """

    def __init__(
        self, open_stylist: Callable[[str], Stylist], open_mover: Callable[[str], Engine], *, sample: Path | None
    ) -> None:
        self._stylists, self._movers = Kept(open_stylist), Kept(open_mover)
        self._sample = sample
        self._shown: dict[str, list[Thumbnail]] = {}

    def look(self, path: Path) -> Found:
        """Find a photo's faces.

        Raises:
            MediaError: it can't be read, or no face is found in it.
            EnvironmentProblem: the detectors' weights are not installed.
        """
        picture = _at_most(read_photo(path).frame, LOOK_PX)
        with EYES:
            faces = find_faces(picture)
        if not faces:
            fix = "Use a photo of a person that looks at the camera; faces of drawings are not found"
            raise SourceError(must(path.name, "show a face", "none", fix))
        return Found(path=path, picture=picture, faces=faces)

    def warm(self, stylist: str, mover: str) -> None:
        """Open these models before anybody waits for them; their libraries are best loaded by the main thread.

        Raises:
            TrackingError: no such version, or the registry is away.
        """
        self.styles(stylist)
        engine = self._movers.get(mover)
        engine.keypoints(np.zeros((1, engine.size_px, engine.size_px, 3), np.uint8))
        with EYES:
            find_faces(self._portrait())

    def styles(self, uri: str) -> list[Thumbnail]:
        """Pictures uint8 (H, W, 3) and names of a model's styles.

        Raises:
            TrackingError: there is no such version, or the registry is away.
        """
        if uri not in self._shown:
            stylist = self._stylists.get(uri)
            self._shown[uri] = [(self._thumbnail(stylist, style), style) for style in stylist.styles]
        return self._shown[uri]

    def has_structure(self, uri: str) -> bool:
        """Whether a model's styles change the face's structure."""
        return self._stylists.get(uri).has_structure

    def make(self, order: Order, folder: Path, *, progress: Progress, is_over: Callable[[], bool]) -> Made:
        """Stylise the face, animate it, and write a GIF, an mp4 and a picture into a folder.

        Raises:
            Stopped: ``is_over`` says so; it is asked between frames.
            InkmotionError: something that was given can't be used.
        """
        progress(0.0, "opening the models")
        stylist, mover = self._stylists.get(order.stylist), self._movers.get(order.mover)
        gif = folder / f"animation{SUFFIXES[0]}"
        options = StyliseAnimateOptions(
            face=order.face.number,
            structure=order.structure,
            colour=order.colour,
            also=SUFFIXES[1:],
            pictures=folder,
        )
        stylise_animate.run(
            order.photo,
            order.style,
            order.driving,
            gif,
            stylist=stylist,
            mover=(order.mover, mover),
            options=options,
            watch=Watch(tell=lambda *step: progress(*_told(*step)), stop=is_over),
        )
        progress(1.0, "done")
        still, label = folder / f"face-{order.face.number}-style.png", f"{order.style}, {order.driving.stem}"
        return Made(folder=folder, gif=gif, mp4=gif.with_suffix(SUFFIXES[1]), still=still, label=label)

    def _thumbnail(self, stylist: Stylist, style: str) -> np.ndarray:
        picture = stylist.thumbnail(style)
        if picture is not None:
            return _resized(picture, SHOWN_PX)
        made: np.ndarray = stylist.stylise(self._portrait(), style, structure=1.0, colour=1.0)["style"]
        return made

    def _portrait(self) -> np.ndarray:
        """The sample's middle, or a plain slope of grays."""
        if self._sample is None:
            slope = np.linspace(40, 215, SHOWN_PX).astype(np.uint8)
            return np.repeat(np.add.outer(slope // 2, slope // 2)[..., None], 3, axis=2)
        picture = read_photo(self._sample).frame
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        return _resized(picture[top : top + side, left : left + side], SHOWN_PX)


def faces_shown(found: Found) -> list[Thumbnail]:
    """Each face's cut, uint8 (SHOWN_PX, SHOWN_PX, 3), and its name."""
    return [(face.cut(found.picture, size_px=SHOWN_PX), f"Face {face.number}") for face in found.faces]


def _told(stage: Stage, done: int, total: int) -> tuple[float, str]:
    """How much of an animation is done, 0 to 1, and what is done now."""
    begin, share, what = STAGES[stage]
    frame = f": frame {done} of {total}" if stage == "frames" else ""
    return begin + share * done / max(1, total), what + frame


def _resized(picture: np.ndarray, size_px: int) -> np.ndarray:
    kernel = cv2.INTER_AREA if len(picture) > size_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size_px, size_px), interpolation=kernel))


def _at_most(picture: np.ndarray, longest_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    if max(height, width) <= longest_px:
        return picture
    factor = longest_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
