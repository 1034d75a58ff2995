"""What happens when something on the studio's page is touched."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from models.errors import InkmotionError
from pipelines.studio_acts import Acts, Wish
from pipelines.studio_choices import Choice
from pipelines.studio_media import sentence
from pipelines.studio_page import FIXED_STRUCTURE, STRUCTURE, Parts, Samples, parts_of_page
from pipelines.studio_visits import Visit, VisitEnded
from pipelines.stylise_animate_types import Stopped

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": None}
"""Animations wait for their turn in `pipelines.studio_visits.Turns`, where the page's reader can stop them."""
LOOK: dict[str, Any] = {"concurrency_id": "look", "concurrency_limit": 1}
"""One photo is looked over at a time."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Only the page itself asks for it."""
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
WAITING = 64
"""So many events wait at most."""
STILL_THERE_S = 20.0
"""An error is shown so long."""


def build(acts: Acts, samples: Samples) -> gr.Blocks:
    """The page with all its events.

    Args:
        acts: what is done for it.
        samples: what it offers.
    """
    blocks: gr.Blocks
    with gr.Blocks(title="inkmotion studio", analytics_enabled=False, fill_width=True) as blocks:
        parts = parts_of_page(samples)
        _on_opening(blocks, parts, acts)
        _on_style(parts, acts)
        _on_media(parts, acts)
        _on_run(parts, acts)
        blocks.unload(_leaving(acts))
    blocks.queue(max_size=WAITING)
    return blocks


def _on_opening(blocks: gr.Blocks, parts: Parts, acts: Acts) -> None:
    @_told
    def begin(request: gr.Request) -> tuple[Any, ...]:
        known = acts.begin(_key(request))
        return _dropdown(known.stylists), _dropdown(known.movers)

    blocks.load(begin, outputs=[parts.stylist, parts.mover], **QUIET)


def _on_style(parts: Parts, acts: Acts) -> None:
    @_told
    def styles(uri: str | None) -> tuple[Any, ...]:
        offered = acts.styles(uri)
        chosen = offered[0][1] if offered else None
        has_structure = acts.has_structure(uri)
        structure = gr.Slider(interactive=has_structure, label=STRUCTURE if has_structure else FIXED_STRUCTURE)
        return gr.Gallery(value=offered, selected_index=0 if offered else None), chosen, structure

    @_told
    def pick(event: gr.SelectData, uri: str | None) -> str:
        return str(acts.styles(uri)[event.index][1])

    shown = [parts.styles, parts.style, parts.structure]
    parts.stylist.change(styles, parts.stylist, shown, show_progress_on=parts.styles, **LOOK, **PRIVATE)
    parts.styles.select(pick, parts.stylist, parts.style, **QUIET)


def _on_media(parts: Parts, acts: Acts) -> None:
    def forget() -> tuple[Any, ...]:
        """The faces of the photo before are gone, whatever is found in the new one."""
        return None, gr.Markdown(visible=False), gr.Gallery(value=[], visible=False)

    @_told
    def look(path: str | None, request: gr.Request) -> tuple[Any, ...]:
        seen = acts.look(_key(request), _path(path))
        several = seen.chosen is None and bool(seen.faces)
        faces = gr.Gallery(value=[(str(file), name) for file, name in seen.faces], visible=several, selected_index=None)
        return seen.chosen, gr.Markdown(seen.told, visible=several), faces

    def pick(event: gr.SelectData) -> int:
        return int(event.index)

    @_told
    def take(path: str | None, request: gr.Request) -> None:
        acts.take_driving(_key(request), _path(path))

    shown = [parts.face, parts.photo_note, parts.faces]
    parts.photo.change(forget, outputs=shown, queue=False, **QUIET).then(
        look, parts.photo, shown, show_progress_on=parts.photo, **LOOK, **PRIVATE
    )
    parts.faces.select(pick, outputs=parts.face, **QUIET)
    parts.driving.change(take, parts.driving, **QUIET)


def _on_run(parts: Parts, acts: Acts) -> None:
    shown = [parts.picture, parts.still, parts.gif, parts.mp4, parts.history]

    @_told
    def run(
        given: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio finds it by this default)
    ) -> tuple[Any, ...]:
        wish = Wish(
            photo=_path(given[parts.photo]),
            face=given[parts.face],
            stylist=given[parts.stylist],
            style=given[parts.style],
            structure=given[parts.structure],
            colour=given[parts.colour],
            driving=_path(given[parts.driving]),
            mover=given[parts.mover],
        )
        acts.run(_key(request), wish, progress=lambda part, what: progress(part, desc=what))
        return _shown(acts.visits.open(_key(request)), 0)

    @_told
    def stop(request: gr.Request) -> None:
        acts.halt(_key(request))

    @_told
    def again(event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        return _shown(acts.visits.open(_key(request)), int(event.index))

    asked = {parts.photo, parts.face, parts.stylist, parts.style, parts.structure, parts.colour}
    asked |= {parts.driving, parts.mover}
    parts.run.click(run, asked, shown, show_progress_on=parts.picture, **WORK, **PRIVATE)
    parts.stop.click(stop, queue=False, **QUIET)
    parts.history.select(again, outputs=shown, **QUIET)


def _leaving(acts: Acts) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        acts.leave(_key(request))

    return leave


def _told(act: Callable[P, R]) -> Callable[P, R]:
    """The same, whose errors the page shows as one sentence."""

    @functools.wraps(act)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return act(*args, **kwargs)
        except InkmotionError as error:
            raise _shown_error(sentence(error)) from None
        except Stopped:
            raise _shown_error("The work was stopped.", title="Stopped") from None
        except VisitEnded:
            raise _shown_error("This page lost its connection for a while. Load it again.") from None
        except Exception:
            logger.exception("the studio's page asked for something that failed")
            raise _shown_error("The studio failed at this; its log says where. Everything else goes on.") from None

    return guarded


def _shown_error(text: str, *, title: str = "This did not work") -> gr.Error:
    return gr.Error(html.escape(text, quote=False), duration=STILL_THERE_S, title=title, print_exception=False)


def _shown(visit: Visit, place: int) -> tuple[Any, ...]:
    """A result of a visit and its history, for the page."""
    past = list(visit.past)
    made = past[place]
    history = gr.Gallery(
        value=[(str(each.gif), each.label) for each in past], visible=len(past) > 1, selected_index=place
    )
    return (
        str(made.gif),
        gr.Image(str(made.still), visible=True),
        gr.DownloadButton(value=str(made.gif), interactive=True),
        gr.DownloadButton(value=str(made.mp4), interactive=True),
        history,
    )


def _dropdown(offered: tuple[Choice, ...]) -> Any:
    return gr.Dropdown(choices=[(each.label, each.uri) for each in offered], value=offered[0].uri)


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None
