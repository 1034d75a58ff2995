"""The model card that every version carries."""
# ruff: noqa: E501  (a template's lines are its reader's)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

CARD = """\
# {{ name }}

Moves a picture with the motion of a video (preset `{{ tags.preset }}`, {{ size }} px, {{ tags["training.step"] }} steps,
{{ tags["training.images_seen"] }} pairs of frames seen).

## Load it

```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{{ name }}@champion")
frames = model.predict({"source": picture[None], "driving": video})   # uint8 RGB in, float32 [0, 1] out
```

Options by `params=`: `relative` (default true), `adapt_scale`, `find_best_frame`. It needs mlflow (or mlflow-skinny with pandas),
onnxruntime, numpy and pillow.

## Figures

Reconstruction L1 on the test split (rule: {{ evaluation.split_rule }}): **{{ "%.4f" | format(evaluation.test.l1) }}**, beside
{{ "%.4f" | format(evaluation.test.copy_source_l1) }} for showing the first frame unmoved (copy-source).
{% if evaluation.unseen %}On identities never trained on: {{ "%.4f" | format(evaluation.unseen.l1) }} beside \
{{ "%.4f" | format(evaluation.unseen.copy_source_l1) }}.{% endif %}
{% if tags.profile == "sample" %}
Trained on the sample media, which show that everything works and learns, not how good a full-scale model is.
{% endif %}
## Data

`{{ tags["data.dataset"] }}`, shards' index sha256 `{{ tags["data.index_sha256"][:16] }}`. Licences: {{ tags["data.licences"] }}.

## Limits

Faces and poses unlike those of the data come out distorted; large turns of the head, hands before the face and other
sizes than {{ size }} px are beyond it.

## Using it on people

Animating a real person's face can deceive and hurt. Use pictures of people who agreed to this very use; of the dead, of minors
and of public figures only where law and decency allow it. Say wherever a result is shown that it was made. Do not use it
to impersonate, to harass, to make sexual or political imagery of people, or to defeat identity checks.
"""


def model_card(name: str, *, tags: Mapping[str, str], evaluation: Mapping[str, Any]) -> str:
    """A version's card in Markdown: what it is, how to load it, figures, data, limits, and what its use asks for."""
    template = jinja2.Template(CARD, undefined=jinja2.StrictUndefined, trim_blocks=False)
    return str(template.render(name=name, tags=tags, evaluation=evaluation, size=evaluation["size_px"]))
