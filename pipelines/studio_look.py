"""How the studio looks: calm, in the system's own letters, light or dark as the browser is."""

from __future__ import annotations

from typing import Any

LETTERS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
"""Of the reader's machine: a page with letters from elsewhere would ask for them."""
FIXED_LETTERS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
CSS = """
.gradio-container {
  width: 100% !important;
  max-width: 1360px !important;
  min-width: 0 !important;
  margin: 0 auto !important;
}
.gradio-container .main, .gradio-container .wrap, .gradio-container .column {
  min-width: 0;
  max-width: 100%;
  box-sizing: border-box;
}
#head { margin-bottom: .25rem; }
#head h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0; }
#head p { color: var(--body-text-color-subdued); margin: .1rem 0 0; }
#columns > * { min-width: min(320px, 100%) !important; }
#columns { gap: 1.5rem; align-items: flex-start; }
#columns h3 { margin: 0; font-size: 1.05rem; font-weight: 600; }
#picture img, #still img { width: 100%; height: 100%; object-fit: contain; }
#styles .grid-container, #faces .grid-container, #history .grid-container {
  padding: .25rem;
  grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)) !important;
}
#styles .caption-label, #faces .caption-label, #history .caption-label { font-size: .7rem; padding: 0 .3rem; }
#styles, #faces, #history {
  outline: none !important;
  border: 1px solid var(--border-color-primary) !important;
  box-shadow: none !important;
  min-height: 0;
}
#styles .grid-wrap, #faces .grid-wrap, #history .grid-wrap {
  min-height: 0 !important;
  max-height: 17rem;
  overflow-y: auto;
}
#styles .gallery-container, #faces .gallery-container, #history .gallery-container { min-height: 0 !important; }
#photo-note { padding: 0 .25rem; }
#driving .video-container, #driving { min-height: 0; }
#driving video { max-height: 230px; }
#run { flex-grow: 4; }
#stop { flex-grow: 1; }
#gif, #mp4 { white-space: nowrap; }
@media (max-width: 700px) {
  .gradio-container main { padding: .75rem !important; }
  .gradio-container { max-width: 100vw !important; }
  #columns { flex-direction: column; gap: 1rem; }
  #columns > .column { width: 100%; min-width: 0 !important; }
}
"""


def theme() -> Any:
    """A quiet theme, without letters from elsewhere."""
    import gradio

    return gradio.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=LETTERS,
        font_mono=FIXED_LETTERS,
    )
