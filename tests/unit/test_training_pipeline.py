"""The train stage: which run it finds, what it exports and reports."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import training_kit as kit
import yaml

from models.errors import CheckpointError, ClipError, EnvironmentProblem, ParamsError, TrainingError
from models.motion.networks import build, debug_config
from pipelines import estimate
from pipelines import train as stage
from pipelines.lineage import data_tags, git_tags
from pipelines.params import (
    ClusterConfig,
    EvaluationConfig,
    ExperimentConfig,
    Params,
    RegistrationConfig,
    TrackingConfig,
)
from pipelines.shipping import ship
from pipelines.stage import Paths, only_writer
from preprocessing.config import DatasetConfig, FetchConfig
from training.checkpoint import (
    CheckpointInfo,
    load_networks,
    read_info,
    read_tensors,
    tensors_of,
    write_checkpoint,
)
from training.config import LossConfig, MotionTrainConfig
from training.progress import Progress
from training.runfolder import RunFolder


def params(cluster: ClusterConfig | None = None, **options: Any) -> Params:
    train = kit.train_config(**{"max_steps": 4, "validate_every_steps": 4, "num_workers": 1, **options})
    experiment = ExperimentConfig(preset="fomm", dataset="toy", model=debug_config(), train=train)
    return Params(
        profile="sample",
        datasets={"toy": DatasetConfig(kind="faces", source="samples")},
        experiments={"small": experiment},
        animations={},
        evaluation=EvaluationConfig(),
        registration=RegistrationConfig(),
        fetching=FetchConfig(),
        tracking=TrackingConfig(),
        cluster=cluster or ClusterConfig(),
    )


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(stage, "_tracking_uri", lambda params, paths: None)
    made = Paths(tmp_path)
    kit.write_shards(made.shards("toy"))
    return made


def run(paths: Paths, *, cluster: ClusterConfig | None = None, **options: Any) -> stage.TrainReport:
    how = {key: options.pop(key) for key in ("resume", "fresh") if key in options}
    return stage.run("small", params(cluster, **options), paths, backend="local", **how)


def test_report_export_and_table(paths: Paths) -> None:
    report = run(paths)
    written = json.loads(paths.report("train", "small").read_text())
    assert written["steps"] == report.steps == 4
    assert written["images_seen"] == 16
    assert written["split_rule"] == "source"
    assert written["validation_copy_source_l1"] > 0
    assert written["first_loss"] > 0
    networks, info = load_networks(paths.trained("small"))
    assert info.sha256 == report.weights_sha256
    assert info.data == hashlib.sha256((paths.shards("toy") / "index.json").read_bytes()).hexdigest()
    assert set(networks) == {"generator", "keypoint_detector", "discriminator"}
    assert {path.name for path in paths.trained("small").iterdir()} == {"weights.safetensors", "manifest.json"}
    with paths.report("train", "small").with_name("small-losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    parts = [float(row) for name, row in rows[0].items() if name.startswith("loss/") and name != "loss/total"]
    assert float(rows[0]["loss/total"]) == pytest.approx(sum(parts), rel=1e-4)
    assert rows[0]["validation/l1"] == ""
    assert float(rows[3]["validation/l1"]) == pytest.approx(report.validation_l1, rel=1e-4)


def test_the_run_is_named_by_all_that_changes_its_result(paths: Paths) -> None:
    base = params().experiment("small")
    same = dataclasses.replace(base, train=dataclasses.replace(base.train, num_workers=2, keep_last=9, num_threads=2))
    assert stage.run_hash(base, "a") == stage.run_hash(same, "a")
    others = [
        stage.run_hash(base, "b"),
        stage.run_hash(dataclasses.replace(base, train=dataclasses.replace(base.train, seed=1)), "a"),
        stage.run_hash(dataclasses.replace(base, train=dataclasses.replace(base.train, max_steps=5)), "a"),
        stage.run_hash(dataclasses.replace(base, model=debug_config(num_keypoints=4)), "a"),
    ]
    assert len({stage.run_hash(base, "a"), *others}) == 5


def test_a_finished_run_is_only_exported_again(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(paths)
    (paths.trained("small") / "weights.safetensors").unlink()
    monkeypatch.setattr(stage, "_train", lambda *_: pytest.fail("it trained again"))
    second = run(paths)
    assert dataclasses.asdict(second) == dataclasses.asdict(first)
    load_networks(paths.trained("small"))


def test_the_best_checkpoint_is_exported_where_it_is_asked_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    last = run(paths, checkpoint_every_steps=1)
    runs = next((paths.root / "runs").glob("small-*"))
    summary = json.loads((runs / "summary.json").read_text())
    summary["result"]["best_step"] = 2
    (runs / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(stage, "_train", lambda *_: pytest.fail("it trained again"))
    best = run(paths, export="best", checkpoint_every_steps=1)
    folder = runs / "step-00000002"
    kept = read_tensors(folder, read_info(folder))
    exported = read_tensors(paths.trained("small"), read_info(paths.trained("small")))
    assert exported
    assert all(torch.equal(kept[name], value) for name, value in exported.items())
    assert best.weights_sha256 != last.weights_sha256


def test_a_stopped_run_goes_on_by_itself(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(paths, seed=3)

    seen: list[int] = []

    def stopping(progress: Progress) -> None:
        seen.append(progress.step)
        if seen == [2]:
            RunFolder(str(next((paths.root / "runs").glob("small-*")))).ask_to_stop()

    monkeypatch.setattr("pipelines.train_display.show_line", stopping)
    monkeypatch.setattr("training.backends.worker.STOP_POLL_S", 0.0)
    with pytest.raises(TrainingError, match="reach its last step to be exported; got a stop after step 2 of 4"):
        run(paths, seed=3, fresh=True)
    assert run(paths, seed=3).weights_sha256 == whole.weights_sha256
    assert run(paths, seed=3, fresh=True).restarts == 0


def test_resume_takes_a_run_by_its_name(paths: Paths) -> None:
    first = run(paths)
    longer = run(paths, resume=first.run_name, max_steps=6)
    assert (longer.run_name, longer.steps, longer.restarts) == (first.run_name, 6, 1)
    with pytest.raises(CheckpointError, match="--resume nobody must name a run with a checkpoint"):
        run(paths, resume="nobody")


def test_resume_with_other_networks_is_refused(paths: Paths) -> None:
    first = run(paths)
    (Path(first.run_folder) / "summary.json").unlink()
    other = params()
    experiment = dataclasses.replace(other.experiment("small"), model=debug_config(num_keypoints=4))
    with pytest.raises(CheckpointError, match="hold the networks that params.yaml describes"):
        stage.run(
            "small",
            dataclasses.replace(other, experiments={"small": experiment}),
            paths,
            backend="local",
            resume=first.run_folder,
        )


def test_one_writer_only(paths: Paths) -> None:
    with only_writer(paths.trained("small")), pytest.raises(EnvironmentProblem, match="have one writer"):
        run(paths)


def test_wrong_names_and_missing_shards(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="experiments"):
        stage.run("nobody", params(), paths, backend="local")
    with pytest.raises(ClipError, match="Run the shard stage first"):
        stage.run("small", params(), Paths(tmp_path / "empty"), backend="local")


def test_fine_tuning_from_an_exported_model(paths: Paths) -> None:
    first = run(paths)
    tuned = run(paths, init_from=str(paths.trained("small")), max_steps=1)
    assert tuned.run_name != first.run_name
    assert tuned.steps == 1
    run(paths, max_steps=5)  # the same name now leads to other weights
    again = run(paths, init_from=str(paths.trained("small")), max_steps=1)
    assert again.run_name != tuned.run_name


def test_an_estimate_takes_a_real_step(paths: Paths) -> None:
    (row,) = estimate.run(params(), paths, only="small")
    assert row.seconds is not None
    assert row.memory_bytes is not None
    assert row.seconds > 0 < row.memory_bytes
    assert "4 steps of 4" in row.how


def test_any_checkpoint_is_fine_tuned_with_its_own_networks_in_one_command(paths: Paths, tmp_path: Path) -> None:
    config = debug_config(num_keypoints=5, size_px=64, scale_factor=0.5, discriminator=False)
    networks = build(config)
    info = CheckpointInfo(step=0, images_seen=0, preset="fomm", model=config, train=MotionTrainConfig(), sha256="")
    (tmp_path / "theirs").mkdir()
    write_checkpoint(tmp_path / "theirs", info, tensors_of(networks), None)
    given = params(max_steps=1, losses=LossConfig(gan="lsgan", perceptual=()))
    report = stage.run("small", given, paths, backend="local", init_from=str(tmp_path / "theirs"))
    made, found = load_networks(paths.trained("small"))
    assert (found.model.num_keypoints, found.model.size_px, found.model.scaled_px) == (5, 32, 32)
    assert "discriminator" in made
    assert report.steps == 1
    assert report.run_name != stage.run("small", params(max_steps=1), paths, backend="local").run_name


def test_with_a_storage_path_everything_lies_there(paths: Paths, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    report = run(paths, cluster=ClusterConfig(storage_path=str(storage)))
    assert Path(report.run_folder).parent == storage
    (shards,) = (storage / "shards").iterdir()
    assert (shards / "index.json").is_file()
    load_networks(paths.trained("small"))


def test_ship_copies_once_and_the_last_file_last(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "part").mkdir(parents=True)
    (source / "index.json").write_text("1")
    (source / "part" / "z").write_text("z")
    options: dict[str, Any] = {"kind": "shards", "name": "toy-1", "last": "index.json"}
    assert ship(source, None, **options) == str(source)
    target = Path(ship(source, str(tmp_path / "storage"), **options))
    assert (target / "part" / "z").read_text() == "z"
    (source / "part" / "z").write_text("changed")
    ship(source, str(tmp_path / "storage"), **options)
    assert (target / "part" / "z").read_text() == "z"
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="must be writable"):
        ship(source, str(tmp_path / "file"), **options)


def test_lineage_of_a_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        names = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_tags(tmp_path / "nowhere") == {}
    git("init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-qm", "start")
    clean = git_tags(tmp_path)
    assert len(clean["git.commit"]) == 40
    assert clean["git.dirty"] == "false"
    (tmp_path / "code.py").write_text("2\n")
    dirty = git_tags(tmp_path)
    assert dirty["git.dirty"] == "true"
    assert len(dirty["git.diff_sha256"]) == 64


def test_lineage_of_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "shards" / "toy"
    assert data_tags(tmp_path, folder) == {}
    outs = [{"path": "data/shards/toy", "md5": "abc.dir"}, {"path": "other", "md5": "x"}, "junk"]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"shard@toy": {"outs": outs}, "odd": None}}))
    assert data_tags(tmp_path, folder) == {"dvc.data/shards/toy": "abc.dir"}
    (tmp_path / "dvc.lock").write_text("{")
    assert data_tags(tmp_path, folder) == {}
