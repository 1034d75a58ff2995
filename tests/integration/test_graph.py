"""The whole graph in a small copy of the project: run, run again, change one key, change the profile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

GIFS = ("rabbit", "rat", "cat", "dog")
TINY_TRAIN = {
    "max_steps": 4,
    "batch_size": 2,
    "num_repeats": 4,
    "log_every_steps": 1,
    "checkpoint_every_steps": 2,
    "validate_every_steps": 4,
    "num_validation_pairs": 2,
    "picture_every_steps": 4,
}


@dataclass
class Project:
    """A copy of the project with a shorter graph."""

    root: Path

    def call(self, *words: str, timeout_s: float = 420) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_TRACKING"))}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env["PYTHONWARNINGS"] = "default"
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.root, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def dvc(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call("-m", "dvc", *words)

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", *words]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def report(self, stage: str, name: str) -> dict:
        return json.loads((self.root / "reports" / stage / f"{name}.json").read_text())


def copy_project(root: Path, target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (name.startswith("samples/") and not name.startswith("samples/cartoons")) or not (root / name).is_file():
            continue
        if name.startswith("papers/"):  # its rows name data sets that `shorten` takes out
            continue
        if name.startswith("samples/cartoons/") and Path(name).stem not in GIFS:
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)


def shorten(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    raw["datasets"] = {"cartoons": raw["datasets"]["cartoons"]}
    raw["experiments"] = {"fomm-cartoons": raw["experiments"]["fomm-cartoons"]}
    raw["style_experiments"] = raw["stylisations"] = {}
    raw["dualstyles"] = raw["systems"] = raw["stylised_datasets"] = {}
    raw["animations"] = {"rabbit": {**raw["animations"]["rabbit"], "max_frames": 4}}
    for profile in raw["profiles"].values():
        profile["datasets"] = {"cartoons": profile["datasets"]["cartoons"]}
    sample, paper = raw["profiles"]["sample"], raw["profiles"]["paper"]
    sample["train"].update(TINY_TRAIN)
    sample["model"].update(detector_expansion=8, motion_expansion=8, generator_expansion=8)
    paper["train"].update(sample["train"])  # the published sizes take GPUs and days
    paper["model"].update(sample["model"])
    paper["data"].update(sample["data"])
    paper["datasets"]["cartoons"]["source"] = "media/mgif"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    graph = path.with_name("dvc.yaml")
    graph.write_text(graph.read_text().replace("      - reports/stylise\n", ""))  # nothing is drawn here


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("graph") / "a project"
    copy_project(root, folder)
    shorten(folder / "params.yaml")
    made = Project(folder)
    made.git("init", "-q")
    made.git("add", "-A")
    made.git("commit", "-qm", "start")
    done = made.call("cli.py", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def ran(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", done.stdout))


def test_run_leaves_report_animation_and_model_version(project: Project) -> None:
    assert (project.root / "reports" / "index.html").stat().st_size > 10_000
    assert list((project.root / "reports" / "animate").rglob("*.gif"))
    assert project.report("register", "fomm-cartoons")["name"] == "fomm-cartoons"
    train = project.report("train", "fomm-cartoons")
    assert train["steps"] == 4
    assert train["images_seen"] == 8
    assert project.report("evaluate", "fomm-cartoons")["test"]["copy_source_l1"] > 0


def test_git_status_shows_at_most_the_lock(project: Project) -> None:
    changed = {line[3:] for line in project.git("status", "--porcelain").splitlines()}
    assert changed <= {"dvc.lock"}


def test_a_second_run_does_nothing(project: Project) -> None:
    done = project.dvc("repro")
    assert done.returncode == 0, done.stderr
    assert ran(done) == set()
    assert "up to date" in done.stdout


def test_a_changed_key_runs_only_what_depends_on_it(project: Project) -> None:
    project.git("add", "-A")
    project.git("commit", "-qm", "lock")
    done = project.dvc("exp", "run", "-S", "experiments.fomm-cartoons.batch_size=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(done) == {
        "train@fomm-cartoons",
        "evaluate@fomm-cartoons",
        "register@fomm-cartoons",
        "animate@rabbit",
        "report",
    }
    assert project.report("train", "fomm-cartoons")["images_seen"] == 16
    assert project.report("register", "fomm-cartoons")["version"] == 2


def test_the_other_profile_runs_on_its_own_media(project: Project) -> None:
    done = project.dvc("exp", "run", "-S", "profile=paper")
    assert done.returncode != 0
    assert "media/mgif" in done.stdout + done.stderr
    for place, gif in enumerate(sorted((project.root / "samples" / "cartoons").glob("*.gif"))):
        target = project.root / "media" / "mgif" / ("train" if place else "test") / gif.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(gif, target)
    done = project.dvc("exp", "run", "-S", "profile=paper")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"download@cartoons", "cut@cartoons", "shard@cartoons", "train@fomm-cartoons"} <= ran(done)
    assert project.report("download", "cartoons")["source"] == "media/mgif"


def test_an_unknown_key_is_refused(project: Project) -> None:
    done = project.dvc("exp", "run", "-S", "experiments.fomm-cartoons.batchsize=4")
    assert done.returncode != 0
    assert "batchsize" in done.stdout + done.stderr
