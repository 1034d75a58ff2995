"""Published checkpoints as stages see them: folders to train from, model versions, the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import training_kit as kit
import typer
from published_kit import AA, SIZED, published, trained, write
from torch import Tensor
from typer.testing import CliRunner

from models.errors import CheckpointError, ParamsError
from models.importers.inspect import inspect
from models.importers.options import Assumptions
from models.motion.networks import build, debug_config
from pipelines import importing, model_commands
from pipelines.command_line import Commands
from pipelines.stage import Paths
from training.backends import local
from training.checkpoint import load_networks, read_info, read_state, read_tensors
from training.config import LossConfig

GAN = LossConfig(perceptual=(), pixel=1.0, gan="lsgan", feature_matching=(1.0, 1.0))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ONNX, no store."""
    monkeypatch.setattr(importing, "_register", lambda name, *_: (f"models:/{name}/1", 0.0))


def take(file: Path, folder: Path, **options: Any) -> importing.ImportedReport:
    options = {"assumptions": SIZED, "name": "taken", **options}
    return importing.run(file, options.pop("kind", "fomm"), None, Paths(folder), **options)


# ---- a checkpoint's folder


@pytest.mark.usefixtures("unregistered")
def test_an_import_is_a_checkpoint(tmp_path: Path) -> None:
    theirs, _, file = trained(tmp_path)
    report = take(file, tmp_path)
    networks, info = load_networks(Path(report.folder))
    assert (info.step, info.preset, info.experiment, dict(info.metrics)) == (0, "fomm", "taken", {"imported/epoch": 99})
    for name, network in theirs.items():
        for key, value in network.state_dict().items():
            assert torch.equal(networks[name].state_dict()[key], value), f"{name}.{key}"
    written = json.loads((tmp_path / "reports" / "import" / "taken.json").read_text())
    assert written["contents"]["sha256"] == report.contents.sha256
    lines = "\n".join(report.lines())
    assert "registered as models:/taken/1 (candidate)" in lines
    assert "init_from: 'models:/taken/1'" in lines
    assert "optimizer_generator: taken: 50 of 50 parameters, after 3 steps" in lines


@pytest.mark.usefixtures("unregistered")
def test_without_stepped_optimisers_there_is_no_state(tmp_path: Path) -> None:
    theirs = build(debug_config())
    fresh = torch.optim.Adam(theirs["generator"].parameters()).state_dict()
    file = write(tmp_path / "x.pth.tar", published(theirs, optimizer_generator=fresh))
    assert read_info(Path(take(file, tmp_path).folder)).state_sha256 is None


@pytest.mark.usefixtures("unregistered")
def test_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.pth.tar").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="a web page"):
        take(tmp_path / "x.pth.tar", tmp_path)
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "reports").exists()


@pytest.mark.usefixtures("unregistered")
def test_names(tmp_path: Path) -> None:
    file = write(tmp_path / "vox cpk.v1.pth.tar", published(build(debug_config())))
    assert take(file, tmp_path, name=None).name == "fomm-vox-cpk-v1"
    for name in ("", "a/b", "../x", "-x", "x" * 81, "ü"):
        with pytest.raises(ParamsError, match="--name must be up to 80 letters"):
            take(file, tmp_path, name=name)


# ---- training on


def tuned(report: importing.ImportedReport, shards: Path, run: Path, **options: Any) -> dict[str, Any]:
    """The state and tensors after the first step of a training that starts from an import."""
    job = kit.job(shards, run, max_steps=1, **options)
    result = local.fit(dataclasses.replace(job, init_weights=report.folder))
    folder = Path(result.checkpoint)
    info = read_info(folder)
    return {"state": read_state(folder, info), "tensors": read_tensors(folder, info)}


def steps_of(state: dict[str, Any], phase: str) -> set[float]:
    return {float(entry["step"]) for entry in state["phases"][phase]["optimizer"]["state"].values()}


@pytest.mark.usefixtures("unregistered")
def test_adam_goes_on(shards: Path, tmp_path: Path) -> None:
    report = take(trained(tmp_path)[2], tmp_path)
    rates = {"lr_generator": 1e-9, "lr_keypoint_detector": 1e-9, "lr_discriminator": 1e-9}
    after = tuned(report, shards, tmp_path / "run", losses=GAN, **rates)
    state, start = after["state"], read_tensors(Path(report.folder), read_info(Path(report.folder)))
    assert torch.allclose(after["tensors"]["generator.final.weight"], start["generator.final.weight"], atol=1e-7)
    assert state["train"]["step"] == 1
    assert steps_of(state, "generator") == steps_of(state, "discriminator") == {4.0}
    moments = read_state(Path(report.folder), read_info(Path(report.folder)))["imported"]["moments"]
    mine = state["phases"]["discriminator"]["optimizer"]["state"]
    names = [name for name, _ in build(debug_config())["discriminator"].named_parameters()]
    place = names.index("discs.1.conv.bias")
    before: Tensor = moments["discriminator"]["discs.1.conv.bias"]["exp_avg_sq"]
    gained = mine[place]["exp_avg_sq"] - 0.999 * before
    assert bool((gained >= -1e-9).all())  # the rest is the new gradient's square
    assert state["phases"]["generator"]["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-9)


@pytest.mark.usefixtures("unregistered")
def test_adam_starts_afresh_without_a_state(shards: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.pth.tar", published(build(debug_config())))
    after = tuned(take(file, tmp_path), shards, tmp_path / "run")
    assert steps_of(after["state"], "generator") == {1.0}


@pytest.mark.usefixtures("unregistered")
def test_training_at_another_size_with_a_fresh_discriminator(shards: Path, tmp_path: Path) -> None:
    content = published(theirs := build(debug_config()))
    del content["discriminator"]
    report = take(write(tmp_path / "x.pth.tar", content), tmp_path)
    after = tuned(report, shards, tmp_path / "run", model={"scale_factor": 1.0}, losses=GAN, lr_generator=1e-9)
    assert "generator.dense_motion_network.down.weight" not in after["tensors"]
    start = theirs["generator"].state_dict()["final.weight"]
    assert torch.allclose(after["tensors"]["generator.final.weight"], start, atol=1e-7)
    assert "discriminator.discs.1.conv.bias" in after["tensors"]


@pytest.mark.usefixtures("unregistered")
def test_another_architecture_is_refused(shards: Path, tmp_path: Path) -> None:
    report = take(write(tmp_path / "x.pth.tar", published(build(debug_config()))), tmp_path)
    with pytest.raises(CheckpointError, match="must fit the network 'generator'"):
        tuned(report, shards, tmp_path / "run", model={"num_keypoints": 4})


# ---- settings files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "must be YAML"),
        (b"\xff\xfe", "must be YAML"),
        (b"a: !!python/object/apply:os.system ['x']", "must be YAML"),
        (b"#" * (2**20 + 1), "must be a settings file of at most 1 MiB"),
        (None, "must be readable; got No such file"),
    ],
)
def test_unreadable_settings_are_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        importing.read_assumptions(path)


def test_settings_that_repeat_themselves_endlessly_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    bomb = "\n".join(lines) + "\nmodel_params: {common_params: {num_kp: *a29}, *a29 : 1}\n"
    path = tmp_path / "config.yaml"
    path.write_text(bomb.replace(", *a29 : 1", ", more: *a29"))
    file = write(tmp_path / "x.pth.tar", published(build(debug_config())))
    with pytest.raises(CheckpointError, match="num_kp: .* is no value of it"):
        inspect(file, "fomm", importing.read_assumptions(path))
    path.write_text("")
    with pytest.raises(CheckpointError, match="must hold model_params"):
        inspect(file, "fomm", importing.read_assumptions(path))


# ---- the other way


@pytest.fixture(scope="module")
def own_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours, whose moving average differs from its weights."""
    job = kit.job(shards, tmp_path_factory.mktemp("own") / "run", max_steps=2, lr_generator=1e-2)
    return Path(local.fit(job).checkpoint)


def test_a_checkpoint_of_ours_goes_out_and_comes_back(own_run: Path, tmp_path: Path) -> None:
    paths, made = Paths(tmp_path), {}
    for raw in (False, True):
        file = tmp_path / f"{raw}.pth.tar"
        sentence = importing.export_upstream(str(own_run), file, None, paths, kind="fomm", raw=raw)
        assert f"{raw}.pth.tar.yaml" in sentence
        made[raw] = inspect(file, "fomm", importing.read_assumptions(Path(f"{file}.yaml")))
        mine = dataclasses.asdict(debug_config())
        assert made[raw].settings() == {name: mine[name] for name in made[raw].settings()}
        networks = load_networks(own_run, ema=not raw)[0]
        for name, network in networks.items():
            for key, value in network.state_dict().items():
                assert torch.equal(made[raw].states[name][key], value), f"{name}.{key}"
    one = "final.weight"
    assert not torch.equal(made[True].states["generator"][one], made[False].states["generator"][one])


def test_what_can_not_go_out_says_why(own_run: Path, tmp_path: Path) -> None:
    paths, file = Paths(tmp_path), tmp_path / "x.pth.tar"
    with pytest.raises(CheckpointError, match="be of --kind articulated; got fomm"):
        importing.export_upstream(str(own_run), file, None, paths, kind="articulated")
    with pytest.raises(CheckpointError, match="manifest.json must be readable"):
        importing.export_upstream(str(tmp_path), file, None, paths)
    file.touch()
    with pytest.raises(CheckpointError, match="not exist yet"):
        importing.export_upstream(str(own_run), file, None, paths)
    assert file.stat().st_size == 0


# ---- the command line


def app() -> typer.Typer:
    made = typer.Typer(cls=Commands)
    made.command("import")(model_commands.import_model)
    made.command("export-upstream")(model_commands.export_upstream)
    return made


@pytest.mark.usefixtures("unregistered")
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pth", published(build(debug_config(**AA)), "articulated"))
    words = ["import", "x.pth", "--kind", "articulated", "--size-px", "32", "--name", "aa", "--align-corners"]
    done = CliRunner().invoke(app(), words)
    assert done.exit_code == 0, done.output
    assert "region_predictor" in done.output
    assert "registered as models:/aa/1 (candidate), checkpoint in data/imported/aa" in done.output
    assert read_info(Path("data/imported/aa")).model.align_corners
    done = CliRunner().invoke(app(), ["export-upstream", "data/imported/aa", "out/y.pth", "--kind", "articulated"])
    assert done.exit_code == 0, done.output
    assert "torch 1.2 or older" in done.output
    assert Path("out/y.pth.yaml").is_file()
    for words, code, says in (
        (["import", "x.pth"], 2, "Missing option"),
        (["import", "x.pth", "--kind", "jam"], 2, "must be fomm, articulated, stylegan2"),
        (["import", "x.pth", "--kind", "fomm"], 1, "Give --kind articulated."),
        (["export-upstream", "data/imported/aa", "out/y.pth"], 1, "not exist yet"),
        (["export-upstream", "data/imported/aa", "z.pth", "--kind", "jam"], 2, "must be fomm or articulated"),
    ):
        done = CliRunner().invoke(app(), words)
        assert done.exit_code == code, done.output
        assert says in " ".join(done.output.split())


# ---- the registry


@pytest.mark.slow
def test_an_import_is_a_model_version(shards: Path, tmp_path: Path) -> None:
    from pipelines import registry
    from pipelines.served.motion import MotionSession

    paths = Paths(tmp_path)
    store, file = registry.store_of(None, paths), trained(tmp_path)[2]
    report = take(file, tmp_path)
    assert report.uri == "models:/taken/1"
    assert report.onnx_difference < 1e-3
    assert take(file, tmp_path).uri == "models:/taken/1"
    other = dataclasses.replace(SIZED, align_corners=True)
    assert take(file, tmp_path, assumptions=other).uri == "models:/taken/2"  # the same weights, another model

    first = registry.find("models:/taken/1", store)
    assert first.tags["imported.from"] == "x.pth.tar"
    assert first.tags["imported.kind"] == "fomm"
    assert first.tags["imported.epoch"] == "99"
    assert first.tags["data.licences"] == "see where it was published"
    assert not any(tag.startswith("metric.") for tag in first.tags)
    assert "imported\nfrom the published file `x.pth.tar` (First Order Motion Model)" in first.description
    assert "Using it on people" in first.description
    newest = registry.find("models:/taken@candidate", store)
    assert (newest.version, newest.aliases) == (2, ("candidate",))
    assert registry.judge(newest, first) == (False, registry.judge(newest, first)[1])
    assert MotionSession(registry.onnx_of(registry.resolve("models:/taken/1", store))).size_px == 32

    folder = registry.checkpoint_of("models:/taken/1", store, target=tmp_path / "got")
    after = tuned(dataclasses.replace(report, folder=str(folder)), shards, tmp_path / "run")
    assert steps_of(after["state"], "generator") == {4.0}

    out = tmp_path / "again.pth.tar"
    importing.export_upstream("models:/taken/1", out, None, paths)
    wanted = inspect(file, "fomm", SIZED).tensors()
    for name, value in inspect(out, "fomm", SIZED).tensors().items():
        assert torch.equal(wanted[name], value), name


@pytest.mark.slow
def test_regions_become_a_model_version(tmp_path: Path) -> None:
    file = write(tmp_path / "aa.pth", published(build(debug_config(**AA)), "articulated"))
    report = take(file, tmp_path, kind="articulated", assumptions=Assumptions(size_px=32))
    assert report.onnx_difference < 1e-3
