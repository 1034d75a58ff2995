"""Why a video can't be had: yt-dlp's sentences sorted into the closed list of reasons.

The sentences are those of YouTube's player, of yt-dlp's extractors and of its downloader (yt-dlp 2026.10).
"""

from __future__ import annotations

import re

from preprocessing.fetch_links import shown
from preprocessing.video_types import Reason

_RULES: tuple[tuple[Reason, str], ...] = (
    ("bot-check", r"not a bot|captcha|anti-bot challenge|JS challenge|Unable to extract challenge data"),
    ("rate-limited", r"HTTP Error 429|Too Many Requests|rate.?limit|content isn't available, try again later"),
    ("age-restricted", r"confirm your age|age.restrict|inappropriate for some|age.verif|adults? only|\(age limit"),
    (
        "geo-blocked",
        r"in your country|in your (region|location)|from your (country|region|location)|geo.?restrict|geo.?block"
        r"|HTTP Error 451|not available in the country",
    ),
    (
        "private",
        r"private|members.only|channel's members|requires payment|paying|pay to watch|purchase|rental|rent this"
        r"|Premium members|subscription|subscriber|supporter.only|registered users|log ?in|login details|sign in"
        r"|HTTP Error 401|HTTP Error 407|password|only available (to|for)|invite.only",
    ),
    (
        "removed",
        r"has been (removed|terminated|deleted|closed)|was (removed|deleted)|no longer available|copyright"
        r"|HTTP Error 410|account .*(terminated|closed)|taken down|violat",
    ),
    ("redirects", r"redirect loop|redirect error|too many redirects|infinite loop"),
    ("not-found", r"HTTP Error 404|does not exist|not found|Incomplete YouTube ID|URL looks truncated"),
    ("server-error", r"HTTP Error 5\d\d|Service temporarily unavailable|server error|Internal Error"),
    ("forbidden", r"HTTP Error 403|HTTP Error 4\d\d|Forbidden|IP address is blocked|rejected by server|access denied"),
    (
        "unsupported",
        r"Unsupported URL|is not a valid URL|DRM|Requested format is not available|No video formats|live event"
        r"|livestream|live stream|Premieres in|Premiere will|not currently live|is not live|will begin"
        r"|only images are available|no suitable (extractor|InfoExtractor)|not supported|playlist",
    ),
    (
        "removed",
        r"video (is )?(unavailable|not available)|video isn't available|content isn't available|not available\b",
    ),
    (
        "network",
        r"timed? ?out|resolve|Name or service not known|name resolution|Connection|connect to|Remote end closed"
        r"|more expected|unreachable|SSL|EOF occurred|CERTIFICATE|proxy|Giving up after|data blocks|bytes, expected"
        r"|Disconnected|IncompleteRead|TransportError|Broken pipe",
    ),
)
"""The first pattern that a sentence holds decides: the particular before the general."""
_FIXES: dict[Reason, str] = {
    "bot-check": "Name a cookie file (fetching.cookies) or another way out (fetching.proxy), and retry bot-check",
    "rate-limited": "Wait an hour, raise fetching.pause_s, and retry rate-limited",
    "age-restricted": "Name the cookie file of an account that is of age (fetching.cookies)",
    "private": "Name the cookie file of an account that may see it (fetching.cookies)",
    "geo-blocked": "Set fetching.proxy to a country where it is shown",
    "forbidden": "Try again later, or with fetching.cookies",
    "network": "See that the host can be reached, and retry network",
    "server-error": "Try again later",
}
_PATTERNS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _RULES)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.")
_ADDRESS = re.compile(r"https?://\S+")
_LABEL = re.compile(r"^(ERROR: ?)?(\[[\w:.+-]+\] )?([\w=-]{1,64}: )?")
_TAIL = re.compile(
    r"(;|\.) *please report this issue on .*|\(caused by .*|\.? *(Use|Also see) +(--[\w-]+|https?:).*"
    r"|\.? *For more information, refer to .*",
    re.IGNORECASE | re.DOTALL,
)
_MAX_LETTERS = 240


def reason_of(message: str) -> Reason:
    """The machine word for one of yt-dlp's messages; ``failed`` where nothing in it is known."""
    text = _plain(message)
    text = _ADDRESS.sub("", _LABEL.sub("", text))  # an id or address is no word of the sentence
    for reason, pattern in _PATTERNS:
        if pattern.search(text):
            return reason
    return "failed"


def sentence_of(message: str) -> str:
    """What yt-dlp says, on one line, without colours, labels, advice on its options, and the plea for a report."""
    text = _TAIL.sub("", _LABEL.sub("", _plain(message))).strip(" .")
    text = _ADDRESS.sub(lambda found: shown(found[0]), text)  # it may hold a key
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    if not clean:
        return "no word of explanation"
    return clean if len(clean) <= _MAX_LETTERS else clean[:_MAX_LETTERS] + "..."


def fix_of(reason: Reason) -> str:
    """What one can do about it; empty where nothing helps."""
    return _FIXES.get(reason, "")


def _plain(message: str) -> str:
    return " ".join(_COLOUR.sub("", message[:10_000]).replace("\u2019", "'").split())
