"""Transfers that stopped half-way: what is continued, what is begun anew, and that no byte is ever wrong."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from fault_server import Fault, FaultProcess, FaultServer, Kind
from fetch_kit import DATA, OTHER, SHA256, Servers, fetch, names, reason_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetcher, Wanted
from preprocessing.fetch_part import part_of
from preprocessing.video_types import MediaError


@pytest.fixture
def serve() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.mark.parametrize("kind", ["cut", "reset", "no-range", "bad-range", "wrong-total"])
def test_a_cut_transfer_goes_on_where_it_stopped(serve: Servers, tmp_path: Path, kind: Kind) -> None:
    server = serve(Fault(kind=kind, num_bytes=100_000))
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    first, second = server.seen("a.bin")
    assert first.range is None
    assert (second.range, second.status, second.sent) == ("bytes=100000-", 206, 200_000)
    assert second.if_range is not None
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_rest_that_comes_in_pieces_is_joined(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="cut", num_bytes=100_000), Fault(kind="short-range"), Fault(kind="short-range"))
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    assert [seen.range for seen in server.seen("a.bin")] == [None, *(f"bytes={100_000 + k}-" for k in range(3))]
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize(
    "kind", ["changed", "ignores-if-range", "bad-range", "wrong-total", "not-satisfiable", "no-range"]
)
def test_a_rest_that_does_not_fit_is_never_appended(serve: Servers, tmp_path: Path, kind: Kind) -> None:
    server = serve(Fault(kind="cut", num_bytes=100_000), Fault(kind=kind, num_bytes=120_000))
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.seen("a.bin")[1].range == "bytes=100000-"


@pytest.mark.parametrize("kind", ["weak", "no-validator", "chunked"])
def test_what_no_validator_vouches_for_is_resumed_only_with_a_checksum(
    serve: Servers, tmp_path: Path, kind: Kind
) -> None:
    faults = (Fault(kind=kind, num_bytes=100_000), Fault(kind=kind))
    plain, checked = serve(*faults), serve(*faults)
    fetch(plain.of("a.bin"), tmp_path / "plain", num_bytes=len(DATA))
    fetch(checked.of("a.bin"), tmp_path / "checked", sha256=SHA256)
    assert plain.seen("a.bin")[1].range == (None if kind != "chunked" else "bytes=100000-")  # it has an ETag
    assert checked.seen("a.bin")[1].range == "bytes=100000-"
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "checked").read_bytes() == DATA


def test_progress_renews_the_retries(serve: Servers, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(1_000_000)
    server = serve(*(Fault(kind="cut", num_bytes=70_000 * k) for k in range(1, 13)), data=data)
    fetch(server.of("a.bin"), tmp_path / "a.bin", num_retries=1)
    assert (tmp_path / "a.bin").read_bytes() == data
    assert sum(seen.sent for seen in server.seen("a.bin")) == len(data)


def test_the_same_bytes_again_are_no_progress(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="no-validator", num_bytes=200_000, is_forever=True))
    assert reason_of(server.of("a.bin"), tmp_path / "a.bin", num_retries=2) == "network"
    assert len(server.seen("a.bin")) == 3


def test_a_resumed_file_that_proves_wrong_starts_from_zero(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="changed", num_bytes=100_000))
    other = serve()
    urls = (server.of("a.bin"), other.of("a.bin"))
    with pytest.raises(MediaError):
        fetch(urls[0], tmp_path / "a.bin", num_retries=0)
    fetch(urls[1], tmp_path / "a.bin", sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [seen.range for seen in other.seen("a.bin")] == ["bytes=100000-", None]


@pytest.mark.parametrize("is_checked", [False, True])
def test_parts_of_two_addresses_are_joined_only_under_a_checksum(
    serve: Servers, tmp_path: Path, is_checked: bool
) -> None:
    first = serve(Fault(kind="cut", num_bytes=100_000), Fault(kind="status", status=404, is_forever=True))
    second = serve(data=DATA if is_checked else OTHER)
    known = {"sha256": SHA256} if is_checked else {}
    fetched = fetch((first.of("a.bin"), second.of("a.bin")), tmp_path / "a.bin", **known)
    assert (tmp_path / "a.bin").read_bytes() == (DATA if is_checked else OTHER)
    assert fetched.url == second.of("a.bin")
    asked = second.seen("a.bin")
    assert [(seen.range, seen.if_range) for seen in asked] == [("bytes=100000-" if is_checked else None, None)]


def test_the_next_call_begins_where_its_part_is_from(serve: Servers, tmp_path: Path) -> None:
    first, second = serve(data=OTHER), serve(Fault(kind="cut", num_bytes=100_000))
    with pytest.raises(MediaError):
        fetch(second.of("a.bin"), tmp_path / "a.bin", num_retries=0)
    fetch((first.of("a.bin"), second.of("a.bin")), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert first.requests == []


def test_what_an_earlier_call_left_is_continued(serve: Servers, tmp_path: Path) -> None:
    server, gained = serve(Fault(kind="cut", num_bytes=100_000)), list[int]()
    with pytest.raises(MediaError):
        fetch(server.of("a.bin"), tmp_path / "a.bin", num_retries=0)
    assert names(tmp_path) == [".a.bin.part", ".a.bin.part.json"]
    fetch(server.of("a.bin"), tmp_path / "a.bin", on_bytes=gained.append)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.seen("a.bin")[1].range == "bytes=100000-"
    assert gained[0] == 100_000
    assert sum(gained) == len(DATA)


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"address": 3}', '{"address": "x", "total": "many"}', "[" * 10_000]
)
def test_a_part_whose_record_is_spoilt_is_not_continued(serve: Servers, tmp_path: Path, record: str) -> None:
    server = serve()
    part_of(tmp_path / "a.bin").write_bytes(b"x" * 1000)
    part_of(tmp_path / "a.bin").with_name(".a.bin.part.json").write_text(record)
    fetch(server.of("a.bin"), tmp_path / "a.bin", sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [seen.range for seen in server.seen("a.bin")] == [None]
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("extra", [0, 1])
def test_a_part_that_is_whole_or_more(serve: Servers, tmp_path: Path, extra: int) -> None:
    server = serve(Fault(kind="cut", num_bytes=299_999))
    with pytest.raises(MediaError):
        fetch(server.of("a.bin"), tmp_path / "a.bin", num_retries=0)
    with part_of(tmp_path / "a.bin").open("ab") as part:
        part.write(DATA[-1:] + b"x" * extra)
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert len(server.seen("a.bin")) == 1 + extra  # killed just before the rename: nothing is left to ask for


@pytest.mark.parametrize(("synced", "begin"), [(60_000, "bytes=60000-"), (0, None)])
def test_after_a_crash_of_the_machine_only_synced_bytes_count(
    serve: Servers, tmp_path: Path, synced: int, begin: str | None
) -> None:
    server = serve(Fault(kind="cut", num_bytes=100_000))
    with pytest.raises(MediaError):
        fetch(server.of("a.bin"), tmp_path / "a.bin", num_retries=0)
    record = tmp_path / ".a.bin.part.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "an earlier one", "synced": synced}))
    part_of(tmp_path / "a.bin").write_bytes(DATA[:synced] + bytes(100_000 - synced))
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.seen("a.bin")[1].range == begin


def test_a_full_disk_is_the_machines_problem_and_keeps_what_came(tmp_path: Path, root: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from models.errors import EnvironmentProblem
from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetcher, Wanted
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Fetcher(FetchConfig()) as fetcher:
        fetcher.file(Wanted(urls=(sys.argv[1],)), Path(sys.argv[2]))
except EnvironmentProblem as problem:
    sys.exit(0 if "a.bin.part" in str(problem) else 3)
"""
    with FaultServer({"a.bin": DATA}) as server:
        command = [sys.executable, "-c", script, server.of("a.bin"), str(tmp_path / "a.bin")]
        assert subprocess.run(command, cwd=root, timeout=60).returncode == 0
        assert part_of(tmp_path / "a.bin").read_bytes() == DATA[:100_000]
        fetch(server.of("a.bin"), tmp_path / "a.bin")
        assert server.seen("a.bin")[-1].range == "bytes=100000-"
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_ctrl_c_leaves_the_part_for_later(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="stall", num_bytes=100_000))
    gained = [0]

    def interrupt(num_bytes: int) -> None:
        gained[0] += num_bytes
        if gained[0] >= 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.of("a.bin"), tmp_path / "a.bin", on_bytes=interrupt)
    kept = part_of(tmp_path / "a.bin").stat().st_size
    assert 50_000 <= kept <= 100_000
    fetch(server.of("a.bin"), tmp_path / "a.bin")
    assert server.seen("a.bin")[1].range == f"bytes={kept}-"
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_killed_process_is_continued_by_the_next(tmp_path: Path, root: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.bin").write_bytes(DATA)
    target = tmp_path / "a.bin"
    script = """
import sys
from pathlib import Path
from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetcher, Wanted
with Fetcher(FetchConfig()) as fetcher:
    fetcher.file(Wanted(urls=(sys.argv[1],)), Path(sys.argv[2]))
"""
    sizes = [70_000, 150_000, 230_000]
    faults = {"a.bin": [Fault(kind="stall", num_bytes=size) for size in sizes]}
    with FaultProcess(tmp_path / "served", faults=faults) as server:
        for size in sizes:
            child = subprocess.Popen([sys.executable, "-c", script, server.of("a.bin"), str(target)], cwd=root)
            deadline = time.monotonic() + 60
            while not (part_of(target).exists() and part_of(target).stat().st_size == size):
                assert time.monotonic() < deadline
                assert child.poll() is None
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.wait(30)
            assert not target.exists()
        fetch(server.of("a.bin"), target)
        ranges = [seen.range for seen in server.seen("a.bin")]
    assert target.read_bytes() == DATA
    assert ranges == [None, "bytes=70000-", "bytes=150000-", "bytes=230000-"]
    assert names(tmp_path) == ["a.bin", "served"]


CUTS = st.lists(st.tuples(st.sampled_from(["cut", "changed", "weak", "chunked"]), st.integers(1, 4999)), max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS, is_checked=st.booleans(), num_kills=st.integers(0, 2))
def test_cuts_at_any_byte_end_in_the_same_bytes(
    tmp_path: Path, cuts: list[tuple[Kind, int]], is_checked: bool, num_kills: int
) -> None:
    data, target = DATA[:5000], tmp_path / "a.bin"
    faults = [Fault(kind=kind, num_bytes=size) for kind, size in cuts]
    known = {"sha256": hashlib.sha256(data).hexdigest()} if is_checked else {}
    with FaultServer({"a.bin": data}, {"a.bin": faults}) as server:
        for _ in range(num_kills):  # calls that give up at once, unless the rest is refused and all comes anew
            with suppress(MediaError):
                fetch(server.of("a.bin"), target, num_retries=0, **known)
        fetch(server.of("a.bin"), target, num_retries=7, **known)
    assert target.read_bytes() == data
    assert names(tmp_path) == ["a.bin"]
    target.unlink()


@pytest.mark.parametrize("seed", range(6))
def test_seeded_faults_end_in_the_same_files(tmp_path: Path, seed: int) -> None:
    files = {f"{k}.bin": random.Random(k).randbytes(3000 + 7000 * k) for k in range(6)}
    with FaultServer(files, seed=seed) as server:
        with ThreadPoolExecutor(6) as pool, Fetcher(FetchConfig(), sleep=lambda _: None) as fetcher:
            list(pool.map(lambda name: fetcher.file(Wanted(urls=(server.of(name),)), tmp_path / name), files))
        assert len(server.requests) > len(files)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
