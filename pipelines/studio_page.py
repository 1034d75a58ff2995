"""The studio's page: what stands where. What happens when it is touched stands in `pipelines.studio_events`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.studio_media import PHOTO_SUFFIXES

HEAD = """<h1>inkmotion studio</h1>
<p>A face from a photo, drawn in a style, moved by a video. Nothing leaves this machine.</p>"""
STRUCTURE = "Structure"
FIXED_STRUCTURE = "Structure (fixed)"
"""A model without an extrinsic style path keeps the face's own structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Media that the page offers to those who have none at hand."""

    photos: Sequence[Path] = ()
    videos: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """The page's parts that events read or write."""

    photo: Any
    photo_note: Any
    faces: Any
    face: Any
    stylist: Any
    styles: Any
    style: Any
    structure: Any
    colour: Any
    driving: Any
    mover: Any
    run: Any
    stop: Any
    picture: Any
    still: Any
    gif: Any
    mp4: Any
    history: Any


def parts_of_page(samples: Samples) -> Parts:
    """Lay the page out; inside a block of gradio's."""
    gr.HTML(HEAD, elem_id="head")
    with gr.Row(elem_id="columns"):
        with gr.Column(min_width=320):
            face_and_style = (*_photo(samples), *_style())
        with gr.Column(min_width=320):
            motion = _motion(samples)
        with gr.Column(min_width=320):
            made = _result()
    return Parts(*face_and_style, *motion, *made)


def _taken_as_given(part: Any) -> None:
    """Hand on a file's path alone: gradio would decode it without bounds, `pipelines.studio_media` looks it over."""

    def path_of(payload: Any) -> str | None:
        return None if payload is None else str(payload.path)

    part.preprocess = path_of


def _photo(samples: Samples) -> tuple[Any, ...]:
    gr.Markdown("### 1 · Photo")
    photo = gr.Image(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        show_label=False,
        height=300,
        buttons=[],
        elem_id="photo",
        placeholder=f"Drop a photo of a face here\n{', '.join(PHOTO_SUFFIXES)}",
    )
    _taken_as_given(photo)
    if samples.photos:
        gr.Examples([[str(path)] for path in samples.photos], inputs=photo, label="Samples", elem_id="photos")
    note = gr.Markdown("", elem_id="photo-note", visible=False)
    faces = gallery("Faces in the photo", "faces", visible=False)
    return photo, note, faces, gr.State(None)


def _style() -> tuple[Any, ...]:
    gr.Markdown("### 2 · Style")
    with gr.Group():
        stylist = gr.Dropdown(choices=[], value=None, label="Model that draws", elem_id="stylist", filterable=False)
        styles = gallery("Styles", "styles", visible=True)
        style = gr.State(None)
        with gr.Row():
            structure = gr.Slider(0, 1, 1, step=0.05, label=STRUCTURE, elem_id="structure", buttons=[])
            colour = gr.Slider(0, 1, 1, step=0.05, label="Colour", elem_id="colour", buttons=[])
    return stylist, styles, style, structure, colour


def _motion(samples: Samples) -> tuple[Any, ...]:
    gr.Markdown("### 3 · Movement")
    driving = gr.Video(
        sources=["upload", "webcam"],
        show_label=False,
        height=300,
        buttons=[],
        elem_id="driving",
    )
    _taken_as_given(driving)
    if samples.videos:
        gr.Examples([[str(path)] for path in samples.videos], inputs=driving, label="Samples", elem_id="videos")
    mover = gr.Dropdown(choices=[], value=None, label="Model that animates", elem_id="mover", filterable=False)
    with gr.Row():
        run = gr.Button("Animate", variant="primary", size="lg", scale=4, elem_id="run")
        stop = gr.Button("Stop", size="lg", scale=1, min_width=90, elem_id="stop")
    return driving, mover, run, stop


def _result() -> tuple[Any, ...]:
    gr.Markdown("### Animation")
    fixed: dict[str, Any] = {"interactive": False, "show_label": False, "buttons": []}
    picture = gr.Image(height=300, elem_id="picture", placeholder="What you make is shown here", **fixed)
    with gr.Row():
        gif = gr.DownloadButton("Download GIF", interactive=False, size="md", elem_id="gif", min_width=100)
        mp4 = gr.DownloadButton("Download mp4", interactive=False, size="md", elem_id="mp4", min_width=100)
    still = gr.Image(height=180, elem_id="still", visible=False, **fixed)
    history = gallery("Made so far", "history", visible=False, columns=4)
    return picture, still, gif, mp4, history


def gallery(label: str, name: str, *, visible: bool, columns: int = 5) -> Any:
    """Small pictures of which one can be touched."""
    return gr.Gallery(
        label=label,
        show_label=False,
        elem_id=name,
        columns=columns,
        height="auto",
        allow_preview=False,
        buttons=[],
        interactive=False,
        object_fit="cover",
        fit_columns=False,
        visible=visible,
        format="png",
    )
