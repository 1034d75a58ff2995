"""The command line: its options are a promise, its graph calls only what exists, its start is light."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

import cli

OPTIONS = {
    "run": {"targets", "--dry-run"},
    "download": {"name", "--accept-terms", "--mirror", "--limit", "--retry"},
    "ledger": {"name", "--reason", "--retry"},
    "datasets list": set(),
    "datasets show": {"name"},
    "datasets check": {"name", "--path"},
    "datasets add": {"name", "--path", "--kind", "--preset", "--split"},
    "weights list": set(),
    "weights fetch": {"name"},
    "weights verify": set(),
    "weights import": {"name", "file"},
    "cut": {"name"},
    "shard": {"name"},
    "train": {"name", "--resume", "--init-from", "--fresh", "--backend", "--dry-run"},
    "destylise": {"name"},
    "refine": {"name"},
    "stylise-clips": {"name"},
    "evaluate": {"name"},
    "register": {"name"},
    "animate": {
        *("--model", "--checkpoint", "--source", "--driving", "--out", "--mode", "--adapt-scale", "--best-frame"),
        *("--smooth", "--crop", "--side-by-side", "--max-frames", "--device", "--stage"),
    },
    "stylise": {
        *("--model", "--checkpoint", "--in", "--out", "--strength", "--temporal", "--max-frames", "--tile"),
        *("--max-pixels", "--device", "--num-workers", "--overwrite", "--variant", "--stage"),
    },
    "stylise-animate": {
        *("--photo", "--driving", "--style", "--stylist", "--mover", "--out", "--face", "--box", "--structure"),
        *("--colour", "--shown", "--paste-back", "--emoji", "--pictures", "--max-frames", "--device"),
    },
    "studio": {"--host", "--port", "--max-upload-mb", "--max-seconds", "--device"},
    "report": set(),
    "promote": {"name"},
    "lineage": {"uri"},
    "compare": {"first", "second"},
    "ui": {"--port"},
    "doctor": set(),
    "clean": {"--runs", "--cache", "--store", "--yes"},
    "models": set(),
    "table": {"name"},
    "import": {
        *("file", "--kind", "--name", "--config", "--align-corners", "--size-px"),
        *("--generator", "--encoder", "--styles", "--instyle"),
    },
    "export-upstream": {"model", "file", "--kind", "--raw"},
    "tracking flush": set(),
    "registry move": {"--to"},
}


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_the_options_are_those_promised() -> None:
    found = {
        name: {entry.opts[0] if entry.param_type_name == "option" else entry.name for entry in command.params}
        for name, command in commands(typer.main.get_command(cli.app))
    }
    assert {name: opts - {"--help"} for name, opts in found.items()} == OPTIONS


def test_every_command_has_help() -> None:
    for name, command in commands(typer.main.get_command(cli.app)):
        assert command.help, name


def test_the_graph_calls_only_commands_that_exist(root: Path) -> None:
    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    for name, stage in graph["stages"].items():
        words = stage.get("do", stage)["cmd"].split()
        assert words[:2] == ["python", "cli.py"], name
        assert words[2] in OPTIONS, name


def test_every_section_of_params_is_tracked_by_a_stage(root: Path) -> None:
    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    tracked = {key for stage in graph["stages"].values() for key in stage.get("do", stage).get("params", [])}
    sections = set(yaml.safe_load((root / "params.yaml").read_text())) - {"profiles", "cluster", "fetching"}
    assert sections <= {key.split(".")[0] for key in tracked}
    for part in ("datasets", "published", "data", "model", "train"):
        assert any(key.startswith(f"profiles.${{profile}}.{part}") for key in tracked), part


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["cut", "nobody"], 1, "datasets must hold the name asked for; known: faces"),
        (["train", "nobody"], 1, "experiments must hold the name asked for"),
        (["cut"], 2, "Missing argument"),
        (["fly"], 2, "No such command"),
        (["train", "fomm-faces", "--backend", "abacus"], 2, "must be ray, local or auto"),
        (["train", "fomm-faces", "--backend", "abacus", "--dry-run"], 2, "must be ray, local or auto"),
        (["train", "fomm-faces", "--fresh", "--resume", "fomm-faces-1"], 2, "removes the run"),
        (["run", "train@fomm-faces", "--dry-run"], 2, "estimates the whole project"),
        (["animate", "--mode", "sideways"], 2, "must be relative, absolute or avd"),
        (["animate", "--device", "tpu"], 2, "must be auto, cpu or cuda; got tpu"),
        (["animate", "--adapt-scale", "--mode", "absolute"], 2, "fits relative movement only"),
        (["animate", "--stage", "rabbit", "--driving", "b.mp4"], 2, "takes everything from params.yaml"),
        (["animate", "--out", "x.gif"], 2, "--source and --driving must be given"),
        (["animate", "--source", "a.png", "--driving", "b.mp4", "--out", "c.avi", "--model", "x"], 1, "end in .gif"),
        (["stylise", "--device", "tpu"], 2, "must be auto, cpu or cuda; got tpu"),
        (["stylise", "--out", "x.png"], 2, "--in and --out must be given"),
        (["stylise", "--strength", "2"], 2, "--strength"),
        (["stylise", "--stage", "palace", "--out", "x.png"], 2, "takes everything from params.yaml"),
        (["stylise", "--in", "nowhere.png", "--out", "x.png", "--model", "x"], 1, "nowhere.png must exist"),
        (["import", "x.pt", "--kind", "jam"], 2, "must be fomm, articulated, stylegan2"),
        (["import", "x.pt", "--kind", "psp", "--size-px", "64"], 2, "must be left out with --kind psp; got 64"),
        (["import", "x.pt", "--kind", "fomm", "--encoder", "e.pt"], 2, "must be left out with --kind fomm; got e.pt"),
        (["import", "nowhere.pt", "--kind", "stylegan2"], 1, "nowhere.pt must be a file; got no such file"),
        (["lineage", "nonsense"], 1, "models:/ URI"),
    ],
)
def test_a_mistake_gets_a_line_and_a_code(words: list[str], code: int, says: str) -> None:
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == code, done.output
    assert says in " ".join(done.output.split())
    assert "Traceback" not in done.output


@pytest.mark.parametrize("number", [28, 30, 13, 17, 20])
def test_errors_of_the_system_get_a_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "data/raw/faces")

    monkeypatch.setattr("pipelines.download.run", fail)
    done = CliRunner().invoke(cli.app, ["download", "faces"])
    assert done.exit_code == 1
    assert "data/raw/faces" in done.output
    assert " must " in done.output


def test_help_loads_nothing_heavy(root: Path) -> None:
    program = (
        "import sys, cli; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(cli.app, ['--help']).exit_code == 0;"
        "print(sorted({'torch','ray','mlflow','cv2','numpy','pandas','pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
