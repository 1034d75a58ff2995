"""Videos by yt-dlp: the reasons of its failures, and transfers from loopback through its generic extractor."""

from __future__ import annotations

import gc
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import Fault, FaultServer, Reply

from models.errors import EnvironmentProblem, ParamsError
from preprocessing import fetch_youtube
from preprocessing.config import FetchConfig
from preprocessing.fetch_youtube import fetch_video, is_video_site, reason_of, sentence_of
from preprocessing.video_types import MediaError, Reason

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""yt-dlp leaves the connections of refused requests to the garbage collector."""
HINT = (
    "Use --cookies-from-browser or --cookies for the authentication. See  https://github.com/yt-dlp/yt-dlp/wiki/FAQ"
    "#how-do-i-pass-cookies-to-yt-dlp  for how to manually pass cookies. Also see  https://github.com/yt-dlp/yt-dlp"
    "/wiki/Extractors#exporting-youtube-cookies  for tips on effectively exporting YouTube cookies"
)
YOUTUBE: list[tuple[str, Reason]] = [  # of YouTube's player, as yt-dlp hands them on
    (f"Private video. Sign in if you've been granted access to this video. {HINT}", "private"),
    ("Video unavailable. This video is private", "private"),
    ("Join this channel to get access to members-only content like this video, and other exclusive perks.", "private"),
    ("This video is available to this channel's members on level: Gold (or any higher level).", "private"),
    ("This video requires payment to watch.", "private"),
    ("This video is only available to Music Premium members", "private"),
    ("Video unavailable. This video has been removed by the uploader", "removed"),
    (
        "Video unavailable. This video is no longer available because the YouTube account "
        "associated with this video has been terminated.",
        "removed",
    ),
    (
        "Video unavailable. This video is no longer available because the uploader has closed their YouTube account.",
        "removed",
    ),
    ("Video unavailable. This video is no longer available due to a copyright claim by Some Records Ltd", "removed"),
    ("Video unavailable. This video contains content from SME, who has blocked it on copyright grounds", "removed"),
    ("This video has been removed for violating YouTube's Terms of Service", "removed"),
    ("This video has been removed for violating YouTube\u2019s policy on hate speech. Learn more", "removed"),
    ("Video unavailable. This video is not available", "removed"),
    ("Video unavailable. This video is unavailable", "removed"),
    ("Video unavailable", "removed"),
    ("This video isn't available anymore", "removed"),
    ("Video unavailable. The uploader has not made this video available in your country", "geo-blocked"),
    (
        "The uploader has not made this video available in your country\nThis video is available in Germany, Austria.",
        "geo-blocked",
    ),
    (
        "Video unavailable. This video contains content from UMG, who has blocked it in your country "
        "on copyright grounds",
        "geo-blocked",
    ),
    ("Video unavailable. This video is not available in your country.", "geo-blocked"),
    (f"Sign in to confirm your age. This video may be inappropriate for some users. {HINT}", "age-restricted"),
    ("This video is age-restricted and only available on YouTube. Learn more", "age-restricted"),
    (f"Sign in to confirm you\u2019re not a bot. {HINT}", "bot-check"),
    (f"Sign in to confirm you're not a bot. This helps protect our community. {HINT}", "bot-check"),
    ("Premieres in 3 hours", "unsupported"),
    ("This live event will begin in 2 days.", "unsupported"),
    ("This live stream recording is not available.", "unsupported"),
    ("Please sign in", "private"),
    ("Something of which nobody has heard", "failed"),
]
SOURCE: list[tuple[str, str, Reason]] = [  # file of yt-dlp, its words, and what they mean
    ("extractor/common.py", "This video is only available for registered users", "private"),
    ("extractor/common.py", "This video is not available from your location due to geo restriction", "geo-blocked"),
    ("extractor/common.py", "This video is DRM protected", "unsupported"),
    ("extractor/youtube/_video.py", "YouTube is requiring a captcha challenge before playback", "bot-check"),
    ("extractor/youtube/_video.py", "This content isn't available, try again later", "rate-limited"),
    ("extractor/youtube/_video.py", "has been rate-limited by YouTube for up to an hour", "rate-limited"),
    ("extractor/youtube/_base.py", "Login details are needed to download this content", "private"),
    ("extractor/youtube/_mistakes.py", "Incomplete YouTube ID", "not-found"),
    ("extractor/generic.py", "Got HTTP Error 403 caused by Cloudflare anti-bot challenge; ", "bot-check"),
    ("extractor/vimeo.py", "Wrong video password", "private"),
    ("extractor/vimeo.py", "This event video is unavailable", "removed"),
    ("extractor/bilibili.py", "You have exceeded the rate limit. Try again later", "rate-limited"),
    ("extractor/tiktok.py", "Your IP address is blocked from accessing this post", "forbidden"),
    ("extractor/tiktok.py", "Unable to solve JS challenge", "bot-check"),
    ("extractor/niconico.py", "Service temporarily unavailable", "server-error"),
    ("utils/_utils.py", "Unsupported URL: ", "unsupported"),
    ("utils/_utils.py", "The channel is not currently live", "unsupported"),
    (
        "YoutubeDL.py",
        "Requested format is not available. Use --list-formats for a list of available formats",
        "unsupported",
    ),
    ("downloader/http.py", "Did not get any data blocks", "network"),
    ("networking/exceptions.py", "(redirect loop detected)", "redirects"),
]
HTTP: list[tuple[str, Reason]] = [
    ("Unable to download webpage: HTTP Error 401: Unauthorized (caused by <HTTPError 401: Unauthorized>)", "private"),
    ("unable to download video data: HTTP Error 403: Forbidden", "forbidden"),
    ("Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)", "not-found"),
    ("Unable to download webpage: HTTP Error 410: Gone (caused by <HTTPError 410: Gone>)", "removed"),
    (
        "Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: Too Many Requests>)",
        "rate-limited",
    ),
    ("Unable to download webpage: HTTP Error 451: Unavailable For Legal Reasons", "geo-blocked"),
    ("Unable to download webpage: HTTP Error 503: Service Unavailable", "server-error"),
    ("Unable to download webpage: HTTP Error 302: Found (redirect loop detected)", "redirects"),
    (
        "Unable to download webpage: Failed to resolve 'www.youtube.com' ([Errno -2] Name or service not known)",
        "network",
    ),
    ("Unable to download webpage: [Errno 111] Connection refused (caused by TransportError(...))", "network"),
    (
        "Unable to download webpage: ('Connection aborted.', RemoteDisconnected('Remote end closed connection'))",
        "network",
    ),
    ("Unable to download webpage: The read operation timed out (caused by TransportError('timed out'))", "network"),
    ("unable to download video data: 1024 bytes read, 9000 more expected. Giving up after 6 retries", "network"),
    ("Unable to download webpage: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "network"),
    ("Unable to download webpage: Unable to connect to proxy (caused by ProxyError(...))", "network"),
]


@pytest.mark.parametrize(("words", "reason"), YOUTUBE + HTTP + [(words, reason) for _, words, reason in SOURCE])
@pytest.mark.parametrize(
    "label", ["", "ERROR: ", "\x1b[0;31mERROR:\x1b[0m [youtube] 5qap5aO4i9A: ", "ERROR: [vimeo:event] 404: "]
)
def test_every_message_has_its_reason(label: str, words: str, reason: Reason) -> None:
    assert reason_of(label + words) == reason


@pytest.mark.parametrize(("file", "words"), [(file, words) for file, words, _ in SOURCE])
def test_the_installed_yt_dlp_still_says_so(file: str, words: str) -> None:
    import yt_dlp

    source = Path(str(yt_dlp.__file__)).parent.joinpath(file).read_text(encoding="utf-8")
    assert words in source.replace("\\'", "'")


def test_an_id_or_address_says_nothing() -> None:
    assert reason_of("ERROR: [youtube] private: Something new") == "failed"
    assert reason_of("ERROR: something new at https://example.org/private/404/not-found") == "failed"


def test_sentences_are_clean_and_short() -> None:
    text = f"\x1b[0;31mERROR:\x1b[0m [youtube] 5qap5aO4i9A: Sign in to confirm your age.\nNow. {HINT}"
    assert sentence_of(text) == "Sign in to confirm your age. Now"
    text = "ERROR: [generic] x: Odd; please report this issue on  https://github.com/yt-dlp , filling out the template"
    assert sentence_of(text) == "Odd"
    assert sentence_of("ERROR: Bad (caused by <HTTPError 404: Not Found>)") == "Bad"
    assert sentence_of("") == "no word of explanation"
    assert len(sentence_of("long " * 999)) < 250
    assert "\x1b" not in sentence_of("a\x1b]0;title\x07b\x00")


def test_hosts_whose_pages_yt_dlp_reads() -> None:
    for url in (
        "https://www.youtube.com/watch?v=x",
        "https://youtu.be/x",
        "https://player.vimeo.com/video/1",
        "http://YouTube.com:80/x",
    ):
        assert is_video_site(url)
    for url in (
        "https://notyoutube.com/x",
        "https://youtube.com.evil.org/x",
        "http://127.0.0.1:8000/x.mp4",
        "file:///x",
        "x.mp4",
    ):
        assert not is_video_site(url)


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """What yt-dlp left is freed here, where the warning is ignored, and not in some later test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def film() -> bytes:
    return (Path(__file__).resolve().parents[2] / "samples/faces/man-smile.mp4").read_bytes()


def quick(**settings: Any) -> FetchConfig:
    return FetchConfig(**({"backoff_s": 0.01, "timeout_s": 5.0} | settings))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_video_arrives_whole(tmp_path: Path, film: bytes) -> None:
    target = tmp_path / "new folder" / "100% [it].mp4"
    came: list[int] = []
    with FaultServer({"film.mp4": film}) as server:
        fetched = fetch_video(server.of("film.mp4") + "?key=secret", target, quick(), on_bytes=came.append)
        assert fetched.url == server.of("film.mp4")
    assert target.read_bytes() == film
    assert (fetched.num_bytes, fetched.sha256) == (len(film), hashlib.sha256(film).hexdigest())
    assert sum(came) == len(film)
    assert names(target.parent) == [target.name]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_cut_connection_resumes(tmp_path: Path, film: bytes, kind: Any) -> None:
    faults = [Fault(kind="slow"), Fault(kind=kind, num_bytes=70_000), Fault(kind=kind, num_bytes=150_000)]
    with FaultServer({"film.mp4": film}, {"film.mp4": faults}) as server:
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick())
        ranges = [seen.range for seen in server.seen("film.mp4")]
    assert (tmp_path / "x.mp4").read_bytes() == film
    assert ranges[:2] == [None, None]
    starts = [int(re.fullmatch(r"bytes=(\d+)-", text or "")[1]) for text in ranges[2:]]  # type: ignore[index]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] <= 150_000


def test_a_server_that_stumbles_is_asked_again_and_waited_for(tmp_path: Path, film: bytes) -> None:
    faults = [Fault(kind="status", status=503), Fault(kind="reset"), Fault(kind="status", status=500)]
    waits: list[float] = []
    with FaultServer({"film.mp4": film}, {"film.mp4": faults}) as server:
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick(backoff_s=7, max_backoff_s=20), wait=waits.append)
    assert (tmp_path / "x.mp4").read_bytes() == film
    assert waits[:3] == [7, 14, 20]


@pytest.mark.parametrize(
    ("faults", "reason", "most"),
    [
        ([Fault(kind="status", status=404, is_forever=True)], "not-found", 1),
        ([Fault(kind="status", status=429, is_forever=True)], "rate-limited", 1),
        ([Fault(kind="status", status=403, is_forever=True)], "forbidden", 1),
        ([Fault(kind="status", status=503, is_forever=True)], "server-error", 3),
        ([Fault(kind="redirect-loop", is_forever=True)], "redirects", 99),
        ([Fault(kind="html", is_forever=True)], "unsupported", 1),
        ([Fault(kind="reset", is_forever=True)], "network", 3),
        ([Fault(kind="slow"), Fault(kind="cut", num_bytes=9000, is_forever=True)], "network", 12),
    ],
)
def test_a_failure_leaves_no_file_of_the_final_name(
    tmp_path: Path, film: bytes, faults: list[Fault], reason: str, most: int
) -> None:
    with FaultServer({"film.mp4": film}, {"film.mp4": faults}) as server:
        with pytest.raises(MediaError) as caught:
            fetch_video(server.of("film.mp4") + "?key=secret", tmp_path / "x.mp4", quick(num_retries=2))
        assert len(server.seen("film.mp4")) <= most
    assert caught.value.reason == reason, str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "x.mp4" not in names(tmp_path)


def test_a_web_page_in_place_of_the_film_is_none(tmp_path: Path) -> None:
    page = Reply(body=b"<!DOCTYPE html><p>No" + b" " * 9000, headers={"Content-Type": "video/mp4"})
    with FaultServer({}, pages={"film.mp4": lambda seen: page}) as server, pytest.raises(MediaError) as caught:
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick())
    assert caught.value.reason == "not-media"
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["slow", "no-length"])
def test_a_file_that_is_too_large_is_left(tmp_path: Path, film: bytes, kind: Any) -> None:
    server = FaultServer({"film.mp4": film}, {"film.mp4": [Fault(kind=kind, is_forever=True)]})
    with server, pytest.raises(MediaError, match=r"at most 0\.0001 GB") as caught:
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick(max_file_gb=1e-4))
    assert caught.value.reason == "too-large"
    assert "x.mp4" not in names(tmp_path)


def test_what_the_caller_raises_ends_a_transfer_and_a_later_call_makes_it_whole(tmp_path: Path, film: bytes) -> None:
    def stop(num_bytes: int) -> None:
        raise KeyboardInterrupt

    with FaultServer({"film.mp4": film}) as server:
        with pytest.raises(KeyboardInterrupt):
            fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick(), on_bytes=stop)
        assert "x.mp4" not in names(tmp_path)
        server.files["/film.mp4"] = film[::-1]  # of no stated size: what came may be of another film
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick())
    assert (tmp_path / "x.mp4").read_bytes() == film[::-1]
    assert names(tmp_path) == ["x.mp4"]


class _Page:
    """An extractor of one made page, so that the choice among formats is tried without a site."""

    @staticmethod
    def install(monkeypatch: pytest.MonkeyPatch, info: dict[str, Any]) -> None:
        from yt_dlp.extractor.generic import GenericIE

        monkeypatch.setattr(GenericIE, "_real_extract", lambda self, url: {"id": "made", "title": "made", **info})


def formats(server: FaultServer, **sizes: int | None) -> list[dict[str, Any]]:
    rows = []
    for name, size in sizes.items():
        codec, height = name.split("_")
        row = {"format_id": name, "url": server.of(name), "ext": "webm" if codec == "vp9" else "mp4", "filesize": size}
        row |= {
            "height": int(height),
            "width": int(height) * 2,
            "vcodec": {"h264": "avc1.64"}.get(codec, codec),
            "acodec": "none",
        }
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("most", "offered", "taken"),
    [
        (1080, ["h264_720", "h264_1080", "vp9_1080", "vp9_2160"], "h264_1080"),
        (1080, ["h264_360", "vp9_1080", "vp9_2160"], "vp9_1080"),
        (None, ["h264_1080", "vp9_2160"], "vp9_2160"),
        (480, ["vp9_2160", "h264_1080"], "h264_1080"),  # nothing that small: the smallest
    ],
)
def test_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None, offered: list[str], taken: str
) -> None:
    with FaultServer({name: name.encode() * 99 for name in offered}) as server:
        rows = formats(server, **{name: len(name) * 99 for name in offered})
        sound = {"format_id": "a", "url": server.of("a"), "ext": "m4a", "vcodec": "none", "acodec": "mp4a"}
        _Page.install(monkeypatch, {"formats": [*rows, sound]})
        fetch_video(server.of("page"), tmp_path / "x.mp4", quick(max_height_px=most))
    assert (tmp_path / "x.mp4").read_bytes() == taken.encode() * 99


def test_a_kill_is_gone_on_from_where_the_size_tells_that_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: bytes
) -> None:
    with FaultServer({"h264_720": film}) as server:
        _Page.install(monkeypatch, {"formats": formats(server, h264_720=len(film))})
        part = tmp_path / f".x.mp4.video-h264_720-{len(film)}.part"
        part.write_bytes(film[:100_000])
        (tmp_path / ".x.mp4.video-h264_1080-77.part").write_bytes(b"other")
        fetch_video(server.of("page"), tmp_path / "x.mp4", quick())
        assert [seen.range for seen in server.seen("h264_720")] == ["bytes=100000-"]
    assert (tmp_path / "x.mp4").read_bytes() == film
    assert names(tmp_path) == ["x.mp4"]


def test_other_bytes_than_stated_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: bytes) -> None:
    with FaultServer({"h264_720": film}) as server:
        _Page.install(monkeypatch, {"formats": formats(server, h264_720=len(film) + 5)})
        with pytest.raises(MediaError) as caught:
            fetch_video(server.of("page"), tmp_path / "x.mp4", quick())
    assert caught.value.reason == "wrong-length"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"is_live": True, "url": "http://127.0.0.1:9/x.mp4"}, "has ended"),
        ({"live_status": "is_upcoming", "url": "http://127.0.0.1:9/x.mp4"}, "has ended"),
        ({"_type": "playlist", "entries": [{"_type": "url", "url": "http://127.0.0.1:9/x.mp4"}] * 3}, "one video"),
        ({"formats": [{"format_id": "a", "url": "http://127.0.0.1:9/x", "ext": "m4a", "vcodec": "none"}]}, "format"),
        ({"formats": [{"format_id": "r", "url": "rtmp://127.0.0.1:9/x", "ext": "mp4", "height": 9}]}, "format"),
        ({"url": "file:///etc/passwd", "ext": "mp4"}, "format"),
    ],
)
def test_what_is_no_plain_film_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], words: str
) -> None:
    _Page.install(monkeypatch, info)
    with pytest.raises(MediaError, match=words) as caught:
        fetch_video("http://127.0.0.1:9/page", tmp_path / "x.mp4", quick())
    assert caught.value.reason == "unsupported"
    assert names(tmp_path) == []


def test_cookies_are_sent_and_their_file_is_left_alone(tmp_path: Path, film: bytes) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tvalue\n")
    before = cookies.read_bytes()
    with FaultServer({"film.mp4": film}) as server:
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick(cookies=str(cookies)))
        assert all(seen.headers["Cookie"] == "session=value" for seen in server.requests)
    assert cookies.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"{}", b"\xff\xfe\x00"])
def test_a_bad_cookie_file_is_a_wrong_setting(tmp_path: Path, content: bytes | None) -> None:
    cookies = tmp_path / "cookies.txt"
    if content is not None:
        cookies.write_bytes(content)
    with pytest.raises(ParamsError, match=r"fetching\.cookies must be a Netscape cookie file"):
        fetch_video("http://127.0.0.1:9/x.mp4", tmp_path / "x.mp4", quick(cookies=str(cookies)))


def test_a_proxy_is_used(tmp_path: Path, film: bytes) -> None:
    with FaultServer(
        {}, pages={"film.mp4": lambda seen: Reply(body=film, headers={"Content-Type": "video/mp4"})}
    ) as proxy:
        fetch_video("http://does-not-exist.invalid/film.mp4", tmp_path / "x.mp4", quick(proxy=proxy.url))
    assert (tmp_path / "x.mp4").read_bytes() == film


def test_the_share_of_the_bandwidth() -> None:
    def rate(on_bytes: Any, **settings: Any) -> Any:
        config = FetchConfig(**settings)
        transfer = fetch_youtube._Transfer("http://x", Path("x"), config, on_bytes, lambda s: None)
        return transfer._options(fetch_youtube._Log())["ratelimit"]

    assert rate(None) is None
    assert rate(None, bandwidth_mb_per_s=8.0, connections=2, connections_per_host=4) == 4e6
    assert rate(len, bandwidth_mb_per_s=8.0) is None


def test_a_folder_that_can_t_be_written_is_the_machine_s_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: bytes
) -> None:
    import yt_dlp.downloader.common

    def full(self: Any, filename: str, mode: str) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yt_dlp.downloader.common.FileDownloader, "sanitize_open", full)
    with FaultServer({"film.mp4": film}) as server, pytest.raises(EnvironmentProblem, match="No space left"):
        fetch_video(server.of("film.mp4"), tmp_path / "x.mp4", quick())


def test_importing_is_cheap() -> None:
    import subprocess

    code = "import sys, preprocessing.fetch_youtube; sys.exit('yt_dlp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
