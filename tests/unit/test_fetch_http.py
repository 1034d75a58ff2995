"""Fetching over HTTP from a server that fails as asked: the exact file, or the documented reason."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_server import PASSING, Fault, FaultServer, Kind, Reply, Seen, changed
from fetch_kit import DATA, SHA256, Servers, fetch, names, reason_of

from models.errors import EnvironmentProblem
from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetched, Fetcher, FetchStopped, Wanted
from preprocessing.fetch_connections import Session
from preprocessing.fetch_http import Asking, Reading
from preprocessing.fetch_limits import Clock
from preprocessing.video_types import MediaError


@pytest.fixture
def serve() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.mark.parametrize("kind", [*PASSING, "ignores-if-range", "no-length", "empty"])
def test_a_fault_that_passes_ends_in_the_exact_file(serve: Servers, tmp_path: Path, kind: Kind) -> None:
    server, gained = serve(Fault(kind=kind, num_bytes=150_000)), [0]
    fetched = fetch(server.of("a.bin"), tmp_path / "a.bin", on_bytes=lambda num: gained.append(gained[-1] + num))
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert fetched == Fetched(num_bytes=len(DATA), sha256=SHA256, url=server.of("a.bin"))
    assert names(tmp_path) == ["a.bin"]
    assert gained[-1] == len(DATA)
    assert min(gained) >= 0


@pytest.mark.parametrize(
    ("fault", "reason", "num_requests"),
    [
        (Fault(kind="status", status=401), "forbidden", 1),
        (Fault(kind="status", status=403), "forbidden", 1),
        (Fault(kind="status", status=404), "not-found", 1),
        (Fault(kind="status", status=410), "not-found", 1),
        (Fault(kind="status", status=418), "failed", 1),
        (Fault(kind="status", status=501), "failed", 1),
        (Fault(kind="redirect-loop"), "redirects", 1),
        (Fault(kind="redirect", location="file:///etc/passwd"), "redirects", 1),
        (Fault(kind="redirect", location="ftp://127.0.0.1/x"), "redirects", 1),
        (Fault(kind="redirect", location="http://[bad"), "redirects", 1),
        (Fault(kind="redirect", location="/nowhere"), "not-found", 1),
        (Fault(kind="redirect", location="/nowhere", num_bytes=10**12), "not-found", 1),
        (Fault(kind="html"), "not-media", 1),
        (Fault(kind="status", status=500), "server-error", 3),
        (Fault(kind="status", status=429), "rate-limited", 3),
        (Fault(kind="status", status=408), "network", 3),
        (Fault(kind="cut", num_bytes=10), "network", 3),
        (Fault(kind="long-length", num_bytes=10), "network", 3),
        (Fault(kind="empty"), "empty", 2),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else str(value),
)
def test_what_does_not_pass_has_its_reason(
    serve: Servers, tmp_path: Path, fault: Fault, reason: str, num_requests: int
) -> None:
    lasting = Fault(**{name: getattr(fault, name) for name in fault.__slots__} | {"is_forever": True})
    server = serve(lasting)
    assert reason_of(server.of("a.bin"), tmp_path / "a.bin", num_retries=2) == reason
    assert len(server.seen("a.bin")) == num_requests


def test_a_page_is_refused_also_where_a_list_is_wanted(serve: Servers, tmp_path: Path) -> None:
    assert reason_of(serve(Fault(kind="html")).of("a.bin"), tmp_path / "a.bin", may_be_text=True) == "not-media"
    rows = serve(data=b"id,start\n1,2\n")
    assert fetch(rows.of("a.bin"), tmp_path / "rows.csv", may_be_text=True).num_bytes == 13
    assert names(tmp_path) == ["rows.csv"]


def test_waits_grow_and_end_at_the_longest(serve: Servers, tmp_path: Path) -> None:
    server, slept = serve(Fault(kind="status", is_forever=True)), list[float]()
    more = {"num_retries": 8, "backoff_s": 1.0, "max_backoff_s": 20.0}
    assert reason_of(server.of("a.bin"), tmp_path / "a.bin", slept=slept, **more) == "server-error"
    longest = [1, 2, 4, 8, 16, 20, 20, 20]
    assert len(slept) == len(longest)
    assert all(most / 2 <= wait <= most for wait, most in zip(slept, longest, strict=True))


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.5, 1),
        ("soon", 0.5, 1),
        ("-5", 0.5, 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None, None),
        ("121", None, None),
    ],
)
def test_a_server_that_says_when_is_obeyed_or_left(
    serve: Servers, tmp_path: Path, asked: str, least: float | None, most: float | None
) -> None:
    server, slept = serve(Fault(kind="status", status=429, retry_after=asked)), list[float]()
    if least is None or most is None:
        assert reason_of(server.of("a.bin"), tmp_path / "a.bin", slept=slept) == "rate-limited"
        assert slept == []
    else:
        fetch(server.of("a.bin"), tmp_path / "a.bin", slept=slept)
        assert len(slept) == 1
        assert least - 0.5 <= slept[0] <= most


def test_a_wrong_length_is_tried_once_more(serve: Servers, tmp_path: Path) -> None:
    once, always = (
        serve(Fault(kind="short-length", num_bytes=5)),
        serve(Fault(kind="short-length", num_bytes=5, is_forever=True)),
    )
    assert fetch(once.of("a.bin"), tmp_path / "a.bin", num_bytes=len(DATA)).sha256 == SHA256
    assert reason_of(always.of("a.bin"), tmp_path / "b.bin", num_bytes=len(DATA)) == "wrong-length"
    assert len(always.seen("a.bin")) == 2
    endless = serve(Fault(kind="chunked", is_forever=True))
    assert reason_of(endless.of("a.bin"), tmp_path / "c.bin", num_bytes=1000) == "wrong-length"
    assert reason_of(endless.of("a.bin"), tmp_path / "c.bin", num_bytes=10**6) == "wrong-length"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"md5": hashlib.md5(DATA).hexdigest().upper()}])
def test_a_wrong_checksum_is_tried_once_more(serve: Servers, tmp_path: Path, known: dict[str, str]) -> None:
    once, always = serve(Fault(kind="corrupt")), serve(Fault(kind="corrupt", is_forever=True))
    fetch(once.of("a.bin"), tmp_path / "a.bin", **known)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert reason_of(always.of("a.bin"), tmp_path / "b.bin", **known) == "wrong-checksum"
    assert len(always.seen("a.bin")) == 2
    assert names(tmp_path) == ["a.bin"]


def test_all_addresses_are_told_and_the_reason_that_may_pass_comes_first(serve: Servers, tmp_path: Path) -> None:
    urls = (serve(Fault(kind="status")).of("a.bin"), serve(Fault(kind="status", status=404)).of("a.bin"))
    with pytest.raises(MediaError, match="404") as caught:
        fetch(urls, tmp_path / "a.bin", num_retries=0)
    assert caught.value.reason == "server-error"
    assert all(url in str(caught.value) for url in urls)


def test_a_host_that_is_gone_costs_its_retries_once(serve: Servers, tmp_path: Path) -> None:
    gone, server, slept = serve(), serve(), list[float]()
    gone.close()
    with Fetcher(FetchConfig(num_retries=3), sleep=slept.append) as fetcher:
        for name in ("a", "b", "c"):
            fetcher.file(Wanted(urls=(gone.of("a.bin"), server.of("a.bin"))), tmp_path / name)
    assert len(slept) == 3
    assert reason_of(gone.of("a.bin"), tmp_path / "d", num_retries=1) == "network"


def test_a_server_that_trickles_counts_as_silent(serve: Servers, tmp_path: Path) -> None:
    server, now = serve(Fault(kind="trickle", seconds=0.01)), [0.0]

    def later() -> float:
        now[0] += 5.0
        return now[0]

    with Fetcher(FetchConfig(), sleep=lambda _: None, now=later) as fetcher:
        fetcher.file(Wanted(urls=(server.of("a.bin"),)), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    first, second = server.seen("a.bin")
    assert first.sent < 100
    assert second.range is not None


def test_headers_that_trickle_end(serve: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.fetch_connections.HEADER_PATIENCE", 0.02)
    server = serve(Fault(kind="header-trickle", seconds=0.01, num_bytes=2000))
    fetch(server.of("a.bin"), tmp_path / "a.bin", timeout_s=30, num_retries=20)
    assert server.seen("a.bin")[0].sent < 2000
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_silence_ends(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="stall", num_bytes=100_000))
    fetch(server.of("a.bin"), tmp_path / "a.bin", timeout_s=0.5, num_retries=20)
    assert len(server.seen("a.bin")) >= 2
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("kind", ["cut", "chunked", "gzip", "no-length"])
def test_a_file_beyond_the_limit_is_refused(serve: Servers, tmp_path: Path, kind: Kind) -> None:
    server = serve(Fault(kind=kind, num_bytes=0 if kind != "cut" else 10**9), data=bytes(5_000_000))
    assert reason_of(server.of("a.bin"), tmp_path / "a.bin", max_file_gb=0.001) == "too-large"
    assert names(tmp_path) == []


def test_a_packed_file_stays_packed(tmp_path: Path) -> None:
    with FaultServer({"a.tar.gz": DATA}, {"a.tar.gz": [Fault(kind="gzip")]}) as server:
        fetch(server.of("a.tar.gz"), tmp_path / "a.tar.gz")
        assert server.requests[0].headers["Accept-Encoding"] == "identity"
    assert (tmp_path / "a.tar.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    def page(_: Seen) -> Reply:
        return Reply(200, b"x" * 10, {"Content-Encoding": "br"})

    with FaultServer({}, pages={"a": page}) as server:
        assert reason_of(server.of("a"), tmp_path / "a.bin") == "unsupported"


def test_a_file_that_will_not_fit_is_not_begun(serve: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 299_999})
    monkeypatch.setattr("preprocessing.fetch_part.shutil.disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem, match="GB free"):
        fetch(serve().of("a.bin"), tmp_path / "a.bin")


def test_closing_ends_what_other_threads_wait_for(serve: Servers, tmp_path: Path) -> None:
    server = serve(Fault(kind="status", retry_after="100", is_forever=True))
    fetcher = Fetcher(FetchConfig(backoff_s=100))
    with ThreadPoolExecutor() as pool:
        doing = [pool.submit(fetcher.file, Wanted(urls=(server.of("a.bin"),)), tmp_path / name) for name in "abc"]
        while len(server.seen("a.bin")) < 1:
            time.sleep(0.01)
        fetcher.close()
        assert all(isinstance(future.exception(timeout=30), FetchStopped) for future in doing)


@pytest.mark.parametrize(("connections", "per_host", "peaks"), [(50, 3, (3, 3)), (50, 1, (1, 1)), (4, 50, (4, 0))])
def test_no_more_connections_than_allowed(
    tmp_path: Path, connections: int, per_host: int, peaks: tuple[int, int]
) -> None:
    files = {f"{k}.bin": DATA[:5000] for k in range(8)}
    config = FetchConfig(connections=connections, connections_per_host=per_host)
    with FaultServer(files, hold_for=peaks[0]) as one, FaultServer(files, hold_for=peaks[1]) as two:
        servers = (one, two) if peaks[1] else (one,)
        with ThreadPoolExecutor(24) as pool, Fetcher(config) as fetcher:
            doing = [
                pool.submit(fetcher.file, Wanted(urls=(server.of(name),)), tmp_path / f"{index}-{name}")
                for name in files
                for index, server in enumerate(servers)
            ]
            assert all(future.result(timeout=60).num_bytes == 5000 for future in doing)
        assert (one.peak, two.peak) == peaks
        assert len(one.requests) == 8


def test_all_transfers_share_one_bandwidth(tmp_path: Path) -> None:
    """Counted on a clock that only waiting moves: so many bytes make so many seconds, whoever fetches them."""
    slept, lock = [0.0], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            slept[0] += seconds

    config = FetchConfig(bandwidth_mb_per_s=0.5, connections_per_host=2)
    with FaultServer({"a.bin": DATA}) as server, Fetcher(config, sleep=sleep, now=lambda: slept[0]) as fetcher:
        fetcher.file(Wanted(urls=(server.of("a.bin"),)), tmp_path / "a")
        assert slept[0] == pytest.approx(0.6, abs=0.11)  # 0.3 MB; a tenth of a second may be ahead
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: fetcher.file(Wanted(urls=(server.of("a.bin"),)), tmp_path / name), "bc"))
        assert slept[0] >= 1.8 - 0.11


def test_no_secret_is_told(tmp_path: Path, serve: Servers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("preprocessing").setLevel(logging.DEBUG)
    server = serve(
        Fault(kind="cut", num_bytes=100_000),
        Fault(kind="redirect", location="ftp://user:hidden@127.0.0.1/b?key=hidden"),
    )
    secret = server.of("a.bin").replace("//", "//user:hidden@") + "?token=hidden&id=7#hidden"
    with pytest.raises(MediaError) as caught:
        fetch(secret, tmp_path / "a.bin")
    assert "hidden" not in (tmp_path / ".a.bin.part.json").read_text()
    fetched = fetch(secret, tmp_path / "a.bin")
    gone = server.of("a.bin").replace("//", "//user:hidden@").replace("a.bin", "gone?key=hidden")
    with pytest.raises(MediaError) as missing:
        fetch(gone, tmp_path / "b.bin")
    told = f"{caught.value} {fetched} {missing.value} " + " ".join(
        record.getMessage() for record in caplog.records if record.name.startswith("preprocessing")
    )
    assert "hidden" not in told
    assert "a.bin?id=7" in told
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


def test_a_redirect_to_another_host_takes_no_password_along(tmp_path: Path) -> None:
    with FaultServer({"b.bin": DATA}) as other:
        fault = Fault(kind="redirect", location=other.of("b.bin"))
        with FaultServer({"a.bin": DATA}, {"a.bin": [fault]}) as server:
            fetch(server.of("a.bin").replace("//", "//user:hidden@"), tmp_path / "a.bin")
        assert "Authorization" not in other.requests[0].headers
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_from_https_to_http_only_under_a_checksum() -> None:
    reading = Reading(Clock(), min_bytes_per_s=1, window_s=1)
    strict, checked = (Asking(Session(), FetchConfig(), reading, may_downgrade=known) for known in (False, True))
    for asking in (strict, checked):
        assert asking.next_address("https://a/b", "/c", "https://a/b") == "https://a/c"
        assert asking.next_address("http://a/b", "https://c/", "http://a/b") == "https://c/"
    assert checked.next_address("https://a/b", "HTTP://a/c", "https://a/b").lower() == "http://a/c"
    with pytest.raises(MediaError) as caught:
        strict.next_address("https://a/b", "HTTP://a/c", "https://a/b")
    assert caught.value.reason == "redirects"


def test_a_proxy_is_used(tmp_path: Path) -> None:
    def proxy(seen: Seen) -> Reply:
        assert seen.path == "http://far.example/a.bin"
        return Reply(200, DATA)

    with FaultServer({}, pages={"a.bin": proxy}) as server:
        fetch("http://far.example/a.bin", tmp_path / "a.bin", proxy=server.url)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_proxy_that_can_not_be_used_is_the_machines_problem(tmp_path: Path) -> None:
    with FaultServer({}, pages={"a.bin": lambda _: Reply(407)}) as server, pytest.raises(EnvironmentProblem):
        fetch("http://far.example/a.bin", tmp_path / "a.bin", proxy=server.url)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/", "http://x:99999/", "http://\u2100.example/"])
def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    assert reason_of(url, tmp_path / "a.bin", num_retries=0) in ("failed", "network")


def test_connections_are_used_again(tmp_path: Path) -> None:
    ports = set()

    def page(seen: Seen) -> Reply:
        ports.add(seen.port)
        leads = {"/a": Reply(302, b"to b", {"Location": "/b"}), "/b": Reply(503, b"busy"), "/c": Reply(200, DATA)}
        return leads[seen.path]

    with FaultServer({}, pages=dict.fromkeys("abc", page)) as server:
        with Fetcher(FetchConfig(num_retries=2), sleep=lambda _: None) as fetcher:
            fetcher.file(Wanted(urls=(server.of("a"), server.of("c"))), tmp_path / "a.bin")
        assert len(server.requests) == 7
    assert len(ports) == 1


def test_cookies_stay_with_their_file(tmp_path: Path) -> None:
    def page(_: Seen) -> Reply:
        return Reply(200, DATA, {"Set-Cookie": "who=you"})

    with FaultServer({}, pages={"a": page}) as server, Fetcher(FetchConfig()) as fetcher:
        for name in "ab":
            fetcher.file(Wanted(urls=(server.of("a"),)), tmp_path / name)
        assert all("Cookie" not in seen.headers for seen in server.requests)


def test_a_changed_file_is_another(tmp_path: Path) -> None:
    """The server's own lie: same length, no byte the same."""
    assert len(changed(DATA)) == len(DATA)
    assert all(old != new for old, new in zip(DATA, changed(DATA), strict=True))
    assert os.path.commonprefix([DATA, changed(DATA)]) == b""
