"""The evaluate stage for a DualStyleGAN: cartoons of test faces, and whether its two weights do what they say."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.contracts import INDEX_NAME
from models.errors import ClipError, must
from pipelines.dualstyle_steps import experiment_name
from pipelines.face_engines import FaceEngine, from_checkpoint
from pipelines.params import Params
from pipelines.stage import Paths, only_writer, write_report
from pipelines.strips import as_bytes, write_strip
from training.checkpoint import file_sha256
from training.metrics.features import EffnetLite0
from training.metrics.kernel import kernel_distance
from training.metrics.sets import Spread
from training.shard_reader import ShardReader

log = logging.getLogger(__name__)

KID = "kid/effnet-lite0"
MAX_FACES = 64
SHOWN_FACES, SHOWN_STYLES = 3, 3
_BINS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How far a weight, taken from 0 to 1, moves the pictures."""

    edges: float
    """Mean absolute change of the gradient's size, of its mean size: what structure is."""
    colours: float
    """Mean absolute change of the colour histograms (16 bins a channel), 0 to 2: where colours lie does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DualStyleEvaluateReport:
    """What the stage found; reports/evaluate/<system>.json."""

    experiment: str
    dataset: str
    style_dataset: str
    split_rule: str
    data_sha256: str
    style_data_sha256: str
    weights_sha256: str
    size_px: int
    num_photos: int
    num_style_pictures: int
    metric: str
    made: Mapping[str, Mapping[str, float]]
    """Of the cartoons: the distance (KID) to the style pictures, and its deviation."""
    untouched: Mapping[str, Mapping[str, float]]
    """Of the faces themselves."""
    reconstruction_l1: float
    """Mean absolute difference of test faces and their reconstructions, in [0, 1]."""
    mean_face_l1: float
    """Likewise of the mean of the training's faces, which knows nothing of them."""
    structure: Response
    colour: Response
    holds: Mapping[str, bool]
    """What was wanted, and whether it is so."""
    pictures: tuple[str, ...]
    seconds: float


def run(system: str, params: Params, paths: Paths) -> DualStyleEvaluateReport:
    """Judge a system's trained DualStyleGAN on the test faces, in the styles that were destylised.

    Raises:
        CheckpointError: it has not been trained, or its codes are missing.
        ClipError: there are fewer than two faces to test, or style pictures.
    """
    started_s = time.monotonic()
    settings = params.dualstyle(system)
    with only_writer(paths.report("evaluate", system)):
        trained = paths.trained(experiment_name(system, "target"))
        engine, info = from_checkpoint(trained, paths.refined(system))
        photos, styles = ShardReader(paths.shards(settings.dataset)), ShardReader(paths.shards(settings.style_dataset))
        faces = _pictures(photos, "test", engine.size_px)
        drawn = _pictures(styles, "train", engine.size_px)
        for what, found in ((settings.dataset, faces), (settings.style_dataset, drawn)):
            if len(found) < 2:
                raise ClipError(must(f"data set {what}", "hold two pictures or more to judge by", len(found)))
        made = _in_all_styles(engine, faces)
        structure, colour = _responses(engine, faces)
        mean = _pictures(photos, "train", engine.size_px).mean(axis=0, keepdims=True)
        reconstructed = engine.stylise(faces, engine.styles[0], output="reconstruction")
        kids = {"made": _kid(as_bytes(made), drawn), "untouched": _kid(faces, drawn)}
        drawings = _draw(engine, faces, paths.pictures("evaluate", system))
        report = DualStyleEvaluateReport(
            experiment=system,
            dataset=settings.dataset,
            style_dataset=settings.style_dataset,
            split_rule=photos.index.split_rule,
            data_sha256=file_sha256(paths.shards(settings.dataset) / INDEX_NAME),
            style_data_sha256=file_sha256(paths.shards(settings.style_dataset) / INDEX_NAME),
            weights_sha256=info.sha256,
            size_px=engine.size_px,
            num_photos=len(faces),
            num_style_pictures=len(drawn),
            metric=KID,
            made={KID: _plain(kids["made"])},
            untouched={KID: _plain(kids["untouched"])},
            reconstruction_l1=float(np.abs(reconstructed - faces / 255).mean()),
            mean_face_l1=float(np.abs(mean - faces).mean() / 255),
            structure=structure,
            colour=colour,
            holds=_holds(kids, structure, colour),
            pictures=drawings,
            seconds=round(time.monotonic() - started_s, 3),
        )
        write_report(paths.report("evaluate", system), report)
    return report


def _pictures(reader: ShardReader, split: Any, size_px: int) -> np.ndarray:
    """The first of a split, uint8 (N, P, P, 3)."""
    frames = [reader.frames(clip, (0,))[0] for clip in reader.clips(split)[:MAX_FACES]]
    sized = [cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack(sized) if sized else np.empty((0, size_px, size_px, 3), np.uint8)


def _in_all_styles(engine: FaceEngine, faces: np.ndarray) -> np.ndarray:
    """Each face in the style whose turn it is."""
    turns = [engine.styles[place % len(engine.styles)] for place in range(len(faces))]
    return np.concatenate([engine.stylise(face[None], style) for face, style in zip(faces, turns, strict=True)])


def _responses(engine: FaceEngine, faces: np.ndarray) -> tuple[Response, Response]:
    """Of the structure weight and of the colour weight, each from 0 to 1 beside the other at 0."""
    found = []
    for moved in ({"structure": 1.0, "colour": 0.0}, {"structure": 0.0, "colour": 1.0}):
        pairs = [
            (
                engine.stylise(faces[:16], style, structure=0.0, colour=0.0),
                engine.stylise(faces[:16], style, **moved),
            )
            for style in engine.styles[:: max(1, len(engine.styles) // 4)][:4]
        ]
        before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
        found.append(Response(edges=edge_change(before, after), colours=colour_change(before, after)))
    return found[0], found[1]


def edge_change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute change of the gradient's size, of pictures in [0, 1], (N, H, W, 3), over its mean size before."""
    first, second = (np.stack([_gradient(picture) for picture in part]) for part in (before, after))
    return float(np.abs(second - first).mean() / max(float(first.mean()), 1e-6))


def colour_change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute change of the histograms of the channels of pictures in [0, 1], (N, H, W, 3): 0 to 2."""
    changes = [
        np.abs(_histogram(one[..., channel]) - _histogram(other[..., channel])).sum()
        for one, other in zip(before, after, strict=True)
        for channel in range(3)
    ]
    return float(np.mean(changes))


def _gradient(picture: np.ndarray) -> np.ndarray:
    gray = np.asarray(picture, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))


def _histogram(values: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    return counts / values.size


def _kid(pictures: np.ndarray, drawn: np.ndarray) -> Spread:
    judge = EffnetLite0()
    features = [np.stack([judge.look(picture).features for picture in part]) for part in (pictures, drawn)]
    return kernel_distance(features[0], features[1])


def _plain(spread: Spread) -> dict[str, float]:
    return {"value": spread.mean, "std": spread.std or 0.0}


def _holds(kids: Mapping[str, Spread], structure: Response, colour: Response) -> dict[str, bool]:
    return {
        "cartoons are nearer to the style pictures than the faces are": kids["made"].mean < kids["untouched"].mean,
        "the structure weight moves edges more than colours": structure.edges > structure.colours,
        "the colour weight moves colours more than edges": colour.colours > colour.edges,
        "structure moves edges more than colour does": structure.edges > colour.edges,
        "colour moves colours more than structure does": colour.colours > structure.colours,
    }


def _draw(engine: FaceEngine, faces: np.ndarray, folder: Path) -> tuple[str, ...]:
    """A grid of the paper's four pictures, and one of both weights."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = faces[:: max(1, len(faces) // SHOWN_FACES)][:SHOWN_FACES]
    styles = engine.styles[:: max(1, len(engine.styles) // SHOWN_STYLES)][:SHOWN_STYLES]
    for place, style in enumerate(styles):
        outputs = ("reconstruction", "style", "structure", "structure-off")
        columns = [engine.stylise(shown, style, output=output) for output in outputs]
        rows = {
            f"face {number}": np.stack(
                [faces_part, engine.thumbnail(style), *(as_bytes(column[number]) for column in columns)]
            )
            for number, faces_part in enumerate(shown)
        }
        write_strip(folder / f"style-{place}.png", rows, ["face", style[:16], *outputs])
    steps = (0.0, 0.5, 1.0)
    rows = {
        f"structure {structure:g}": np.concatenate(
            [as_bytes(engine.stylise(shown[:1], styles[-1], structure=structure, colour=colour)) for colour in steps]
        )
        for structure in steps
    }
    write_strip(folder / "weights.png", rows, [f"colour {step:g}" for step in steps])
    return tuple(sorted(path.name for path in folder.glob("*.png")))
