"""The register stage for a DualStyleGAN: two graphs and the styles as one model version."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import numpy as np

from models.errors import CheckpointError, must
from models.export_face import export_faces
from pipelines.carried import FAMILY_TAG
from pipelines.dualstyle_steps import experiment_name
from pipelines.face_engines import TorchFaces, from_checkpoint
from pipelines.modelcard import model_card
from pipelines.params import Params
from pipelines.register import TOLERANCE, Graph, RegisterReport, evaluation_of, report_of, run_id_of, tags_of
from pipelines.registry import SERVED_TAG, STYLES_TAG, Parcel, find, promote, register, served_as, store_of
from pipelines.served.dualstyle import OUTPUTS, FaceSession
from pipelines.stage import Paths, only_writer, write_report
from training.codes import codes_sha256
from training.shard_reader import ShardReader

log = logging.getLogger(__name__)

CHECKED_FACES = 4


def run(system: str, params: Params, paths: Paths) -> RegisterReport:
    """Register a system's trained and evaluated DualStyleGAN under the system's name.

    Raises:
        CheckpointError: it is not trained or evaluated, or ONNX disagrees with torch.
        TrackingError: the store is away or refuses.
    """
    started_s, store, opset = time.monotonic(), store_of(params, paths), params.registration.onnx_opset
    target = experiment_name(system, "target")
    with only_writer(paths.report("register", system)), tempfile.TemporaryDirectory() as scratch:
        engine, info = from_checkpoint(paths.trained(target), paths.refined(system))
        judged = evaluation_of(system, paths, info.sha256)
        networks = {"generator": engine.generator, "encoder": engine.encoder}
        encoder, generator = export_faces(networks, Path(scratch), opset=opset)
        generator = generator.rename(generator.with_name("dualstyle.onnx"))
        styles = write_styles(engine, Path(scratch) / "styles.npz")
        faces = _faces(ShardReader(paths.shards(params.dualstyle(system).dataset)))
        difference = compare(engine, FaceSession(generator, encoder, styles), faces)
        if not difference <= TOLERANCE:
            raise CheckpointError(must(str(generator), f"agree with torch to {TOLERANCE}", difference))
        graph = Graph(onnx=generator, difference=difference)
        tags = tags_of(target, params, paths, info=info, judged=judged)
        tags |= {
            FAMILY_TAG: "dualstyle",
            SERVED_TAG: served_as(opset, "dualstyle"),
            STYLES_TAG: codes_sha256(paths.refined(system)),
            "num_styles": str(len(engine.styles)),
        }
        parcel = Parcel(
            name=system,
            run_id=run_id_of(target, paths, store),
            onnx=generator,
            checkpoint=paths.trained(target),
            card=model_card(system, tags=tags, evaluation=judged),
            tags=tags,
            size_px=engine.size_px,
            family="dualstyle",
            extras={"encoder": encoder, "styles": styles},
        )
        version = register(parcel, store)
        promoted, sentence = False, "promotion is switched off (registration.promote)"
        if params.registration.promote:
            decision = promote(system, params, paths)
            promoted, sentence = decision.promoted, decision.sentence
        version = find(version.uri, store)
        report = report_of(version, (promoted, sentence), graph, time.monotonic() - started_s)
        write_report(paths.report("register", system), report)
    log.info("registered %s: %s", version.uri, sentence)
    return report


def write_styles(engine: TorchFaces, path: Path) -> Path:
    """The styles as `pipelines.served.dualstyle.FaceSession` reads them."""
    np.savez_compressed(
        path,
        names=np.array(engine.styles),
        extrinsic=engine.codes.extrinsic.numpy(),
        thumbnails=np.stack([engine.thumbnail(style) for style in engine.styles]),
        structure_layers=np.array(engine.config.structure_layers),
    )
    return path


def compare(engine: TorchFaces, session: FaceSession, faces: np.ndarray) -> float:
    """Largest difference of a pixel between torch and ONNX, over all four outputs in the first style and the last."""
    styles = (engine.styles[0], engine.styles[-1])
    pairs = [
        (engine.stylise(faces, style, output=output), session.stylise(faces, style, output=output))
        for style in styles
        for output in OUTPUTS
    ]
    return max(float(np.abs(wanted - got).max()) for wanted, got in pairs)


def _faces(reader: ShardReader) -> np.ndarray:
    clips = (reader.clips("test") or reader.clips())[:CHECKED_FACES]
    return np.concatenate([reader.frames(clip, (0,)) for clip in clips])
