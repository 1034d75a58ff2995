"""Download and cut, killed twenty times at random moments, end with exactly what an undisturbed run leaves.

A server on loopback fails as web servers do (statuses, cut connections, wrong lengths, other files than before, pages
in place of files); a metadata CSV of 200 rows says what to cut, some of them wrong on purpose.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from fault_server import PASSING, Fault, FaultProcess
from miniature_kit import MAN, WOMAN, piece

from pipelines.session import head
from preprocessing.clips import read_manifest, sha256_of
from preprocessing.ledger import read_ledger

pytestmark = pytest.mark.slow

NUM_KILLS, NUM_ROWS, SEED = 20, 200, 20261121
HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id"
GOOD = [f"video{number:02d}" for number in range(14)]
BAD_ROWS = (
    "video00,90,20,100-50-300-250,24,640,360,train,id0",
    "video00,0,60,100-50-300,24,640,360,train,id0",
    "video01,0,sixty,100-50-300-250,24,640,360,train,id1",
    "video01,0,60,100-50-900-250,24,640,360,train,id1",
    "video02,0,60,300-50-100-250,24,640,360,train,id2",
    "video02,0,60,100-50-300-250,0,640,360,train,id2",
)
LOST = {"lost-page": "not-media", "lost-404": "not-found", "lost-half": "truncated"}
"""Videos that can't be had, and why."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for number, one in enumerate(GOOD):
        source, start = (WOMAN, 32 * number) if number < 12 else (MAN, 4 * (number - 12))
        piece(source, folder / f"{one}.mp4", start, start + 64)
    (folder / "lost-page.mp4").write_bytes(b"<!DOCTYPE html><html><body>Sign in, please.</body></html>")
    whole = (folder / "video00.mp4").read_bytes()
    (folder / "lost-half.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "vox-metadata.csv").write_text("\n".join([HEADER, *rows()]) + "\n")
    return folder


def rows() -> list[str]:
    draw = random.Random(SEED)
    found = list(BAD_ROWS)
    for number, one in enumerate(LOST):
        found += [f"{one},{start},{start + 40},100-50-300-250,24,640,360,train,id9{number}" for start in (0, 10)]
    while len(found) < NUM_ROWS - 2:
        number = draw.randrange(len(GOOD))
        start = draw.randrange(0, 40)
        left, top, side = draw.randrange(0, 300), draw.randrange(0, 120), draw.randrange(80, 230)
        box = f"{left}-{top}-{left + side}-{top + side}"
        line = f"{GOOD[number]},{start},{start + draw.randrange(9, 24)},{box},24,640,360,"
        line += f"{'test' if number % 5 == 4 else 'train'},id{number}"
        if line not in found:
            found.append(line)
    return [*found, found[-1], found[-2]]  # two duplicates


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    with head(num_cpus=2) as variables:
        yield variables


class Stage:
    """A project of its own, and its stages as a user would start them."""

    def __init__(self, root: Path, folder: Path, url: str, variables: Mapping[str, str]) -> None:
        self.cli, self.folder, self.url = root / "cli.py", folder, url
        self.environment = {**os.environ, **variables}
        folder.mkdir(parents=True)
        settings = {
            "profile": "p",
            "profiles": {"p": {}},
            "datasets": {"vox": {"preset": "voxceleb1", "size_px": 64, "min_frames": 8, "yield_floor": 0.5}},
            "fetching": {"backoff_s": 0.01, "max_backoff_s": 0.1, "timeout_s": 5, "num_retries": 8},
        }
        (folder / "params.yaml").write_text(yaml.safe_dump(settings))

    def start(self, stage: str) -> subprocess.Popen[bytes]:
        words = ["download", "vox", "--accept-terms", "--mirror", self.url] if stage == "download" else ["cut", "vox"]
        with (self.folder / "log.txt").open("ab") as log:
            command = [sys.executable, str(self.cli), *words]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def finish(self, stage: str) -> None:
        code = self.start(stage).wait(240)
        assert code == 0, (self.folder / "log.txt").read_text()[-3000:]

    def num_done(self, stage: str) -> int:
        journal = self.folder / "data" / ("raw" if stage == "download" else "clips") / ".vox.journal.jsonl"
        return len(journal.read_bytes().splitlines()) if journal.exists() else 0

    def content(self) -> dict[str, str]:
        """Files and what is in them; the ledger's sentences name the server, whose port is another each time."""
        data = self.folder / "data"
        return {
            path.relative_to(data).as_posix(): path.read_text().replace(self.url, "http://server")
            if path.name == "ledger.jsonl"
            else sha256_of(path)
            for kind in ("raw", "clips")
            for path in sorted((data / kind / "vox").rglob("*"))
            if path.is_file()
        }


def kill_at_random(project: Stage, stage: str, draw: random.Random) -> bool:
    """Start a stage and kill it; False: it was through before."""
    before = project.num_done(stage)
    process = project.start(stage)
    wanted, wait_s = draw.choice((0, 0, 1)), draw.uniform(0.0, 0.6)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            at_work = (project.folder / "data" / ("raw" if stage == "download" else "clips")).is_dir()
            if at_work and project.num_done(stage) >= before + wanted:
                break
            time.sleep(0.01)
        time.sleep(wait_s)
        was_running = process.poll() is None
    finally:
        process.kill()
        process.wait(30)
    return was_running


def test_killed_twenty_times_the_result_is_the_same(
    root: Path, tmp_path: Path, served: Path, cluster: Mapping[str, str]
) -> None:
    faults = {"/lost-404.mp4": [Fault(kind="status", status=404, is_forever=True)]}
    with FaultProcess(served, seed=SEED, faults=faults, kinds=PASSING) as server:
        calm = Stage(root, tmp_path / "calm", server.url, cluster)
        calm.finish("download")
        calm.finish("cut")
        assert len(server.requests()) > 2 * len(GOOD), "the server's faults were met"
    draw, kills = random.Random(SEED), Counter[str]()
    with FaultProcess(served, seed=SEED, faults=faults, kinds=PASSING) as server:
        killed = Stage(root, tmp_path / "killed", server.url, cluster)
        for stage in ("download", "cut"):
            for _ in range(4 * NUM_KILLS):
                if kills[stage] == NUM_KILLS // 2 or not kill_at_random(killed, stage, draw):
                    break
                kills[stage] += 1
            killed.finish(stage)
    assert sum(kills.values()) == NUM_KILLS, kills
    assert killed.content() == calm.content()
    check_result(calm)


def check_result(project: Stage) -> None:
    raw, clips = (project.folder / "data" / kind / "vox" for kind in ("raw", "clips"))
    of_video = {row.video_id: row for row in read_ledger(raw) if row.video_id}
    assert {one: of_video[one].reason for one in LOST} == LOST
    assert all(of_video[one].state == "kept" for one in GOOD)
    ledger = read_ledger(clips)
    assert len(ledger) == NUM_ROWS
    reasons = Counter(row.reason for row in ledger if row.state == "rejected")
    assert reasons.pop("no-video") == 2 * len(LOST)
    assert reasons.pop("duplicate-row") == 2
    assert reasons.pop("bad-row") + reasons.pop("box-outside") == len(BAD_ROWS)
    manifest = read_manifest(clips)
    kept = [row for row in ledger if row.state == "kept"]
    assert {clip.id for clip in manifest} == {row.item for row in kept}
    assert len(kept) + reasons.total() == NUM_ROWS - 2 * len(LOST) - 2 - len(BAD_ROWS)
    assert len(kept) > 150
    numbers = {row.origin.rpartition(":")[2] for row in ledger}
    assert numbers == {str(number) for number in range(2, NUM_ROWS + 2)}, "each line of the CSV, once"
