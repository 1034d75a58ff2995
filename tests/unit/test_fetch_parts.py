"""What fetching is made of: limits, parts on the disk, local files and stores, the public face."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fault_server import FaultServer

from models.errors import EnvironmentProblem, ParamsError
from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetched, Fetcher, FetchStopped, Wanted, discard_part, mirrored
from preprocessing.fetch_limits import Bandwidth, Clock, Lost, Pace, Patience, Slots, retry_after_s
from preprocessing.fetch_part import Record, address_of, opened, part_of
from preprocessing.fetch_transfer import not_a_file
from preprocessing.video_types import MediaError

DATA = random.Random(5).randbytes(700_000)


class Fake:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.time, self.waits = 100.0, list[float]()
        self.clock = Clock(self.sleep, lambda: self.time)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds


def fetch(url: str, target: Path, **known: Any) -> Fetched:
    with Fetcher(FetchConfig(), sleep=lambda _: None) as fetcher:
        return fetcher.file(Wanted(urls=(url,), **known), target)


def reason_of(url: str, target: Path, **known: Any) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(url, target, **known)
    assert not target.exists()
    return caught.value.reason


def test_bandwidth_is_paid_for_after_each_read() -> None:
    fake = Fake()
    bandwidth = Bandwidth(1.0, fake.clock)
    for _ in range(50):
        bandwidth.take(100_000)
    assert fake.time - 100 == pytest.approx(5.0)
    fake.time += 1000  # what was not used does not add up
    bandwidth.take(100_000)
    bandwidth.take(1_000_000)
    assert fake.waits[-1] == pytest.approx(1.0)
    Bandwidth(None, fake.clock).take(10**15)
    assert fake.time == pytest.approx(1106.0)


def test_a_host_that_asks_for_quiet_gets_it_from_all() -> None:
    fake = Fake()
    slots = Slots(total=2, per_host=2, clock=fake.clock)
    slots.hold_off("a", 30)
    slots.hold_off("a", 10)
    with slots.of("b"):
        assert fake.waits == []
    with slots.of("a"):
        assert fake.waits == [30]
    with slots.of("a"):
        assert fake.waits == [30]


def test_a_pause_lies_between_the_starts_of_one_host() -> None:
    fake = Fake()
    slots = Slots(total=9, per_host=9, clock=fake.clock)
    starts = []
    for host in ("a", "a", "b", "a"):
        with slots.of(host, pause_s=5):
            starts.append(fake.time - 100)
    assert starts == [0, 5, 5, 10]


def test_a_thread_that_waits_for_a_place_can_be_stopped() -> None:
    clock = Clock()
    slots = Slots(total=1, per_host=1, clock=clock)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            with slots.of("a"):
                pass
        except FetchStopped as error:
            errors.append(error)

    with slots.of("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        clock.stop()
        thread.join(10)
    assert len(errors) == 1


def test_pace_counts_whole_windows() -> None:
    pace = Pace(min_bytes_per_s=1000, window_s=60)
    for _ in range(3):
        pace.add(30_000, 30)
        pace.add(30_001, 30)
    pace.add(59_000, 59)
    with pytest.raises(TimeoutError):
        pace.add(1, 1)


def test_patience_ends_and_a_fair_piece_renews_it() -> None:
    patience = Patience(FetchConfig(num_retries=2, backoff_s=1, max_backoff_s=10))
    patience.start(0)
    lost = Lost("it must work; got nothing.", "network")
    assert 0.5 <= patience.next_wait_s(lost, size=10, total=None) <= 1
    assert 1 <= patience.next_wait_s(lost, size=60_000, total=None) <= 2
    assert 0.5 <= patience.next_wait_s(lost, size=66_000, total=None) <= 1
    assert 1 <= patience.next_wait_s(lost, size=200_000, total=10**9) <= 2  # under a thousandth
    with pytest.raises(MediaError) as caught:
        patience.next_wait_s(lost, size=300_000, total=10**9)
    assert caught.value.reason == "network"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12),
        ({"Retry-After": "1" * 5000}, 111_111_111_111),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "\u0663"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:10 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:10 -0000", "Date": "Wed, 21 Oct 2015 07:28:00 +0000"}, 10),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_part_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as part:
        part.restart(Record(address="x"))
        part.append(b"abc")
        with pytest.raises(EnvironmentProblem, match="second"), opened(tmp_path / "a"):
            pass
    with opened(tmp_path / "a") as part:
        assert (part.size, part.head, part.sha256) == (3, b"abc", hashlib.sha256(b"abc").hexdigest())
    discard_part(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_another_has_just_finished_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking the other renames it: the lock is then on the finished file."""
    target, calls = tmp_path / "a", []

    def lock(file: int) -> None:
        if not calls:
            os.write(file, b"whole")
            os.replace(part_of(target), target)
        calls.append(file)

    monkeypatch.setattr("preprocessing.fetch_part._lock", lock)
    with opened(target) as part:
        part.restart(Record(address="x"))
        part.append(b"other")
    assert len(calls) == 2
    assert target.read_bytes() == b"whole"


def test_synced_bytes_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.fetch_part.SYNC_BYTES", 1000)
    with opened(tmp_path / "a") as part:
        part.restart(Record(address="x"))
        for _ in range(7):
            part.append(b"x" * 300)
    with opened(tmp_path / "a") as part:
        assert part.record is not None
        assert (part.record.synced, part.size) == (1200, 2100)


def test_a_folder_that_can_not_be_written_is_the_machines_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem):
        fetch(str(tmp_path / "file"), tmp_path / "file" / "a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(EnvironmentProblem):
        fetch(str(tmp_path / "b"), tmp_path / "folder")


def test_validators() -> None:
    assert address_of("http://a/\ud800") != address_of("http://a/")
    here = Record(address="a", etag='"1"', last_modified="now", total=5)
    assert here.validator == '"1"'
    assert Record(address="a", etag='W/"1"', last_modified="now").validator == "now"
    assert Record(address="a", etag='W/"1"').validator is None
    assert here.continues(Record(address="a"))
    assert not here.continues(Record(address="a", etag='"2"'))
    assert not here.continues(Record(address="a", total=6))
    assert not here.continues(Record(address="a", last_modified="later"))
    assert here.continues(Record(address="b", etag='"2"', total=5))


@pytest.mark.parametrize("as_url", [False, True])
def test_local_files_are_copied(tmp_path: Path, as_url: bool) -> None:
    source = tmp_path / "a b%.mp4"
    source.write_bytes(DATA)
    gained = list[int]()
    with Fetcher(FetchConfig(bandwidth_mb_per_s=1e-6)) as fetcher:
        wanted = Wanted(urls=(source.as_uri() if as_url else str(source),), sha256=hashlib.sha256(DATA).hexdigest())
        fetched = fetcher.file(wanted, tmp_path / "deep" / "er" / "b.mp4", on_bytes=gained.append)
    assert (tmp_path / "deep" / "er" / "b.mp4").read_bytes() == source.read_bytes() == DATA
    assert (fetched.num_bytes, sum(gained)) == (len(DATA), len(DATA))


def test_local_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "page").write_text("<!doctype html><title>x</title>")
    target = tmp_path / "out" / "a"
    for name, reason in (("gone", "missing"), ("pipe", "unsupported"), (".", "unsupported"), ("empty", "empty")):
        assert reason_of(str(tmp_path / name), target) == reason
    assert reason_of(str(tmp_path / "page"), target) == "not-media"
    assert reason_of("bad\0name", target) == "unreadable"
    assert reason_of(str(tmp_path / "page"), target, num_bytes=3) == "wrong-length"
    assert reason_of(str(tmp_path / "page"), target, md5="0" * 32) in ("wrong-checksum", "not-media")
    assert list((tmp_path / "out").iterdir()) == []
    assert fetch(str(tmp_path / "empty"), target, num_bytes=0).num_bytes == 0
    assert list((tmp_path / "out").iterdir()) == [target]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


class Boom(Exception):
    """A store's own class of error."""


@pytest.mark.parametrize("is_changed", [False, True])
def test_stores_are_read_and_resumed(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    memory.pipe("/b/a.bin", DATA if not is_changed else DATA[::-1])
    reads: list[int] = []

    def read(stream: Any, size: int) -> bytes:
        reads.append(stream.tell())
        if len(reads) == 2:
            memory.pipe("/b/a.bin", DATA)
            if not is_changed:
                memory.store["/b/a.bin"].modified = memory.store["/b/a.bin"].created = stamp
            raise Boom
        return bytes(type(stream).read(stream, size))

    monkeypatch.setattr("preprocessing.fetch_files.FileAnswer._read", _reading(read))
    stamp = memory.store["/b/a.bin"].created
    fetch("memory://b/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert reads[2] == (0 if is_changed else 262_144)


def _reading(read: Any) -> Any:
    """`FileAnswer._read` over a stream that fails."""

    def wrapped(self: Any) -> bytes:
        try:
            return bytes(read(self._stream, 1 << 18))
        except Boom:
            raise Lost("a store must answer; got Boom.", "network") from None

    return wrapped


def test_stores_that_can_not_be_read(tmp_path: Path, memory: Any) -> None:
    memory.mkdir("/folder")
    assert reason_of("memory://gone.bin", tmp_path / "a") == "missing"
    assert reason_of("nonsense://a/b", tmp_path / "a") == "unsupported"
    with pytest.raises(EnvironmentProblem, match="ocifs"):
        fetch("oci://bucket/a.bin", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_breaks_is_a_network_problem(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/a.bin", DATA)

    def info(*_: object, **__: object) -> None:
        raise Boom

    monkeypatch.setattr(type(memory), "info", info)
    assert reason_of("memory://a.bin", tmp_path / "a") == "network"


@pytest.mark.parametrize(
    ("head", "content_type", "may_be_text", "is_file"),
    [
        (b"\x00\x00\x00 ftypisom", "text/html", False, True),
        (b"<!DOCTYPE html><html>", "video/mp4", False, False),
        (b"\xef\xbb\xbf \n<HTML>", "", True, False),
        (b"<?xml version='1.0'?><html xmlns=''>", "", True, False),
        (b"<?xml version='1.0'?><svg><title>a</title></svg>", "image/svg+xml", False, True),
        (b"<!-- a page --><head>", "", False, False),
        (b"Please sign in", "text/html", False, False),
        (b"a,b\n<html>,2\n", "text/html", True, True),
        (b'{"error": "no"}', "application/json", False, False),
        (b'{"a": 1}', "application/json", True, True),
        (b"<Error><Code>AccessDenied</Code></Error>", "application/xml", False, False),
        (b"plain", "text/plain", False, True),
        (b"GIF89a<html>", "", False, True),
        (b"PK\x03\x04", "text/html", False, True),
        (b"", "", False, True),
    ],
)
def test_what_stands_in_for_a_file_is_seen(head: bytes, content_type: str, may_be_text: bool, is_file: bool) -> None:
    assert (not_a_file(head, content_type, may_be_text=may_be_text) is None) == is_file


def test_mirrors_come_first() -> None:
    urls = ("https://host/a.zip",)
    assert mirrored(urls, None, "a.zip") == urls
    assert mirrored(urls, "http://near/x/", "a b/c#.zip") == ("http://near/x/a%20b/c%23.zip", *urls)
    assert mirrored(urls, "http://near?key=1", "a.zip")[0] == "http://near/a.zip?key=1"
    assert mirrored(urls, "/disk/", "a b.zip")[0] == "/disk/a b.zip"
    assert mirrored(urls, "file:///disk", "a b.zip")[0] == "file:///disk/a%20b.zip"
    assert mirrored((), "s3://bucket/x", "a b.zip") == ("s3://bucket/x/a b.zip",)


@pytest.mark.parametrize(
    "wrong", [{"urls": ()}, {"urls": ("",)}, {"sha256": "x"}, {"md5": "0" * 31}, {"num_bytes": -1}]
)
def test_what_is_wanted_must_make_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        Wanted(**{"urls": ("a",), **wrong})


def test_videos_at_a_plain_host_are_files(tmp_path: Path) -> None:
    with FaultServer({"v/-a_B.mp4": DATA}) as server, Fetcher(FetchConfig()) as fetcher:
        template = server.url + "/v/{id}.mp4"
        assert fetcher.video("-a_B", tmp_path / "a.mp4", url_template=template).num_bytes == len(DATA)
        for bad in ("", "..", "a/b", "../a", "a?b", "a b", "\u00e9", "x" * 200):
            with pytest.raises(MediaError) as caught:
                fetcher.video(bad, tmp_path / "b.mp4", url_template=template)
            assert caught.value.reason == "bad-row"
        assert len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("template", "is_site"),
    [
        ("https://www.youtube.com/watch?v={id}", True),
        ("https://youtu.be/{id}", True),
        ("https://youtube.com:443/watch?v={id}", True),
        ("file:///notyoutube.com/{id}", False),
    ],
)
def test_videos_of_a_site_go_to_its_own_fetcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, is_site: bool
) -> None:
    asked: list[str] = []
    whole = Fetched(num_bytes=1, sha256="0", url="x")

    def fetch_video(url: str, target: Path, config: FetchConfig, *, on_bytes: Any, wait: Any) -> Fetched:
        asked.append(url)
        on_bytes(1000)
        wait(1.0)
        return whole

    stand_in = types.ModuleType("preprocessing.fetch_youtube")
    stand_in.fetch_video = fetch_video  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "preprocessing.fetch_youtube", stand_in)
    fake = Fake()
    with Fetcher(FetchConfig(pause_s=7), sleep=fake.sleep, now=lambda: fake.time) as fetcher:
        if is_site:
            assert fetcher.video("abc", tmp_path / "a", url_template=template) == whole
            assert fetcher.video("abc", tmp_path / "a", url_template=template) == whole
            assert asked == [template.replace("{id}", "abc")] * 2
            assert fake.waits == [1.0, 6.0, 1.0]
        else:
            with pytest.raises(MediaError):
                fetcher.video("abc", tmp_path / "a", url_template=template)
            assert asked == []
