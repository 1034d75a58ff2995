"""The register stage: ONNX export, a check against torch, a model version with its lineage and card, promotion."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.catalog import MODELS
from models.errors import CheckpointError, must
from models.families import Family
from models.motion.config import MotionConfig
from models.perceptual import VGG19_FILE, lite0_file
from pipelines.carried import FAMILY_TAG
from pipelines.engines import from_checkpoint
from pipelines.lineage import data_tags, git_tags
from pipelines.modelcard import model_card
from pipelines.params import Params
from pipelines.registry import SERVED_TAG, Parcel, Store, Version, find, promote, register, served_as, store_of
from pipelines.served.motion import MotionSession
from pipelines.sources import licences
from pipelines.stage import Paths, only_writer, write_report
from pipelines.style_variants import Variant
from training.checkpoint import file_sha256, read_info
from training.config import TrainConfig
from training.feed import ShardReader
from training.tracking.jsonl import RECORDS_NAME
from training.tracking.mlflow import deliver, run_of

if TYPE_CHECKING:
    from pipelines.register_system import SystemReport

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference of a pixel, in [0, 1], that ONNX may have from torch."""
CHECKED_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An exported model."""

    onnx: Path
    difference: float
    """Largest difference of a pixel, in [0, 1], to torch on test frames."""
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterReport:
    """What the stage did; reports/register/<name>.json."""

    name: str
    version: int
    uri: str
    aliases: tuple[str, ...]
    promoted: bool
    decision: str
    """Why champion followed, or did not."""
    run_id: str | None
    onnx_bytes: int
    onnx_difference: float
    """Largest difference of a pixel between ONNX Runtime and torch on test frames."""
    variants: tuple[Variant, ...]
    """Reduced graphs beside it."""
    weights_sha256: str
    metric: float
    metric_data: str
    seconds: float


def run(name: str, params: Params, paths: Paths) -> RegisterReport | SystemReport:
    """Register an experiment's trained and evaluated model as a version under the experiment's name.

    Raises:
        CheckpointError: there is no trained model, or ONNX disagrees with torch.
        TrackingError: the store is away or refuses.
    """
    if name in params.all_dualstyles:
        from pipelines import register_dualstyle

        return register_dualstyle.run(name, params, paths)
    if name in params.systems:
        from pipelines import register_system

        return register_system.run(name, params, paths)
    started_s = time.monotonic()
    store = store_of(params, paths)
    with only_writer(paths.report("register", name)), tempfile.TemporaryDirectory() as scratch:
        experiment, opset = params.experiment(name), params.registration.onnx_opset
        family, info = MODELS[experiment.preset].family, read_info(paths.trained(name))
        judged = evaluation_of(name, paths, info.sha256)
        reader = ShardReader(paths.shards(experiment.dataset))
        graph = _exporter(family)(paths.trained(name), reader, Path(scratch), opset)
        if not graph.difference <= TOLERANCE:
            rule = f"agree with torch to {TOLERANCE}"
            raise CheckpointError(must(str(graph.onnx), rule, graph.difference, "Report this fault"))
        tags = tags_of(name, params, paths, info=info, judged=judged) | _variant_tags(graph)
        tags |= {FAMILY_TAG: family, SERVED_TAG: served_as(opset, family)}
        card = model_card(name, tags=tags, evaluation=judged)
        parcel = Parcel(
            name=name,
            run_id=run_id_of(name, paths, store),
            onnx=graph.onnx,
            checkpoint=paths.trained(name),
            card=card,
            tags=tags,
            size_px=info.model.size_px,
            family=family,
            variants={variant.name: variant.path for variant in graph.variants},
        )
        version = register(parcel, store)
        promoted, sentence = False, "promotion is switched off (registration.promote)"
        if params.registration.promote:
            decision = promote(name, params, paths)
            promoted, sentence = decision.promoted, decision.sentence
        version = find(version.uri, store)
        report = report_of(version, (promoted, sentence), graph, time.monotonic() - started_s)
        write_report(paths.report("register", name), report)
    log.info("registered %s: %s", version.uri, sentence)
    return report


def _exporter(family: Family) -> Callable[[Path, ShardReader, Path, int], Graph]:
    if family == "style":
        from pipelines.register_style import export

        return export
    return _motion_graph


def _motion_graph(trained: Path, reader: ShardReader, folder: Path, opset: int) -> Graph:
    from models.export import export_motion

    engine, info = from_checkpoint(trained, device="cpu")
    assert isinstance(info.model, MotionConfig), "a motion preset has motion networks"
    onnx = folder / "motion.onnx"
    export_motion(engine.networks, info.model, onnx, opset=opset)
    return Graph(onnx=onnx, difference=compare(engine, MotionSession(onnx), _test_frames(reader)))


def compare(engine: Any, session: MotionSession, frames: np.ndarray) -> float:
    """Largest difference of a pixel between two engines that move the first frame to each frame's keypoints."""
    wanted = engine.render(frames[0], engine.keypoints(frames))
    got = session.render(frames[0], session.keypoints(frames))
    return float(np.abs(wanted - got).max())


def _test_frames(reader: ShardReader) -> np.ndarray:
    clip = (reader.clips("test") or reader.clips())[0]
    positions = np.linspace(0, clip.num_frames - 1, CHECKED_FRAMES).round().astype(int)
    return reader.frames(clip, positions.tolist())


def evaluation_of(name: str, paths: Paths, weights_sha256: str) -> dict[str, Any]:
    """The evaluate stage's report on the very weights at hand.

    Raises:
        CheckpointError: there is none, or it judges others.
    """
    path = paths.report("evaluate", name)
    try:
        judged: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        fix = f"Run inkmotion evaluate {name} first"
        raise CheckpointError(must(str(path), "be there, because a version carries its figures", "none", fix)) from None
    except ValueError as error:
        fix = f"Run inkmotion evaluate {name} again"
        raise CheckpointError(must(str(path), "be JSON", str(error), fix)) from None
    if judged.get("weights_sha256") != weights_sha256:
        fix = f"Run inkmotion evaluate {name} again"
        raise CheckpointError(must(str(path), "judge the model at hand", "another model's figures", fix))
    return judged


def run_id_of(name: str, paths: Paths, store: Store) -> str | None:
    """The training's run in the store, where what waits of its record is sent first; None when there is no record.

    A store that was emptied since gets the run anew.
    """
    try:
        trained = json.loads(paths.report("train", name).read_text(encoding="utf-8"))
        folder = Path(trained["run_folder"])
    except (OSError, ValueError, KeyError):
        return None
    if not (folder / RECORDS_NAME).is_file():
        return None  # a folder behind a URL, or one that was cleaned away
    deliver(folder, store.uri, timeout_s=store.timeout_s, verify=True)
    return run_of(folder, store.uri)


def tags_of(name: str, params: Params, paths: Paths, *, info: Any, judged: dict[str, Any]) -> dict[str, str]:
    """A version's lineage: code, data, settings, figures, checksums, licences."""
    experiment = params.experiment(name)
    folders = [paths.shards(dataset) for dataset in experiment.datasets]
    return {
        **git_tags(paths.root),
        **data_tags(paths.root, *folders, paths.trained(name)),
        **_pretrained(info.train),
        "weights.sha256": info.sha256,
        "data.index_sha256": info.data,
        "data.dataset": experiment.dataset,
        **({"data.style_dataset": experiment.style_dataset} if experiment.style_dataset else {}),
        "data.split_rule": judged["split_rule"],
        "data.licences": "; ".join(licences(params.dataset(one), paths.root) for one in experiment.datasets),
        "profile": params.profile,
        "preset": info.preset,
        "training.step": str(info.step),
        "training.images_seen": str(info.images_seen),
        "config.model": json.dumps(asdict(info.model)),
        "config.train": json.dumps(asdict(info.train)),
        **_metric_tags(judged),
    }


def _metric_tags(judged: Mapping[str, Any]) -> dict[str, str]:
    """The figure that versions are compared by, and that of doing nothing."""
    name = judged["metric"]
    if "test" in judged:
        value, nothing, data = judged["test"]["l1"], judged["test"]["copy_source_l1"], _judged_on(judged)
        idle = "metric.copy_source"
    else:
        value, nothing = judged["made"][name]["value"], judged["untouched"][name]["value"]
        idle, data = "metric.untouched", _drawn_on(judged)
    return {
        "metric.name": name,
        "metric.better": "lower",
        "metric.value": repr(value),
        idle: repr(nothing),
        "metric.data": data,
    }


def _variant_tags(graph: Graph) -> dict[str, str]:
    tags = {}
    for variant in graph.variants:
        tags[f"variant.{variant.name}.bytes"] = str(variant.num_bytes)
        tags[f"variant.{variant.name}.difference"] = repr(variant.mean_difference)
    return tags


def _drawn_on(judged: Mapping[str, Any]) -> str:
    sets = f"{judged['data_sha256'][:16]} and {judged['style_data_sha256'][:16]}, {judged['split_rule']} split"
    counts = f"{judged['num_photos']} photos, {judged['num_style_pictures']} style pictures"
    return f"{sets}, {counts}, {judged['size_px']} px"


def _judged_on(judged: Mapping[str, Any]) -> str:
    """Everything that makes two figures comparable: shards, split, frames of each clip, size."""
    frames = f"first {judged['max_frames']} frames" if judged["max_frames"] else "all frames"
    return f"{judged['data_sha256'][:16]}, {judged['split_rule']} split, test, {frames}, {judged['size_px']} px"


def _pretrained(train: TrainConfig) -> dict[str, str]:
    """Checksums of the pretrained files that the training has used."""
    if not train.needs_backbone():
        return {}
    own = Path(train.perceptual_weights) if train.perceptual_weights else VGG19_FILE
    path = lite0_file() if train.perceptual_backbone == "effnet-lite0" else own
    return {f"pretrained.{train.perceptual_backbone}.sha256": file_sha256(Path(path)) if Path(path).is_file() else "?"}


def report_of(version: Version, decided: tuple[bool, str], graph: Graph, seconds: float) -> RegisterReport:
    """The stage's report on a version."""
    return RegisterReport(
        name=version.name,
        version=version.version,
        uri=version.uri,
        aliases=version.aliases,
        promoted=decided[0],
        decision=decided[1],
        run_id=version.run_id,
        onnx_bytes=graph.onnx.stat().st_size,
        onnx_difference=graph.difference,
        variants=tuple(replace(variant, path=Path(variant.path.name)) for variant in graph.variants),
        weights_sha256=version.tags["weights.sha256"],
        metric=float(version.tags["metric.value"]),
        metric_data=version.tags["metric.data"],
        seconds=round(seconds, 3),
    )
