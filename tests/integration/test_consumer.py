"""An application with nothing of this project: five packages, the registry's URL, and its own models/ and training/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from server_kit import Server

from models.export import export_motion
from models.motion.networks import build, debug_config
from pipelines import registry
from pipelines.engines import TorchSession
from pipelines.moving import move
from pipelines.served.motion import Motion, transfer

pytestmark = pytest.mark.slow

PACKAGES = ("mlflow-skinny", "pandas", "onnxruntime", "numpy", "pillow")

CONSUMER = """
import json, os, sys

forbidden = sys.argv[1]

def refuse(event, args):
    if event in ("open", "os.listdir", "os.scandir", "os.chdir") and args and isinstance(args[0], (str, bytes)):
        name = os.path.realpath(os.fsdecode(args[0]))
        if name == forbidden or name.startswith(forbidden + os.sep):
            raise PermissionError(f"the checkout is out of bounds: {event} {name}")

sys.addaudithook(refuse)
import models, training
assert models.MINE and training.MINE

import mlflow, numpy as np
frames = np.load("frames.npz")
version = {}
for uri in json.loads(sys.argv[2]):
    model = mlflow.pyfunc.load_model(uri)
    assert model.predict(model.input_example).shape == (2, 32, 32, 3)
    made = model.predict({"source": frames["source"], "driving": frames["driving"]})
    np.save(f"out-{len(version)}.npy", made)
    version[uri] = [str(made.dtype), list(made.shape)]
assert models.MINE and "inkmotion" not in json.dumps([str(getattr(m, "__file__", "")) for m in sys.modules.values()])
print(json.dumps(version))
"""


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    torch.manual_seed(0)
    return {name: network.eval() for name, network in build(debug_config()).items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def parcel(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> registry.Parcel:
    folder = tmp_path_factory.mktemp("parcel")
    export_motion(networks, debug_config(), folder / "motion.onnx")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "manifest.json").write_text("{}")
    return registry.Parcel(
        name="fomm-debug",
        run_id=None,
        onnx=folder / "motion.onnx",
        checkpoint=folder / "checkpoint",
        card="# card",
        tags={"weights.sha256": "1", "metric.name": "l1", "metric.value": "0.1", "metric.data": "d"},
        size_px=32,
    )


@pytest.fixture(scope="module")
def python(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consumer") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-c", str(root / "constraints.txt")]
    done = subprocess.run([*install, *PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index here: {done.stderr[-300:]}")
    return folder / "bin" / "python"


def with_aliases(store: registry.Store, version: registry.Version) -> None:
    with registry.speaking_to(store.uri, timeout_s=30) as client:
        client.set_registered_model_alias(version.name, "champion", str(version.version))


def consume(python: Path, folder: Path, uri: str, checkout: Path, models: list[str]) -> dict[str, Any]:
    for name in ("models", "training"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("MINE = True\n")
    (folder / "app.py").write_text(CONSUMER)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_TRACKING_URI": uri, "TMPDIR": str(folder)}
    env["MLFLOW_DISABLE_TELEMETRY"] = "true"
    command = [str(python), "app.py", str(checkout.resolve()), json.dumps(models)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_consumer_with_nothing_but_the_url(
    root: Path, server: Server, parcel: registry.Parcel, networks: dict[str, Any], python: Path, tmp_path: Path
) -> None:
    local = registry.Store(uri=f"sqlite:///{tmp_path}/local.db")
    for sha256 in ("1", "2", "3"):
        tags = {**parcel.tags, "weights.sha256": sha256}
        fields = {name: getattr(parcel, name) for name in parcel.__dataclass_fields__}
        made = registry.register(registry.Parcel(**{**fields, "tags": tags}), local)
    with_aliases(local, made)
    there = registry.Store(uri=server.uri)
    moved = move(local, there)
    assert (moved.models, moved.versions) == (1, 3)
    assert move(local, there).versions == 0
    known = registry.versions_of("fomm-debug", there)
    assert [version.version for version in known] == [1, 2, 3]
    assert known[2].aliases == ("candidate", "champion")
    assert known[0].tags["weights.sha256"] == "1"
    assert (registry.checkpoint_of("models:/fomm-debug@champion", there) / "manifest.json").read_text() == "{}"

    rng = np.random.default_rng(0)
    source, driving = (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (1, 5))
    folder = tmp_path / "an app"
    folder.mkdir()
    np.savez(folder / "frames.npz", source=source, driving=driving)
    uris = ["models:/fomm-debug@champion", "models:/fomm-debug/1", "models:/fomm-debug/2"]
    shapes = consume(python, folder, server.uri, root, uris)
    assert shapes == {uri: ["float32", [5, 32, 32, 3]] for uri in uris}

    trainer = TorchSession(networks["generator"], networks["keypoint_detector"], size_px=32, device="cpu")
    start, moved_points = trainer.keypoints(source), trainer.keypoints(driving)
    reference = Motion(moved_points.value[:1], moved_points.jacobian[:1])
    wanted = trainer.render(source[0], transfer(start, moved_points, reference, relative=True, adapt_scale=False))
    for number in range(len(uris)):
        got = np.load(folder / f"out-{number}.npy")
        assert np.abs(got - wanted).max() < 1e-3


def test_registering_straight_on_a_server(server: Server, parcel: registry.Parcel, tmp_path: Path) -> None:
    store = registry.Store(uri=server.uri)
    fields = {name: getattr(parcel, name) for name in parcel.__dataclass_fields__}
    version = registry.register(registry.Parcel(**{**fields, "name": "straight"}), store)
    assert version.aliases == ("candidate",)
    folder = registry.resolve("models:/straight@candidate", store, target=tmp_path)
    assert len(list(folder.rglob("*.onnx"))) == 1
    assert not list(folder.rglob("*.data"))
    assert (registry.checkpoint_of(version.uri, store) / "manifest.json").read_text() == "{}"
