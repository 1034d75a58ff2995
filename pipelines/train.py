"""Trains an experiment: finds its run and goes on with it, exports the final model, reports."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from models.catalog import MODELS
from models.contracts import INDEX_NAME
from models.errors import CheckpointError, TrackingError, TrainingError, must
from models.families import NetworkConfig
from models.motion.config import MotionConfig
from models.perceptual import VGG19_FILE
from pipelines.lineage import data_tags, git_tags
from pipelines.params import ClusterConfig, ExperimentConfig, Params
from pipelines.settings import params_sha256
from pipelines.shipping import ship
from pipelines.stage import Paths, fresh_folder, only_writer, write_report, write_text
from pipelines.train_display import display
from pipelines.train_report import Backend, Made, TrainReport, losses_csv, make_report
from pipelines.train_stages import in_steps, second_job
from training.checkpoint import MANIFEST, CheckpointInfo, export_weights, file_sha256, read_info
from training.config import MotionTrainConfig, TrainConfig
from training.feed import ShardReader
from training.job import TrainJob, TrainResult
from training.material import material_sha256
from training.runfolder import RECORDS, SUMMARY, RunFolder, is_url
from training.tracking.jsonl import read_metrics

log = logging.getLogger(__name__)

OPERATIONAL = frozenset(
    {
        "num_workers",
        "num_threads",
        "use_gpu",
        "deterministic",
        "log_every_steps",
        "checkpoint_every_steps",
        "keep_last",
        "export",
        "picture_every_steps",
        "max_failures",
        "feed_threads",
        "prefetch_batches",
        "compile",
        "channels_last",
        "fused_optimizer",
    }
)
"""Keys of a training that change how it runs and what is kept of it and not, but for rounding, what it learns."""
HASH_LETTERS = 8


def run(
    name: str,
    params: Params,
    paths: Paths,
    *,
    backend: Backend | Literal["auto"] = "ray",
    resume: str | None = None,
    fresh: bool = False,
    init_from: str | None = None,
) -> TrainReport:
    """Train an experiment, or go on with its unfinished run.

    A run is named by the experiment and a hash of all that changes its result. The same settings find the same run: it
    goes on where it was killed or stopped, and when it is finished it is only exported again.

    Args:
        name: of the experiment.
        params: of the project.
        paths: of the project.
        backend: ``ray``, or ``local`` for this process alone (or several under torchrun); ``auto``: see `chosen`.
        resume: go on with this run (a name, a folder or a URL), although the settings may have changed.
        fresh: remove the run and start anew.
        init_from: fine-tune this model version or checkpoint, with its own networks; the experiment gives the data and
            how to train.

    Raises:
        InkmotionError: the training can't start or go on, or was stopped before its end.
    """
    if backend == "auto":
        backend = chosen(params.experiment(name).train, params.cluster)
    shards = [paths.shards(dataset) for dataset in params.experiment(name).datasets]
    reader = ShardReader(shards[0])
    experiment = in_steps(params.experiment(name), reader)
    initial = _initial(init_from or experiment.train.init_from, params, paths)
    if init_from is not None:
        experiment = _tuned(experiment, init_from, initial)
    data_sha256 = material_sha256(shards)
    parts = parts_of(experiment, params, paths)
    run_name = resume or f"{name}-{run_hash(experiment, data_sha256, initial, parts)}"
    location = _location(run_name, params, paths, must_exist=resume is not None)
    job = _job(name, experiment, params, paths, data_sha256=data_sha256, location=location, initial=initial)
    job = dataclasses.replace(job, parts=parts)
    writes = backend == "ray" or int(os.environ.get("RANK", "0")) == 0  # under torchrun every rank gets here
    with _locked(paths.trained(name), location) if writes else contextlib.nullcontext():
        made = _stage(job, params, backend, fresh=fresh, writes=writes)
        second = second_job(job, RunFolder(location).place(made.result.steps), reader)
        after = None if second is None else _stage(second, params, backend, fresh=fresh, writes=writes)
        if writes:
            made = dataclasses.replace(made, info=_export(made, after, paths.trained(name)))
        split_rule = reader.index.split_rule
        report = make_report(made, after, dataset=experiment.dataset, split_rule=split_rule, backend=backend)
        if writes:
            write_text(paths.report("train", name).with_name(f"{name}-losses.csv"), losses_csv(made.curves))
            write_report(paths.report("train", name), report)
    return report


def chosen(train: TrainConfig, cluster: ClusterConfig) -> Backend:
    """``local`` for a training that is set to one worker, on this machine, which Ray would only start; else ``ray``.

    Ray takes some 20 s to begin, gives the same weights to the bit, and replaces workers that are lost; a training in
    the stage's own process goes on where it was when the stage is run again.
    """
    alone = train.num_workers == 1 and cluster.address is None and cluster.storage_path is None
    return "local" if alone else "ray"


def _stage(job: TrainJob, params: Params, backend: Backend, *, fresh: bool, writes: bool) -> Made:
    """Train one stage to its end, unless that is done already, and gather what was recorded."""
    if fresh and writes:
        _remove(job.run_folder)
    with contextlib.closing(RunFolder(job.run_folder)) as folder:
        result = None if fresh else _finished(folder, job.train.max_steps)
        if result is None:
            _check_model(folder, job)
            result = _train(job, params, backend)
        else:
            log.info("run %s is finished: its model is exported again", job.run_name)
        info = read_info(folder.checkpoint(result.steps))
        if not writes:
            return Made(job=job, result=result, info=info, curves=[], mlflow_run_id=None)
        folder.fetch(RECORDS)
        run_id = _deliver(folder, job)
        return Made(job=job, result=result, info=info, curves=read_metrics(folder.local), mlflow_run_id=run_id)


def _export(made: Made, after: Made | None, target: Path) -> CheckpointInfo:
    """The final model, or the best one: of the second stage where there was one."""
    last, first = (made, None) if after is None else (after, made.info)
    step = last.result.best_step if last.job.train.export == "best" else last.result.steps
    with contextlib.closing(RunFolder(last.job.run_folder)) as folder, fresh_folder(target) as making:
        return export_weights(folder.checkpoint(step), making, first=first)


def run_hash(
    experiment: ExperimentConfig, data_sha256: str, initial: str | None = None, parts: Mapping[str, str] | None = None
) -> str:
    """Of everything that changes a training's result.

    Args:
        experiment: in steps.
        data_sha256: of the shards' indices.
        initial: folder or URL of the checkpoint that it starts from; an alias may name another one tomorrow.
        parts: what it takes in -> folder or URL.
    """
    train = {key: value for key, value in asdict(experiment.train).items() if key not in OPERATIONAL}
    train.pop("avd", None)  # a run of its own, which goes on from this one
    facts = {"preset": experiment.preset, "model": asdict(experiment.model), "train": train, "data": data_sha256}
    if initial is not None and not is_url(initial):
        facts["initial"] = read_info(Path(initial)).sha256
    if parts:
        facts["parts"] = {part: _content(place) for part, place in parts.items()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:HASH_LETTERS]


def parts_of(experiment: ExperimentConfig, params: Params, paths: Paths) -> dict[str, str]:
    """What an experiment takes in from others, by paths that hold on every node.

    Raises:
        CheckpointError: a part has not been made.
    """
    made = {}
    for part, name in experiment.parts.items():
        folder = paths.codes(name) if part == "codes" else paths.trained(name)
        if not (folder / MANIFEST).is_file():
            command = f"inkmotion destylise {name}" if part == "codes" else f"inkmotion train {name}"
            raise CheckpointError(
                must(str(folder), f"hold the {part} that this training takes in", "none", f"Run {command} first")
            )
        short = file_sha256(folder / MANIFEST)[:16]
        made[part] = ship(folder, params.cluster.storage_path, kind="parts", name=f"{name}-{short}", last=MANIFEST)
    return made


def _content(place: str) -> str:
    return place if is_url(place) else file_sha256(Path(place) / MANIFEST)


def _location(run_name: str, params: Params, paths: Paths, *, must_exist: bool) -> str:
    storage = params.cluster.storage_path
    if "/" in run_name or is_url(run_name):
        location = run_name if is_url(run_name) else str(Path(run_name).resolve())
    elif storage is not None:
        location = f"{storage if is_url(storage) else str(Path(storage).resolve())}/{run_name}".replace("file://", "")
    else:
        location = str(paths.run(run_name).resolve())
    if must_exist and not RunFolder(location).steps():
        fix = "Name a run in runs/, or leave --resume out: an unfinished run is found by itself"
        raise CheckpointError(must(f"--resume {run_name}", "name a run with a checkpoint", location, fix))
    return location


@contextlib.contextmanager
def _locked(target: Path, location: str) -> Iterator[None]:
    """Be the only writer of the export, and of the run: two stages may export to different places and share a run."""
    with only_writer(target), contextlib.nullcontext() if is_url(location) else only_writer(Path(location)):
        yield


def _remove(location: str) -> None:
    if is_url(location):
        import fsspec

        system, root = fsspec.core.url_to_fs(location)
        with contextlib.suppress(FileNotFoundError):
            system.rm(root, recursive=True)
    else:
        shutil.rmtree(location, ignore_errors=True)


def _finished(folder: RunFolder, max_steps: int) -> TrainResult | None:
    """What a finished run came to, or None; one that is asked for more steps is not finished."""
    summary = folder.read_json(SUMMARY)
    if not isinstance(summary, dict) or not summary.get("done"):
        return None
    try:
        result = TrainResult(**summary["result"])
    except (TypeError, KeyError):
        return None
    enough = result.steps >= max_steps or result.stopped_early
    return result if enough and result.steps in folder.steps() else None


def _job(
    name: str,
    experiment: ExperimentConfig,
    params: Params,
    paths: Paths,
    *,
    data_sha256: str,
    location: str,
    initial: str | None,
) -> TrainJob:
    storage, spec = params.cluster.storage_path, MODELS[experiment.preset]
    shards = [_shipped(paths.shards(dataset), storage) for dataset in experiment.datasets]
    return TrainJob(
        experiment=name,
        run_name=location.rstrip("/").rpartition("/")[2],
        preset=experiment.preset,
        recipe=spec.recipe,
        build=spec.build,
        model=experiment.model,
        train=_with_weights(experiment.train, paths, storage),
        shards=shards[0],
        style_shards=shards[1] if len(shards) > 1 else None,
        run_folder=location,
        init_weights=initial,
        tags=_tags(experiment, paths, data_sha256),
        tracking_uri=_tracking_uri(params, paths),
        tracking_timeout_s=params.tracking.timeout_s,
    )


def _shipped(shards: Path, storage: str | None) -> str:
    name = f"{shards.name}-{file_sha256(shards / INDEX_NAME)[:HASH_LETTERS]}"
    return ship(shards, storage, kind="shards", name=name, last=INDEX_NAME)


def _with_weights(train: TrainConfig, paths: Paths, storage: str | None) -> TrainConfig:
    """The backbone's file by a path that holds on every node; with storage behind a URL each node needs its own."""
    if train.perceptual_backbone != "vgg19" or not train.needs_backbone():
        return train
    path = Path(train.perceptual_weights) if train.perceptual_weights else paths.weights / VGG19_FILE.name
    place = str(path.resolve())
    if storage is not None and path.is_file() and not is_url(storage):
        name = f"{path.stem}-{file_sha256(path)[:HASH_LETTERS]}{path.suffix}"
        copy = Path(storage).resolve() / "weights" / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy.with_suffix(".part"))
            copy.with_suffix(".part").rename(copy)
        place = str(copy)
    return dataclasses.replace(train, perceptual_weights=place)


def _initial(init_from: str | None, params: Params, paths: Paths) -> str | None:
    """The checkpoint to fine-tune from, by a path that holds on every node."""
    if init_from is None:
        return None
    if init_from.startswith("models:"):
        from pipelines.registry import checkpoint_of, store_of

        local = checkpoint_of(init_from, store_of(params, paths))
    elif is_url(init_from):
        return init_from
    else:
        local = Path(init_from)
    return ship(
        local, params.cluster.storage_path, kind="checkpoints", name=read_info(local).sha256[:16], last=MANIFEST
    )


def _tuned(experiment: ExperimentConfig, init_from: str, initial: str | None) -> ExperimentConfig:
    """The experiment with the networks of a checkpoint, at the experiment's size of frames.

    Keypoints and dense motion keep the size in pixels at which the checkpoint computes them. A discriminator is the
    experiment's own where its losses want one and the checkpoint has none.
    """
    if initial is None or is_url(initial):
        fix = "Copy it here first, or set init_from and the model's options in params.yaml"
        raise CheckpointError(must("--init-from", "be a model version or a folder on this machine", init_from, fix))
    info, train = read_info(Path(initial)), dataclasses.replace(experiment.train, init_from=init_from)
    family = MODELS[experiment.preset].family
    if MODELS[info.preset].family != family:
        fix = f"Name a model of the {family} family"
        raise CheckpointError(must("--init-from", f"fit {experiment.preset}", info.preset, fix))
    model = _at_size(info.model, experiment.model)
    model = _with_discriminator(model, experiment)
    return dataclasses.replace(experiment, preset=info.preset, model=model, train=train)


def _at_size(model: NetworkConfig, own: NetworkConfig) -> NetworkConfig:
    """A checkpoint's networks for the experiment's size of frames."""
    if model.size_px == own.size_px or not isinstance(model, MotionConfig):
        return dataclasses.replace(model, size_px=own.size_px)
    scale = min(1.0, model.scaled_px / own.size_px)
    return dataclasses.replace(model, size_px=own.size_px, scale_factor=scale)


def _with_discriminator(model: NetworkConfig, experiment: ExperimentConfig) -> NetworkConfig:
    """A motion model's networks with the discriminator that the experiment's losses want."""
    own, train = experiment.model, experiment.train
    if not (isinstance(model, MotionConfig) and isinstance(own, MotionConfig) and isinstance(train, MotionTrainConfig)):
        return model
    if train.losses.gan == "none" or model.discriminator:
        return model
    wanted = {name: getattr(own, name) for name in model.__dataclass_fields__ if name.startswith("discriminator")}
    return dataclasses.replace(model, **wanted)


def _check_model(folder: RunFolder, job: TrainJob) -> None:
    """A run goes on with the networks that it began with."""
    steps = folder.steps()
    if not steps:
        return
    info = read_info(folder.checkpoint(steps[-1]))
    if (info.preset, info.model) != (job.preset, job.model):
        fix = "Use the settings it was started with, or leave --resume out to start another run"
        raise CheckpointError(must(job.run_folder, "hold the networks that params.yaml describes", "others", fix))
    data = job.tags["data.index_sha256"]
    if info.data != data:
        log.warning("the run began on other shards (%s) than these (%s)", info.data[:12], data[:12])


def _train(job: TrainJob, params: Params, backend: Backend) -> TrainResult:
    with display(job) as show:
        if backend == "local":
            from training.backends import local

            result = local.fit(job, show=show)
        else:
            from pipelines.session import ray_session
            from training.backends import ray_train

            with ray_session(params.cluster):
                result = ray_train.fit(job, show=show)
    if result.interrupted:
        got = f"a stop after step {result.steps} of {job.train.max_steps}"
        fix = "A checkpoint is written: run the same command to go on"
        raise TrainingError(must("the training", "reach its last step to be exported", got, fix))
    return result


def _tags(experiment: ExperimentConfig, paths: Paths, data_sha256: str) -> dict[str, str]:
    return {
        **git_tags(paths.root),
        **data_tags(paths.root, *map(paths.shards, experiment.datasets)),
        "dataset": experiment.dataset,
        **({"style_dataset": experiment.style_dataset} if experiment.style_dataset else {}),
        "data.index_sha256": data_sha256,
        "params_sha256": params_sha256(experiment),
    }


def _tracking_uri(params: Params, paths: Paths) -> str:
    from pipelines.registry import default_uri

    return str(default_uri(params, paths))


def _deliver(folder: RunFolder, job: TrainJob) -> str | None:
    """Send what the training could not; the id of the run in the tracking store, as far as it is known."""
    from training.tracking.mlflow import deliver, run_of

    uri = job.tracking_uri
    if uri is None:
        return None
    try:
        deliver(folder.local, uri, timeout_s=job.tracking_timeout_s)
    except TrackingError as error:
        log.warning("%s What was recorded waits in %s; `inkmotion tracking flush` sends it.", error, folder.location)
    folder.publish(RECORDS)
    return run_of(folder.local, uri)
