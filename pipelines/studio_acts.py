"""What is done for a page, whatever the page is made with: its visit, its photo, its styles, its animations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from models.errors import ParamsError, Problem, SourceError, must
from pipelines.studio_choices import Choices
from pipelines.studio_media import check_driving, check_given, check_photo, written_anew
from pipelines.studio_visits import Made, Turns, Visit, Visits
from pipelines.studio_work import Order, Progress, Thumbnail, Workshop, faces_shown
from pipelines.stylise_animate_types import Found

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of what is taken in."""

    max_bytes: int
    """Of a photo or a video."""
    max_seconds: float
    """Of a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a page shows of a photo's faces."""

    faces: tuple[tuple[Path, str], ...] = ()
    """Picture and name of each, from left to right."""
    chosen: int | None = None
    """Place of the only one in `faces`; None where the reader has to choose."""
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a page asks for, as it stands there."""

    photo: Path | None
    face: int | None
    """Place from the left, from 0 on; None: not chosen."""
    stylist: str | None
    style: str | None
    structure: float
    colour: float
    driving: Path | None
    mover: str | None


class Acts:
    """What pages ask for; each is known by its key.

    Args:
        visits: the open pages.
        workshop: the models.
        offered: the registry's versions, asked for by each new page.
        bounds: of what is taken in.
    """

    def __init__(self, visits: Visits, workshop: Workshop, offered: Callable[[], Choices], bounds: Bounds) -> None:
        self.visits = visits
        self._workshop, self._offered, self._bounds = workshop, offered, bounds
        self._turns = Turns()

    def begin(self, key: str) -> Choices:
        """A page has opened; what it can choose from.

        Raises:
            TrackingError: the registry is away, or holds too little.
        """
        self.visits.of(key)
        return self._offered()

    def styles(self, uri: str | None) -> list[Thumbnail]:
        """Pictures and names of a model's styles; none of no model.

        Raises:
            TrackingError: no such version, or the registry is away.
        """
        return self._workshop.styles(uri) if uri else []

    def has_structure(self, uri: str | None) -> bool:
        """Whether the model's styles change the face's structure."""
        return bool(uri) and self._workshop.has_structure(str(uri))

    def look(self, key: str, path: Path | None) -> Seen:
        """Find the faces in a page's photo.

        Raises:
            SourceError: it can't be used, or no face is found in it.
            VisitEnded: the page was closed.
        """
        visit = self.visits.open(key)
        visit.seen = None
        if path is None:
            return Seen()
        visit.uploads.add(path)
        found = self._found(visit, path)
        faces = tuple(_written(visit, found))
        if len(faces) == 1:
            return Seen(faces=faces, chosen=0)
        return Seen(faces=faces, told=f"**{len(faces)} faces** were found. Choose one:")

    def take_driving(self, key: str, path: Path | None) -> None:
        """Look a driving video over as soon as it is there.

        Raises:
            MediaError: it can't be used.
            VisitEnded: the page was closed.
        """
        if path is not None:
            visit = self.visits.open(key)
            visit.uploads.add(path)
            self._driving(visit, path)

    def run(self, key: str, wish: Wish, *, progress: Progress) -> Made:
        """Make an animation and keep it in the page's history.

        Raises:
            InkmotionError: something is missing or can't be used; the history stays as it is.
            Stopped: the page was closed or its reader stopped the work, also while it waited for others'.
            VisitEnded: the page was closed before it began.
        """
        visit = self.visits.open(key)
        with visit.working() as work:
            progress(0.0, "looking the photo and the video over")
            found = self._found(visit, check_photo(wish.photo, max_bytes=self._bounds.max_bytes))
            order = _order(wish, found, self._driving(visit, wish.driving))
            with self._turns.mine(work, waits=lambda before: progress(0.0, f"waiting for {before} before this")):
                made = self._workshop.make(order, work.folder, progress=progress, is_over=work.is_over)
            visit.keep(made)
        return made

    def halt(self, key: str) -> None:
        """Stop what is being made for a page and what waits for its turn; what it has stays.

        Raises:
            VisitEnded: the page was closed.
        """
        self.visits.open(key).halt()

    def leave(self, key: str) -> None:
        """The page was closed."""
        self.visits.end(key)

    def _driving(self, visit: Visit, path: Path | None) -> Path:
        """A driving video that can be used."""
        given = check_given(path, "a driving video", self._bounds.max_bytes)
        video = written_anew(
            given, visit.folder / f"driving-{given.parent.name[:12]}", max_seconds=self._bounds.max_seconds
        )
        check_driving(
            video, max_bytes=max(self._bounds.max_bytes, video.stat().st_size), max_seconds=self._bounds.max_seconds
        )
        return video

    def _found(self, visit: Visit, path: Path) -> Found:
        seen = visit.seen
        if not isinstance(seen, Found) or seen.path != path:
            seen = self._workshop.look(check_photo(path, max_bytes=self._bounds.max_bytes))
            visit.seen = seen
        return seen


def _written(visit: Visit, found: Found) -> list[tuple[Path, str]]:
    """Pictures of the faces, in the page's folder."""
    made = []
    for place, (picture, name) in enumerate(faces_shown(found)):
        path = visit.folder / f"{found.path.stem[:40]}-face-{place + 1}.png"
        Image.fromarray(picture).save(path)
        made.append((path, name))
    return made


def _order(wish: Wish, found: Found, driving: Path) -> Order:
    """What is asked for, with nothing missing.

    Raises:
        SourceError: several faces, and none is chosen; or the chosen one is cut off.
        ParamsError: a model or a style is missing.
    """
    missing = [name for name in ("stylist", "style", "mover") if not getattr(wish, name)]
    if missing:
        raise ParamsError([Problem(name, None, "be chosen") for name in missing])
    if wish.face is None and len(found.faces) > 1:
        got = f"{len(found.faces)} faces and no choice"
        raise SourceError(must(found.path.name, "have one face chosen", got, "Touch one of the faces below the photo"))
    face = found.faces[min(wish.face or 0, len(found.faces) - 1)]
    if face.beyond:
        fix = "Use a photo with room around the head, or another face"
        raise SourceError(must(found.path.name, "show the whole face", face.beyond, fix))
    return Order(
        photo=found,
        face=face,
        stylist=str(wish.stylist),
        style=str(wish.style),
        structure=wish.structure,
        colour=wish.colour,
        driving=driving,
        mover=str(wish.mover),
    )
