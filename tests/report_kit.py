"""Reports as the stages write them, and what a page asks a browser for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from pipelines import plots, strips
from pipelines.stage import Paths


class References(HTMLParser):
    """Everything that a browser would fetch, and everything that it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "background", "action", "xlink:href"):
                self.fetched.append(value or "")
            elif name == "href":
                (self.fetched if tag == "link" else self.links).append(value or "")
            assert not name.startswith("on"), name


def page_of(paths: Paths) -> tuple[str, References]:
    """The page, which must need nothing but itself."""
    text = (paths.root / "reports/index.html").read_text(encoding="utf-8")
    found = References()
    found.feed(text)
    assert all(reference.startswith("data:") for reference in found.fetched)
    assert "script" not in found.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)", text)
    return text, found


def put(paths: Paths, stage: str, name: str, content: Any) -> None:
    """A stage's report."""
    target = paths.report(stage, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content), encoding="utf-8")


def figure(value: float | None, unit: str = "", **more: Any) -> dict[str, Any]:
    """One metric of a style evaluation."""
    return {"value": value, "std": None, "num_pictures": 9, "unit": unit, "better": "lower", "absent": None, **more}


def style_evaluation(**changes: Any) -> dict[str, Any]:
    """The report of a style evaluation whose model passes."""
    gone = "put the file of Inception's weights into weights/"
    made = {
        "fid/effnet-lite0": figure(4.321, "squared distance of features"),
        "kid/effnet-lite0": figure(0.0412, "squared discrepancy of features", std=0.0031),
        "is/effnet-lite0": figure(3.5, "1 to the number of classes", std=0.4, better="higher"),
        "content/effnet-lite0": figure(0.52, "of the distance of different photos"),
        "detail": figure(0.91, "of the photos' own", better="higher"),
        "fid/inception": figure(None, absent=gone),
        "kid/inception": figure(None, absent=gone),
    }
    values = {"fid": 6.5, "kid": 0.0655, "is": 4.1, "content": 0.0, "detail": 1.0}
    verdict = {
        "passed": True,
        "nearer": True,
        "keeps_content": True,
        "keeps_detail": True,
        "kid_made": 0.0412,
        "kid_untouched": 0.0655,
        "gain": 0.0243,
        "gain_share": 0.371,
        "gain_std": 0.004,
        "gain_deviations": 6.08,
        "content": 0.52,
        "content_ceiling": 0.8,
        "detail": 0.91,
        "detail_floor": 0.4,
    }
    report = {
        "experiment": "ink",
        "preset": "lwcomicgan",
        "dataset": "photos",
        "style_dataset": "paintings",
        "seed": 0,
        "metric": "kid/effnet-lite0",
        "split_rule": "source",
        "made": made,
        "untouched": {
            name: {**entry, "value": None if entry["absent"] else values[name.split("/")[0]]}
            for name, entry in made.items()
        },
        "verdict": verdict,
        "num_photos": 9,
        "squares": 1,
        "num_style_pictures": 15,
        "size_px": 64,
        "judges": [{"name": "effnet-lite0", "what": "EfficientNet-lite0 at 224 px", "sha256": {"a.pth": "ab" * 32}}],
        "failures": [],
        "step": 600,
        "images_seen": 4800,
        "weights_sha256": "12" * 32,
        "data_sha256": "34" * 32,
        "style_data_sha256": "56" * 32,
        "device": "cpu",
        "seconds": 21.5,
        "strips": ["strip-0.png"],
    }
    return {**report, **changes}


def style_losses(num_steps: int = 60) -> str:
    """The loss table of a style training with a warm-up, a critic, and validations."""
    rng = np.random.default_rng(0)
    names = ("warm_up/content", "generator/content", "generator/gan", "critic/gan", "critic/wasserstein")
    names += ("penalty/penalty", "penalty/slope")
    rows = [",".join(["step", "loss/total", *(f"loss/{n}" for n in names), "validation/kid", "validation/photo_kid"])]
    warm = num_steps // 10
    for step in range(1, num_steps + 1):
        gap, noise = 0.3 + step / num_steps, rng.uniform(0.8, 1.2, 4)
        own = [4 * np.exp(-step / warm)] if step <= warm else [""]
        terms = [2 * noise[0], 350 * (gap - 0.8) * noise[1], -350 * gap * noise[2], gap * noise[2]]
        own += [*terms, 35 * noise[3], 0.01 * noise[3]] if step > warm else [""] * 6
        judged = [0.08 - 0.04 * step / num_steps, 0.0655] if step % 10 == 0 else ["", ""]
        total = sum(value for value in own if value != "")
        rows.append(",".join(str(value) for value in [step, total, *own, *judged]))
    return "\n".join(rows) + "\n"


def fill_style(paths: Paths, name: str, photos: Sequence[np.ndarray], drawings: Sequence[np.ndarray]) -> None:
    """Reports and pictures of a style experiment whose photos, uint8 (H, W, 3), are all of one size."""
    trained = {"steps": 600, "images_seen": 4800, "seconds": 92.0, "step_s": 0.14, "samples_per_s": 57.0}
    trained |= {"preset": "lwcomicgan", "dataset": "photos", "style_dataset": "paintings", "run_name": f"{name}-0a1b"}
    put(paths, "train", name, {**trained, "validation": {"validation/kid": 0.0431, "validation/photo_kid": 0.0655}})
    paths.report("train", name).with_name(f"{name}-losses.csv").write_text(style_losses())
    put(paths, "evaluate", name, style_evaluation())
    folder = paths.pictures("evaluate", name)
    folder.mkdir(parents=True)
    rows = {"photo": np.stack(photos), "drawing": np.stack(drawings), "some style picture": np.stack(drawings[::-1])}
    strips.write_strip(folder / "strip-0.png", rows, cell_px=144)
    (folder / "distances.png").write_bytes(plots.video_bars([("kid", 0.6, 1.0)]))
    decision = {"name": name, "version": 1, "aliases": ["champion"], "decision": "promoted: no champion stood before."}
    put(paths, "register", name, {**decision, "onnx_bytes": 11_200_000})


def fill_stylisation(paths: Paths, name: str, photo: np.ndarray, drawing: np.ndarray, **changes: Any) -> None:
    """The report and pictures of a stylisation."""
    folder = paths.pictures("stylise", name)
    folder.mkdir(parents=True)
    Image.fromarray(photo).save(folder / "photo.png")
    Image.fromarray(drawing).save(folder / "drawing.png")
    Image.fromarray(np.concatenate([photo, drawing], axis=1)).save(folder / "strip.png")
    height, width = photo.shape[:2]
    facts = {"source": f"samples/photos/{name}.jpg", "kind": "photo", "model": "models:/ink/1", "strength": 1.0}
    facts |= {"temporal": False, "width": width, "height": height, "num_frames": 1, "fps": None, "seconds": 0.4}
    put(paths, "stylise", name, {**facts, "note": "", **changes})
