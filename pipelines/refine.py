"""The refine stage: the style pictures' extrinsic codes, fitted to the trained DualStyleGAN; a killed one goes on."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from models.contracts import ShardClip
from models.errors import ClipError, must
from models.perceptual import build_perceptual
from pipelines.dualstyle_steps import experiment_name
from pipelines.face_engines import from_checkpoint
from pipelines.journal import Work, key_of, resumed
from pipelines.params import Params
from pipelines.stage import Paths, only_writer, write_report
from pipelines.style_pictures import PicturesReport, as_picture, draw, figures, find, keep, kept, numerics, read, shown
from training.checkpoint import read_info
from training.codes import STILL_SUFFIX, Codes, CodeTable, code_table, read_codes, write_codes
from training.destylise import Refined, refine
from training.destylise_config import RefineConfig
from training.shard_reader import ShardReader

log = logging.getLogger(__name__)

ROWS = {"codes before": "before", "codes after": "after"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineReport(PicturesReport):
    """What the stage did; reports/refine/<name>.json."""

    distance_before: float
    """In the backbone's features, of the style pictures and what the network draws of their codes with its own noise;
    mean over the pictures."""
    distance_after: float
    """Likewise with the refined codes."""
    nearer: int
    """Pictures whose drawing came nearer."""
    weights_sha256: str
    """Of the DualStyleGAN."""


def run(name: str, params: Params, paths: Paths) -> RefineReport:
    """Refine the extrinsic codes of a system's style pictures (Yang et al., CVPR 2022, supplementary).

    A picture's codes depend on itself, its id, the codes that it had, the settings and the network alone; what is done
    is not done again while these are the same, and a stage that was killed goes on with the next picture. Intrinsic
    codes stay as they are; so do all with 0 steps.

    Args:
        name: of the system, in ``dualstyles``.
        params: of the project.
        paths: of the project.

    Raises:
        CheckpointError: the DualStyleGAN has not been trained, or there are no codes of its size.
        ClipError: the picture of some codes is gone.
        TrainingError: an optimisation has left the numbers.
    """
    started_s = time.monotonic()
    system = params.dualstyle(name)
    config, target, trained = system.refine, paths.refined(name), paths.trained(experiment_name(name, "target"))
    reader, clips = find(system.style_dataset, paths.shards(system.style_dataset))
    table, weights_sha256 = read_codes(paths.codes(name)), read_info(trained).sha256
    pictures = pictures_of(table, clips)
    keys = {
        clip.id: key_of(config, weights_sha256, reader.index.shards[clip.shard].sha256, clip.row, _sha256(table[code]))
        for code, clip in pictures.items()
    }
    with only_writer(target), resumed(target) as work:
        left = {code: clip for code, clip in pictures.items() if work.result(clip.id, keys[clip.id]) is None}
        if left:
            done = _refined(left, reader, (trained, paths.codes(name)), config)
            for number, one in enumerate(done, start=1):
                _keep(one, keys[one.name], work)
                before, after = one.distances
                log.info("refined %s (%d of %d): %.3f away, was %.3f", one.name, number, len(left), after, before)
        work.sweep(clip.id for clip in pictures.values())
        extrinsic = {code: kept(work, clip.id)["extrinsic"] for code, clip in pictures.items()}
        codes = {code: Codes(found, table[code].intrinsic) for code, found in extrinsic.items()}
        about = {**table.about, "refined": asdict(config), "weights_sha256": weights_sha256}
        write_codes(work.folder, code_table(codes, about))
        report = RefineReport(
            name=name,
            style_dataset=system.style_dataset,
            steps=config.steps,
            weights_sha256=weights_sha256,
            **figures(work, len(left), time.monotonic() - started_s),
            **_distances(work),
        )
        draw(shown(list(pictures.values())), reader, work, ROWS, paths.pictures("refine", name))
        write_report(paths.report("refine", name), report)
    return report


def pictures_of(table: CodeTable, clips: Iterable[ShardClip]) -> dict[str, ShardClip]:
    """The style picture of each name in a table of codes; pictures without codes have no part in a training.

    Raises:
        ClipError: some are gone.
    """
    by_id = {clip.id: clip for clip in clips}
    found = {name: by_id.get(name) or by_id.get(f"{name}{STILL_SUFFIX}") for name in table.names}
    gone = [name for name, clip in found.items() if clip is None]
    if gone:
        fix = "Destylise the style pictures again: they have changed since"
        raise ClipError(must("the style pictures", "hold one for all codes", f"none for {', '.join(gone[:5])}", fix))
    return {name: clip for name, clip in found.items() if clip is not None}


def _refined(
    pictures: Mapping[str, ShardClip], reader: ShardReader, files: tuple[Path, Path], config: RefineConfig
) -> Iterator[Refined]:
    device = numerics()
    engine, info = from_checkpoint(*files)
    weights = Path(info.train.perceptual_weights) if info.train.perceptual_weights else None
    perceptual = build_perceptual(info.train.perceptual_backbone, weights)

    def given() -> Iterator[tuple[str, Tensor, Codes]]:
        frames = read(pictures.values(), reader, device)
        for code, (clip_id, picture) in zip(pictures, frames, strict=True):
            yield clip_id, picture, engine.codes[code]

    return refine(given(), engine.generator.to(device), perceptual.to(device), config)


def _keep(one: Refined, key: str, work: Work) -> None:
    tensors = {"extrinsic": one.extrinsic, "before": as_picture(one.before), "after": as_picture(one.after)}
    result = {"begin": dict(one.begin), "end": dict(one.end), "distances": list(one.distances)}
    keep(work, one.name, key, tensors, result)


def _distances(work: Work) -> dict[str, Any]:
    pairs = np.array([result["distances"] for result in work.results()])
    before, after = pairs.mean(axis=0)
    nearer = int((pairs[:, 1] < pairs[:, 0]).sum())
    return {"distance_before": float(before), "distance_after": float(after), "nearer": nearer}


def _sha256(codes: Codes) -> str:
    digest = hashlib.sha256()
    for code in codes:
        digest.update(code.contiguous().numpy().tobytes())
    return digest.hexdigest()
