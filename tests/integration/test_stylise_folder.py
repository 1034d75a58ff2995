"""A folder drawn by Ray: as many workers as asked for give the drawings of one; a killed run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stylise_kit import KitModel, save, texture

from pipelines.params import ClusterConfig
from pipelines.stylise_folder import Job, stylise_folder
from pipelines.stylise_listing import listing

pytestmark = pytest.mark.slow
NUM_PHOTOS = 8
ODD = os.fsdecode(b"odd \xff.png")
TESTS = Path(__file__).parents[1]


def make_photos(folder: Path) -> Path:
    for number in range(NUM_PHOTOS - 1):
        save(folder / f"{number}" / "photo.png", texture(40, 56, seed=number))
    save(folder / ODD, texture(40, 56))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def job_of(photos: Path, out: Path) -> Job:
    return Job(model=KitModel(name="kit"), source=str(photos), out=str(out))


def drawings_in(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


def pixels_in(folder: Path) -> dict[str, np.ndarray]:
    """Of each drawing, (H, W, channels)."""
    return {name: np.asarray(Image.open(BytesIO(drawn)), np.int16) for name, drawn in drawings_in(folder).items()}


def test_two_workers_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # where the workers find the kit
    photos = make_photos(tmp_path / "photos")
    alone = stylise_folder(job_of(photos, tmp_path / "alone"), cluster=ClusterConfig(), num_workers=1)
    shared = stylise_folder(job_of(photos, tmp_path / "shared"), cluster=ClusterConfig(num_cpus=2), num_workers=2)
    assert (shared.num_made, shared.num_failed) == (alone.num_made, alone.num_failed) == (NUM_PHOTOS, 1)
    assert shared.failures == alone.failures
    one, other = pixels_in(tmp_path / "shared"), pixels_in(tmp_path / "alone")
    assert one.keys() == other.keys()
    apart = {name: int(np.abs(one[name] - other[name]).max()) for name in one}
    assert max(apart.values()) <= 1, "workers have a thread each, this process all: the last bit may be rounded apart"
    again = stylise_folder(job_of(photos, tmp_path / "shared"), cluster=ClusterConfig(num_cpus=2), num_workers=2)
    assert (again.num_made, again.num_kept, again.num_failed) == (0, NUM_PHOTOS, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "out"
    program = (
        "import sys, time; from pathlib import Path; from stylise_kit import KitEngine, KitModel\n"
        "from pipelines import stylise\n"
        "class Slow(KitModel):\n"
        "    def engine(self):\n"
        "        engine = KitEngine(); draw = engine.stylise\n"
        "        engine.stylise = lambda *a, **k: (time.sleep(0.4), draw(*a, **k))[1]\n"
        "        return engine\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "stylise.stylise(Slow(name='kit'), source, out, options=stylise.StyliseOptions(num_workers=1))\n"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(photos), str(out)], env=variables, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(drawings_in(out)) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(number)
    assert child.wait(timeout=30) != 0
    before = drawings_in(out)
    if number != signal.SIGKILL:
        assert not list(out.rglob("*.part"))
    report = stylise_folder(job_of(photos, out), cluster=ClusterConfig(), num_workers=1)
    assert report.num_kept == len(before)
    assert report.num_made == NUM_PHOTOS - len(before) > 0
    assert before.items() <= drawings_in(out).items()
    assert not list(out.rglob("*.part"))
    assert len(drawings_in(out)) == len(listing(photos)[0]) - 1
