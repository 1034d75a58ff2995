"""Public links of Google Drive and Yandex Disk: what to ask for, and what their pages say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal
from urllib.parse import parse_qs, unquote, urlencode, urljoin, urlsplit

from models.errors import must
from preprocessing.fetch_limits import Lost
from preprocessing.video_types import MediaError, Reason

DRIVE_DOWNLOAD = "https://drive.google.com/uc"
"""Where a file of Google Drive is asked for by its id."""
YANDEX_DOWNLOAD = "https://cloud-api.yandex.net/v1/disk/public/resources/download"
"""Where Yandex Disk says from where a public link's file comes."""
DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
GOOGLE = (".google.com", ".googleusercontent.com")
YANDEX_HOSTS = (
    "yadi.sk",
    "disk.yandex.ru",
    "disk.yandex.com",
    "disk.yandex.by",
    "disk.yandex.kz",
    "disk.360.yandex.ru",
)
MAX_PAGE_BYTES = 1 << 18
"""Of a page that is read for what it says."""

_ID = re.compile(r"[A-Za-z0-9_-]{10,200}")
_SHOWN_KEYS = ("id", "v")
_SHOWN_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Route:
    """What to ask for, to get what an address means."""

    kind: Literal["plain", "drive", "yandex"]
    url: str


def route(url: str) -> Route:
    """Recognise a public link.

    Raises:
        MediaError: a link to a folder of Google Drive, which can't be had as one file (``unsupported``).
    """
    parts = _split(url)
    if parts.hostname in DRIVE_HOSTS:
        return _drive_route(url)
    if parts.hostname in YANDEX_HOSTS and parts.path.startswith(("/d/", "/i/", "/public")):
        return Route("yandex", _yandex_api(url))
    return Route("plain", url)


def drive_page(page: str, *, page_url: str, url: str, status: int) -> str | None:
    """What to do where Google Drive answers with a page instead of the file.

    Args:
        page: its HTML.
        page_url: where it was found, after redirects.
        url: the link, for messages.
        status: of the answer.

    Returns:
        The address behind "Download anyway", or null where the page says nothing that is known.

    Raises:
        MediaError: ``quota`` (too many downloads of this file today), ``forbidden`` (a login is asked for, or the
            file is marked as infected).
        Lost: Google takes this machine for a robot (``rate-limited``).
    """
    where, text = shown(url), page.lower()
    if _split(page_url).hostname == "accounts.google.com" or "accounts.google.com/servicelogin" in text:
        raise _refused(where, "be shared with everyone who has the link", "a login page", "forbidden")
    if any(words in text for words in ("quota exceeded", "too many users have viewed or downloaded", "download quota")):
        raise _refused(where, "be downloadable", "Google Drive's quota page", "quota", "Try again in a day")
    if "infected with a virus" in text and "only the owner" in text:
        raise _refused(where, "be downloadable", "Google Drive's virus page", "forbidden")
    if "automated queries" in text or "unusual traffic" in text:
        raise Lost(must(where, "be downloadable", "Google's page against robots", "Try again later"), "rate-limited")
    if status >= 400:
        return None
    form = _Form()
    form.feed(page)
    return _confirmed(form, page_url, where)


def yandex_href(body: bytes, *, url: str, status: int) -> str:
    """The address of a public link's file, out of the answer of Yandex Disk.

    Args:
        body: JSON.
        url: the link, for messages.
        status: of the answer; 200, or one that stands for itself (403, 404, ...).

    Raises:
        MediaError: ``quota``, ``not-found``, ``forbidden``, or ``failed`` for an answer of another form.
    """
    where = shown(url)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    href, error = answer.get("href"), str(answer.get("error", ""))[:100]
    if status == 200 and isinstance(href, str) and _may_lead(href, YANDEX_DOWNLOAD, (".yandex.ru", ".yandex.net")):
        return href
    if re.search(r"limit|quota|exceed", error, re.IGNORECASE):
        raise _refused(where, "be downloadable", f"{status} {error}", "quota", "Try again in a day")
    reasons: dict[int, Reason] = {401: "forbidden", 403: "forbidden", 404: "not-found", 410: "not-found"}
    got = f"{status} {error or 'without an address'}"
    raise _refused(where, "be a public link of Yandex Disk", got, reasons.get(status, "failed"))


def shown(url: str) -> str:
    """An address as people may see it: no credentials, no query (but a file's id), nothing that a terminal obeys."""
    parts = _split(url)
    if not parts.netloc:
        text = url.split("?")[0] if parts.scheme else parts.path if parts.is_broken else url
    else:
        host = parts.netloc.rpartition("@")[2]
        query = {key: values[0] for key, values in parse_qs(parts.query[:4096]).items() if key in _SHOWN_KEYS}
        text = f"{parts.scheme}://{host}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= _SHOWN_LENGTH else clean[:_SHOWN_LENGTH] + "..."


def host_of(url: str) -> str:
    """Host and port; empty for a local path."""
    return _split(url).netloc.rpartition("@")[2].lower()


class _Parts:
    """`urlsplit` that takes any text."""

    def __init__(self, url: str) -> None:
        self.scheme = self.netloc = self.path = self.query = ""
        self.hostname: str | None = None
        self.is_broken = False
        try:
            parts = urlsplit(url)
            self.hostname = parts.hostname
            self.scheme, self.netloc, self.path, self.query = parts.scheme, parts.netloc, parts.path, parts.query
        except ValueError:
            self.is_broken, self.path = True, url.rpartition("@")[2].split("?")[0]


_split = _Parts


def _drive_route(url: str) -> Route:
    parts = _split(url)
    query = parse_qs(parts.query)
    if "/folders/" in parts.path or parts.path.startswith("/embeddedfolderview"):
        fix = "Download the folder by hand, and name it as source"
        raise _refused(shown(url), "be a link to one file", "a folder of Google Drive", "unsupported", fix)
    found = re.search(r"/d/([A-Za-z0-9_-]{10,200})", parts.path)
    file_id = found.group(1) if found else (query.get("id") or [""])[0]
    if not _ID.fullmatch(file_id) or "/document/" in parts.path or "/spreadsheets/" in parts.path:
        return Route("plain", url)
    asked = {"export": "download", "id": file_id}
    if key := query.get("resourcekey"):
        asked["resourcekey"] = key[0]
    return Route("drive", f"{DRIVE_DOWNLOAD}?{urlencode(asked)}")


def _yandex_api(url: str) -> str:
    """A path behind the link's own (``/d/<key>/a/b.zip``) is one inside the public folder."""
    parts = _split(url)
    pieces = parts.path.split("/")
    asked = {"public_key": f"https://{parts.netloc.rpartition('@')[2]}{'/'.join(pieces[:3])}"}
    if parts.path.startswith("/public"):
        asked["public_key"] = (parse_qs(parts.query).get("hash") or [""])[0]
    elif len(pieces) > 3 and any(pieces[3:]):
        asked["path"] = unquote("/" + "/".join(pieces[3:]))
    return f"{YANDEX_DOWNLOAD}?{urlencode(asked)}"


class _Form(HTMLParser):
    """Finds the form behind "Download anyway", or the link of older pages."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.link: str | None = None
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the form's address, its hidden fields and the older link."""
        values: Mapping[str, str | None] = dict(attrs)
        if tag == "form" and values.get("id") in ("download-form", "downloadForm"):
            self.action, self._is_inside = values.get("action") or "", True
        elif tag == "input" and self._is_inside and values.get("name") and len(self.fields) < 20:
            self.fields[str(values["name"])] = values.get("value") or ""
        elif tag == "a" and self.link is None and "confirm=" in (values.get("href") or ""):
            self.link = values.get("href")

    def handle_endtag(self, tag: str) -> None:
        """Note the form's end."""
        if tag == "form":
            self._is_inside = False


def _confirmed(form: _Form, page_url: str, where: str) -> str | None:
    if form.action is None and form.link is None:
        return None
    try:
        target = urljoin(page_url, form.action if form.action is not None else form.link or "")
    except ValueError:
        target = ""
    if not _may_lead(target, DRIVE_DOWNLOAD, GOOGLE):
        raise _refused(where, "lead on to a host of Google", shown(target), "redirects")
    if form.action is None:
        return target
    bare, _, query = target.partition("?")
    fields = {key: values[0] for key, values in parse_qs(query).items()} | form.fields
    return f"{bare}?{urlencode(fields)}"


def _may_lead(target: str, api: str, hosts: tuple[str, ...]) -> bool:
    """Whether an address that a page or an API names is the service's own."""
    parts, own = _split(target), _split(api)
    if parts.scheme == own.scheme and parts.netloc == own.netloc:
        return True
    return parts.scheme == "https" and f".{parts.hostname}".endswith(hosts)


def _refused(where: str, rule: str, got: str, reason: Reason, fix: str = "") -> MediaError:
    return MediaError(must(where, rule, got, fix), reason)
