"""Published checkpoints in, as model versions, and checkpoints out in the published layout."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from models.errors import CheckpointError, ParamsError, Problem, must
from models.importers.inspect import Imported, inspect
from models.importers.layout import LAYOUTS, Kind
from models.importers.moments import state_of
from models.importers.options import Assumptions
from models.importers.report import ImportReport
from models.motion.config import MotionConfig
from models.style.face_config import FaceConfig
from pipelines.params import Params
from pipelines.stage import Paths, fresh_folder, only_writer, write_report, write_text
from training.checkpoint import CheckpointInfo, load_networks, write_checkpoint
from training.config import MotionTrainConfig

log = logging.getLogger(__name__)

CARD = Path(__file__).parent / "templates" / "imported_card.md.j2"
EPOCH = "imported/epoch"
"""Name of the published epoch among a checkpoint's metrics."""
LICENCE = "see where it was published"
MAX_SETTINGS_BYTES = 2**20
_OPSET = 20
_CHECKED_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedReport:
    """What an import did; reports/import/<name>.json."""

    name: str
    uri: str
    """The model version."""
    folder: str
    """The checkpoint, as `--checkpoint` and `init_from` take it."""
    weights_sha256: str
    onnx_difference: float
    """Largest difference of a pixel between ONNX Runtime and torch on made-up frames."""
    experiment: dict[str, Any]
    """An experiment that trains on from it."""
    contents: ImportReport
    seconds: float

    def lines(self) -> list[str]:
        """To print."""
        experiment = yaml.safe_dump(self.experiment, default_flow_style=True, width=100, sort_keys=False).strip()
        return [
            *self.contents.lines(),
            "",
            f"registered as {self.uri} (candidate), checkpoint in {self.folder}",
            f"ONNX differs from torch by {self.onnx_difference:.1e}",
            f"fine-tune it: inkmotion train EXPERIMENT --init-from {self.uri}, or with an experiment in params.yaml:",
            *(f"  {line}" for line in experiment.splitlines()),
        ]


def run(
    file: Path,
    kind: Kind,
    params: Params | None,
    paths: Paths,
    *,
    assumptions: Assumptions | None = None,
    name: str | None = None,
) -> ImportedReport:
    """Import a published checkpoint: its weights, Adam's state, the configuration that fits; registered as a version.

    Args:
        file: as it was published.
        kind: of the checkpoint.
        params: of the project; None outside of one.
        paths: where the checkpoint's folder goes (data/imported/<name>).
        assumptions: what its tensors can't tell; see `read_assumptions`.
        name: of the model; None: made of kind and file name.

    Raises:
        CheckpointError: the file is refused, with the reason, and nothing was written; or its graph does not do what it
            does, and the checkpoint's folder is there all the same.
        ParamsError: the name can't be one.
        TrackingError: the store is away or refuses; the checkpoint's folder is there all the same.
    """
    started_s = time.monotonic()
    name = checked_name(name if name is not None else name_of(file, kind))
    imported = inspect(file, kind, assumptions)
    target = paths.root / "data" / "imported" / name
    with only_writer(target):
        info = _write(name, imported, target)
        uri, difference = _register(name, imported, info, target, params, paths)
    report = ImportedReport(
        name=name,
        uri=uri,
        folder=str(target),
        weights_sha256=info.sha256,
        onnx_difference=difference,
        experiment=_experiment(uri, imported),
        contents=imported.report,
        seconds=round(time.monotonic() - started_s, 3),
    )
    write_report(paths.report("import", name), report)
    return report


def read_assumptions(config: Path | None, *, align_corners: bool = False, size_px: int | None = None) -> Assumptions:
    """What the user says about a published checkpoint.

    Args:
        config: the published settings file, YAML.
        align_corners: the convention of every warp.
        size_px: of the frames.

    Raises:
        CheckpointError: the settings file can't be read.
    """
    if config is None:
        return Assumptions(align_corners=align_corners, size_px=size_px)
    try:
        with config.open("rb") as file:
            text = file.read(MAX_SETTINGS_BYTES + 1)
        if len(text) > MAX_SETTINGS_BYTES:
            raise CheckpointError(must(str(config), "be a settings file of at most 1 MiB", "a larger file"))
        settings = yaml.safe_load(text.decode("utf-8"))
    except OSError as error:
        raise CheckpointError(must(str(config), "be readable", error.strerror or str(error))) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        got = " ".join(str(error).split())[:200]
        raise CheckpointError(must(str(config), "be YAML", got, "Give the published config.yaml")) from None
    return Assumptions(settings={} if settings is None else settings, align_corners=align_corners, size_px=size_px)


def export_upstream(
    model: str, file: Path, params: Params | None, paths: Paths, *, kind: Kind | None = None, raw: bool = False
) -> str:
    """Write a model as the published code reads it, with its settings beside (``FILE.yaml``).

    Args:
        model: a model version (models:/...) or a checkpoint's folder.
        file: to write.
        params: of the project; None outside of one.
        paths: where the store is.
        kind: what it must be; None: what it is.
        raw: the weights as they were trained, in place of their moving average.

    Returns:
        A sentence about what was written.

    Raises:
        CheckpointError: the published code can't hold the model, or the file exists.
    """
    from models.importers.upstream import kind_of, to_published, to_settings

    settings = file.with_name(f"{file.name}.yaml")
    for path in (file, settings):
        if path.exists():
            raise CheckpointError(must(str(path), "not exist yet", "a file", "Name another, or remove it"))
    networks, info = load_networks(_folder_of(model, params, paths), ema=not raw)
    config = info.model
    if not isinstance(config, MotionConfig):
        raise CheckpointError(must(model, "be a motion model, for which there is a published layout", info.preset))
    found = kind_of(config)
    if kind not in (None, found):
        raise CheckpointError(must(model, f"be of --kind {kind}", found, f"Leave --kind out, or give {found}"))
    states = {name: network.state_dict() for name, network in networks.items()}
    if config.align_corners:
        log.warning("%s warps by torch 1.2's convention (align_corners): run the published code on torch 1.2", model)
    content = to_published(config, states, epoch=int(info.metrics.get(EPOCH, 0)))
    file.parent.mkdir(parents=True, exist_ok=True)
    _save(content, file)
    write_text(settings, yaml.safe_dump(to_settings(config), sort_keys=False))
    counts = ", ".join(f"{name} ({len(content[name])})" for name in LAYOUTS[found].networks if name in content)
    warps = " Run it with torch 1.2 or older: its warps are of that convention." if config.align_corners else ""
    return f"Wrote {file}: {counts}, and {settings.name}. The optimisers start afresh.{warps}"


def _write(name: str, imported: Imported, target: Path) -> CheckpointInfo:
    report = imported.report
    info = CheckpointInfo(
        step=0,
        images_seen=0,
        preset=imported.preset,
        model=imported.config,
        train=MotionTrainConfig(),
        sha256="",
        metrics={} if report.epoch is None else {EPOCH: float(report.epoch)},
        experiment=name,
    )
    state = state_of(imported.moments, kind=report.kind, epoch=report.epoch)
    with fresh_folder(target) as making:
        return write_checkpoint(making, info, imported.tensors(), state)


def _register(
    name: str, imported: Imported, info: CheckpointInfo, folder: Path, params: Params | None, paths: Paths
) -> tuple[str, float]:
    """The version's URI, and how far ONNX is from torch."""
    from models.export import export_motion
    from pipelines.engines import from_checkpoint
    from pipelines.register import TOLERANCE, compare
    from pipelines.registry import SERVED_TAG, Parcel, register, served_as, store_of
    from pipelines.served.motion import MotionSession

    engine, _ = from_checkpoint(folder, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        onnx = Path(scratch) / "motion.onnx"
        opset = params.registration.onnx_opset if params is not None else _OPSET
        export_motion(imported.networks(), imported.config, onnx, opset=opset)
        difference = compare(engine, MotionSession(onnx), made_up_frames(imported.config))
        if not difference <= TOLERANCE:
            raise CheckpointError(must(str(folder), f"agree with its ONNX graph to {TOLERANCE}", difference))
        tags = {**_tags(imported, info, paths), SERVED_TAG: served_as(opset)}
        card = _card(name, imported, tags)
        parcel = Parcel(
            name=name,
            run_id=None,
            onnx=onnx,
            checkpoint=folder,
            card=card,
            tags=tags,
            size_px=imported.config.size_px,
        )
        version = register(parcel, store_of(params, paths))
    log.info("registered %s", version.uri)
    return version.uri, difference


def made_up_frames(config: MotionConfig | FaceConfig) -> np.ndarray:
    """Frames of a soft spot that wanders over a gradient, uint8, (N, S, S, 3): there are no media to check on."""
    size = config.size_px
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    frames = []
    for at in np.linspace(-0.4, 0.4, _CHECKED_FRAMES):
        spot = np.exp(-((x - at) ** 2 + (y - at / 2) ** 2) / 0.1)
        frames.append(np.stack([0.3 + 0.2 * x + 0.4 * spot, 0.5 + 0.2 * y, 0.5 - 0.2 * x + 0.2 * spot], axis=-1))
    made: np.ndarray = np.clip(np.stack(frames), 0, 1) * 255
    return made.astype(np.uint8)


def _tags(imported: Imported, info: CheckpointInfo, paths: Paths) -> dict[str, str]:
    from pipelines.lineage import git_tags

    report, model = imported.report, json.dumps(asdict(info.model))
    return {
        **git_tags(paths.root),
        "imported.from": report.file,
        "imported.sha256": report.sha256,
        "imported.kind": report.kind,
        "imported.epoch": "not stated" if report.epoch is None else str(report.epoch),
        "imported.settings": hashlib.sha256(model.encode()).hexdigest()[:16],
        "weights.sha256": info.sha256,
        "preset": info.preset,
        "training.step": "0",
        "config.model": model,
        "data.licences": LICENCE,
    }


def _card(name: str, imported: Imported, tags: Mapping[str, str]) -> str:
    template = jinja2.Template(CARD.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    return str(
        template.render(
            name=name,
            tags=tags,
            title=LAYOUTS[imported.report.kind].title,
            size=imported.config.size_px,
            settings=json.dumps(imported.settings()),
        )
    )


def _experiment(uri: str, imported: Imported) -> dict[str, Any]:
    """An entry of ``experiments`` in params.yaml."""
    model = {key: list(value) if isinstance(value, tuple) else value for key, value in imported.settings().items()}
    name = uri.removeprefix("models:/").replace("/", "-")
    settings = {"preset": imported.preset, "dataset": "DATASET", "init_from": uri, "model": model}
    return {f"{name}-tuned": settings}


def name_of(file: Path, kind: str) -> str:
    """A model's name, made of a published file's kind and name."""
    stem = file.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".pt")
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
    return f"{kind}-{plain.strip('-')[:60] or 'model'}"


def checked_name(name: str) -> str:
    """The name, if a model can be called so.

    Raises:
        ParamsError: it can't.
    """
    is_plain = name.isascii() and all(letter.isalnum() or letter in "-_" for letter in name)
    if not is_plain or not 0 < len(name) <= 80 or name.startswith("-"):
        raise ParamsError([Problem("--name", name[:80], "be up to 80 letters, digits, '-' or '_'")])
    return name


def _folder_of(model: str, params: Params | None, paths: Paths) -> Path:
    if not model.startswith("models:"):
        return Path(model)
    from pipelines.registry import checkpoint_of, store_of

    return checkpoint_of(model, store_of(params, paths))


def _save(content: Mapping[str, Any], file: Path) -> None:
    """Write beside, then rename."""
    import torch

    unfinished = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        torch.save(content, unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
