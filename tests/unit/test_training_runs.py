"""Whole trainings of the debug model in this process: resumed, stopped, fine-tuned, validated, drawn."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
import torch
import training_kit as kit
from safetensors.torch import load_file

from models.contracts import ShardClip
from models.errors import CheckpointError, ClipError, EnvironmentProblem, TrainingError
from training import pictures
from training.backends import local
from training.checkpoint import load_networks, read_info
from training.job import load_callable
from training.progress import Progress
from training.runfolder import PROGRESS, SUMMARY, WORKERS, RunFolder
from training.tracking.jsonl import read_metrics, read_records
from training.validation import COPY_L1, L1, batched_range, fixed_pairs

SIX = {"max_steps": 6, "checkpoint_every_steps": 2, "validate_every_steps": 3}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.write_shards(tmp_path_factory.mktemp("runs") / "shards")


@pytest.fixture(scope="module")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    result = local.fit(kit.job(shards, folder, losses=kit.ADVERSARIAL, picture_every_steps=3, keep_last=1, **SIX))
    assert result.steps == 6
    return folder


def entries(folder: Path, step: int = 6) -> dict[str, torch.Tensor]:
    return load_file(folder / f"step-{step:08d}" / "weights.safetensors")


def values(folder: Path) -> list[dict[str, float]]:
    wanted = ("loss/", "validation/", "grad_norm/")
    return [{k: v for k, v in recorded.items() if k.startswith(wanted)} for _, recorded in read_metrics(folder)]


def test_a_run_leaves_all_that_it_should(unbroken: Path) -> None:
    info = read_info(unbroken / "step-00000006")
    assert (info.step, info.images_seen, info.experiment) == (6, 24, "toy")
    assert set(info.metrics) == {L1, COPY_L1}
    summary = json.loads((unbroken / SUMMARY).read_text())
    assert summary["done"]
    assert summary["result"]["best_step"] in (3, 6)
    assert summary["result"]["best_metric"] == min(v[L1] for v in values(unbroken) if L1 in v)
    assert json.loads((unbroken / WORKERS).read_text())["workers"][0]["pid"] == os.getpid()
    assert Progress.from_json(json.loads((unbroken / PROGRESS).read_text())).step == 6
    kinds = [record["kind"] for record, _ in read_records(unbroken)]
    assert kinds.count("metrics") == 6
    assert kinds[0] == "card"
    assert kinds[-1] == "end"


def test_the_best_and_the_last_checkpoints_are_kept(unbroken: Path) -> None:
    best = json.loads((unbroken / SUMMARY).read_text())["result"]["best_step"]
    assert RunFolder(str(unbroken)).steps() == sorted({best, 6})


def test_pictures_are_drawn_and_recorded(unbroken: Path) -> None:
    drawn = [record for record, _ in read_records(unbroken) if record["kind"] == "picture"]
    assert [record["step"] for record in drawn] == [3, 6]
    picture = cv2.imread(str(unbroken / drawn[0]["path"]))
    assert picture is not None
    assert picture.shape == (4 * 34 - 2, 6 * 34 - 2, 3)
    assert picture.std() > 10


def test_the_exported_average_differs_from_the_weights(unbroken: Path) -> None:
    averaged, _ = load_networks(unbroken / "step-00000006")
    raw, _ = load_networks(unbroken / "step-00000006", ema=False)
    name = "final.weight"
    assert not torch.equal(averaged["generator"].state_dict()[name], raw["generator"].state_dict()[name])


@pytest.mark.parametrize("broken_at", [1, 4])
def test_a_resumed_run_equals_the_unbroken_one(shards: Path, unbroken: Path, tmp_path: Path, broken_at: int) -> None:
    """Stopped in the middle, also between two checkpoints, it repeats what it must and ends with the same bits."""
    job = kit.job(shards, tmp_path / "run", losses=kit.ADVERSARIAL, log_every_steps=1, **SIX)

    def interrupt(progress: Progress) -> None:
        if progress.step == broken_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.fit(job, show=interrupt)
    assert RunFolder(job.run_folder).steps() == ([] if broken_at == 1 else [2, 3])
    result = local.fit(job)
    assert result.restarts == 1
    mine, whole = entries(tmp_path / "run"), entries(unbroken)
    assert mine.keys() == whole.keys()
    assert all(torch.equal(mine[key], whole[key]) for key in whole)
    assert values(tmp_path / "run") == values(unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_nothing_is_lost(
    shards: Path, unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    train = {**SIX, "checkpoint_every_steps": 100, "validate_every_steps": 3, "log_every_steps": 1}
    job = kit.job(shards, tmp_path / "run", losses=kit.ADVERSARIAL, **train)
    before = signal.getsignal(number)

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            os.kill(os.getpid(), number)

    stopped = local.fit(job, show=stop)
    assert stopped.interrupted
    assert stopped.steps == 4
    assert signal.getsignal(number) is before
    assert not json.loads((tmp_path / "run" / SUMMARY).read_text())["done"]
    finished = local.fit(job)
    assert not finished.interrupted
    whole = entries(unbroken)
    assert all(torch.equal(value, whole[key]) for key, value in entries(tmp_path / "run").items())


def test_a_finished_run_is_left_alone(unbroken: Path, shards: Path) -> None:
    before = (unbroken / "step-00000006" / "manifest.json").stat().st_mtime_ns
    result = local.fit(kit.job(shards, unbroken, losses=kit.ADVERSARIAL, picture_every_steps=3, keep_last=1, **SIX))
    assert result.steps == 6
    assert (unbroken / "step-00000006" / "manifest.json").stat().st_mtime_ns == before


def test_thread_and_determinism_settings_are_put_back(shards: Path, tmp_path: Path) -> None:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    local.fit(kit.job(shards, tmp_path / "run", max_steps=1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://runs/toy"
    fsspec.filesystem("memory").rm("/runs", recursive=True)


def test_a_run_behind_a_url_resumes_alike(shards: Path, unbroken: Path, tmp_path: Path, bucket: str) -> None:
    job = kit.job(shards, bucket, losses=kit.ADVERSARIAL, keep_last=1, picture_every_steps=3, **SIX)
    local.fit(dataclasses.replace(job, train=dataclasses.replace(job.train, max_steps=4)))
    result = local.fit(job)
    folder = RunFolder(bucket)
    assert folder.steps()[-1] == 6
    folder.fetch(["records.jsonl"])
    assert len(read_metrics(folder.local)) == 6
    mine, whole = load_file(folder.checkpoint(6) / "weights.safetensors"), entries(unbroken)
    assert all(torch.equal(mine[key], whole[key]) for key in whole)
    assert result.checkpoint == f"{bucket}/step-00000006"
    folder.close()
    fsspec.filesystem("memory").cat_file("/runs/toy/pictures/reconstruction-00000006.png")


def test_fine_tuning_starts_from_the_weights_alone(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    job = kit.job(shards, tmp_path / "run", max_steps=1, lr_generator=1e-9, lr_keypoint_detector=1e-9)
    local.fit(dataclasses.replace(job, init_weights=str(unbroken / "step-00000006")))
    tuned, start = entries(tmp_path / "run", 1), entries(unbroken)
    name = "generator.final.weight"
    assert torch.allclose(tuned[name], start[name], atol=1e-7)
    assert read_info(tmp_path / "run" / "step-00000001").step == 1


def test_fine_tuning_from_another_architecture_is_refused(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    job = kit.job(shards, tmp_path / "run", model={"num_keypoints": 4})
    with pytest.raises(CheckpointError, match="fit the network"):
        local.fit(dataclasses.replace(job, init_weights=str(unbroken / "step-00000006")))


def test_learning_lowers_the_loss(shards: Path, tmp_path: Path) -> None:
    options = {"max_steps": 40, "lr_generator": 4e-3, "lr_keypoint_detector": 1e-3, "validate_every_steps": 20}
    local.fit(kit.job(shards, tmp_path / "run", checkpoint_every_steps=100, **options))
    pixels = [recorded["loss/generator/pixel"] for recorded in values(tmp_path / "run")]
    assert np.mean(pixels[-5:]) < 0.6 * np.mean(pixels[:5])


def test_a_full_precision_run_may_be_64_bits_wide(shards: Path, tmp_path: Path) -> None:
    result = local.fit(kit.job(shards, tmp_path / "run", max_steps=2), dtype=torch.float64)
    assert entries(tmp_path / "run", result.steps)["generator.final.weight"].dtype == torch.float64


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"shards": "/nowhere"}, ClipError, "Run the shard stage first"),
        ({"build": "training.nothing:build"}, TrainingError, "name module:function"),
        ({"init_weights": "/nowhere"}, CheckpointError, "manifest.json must be readable"),
    ],
)
def test_a_job_that_can_not_start_says_why(
    shards: Path, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        local.fit(dataclasses.replace(kit.job(shards, tmp_path / "run"), **changes))


def test_more_workers_than_processes_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"num_workers must be the number of processes \(1\); got 2. Start it by"):
        local.fit(kit.job(shards, tmp_path / "run", num_workers=2))
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="use_gpu must find 1 GPUs; got 0"):
            local.fit(kit.job(shards, tmp_path / "run", use_gpu=True))


def test_a_read_only_run_folder_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="must be writable"):
        local.fit(kit.job(shards, tmp_path / "file" / "run"))


def test_a_data_set_without_test_clips_is_trained_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = kit.write_shards(tmp_path / "shards", num_test=0)
    with caplog.at_level(logging.WARNING):
        result = local.fit(kit.job(shards, tmp_path / "run", max_steps=2))
    assert result.best_metric is None
    assert result.best_step == 2
    assert "no test clips" in caplog.text


def clip(name: str, num_frames: int) -> ShardClip:
    return ShardClip(id=name, split="test", identity=name, num_frames=num_frames, fps=25.0, shard=0, row=0)


def test_validation_pairs_are_spread_over_clips_and_time() -> None:
    pairs = fixed_pairs([clip("a", 11), clip("still", 1), clip("b", 3)], 5)
    assert [found.id for found, _ in pairs] == ["a", "b", "a", "b", "a"]
    positions = [position for found, position in pairs if found.id == "a"]
    assert positions == sorted(set(positions))
    assert all(1 <= position < found.num_frames for found, position in pairs)
    assert fixed_pairs([clip("still", 1)], 5) == []
    assert batched_range(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_points_are_drawn_where_they_are() -> None:
    frames = np.zeros((1, 41, 41, 3), np.uint8)
    drawn = pictures.with_points(frames, np.array([[[-1.0, -1.0], [0.0, 1.0]]]))
    first, second = pictures.colours(2)
    assert (drawn[0, 0, 0] == first).all()
    assert (drawn[0, 40, 20] == second).all()
    assert (drawn[0, 20, 20] == 0).all()
    assert (frames == 0).all()


def test_png_files_are_read_by_others(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pictures.write_png(tmp_path / "a" / "picture.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "a" / "picture.png"))[..., ::-1], picture)


def test_only_functions_are_loaded() -> None:
    assert load_callable("models.motion.networks:build").__name__ == "build"
    with pytest.raises(TrainingError, match="name a function"):
        load_callable("models.motion.networks:DEBUG")


def test_a_training_that_can_not_go_on_is_recorded_as_failed(tmp_path: Path) -> None:
    shards = kit.write_shards(tmp_path / "shards")
    made = kit.job(shards, tmp_path / "run", lr_generator=1e30, lr_keypoint_detector=1e30)
    with pytest.raises(TrainingError, match="must be finite"):
        local.fit(made)
    last = [record for record, _ in read_records(tmp_path / "run")][-1]
    assert (last["kind"], last["status"]) == ("end", "FAILED")
