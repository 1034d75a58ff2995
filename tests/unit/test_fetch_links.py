"""Public links of Google Drive and Yandex Disk, on a loopback server in their place; what is shown of addresses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fault_server import FaultServer, Reply, Seen

from preprocessing import fetch_links
from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetched, Fetcher, Wanted
from preprocessing.fetch_links import drive_page, host_of, route, shown, yandex_href
from preprocessing.fetch_part import part_of
from preprocessing.video_types import MediaError

DATA = random.Random(3).randbytes(200_000)
FILE_ID = "1tGdADlNjWFaHLeZZGShh2IRcpO6Lv24h"
LINK = f"https://drive.google.com/file/d/{FILE_ID}/view?usp=sharing"
YANDEX = "https://yadi.sk/d/5VdqLARizmnj3Q"
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try accessing the
file again later.</p></body></html>"""
LOGIN = '<html><head><title>Sign in</title></head><body><form action="https://accounts.google.com/ServiceLogin"></form>'
ROBOTS = "<html><body>We're sorry... but your computer or network may be sending automated queries.</body></html>"
VIRUS = "<html><p>Sorry, this file is infected with a virus</p><p>Only the owner is allowed to download it.</p></html>"
OLD = f'<html><body><a id="uc-download-link" href="/uc?export=download&amp;confirm=AbCd&amp;id={FILE_ID}">Download</a>'


def confirm_page(action: str) -> str:
    return f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="search" action="https://evil.example/"><input type="hidden" name="q" value="no"></form>
<p>Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="{FILE_ID}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="153b&amp;954f"></form>
<form id="other"><input type="hidden" name="more" value="no"></form></body></html>"""


def html(page: str, status: int = 200) -> Reply:
    return Reply(status, page.encode(), {"Content-Type": "text/html; charset=utf-8"})


def query(seen: Seen) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(seen.path).query).items()}


class Cloud:
    """Stands in for both services."""

    def __init__(self) -> None:
        self.drive: Callable[[Seen], Reply] = lambda _: html(QUOTA)
        self.yandex: Callable[[Seen], Reply] = lambda _: Reply(404)
        self.cuts: list[int] = []
        pages = {"uc": lambda seen: self.drive(seen), "api": lambda seen: self.yandex(seen), "download": self.download}
        self.server = FaultServer({}, pages=pages)

    def download(self, seen: Seen) -> Reply:
        """The file, its range, or its beginning while there are cuts."""
        begin = int(seen.range[6:-1]) if seen.range and seen.if_range == '"one"' else 0
        headers = {"ETag": '"one"', "Content-Type": "application/octet-stream"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}"
            return Reply(206, DATA[begin:], headers)
        if self.cuts:
            return Reply(
                200, DATA[: self.cuts.pop()], headers | {"Content-Length": str(len(DATA)), "Connection": "close"}
            )
        return Reply(200, DATA, headers)

    def warn(self, seen: Seen) -> Reply:
        """Drive's way: a redirect, a page with a form, the file."""
        asked = query(seen)
        if "confirm" in asked:
            return self.download(seen)
        if "hop" not in asked:
            return Reply(
                303, headers={"Location": f"{self.server.url}/uc?hop=1&id={asked['id']}", "Set-Cookie": "nid=7"}
            )
        return html(confirm_page(f"{self.server.url}/download"))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    cloud = Cloud()
    monkeypatch.setattr(fetch_links, "DRIVE_DOWNLOAD", f"{cloud.server.url}/uc")
    monkeypatch.setattr(fetch_links, "YANDEX_DOWNLOAD", f"{cloud.server.url}/api")
    yield cloud
    cloud.server.close()


def fetch(url: str, target: Path, **more: Any) -> Fetched:
    with Fetcher(FetchConfig(**more), sleep=lambda _: None) as fetcher:
        return fetcher.file(Wanted(urls=(url,)), target)


def reason_of(url: str, target: Path, **more: Any) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(url, target, **more)
    assert list(target.parent.iterdir()) == []
    return caught.value.reason


@pytest.mark.parametrize(
    "url",
    [
        LINK,
        f"https://drive.google.com/open?id={FILE_ID}",
        f"https://drive.google.com/uc?id={FILE_ID}",
        f"https://docs.google.com/uc?export=download&id={FILE_ID}",
        f"https://drive.usercontent.google.com/download?id={FILE_ID}&export=download&confirm=t",
        f"https://drive.google.com/file/u/0/d/{FILE_ID}/edit",
    ],
)
def test_all_forms_of_a_drive_link_lead_through_its_warning(cloud: Cloud, tmp_path: Path, url: str) -> None:
    cloud.drive = cloud.warn
    fetched = fetch(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert fetched.url == shown(url)
    first, second, third = cloud.server.requests
    assert query(first) == {"export": "download", "id": FILE_ID}
    assert query(third) == {"id": FILE_ID, "export": "download", "confirm": "t", "uuid": "153b&954f"}
    assert second.headers["Cookie"] == "nid=7"


def test_a_small_file_of_drive_comes_at_once_and_keeps_its_key(cloud: Cloud, tmp_path: Path) -> None:
    cloud.drive = cloud.download
    fetch(LINK + "&resourcekey=0-abc", tmp_path / "a.zip")
    assert [query(seen) for seen in cloud.server.requests] == [
        {"export": "download", "id": FILE_ID, "resourcekey": "0-abc"}
    ]


def test_an_older_warning_has_a_link(cloud: Cloud, tmp_path: Path) -> None:
    cloud.drive = lambda seen: cloud.download(seen) if "confirm" in query(seen) else html(OLD)
    fetch(LINK, tmp_path / "a.zip")
    assert query(cloud.server.requests[1]) == {"export": "download", "confirm": "AbCd", "id": FILE_ID}
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_file_of_drive_is_resumed(cloud: Cloud, tmp_path: Path) -> None:
    cloud.drive, cloud.cuts = cloud.warn, [70_000]
    fetch(LINK, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert [seen.range for seen in cloud.server.requests if seen.path.startswith("/download")] == [
        None,
        "bytes=70000-",
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (html(QUOTA), "quota"),
        (html(QUOTA, 403), "quota"),
        (html(LOGIN), "forbidden"),
        (html(VIRUS), "forbidden"),
        (html(ROBOTS, 429), "rate-limited"),
        (html("<html>Not found</html>", 404), "not-found"),
        (html("<html>Error 403</html>", 403), "forbidden"),
        (html("<html>Oops</html>", 500), "server-error"),
        (html("<html>Something new</html>"), "not-media"),
        (html(confirm_page("https://evil.example/download")), "redirects"),
        (html(confirm_page("file:///etc/passwd")), "redirects"),
        (html(confirm_page("https://drive.google.com.evil.example/")), "redirects"),
        (html(confirm_page("http://[bad")), "redirects"),
        (html("<html>" + "<p>" * 10**6), "not-media"),
    ],
)
def test_pages_of_drive_are_read_for_what_they_say(cloud: Cloud, tmp_path: Path, reply: Reply, reason: str) -> None:
    cloud.drive = lambda _: reply
    assert reason_of(LINK, tmp_path / "a.zip", num_retries=1) == reason
    assert len(cloud.server.requests) == (2 if reason in ("rate-limited", "server-error") else 1)


def test_a_warning_without_end_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    cloud.drive = lambda _: html(confirm_page(f"{cloud.server.url}/uc"))
    assert reason_of(LINK, tmp_path / "a.zip") == "not-media"
    assert len(cloud.server.requests) == 4


def test_a_login_host_means_no_permission() -> None:
    with pytest.raises(MediaError) as caught:
        drive_page("<html>", page_url="https://accounts.google.com/v3/signin", url=LINK, status=200)
    assert caught.value.reason == "forbidden"


def test_a_folder_of_drive_is_refused_in_words(tmp_path: Path) -> None:
    assert reason_of("https://drive.google.com/drive/folders/1abcdefghijk", tmp_path / "a.zip") == "unsupported"


def test_documents_are_no_files_of_drive() -> None:
    url = f"https://docs.google.com/spreadsheets/d/{FILE_ID}/export?format=csv"
    assert route(url).kind == "plain"
    assert route("https://drive.google.com/uc?id=../../x").kind == "plain"


def link_to(cloud: Cloud) -> Reply:
    return Reply(200, json.dumps({"href": f"{cloud.server.url}/download?sign=hidden", "method": "GET"}).encode())


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (YANDEX, {"public_key": YANDEX}),
        ("https://disk.yandex.ru/d/AbC_1-2?w=1", {"public_key": "https://disk.yandex.ru/d/AbC_1-2"}),
        ("https://disk.yandex.com/i/AbC", {"public_key": "https://disk.yandex.com/i/AbC"}),
        (YANDEX + "/a%20b/c.zip", {"public_key": YANDEX, "path": "/a b/c.zip"}),
        ("https://disk.yandex.ru/public/?hash=q%2Bw%3D", {"public_key": "q+w="}),
    ],
)
def test_links_of_yandex_are_asked_for_their_file(
    cloud: Cloud, tmp_path: Path, url: str, asked: dict[str, str]
) -> None:
    cloud.yandex = lambda _: link_to(cloud)
    fetched = fetch(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert query(cloud.server.requests[0]) == asked
    assert "hidden" not in fetched.url


def test_a_file_of_yandex_is_resumed_though_its_address_changes(cloud: Cloud, tmp_path: Path) -> None:
    cloud.cuts = [70_000]
    cloud.yandex = lambda _: Reply(
        200, json.dumps({"href": f"{cloud.server.url}/download?sign={len(cloud.server.requests)}"}).encode()
    )
    with pytest.raises(MediaError):
        fetch(YANDEX, tmp_path / "a.zip", num_retries=0)
    assert part_of(tmp_path / "a.zip").stat().st_size == 70_000
    fetch(YANDEX, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    last, before = cloud.server.requests[-1], cloud.server.requests[1]
    assert last.range == "bytes=70000-"
    assert query(last) != query(before)


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (404, {"error": "DiskNotFoundError"}, "not-found"),
        (403, {"error": "DiskForbiddenError"}, "forbidden"),
        (403, {"error": "DiskResourceDownloadLimitExceededError"}, "quota"),
        (200, {"href": "https://evil.example/x"}, "failed"),
        (200, {"href": "http://downloader.disk.yandex.ru/x"}, "failed"),
        (200, {"href": 5}, "failed"),
        (200, ["href"], "failed"),
        (200, {}, "failed"),
        (429, {"error": "TooManyRequestsError"}, "rate-limited"),
        (503, {}, "server-error"),
    ],
)
def test_errors_of_yandex_have_their_reasons(
    cloud: Cloud, tmp_path: Path, status: int, answer: Any, reason: str
) -> None:
    cloud.yandex = lambda _: Reply(status, json.dumps(answer).encode())
    assert reason_of(YANDEX, tmp_path / "a.zip", num_retries=0) == reason


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_an_answer_of_yandex_that_is_none(body: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        yandex_href(body, url=YANDEX, status=200)
    assert caught.value.reason == "failed"


def test_yandex_leads_to_its_own_hosts() -> None:
    href = "https://downloader.disk.yandex.ru/zip/abc?uid=0"
    assert yandex_href(json.dumps({"href": href}).encode(), url=YANDEX, status=200) == href
    assert route(YANDEX).url.startswith("https://cloud-api.yandex.net/v1/disk/public/resources/download?public_key=")
    assert route(LINK).url == f"https://drive.google.com/uc?export=download&id={FILE_ID}"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:pw@host:81/a/b.mp4?token=x#frag", "https://host:81/a/b.mp4"),
        (f"https://drive.google.com/uc?id={FILE_ID}&key=x", f"https://drive.google.com/uc?id={FILE_ID}"),
        ("https://www.youtube.com/watch?v=abc&t=1", "https://www.youtube.com/watch?v=abc"),
        ("s3://bucket/a.zip", "s3://bucket/a.zip"),
        ("/data/a b.mp4", "/data/a b.mp4"),
        ("/data/what?.mp4", "/data/what?.mp4"),
        ("file:///data/a.mp4", "file:///data/a.mp4"),
        ("https://host/\x1b[31mred\n", "https://host/?[31mred"),
        ("https://user:pw@[bad/a?token=x", "[bad/a"),
        ("https://host/" + "a" * 1000, "https://host/" + "a" * 287 + "..."),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, told: str) -> None:
    assert shown(url) == told


def test_hosts() -> None:
    assert host_of("https://user:pw@Host:81/a") == "host:81"
    assert host_of("/a/b") == ""
    assert host_of("http://[bad") == ""
