"""Training on Ray Train: workers on any nodes of a cluster, replaced when they are lost.

The run folder is the truth. Ray restarts lost workers; they go on from the newest complete checkpoint there. Ray's own
checkpoints are not used, because what was reported to its controller last may be lost with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.errors import InkmotionError, TrainingError, must
from training.config import TrainConfig
from training.job import TrainJob, TrainResult
from training.progress import Progress, Show, show_line
from training.runfolder import PROGRESS, RunFolder, is_url
from training.speed import KEPT_MEMORY

log = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT_S = 600
"""After which a rank gives up waiting for the others."""
START_TIMEOUT_S = 60
"""After which workers count as not to be had."""
RAY_FOLDER = "ray"
"""In the run folder: what Ray notes for itself while it trains."""
FOLLOW_S = 0.5
FOLLOW_REMOTE_S = 5.0
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_TIMEOUT_S),
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(COLLECTIVE_TIMEOUT_S),
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def fit(job: TrainJob, *, show: Show | None = show_line) -> TrainResult:
    """Train on the Ray that this process has joined.

    Args:
        job: what to train; its folders must be reachable from every node.
        show: where progress is shown, in this process.

    Raises:
        TrainingError: the cluster is too small, workers were lost too often, or the training can't go on.
    """
    job = dataclasses.replace(job, run_folder=_absolute(job.run_folder), shards=_absolute(job.shards))
    num_workers, use_gpu = choose_workers(job.train)
    _api()  # here, where warnings can be silenced, and not in the thread that fits
    folder = RunFolder(job.run_folder)
    try:
        with _environment(ENVIRONMENT), _following(job.run_folder, show):
            outcome = _run_aside(lambda: _fit(job, num_workers, use_gpu), folder)
        folder.drop(RAY_FOLDER)
    finally:
        folder.close()
    if isinstance(outcome, TrainResult):
        return outcome
    if isinstance(outcome, InkmotionError):
        raise outcome
    raise TrainingError(must("the training's workers", "say what they did", type(outcome).__name__))


def choose_workers(train: TrainConfig) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU.

    Raises:
        TrainingError: the cluster has too few CPUs or GPUs, now and when it is idle.
    """
    import ray

    if not ray.is_initialized():
        raise TrainingError(must("the Ray backend", "run inside a Ray session", "none", "Use backend local"))
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = int(total.get("GPU", 0))
    use_gpu = gpus > 0 if train.use_gpu is None else train.use_gpu
    num_workers = train.num_workers or (max(1, gpus) if use_gpu else 1)
    if train.batch_size % num_workers:
        fix = "Set num_workers"
        raise TrainingError(must("batch_size", f"be divisible by the workers ({num_workers})", train.batch_size, fix))
    for kind, needed in _resources(train, use_gpu).items():
        if needed * num_workers > total.get(kind, 0):
            got = f"{total.get(kind, 0):g} in the cluster"
            fix = "Set num_workers or num_threads lower, or join a larger cluster"
            raise TrainingError(must("Ray", f"have {needed * num_workers:g} {kind} for the workers", got, fix))
    return num_workers, use_gpu


def _resources(train: TrainConfig, use_gpu: bool) -> dict[str, float]:
    """Of each worker. A thread count that is not set is what the node's CPUs give, so one CPU is asked for."""
    return {"CPU": float(train.num_threads or 1) if not use_gpu else 1.0, **({"GPU": 1.0} if use_gpu else {})}


def _fit(job: TrainJob, num_workers: int, use_gpu: bool) -> Any:
    api = _api()
    trainer = api.torch.TorchTrainer(
        _train,
        train_loop_config={"job": job},
        torch_config=api.torch.TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=api.ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=_resources(job.train, use_gpu)
        ),
        run_config=api.RunConfig(
            name=f"{job.run_name}-{uuid.uuid4().hex[:8]}",  # a name that Ray knows would bring its own state back
            storage_path=f"{job.run_folder}/{RAY_FOLDER}",
            failure_config=api.FailureConfig(max_failures=job.train.max_failures, controller_failure_limit=1),
            worker_runtime_env=None if use_gpu else {"env_vars": dict(KEPT_MEMORY)},
            logging_config=api.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        return trainer.fit().return_value
    except api.TrainingFailedError as error:
        raise TrainingError(_explained(error, job)) from error


def _api() -> Any:
    """Ray Train, untyped, because its annotations are those of the first version."""
    with warnings.catch_warnings():  # Ray warns of its own settings
        warnings.simplefilter("ignore")
        import ray.data
        import ray.train
        import ray.train.torch

        ray.data.DataContext.get_current()
    return ray.train


def _train(config: dict[str, Any]) -> TrainResult | InkmotionError:
    """What each worker runs. Errors that another attempt would only repeat are returned, not raised."""
    import ray.train
    import ray.train.torch

    from training.backends.worker import Hands, work
    from training.world import World

    context = ray.train.get_context()
    world = World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size(),
    )
    try:
        return work(config["job"], world, Hands(show=None, catch_signals=False))
    except InkmotionError as error:
        return error


def _explained(error: Exception, job: TrainJob) -> str:
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = next(iter(failures.items()))
        got = f"rank {rank}: {_last_line(first)}"
        rule = f"survive, or be lost at most max_failures ({job.train.max_failures}) times"
        return must("the training's workers", rule, got, "Run the same command again to go on from the last checkpoint")
    cause = getattr(error, "controller_failure", error)
    fix = "Look at what else uses the cluster (`ray status`), or set num_workers lower"
    return must("the training's workers", f"start within {START_TIMEOUT_S} s", _last_line(cause), fix)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _run_aside(act: Any, folder: RunFolder) -> Any:
    """Run ``act`` in a thread, so that this one can hear signals: the first asks the workers to save and stop."""
    from training.backends.worker import catching_signals

    done: list[Any] = []

    def run() -> None:
        try:
            done.append(act())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            done.append(error)

    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    with catching_signals(folder.ask_to_stop):
        thread.start()
        while thread.is_alive():
            thread.join(timeout=0.2)
    if isinstance(done[0], BaseException) and not isinstance(done[0], InkmotionError):
        raise done[0]
    return done[0]


@contextlib.contextmanager
def _following(location: str, show: Show | None) -> Iterator[None]:
    """Show what rank 0 writes into the run folder, wherever it runs."""
    over = threading.Event()
    folder = RunFolder(location)
    before = folder.read_json(PROGRESS)

    def follow() -> None:
        last = before
        while True:
            ended = over.wait(FOLLOW_REMOTE_S if is_url(location) else FOLLOW_S)
            with contextlib.suppress(Exception):  # what is only shown must not end a training
                raw = folder.read_json(PROGRESS)
                if raw is not None and raw != last and show is not None:
                    if last is not None and raw["attempt"] > last["attempt"]:
                        log.info("attempt %d goes on after step %d", raw["attempt"], last["step"])
                    show(Progress.from_json(raw))
                last = raw
            if ended:
                return

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=FOLLOW_REMOTE_S)
        folder.close()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block; what the user has set stands."""
    new = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for key in new:
            os.environ.pop(key, None)


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).resolve())
