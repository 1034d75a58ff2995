"""What the register stage makes of a stylising model: its graph, checked against torch, and reduced variants of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.export_style import export_style
from models.style.config import StyleConfig
from pipelines.register import Graph
from pipelines.served.style import StyleSession
from pipelines.style_engines import from_checkpoint
from pipelines.style_variants import variants
from training.shard_reader import ShardReader

CHECKED_PHOTOS = 4
CALIBRATION_PHOTOS = 6


def export(trained: Path, reader: ShardReader, folder: Path, opset: int) -> Graph:
    """Export, compare with torch on test photos, and make the variants with training photos for their ranges.

    Args:
        trained: the exported model's folder.
        reader: of the photos' shards.
        folder: where the files go.
        opset: of ONNX.
    """
    engine, info = from_checkpoint(trained, device="cpu")
    assert isinstance(info.model, StyleConfig), "a style preset has style networks"
    onnx = folder / "style.onnx"
    export_style(engine.generator, info.model, onnx, opset=opset)
    photos = _photos(reader, CHECKED_PHOTOS)
    difference = float(np.abs(engine.stylise(photos) - StyleSession(onnx).stylise(photos)).max())
    made = variants(onnx, folder, _photos(reader, CALIBRATION_PHOTOS, calibration=True))
    reduced = tuple(variant for variant in made if variant.path != onnx)
    return Graph(onnx=onnx, difference=difference, variants=reduced)


def _photos(reader: ShardReader, count: int, *, calibration: bool = False) -> np.ndarray:
    """Photos of the test split, or training ones to calibrate by; uint8 (N, H, W, 3)."""
    clips = (reader.clips("train") if calibration else reader.clips("test")) or reader.clips()
    return np.concatenate([reader.frames(clip, (0,)) for clip in clips[:count]])
